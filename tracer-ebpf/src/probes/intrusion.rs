//! Taking control of processes outside the tree, as a debugger does.
//!
//! A process that writes into another one's memory can run whatever it likes there, and no exec of
//! the tree shows it. `security_ptrace_access_check` is where the kernel decides about all of that;
//! where no program can be attached to it, the tracepoints of the system calls must do.

use aya_ebpf::{
    EbpfContext,
    macros::{fexit, tracepoint},
    programs::{FExitContext, TracePointContext},
};
use tracer_ebpf::abi::{Intrusion, Kind, Means, SOCKET_NAME_BYTES};

use crate::kernel::{
    emit,
    field::KernelPtr,
    outside::{self, Contact},
    regs::{self, Regs},
    task::Task,
    tree,
};

/// `security_ptrace_access_check(child, mode)`.
#[fexit(function = "security_ptrace_access_check")]
fn debugger_access(ctx: FExitContext) -> i32 {
    /// include/linux/ptrace.h. Without it, the caller only wants to read about the process.
    const PTRACE_MODE_ATTACH: u32 = 2;
    let (mode, refused): (u32, i32) = (ctx.arg(1), ctx.arg(2));
    if mode & PTRACE_MODE_ATTACH == 0 || refused != 0 {
        return 0;
    }
    let Some(target) = Task(KernelPtr(ctx.arg(0))).tgid() else { return 0 };
    // What tracer's own canaries do is not recorded.
    if tree::find(target).is_some_and(|target| !target.is_canary()) {
        return 0;
    }
    on_intrusion(&ctx, Means::DebuggerAccess, target)
}

#[tracepoint]
fn ptrace_exit(ctx: TracePointContext) -> i32 {
    const PTRACE_ATTACH: u64 = 16;
    const PTRACE_SEIZE: u64 = 0x4206;
    if regs::exit_result(&ctx) != 0 {
        return 0;
    }
    let regs = Regs::current();
    let request = regs.first();
    if request != PTRACE_ATTACH && request != PTRACE_SEIZE {
        return 0;
    }
    on_intrusion(&ctx, Means::Ptrace, regs.second() as u32)
}

#[tracepoint]
fn write_memory_exit(ctx: TracePointContext) -> i32 {
    if regs::exit_result(&ctx) <= 0 {
        return 0;
    }
    on_intrusion(&ctx, Means::WriteMemory, Regs::current().first() as u32)
}

#[tracepoint]
fn take_descriptor_exit(ctx: TracePointContext) -> i32 {
    if regs::exit_result(&ctx) < 0 {
        return 0;
    }
    on_intrusion(&ctx, Means::TakeDescriptor, Regs::current().first() as u32)
}

#[inline(always)]
fn on_intrusion(ctx: &impl EbpfContext, means: Means, target: u32) -> i32 {
    /// Tells these contacts from those over sockets, whose names are shorter.
    const NO_SOCKET: u64 = 1 << 32;
    let Some(process) = tree::current(ctx) else { return 0 };
    let what = NO_SOCKET | means as u64;
    let (tgid, name) = (process.tgid, [0; SOCKET_NAME_BYTES]);
    let contact = Contact { tgid, peer: target, what, inode: 0, name };
    // A number of the tree's may be that of another process later.
    if tree::find(target).is_some() || outside::is_new(&process, &contact) {
        emit::record(Kind::Intrusion, |intrusion: &mut Intrusion| {
            process.fill_header(&mut intrusion.header, Kind::Intrusion);
            intrusion.means = means as u32;
            intrusion.target = target;
        });
    }
    0
}
