//! The command's cgroup (v2), to which the programs on sockets are attached.

use aya_ebpf::Global;

use super::{
    field::{self, KernelPtr},
    task::Task,
};

/// Id of the command's cgroup; 0 when it has none.
#[unsafe(no_mangle)]
static COMMAND_CGROUP: Global<u64> = Global::new(0);

/// How deep the command's cgroup may lie; if it lies deeper, every other cgroup counts as outside.
const LEVELS_MAX: u64 = 16;

/// A `struct cgroup`.
#[derive(Clone, Copy)]
pub(crate) struct Cgroup(pub(crate) KernelPtr);

impl Cgroup {
    /// Of a task, in the v2 hierarchy.
    #[inline(always)]
    pub(crate) fn of(task: Task) -> Option<Cgroup> {
        task.0.follow(&field::TASK_CGROUPS)?.follow(&field::CSS_SET_DEFAULT).map(Cgroup)
    }

    #[inline(always)]
    pub(crate) fn id(self) -> Option<u64> {
        self.0.follow(&field::CGROUP_NODE)?.read(&field::KERNFS_ID)
    }

    /// Whether it belongs to the v2 hierarchy, which is number 0 (`cgrp_dfl_root`).
    #[inline(always)]
    pub(crate) fn is_v2(self) -> bool {
        let root = self.0.follow(&field::CGROUP_ROOT);
        root.and_then(|root| root.read::<u32>(&field::CGROUP_HIERARCHY)) == Some(0)
    }

    /// Whether the programs of the command's cgroup do not see the sockets made in this one: it is
    /// neither that cgroup nor below it. A failed read counts as outside.
    #[inline(always)]
    pub(crate) fn is_outside(self) -> bool {
        let Some(level) = self.0.read::<u32>(&field::CGROUP_LEVEL) else { return true };
        let Some(ancestors) = self.0.at(&field::CGROUP_ANCESTORS) else { return true };
        let mut at = 0;
        while at < LEVELS_MAX {
            if at > u64::from(level) {
                break;
            }
            let ancestor: u64 =
                KernelPtr(ancestors.0 + at * size_of::<u64>() as u64).load().unwrap_or(0);
            if Cgroup(KernelPtr(ancestor)).id() == Some(COMMAND_CGROUP.load()) {
                return false;
            }
            at += 1;
        }
        true
    }
}

/// Whether the command has a cgroup of its own.
#[inline(always)]
pub(crate) fn is_there() -> bool {
    COMMAND_CGROUP.load() != 0
}
