//! An exec that failed.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// Longest filename of an attempt that is carried, with its NUL.
pub const ATTEMPT_NAME_BYTES: usize = 1024;
/// How many arguments of an attempt are carried at most.
pub const ATTEMPT_ARGS_MAX: u64 = 16;
/// Longest argument of an attempt that is carried, with its NUL.
pub const ATTEMPT_ARG_BYTES: usize = 256;
/// Arguments are appended until this position is passed.
pub const ATTEMPT_ARGV_BYTES: usize = 1024;

/// [`super::Kind::Attempt`]. The names are read from the caller's memory after the call has failed:
/// another thread of the same process can have changed them by then.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Attempt {
    pub header: Header,
    /// Why it failed, as a positive number.
    pub errno: u32,
    /// With the NUL; no NUL at the end means that it was cut.
    pub filename_len: u32,
    /// Bytes of `argv`, each argument with its NUL.
    pub argv_len: u32,
    /// 1 when nothing of argv is missing.
    pub argv_complete: u32,
    pub filename: [u8; ATTEMPT_NAME_BYTES],
    pub argv: [u8; ATTEMPT_ARGV_BYTES + ATTEMPT_ARG_BYTES],
}
