//! Processes of the tree that have ended, and are still who listened at a socket.
//!
//! A socket names its peer by a `struct pid` that it holds. The number in it may be another process's
//! once its own is reaped, but nothing else gets its address as long as it is held. So it is known by
//! its address, which the next process that is born at it takes away again.

use aya_ebpf::{Global, macros::map, maps::LruHashMap};

use super::{
    field::{self, KernelPtr},
    task::Task,
};

/// Whether sends to processes outside the tree are watched. Frozen at load: births outside the tree
/// cost a look-up more.
#[unsafe(no_mangle)]
static WATCH_SENDS: Global<u32> = Global::new(0);

/// Addresses of `struct pid`. Where there are too many, the one that was not asked for the longest is
/// forgotten: what is sent there counts as sent out of the tree.
#[map]
static ENDED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(1, 0);

/// The last thread of a process of the tree ends. Before it leaves the tree, so that it is known in one
/// place or the other.
#[inline(always)]
pub(crate) fn remember(task: Task) {
    // Its tasks' own; more are those of sockets, pidfds, and whoever waits for it.
    const NOBODY_ELSE: u32 = 1;
    if WATCH_SENDS.load() == 0 {
        return;
    }
    let Some(pid) = of_process(task) else { return };
    // What nobody holds by now nobody can get hold of.
    if pid.read::<u32>(&field::PID_COUNT) != Some(NOBODY_ELSE) {
        let _ = ENDED.insert(pid.0, 1u32, 0);
    }
}

/// A process is born outside the tree. No socket can have its `struct pid` yet.
#[inline(always)]
pub(crate) fn forget(child: Task) {
    if WATCH_SENDS.load() == 0 {
        return;
    }
    if let Some(pid) = of_process(child)
        && has(pid)
    {
        let _ = ENDED.remove(pid.0);
    }
}

#[inline(always)]
pub(crate) fn has(pid: KernelPtr) -> bool {
    // SAFETY: only whether there is an entry is asked.
    unsafe { ENDED.get(pid.0) }.is_some()
}

#[inline(always)]
fn of_process(task: Task) -> Option<KernelPtr> {
    task.leader()?.0.follow(&field::TASK_THREAD_PID)
}
