//! Against who edits the maps while tracing runs.
//!
//! A root user can reach them by their ids. A frozen map takes no more writes from user space, whoever asks, and
//! the programs go on writing to it.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::maps::{Map, MapData};

use super::{
    object::Object,
    raw::{self, Target},
};

/// Written by the collector after the probes are attached.
const WRITTEN_LATER: [&str; 5] =
    ["FORBIDDEN_FILES", "FORBIDDEN_NAMES", "VARIABLES", "TLS_PLACES", "TLS_SESSIONS"];

fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let attr = Target { fd: map.as_raw_fd().cast_unsigned() };
    raw::call(raw::MAP_FREEZE, &attr).map(drop)
}

/// Lets nobody write to a map any more but the programs.
pub(super) fn freeze_map(map: &MapData) -> io::Result<()> {
    freeze(map.fd().as_fd())
}

/// The same for every map that the collector itself only reads.
pub(super) fn freeze_maps(object: &Object) -> io::Result<()> {
    for (name, map) in object.maps() {
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
    if let Map::HashMap(map)
    | Map::LruHashMap(map)
    | Map::LpmTrie(map)
    | Map::Array(map)
    | Map::PerCpuArray(map) = map
    {
        freeze_map(map)?;
    }
    Ok(())
}

/// A map that is filled first.
pub(super) struct Unfrozen(OwnedFd);

impl Unfrozen {
    pub(super) fn of(map: &Map) -> io::Result<Unfrozen> {
        let (Map::HashMap(map) | Map::LpmTrie(map)) = map else {
            return Err(io::Error::other("it is neither a hash map nor a trie"));
        };
        Ok(Unfrozen(map.fd().as_fd().try_clone_to_owned()?))
    }

    /// Lets nobody write to it any more.
    pub(super) fn freeze(self) -> io::Result<()> {
        freeze(self.0.as_fd())
    }
}
