//! Processes that run already when tracing starts.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the `find` program is to do with a process; its third argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Finding {
    /// Only to say what it is.
    Look = 0,
    /// To put it into the tree.
    Enrol = 1,
}

/// Values of [`FoundProcess::state`].
pub mod found_state {
    /// Its last thread has ended.
    pub const ENDED: u32 = 0;
    /// It is not in the tree.
    pub const OUTSIDE: u32 = 1;
    /// It was in the tree already.
    pub const INSIDE: u32 = 2;
    /// It is in the tree from now on.
    pub const ENROLLED: u32 = 3;
    /// There is no room for it in the tree.
    pub const NO_ROOM: u32 = 4;
    /// It is a thread of the kernel's own.
    pub const KERNEL: u32 = 5;
}

/// What the collector switches on and off while the probes are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Switch {
    /// Births outside the tree are noted.
    NoteBirths = 0,
    /// Whoever joins the cgroup joins the tree.
    FollowCgroup = 1,
}

impl Switch {
    pub const COUNT: u32 = 2;
}

/// What `find` says of the process behind a pidfd.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct FoundProcess {
    pub start_ns: u64,
    /// Of the v2 hierarchy; 0 when it could not be read.
    pub cgroup_id: u64,
    pub tgid: u32,
    /// The parent that `getppid` gives it.
    pub parent_tgid: u32,
    /// In its innermost pid namespace; 0 when it could not be read.
    pub ns_pid: u32,
    pub pid_ns_inum: u32,
    /// The kernel's number of its image, which an exec raises.
    pub exec_id: u32,
    /// One of [`found_state`].
    pub state: u32,
}

/// Who bore a process outside the tree, and whether that process has ended.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Birth {
    pub parent: ProcessName,
    /// Not 0 when the process has ended.
    pub ended: u64,
}

/// A process by the names that are never reused together.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ProcessName {
    pub start_ns: u64,
    pub tgid: u32,
    pub padding: u32,
}
