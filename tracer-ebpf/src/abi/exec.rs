//! A successful exec.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{FileKey, Header};

/// Longest filename, path or cwd that is carried, in bytes (`PATH_MAX`).
pub const NAME_MAX_BYTES: usize = 4096;
/// Deepest path that is carried, in components.
pub const PATH_PARTS_MAX: u32 = 64;
/// How much of an argv the exec record itself carries.
pub const ARGV_INLINE_MAX: usize = 4096;
/// Bytes of argv in one [`ArgvChunk`].
pub const ARGV_CHUNK_BYTES: usize = 4096;
/// The kernel limits argv and environment together to three quarters of 8 MiB (`_STK_LIM / 4 * 3`
/// in fs/exec.c), so this many chunks hold any argv.
pub const ARGV_CHUNKS_MAX: u32 = 6 * 1024 * 1024 / ARGV_CHUNK_BYTES as u32;

/// How many environment variables the collector can ask about: one bit of a word each.
pub const VARIABLES_MAX: u32 = u64::BITS;
/// What is compared of an entry of the environment, in bytes.
pub const VARIABLE_KEY_BYTES: usize = 64;
/// Longest name of such a variable, in bytes: one more is for the `=` behind it.
pub const VARIABLE_NAME_MAX: usize = VARIABLE_KEY_BYTES - 1;

/// A variable that the collector asks about.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Variable {
    /// Its bit.
    pub number: u32,
    /// Where its value begins in an entry: behind its name and the `=`.
    pub value_at: u32,
}

/// Bits of [`Exec::exec_flags`].
pub mod exec_flag {
    /// The executed file is an anonymous memory file (`memfd_create`).
    pub const MEMFD: u32 = 1 << 0;
    /// The executed file has no name in any directory (deleted, `O_TMPFILE`, memfd).
    pub const UNLINKED: u32 = 1 << 1;
    /// `filename` is a script; the executed file is its interpreter.
    pub const SCRIPT: u32 = 1 << 2;
    /// The kernel drops inherited perf counters of this process here (setuid or unreadable
    /// program: `begin_new_exec`, fs/exec.c), so the exec witness is blind from this exec on.
    pub const WITNESS_DETACHED: u32 = 1 << 3;
    /// `path` has more than [`PATH_PARTS_MAX`] components or does not fit: its beginning is absent.
    pub const PATH_CUT: u32 = 1 << 4;
    /// The same for `cwd`.
    pub const CWD_CUT: u32 = 1 << 5;
    /// The same for `script_path`.
    pub const SCRIPT_PATH_CUT: u32 = 1 << 6;
    /// A rule forbids the program: SIGKILL is pending, so its first instruction never runs.
    pub const KILLED: u32 = 1 << 7;
}

/// The file the kernel executed, from its inode.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ExecFile {
    pub key: FileKey,
    pub size_bytes: u64,
    pub mtime_s: i64,
    pub ctime_s: i64,
    pub mtime_ns: u32,
    pub ctime_ns: u32,
    pub mode: u32,
    pub links: u32,
}

/// What a descriptor is open on; zeroes when it is closed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Stdio {
    pub key: FileKey,
    /// As `stat(2)` has it: the kind of file and its permissions.
    pub mode: u32,
    /// Of a device file, which one it is, in the encoding of [`FileKey::device`].
    pub device: u32,
}

/// [`super::Kind::Exec`]. Followed by `filename_len + interp_len + path_len + cwd_len +
/// script_path_len + argv_inline_len` bytes, in that order.
///
/// `path`, `cwd` and `script_path` are written leaf first, each component ended by a NUL, because that is the
/// order in which the kernel can walk them.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Exec {
    pub header: Header,
    pub file: ExecFile,
    /// Zeroes unless [`exec_flag::SCRIPT`].
    pub script: ExecFile,
    pub cgroup_id: u64,
    /// Standard input and output of the new image.
    pub stdio: [Stdio; 2],
    /// Variables of its environment that have a value, of those the collector asked about: one bit
    /// each, by the number that the collector gave it. Values stay where they are.
    pub environment: u64,
    /// `mm->arg_end - mm->arg_start`: all of argv, NULs included.
    pub argv_len: u64,
    pub exec_flags: u32,
    /// Thread that called exec. Differs from the header's `tid` when it was not the leader.
    pub old_tid: u32,
    pub ns_pid: u32,
    pub pid_ns_inum: u32,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
    pub argc: u32,
    pub argv_inline_len: u32,
    /// Chunks that were submitted before this record; lost ones are not among them.
    pub argv_chunks: u32,
    pub filename_len: u32,
    pub interp_len: u32,
    pub path_len: u32,
    pub cwd_len: u32,
    pub script_path_len: u32,
}

/// [`super::Kind::ArgvChunk`]: argv bytes from [`ARGV_INLINE_MAX`] on, in a ring of their own.
///
/// Chunks of an exec carry the exec record's `tgid` and `time_ns` and are submitted before it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ArgvChunk {
    pub header: Header,
    /// Position in argv of the first byte.
    pub offset_bytes: u64,
    pub len: u32,
    pub padding: u32,
    pub bytes: [u8; ARGV_CHUNK_BYTES],
}
