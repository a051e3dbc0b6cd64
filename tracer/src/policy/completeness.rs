//! The completeness statement: what a `proven` rests on, line by line.

mod counts;
mod sensors;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::abi::{Fault, Kind};

use self::{
    counts::{exec_counts, ledger, witness},
    sensors::{canaries, checks, files, maps, outside, sockets},
};
use crate::{
    record::{self, Integrity, schema::End},
    session::Story,
};

/// Which claims a requirement carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Concern {
    Programs,
    Connections,
    Both,
    /// None by itself: what names the C library's resolver gave. A claim that rests on such a name is
    /// judged as if it were not there (`Contact::without_resolver`).
    Names,
    /// None: calls by HTTP.
    Calls,
}

impl Concern {
    /// Whether what concerns these claims concerns the other ones too.
    fn includes(self, other: Concern) -> bool {
        self == Concern::Both || self == other
    }
}

/// One line of the statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requirement {
    pub name: String,
    pub concern: Concern,
    pub holds: bool,
    /// What was found, also when it holds.
    pub detail: String,
}

impl Requirement {
    fn new(name: &str, concern: Concern, failure: Option<String>, good: String) -> Requirement {
        let holds = failure.is_none();
        Requirement { name: name.into(), concern, holds, detail: failure.unwrap_or(good) }
    }

    /// Whether a claim over connections needs it.
    pub fn carries_connections(&self) -> bool {
        self.concern.includes(Concern::Connections)
    }

    /// Whether it is about connections that were made, and are not recorded or lack their names.
    pub(super) fn tells_lost_connections(&self) -> bool {
        matches!(
            self.name.as_str(),
            "no-loss-connect" | "no-loss-payload" | "no-skips-connections" | "sockets"
        )
    }

    /// Whether a claim over programs needs it.
    pub fn carries_programs(&self) -> bool {
        self.concern.includes(Concern::Programs)
    }
}

/// Which claims an event kind carries.
fn concern(kind: Kind) -> Concern {
    match kind {
        Kind::Exec | Kind::ArgvChunk | Kind::Attempt => Concern::Programs,
        // Processes own connections, and without its exit a process counts as running.
        Kind::Root | Kind::Fork | Kind::Exit => Concern::Both,
        // Whoever is handed work can connect as well as run something, and work can be handed over by a
        // connection to a port of this machine, too.
        Kind::LocalSend
        | Kind::Intrusion
        | Kind::Connect
        | Kind::ConnectResult
        | Kind::OddSocket
        | Kind::ForeignSend => Concern::Both,
        Kind::Close | Kind::Datagram | Kind::CgroupMove | Kind::Payload => Concern::Connections,
        Kind::Resolve => Concern::Names,
        Kind::TlsData | Kind::TlsBegin | Kind::TlsEnd => Concern::Calls,
    }
}

/// The first schema whose recordings have this kind. Lines about kinds that an old recording could
/// not have would make its verdict another one than it was.
fn since_schema(kind: Kind) -> u32 {
    match kind {
        Kind::Root
        | Kind::Fork
        | Kind::Exec
        | Kind::ArgvChunk
        | Kind::Exit
        | Kind::Connect
        | Kind::ConnectResult
        | Kind::Close => 1,
        Kind::Attempt | Kind::LocalSend | Kind::Intrusion => 2,
        Kind::Datagram
        | Kind::OddSocket
        | Kind::ForeignSend
        | Kind::CgroupMove
        | Kind::Payload
        | Kind::Resolve
        | Kind::TlsData
        | Kind::TlsBegin
        | Kind::TlsEnd => 3,
    }
}

/// Everything a claim needs besides the events. Pure: live and offline give the same lines.
pub fn completeness(story: &Story, survivors_allowed: bool) -> Vec<Requirement> {
    let mut lines = vec![integrity(story)];
    let Some(end) = &story.end else { return lines };
    lines.push(armed(story));
    lines.extend(found(story));
    lines.push(started(end));
    let kinds = Kind::ALL.iter().filter(|kind| since_schema(**kind) <= story.start.schema);
    // What nobody asked for has no line.
    let watches_tls = story.start.sensors.iter().any(|sensor| sensor.sensor == "tls");
    let kinds = kinds.filter(|kind| concern(**kind) != Concern::Calls || watches_tls);
    lines.extend(kinds.map(|kind| nothing_lost(*kind, story, end)));
    lines.push(no_faults(story, end));
    lines.push(no_routes(end));
    lines.extend([Concern::Programs, Concern::Connections].map(|concern| no_skips(concern, end)));
    lines.push(witness(story, end));
    lines.extend(exec_counts(story));
    lines.extend(outside(story));
    lines.extend(sockets(story));
    lines.extend([Concern::Programs, Concern::Connections].map(|concern| canaries(concern, end)));
    lines.push(ledger(story, end));
    lines.extend(checks(end));
    lines.extend(files(story, end));
    lines.extend(maps(end));
    lines.push(drained(story, end, survivors_allowed));
    lines
}

