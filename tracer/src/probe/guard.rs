//! Against who edits the maps or detaches the probes while tracing runs.
//!
//! A root user can reach both by their ids. A frozen map takes no more writes from user space, whoever
//! asks, and the programs go on writing to it. Of the links, the kernel lets only those of cgroups be
//! detached while somebody holds them; whether that was done is looked up every second.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
    programs::links::FdLink,
};

use super::raw::{self, LinkEvent, Numbers};

/// Written by the collector after the probes are attached.
const WRITTEN_LATER: [&str; 5] =
    ["FORBIDDEN_FILES", "FORBIDDEN_NAMES", "VARIABLES", "TLS_PLACES", "TLS_SESSIONS"];

fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let attr = Numbers { first: map.as_raw_fd().cast_unsigned(), ..Numbers::default() };
    raw::call(raw::MAP_FREEZE, &attr).map(drop)
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
        freeze_one(map)?;
    }
    Ok(())
}

/// The same for one, if it is of a kind that can be written to.
pub(super) fn freeze_one(map: &Map) -> io::Result<()> {
    if let Map::HashMap(map) | Map::LruHashMap(map) | Map::Array(map) | Map::PerCpuArray(map) = map
    {
        freeze_map(map)?;
    }
    Ok(())
}

/// A map that is filled first.
pub(super) struct Unfrozen(OwnedFd);

impl Unfrozen {
    pub(super) fn of(map: &Map) -> io::Result<Unfrozen> {
        let Map::HashMap(map) = map else { return Err(io::Error::other("it is no hash map")) };
        Ok(Unfrozen(map.fd().as_fd().try_clone_to_owned()?))
    }

    /// Lets nobody write to it any more.
    pub(super) fn freeze(self) -> io::Result<()> {
        freeze(self.0.as_fd())
    }
}

/// Has a program run where a perf event is, with a number that it can ask for, as long as the link is
/// open.
pub(crate) fn link_to_event(
    program: BorrowedFd<'_>,
    event: BorrowedFd<'_>,
    cookie: u64,
) -> io::Result<OwnedFd> {
    const BPF_PERF_EVENT: u32 = 41;
    let attr = LinkEvent {
        program: program.as_raw_fd().cast_unsigned(),
        target: event.as_raw_fd().cast_unsigned(),
        attach_type: BPF_PERF_EVENT,
        flags: 0,
        cookie,
    };
    raw::open(raw::LINK_CREATE, &attr)
}

/// A link, to ask whether it is attached still.
#[derive(Debug)]
pub(super) struct Watched(OwnedFd);

impl Watched {
    /// Takes a descriptor of its own: that of the link is aya's, and nothing else shows what it is about.
    /// It keeps the program attached as the link does.
    pub(super) fn new(link: &FdLink) -> io::Result<Watched> {
        let id = link.info().map_err(io::Error::other)?.id();
        let attr = Numbers { first: id, ..Numbers::default() };
        raw::open(raw::LINK_GET_FD_BY_ID, &attr).map(Watched)
    }

    /// Whether the program is attached to a cgroup no more, although its link is there; `None` for
    /// other links.
    pub(super) fn is_detached(&self) -> io::Result<Option<bool>> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let cgroup = info.lines().find_map(|line| line.strip_prefix("cgroup_id:"));
        Ok(cgroup.map(|id| id.trim() == "0"))
    }
}
