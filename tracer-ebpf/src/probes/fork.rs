//! `sched_process_fork(parent, child)`: the tree grows.
//!
//! Runs in the creating task before the child can run, so a child is a member before its first
//! instruction. `parent` is always the caller, also with CLONE_PARENT.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_ebpf::abi::{Fault, Fork, Kind, header_flag, unread};

use crate::kernel::{
    emit,
    field::KernelPtr,
    task::Task,
    tree::{self, Member, Tracked},
};

#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork(ctx: RawTracePointContext) -> i32 {
    if let Some(parent) = tree::current(&ctx) {
        on_fork(&parent, Task(KernelPtr(ctx.arg(1))));
    }
    0
}

#[inline(always)]
fn on_fork(parent: &Tracked, child: Task) {
    let Some(child_tgid) = child.tgid() else { return emit::fault(Fault::Identity) };
    if child_tgid == parent.tgid {
        return; // a thread of a tracked process
    }
    let mut fork = Fork { header: parent.header(Kind::Fork), child_tgid, ..Fork::default() };
    match child.start_ns() {
        Some(start_ns) => fork.child_start_ns = start_ns,
        None => fork.header.unread |= unread::START_TIME,
    }
    match child.namespace_pid() {
        Some(inner) => fork.child_ns_pid = inner.pid,
        None => fork.header.unread |= unread::NS_PID,
    }
    match child.parent_tgid() {
        Some(tgid) => fork.child_parent_tgid = tgid,
        None => fork.header.unread |= unread::PARENT,
    }
    let member = Member { start_ns: fork.child_start_ns, flags: parent.member.flags, padding: 0 };
    if !tree::insert(child_tgid, &member) {
        fork.header.flags |= header_flag::UNTRACKED;
    }
    emit::record(Kind::Fork, &fork);
}
