//! `sched_process_fork(parent, child)`: the tree grows.
//!
//! Runs in the creating task before the child can run, so a child is a member before its first
//! instruction. `parent` is always the caller, also with CLONE_PARENT.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_ebpf::abi::{Fault, Fork, Kind, header_flag, unread};

use super::{cgroup::moved, find::enter};
use crate::kernel::{
    births,
    cgroup::{self, Cgroup},
    emit, ended,
    field::KernelPtr,
    task::Task,
    tree::{self, Member, Tracked},
};

#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn fork(ctx: RawTracePointContext) -> i32 {
    if let Some(parent) = tree::current(&ctx) {
        on_fork(&parent, Task(KernelPtr(ctx.arg(1))));
        #[cfg(feature = "debug-log")]
        aya_log_ebpf::debug!(&ctx, "fork: tgid {} tid {}", parent.tgid, parent.tid);
    } else {
        let child = Task(KernelPtr(ctx.arg(1)));
        ended::forget(child);
        if births::are_noted() || cgroup::is_followed() {
            on_foreign_fork(child);
        }
    }
    0
}

#[inline(always)]
fn on_fork(parent: &Tracked, child: Task) {
    let Some(child_tgid) = child.tgid() else { return emit::fault(Fault::Identity) };
    if child_tgid == parent.tgid {
        return; // a thread of a tracked process
    }
    let start_ns = child.start_ns();
    let member = Member {
        start_ns: start_ns.unwrap_or(0),
        flags: parent.member.flags,
        exec_id: child.exec_id().unwrap_or(0),
    };
    let tracked = tree::insert(child_tgid, &member);
    if cgroup::is_there() {
        born_outside(child_tgid, &member, child);
    }
    emit::record(Kind::Fork, |fork: &mut Fork| {
        parent.fill_header(&mut fork.header, Kind::Fork);
        fork.child_tgid = child_tgid;
        fork.child_start_ns = member.start_ns;
        if start_ns.is_none() {
            fork.header.unread |= unread::START_TIME;
        }
        if !tracked {
            fork.header.flags |= header_flag::UNTRACKED;
        }
        match child.namespace_pid() {
            Some(inner) => fork.child_ns_pid = inner.pid,
            None => fork.header.unread |= unread::NS_PID,
        }
        match child.parent_tgid() {
            Some(tgid) => fork.child_parent_tgid = tgid,
            None => fork.header.unread |= unread::PARENT,
        }
    });
}

/// Whose parent is not of the tree, or not yet.
#[inline(always)]
fn on_foreign_fork(child: Task) {
    let (Some(child_tgid), Some(parent)) = (child.tgid(), Task::current().leader()) else {
        return emit::fault(Fault::Identity);
    };
    if parent.tgid() == Some(child_tgid) {
        return; // a thread
    }
    births::note(child, parent);
    let joins =
        cgroup::is_followed() && Cgroup::of(child).is_some_and(|cgroup| !cgroup.is_outside());
    if joins || (births::are_noted() && births::descends(parent)) {
        enter(child);
    }
}

/// A child can be put into another cgroup than its parent's at once (`CLONE_INTO_CGROUP`). One that
/// follows its parent is the parent's business.
#[inline(always)]
fn born_outside(tgid: u32, member: &Member, child: Task) {
    let (Some(cgroup), Some(parents)) = (Cgroup::of(child), Cgroup::of(Task::current())) else {
        return;
    };
    if cgroup.0.0 != parents.0.0 && cgroup.is_outside() {
        moved(tgid, member, cgroup, None);
    }
}
