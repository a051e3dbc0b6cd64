//! Execs that failed, when they return to their caller.
//!
//! Attached at the end of the system calls' own functions where the kernel lets a program be
//! attached to functions, else at the tracepoints of system calls. The latter cost every system call
//! of the machine, so they are attached only when somebody asks for attempts.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str},
    macros::{fexit, tracepoint},
    programs::{FExitContext, TracePointContext},
};
use tracer_ebpf::abi::{
    ATTEMPT_ARG_BYTES, ATTEMPT_ARGS_MAX, ATTEMPT_ARGV_BYTES, ATTEMPT_NAME_BYTES, Attempt, Kind,
    unread,
};

use crate::kernel::{
    emit,
    field::KernelPtr,
    regs::{self, Regs},
    scratch, tree,
};

#[fexit(function = "__x64_sys_execve")]
fn attempt_execve(ctx: FExitContext) -> i32 {
    let regs = Regs(KernelPtr(ctx.arg(0)));
    execve(&ctx, regs, ctx.arg(1))
}

#[fexit(function = "__x64_sys_execveat")]
fn attempt_execveat(ctx: FExitContext) -> i32 {
    let regs = Regs(KernelPtr(ctx.arg(0)));
    execveat(&ctx, regs, ctx.arg(1))
}

#[tracepoint]
fn attempt_execve_exit(ctx: TracePointContext) -> i32 {
    execve(&ctx, Regs::current(), regs::exit_result(&ctx))
}

#[tracepoint]
fn attempt_execveat_exit(ctx: TracePointContext) -> i32 {
    execveat(&ctx, Regs::current(), regs::exit_result(&ctx))
}

/// `execve(filename, argv, envp)`.
#[inline(always)]
fn execve(ctx: &impl EbpfContext, regs: Regs, result: i64) -> i32 {
    on_return(ctx, regs.first(), regs.second(), result)
}

/// `execveat(dirfd, filename, argv, envp, flags)`.
#[inline(always)]
fn execveat(ctx: &impl EbpfContext, regs: Regs, result: i64) -> i32 {
    on_return(ctx, regs.second(), regs.third(), result)
}

#[inline(always)]
fn on_return(ctx: &impl EbpfContext, filename: u64, argv: u64, result: i64) -> i32 {
    if result >= 0 {
        return 0;
    }
    let Some(process) = tree::current(ctx) else { return 0 };
    emit::record_with(Kind::Attempt, |slot: *mut Attempt| {
        // SAFETY: the ring handed out room for one Attempt, aligned to eight bytes. Its fixed part
        // is written here, of the two arrays as much as their lengths say.
        let attempt = unsafe { &mut *slot };
        attempt.header = Default::default();
        process.fill_header(&mut attempt.header, Kind::Attempt);
        attempt.errno = result.unsigned_abs() as u32;
        attempt.filename_len = read_filename(attempt, filename);
        if attempt.filename_len == 0 {
            attempt.header.unread |= unread::FILENAME;
        }
        attempt.argv_len = 0;
        attempt.argv_complete = 0;
        read_argv(attempt, argv);
        if attempt.argv_complete == 0 && attempt.argv_len == 0 {
            attempt.header.unread |= unread::ARGV;
        }
    });
    0
}

#[inline(always)]
fn read_filename(attempt: &mut Attempt, from: u64) -> u32 {
    let room = attempt.filename.as_mut_ptr();
    // SAFETY: `room` has ATTEMPT_NAME_BYTES bytes; the helper checks the source.
    let len = unsafe {
        bpf_probe_read_user_str(room.cast(), ATTEMPT_NAME_BYTES as u32, from as *const _)
    };
    u32::try_from(len).unwrap_or(0)
}

#[inline(always)]
fn read_argv(attempt: &mut Attempt, argv: u64) {
    const POINTER_BYTES: u64 = 8;
    let mut at = 0u64;
    for index in 0..ATTEMPT_ARGS_MAX {
        let mut argument = 0u64;
        // SAFETY: `argument` has the eight bytes asked for; the helper checks the source.
        let failed = unsafe {
            bpf_probe_read_user(
                (&raw mut argument).cast(),
                POINTER_BYTES as u32,
                (argv + index * POINTER_BYTES) as *const _,
            )
        };
        if failed != 0 {
            return;
        }
        if argument == 0 {
            attempt.argv_complete = 1;
            return;
        }
        if !scratch::in_bounds(at, 0, ATTEMPT_ARGV_BYTES as u64) {
            return;
        }
        // SAFETY: the position was just checked to lie ATTEMPT_ARG_BYTES before the end.
        let room = unsafe { attempt.argv.as_mut_ptr().add(at as usize) };
        // SAFETY: `room` has ATTEMPT_ARG_BYTES bytes; the helper checks the source.
        let len = unsafe {
            bpf_probe_read_user_str(room.cast(), ATTEMPT_ARG_BYTES as u32, argument as *const _)
        };
        // One byte short of full may be a string that just fits or one that was cut.
        if !scratch::in_bounds(len.cast_unsigned(), 1, ATTEMPT_ARG_BYTES as u64 - 1) {
            return;
        }
        at += len.cast_unsigned();
        attempt.argv_len = at as u32;
    }
}
