//! What the engine needs, as opposed to what was typed.

use std::{ffi::OsString, io::Write, time::Duration};

use super::{Broker, SenderProcess};
use crate::{catalogue::Catalogue, policy::Policy, probe};

/// A run.
pub struct Settings {
    /// What is done with the rights that tracer has at the start and no longer.
    pub broker: Broker,
    pub command: Vec<OsString>,
    pub policies: Vec<Policy>,
    /// What the policies' names stand for.
    pub catalogue: Catalogue,
    /// Where the recording goes, if anywhere.
    pub output: Option<Box<dyn Write + Send>>,
    /// How large a file of it may be before the next one begins, if there is to be a next one.
    pub part_bytes: Option<u64>,
    pub on_error: OnError,
    /// Sends log records to a collector while tracing runs.
    pub sender: Option<SenderProcess>,
    pub probes: probe::Options,
    /// Of calls by HTTP, record a few values of their bodies.
    pub http_fields: bool,
    /// How long to wait, once the command has ended, for the processes it left behind.
    pub linger: Duration,
    /// The story is to have everything that a summary shows.
    pub summary: bool,
    /// Say on standard error what is being waited for.
    pub progress: bool,
}

/// What becomes of the command when the recording cannot be written any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    Continue,
    /// It gets SIGTERM. What was joined is left alone, and tracing ends.
    Stop,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("command", &self.command).finish_non_exhaustive()
    }
}
