//! A call of the C library's resolver.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// A host name has 253 characters at most (RFC 1035, 2.3.4), and a NUL here.
pub const HOST_NAME_BYTES: usize = 256;
/// Addresses kept of an answer.
pub const RESOLVED_MAX: usize = 16;

/// [`super::Kind::Resolve`]: `getaddrinfo` returned. All of it comes from user memory.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Resolve {
    pub header: Header,
    /// What it returned: 0, or one of its own error numbers.
    pub error: i32,
    /// Bytes of `name`, with its NUL. A name that fills the array was cut.
    pub name_len: u32,
    /// Of `families` and `addresses`.
    pub count: u32,
    /// Not 0: there were more of them.
    pub more: u32,
    /// `AF_INET` or `AF_INET6`.
    pub families: [u16; RESOLVED_MAX],
    /// The first four bytes, or all.
    pub addresses: [[u8; 16]; RESOLVED_MAX],
    pub name: [u8; HOST_NAME_BYTES],
}
