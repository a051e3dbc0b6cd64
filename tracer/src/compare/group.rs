//! Sessions that belong together.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    calls::{CallsSummary, GroupCalls, GroupLatencies},
    session::Session,
    stats::{Quantiles, Spread},
};
use crate::{catalogue::EndpointClass, policy::Ruling, record::Integrity, report};

/// In how many sessions something was seen, and how often in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    pub sessions: u64,
    pub times: u64,
}

impl Seen {
    pub(super) fn add(&mut self, times: u64) {
        self.sessions += 1;
        self.times += times;
    }
}

/// The same of an endpoint, with what stands behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EndpointSeen {
    #[serde(flatten)]
    pub seen: Seen,
    /// What the catalogue calls it.
    pub service: Option<String>,
    pub class: Option<EndpointClass>,
}

/// A recording whose numbers are in no sum: half of a session would make every mean wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unused {
    pub recording: String,
    pub reason: String,
}

/// What the sessions of a group add up to.
#[derive(Debug)]
pub struct Group {
    pub name: String,
    pub sessions: u64,
    pub unused: Vec<Unused>,
    /// Of each recording that is used, its origin and its name.
    pub(super) origins: Vec<((String, u64), String)>,
    pub(super) verdicts: BTreeMap<&'static str, u64>,
    pub(super) endpoints: BTreeMap<String, EndpointSeen>,
    /// Of each class, the sessions that contacted an endpoint of it, and how often.
    pub(super) classes: BTreeMap<EndpointClass, Seen>,
    pub(super) credentials: BTreeMap<String, Seen>,
    pub(super) programs: BTreeMap<String, Seen>,
    pub(super) processes: Spread,
    pub(super) execs: Spread,
    pub(super) connections: Spread,
    pub(super) datagrams: Spread,
    /// From the attempt to an established connection.
    pub(super) latency: GroupLatencies,
    pub(super) calls: GroupCalls,
}

/// A group as numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupSummary {
    pub name: String,
    /// Recordings that are intact; the numbers are theirs.
    pub recordings: u64,
    pub unused: Vec<Unused>,
    pub verdicts: BTreeMap<&'static str, u64>,
    pub endpoints: BTreeMap<String, EndpointSeen>,
    /// All classes of the catalogue; those of which there was none are zero.
    pub classes: BTreeMap<EndpointClass, Seen>,
    /// Sources of credentials whose files were opened, or that were in an environment.
    pub credentials: BTreeMap<String, Seen>,
    /// Endpoints that not every session called.
    pub endpoints_in_some_sessions_only: Vec<String>,
    pub programs: BTreeMap<String, Seen>,
    pub programs_in_some_sessions_only: Vec<String>,
    pub processes_per_session: Spread,
    pub execs_per_session: Spread,
    pub connections_per_session: Spread,
    pub datagrams_per_session: Spread,
    /// Of established connections. Absent when there was none.
    pub connect_latency_ns: Option<Quantiles>,
    /// Absent when no session recorded any.
    pub calls: Option<CallsSummary>,
}

impl Group {
    pub fn new(name: &str) -> Group {
        Group {
            name: name.into(),
            sessions: 0,
            unused: Vec::new(),
            origins: Vec::new(),
            verdicts: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            classes: BTreeMap::new(),
            credentials: BTreeMap::new(),
            datagrams: Spread::default(),
            programs: BTreeMap::new(),
            processes: Spread::default(),
            execs: Spread::default(),
            connections: Spread::default(),
            latency: GroupLatencies::new(),
            calls: GroupCalls::new(),
        }
    }

    pub fn add(&mut self, recording: &str, session: &Session) {
        match &session.integrity {
            Integrity::Intact => {}
            broken @ (Integrity::CutShort | Integrity::Broken { .. }) => {
                return self.leave_out(recording, report::integrity(broken));
            }
        }
        self.sessions += 1;
        self.origins.push((session.origin.clone(), report::clean(recording.as_bytes())));
        *self.verdicts.entry(session.ruling.map_or("no policy", Ruling::name)).or_default() += 1;
        self.count_endpoints(session);
        count(&mut self.credentials, &session.credentials);
        self.datagrams.add(session.datagrams);
        count(&mut self.programs, &session.programs);
        self.processes.add(session.processes);
        self.execs.add(session.execs);
        self.connections.add(session.connections);
        self.latency.add(&session.latency);
        if let Some(calls) = &session.calls {
            self.calls.add(calls);
        }
    }

    fn count_endpoints(&mut self, session: &Session) {
        let mut classes: BTreeMap<EndpointClass, u64> = BTreeMap::new();
        for (label, reached) in &session.endpoints {
            let known = self.endpoints.entry(label.clone()).or_default();
            known.seen.add(reached.times);
            if let Some((service, class)) = &reached.service {
                (known.service, known.class) = (Some(service.clone()), Some(*class));
                *classes.entry(*class).or_default() += reached.times;
            }
        }
        for (class, times) in classes {
            self.classes.entry(class).or_default().add(times);
        }
    }

    /// Names a recording that counts for nothing.
    pub fn leave_out(&mut self, recording: &str, reason: String) {
        self.unused.push(Unused { recording: report::clean(recording.as_bytes()), reason });
    }

    pub(super) fn summary(&self) -> GroupSummary {
        GroupSummary {
            name: self.name.clone(),
            recordings: self.sessions,
            unused: self.unused.clone(),
            verdicts: self.verdicts.clone(),
            endpoints: self.endpoints.clone(),
            endpoints_in_some_sessions_only: self.in_some(&self.endpoints, |one| &one.seen),
            classes: EndpointClass::ALL
                .into_iter()
                .map(|class| (class, self.classes.get(&class).copied().unwrap_or_default()))
                .collect(),
            credentials: self.credentials.clone(),
            programs: self.programs.clone(),
            programs_in_some_sessions_only: self.in_some(&self.programs, |seen| seen),
            processes_per_session: self.processes,
            execs_per_session: self.execs,
            connections_per_session: self.connections,
            datagrams_per_session: self.datagrams,
            connect_latency_ns: self.latency.quantiles(),
            calls: self.calls.summary(),
        }
    }

    fn in_some<T>(&self, all: &BTreeMap<String, T>, seen: impl Fn(&T) -> &Seen) -> Vec<String> {
        let some = all.iter().filter(|(_, one)| seen(one).sessions < self.sessions);
        some.map(|(name, _)| name.clone()).collect()
    }
}

fn count(all: &mut BTreeMap<String, Seen>, session: &BTreeMap<String, u64>) {
    for (name, times) in session {
        all.entry(name.clone()).or_default().add(*times);
    }
}
