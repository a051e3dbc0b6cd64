//! The independent witness: the kernel's own count of execs.
//!
//! A counting perf event on `sched:sched_process_exec` with `inherit` follows every fork of the
//! task it was opened on, without rings, maps or programs of ours. It is opened on the thread that
//! then forks the command, so it covers the whole tree and nothing else of tracer.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::OwnedFd,
};

use crate::perf;

impl From<ExecWitness> for OwnedFd {
    fn from(witness: ExecWitness) -> OwnedFd {
        witness.event.into()
    }
}

/// Counts execs of the descendants of the thread that opened it.
#[derive(Debug)]
pub(super) struct ExecWitness {
    event: File,
}

impl ExecWitness {
    /// The one that the broker has opened.
    pub(super) fn opened(event: OwnedFd) -> ExecWitness {
        ExecWitness { event: event.into() }
    }

    /// Opens the counter on the calling thread.
    pub(super) fn open() -> io::Result<ExecWitness> {
        let id = perf::tracepoint_id("sched", "sched_process_exec")?;
        Ok(ExecWitness { event: perf::open_inherited_count(id)?.into() })
    }

    /// Execs counted so far, in the tasks that are alive and in those that have exited.
    pub(super) fn read(&mut self) -> io::Result<u64> {
        let mut count = [0; 8];
        self.event.read_exact(&mut count)?;
        Ok(u64::from_ne_bytes(count))
    }
}
