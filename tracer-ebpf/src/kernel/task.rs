//! Fields of `task_struct` and what hangs off it.

use aya_ebpf::helpers::generated::bpf_get_current_task;

use super::field::{self, KernelPtr};

/// The number of a `struct pid` in the initial pid namespace.
#[inline(always)]
pub(crate) fn pid_number(pid: KernelPtr) -> Option<u32> {
    pid.at(&field::PID_NUMBERS)?.read(&field::UPID_NR)
}

#[derive(Clone, Copy)]
pub(crate) struct Task(pub(crate) KernelPtr);

/// A process id in the innermost pid namespace of the process.
#[derive(Clone, Copy)]
pub(crate) struct NamespacePid {
    pub(crate) pid: u32,
    pub(crate) ns_inum: u32,
}

impl Task {
    pub(crate) fn current() -> Task {
        // SAFETY: the helper has no precondition.
        Task(KernelPtr(unsafe { bpf_get_current_task() }))
    }

    #[inline(always)]
    pub(crate) fn tgid(self) -> Option<u32> {
        self.0.read(&field::TASK_TGID)
    }

    #[inline(always)]
    pub(crate) fn leader(self) -> Option<Task> {
        self.0.follow(&field::TASK_GROUP_LEADER).map(Task)
    }

    #[inline(always)]
    pub(crate) fn start_ns(self) -> Option<u64> {
        self.0.read(&field::TASK_START_BOOTTIME)
    }

    /// A number that the kernel raises by one at each exec and hands down at each fork; its low half.
    #[inline(always)]
    pub(crate) fn exec_id(self) -> Option<u32> {
        self.0.read::<u64>(&field::TASK_EXEC_ID).map(|id| id as u32)
    }

    #[inline(always)]
    pub(crate) fn parent_tgid(self) -> Option<u32> {
        self.parent()?.tgid()
    }

    #[inline(always)]
    pub(crate) fn parent(self) -> Option<Task> {
        self.0.follow(&field::TASK_REAL_PARENT).map(Task)
    }

    /// What is open under this descriptor; null when it is closed.
    #[inline(always)]
    pub(crate) fn open_file(self, descriptor: u64) -> Option<KernelPtr> {
        const POINTER_BYTES: u64 = 8;
        let table = self.0.follow(&field::TASK_FILES)?.follow(&field::FILES_TABLE)?;
        let slots: u32 = table.read(&field::TABLE_SLOTS)?;
        if descriptor >= u64::from(slots) {
            return Some(KernelPtr(0));
        }
        let files = table.follow(&field::TABLE_FILES)?;
        KernelPtr(files.0 + descriptor * POINTER_BYTES).load().map(KernelPtr)
    }

    /// The group leader that a `struct pid` names; `None` when it was reaped.
    #[inline(always)]
    pub(crate) fn of_pid(pid: KernelPtr) -> Option<Task> {
        // enum pid_type, include/linux/pid_types.h, since 4.19.
        const PIDTYPE_TGID: u64 = 1;
        const LIST_HEAD_BYTES: u64 = 8; // struct hlist_head
        const LIST_NODE_BYTES: u64 = 16; // struct hlist_node
        let heads = pid.at(&field::PID_TASKS)?;
        let node: u64 = KernelPtr(heads.0 + PIDTYPE_TGID * LIST_HEAD_BYTES).load()?;
        let links = u64::from(field::TASK_PID_LINKS.load());
        let task = node.checked_sub(links + PIDTYPE_TGID * LIST_NODE_BYTES)?;
        if node == 0 { None } else { Some(Task(KernelPtr(task))) }
    }

    /// Valid for a group leader: a thread has a pid of its own.
    #[inline(always)]
    pub(crate) fn namespace_pid(self) -> Option<NamespacePid> {
        // struct upid { int nr; struct pid_namespace *ns; } since 2.6.24.
        const UPID_BYTES: u64 = 16;
        let pid = self.0.follow(&field::TASK_THREAD_PID)?;
        let level: u32 = pid.read(&field::PID_LEVEL)?;
        let numbers = pid.at(&field::PID_NUMBERS)?;
        let innermost = KernelPtr(numbers.0 + u64::from(level) * UPID_BYTES);
        let nr: u32 = innermost.read(&field::UPID_NR)?;
        let ns = innermost.follow(&field::UPID_NS)?;
        Some(NamespacePid { pid: nr, ns_inum: ns.read(&field::PID_NS_INUM)? })
    }

    /// How the process of this task ends, as `wait(2)` will report it.
    ///
    /// Mirrors `wait_task_zombie` (kernel/exit.c): the group's code after exit_group or a fatal
    /// signal, else the leader's own.
    #[inline(always)]
    pub(crate) fn wait_status(self) -> Option<u32> {
        const SIGNAL_GROUP_EXIT: u32 = 4;
        let signal = self.0.follow(&field::TASK_SIGNAL)?;
        let flags: u32 = signal.read(&field::SIGNAL_FLAGS)?;
        if flags & SIGNAL_GROUP_EXIT != 0 {
            signal.read(&field::SIGNAL_GROUP_EXIT_CODE)
        } else {
            self.leader()?.0.read(&field::TASK_EXIT_CODE)
        }
    }

    /// Whether it is a thread of the kernel's own.
    #[inline(always)]
    pub(crate) fn is_kernel_thread(self) -> Option<bool> {
        const PF_KTHREAD: u32 = 0x0020_0000; // include/linux/sched.h, since 4.15
        self.0.read::<u32>(&field::TASK_FLAGS).map(|flags| flags & PF_KTHREAD != 0)
    }

    /// How many threads of the process have not begun to exit.
    #[inline(always)]
    pub(crate) fn live_threads(self) -> Option<u32> {
        self.0.follow(&field::TASK_SIGNAL)?.read(&field::SIGNAL_LIVE)
    }
}
