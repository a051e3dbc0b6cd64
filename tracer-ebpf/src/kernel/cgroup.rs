//! The command's cgroup (v2), to which the programs on sockets are attached.

use aya_ebpf::{Global, macros::map, maps::Array};

use tracer_ebpf::abi::Switch;

use super::{
    births,
    field::{self, KernelPtr},
    task::Task,
};

/// Id of the command's cgroup; 0 when it has none.
#[unsafe(no_mangle)]
static COMMAND_CGROUP: Global<u64> = Global::new(0);

/// Not 0: whoever joins that cgroup joins the tree.
#[unsafe(no_mangle)]
static FOLLOW_CGROUP: Global<u32> = Global::new(0);

/// How deep the command's cgroup lies, plus one; 0 until a process in it was enrolled. Nobody else can
/// say it: seen from a cgroup namespace, every path begins at that namespace's root.
#[map]
static COMMAND_LEVEL: Array<u32> = Array::with_max_entries(1, 0);

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

    #[inline(always)]
    fn is_the_commands(self) -> bool {
        match self.id() {
            Some(id) => id == COMMAND_CGROUP.load(),
            None => false,
        }
    }

    /// Whether the programs of the command's cgroup do not see the sockets made in this one: it is
    /// neither that cgroup nor below it. A failed read counts as outside.
    #[inline(always)]
    pub(crate) fn is_outside(self) -> bool {
        self.ancestor().is_none_or(|ancestor| ancestor.id() != Some(COMMAND_CGROUP.load()))
    }

    /// The one as deep as the command's.
    #[inline(always)]
    fn ancestor(self) -> Option<Cgroup> {
        let level = COMMAND_LEVEL.get(0)?.checked_sub(1)?;
        // The array has no more entries than that.
        if self.0.read::<u32>(&field::CGROUP_LEVEL)? < level {
            return None;
        }
        self.ancestor_at(level)
    }

    /// The caller knows that it lies as deep as that.
    #[inline(always)]
    fn ancestor_at(self, level: u32) -> Option<Cgroup> {
        let ancestors = self.0.at(&field::CGROUP_ANCESTORS)?.0;
        let entry = KernelPtr(ancestors + u64::from(level) * size_of::<u64>() as u64);
        entry.load().map(|ancestor| Cgroup(KernelPtr(ancestor)))
    }
}

/// To be called for each process that enrols itself: it is in the command's cgroup, or right below
/// the one that tracer is attached to.
#[inline(always)]
pub(crate) fn learn_level(task: Task) {
    if !is_there() {
        return;
    }
    let Some(cgroup) = Cgroup::of(task) else { return };
    let Some(level) = cgroup.0.read::<u32>(&field::CGROUP_LEVEL) else { return };
    // An element of an array can always be written.
    if cgroup.is_the_commands() {
        let _ = COMMAND_LEVEL.set(0, level + 1, 0);
    } else if level > 0
        && let Some(above) = cgroup.ancestor_at(level - 1)
        && above.is_the_commands()
    {
        let _ = COMMAND_LEVEL.set(0, level, 0);
    }
}

/// Whether whoever joins the cgroup joins the tree.
#[inline(always)]
pub(crate) fn is_followed() -> bool {
    FOLLOW_CGROUP.load() != 0 && births::is_on(Switch::FollowCgroup)
}

/// Whether the command has a cgroup of its own.
#[inline(always)]
pub(crate) fn is_there() -> bool {
    COMMAND_CGROUP.load() != 0
}
