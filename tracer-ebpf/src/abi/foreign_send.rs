//! Sockets of the internet that the tree uses and did not make.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Header, SocketAddress};

/// [`super::Kind::ForeignSend`]: bytes were sent over such a socket. Once per process, socket and
/// destination that it is connected to.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ForeignSend {
    pub header: Header,
    /// The destination is all zeroes for a socket that is not connected.
    pub address: SocketAddress,
    /// As `socket(2)` numbers it.
    pub protocol: u16,
    /// Likewise.
    pub socket_type: u16,
    pub padding: [u16; 2],
}
