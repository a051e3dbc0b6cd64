//! The system call bpf(2), for what aya has no function for.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

pub(super) const MAP_UPDATE_ELEM: libc::c_long = 2;
pub(super) const PROG_LOAD: libc::c_long = 5;
pub(super) const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
pub(super) const BTF_LOAD: libc::c_long = 18;
pub(super) const MAP_FREEZE: libc::c_long = 22;
pub(super) const LINK_CREATE: libc::c_long = 28;

/// Of `enum bpf_attach_type`.
pub(super) const TRACE_FEXIT: u32 = 25;
pub(super) const TRACE_UPROBE_MULTI: u32 = 48;

/// The first fields of `union bpf_attr` (include/uapi/linux/bpf.h) of a command, padding explicit. The
/// kernel takes what follows them as zero.
pub(super) trait Attributes {}

/// What a command is about, where that is all it takes.
#[repr(C)]
#[derive(Default)]
pub(super) struct Target {
    pub(super) fd: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct MapUpdate {
    pub(super) map: u32,
    pub(super) padding: u32,
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) flags: u64,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct ProgramLoad {
    pub(super) kind: u32,
    pub(super) instruction_count: u32,
    pub(super) instructions: u64,
    pub(super) license: u64,
    pub(super) log_level: u32,
    pub(super) log_bytes: u32,
    pub(super) log_buffer: u64,
    pub(super) kernel_version: u32,
    pub(super) flags: u32,
    pub(super) name: [u8; 16],
    pub(super) interface: u32,
    pub(super) attach_type: u32,
    pub(super) types_fd: u32,
    pub(super) function_info_size: u32,
    pub(super) function_info: u64,
    pub(super) function_info_count: u32,
    pub(super) line_info_size: u32,
    pub(super) line_info: u64,
    pub(super) line_info_count: u32,
    pub(super) attach_type_id: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct TypesLoad {
    pub(super) types: u64,
    pub(super) log_buffer: u64,
    pub(super) size: u32,
    pub(super) log_size: u32,
    pub(super) log_level: u32,
    pub(super) padding: u32,
}

/// A link to a raw tracepoint, or to the function that a program was loaded for.
#[repr(C)]
#[derive(Default)]
pub(super) struct OpenTracepoint {
    pub(super) name: u64,
    pub(super) program: u32,
    pub(super) padding: u32,
}

/// A link to a cgroup.
#[repr(C)]
#[derive(Default)]
pub(super) struct LinkCgroup {
    pub(super) program: u32,
    pub(super) cgroup: u32,
    pub(super) attach_type: u32,
    pub(super) flags: u32,
}

/// A link to a perf event.
#[repr(C)]
#[derive(Default)]
pub(super) struct LinkEvent {
    pub(super) program: u32,
    pub(super) target: u32,
    pub(super) attach_type: u32,
    pub(super) flags: u32,
    pub(super) cookie: u64,
}

/// A link to places in a file (`uprobe_multi`).
#[repr(C)]
#[derive(Default)]
pub(super) struct LinkPlaces {
    pub(super) program: u32,
    pub(super) target: u32,
    pub(super) attach_type: u32,
    pub(super) flags: u32,
    pub(super) path: u64,
    pub(super) offsets: u64,
    pub(super) reference_counters: u64,
    pub(super) cookies: u64,
    pub(super) count: u32,
    pub(super) multi_flags: u32,
    pub(super) process: u32,
    pub(super) padding: u32,
}

impl Attributes for Target {}
impl Attributes for MapUpdate {}
impl Attributes for OpenTracepoint {}
impl Attributes for LinkCgroup {}
impl Attributes for ProgramLoad {}
impl Attributes for TypesLoad {}
impl Attributes for LinkEvent {}
impl Attributes for LinkPlaces {}

/// What the kernel returns if that is no error. The commands above only read what `attr` points to, and fill the
/// buffer of a log; each caller keeps both until this returns.
pub(super) fn call<A: Attributes>(command: libc::c_long, attr: &A) -> io::Result<libc::c_long> {
    // SAFETY: `attr` has the layout that the command reads and the size that is given.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A command that makes a descriptor.
pub(super) fn open<A: Attributes>(command: libc::c_long, attr: &A) -> io::Result<OwnedFd> {
    let fd = i32::try_from(call(command, attr)?).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
