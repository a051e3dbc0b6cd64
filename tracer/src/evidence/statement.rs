//! The in-toto statement about a recording.
//!
//! The subject is the recording itself, by its digest. The predicate is the attestation framework's
//! *runtime trace*, with three fields of tracer's own: `monitor.version`, `monitorLog.counts` and
//! `completeness`, which says how far the log can be trusted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Endpoint, FileVersion},
    policy::{ClaimVerdict, Policy, Requirement, Ruling, Verdict, completeness},
    record::{hex, schema::SensorState},
    report,
    session::Story,
};

pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
pub const PREDICATE_TYPE: &str = "https://in-toto.io/attestation/runtime-trace/v0.1";
/// Package URL of this tool: type of the monitor and, with the fragment, of what it monitors.
const MONITOR: &str = "pkg:cargo/tracer";
const COMMAND: &str = "pkg:cargo/tracer#run";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    monitor: Monitor,
    monitored_process: MonitoredProcess,
    monitor_log: MonitorLog,
    metadata: Metadata,
    completeness: Completeness,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Monitor {
    #[serde(rename = "type")]
    kind: String,
    version: String,
    trace_policy: TracePolicy,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TracePolicy {
    policies: Vec<Policy>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MonitoredProcess {
    /// The machine's boot, since nothing else names a host for certain.
    #[serde(rename = "hostID")]
    host_id: String,
    #[serde(rename = "type")]
    kind: String,
    /// Unique: the boot, the moment and the command.
    event: String,
}

/// What the recording adds up to; the recording has each event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct MonitorLog {
    process: Vec<Program>,
    network: Vec<Remote>,
    counts: Counts,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Program {
    /// Harmless to show, so not byte for byte where the path is no text.
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    execs: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Remote {
    ip: String,
    port: u16,
    protocol: String,
    connections: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    processes: u64,
    execs: u64,
    connections: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    build_started_on: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_finished_on: Option<String>,
}

/// How far the log can be trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Completeness {
    /// Absent when nothing was claimed.
    verdict: Option<Ruling>,
    claims: Vec<ClaimVerdict>,
    requirements: Vec<Requirement>,
    /// Each hook and what it cannot see.
    sensors: Vec<SensorState>,
}

/// Why a statement that is signed does not support the recording.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    #[error("what was signed is no in-toto statement about a runtime trace: {0}")]
    Malformed(String),
    #[error("it is of type `{0}`, and this tracer knows {STATEMENT_TYPE} about {PREDICATE_TYPE}")]
    OtherType(String),
    #[error("it is about another file: this one has SHA-256 {found}")]
    OtherSubject { found: String },
    #[error("it says {signed}, and the events of the recording say {found}")]
    OtherVerdict { signed: String, found: String },
}

impl Statement {
    /// About a recording of this digest. `name` is a hint, as a file can be renamed.
    pub fn new(
        name: &str,
        sha256: [u8; 32],
        story: &Story,
        verdict: Option<&Verdict>,
    ) -> Statement {
        let start = &story.start;
        let date = |t_ns: u64| report::rfc3339(start.wall_offset_ns.saturating_add_unsigned(t_ns));
        let command = report::subject(start);
        let boot = &start.host.boot_id;
        Statement {
            kind: STATEMENT_TYPE.into(),
            subject: vec![Subject {
                name: name.into(),
                digest: BTreeMap::from([("sha256".into(), hex(&sha256))]),
            }],
            predicate_type: PREDICATE_TYPE.into(),
            predicate: Predicate {
                monitor: Monitor {
                    kind: MONITOR.into(),
                    version: start.tracer.clone(),
                    trace_policy: TracePolicy { policies: start.policies.clone() },
                },
                monitored_process: MonitoredProcess {
                    host_id: format!("urn:uuid:{boot}"),
                    kind: COMMAND.into(),
                    event: format!("{boot} at {} ns: {command}", start.t_ns),
                },
                monitor_log: log(story),
                metadata: Metadata {
                    build_started_on: date(start.t_ns),
                    build_finished_on: story.end.as_ref().map(|end| date(end.t_ns)),
                },
                completeness: Completeness {
                    verdict: verdict.map(|verdict| verdict.overall),
                    claims: verdict.map(|verdict| verdict.claims.clone()).unwrap_or_default(),
                    requirements: verdict.map_or_else(
                        || completeness(story, false),
                        |verdict| verdict.completeness.clone(),
                    ),
                    sensors: start.sensors.clone(),
                },
            },
        }
    }

    pub(super) fn to_json(&self) -> String {
        #[expect(clippy::expect_used, reason = "strings, numbers and lists always serialise")]
        serde_json::to_string(self).expect("a statement is JSON")
    }

    pub(super) fn from_json(text: &[u8]) -> Result<Statement, StatementError> {
        let value: serde_json::Value = serde_json::from_slice(text)
            .map_err(|error| StatementError::Malformed(error.to_string()))?;
        // The types first: of another one, every other complaint would mislead.
        for (field, expected) in [("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)] {
            let found = value.get(field).and_then(|value| value.as_str()).unwrap_or("nothing");
            if found != expected {
                return Err(StatementError::OtherType(found.into()));
            }
        }
        serde_json::from_value(value).map_err(|error| StatementError::Malformed(error.to_string()))
    }

    /// Whether it is about the file of this digest and says what its events say. A verdict by other
    /// policies than the recording's own is none of its business: `verdict` is absent then.
    pub fn supports(
        &self,
        sha256: [u8; 32],
        verdict: Option<&Verdict>,
    ) -> Result<(), StatementError> {
        let found = hex(&sha256);
        let about = |subject: &Subject| subject.digest.get("sha256") == Some(&found);
        if !self.subject.iter().any(about) {
            return Err(StatementError::OtherSubject { found });
        }
        let name =
            |ruling: Option<Ruling>| ruling.map_or("nothing claimed", Ruling::name).to_owned();
        let signed = self.predicate.completeness.verdict;
        match verdict.map(|verdict| verdict.overall) {
            Some(found) if signed != Some(found) => {
                Err(StatementError::OtherVerdict { signed: name(signed), found: name(Some(found)) })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn log(story: &Story) -> MonitorLog {
    let mut programs: BTreeMap<(String, Option<FileVersion>), u64> = BTreeMap::new();
    for exec in story.execs_in_order() {
        let script = exec.script.as_ref().and_then(|script| script.file.as_ref());
        let file = exec.file.as_ref();
        let path = script
            .map(|script| &script.path)
            .or_else(|| file.and_then(|file| file.path.as_ref()))
            .or(exec.filename.as_ref());
        let path = path.map_or_else(|| "unknown".into(), |path| report::clean(&path.0));
        let version =
            script.map(|script| script.version()).or_else(|| file.map(|file| file.version()));
        *programs.entry((path, version)).or_default() += 1;
    }
    let mut remotes: BTreeMap<Endpoint, u64> = BTreeMap::new();
    for destination in story.connections.iter().filter_map(|connection| connection.destination) {
        *remotes.entry(destination).or_default() += 1;
    }
    MonitorLog {
        process: programs
            .into_iter()
            .map(|((path, version), execs)| Program {
                path,
                sha256: version.and_then(|version| story.content(&version).ok().map(str::to_owned)),
                execs,
            })
            .collect(),
        network: remotes
            .into_iter()
            .map(|(endpoint, connections)| Remote {
                ip: endpoint.address.to_string(),
                port: endpoint.port,
                protocol: "tcp".into(),
                connections,
            })
            .collect(),
        counts: Counts {
            processes: story.processes.len() as u64,
            execs: story.execs,
            connections: story.connections.len() as u64,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{policy, record};

    fn golden(name: &str) -> Story {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reports");
        Story::of(record::read(&folder.join(format!("{name}.jsonl"))).unwrap())
    }

    #[test]
    fn a_statement_says_what_the_recording_says() {
        let story = golden("violated");
        let verdict = policy::judge(&story, &story.start.policies);
        let statement = Statement::new("r.jsonl", [1; 32], &story, verdict.as_ref());
        let read = Statement::from_json(statement.to_json().as_bytes()).unwrap();
        assert_eq!(read, statement);
        assert_eq!(read.predicate.completeness.verdict, Some(Ruling::Violated));
        assert!(read.supports([1; 32], verdict.as_ref()).is_ok());
        assert!(read.supports([1; 32], None).is_ok());
        assert!(matches!(
            read.supports([2; 32], verdict.as_ref()),
            Err(StatementError::OtherSubject { .. })
        ));
        let proven = golden("proven");
        let other = policy::judge(&proven, &proven.start.policies);
        assert!(matches!(
            read.supports([1; 32], other.as_ref()),
            Err(StatementError::OtherVerdict { .. })
        ));
        let log = &read.predicate.monitor_log;
        assert!(log.process.iter().any(|program| program.path.ends_with("/aws")), "{log:?}");
        assert_eq!(log.process.iter().map(|program| program.execs).sum::<u64>(), story.execs);
        assert!(log.network.iter().all(|remote| remote.port == 443) && !log.network.is_empty());
    }

    #[test]
    fn other_statements_are_told_apart() {
        let story = golden("no-policy");
        let text = Statement::new("r", [1; 32], &story, None).to_json();
        let error = |text: String| Statement::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error(text.replace("runtime-trace/v0.1", "slsa/v1")).contains("slsa/v1"));
        assert!(error(text.replace("Statement/v1", "Statement/v2")).contains("Statement/v2"));
        assert!(error(text.replace("monitorLog", "log")).contains("monitorLog"));
        assert!(error("{}".into()).contains("nothing"));
        assert!(error("{".into()).contains("no in-toto statement"));
    }
}
