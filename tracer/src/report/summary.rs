//! A recording as one object: what `--format json` prints, and what the other formats but text are
//! made from.
//!
//! Processes stand in the order of the tree, each before its children. A process is named by its
//! place in that list, so a pid that was used twice is no trouble. Times ending in `at_ns` count
//! from the start of the trace. A value that is not known is null; zero always means zero.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    clean::{clean, command_line_of},
    observed::{ObservedKind, observed},
    words,
};
use crate::{
    model::{Bytes, Endpoint, FileVersion, ProcessKey},
    policy::{ClaimVerdict, Requirement, Ruling, Verdict, Violation, completeness},
    record::schema::{CommandStatus, Exec, Host, SensorState},
    session::{Connection, Process, Story},
};

/// Version of the object's shape.
pub const SUMMARY: u32 = 1;

/// Longest command line in a summary, in characters. `argv` has all of it.
const COMMAND_LINE_MAX: usize = 4096;

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Summary {
    /// Version of this object's shape.
    pub summary: u32,
    /// What made the recording.
    pub tracer: String,
    /// Whether the recording is whole; a sentence says what is wrong with it.
    pub intact: bool,
    pub integrity: String,
    pub host: Host,
    pub command: Vec<Bytes>,
    /// The command as one would type it, fit to be shown.
    pub command_line: String,
    pub cwd: Bytes,
    pub uid: u32,
    pub gid: u32,
    /// Unix time of the start of the trace.
    pub started_unix_ns: i64,
    /// From the start of the trace to its end.
    pub duration_ns: Option<u64>,
    pub command_status: Option<CommandStatus>,
    /// The worst ruling of any claim; none without a policy.
    pub verdict: Option<Ruling>,
    pub claims: Vec<ClaimSummary>,
    /// What the verdict rests on.
    pub completeness: Vec<Requirement>,
    pub sensors: Vec<SensorState>,
    /// Sentences.
    pub not_seen: Vec<String>,
    pub totals: Totals,
    pub programs: Vec<ProgramSummary>,
    pub endpoints: Vec<EndpointSummary>,
    pub processes: Vec<ProcessSummary>,
    pub connections: Vec<ConnectionSummary>,
    /// Everything else that was recorded, by kind.
    pub observed: Vec<ObservedSummary>,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Totals {
    pub processes: u64,
    pub execs: u64,
    /// Files that were executed.
    pub programs: u64,
    pub connections: u64,
    pub established: u64,
    /// Addresses with port that connections went to.
    pub endpoints: u64,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ClaimSummary {
    pub policy: String,
    /// The claim in words.
    pub claim: String,
    pub ruling: Ruling,
    pub violations: Vec<FindingSummary>,
    /// Everything that keeps it from being proven.
    pub reasons: Vec<String>,
    /// What matches but is allowed by the policy.
    pub allowed: Vec<FindingSummary>,
}

/// An event that matches a claim.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FindingSummary {
    pub at_ns: u64,
    /// Place in `processes`; none when the process is unknown.
    pub process: Option<usize>,
    /// What was run and how that is known.
    pub detail: String,
    /// The command line, and those of its parents.
    pub lineage: String,
}

/// A file that was executed: of a script, the script and not its interpreter.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProgramSummary {
    pub path: Option<Bytes>,
    /// The path, fit to be shown.
    pub shown: String,
    /// Hexadecimal.
    pub sha256: Option<String>,
    /// Why there is none.
    pub unread: Option<String>,
    pub execs: u64,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EndpointSummary {
    /// None when the address could not be read.
    pub destination: Option<Endpoint>,
    pub connections: u64,
    /// How many came to which outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// The shortest time to connect.
    pub fastest_connect_ns: Option<u64>,
    /// Over those connections that were seen to close.
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Established and not seen to close: their bytes are unknown.
    pub still_open: u64,
    /// Places in `processes`.
    pub processes: BTreeSet<usize>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProcessSummary {
    pub pid: u32,
    /// `CLOCK_BOOTTIME`; with the pid it names the process in the recording.
    pub start_ns: u64,
    /// Place in this list.
    pub parent: Option<usize>,
    /// How deep in the tree.
    pub depth: u32,
    pub born_at_ns: u64,
    /// None for one that was not seen to exit.
    pub exited_at_ns: Option<u64>,
    pub exit_code: Option<u8>,
    pub exit_signal: Option<u8>,
    /// An exec of it violates a claim.
    pub violates: bool,
    pub execs: Vec<ExecSummary>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExecSummary {
    pub at_ns: u64,
    pub argv: Vec<Bytes>,
    pub argv_complete: bool,
    /// The argv as one would type it, fit to be shown.
    pub command_line: String,
    pub filename: Option<Bytes>,
    /// The file that was executed: the interpreter, when there is a script.
    pub path: Option<Bytes>,
    pub sha256: Option<String>,
    pub script: Option<Bytes>,
    pub script_sha256: Option<String>,
    /// Place in `programs`.
    pub program: Option<usize>,
    pub cwd: Option<Bytes>,
    pub uid: Option<u32>,
    /// An anonymous memory file.
    pub memfd: bool,
    /// The file had no name in any directory.
    pub unlinked: bool,
    pub violates: bool,
    /// Fields that the kernel could not read.
    pub unread: Vec<String>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ConnectionSummary {
    /// Place in `processes`.
    pub process: usize,
    pub at_ns: u64,
    pub destination: Option<Endpoint>,
    pub source: Option<Endpoint>,
    /// `established`, the name of an error, or why that is not known.
    pub outcome: String,
    pub established: bool,
    /// From the attempt to the outcome.
    pub connect_ns: Option<u64>,
    pub closed_at_ns: Option<u64>,
    pub sent_bytes: Option<u64>,
    pub received_bytes: Option<u64>,
}

/// An event that is neither an exec nor a connection.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ObservedSummary {
    pub kind: ObservedKind,
    pub at_ns: u64,
    /// Place in `processes`; none when it is not known for certain.
    pub process: Option<usize>,
    pub what: String,
    pub detail: String,
}

impl ExecSummary {
    /// The name it was executed under, without folders; fit to be shown.
    pub(super) fn name(&self) -> String {
        let name = self.argv.first().filter(|word| !word.is_empty()).or(self.filename.as_ref());
        name.map_or("?".into(), |name| clean(name.base_name()))
    }
}

impl ProcessSummary {
    /// What it last ran, without folders; fit to be shown.
    pub(super) fn name(&self) -> String {
        self.execs.last().map_or_else(|| "(fork)".into(), ExecSummary::name)
    }

    pub(super) fn label(&self) -> String {
        format!("{} (pid {})", self.name(), self.pid)
    }
}

impl Summary {
    pub fn of(story: &Story, verdict: Option<&Verdict>) -> Summary {
        Builder::new(story, verdict).build()
    }
}

struct Builder<'a> {
    story: &'a Story,
    verdict: Option<&'a Verdict>,
    /// In the order of the tree, with depths.
    order: Vec<(&'a Process, u32)>,
    places: BTreeMap<ProcessKey, usize>,
    /// Process and time of execs that violate a claim.
    violating: BTreeSet<(ProcessKey, u64)>,
    programs: Vec<ProgramSummary>,
    program_places: BTreeMap<(FileVersion, Option<Bytes>), usize>,
}

impl<'a> Builder<'a> {
    fn new(story: &'a Story, verdict: Option<&'a Verdict>) -> Builder<'a> {
        let order = in_tree_order(story);
        let places =
            order.iter().enumerate().map(|(place, (process, _))| (process.key, place)).collect();
        let violating = verdict
            .iter()
            .flat_map(|verdict| &verdict.claims)
            .flat_map(|claim| &claim.violations)
            .map(|violation| (violation.process, violation.t_ns))
            .collect();
        Builder {
            story,
            verdict,
            order,
            places,
            violating,
            programs: Vec::new(),
            program_places: BTreeMap::new(),
        }
    }

    /// Time since the start of the trace.
    fn at(&self, t_ns: u64) -> u64 {
        t_ns.saturating_sub(self.story.start.t_ns)
    }

    fn build(mut self) -> Summary {
        let order = std::mem::take(&mut self.order);
        let processes: Vec<ProcessSummary> =
            order.into_iter().map(|(process, depth)| self.process(process, depth)).collect();
        let connections: Vec<ConnectionSummary> =
            self.story.connections.iter().filter_map(|one| self.connection(one)).collect();
        let endpoints = endpoints(&connections);
        let (start, end) = (&self.story.start, self.story.end.as_ref());
        let started = i64::try_from(start.t_ns).unwrap_or(i64::MAX);
        let claims = self.verdict.iter().flat_map(|verdict| &verdict.claims);
        Summary {
            summary: SUMMARY,
            tracer: clean(start.tracer.as_bytes()),
            intact: self.story.integrity == crate::record::Integrity::Intact,
            integrity: words::integrity(&self.story.integrity),
            host: start.host.clone(),
            command: start.command.clone(),
            command_line: command_line_of(&start.command, COMMAND_LINE_MAX),
            cwd: start.cwd.clone(),
            uid: start.uid,
            gid: start.gid,
            started_unix_ns: started.saturating_add(start.wall_offset_ns),
            duration_ns: end.map(|end| self.at(end.t_ns)),
            command_status: end.map(|end| end.command_status.clone()),
            verdict: self.verdict.map(|verdict| verdict.overall),
            claims: claims.map(|claim| self.claim(claim)).collect(),
            completeness: self.completeness(),
            sensors: start.sensors.clone(),
            not_seen: words::not_seen(self.story),
            totals: Totals {
                processes: processes.len() as u64,
                execs: self.story.execs,
                programs: self.programs.len() as u64,
                connections: connections.len() as u64,
                established: connections.iter().filter(|one| one.established).count() as u64,
                endpoints: endpoints.len() as u64,
            },
            observed: self.observed(),
            programs: self.programs,
            endpoints,
            processes,
            connections,
        }
    }

    fn completeness(&self) -> Vec<Requirement> {
        let lines = self.verdict.map_or_else(
            || completeness(self.story, false),
            |verdict| verdict.completeness.clone(),
        );
        lines
            .into_iter()
            .map(|line| Requirement { detail: clean(line.detail.as_bytes()), ..line })
            .collect()
    }

    fn observed(&self) -> Vec<ObservedSummary> {
        let of_kind = |kind| {
            observed(self.story, kind).into_iter().map(move |event| ObservedSummary {
                kind,
                at_ns: self.at(event.t_ns),
                process: event.process.and_then(|key| self.places.get(&key).copied()),
                what: event.what,
                detail: event.detail,
            })
        };
        ObservedKind::ALL.into_iter().flat_map(of_kind).collect()
    }

    fn claim(&self, claim: &ClaimVerdict) -> ClaimSummary {
        let findings = |violations: &[Violation]| {
            violations.iter().map(|violation| self.finding(violation)).collect()
        };
        ClaimSummary {
            policy: clean(claim.policy.as_bytes()),
            claim: clean(claim.claim.as_bytes()),
            ruling: claim.ruling,
            violations: findings(&claim.violations),
            reasons: claim.reasons.iter().map(|reason| clean(reason.as_bytes())).collect(),
            allowed: findings(&claim.allowed),
        }
    }

    fn finding(&self, violation: &Violation) -> FindingSummary {
        FindingSummary {
            at_ns: self.at(violation.t_ns),
            process: self.places.get(&violation.process).copied(),
            detail: clean(violation.detail.as_bytes()),
            lineage: words::lineage(self.story, violation.process, violation.t_ns),
        }
    }

    fn process(&mut self, process: &Process, depth: u32) -> ProcessSummary {
        let execs: Vec<ExecSummary> = process.execs.iter().map(|exec| self.exec(exec)).collect();
        let exit = process.exit.as_ref();
        ProcessSummary {
            pid: process.key.pid,
            start_ns: process.key.start_ns,
            parent: process.creator.and_then(|key| self.places.get(&key).copied()),
            depth,
            born_at_ns: self.at(process.born_ns),
            exited_at_ns: exit.map(|exit| self.at(exit.t_ns)),
            exit_code: exit.and_then(|exit| exit.code),
            exit_signal: exit.and_then(|exit| exit.signal),
            violates: execs.iter().any(|exec| exec.violates),
            execs,
        }
    }

    fn exec(&mut self, exec: &Exec) -> ExecSummary {
        let story = self.story;
        let sha256 = |version: Option<FileVersion>| {
            version.and_then(|version| story.content(&version).ok()).map(str::to_owned)
        };
        let file = exec.file.as_ref();
        let script = exec.script.as_ref().and_then(|script| script.file.as_ref());
        ExecSummary {
            at_ns: self.at(exec.t_ns),
            argv: exec.argv.args.clone(),
            argv_complete: exec.argv.complete,
            command_line: command_line_of(&exec.argv.args, COMMAND_LINE_MAX),
            filename: exec.filename.clone(),
            path: file.and_then(|file| file.path.clone()),
            sha256: sha256(file.map(|file| file.version())),
            script: script.map(|script| script.path.clone()),
            script_sha256: sha256(script.map(|script| script.version())),
            program: self.program(exec),
            cwd: exec.cwd.clone(),
            uid: exec.credentials.map(|credentials| credentials.uid),
            memfd: exec.memfd,
            unlinked: exec.unlinked,
            violates: self.violating.contains(&(exec.process, exec.t_ns)),
            unread: exec.unread.clone(),
        }
    }

    /// Counts an exec of its program and gives the program's place.
    fn program(&mut self, exec: &Exec) -> Option<usize> {
        let (version, path) = match &exec.script {
            Some(script) => {
                let file = script.file.as_ref()?;
                (file.version(), Some(file.path.clone()))
            }
            None => {
                let file = exec.file.as_ref()?;
                (file.version(), file.path.clone())
            }
        };
        let place = match self.program_places.get(&(version, path.clone())) {
            Some(place) => *place,
            None => {
                let content = self.story.content(&version);
                let shown = path.as_ref().map_or("(no path)".into(), |path: &Bytes| clean(&path.0));
                self.programs.push(ProgramSummary {
                    shown,
                    path: path.clone(),
                    sha256: content.ok().map(str::to_owned),
                    unread: content.err().map(|why| clean(why.as_bytes())),
                    execs: 0,
                });
                self.program_places.insert((version, path), self.programs.len() - 1);
                self.programs.len() - 1
            }
        };
        self.programs.get_mut(place)?.execs += 1;
        Some(place)
    }

    fn connection(&self, connection: &Connection) -> Option<ConnectionSummary> {
        let (result, close) = (connection.result.as_ref(), connection.close.as_ref());
        Some(ConnectionSummary {
            // Every record's process is in the story, introduced by its event if by nothing else.
            process: *self.places.get(&connection.process)?,
            at_ns: self.at(connection.attempted_ns),
            destination: connection.destination,
            source: result.and_then(|result| result.source),
            outcome: words::outcome(connection),
            established: connection.is_established(),
            connect_ns: result.and_then(|result| result.connect_ns),
            closed_at_ns: close.map(|close| self.at(close.t_ns)),
            sent_bytes: close.and_then(|close| close.sent_bytes),
            received_bytes: close.and_then(|close| close.received_bytes),
        })
    }
}

/// Each process before its children, with a stack of its own: a chain of ten thousand forks must
/// not overflow ours.
fn in_tree_order(story: &Story) -> Vec<(&Process, u32)> {
    let mut order = Vec::with_capacity(story.processes.len());
    let mut stack: Vec<(ProcessKey, u32)> =
        story.roots().iter().rev().map(|root| (*root, 0)).collect();
    while let Some((key, depth)) = stack.pop() {
        let Some(process) = story.processes.get(&key) else { continue };
        order.push((process, depth));
        stack.extend(process.children.iter().rev().map(|child| (*child, depth + 1)));
    }
    order
}

fn endpoints(connections: &[ConnectionSummary]) -> Vec<EndpointSummary> {
    let mut endpoints: BTreeMap<Option<Endpoint>, EndpointSummary> = BTreeMap::new();
    for connection in connections {
        let endpoint = endpoints.entry(connection.destination).or_insert_with(|| EndpointSummary {
            destination: connection.destination,
            connections: 0,
            outcomes: BTreeMap::new(),
            fastest_connect_ns: None,
            sent_bytes: 0,
            received_bytes: 0,
            still_open: 0,
            processes: BTreeSet::new(),
        });
        endpoint.connections += 1;
        *endpoint.outcomes.entry(connection.outcome.clone()).or_default() += 1;
        if connection.established {
            let times = [endpoint.fastest_connect_ns, connection.connect_ns];
            endpoint.fastest_connect_ns = times.into_iter().flatten().min();
            endpoint.still_open += u64::from(connection.closed_at_ns.is_none());
        }
        endpoint.sent_bytes += connection.sent_bytes.unwrap_or(0);
        endpoint.received_bytes += connection.received_bytes.unwrap_or(0);
        endpoint.processes.insert(connection.process);
    }
    endpoints.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_tree_is_in_order_and_bytes_are_kept() {
        let summary = fixture::hostile();
        for (place, process) in summary.processes.iter().enumerate() {
            assert!(process.parent.is_none_or(|parent| parent < place), "{process:?}");
        }
        let argvs = summary.processes.iter().flat_map(|process| &process.execs);
        let odd = argvs.flat_map(|exec| &exec.argv).find(|arg| arg.0.contains(&0xff));
        let odd = odd.expect("an argument that is no UTF-8");
        let json = serde_json::to_string(odd).unwrap();
        assert_eq!(&serde_json::from_str::<Bytes>(&json).unwrap(), odd);
    }
}
