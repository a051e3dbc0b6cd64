//! Says which file an open descriptor of the calling process is, as the exec probe would say it.
//!
//! `stat(2)` names files differently from the kernel on btrfs (a device number per subvolume) and
//! on overlayfs (that of the layer), so a file found by name can be compared with an executed one
//! only if both are read from the inode. Never attached: the collector runs it on itself with
//! `BPF_PROG_TEST_RUN`, and reads the answer from [`IDENTIFIED`].

use aya_ebpf::{
    macros::{map, raw_tracepoint},
    maps::Array,
    programs::RawTracePointContext,
};
use tracer_ebpf::abi::ExecFile;

use crate::kernel::{file::File, task::Task};

#[map]
static IDENTIFIED: Array<ExecFile> = Array::with_max_entries(1, 0);

/// Argument 0 is the descriptor. Returns 0 when the answer is in the map.
#[raw_tracepoint]
fn identify(ctx: RawTracePointContext) -> i32 {
    match describe(ctx.arg(0)) {
        Some(()) => 0,
        None => 1,
    }
}

#[inline(always)]
fn describe(descriptor: u64) -> Option<()> {
    let file = Task::current().open_file(descriptor)?;
    let answer = IDENTIFIED.get_ptr_mut(0)?;
    // SAFETY: a map value lives as long as the map, and only the collector's one thread uses it.
    File(file).describe(unsafe { &mut *answer })
}
