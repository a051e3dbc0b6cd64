//! Sockets whose traffic is not followed.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// As `socket(2)` numbers it.
pub const SOCK_RAW: u16 = 3;

/// [`super::Kind::OddSocket`]: once per process and kind of socket. Numbers as in `socket(2)`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct OddSocket {
    pub header: Header,
    pub family: u16,
    /// Without its flags.
    pub socket_type: u16,
    pub protocol: u16,
    pub padding: u16,
}
