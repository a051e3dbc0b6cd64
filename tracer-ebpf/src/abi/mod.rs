//! One payload per file; [`Kind`] is the list of them.

mod attempt;
mod cgroup_move;
mod config;
mod connect;
mod datagram;
mod exec;
mod foreign_send;
mod found;
mod header;
mod odd_socket;
mod outside;
mod payload;
mod process;
mod resolve;
mod rule;
mod stats;
mod tls;

pub use attempt::{
    ATTEMPT_ARG_BYTES, ATTEMPT_ARGS_MAX, ATTEMPT_ARGV_BYTES, ATTEMPT_NAME_BYTES, Attempt,
};
pub use cgroup_move::{CGROUP_PATH_BYTES, CgroupMove};
pub use config::{FAIL_NEVER, Role};
pub use connect::{AF_INET, AF_INET6, Close, Connect, ConnectResult, SocketAddress, route};
pub use datagram::{Asked, Datagram, Flow, FlowTotals, Via};
pub use exec::{
    ARGV_CHUNK_BYTES, ARGV_CHUNKS_MAX, ARGV_INLINE_MAX, ArgvChunk, Exec, ExecFile, NAME_MAX_BYTES,
    PATH_PARTS_MAX, Stdio, VARIABLE_KEY_BYTES, VARIABLE_NAME_MAX, VARIABLES_MAX, Variable,
    exec_flag,
};
pub use foreign_send::ForeignSend;
pub use found::{Birth, Finding, FoundProcess, ProcessName, Switch, found_state};
pub use header::{Header, Kind, UnknownKind, header_flag, unread};
pub use odd_socket::{OddSocket, SOCK_RAW};
pub use outside::{Intrusion, LocalSend, Means, SOCKET_NAME_BYTES};
pub use payload::{
    DNS_STREAM_BYTES, PAYLOAD_BYTES, PAYLOAD_SMALL_BYTES, Payload, QUIC_INITIALS_MAX,
};
pub use process::{Exit, Fork, Root};
pub use resolve::{HOST_NAME_BYTES, RESOLVED_MAX, Resolve};
pub use rule::{NAME_BYTES_MAX, NAME_HASH_START, RULES_MAX, name_hash, name_hash_step};
pub use stats::{FAULT_COUNT, Fault, FileKey, KIND_COUNT, KindStats, Stats};
pub use tls::{
    NO_POINTER, TLS_CALL_BYTES_MAX, TLS_FILES_MAX, TLS_PIECE_BYTES, TLS_PLACES_MAX,
    TLS_RANDOM_BYTES, TLS_SMALL_BYTES, TLS_UNKNOWN_BYTES, TlsBegin, TlsData, TlsEnd, TlsKey,
    TlsPlace, TlsPlaces, TlsSession,
};
