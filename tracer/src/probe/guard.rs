//! Against who edits the maps or detaches the probes while tracing runs.
//!
//! A root user can reach both by their ids. A frozen map takes no more writes from user space, whoever
//! asks, and the programs go on writing to it. Of the links, the kernel lets only those of cgroups be
//! detached while somebody holds them; whether that was done is looked up every second.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
    programs::links::FdLink,
};

/// Written by the collector after the probes are attached.
const WRITTEN_LATER: [&str; 3] = ["FORBIDDEN_FILES", "FORBIDDEN_NAMES", "VARIABLES"];

/// The first fields of `union bpf_attr`, of commands that take one or two numbers.
#[repr(C)]
#[derive(Default)]
struct Numbers {
    first: u32,
    second: u32,
    third: u32,
}

fn bpf(command: libc::c_long, first: u32) -> io::Result<libc::c_long> {
    let attr = Numbers { first, ..Numbers::default() };
    // SAFETY: `attr` has the size that is given, and these commands read numbers from it only.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attr, size_of::<Numbers>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_MAP_FREEZE: libc::c_long = 22;
    bpf(BPF_MAP_FREEZE, map.as_raw_fd().cast_unsigned()).map(drop)
}

/// Lets nobody write to a map any more but the programs.
pub(super) fn freeze_map(map: &MapData) -> io::Result<()> {
    freeze(map.fd().as_fd())
}

/// The same for every map that the collector itself only reads.
pub(super) fn freeze_maps(ebpf: &Ebpf) -> io::Result<()> {
    for (name, map) in ebpf.maps() {
        // The loader's own are frozen already.
        if name.starts_with('.') || WRITTEN_LATER.contains(&name) {
            continue;
        }
        if let Map::HashMap(map) | Map::LruHashMap(map) | Map::Array(map) | Map::PerCpuArray(map) =
            map
        {
            freeze_map(map)?;
        }
    }
    Ok(())
}

/// Whether a program is attached to a cgroup no more, although its link is there; `None` for other links.
pub(super) fn is_detached(link: &FdLink) -> io::Result<Option<bool>> {
    const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
    let id = link.info().map_err(io::Error::other)?.id();
    let fd = bpf(BPF_LINK_GET_FD_BY_ID, id)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let cgroup = info.lines().find_map(|line| line.strip_prefix("cgroup_id:"));
    Ok(cgroup.map(|id| id.trim() == "0"))
}
