//! Puts the calling process at the root of a tracked tree.
//!
//! Never attached. The process that is about to exec the command runs it on itself with
//! `BPF_PROG_TEST_RUN`, which executes a raw tracepoint program in the caller's own context
//! (5.10+). So no pid has to be translated between namespaces, and nothing can happen between
//! enrolment and the first instruction that would not be seen.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext,
};
use tracer_ebpf::abi::{Kind, Role, Root, unread};

use crate::kernel::{
    cgroup, emit,
    task::Task,
    tree::{self, Member},
};

/// Argument 0 is a [`Role`]. Returns 0 when the process is tracked from here on.
#[raw_tracepoint]
fn enrol(ctx: RawTracePointContext) -> i32 {
    let role = if ctx.arg::<u64>(0) == Role::Canary as u64 { Role::Canary } else { Role::Traced };
    match try_enrol(role) {
        Some(()) => 0,
        None => 1,
    }
}

#[inline(always)]
fn try_enrol(role: Role) -> Option<()> {
    let ids = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((ids >> 32) as u32, ids as u32);
    let leader = Task::current().leader()?;
    let member = Member {
        start_ns: leader.start_ns()?,
        flags: role.header_flags(),
        exec_id: leader.exec_id()?,
    };
    // Whoever is of the tree stays what it is in it: a root user can run this program too.
    if tree::find(tgid).is_some_and(|known| known.start_ns == member.start_ns) {
        return None;
    }
    cgroup::learn_level(leader);
    if !tree::insert(tgid, &member) {
        return None;
    }
    emit::record(Kind::Root, |root: &mut Root| {
        emit::fill_header(&mut root.header, Kind::Root, tgid, tid, &member);
        match leader.namespace_pid() {
            Some(inner) => root.ns_pid = inner.pid,
            None => root.header.unread |= unread::NS_PID,
        }
        match leader.parent_tgid() {
            Some(parent) => root.parent_tgid = parent,
            None => root.header.unread |= unread::PARENT,
        }
    });
    Some(())
}
