//! Opening perf events (`perf_event_open(2)`), which need no program of ours in the kernel.

mod tracefs;

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

pub(crate) use tracefs::tracepoint_id;

/// `struct perf_event_attr`, its first published size (PERF_ATTR_SIZE_VER0).
#[repr(C)]
#[derive(Default)]
pub(crate) struct Attributes {
    pub(crate) kind: u32,
    pub(crate) size: u32,
    pub(crate) config: u64,
    pub(crate) sample_period: u64,
    pub(crate) sample_type: u64,
    pub(crate) read_format: u64,
    pub(crate) flags: u64,
    pub(crate) wakeup_events: u32,
    pub(crate) breakpoint: u32,
    pub(crate) config1: u64,
}

const PERF_TYPE_TRACEPOINT: u32 = 2;
/// Bits of [`Attributes::flags`].
const FLAG_INHERIT: u64 = 1 << 1;

/// `pid` 0 is the calling thread and -1 everybody; `cpu` -1 is any.
pub(crate) fn open(attributes: &Attributes, pid: i32, cpu: i32) -> io::Result<OwnedFd> {
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const NO_GROUP: i32 = -1;
    // SAFETY: `attributes` has the layout and the size it names and outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(attributes),
            pid,
            cpu,
            NO_GROUP,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel just returned this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn of_tracepoint(id: u64, flags: u64) -> Attributes {
    Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: id,
        flags,
        ..Attributes::default()
    }
}

/// Counts a tracepoint in the calling thread and its descendants to be.
pub(crate) fn open_inherited_count(id: u64) -> io::Result<OwnedFd> {
    open(&of_tracepoint(id, FLAG_INHERIT), 0, -1)
}

/// A tracepoint, whoever comes there. A program attached to it runs on every CPU.
pub(crate) fn open_tracepoint_of_all(id: u64) -> io::Result<OwnedFd> {
    open(&of_tracepoint(id, 0), -1, 0)
}