fn integrity(story: &Story) -> Requirement {
    let failure = match &story.integrity {
        Integrity::Intact => None,
        Integrity::CutShort => Some(
            "the recording has no end record: tracer was killed or the file was cut, \
             and what happened afterwards is unknown"
                .into(),
        ),
        Integrity::Broken { line, reason } => {
            Some(format!("the recording is damaged at line {line}: {reason}"))
        }
    };
    Requirement::new(
        "integrity",
        Concern::Both,
        failure,
        "all lines are present and unchanged".into(),
    )
}

fn armed(story: &Story) -> Requirement {
    let start = &story.start;
    let from_arming = start.attached.as_ref().is_some_and(|attached| attached.from_arming);
    let failure = (!start.armed_before_first_instruction && !from_arming)
        .then(|| "what ran before the probes were attached is unknown".into());
    let good = if from_arming {
        "the claims are limited to the time from when tracer had found what ran already; what that did \
         before is unknown"
    } else {
        "the probes were attached before the first instruction of the command"
    };
    Requirement::new("armed", Concern::Both, failure, good.into())
}

/// Everybody who ran already was found. No line where nothing was to be found.
fn found(story: &Story) -> Option<Requirement> {
    story.start.attached.as_ref()?;
    let failure = match &story.snapshot {
        None => Some("the processes that ran already were not all found".into()),
        Some(snapshot) if !snapshot.doubts.is_empty() => Some(snapshot.doubts.join("; ")),
        Some(_) => None,
    };
    let good = story.snapshot.as_ref().map_or_else(String::new, |snapshot| {
        format!(
            "{} processes that ran already were found; /proc was read {} times until there were no more",
            snapshot.processes, snapshot.rounds
        )
    });
    Some(Requirement::new("found", Concern::Both, failure, good))
}

fn started(end: &End) -> Requirement {
    use crate::record::schema::CommandStatus::{Exited, Killed, NoCommand, NotStarted, Running};
    let failure = match &end.command_status {
        Exited(_) | Killed(_) | Running | NoCommand => None,
        NotStarted(why) => Some(format!("the command could not be started: {why}")),
    };
    Requirement::new("started", Concern::Both, failure, "the command was started".into())
}

/// Per CPU and kind: counted in the kernel = read, and as many lines as were read.
fn nothing_lost(kind: Kind, story: &Story, end: &End) -> Requirement {
    let rows = || end.counters.iter().filter(|row| row.kind == kind.name());
    let sum = |field: fn(&record::schema::CounterRow) -> u64| rows().map(field).sum::<u64>();
    let (produced, lost, read) =
        (sum(|row| row.produced), sum(|row| row.lost), sum(|row| row.read));
    let canary = end.canary_events.get(kind.name()).copied().unwrap_or(0);
    let recorded = story.recorded(kind);
    let uneven = rows().find(|row| row.produced != row.read + row.lost);
    let failure = if lost > 0 {
        Some(format!(
            "{lost} of {produced} {} events were lost: there was no room in the ring",
            kind.name()
        ))
    } else if let Some(row) = uneven {
        Some(format!(
            "CPU {} produced {} {} events and {} were read",
            row.cpu,
            row.produced,
            kind.name(),
            row.read
        ))
    } else if recorded.is_some_and(|recorded| recorded + canary != read) {
        Some(format!(
            "{read} {} events were read, {canary} of them the canaries', and the recording has {}",
            kind.name(),
            recorded.unwrap_or(0)
        ))
    } else {
        None
    };
    Requirement::new(
        &format!("no-loss-{}", kind.name()),
        concern(kind),
        failure,
        format!("{produced} {} events counted in the kernel, {read} read", kind.name()),
    )
}

