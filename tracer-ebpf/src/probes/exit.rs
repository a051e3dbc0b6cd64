//! `sched_process_exit(task[, group_dead])`: the tree shrinks.
//!
//! Fires for every thread, after `signal->live` was decremented and `exit_code` set. The argument
//! that says whether the group is dead is newer than 6.12, so the counter is read instead; when the
//! last two threads exit at once both may read zero, and the delete decides which one reports.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_ebpf::abi::{Exit, Kind, unread};

use super::{resolve, tls};
use crate::kernel::{
    births, emit, ended,
    task::Task,
    tree::{self, Tracked},
};

#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn exit(ctx: RawTracePointContext) -> i32 {
    // Of members too: they were noted if they became members after their births.
    if births::are_noted() && Task::current().live_threads().is_none_or(|live| live == 0) {
        births::note_end(Task::current());
    }
    if let Some(process) = tree::current(&ctx) {
        resolve::forget_call();
        tls::forget_calls();
        on_exit(&process);
        #[cfg(feature = "debug-log")]
        aya_log_ebpf::debug!(&ctx, "exit: tgid {} tid {}", process.tgid, process.tid);
    }
    0
}

#[inline(always)]
fn on_exit(process: &Tracked) {
    let task = Task::current();
    let live = task.live_threads();
    if live.is_some_and(|threads| threads > 0) {
        return;
    }
    ended::remember(task);
    if !tree::remove(process.tgid) {
        return;
    }
    emit::record(Kind::Exit, |exit: &mut Exit| {
        process.fill_header(&mut exit.header, Kind::Exit);
        match (live, task.wait_status()) {
            (Some(_), Some(status)) => exit.wait_status = status,
            _ => exit.header.unread |= unread::STATUS,
        }
        // Every thread has the process's number: an exec leaves one thread only.
        match task.exec_id() {
            Some(id) => exit.execs = id.wrapping_sub(process.member.exec_id),
            None => exit.header.unread |= unread::EXEC_COUNT,
        }
    });
}
