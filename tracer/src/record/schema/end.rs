//! The last line: whether everything that happened was seen.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    model::{FileId, ProcessKey},
    policy::Verdict,
};

use super::{CredentialEvents, HostsEntry};

/// Events of the file watch, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileEvents {
    pub read: u64,
    /// How often the kernel's queue was full, each time for an unknown number of events.
    pub overflows: u64,
    /// Read, and of no use: the file could not be opened, or there was no room to keep them.
    pub lost: u64,
}

/// What became of the stream of executable mappings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MapsWatched {
    /// How many records were lost.
    Lost(u64),
    /// It could not be opened or read.
    Absent(String),
}

/// Last line: everything a verdict needs besides the events, and the verdict itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    pub t_ns: u64,
    pub command_status: CommandStatus,
    /// Signals told tracer to stop while the command ran on. Never of `attach`, which is meant to end before what it
    /// joined.
    pub interrupted: bool,
    /// Per CPU and kind; rows of zeros are left out.
    pub counters: Vec<CounterRow>,
    /// How many of the events read were the canaries', by kind: they are counted but not recorded.
    pub canary_events: BTreeMap<String, u64>,
    /// Failures inside the kernel side, by name; zeros are left out.
    pub faults: BTreeMap<String, u64>,
    /// How often the kernel skipped a probe because it was already running on that CPU.
    pub skipped_runs: BTreeMap<String, u64>,
    /// Ring records that could not be decoded or joined.
    pub damaged_records: u64,
    pub witness: Witness,
    pub canaries: Vec<Canary>,
    /// What the kernel counted as executed by the tree, file by file.
    pub ledger: Vec<LedgerRow>,
    /// Still running when tracing ended.
    pub survivors: Vec<ProcessKey>,
    /// Of the watch of files, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FileEvents>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialEvents>,
    /// Absent where executable mappings were not to be watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maps: Option<MapsWatched>,
    /// What the file of hosts said about addresses that the tree contacted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostsEntry>,
    /// What the checks of the probes came to, one a second. Absent in recordings from before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Checks>,
    /// As computed at the time; `verify` computes it again.
    pub verdict: Option<Verdict>,
}

/// Whether the probes were attached all the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checks {
    pub made: u64,
    /// What the first one found that was not in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CommandStatus {
    Exited(u8),
    Killed(u8),
    /// tracing ended first
    Running,
    /// What ran already was joined, so there is none.
    NoCommand,
    NotStarted(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CounterRow {
    pub cpu: u32,
    pub kind: String,
    /// Counted by the kernel before it asked the ring for room.
    pub produced: u64,
    /// The ring had no room.
    pub lost: u64,
    /// Read by the collector.
    pub read: u64,
}

/// The kernel's own inherited perf counter of `sched:sched_process_exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Witness {
    Counted(u64),
    /// It could not be opened or read.
    Absent(String),
    /// No policy asked for a verdict, and inheriting the counter costs each new process.
    NotAsked,
}

/// One check that the probes fire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Canary {
    pub phase: CanaryPhase,
    /// Kinds of event a complete canary makes, and whether each arrived.
    pub seen: BTreeMap<String, bool>,
    /// Why it could not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CanaryPhase {
    Start,
    End,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerRow {
    #[serde(flatten)]
    pub file: FileId,
    pub execs: u64,
}
