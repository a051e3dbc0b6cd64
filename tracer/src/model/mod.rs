//! What the kernel reported, decoded. No serialisation, no IO.

mod bytes;
mod event;
mod ids;

pub use bytes::Bytes;
pub use event::{
    ArgvPiece, CloseEvent, ConnectEvent, ConnectResultEvent, Event, EventHeader, ExecEvent,
    ExitEvent, ForkEvent, RootEvent,
};
pub(crate) use ids::nanoseconds;
pub use ids::{Device, Endpoint, FileId, FileVersion, ProcessKey};
