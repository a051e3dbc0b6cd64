//! What a system call was called with.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};

use super::{
    field::{self, KernelPtr},
    task::Task,
};

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

    /// Whether this is a call that certainly gives no address to what it sends.
    ///
    /// By registers alone, which no other thread can change: of `sendmsg` the address is in memory, and what
    /// io_uring sends is in no call of its own.
    #[inline(always)]
    pub(crate) fn gives_no_address(self) -> bool {
        // Numbers of calls for 64-bit programs. Those that 32-bit programs know by the same ones send nothing.
        const WRITE: u64 = 1;
        const WRITEV: u64 = 20;
        const SENDTO: u64 = 44;
        // What a thread has as the result while it is in a call. Once that is over, io_uring does what it had put off.
        const UNDER_WAY: i64 = -38;
        if self.0.read(&field::REGS_RESULT) != Some(UNDER_WAY)
            || Task::current().0.follow(&field::TASK_IO_URING).is_some()
        {
            return false;
        }
        match self.0.read(&field::REGS_NUMBER) {
            Some(WRITE | WRITEV) => true,
            Some(SENDTO) => {
                // Of the length the kernel looks at the lower half.
                self.0.read::<u64>(&field::REGS_ARGUMENT_5) == Some(0)
                    || self
                        .0
                        .read::<u64>(&field::REGS_ARGUMENT_6)
                        .is_some_and(|len| len as u32 == 0)
            }
            _ => false,
        }
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
