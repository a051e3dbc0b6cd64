//! The beginnings of streams, DNS messages and QUIC Initial packets.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Flow, Header};

/// Room for bytes in a record; the smaller one is taken where it suffices.
pub const PAYLOAD_BYTES: usize = 4096;
/// How much of the beginning of a stream of DNS messages is taken, each way: names follow each other in it.
pub const DNS_STREAM_BYTES: u32 = 16 * 1024;
/// QUIC Initial packets that are taken of a datagram socket and a destination. The last one stands for those
/// that follow, too.
pub const QUIC_INITIALS_MAX: u32 = 64;
pub const PAYLOAD_SMALL_BYTES: usize = 512;

/// [`super::Kind::Payload`]. Followed by `len` bytes, and by what else the record has room for.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Payload {
    pub header: Header,
    /// The socket and the other end, whichever the direction.
    pub flow: Flow,
    /// As in its [`super::Connect`]; 0 for datagrams.
    pub connection: u64,
    /// In the TCP stream of that direction; 0 for datagrams.
    pub offset_bytes: u64,
    /// How long the piece was on the wire.
    pub wire_bytes: u32,
    /// How much of it follows.
    pub len: u32,
    /// 1 when the socket received it.
    pub incoming: u32,
    pub padding: u32,
}
