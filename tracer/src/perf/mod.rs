//! Opening perf events (`perf_event_open(2)`), which need no program of ours in the kernel.

mod maps;
mod ring;
mod tracefs;

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

pub(crate) use maps::{MapEvent, MapRecord, MapStream};
pub(crate) use tracefs::tracepoint_id;

/// `struct perf_event_attr`, up to what its fifth published size has (PERF_ATTR_SIZE_VER5).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    kind: u32,
    /// Filled in by [`open`].
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    /// Events, or bytes with the flag `watermark`.
    wakeup: u32,
    breakpoint: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clock: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}

const _: () = assert!(size_of::<Attributes>() == 112);

const PERF_TYPE_TRACEPOINT: u32 = 2;
/// Bits of [`Attributes::flags`].
const FLAG_INHERIT: u64 = 1 << 1;

/// `pid` 0 is the calling thread and -1 everybody; `cpu` -1 is any.
fn open(attributes: &Attributes, pid: i32, cpu: i32) -> io::Result<OwnedFd> {
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const NO_GROUP: i32 = -1;
    let attributes = Attributes { size: size_of::<Attributes>() as u32, ..*attributes };
    // SAFETY: `attributes` has the layout and the size it names and outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
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
    Attributes { kind: PERF_TYPE_TRACEPOINT, config: id, flags, ..Attributes::default() }
}

/// A place in a file, in every process that comes there or, with `returns`, comes back from there. Needs
/// CAP_PERFMON; a program is attached to it afterwards.
pub(crate) fn open_breakpoint(
    file: BorrowedFd<'_>,
    offset_bytes: u64,
    returns: bool,
) -> io::Result<OwnedFd> {
    /// `format/retprobe` beside `type` in sysfs.
    const RETURNS: u64 = 1;
    let kind = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let attributes = Attributes {
        kind: kind.trim().parse().map_err(io::Error::other)?,
        config: if returns { RETURNS } else { 0 },
        config1: path.as_ptr() as u64,
        config2: offset_bytes,
        ..Attributes::default()
    };
    // The path outlives the call, in which the kernel reads it.
    open(&attributes, -1, 0)
}

/// Counts a tracepoint in the calling thread and its descendants to be.
pub(crate) fn open_inherited_count(id: u64) -> io::Result<OwnedFd> {
    open(&of_tracepoint(id, FLAG_INHERIT), 0, -1)
}

/// A tracepoint, whoever comes there. A program attached to it runs on every CPU.
pub(crate) fn open_tracepoint_of_all(id: u64) -> io::Result<OwnedFd> {
    open(&of_tracepoint(id, 0), -1, 0)
}
