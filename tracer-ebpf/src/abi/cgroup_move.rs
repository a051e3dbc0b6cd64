//! Processes that leave the command's cgroup.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// How much of a cgroup's path is carried, with its NUL.
pub const CGROUP_PATH_BYTES: usize = 256;

/// [`super::Kind::CgroupMove`]: the process in the header is in another cgroup from here on.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CgroupMove {
    pub header: Header,
    /// As `bpf_get_current_cgroup_id` gives it.
    pub to_cgroup_id: u64,
    /// Bytes of `to_path`, with its NUL; 0 when the kernel did not say.
    pub to_path_len: u32,
    pub padding: u32,
    /// In the cgroup namespace of the machine's first process.
    pub to_path: [u8; CGROUP_PATH_BYTES],
}
