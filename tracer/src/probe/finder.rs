//! Names processes that run already as the kernel does, and puts them into the tree.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use tracer_ebpf::abi::{Birth, Finding, FoundProcess, ProcessName, Switch};

use super::enlist;
use crate::model::ProcessKey;

/// Runs the `find` program.
pub struct Finder {
    program: OwnedFd,
    answer: Array<MapData, Plain<FoundProcess>>,
    switches: Array<MapData, u32>,
    births: HashMap<MapData, Plain<ProcessName>, Plain<Birth>>,
}

impl std::fmt::Debug for Finder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finder").field("program", &self.program).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: repr(C) integers without padding (zerocopy's IntoBytes holds), for which any bytes are a
// value.
unsafe impl Pod for Plain<FoundProcess> {}
// SAFETY: as above.
unsafe impl Pod for Plain<ProcessName> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Birth> {}

/// A process that nobody can mistake for a later one of the same number.
#[derive(Debug)]
pub struct PidFd(File);

impl PidFd {
    /// Of a process, by its number in tracer's pid namespace; none when there is no such process.
    pub fn open(pid: u32) -> io::Result<Option<PidFd>> {
        let wanted = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let Some(wanted) = wanted else { return Ok(None) };
        match rustix::process::pidfd_open(wanted, rustix::process::PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(PidFd(fd.into()))),
            // A number of a thread is none of a process.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Finder {
    pub(super) fn new(
        program: OwnedFd,
        answer: Map,
        switches: Map,
        births: Map,
    ) -> Result<Finder, MapError> {
        Ok(Finder {
            program,
            answer: Array::try_from(answer)?,
            switches: Array::try_from(switches)?,
            births: HashMap::try_from(births)?,
        })
    }

    /// What the kernel has of the process, or what became of it when it was to be enrolled.
    pub fn find(&self, process: &PidFd, finding: Finding) -> io::Result<FoundProcess> {
        /// Since 6.9 pidfds are files of a file system of their own.
        const PID_FS_MAGIC: i64 = 0x5049_4446;
        let of_pidfs =
            rustix::fs::fstatfs(&process.0).is_ok_and(|system| system.f_type == PID_FS_MAGIC);
        let descriptor = u64::try_from(process.0.as_raw_fd()).map_err(io::Error::other)?;
        let arguments = [descriptor, u64::from(of_pidfs), finding as u64];
        if enlist::run(&self.program, &arguments)? != 0 {
            return Err(io::Error::other("the kernel's entry of the process could not be read"));
        }
        let Plain(found) = self.answer.get(&0, 0).map_err(io::Error::other)?;
        Ok(found)
    }

    pub fn switch(&mut self, switch: Switch, on: bool) -> io::Result<()> {
        self.switches.set(switch as u32, u32::from(on), 0).map_err(io::Error::other)
    }

    /// Who was born outside the tree since births are noted, whose child that is, and whether it is alive.
    pub fn births(&self) -> io::Result<BTreeMap<ProcessKey, (ProcessKey, bool)>> {
        let key = |name: ProcessName| ProcessKey { pid: name.tgid, start_ns: name.start_ns };
        let rows = self.births.iter();
        let noted = |(Plain(child), Plain(birth)): (Plain<ProcessName>, Plain<Birth>)| {
            (key(child), (key(birth.parent), birth.ended == 0))
        };
        rows.map(|row| row.map(noted)).collect::<Result<_, _>>().map_err(io::Error::other)
    }
}
