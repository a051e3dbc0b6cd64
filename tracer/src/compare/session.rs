//! What one recording adds to its group.

use std::{collections::BTreeMap, path::Path};

use hdrhistogram::Histogram;

use super::{
    Verdicts,
    calls::{self, SessionCalls},
    contacts::{Contacts, Reached},
};
use crate::{
    catalogue::{CredentialSource, SourceKind},
    policy::{self, Judged, Ruling},
    record::{
        Finish, Integrity, ReadError, Reader,
        schema::{ConnectResult, Exec, Outcome, Record},
    },
    report,
};

/// Decimal digits that quantiles are exact to: an error of 0.1 % at most.
pub(super) const DIGITS: u8 = 3;

/// Nothing takes longer: a day.
const LONGEST_NS: u64 = 86_400 * 1_000_000_000;

/// Sums over one recording.
#[derive(Debug)]
pub struct Session {
    pub integrity: Integrity,
    /// What no two recordings have in common: the boot of the host, and the moment on its clock.
    pub(super) origin: (String, u64),
    /// By the recording's own policies; absent without any.
    pub ruling: Option<Ruling>,
    pub processes: u64,
    pub execs: u64,
    pub connections: u64,
    /// Sockets of datagrams and their destinations, in pairs.
    pub datagrams: u64,
    /// By name where there is one.
    pub(super) endpoints: BTreeMap<String, Reached>,
    /// Sources of credentials that were there, and in how many images or opens.
    pub credentials: BTreeMap<String, u64>,
    /// Program and number of execs.
    pub programs: BTreeMap<String, u64>,
    /// From the attempt to an established connection.
    pub(super) latency: Latencies,
    /// Absent where they were not recorded.
    pub(super) calls: Option<SessionCalls>,
}

/// Times in nanoseconds.
#[derive(Debug)]
pub(super) struct Latencies {
    pub(super) histogram: Histogram<u64>,
    /// Sum of them and their number.
    pub(super) sum: (u64, u64),
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { histogram: empty_histogram(), sum: (0, 0) }
    }
}

impl Latencies {
    pub(super) fn add(&mut self, ns: Option<u64>) {
        let Some(ns) = ns else { return };
        #[expect(clippy::expect_used, reason = "the only error is a value too large to grow to")]
        self.histogram.record(ns.min(LONGEST_NS)).expect("it resizes itself");
        self.sum.0 = self.sum.0.saturating_add(ns);
        self.sum.1 += 1;
    }
}

impl Session {
    pub fn read(path: &Path, verdicts: Verdicts) -> Result<Session, ReadError> {
        let mut reader = Reader::open(path, false)?;
        let start = reader.start().clone();
        let mut contacts = Contacts::new(&start);
        let mut session = Session {
            integrity: Integrity::CutShort,
            origin: (start.host.boot_id.clone(), start.t_ns),
            ruling: None,
            processes: 0,
            execs: 0,
            connections: 0,
            datagrams: 0,
            endpoints: BTreeMap::new(),
            credentials: BTreeMap::new(),
            programs: BTreeMap::new(),
            latency: Latencies::default(),
            calls: calls::were_read(&start.sensors).then(SessionCalls::default),
        };
        let watch = start.credentials.clone().unwrap_or_default();
        let of_environment: Vec<CredentialSource> =
            watch.sources.into_iter().filter(|one| one.kind == SourceKind::Environment).collect();
        let mut seen = |record: &Record| {
            session.add(record, &mut contacts);
            session.add_environment(record, &of_environment);
        };
        let (end, integrity, ruling) = match verdicts {
            Verdicts::Computed => {
                let Judged { story, verdict, .. } =
                    policy::judge_recording(path, reader, start, &mut |record, _| seen(record))?;
                (story.end, story.integrity, verdict.map(|verdict| verdict.overall))
            }
            Verdicts::Recorded => {
                while let Some(record) = reader.next_event()? {
                    seen(&record);
                }
                let Finish { end, integrity, .. } = reader.finish()?;
                let verdict = end.as_ref().and_then(|end| end.verdict.as_ref());
                // Where there were policies, no verdict is no proof.
                let none = (!start.policies.is_empty()).then_some(Ruling::Inconclusive);
                let ruling = verdict.map(|verdict| verdict.overall).or(none);
                (end, integrity, ruling)
            }
        };
        session.endpoints = contacts.finish(end.as_ref());
        session.ruling = ruling;
        session.integrity = integrity;
        Ok(session)
    }

    fn add(&mut self, record: &Record, contacts: &mut Contacts) {
        match record {
            Record::Connect(connect) => {
                self.connections += 1;
                contacts.connect(connect);
            }
            Record::Datagram(datagram) => {
                self.datagrams += 1;
                contacts.datagram(datagram);
            }
            Record::Dns(dns) => contacts.dns(dns),
            Record::Opening(opening) => contacts.opening(opening),
            Record::Resolved(resolved) => contacts.resolved(resolved),
            Record::CredentialFile(file) => {
                let source = report::clean(file.source.as_bytes());
                *self.credentials.entry(source).or_default() += 1;
            }
            Record::ConnectResult(result) => self.add_latency(result),
            Record::Call(call) => {
                if let Some(calls) = &mut self.calls {
                    calls.add(call, &contacts.kind(call));
                }
            }
            Record::Root(_) | Record::Fork(_) => self.processes += 1,
            Record::Exec(exec) => {
                self.execs += u64::from(!exec.found);
                *self.programs.entry(program(exec)).or_default() += 1;
            }
            // Of no interest here.
            Record::Start(_)
            | Record::Content(_)
            | Record::Exit(_)
            | Record::Close(_)
            | Record::Mapped(_)
            | Record::Opened(_)
            | Record::HandOff(_)
            | Record::Attempt(_)
            | Record::LocalSend(_)
            | Record::Intrusion(_)
            | Record::Exchange(_)
            | Record::OddSocket(_)
            | Record::ForeignSend(_)
            | Record::CgroupMove(_)
            | Record::TlsLibrary(_)
            | Record::CallGap(_)
            | Record::Snapshot(_)
            | Record::FoundSocket(_)
            | Record::End(_) => {}
        }
    }

    /// Counts an image for each source that was in its environment as a whole.
    fn add_environment(&mut self, record: &Record, sources: &[CredentialSource]) {
        let Record::Exec(exec) = record else { return };
        let Some(set) = &exec.environment else { return };
        for source in sources {
            if source.variables.iter().all(|variable| set.contains(variable)) {
                let source = report::clean(source.name.as_bytes());
                *self.credentials.entry(source).or_default() += 1;
            }
        }
    }

    fn add_latency(&mut self, result: &ConnectResult) {
        if result.outcome == Outcome::Established {
            self.latency.add(result.connect_ns);
        }
    }
}

pub(super) fn empty_histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "the only error is a number of digits above 5")]
    let mut histogram = Histogram::new(DIGITS).expect("a valid number of digits");
    histogram.auto(true);
    histogram
}

/// The file that was run: of a script, the script. Fit to be shown.
fn program(exec: &Exec) -> String {
    let script = exec.script.as_ref().and_then(|script| Some(&script.file.as_ref()?.path));
    let path = script
        .or_else(|| exec.file.as_ref().and_then(|file| file.path.as_ref()))
        .or(exec.filename.as_ref());
    path.map_or_else(|| "a file without a name".into(), |path| report::clean(&path.0))
}
