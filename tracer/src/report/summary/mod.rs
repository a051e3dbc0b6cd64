//! A recording as one object: what `--format json` prints, and what the other formats but text are
//! made from.
//!
//! Processes stand in the order of the tree, each before its children. A process is named by its
//! place in that list, so a pid that was used twice is no trouble. Times ending in `at_ns` count
//! from the start of the trace. A value that is not known is null; zero always means zero.

mod calls;
mod claims;
mod credentials;
mod dns;
mod network;
mod processes;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    clean::{clean, command_line_of},
    observed::{ObservedKind, observed},
    words,
};
use crate::{
    catalogue::EndpointClass,
    model::{Bytes, FileVersion, ProcessKey},
    policy::{Requirement, Ruling, Verdict, completeness},
    record::schema::{CommandStatus, Host, SensorState},
    session::{Process, Story, Whole},
};
use network::Network;
use processes::in_tree_order;

pub use calls::CallSummary;
pub(in crate::report) use calls::nanoseconds;
pub use claims::{ClaimSummary, FindingSummary};
pub use credentials::{
    CredentialStep, CredentialSummary, McpSummary, McpTransportKind, OriginKind,
};
pub use dns::DnsSummary;
pub use network::{ConnectionSummary, DatagramSummary, EndpointSummary};
pub(crate) use network::{Protocols, endpoint_label};
pub use processes::{ExecSummary, ProcessSummary, ProgramSummary};

/// Version of the object's shape.
pub const SUMMARY: u32 = 3;

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
    pub datagrams: Vec<DatagramSummary>,
    pub dns: Vec<DnsSummary>,
    /// In the order in which they began.
    pub calls: Vec<CallSummary>,
    /// By process and provider.
    pub credentials: Vec<CredentialSummary>,
    pub mcp_servers: Vec<McpSummary>,
    /// Everything else that was recorded, by kind.
    pub observed: Vec<ObservedSummary>,
    /// A sentence, where the lists are not of the whole recording. JSON always has everything.
    #[serde(skip)]
    pub left_out: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Totals {
    pub processes: u64,
    pub execs: u64,
    /// Files that were executed.
    pub programs: u64,
    pub connections: u64,
    pub established: u64,
    /// Sockets of datagrams and destinations, in pairs.
    pub datagrams: u64,
    /// Of all of them.
    pub endpoints: u64,
    /// HTTP calls that the tree made, whether or not they ended.
    pub calls: u64,
    /// Of these, those of the classes `api` and `mcp`.
    pub api_calls: u64,
    pub mcp_calls: u64,
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
        let Network { endpoints, connections, datagrams } = self.network();
        let calls = self.calls();
        let made = |class: Option<EndpointClass>| {
            let made = calls.iter().filter(|call| !call.served);
            made.filter(|call| class.is_none() || call.kind.class == class).count() as u64
        };
        let (start, end) = (&self.story.start, self.story.end.as_ref());
        let started = i64::try_from(start.t_ns).unwrap_or(i64::MAX);
        let claims = self.verdict.iter().flat_map(|verdict| &verdict.claims);
        let shown = Totals {
            processes: processes.len() as u64,
            execs: self.story.execs,
            programs: self.programs.len() as u64,
            connections: connections.len() as u64,
            established: connections.iter().filter(|one| one.established).count() as u64,
            datagrams: datagrams.len() as u64,
            endpoints: endpoints.len() as u64,
            calls: made(None),
            api_calls: made(Some(EndpointClass::Api)),
            mcp_calls: made(Some(EndpointClass::Mcp)),
        };
        let whole = self.story.whole.as_deref();
        Summary {
            left_out: whole.map(|whole| left_out(whole, &shown)),
            totals: whole.map_or(shown, |whole| all(whole, shown)),
            summary: SUMMARY,
            tracer: clean(start.tracer.as_bytes()),
            intact: self.story.integrity == crate::record::Integrity::Intact,
            integrity: words::integrity(&self.story.integrity),
            host: start.host.clone(),
            command: start.command.clone(),
            command_line: match &start.attached {
                Some(_) => words::subject(start),
                None => command_line_of(&start.command, COMMAND_LINE_MAX),
            },
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
            calls,
            dns: self.dns(),
            credentials: self.credentials(),
            mcp_servers: self.mcp_servers(),
            observed: self.observed(),
            programs: self.programs,
            endpoints,
            processes,
            connections,
            datagrams,
        }
    }

    fn completeness(&self) -> Vec<Requirement> {
        let lines = match (&self.story.whole, self.verdict) {
            (Some(whole), _) => whole.completeness.clone(),
            (None, Some(verdict)) => verdict.completeness.clone(),
            (None, None) => completeness(self.story, false),
        };
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
}

/// Totals of a whole recording, of which a part is shown: every file is in it, and every endpoint, as far
/// as they can be listed.
fn all(whole: &Whole, shown: Totals) -> Totals {
    Totals {
        processes: whole.processes,
        execs: whole.execs,
        connections: whole.connections,
        established: whole.established,
        datagrams: whole.datagrams,
        calls: whole.calls,
        api_calls: whole.api_calls,
        mcp_calls: whole.mcp_calls,
        ..shown
    }
}

fn left_out(whole: &Whole, shown: &Totals) -> String {
    let parts = [
        (shown.processes, whole.processes, "processes"),
        (shown.execs, whole.execs, "execs"),
        (shown.connections, whole.connections, "connections"),
        (shown.datagrams, whole.datagrams, "datagram destinations"),
        (shown.calls, whole.calls, "HTTP calls"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(shown, all, _)| shown < all)
        .map(|(shown, all, what)| format!("{shown} of {all} {what}"))
        .collect();
    let findings = match whole.findings {
        0 => String::new(),
        more => format!("; {more} more findings and reasons of claims are not listed"),
    };
    format!(
        "This is an excerpt: the lists, and the counts in them, are of {}: the first ones, and of the others \
         those that bring a new file, address or URL, or violate a claim{findings}. The verdict, the \
         totals and the completeness statement are of the whole recording. --all shows everything.",
        if parts.is_empty() { "a part of the records".into() } else { parts.join(", ") }
    )
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
