//! From the bytes of a ring to events.

mod decode;
mod drain;

pub use decode::{DecodeError, decode, flow_destination};
pub use drain::{Drain, ReadCounts};
