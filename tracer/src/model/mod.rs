//! What the kernel reported, decoded. No serialisation, no IO.

mod bytes;
mod event;
mod ids;

pub use bytes::Bytes;
pub use event::{
    ArgvPiece, AttemptEvent, CgroupMoveEvent, CloseEvent, ConnectEvent, ConnectResultEvent,
    DatagramEvent, Event, EventHeader, ExecEvent, ExitEvent, ForeignSendEvent, ForkEvent,
    IntrusionEvent, LocalSendEvent, OddSocketEvent, PayloadEvent, ResolveEvent, RootEvent,
    TlsBeginEvent, TlsDataEvent, TlsEndEvent,
};
pub(crate) use ids::nanoseconds;
pub use ids::{Device, Endpoint, FileId, FileVersion, ProcessKey};
