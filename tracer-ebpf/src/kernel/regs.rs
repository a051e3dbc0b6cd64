//! What a system call was called with.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};

use super::field::{self, KernelPtr};

/// The registers with which the current thread entered the kernel (`struct pt_regs`). A failed call
/// leaves the registers of its arguments as they were. An argument that cannot be read is 0.
#[derive(Clone, Copy)]
pub(crate) struct Regs(pub(crate) KernelPtr);

impl Regs {
    #[inline(always)]
    pub(crate) fn current() -> Regs {
        // SAFETY: the helper has no precondition.
        let task = unsafe { bpf_get_current_task_btf() };
        // SAFETY: the task is the current one, which has entered the kernel from user space.
        Regs(KernelPtr(unsafe { bpf_task_pt_regs(task) }.cast_unsigned()))
    }

    #[inline(always)]
    pub(crate) fn first(self) -> u64 {
        self.0.read(&field::REGS_ARGUMENT_1).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn second(self) -> u64 {
        self.0.read(&field::REGS_ARGUMENT_2).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn third(self) -> u64 {
        self.0.read(&field::REGS_ARGUMENT_3).unwrap_or(0)
    }
}

/// The result of the system call at a `syscalls:sys_exit_*` tracepoint.
#[inline(always)]
pub(crate) fn exit_result(ctx: &aya_ebpf::programs::TracePointContext) -> i64 {
    /// struct syscall_trace_exit { struct trace_entry ent; int nr; long ret; }, kernel/trace/trace.h.
    const RET_OFFSET: usize = 16;
    // SAFETY: the record of this tracepoint is at least 24 bytes long.
    unsafe { ctx.read_at::<i64>(RET_OFFSET) }.unwrap_or(0)
}
