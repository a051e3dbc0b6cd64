//! What a TLS library was given to encrypt, and what it had decrypted.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// Room for bytes in a record; the smaller one is taken where it suffices.
pub const TLS_PIECE_BYTES: usize = 4096;
pub const TLS_SMALL_BYTES: usize = 512;
/// What is taken of one call at most. Of the rest, its length is known.
pub const TLS_CALL_BYTES_MAX: u32 = 256 * 1024;
/// A call of which is not known how many bytes it was counts as this many: more than any hole has.
pub const TLS_UNKNOWN_BYTES: u64 = 1 << 40;
/// Of a ClientHello (RFC 8446, 4.1.2).
pub const TLS_RANDOM_BYTES: usize = 32;
/// Where the random bytes of a session may be, at most.
pub const TLS_PLACES_MAX: usize = 4;
/// Files whose places can be told apart.
pub const TLS_FILES_MAX: u32 = 1024;

/// [`super::Kind::TlsData`]. Followed by `len` bytes, and by what else the record has room for.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TlsData {
    pub header: Header,
    /// A number that no other session of the process has.
    pub stream: u64,
    /// Bytes of the session in that direction before these.
    pub offset_bytes: u64,
    /// When the call began. The header has when it returned.
    pub began_ns: u64,
    /// How many bytes the record stands for.
    pub length_bytes: u64,
    /// How many of them follow.
    pub len: u32,
    /// 1 when the process received them.
    pub received: u32,
}

/// [`super::Kind::TlsBegin`]: the first bytes of a session.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TlsBegin {
    pub header: Header,
    pub stream: u64,
    /// Where the process has the session (`SSL *`).
    pub session: u64,
    /// Of `randoms`.
    pub count: u32,
    pub padding: u32,
    /// What is at the places that may hold the random bytes of its ClientHello. Any of them may be
    /// something else.
    pub randoms: [[u8; TLS_RANDOM_BYTES]; TLS_PLACES_MAX],
}

/// [`super::Kind::TlsEnd`]: a session was given back.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TlsEnd {
    pub header: Header,
    pub stream: u64,
    /// Bytes sent and received, so that it is known whether the last ones came.
    pub bytes: [u64; 2],
}

/// Where a session may have the random bytes of its ClientHello: at `at` in it, or in what the pointer
/// at `pointer_at` leads to.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct TlsPlace {
    /// [`NO_POINTER`] for none.
    pub pointer_at: u32,
    /// 0 for no place.
    pub at: u32,
}

/// See [`TlsPlace::pointer_at`].
pub const NO_POINTER: u32 = u32::MAX;

/// The places of one file.
pub type TlsPlaces = [TlsPlace; TLS_PLACES_MAX];

/// Which session: where a process has it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct TlsKey {
    pub session: u64,
    pub tgid: u32,
    pub padding: u32,
}

/// What is known of a session that has not ended.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TlsSession {
    pub stream: u64,
    /// Whose it is: a process with this number may be another one by now, or have another image.
    pub start_ns: u64,
    pub exec_id: u32,
    pub padding: u32,
    /// Bytes sent and received.
    pub bytes: [u64; 2],
}
