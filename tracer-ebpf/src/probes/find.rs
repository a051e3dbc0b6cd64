//! Says who a running process is, and puts it into the tree.
//!
//! Never attached: the collector runs it on itself with `BPF_PROG_TEST_RUN`, and reads the answer
//! from [`FOUND`]. The process is named by a pidfd, which stands for one process and never for a later
//! one of the same number, in whatever pid namespace it is.

use aya_ebpf::{
    macros::{map, raw_tracepoint},
    maps::Array,
    programs::RawTracePointContext,
};
use tracer_ebpf::abi::{Exit, Finding, FoundProcess, Kind, Root, found_state, unread};

use super::cgroup::moved;
use crate::kernel::{
    cgroup::{self, Cgroup},
    emit, ended, field,
    task::Task,
    tree::{self, Member, Tracked},
};

#[map]
static FOUND: Array<FoundProcess> = Array::with_max_entries(1, 0);

/// Argument 0 is the pidfd, 1 whether it is a file of pidfs, 2 a [`Finding`]. Returns 0 when the
/// answer is in the map.
#[raw_tracepoint]
fn find(ctx: RawTracePointContext) -> i32 {
    match look(ctx.arg(0), ctx.arg::<u64>(1) != 0, ctx.arg(2)) {
        Some(()) => 0,
        None => 1,
    }
}

#[inline(always)]
fn look(descriptor: u64, of_pidfs: bool, finding: u64) -> Option<()> {
    let answer = FOUND.get_ptr_mut(0)?;
    // SAFETY: a map value lives as long as the map, and only the collector's one thread uses it.
    let answer = unsafe { &mut *answer };
    *answer = FoundProcess::default();
    let file = Task::current().open_file(descriptor)?;
    // A pidfd holds its struct pid in the file, and in the inode since it is a file of pidfs (6.9).
    let pid = if of_pidfs {
        file.follow(&field::FILE_INODE)?.follow(&field::INODE_PRIVATE)?
    } else {
        file.follow(&field::FILE_PRIVATE)?
    };
    let Some(task) = Task::of_pid(pid) else { return Some(()) };
    answer.start_ns = task.start_ns()?;
    answer.tgid = task.tgid()?;
    answer.parent_tgid = task.parent_tgid()?;
    answer.exec_id = task.exec_id()?;
    answer.cgroup_id = Cgroup::of(task).and_then(Cgroup::id).unwrap_or(0);
    if let Some(inner) = task.namespace_pid() {
        answer.ns_pid = inner.pid;
        answer.pid_ns_inum = inner.ns_inum;
    }
    answer.state = if task.is_kernel_thread()? {
        found_state::KERNEL
    } else if task.live_threads()? == 0 {
        found_state::ENDED
    } else if tree::find(answer.tgid).is_some_and(|member| member.start_ns == answer.start_ns) {
        found_state::INSIDE
    } else if finding != Finding::Enrol as u64 {
        found_state::OUTSIDE
    } else if enter(task) {
        found_state::ENROLLED
    } else {
        found_state::NO_ROOM
    };
    Some(())
}

/// Puts a running process into the tree. What it does at this moment may come too early to be seen.
#[inline(always)]
pub(super) fn enter(task: Task) -> bool {
    let (Some(tgid), Some(start_ns), Some(exec_id)) =
        (task.tgid(), task.start_ns(), task.exec_id())
    else {
        return false;
    };
    let member = Member { start_ns, flags: 0, exec_id };
    // First, because everything that it does as a member comes after it in the ring.
    emit::record(Kind::Root, |root: &mut Root| {
        emit::fill_header(&mut root.header, Kind::Root, tgid, tgid, &member);
        match task.namespace_pid() {
            Some(inner) => root.ns_pid = inner.pid,
            None => root.header.unread |= unread::NS_PID,
        }
        match task.parent_tgid() {
            Some(parent) => root.parent_tgid = parent,
            None => root.header.unread |= unread::PARENT,
        }
    });
    let inserted = tree::insert(tgid, &member);
    // The last thread counts itself out before the exit hook looks for the process. Whoever takes it
    // out of the tree reports its end, once.
    let has_ended = task.live_threads().is_none_or(|threads| threads == 0);
    if has_ended {
        ended::remember(task);
    }
    if !inserted || (has_ended && tree::remove(tgid)) {
        let process = Tracked { tgid, tid: tgid, member };
        emit::record(Kind::Exit, |exit: &mut Exit| {
            process.fill_header(&mut exit.header, Kind::Exit);
            exit.header.unread |= unread::STATUS | unread::EXEC_COUNT;
        });
        return inserted;
    }
    if cgroup::is_there()
        && let Some(cgroup) = Cgroup::of(task)
        && cgroup.is_outside()
    {
        moved(tgid, &member, cgroup, None);
    }
    true
}
