//! `cgroup_attach_task(cgroup, path, task, threadgroup)`: a process of the tree is moved out of the
//! command's cgroup, by itself or by somebody else.
//!
//! Programs on sockets belong to a cgroup, and a socket to the cgroup it was made in: what a process
//! makes elsewhere is not seen. Whoever is moved into a cgroup that is followed joins the tree. Moves to descendants change nothing. Threads cannot leave alone: a
//! threaded subtree lies below the command's cgroup.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel_str, macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use tracer_ebpf::abi::{CGROUP_PATH_BYTES, CgroupMove, Kind};

use super::find::enter;
use crate::kernel::{
    cgroup::{Cgroup, is_followed},
    emit,
    field::KernelPtr,
    scratch,
    task::Task,
    tree::{self, Member},
};

#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
fn cgroup_move(ctx: RawTracePointContext) -> i32 {
    let task = Task(KernelPtr(ctx.arg(2)));
    let Some(tgid) = task.tgid() else { return 0 };
    let cgroup = Cgroup(KernelPtr(ctx.arg(0)));
    let Some(member) = tree::find(tgid) else {
        if is_followed() && cgroup.is_v2() && !cgroup.is_outside() {
            enter(task);
        }
        return 0;
    };
    if cgroup.is_v2() && cgroup.is_outside() {
        moved(tgid, &member, cgroup, Some(KernelPtr(ctx.arg(1))));
    }
    0
}

/// The process is in that cgroup now.
#[inline(always)]
pub(super) fn moved(tgid: u32, member: &Member, cgroup: Cgroup, path: Option<KernelPtr>) {
    emit::record_with(Kind::CgroupMove, |slot: *mut CgroupMove| {
        // SAFETY: the ring handed out room for one CgroupMove, aligned to eight bytes; each field is
        // written here, of the path as much as is used.
        let record = unsafe { &mut *slot };
        record.header = Default::default();
        emit::fill_header(&mut record.header, Kind::CgroupMove, tgid, tgid, member);
        record.to_cgroup_id = cgroup.id().unwrap_or(0);
        record.to_path_len = 0;
        record.padding = 0;
        let Some(path) = path else { return };
        let room = record.to_path.as_mut_ptr();
        // SAFETY: `room` has CGROUP_PATH_BYTES bytes; the helper checks the source.
        let len = unsafe {
            bpf_probe_read_kernel_str(room.cast(), CGROUP_PATH_BYTES as u32, path.0 as *const _)
        };
        let len = len.cast_unsigned();
        if scratch::in_bounds(len, 1, CGROUP_PATH_BYTES as u64) {
            record.to_path_len = len as u32;
        }
    });
}
