//! Whether what was to be watched was, from the first event to the last.

use tracer_ebpf::abi::Kind;

use super::{Concern, Requirement, concern};
use crate::{
    policy::Policy,
    record::{
        self,
        schema::{End, MapsWatched},
    },
    session::Story,
};

/// What the tree told or did to processes outside of it was watched.
pub(super) fn outside(story: &Story) -> Option<Requirement> {
    let start = &story.start;
    if !record::version(start.schema).watches_outside {
        return None;
    }
    let sensor = |name: &str| start.sensors.iter().find(|sensor| sensor.sensor == name);
    let missing = |name: &str| match sensor(name) {
        None => Some("it was not attached".to_owned()),
        Some(sensor) => sensor.missing.clone(),
    };
    let intrusions = missing("intrusions");
    let asked = start.policies.iter().any(Policy::forbids_debuggers);
    // Recordings of before do not have these sensors.
    let by_sockets = |name| missing(name).filter(|_| record::version(start.schema).tells_endpoints);
    let failures: Vec<String> = [
        missing("local-sends")
            .map(|why| format!("what was sent over unix sockets is unknown: {why}")),
        by_sockets("other-sockets")
            .map(|why| format!("whether processes were reached by netlink is unknown: {why}")),
        by_sockets("foreign-sends").map(|why| {
            format!("whether services were reached by connections of others is unknown: {why}")
        }),
        intrusions.clone().filter(|_| asked).map(|why| {
            format!("whether processes outside the tree were taken control of is unknown: {why}")
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    let good = match intrusions {
        None => {
            "what was sent over unix sockets, and debugging of other processes, was watched".into()
        }
        Some(why) => format!(
            "what was sent over unix sockets was watched; debugging of processes outside the tree was \
             not: {why}"
        ),
    };
    let failure = (!failures.is_empty()).then(|| failures.join("; "));
    Some(Requirement::new("outside", Concern::Both, failure, good))
}

/// Sensors without which a contact could go unnoticed, beside those that tracer cannot work without.
const SOCKETS: [(&str, &str); 5] = [
    ("datagrams", "where sockets without connections send to"),
    ("cgroup-moves", "whether a process left the cgroup that is watched"),
    ("odd-sockets", "whether there were raw or SCTP sockets"),
    ("other-sockets", "whether there were packet or vsock sockets"),
    ("foreign-sends", "whether sockets that were made elsewhere were used"),
];

/// Ways to contact somebody other than TCP were watched. No line for a recording from before there
/// were sensors for that.
pub(super) fn sockets(story: &Story) -> Option<Requirement> {
    let start = &story.start;
    if !record::version(start.schema).tells_endpoints {
        return None;
    }
    let missing = |name: &str| match start.sensors.iter().find(|sensor| sensor.sensor == name) {
        None => Some("it was not attached".to_owned()),
        Some(sensor) => sensor.missing.clone(),
    };
    let unattached = SOCKETS
        .iter()
        .filter_map(|(name, what)| Some(format!("{what} is unknown: {}", missing(name)?)));
    // There, a socket counts as the tree's own when it was made in the cgroup, which others are in, too.
    let joined = start.attached.is_some().then(|| {
        "whose the sockets of processes are that ran already is not known: others can have made them and passed \
         them on, and a unix socket of before can have anybody at its other end. No claim over connections is \
         proven of what was joined; a command that `tracer run` starts has no such sockets"
            .to_owned()
    });
    let failures: Vec<String> = unattached.chain(joined).collect();
    Some(Requirement::new(
        "sockets",
        Concern::Connections,
        (!failures.is_empty()).then(|| failures.join("; ")),
        "sockets other than TCP's were watched".into(),
    ))
}

pub(super) fn canaries(concern_of_line: Concern, end: &End) -> Requirement {
    use crate::record::schema::CanaryPhase;
    let kinds: &[Kind] = match concern_of_line {
        Concern::Connections => &[Kind::Connect, Kind::ConnectResult],
        Concern::Programs | Concern::Both | Concern::Names | Concern::Calls => {
            &[Kind::Root, Kind::Fork, Kind::Exec, Kind::Exit]
        }
    };
    let name = match concern_of_line {
        Concern::Connections => "canaries-connections",
        Concern::Programs | Concern::Both | Concern::Names | Concern::Calls => "canaries-programs",
    };
    let check = |phase: CanaryPhase, when: &str| {
        let Some(canary) = end.canaries.iter().find(|canary| canary.phase == phase) else {
            return Some(format!("no canary ran at the {when}"));
        };
        if let Some(failed) = &canary.failed {
            return Some(format!("the canary at the {when} failed: {failed}"));
        }
        // What every canary does, and what this one did because a sensor was there to see it.
        let concerned = |kind: &&Kind| {
            kinds.contains(kind)
                || (concern(**kind).includes(concern_of_line)
                    && canary.seen.contains_key(kind.name()))
        };
        let missing: Vec<&str> = Kind::ALL
            .iter()
            .filter(concerned)
            .map(|kind| kind.name())
            .filter(|kind| canary.seen.get(*kind) != Some(&true))
            .collect();
        (!missing.is_empty()).then(|| {
            format!(
                "the canary at the {when} was not seen by: {} (the probe does not fire)",
                missing.join(", ")
            )
        })
    };
    let failures: Vec<String> =
        [check(CanaryPhase::Start, "start"), check(CanaryPhase::End, "end")]
            .into_iter()
            .flatten()
            .collect();
    Requirement::new(
        name,
        concern_of_line,
        (!failures.is_empty()).then(|| failures.join("; ")),
        "the canaries at the start and at the end were seen".into(),
    )
}

/// Nobody detached a probe. No line for a recording from before that was looked at.
pub(super) fn checks(end: &End) -> Option<Requirement> {
    let checks = end.checks.as_ref()?;
    let good = format!("the probes were attached at each of {} checks", checks.made);
    Some(Requirement::new("attached", Concern::Both, checks.failure.clone(), good))
}

/// The rings of executable mappings are bounded. No line for a recording without that stream.
pub(super) fn maps(end: &End) -> Option<Requirement> {
    let failure = match end.maps.as_ref()? {
        MapsWatched::Lost(0) => None,
        MapsWatched::Lost(lost) => Some(format!("{lost} records of executable mappings were lost")),
        MapsWatched::Absent(why) => Some(format!("what processes map as code is unknown: {why}")),
    };
    let good = "no record of an executable mapping was lost".into();
    Some(Requirement::new("maps", Concern::Programs, failure, good))
}

/// The kernel's queue of file events is bounded. No line for a recording without such a watch.
pub(super) fn files(story: &Story, end: &End) -> Option<Requirement> {
    let watch = story.start.files.as_ref()?;
    let failure = match &end.files {
        None => Some("the recording does not say what the watch of files counted".into()),
        Some(events) if events.overflows > 0 => Some(format!(
            "the kernel's queue of opened files was full {} times, and what came meanwhile is \
             unknown",
            events.overflows
        )),
        Some(events) if events.lost > 0 => {
            Some(format!("{} opened files could not be told apart or kept", events.lost))
        }
        Some(_) => None,
    };
    let read = end.files.as_ref().map_or(0, |events| events.read);
    let good = format!("{} files and folders watched, {read} events read, none lost", watch.marks);
    // Folders where others pick up work are among them.
    Some(Requirement::new("files", Concern::Both, failure, good))
}
