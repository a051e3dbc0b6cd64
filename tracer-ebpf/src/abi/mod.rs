//! One payload per file; [`Kind`] is the list of them.

mod config;
mod connect;
mod exec;
mod header;
mod process;
mod stats;

pub use config::{FAIL_NEVER, Role};
pub use connect::{AF_INET, AF_INET6, Close, Connect, ConnectResult, SocketAddress};
pub use exec::{
    ARGV_CHUNK_BYTES, ARGV_CHUNKS_MAX, ARGV_INLINE_MAX, ArgvChunk, Exec, ExecFile, NAME_MAX_BYTES,
    PATH_PARTS_MAX, exec_flag,
};
pub use header::{Header, Kind, UnknownKind, header_flag, unread};
pub use process::{Exit, Fork, Root};
pub use stats::{FAULT_COUNT, Fault, FileKey, KIND_COUNT, KindStats, Stats};
