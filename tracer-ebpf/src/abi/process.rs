//! Where processes come from and how they end.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// [`super::Kind::Root`]: the collector enrolled this process. The header names it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Root {
    pub header: Header,
    /// Process id in the innermost pid namespace of the process.
    pub ns_pid: u32,
    /// The process that started it; outside the tree.
    pub parent_tgid: u32,
}

/// [`super::Kind::Fork`]: the process in the header created a process (not a thread).
///
/// Reserved before the child runs, so it precedes every record of the child in the ring.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Fork {
    pub header: Header,
    pub child_start_ns: u64,
    pub child_tgid: u32,
    /// In the innermost pid namespace of the child.
    pub child_ns_pid: u32,
    /// The parent that `getppid` gives: not the creator after `CLONE_PARENT`.
    pub child_parent_tgid: u32,
    pub padding: u32,
}

/// [`super::Kind::Exit`]: the last thread of the process in the header is ending.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Exit {
    pub header: Header,
    /// As `wait(2)` encodes it: exit code in bits 8 to 15, or the signal in bits 0 to 6.
    pub wait_status: u32,
    /// How often it executed something, by the kernel's own count (`self_exec_id`).
    pub execs: u32,
}