/// Whether every call of the C library's resolver that was seen is in the recording.
pub(super) fn resolver_is_whole(story: &Story) -> bool {
    story.end.as_ref().is_none_or(|end| {
        let skipped =
            |(probe, count): (&String, &u64)| *count > 0 && probe_concern(probe) == Concern::Names;
        nothing_lost(Kind::Resolve, story, end).holds && !end.skipped_runs.iter().any(skipped)
    })
}

fn no_faults(story: &Story, end: &End) -> Requirement {
    let mut failures: Vec<String> = Fault::ALL
        .iter()
        .filter(|fault| **fault != Fault::PacketRoute)
        .filter_map(|fault| {
            Some((fault, end.faults.get(fault.name()).filter(|count| **count > 0)?))
        })
        .map(|(fault, count)| format!("{count} x {}: {}", fault.name(), meaning(*fault)))
        .collect();
    if end.damaged_records > 0 {
        failures.push(format!("{} ring records could not be decoded", end.damaged_records));
    }
    if story.orphans > 0 {
        failures.push(format!("{} events belong to processes nobody saw start", story.orphans));
    }
    Requirement::new(
        "no-faults",
        Concern::Both,
        (!failures.is_empty()).then(|| failures.join("; ")),
        "no map insert failed and no record was damaged".into(),
    )
}

/// Packets that may have gone elsewhere than their sockets say.
fn no_routes(end: &End) -> Requirement {
    let count = end.faults.get(Fault::PacketRoute.name()).copied().unwrap_or_default();
    Requirement::new(
        "no-routes",
        Concern::Connections,
        (count > 0).then(|| format!("{count} {}", meaning(Fault::PacketRoute))),
        "no packet left with a route of its own".into(),
    )
}

fn meaning(fault: Fault) -> &'static str {
    match fault {
        Fault::TreeInsert => {
            "a child could not be tracked, so it and its descendants were not seen"
        }
        Fault::SocketInsert => "a connection could not be followed to its outcome",
        Fault::LedgerInsert => "an executed file is not in the ledger",
        Fault::Scratch => "an exec could not be put together and was not emitted",
        Fault::FlowInsert => "where datagrams went could not be remembered and was not reported",
        Fault::PacketRoute => {
            "packets left with options of IPv4 or extension headers of IPv6, which can send them elsewhere than \
             where their sockets are connected to"
        }
        Fault::Identity => "a new process could not be told from a thread",
    }
}

/// The kernel runs no probe inside itself on one CPU; it counts the runs it skipped.
fn no_skips(concern: Concern, end: &End) -> Requirement {
    let name = match concern {
        Concern::Connections => "no-skips-connections",
        Concern::Programs | Concern::Both | Concern::Names | Concern::Calls => "no-skips-programs",
    };
    let skipped: Vec<String> = end
        .skipped_runs
        .iter()
        .filter(|(probe, count)| **count > 0 && probe_concern(probe).includes(concern))
        .map(|(probe, count)| format!("the kernel skipped {count} runs of the probe {probe}"))
        .collect();
    Requirement::new(
        name,
        concern,
        (!skipped.is_empty()).then(|| skipped.join("; ")),
        "the kernel skipped no run of a probe".into(),
    )
}

fn probe_concern(probe: &str) -> Concern {
    match probe {
        "connect4" | "connect6" | "sendmsg4" | "sendmsg6" | "packet_out" | "packet_in"
        | "cgroup_move" => Concern::Connections,
        "resolve_call" | "resolve_return" => Concern::Names,
        probe if probe.starts_with("tls_") => Concern::Calls,
        "exec" => Concern::Programs,
        probe if probe.starts_with("attempt_") => Concern::Programs,
        _ => Concern::Both,
    }
}

fn drained(story: &Story, end: &End, survivors_allowed: bool) -> Requirement {
    let names: Vec<String> = end.survivors.iter().map(|key| story.label(*key)).collect();
    let failure = if end.interrupted {
        Some("tracing was interrupted before the tree had ended".into())
    } else if story.alive.len() != end.survivors.len() {
        Some(format!(
            "{} processes have no exit in the recording and {} are listed as still running",
            story.alive.len(),
            end.survivors.len()
        ))
    } else if !names.is_empty() && !survivors_allowed {
        Some(format!(
            "still running when tracing ended, and free to do anything since: {}",
            names.join(", ")
        ))
    } else {
        None
    };
    let good = if names.is_empty() {
        "every process of the tree was seen to exit".into()
    } else {
        format!("the policy allows what still ran when tracing ended: {}", names.join(", "))
    };
    Requirement::new("drained", Concern::Both, failure, good)
}
