//! Of a long recording, the part that people can read.
//!
//! Nobody reads a report of a million processes, and it would take memory for all of them. So the first
//! ones are shown, and of the others those that bring something new: a file that nothing had executed, an
//! address that nothing had contacted, a URL that nothing had called, a claim's violation; each with those
//! it descends from. For that the recording is read twice. What is counted, and what is judged, is all of it.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use super::Story;
use crate::{
    catalogue::EndpointClass,
    model::{Endpoint, FileVersion, ProcessKey},
    policy::{self, Judged, Requirement, Verdict},
    record::{
        ReadError, Reader,
        schema::{Exec, Outcome, Record},
    },
};

/// How much is shown.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records up to which a recording is shown as a whole.
    pub records: u64,
    /// Processes, those that bring something new not counted.
    pub processes: u64,
    /// Records of each other kind, likewise.
    pub others: u64,
    /// Files, addresses and URLs, each, that count as new.
    pub news: usize,
    /// Events that a claim names, and reasons, of each claim.
    pub findings: usize,
}

impl Limits {
    pub const USUAL: Limits = Limits {
        records: 200_000,
        processes: 10_000,
        others: 20_000,
        news: 5_000,
        findings: 1_000,
    };
    pub const NONE: Limits = Limits {
        records: u64::MAX,
        processes: u64::MAX,
        others: u64::MAX,
        news: usize::MAX,
        findings: usize::MAX,
    };
}

/// What is true of the whole recording, of which a story has a part.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    pub processes: u64,
    pub execs: u64,
    pub connections: u64,
    pub established: u64,
    pub datagrams: u64,
    /// Calls that the tree made.
    pub calls: u64,
    pub api_calls: u64,
    pub mcp_calls: u64,
    /// Execs of which the kernel could not read everything.
    pub partial_execs: usize,
    /// Events that claims name, and reasons, that are left out.
    pub findings: u64,
    pub completeness: Vec<Requirement>,
}

/// What the first reading finds.
#[derive(Debug)]
struct Choice {
    limits: Limits,
    whole: Whole,
    files: HashSet<FileVersion>,
    addresses: HashSet<Option<Endpoint>>,
    urls: HashSet<String>,
    /// Shown, whatever their number.
    processes: HashSet<ProcessKey>,
    /// Likewise, by their process and time.
    records: HashSet<(ProcessKey, u64)>,
}

impl Choice {
    /// To be called before the record is added to the story.
    fn note(&mut self, record: &Record, story: &Story) {
        let whole = &mut self.whole;
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other kind is counted or new")]
        match record {
            Record::Exec(exec) => {
                whole.partial_execs += usize::from(!exec.unread.is_empty());
                let is_new = |file| is_new(&mut self.files, self.limits.news, file);
                if versions(exec).any(is_new) {
                    self.choose(exec.process, exec.t_ns, story);
                }
            }
            Record::Connect(connect) => {
                whole.connections += 1;
                if is_new(&mut self.addresses, self.limits.news, connect.destination) {
                    self.choose(connect.process, connect.t_ns, story);
                }
            }
            Record::ConnectResult(result) => {
                whole.established += u64::from(result.outcome == Outcome::Established);
            }
            Record::Datagram(datagram) => {
                whole.datagrams += 1;
                if is_new(&mut self.addresses, self.limits.news, datagram.destination) {
                    self.choose(datagram.process, datagram.t_ns, story);
                }
            }
            Record::Call(call) => {
                if !call.served {
                    let class = story.call_kind(call).class;
                    whole.calls += 1;
                    whole.api_calls += u64::from(class == Some(EndpointClass::Api));
                    whole.mcp_calls += u64::from(class == Some(EndpointClass::Mcp));
                }
                let url = call.url.split('?').next().unwrap_or_default().to_owned();
                if is_new(&mut self.urls, self.limits.news, url) {
                    self.choose(call.process, call.t_ns, story);
                }
            }
            _ => {}
        }
    }

    fn choose(&mut self, process: ProcessKey, t_ns: u64, story: &Story) {
        self.records.insert((process, t_ns));
        let mut at = Some(process);
        // Those above one that is chosen are chosen.
        while let Some(key) = at.filter(|key| self.processes.insert(*key)) {
            at = story.processes.get(&key).and_then(|process| process.creator);
        }
    }

    /// What claims name is shown, as far as it can be read.
    fn finish(&mut self, judged: &mut Judged) {
        let Judged { story, verdict, .. } = judged;
        self.whole.processes = story.forgotten.processes + story.processes.len() as u64;
        self.whole.execs = story.execs;
        self.whole.completeness = match verdict {
            Some(verdict) => verdict.completeness.clone(),
            None => policy::completeness(story, false),
        };
        for claim in verdict.iter_mut().flat_map(|verdict| &mut verdict.claims) {
            for named in [&mut claim.violations, &mut claim.allowed] {
                self.whole.findings += cut(named, self.limits.findings);
                for finding in named.iter() {
                    self.choose(finding.process, finding.t_ns, story);
                }
            }
            self.whole.findings += cut(&mut claim.reasons, self.limits.findings);
        }
    }
}

/// How many are left out.
fn cut<T>(list: &mut Vec<T>, most: usize) -> u64 {
    let more = list.len().saturating_sub(most);
    list.truncate(most);
    more as u64
}

fn is_new<T: Eq + std::hash::Hash>(known: &mut HashSet<T>, most: usize, one: T) -> bool {
    known.len() < most && known.insert(one)
}

fn versions(exec: &Exec) -> impl Iterator<Item = FileVersion> {
    let script = exec.script.as_ref().and_then(|script| script.file.as_ref());
    [exec.file.as_ref().map(|file| file.version()), script.map(|script| script.version())]
        .into_iter()
        .flatten()
}

/// The second reading.
struct Part {
    choice: Choice,
    introduced: u64,
    taken: BTreeMap<&'static str, u64>,
    /// Sockets of the datagrams that are shown.
    cookies: HashSet<u64>,
}

impl Part {
    fn takes(&mut self, record: &Record, story: &Story) -> bool {
        let known = |process: &ProcessKey| story.processes.contains_key(process);
        match record {
            // One of each, one for each file, or the end of something that is shown; what belongs to a
            // connection is dropped with it.
            Record::Start(_)
            | Record::End(_)
            | Record::Snapshot(_)
            | Record::Content(_)
            | Record::ConnectResult(_)
            | Record::Close(_) => true,
            Record::Root(root) => self.introduces(&root.process),
            Record::Fork(fork) => known(&fork.process) && self.introduces(&fork.child),
            Record::Exit(exit) => known(&exit.process),
            Record::Exec(exec) => self.chose(exec.process, exec.t_ns) || self.counts(record, known),
            Record::Connect(connect) => {
                self.chose(connect.process, connect.t_ns) || self.counts(record, known)
            }
            Record::Datagram(datagram) => {
                let takes =
                    self.chose(datagram.process, datagram.t_ns) || self.counts(record, known);
                if takes {
                    self.cookies.insert(datagram.cookie);
                }
                takes
            }
            Record::Exchange(exchange) => self.cookies.contains(&exchange.cookie),
            Record::Call(call) => self.chose(call.process, call.t_ns) || self.counts(record, known),
            // They say names of what is shown.
            Record::Dns(dns) => known(&dns.process),
            Record::Resolved(resolved) => known(&resolved.process),
            Record::Opening(opening) => {
                known(&opening.process)
                    && opening.connection.is_none_or(|id| story.has_connection(id))
            }
            Record::OddSocket(_)
            | Record::ForeignSend(_)
            | Record::CgroupMove(_)
            | Record::TlsLibrary(_)
            | Record::CallGap(_)
            | Record::CredentialFile(_)
            | Record::Opened(_)
            | Record::HandOff(_)
            | Record::Attempt(_)
            | Record::Mapped(_)
            | Record::LocalSend(_)
            | Record::Intrusion(_)
            | Record::FoundSocket(_) => self.counts(record, known),
        }
    }

    /// Whether the first reading chose it. Another record of that process and time is another one.
    fn chose(&mut self, process: ProcessKey, t_ns: u64) -> bool {
        self.choice.records.remove(&(process, t_ns))
    }

    fn introduces(&mut self, process: &ProcessKey) -> bool {
        self.introduced += 1;
        self.introduced <= self.choice.limits.processes || self.choice.processes.contains(process)
    }

    /// Whether its process is shown, and not too many of its kind are.
    fn counts(&mut self, record: &Record, known: impl Fn(&ProcessKey) -> bool) -> bool {
        if !record.process().is_none_or(|process| known(&process)) {
            return false;
        }
        let taken = self.taken.entry(record.name()).or_default();
        *taken += 1;
        *taken <= self.choice.limits.others
    }
}

/// A recording, or where it has more records and can be read twice, an excerpt of it. The verdict is over all
/// of it.
///
/// # Errors
/// What cannot be read.
pub fn read(path: &Path, limits: Limits) -> Result<(Story, Option<Verdict>), ReadError> {
    let is_file = std::fs::metadata(path).is_ok_and(|file| file.is_file());
    let most = if is_file { limits.records } else { u64::MAX };
    let mut reader = Reader::open(path, false)?;
    let mut story = Story::new(reader.start().clone());
    let mut records = 0;
    while let Some(record) = reader.next_event()? {
        records += 1;
        if records > most {
            drop((reader, story));
            return excerpt(path, limits);
        }
        story.add(record);
    }
    let finish = reader.finish()?;
    (story.end, story.integrity) = (finish.end, finish.integrity);
    let verdict = policy::judge(&story, &story.start.policies);
    Ok((story, verdict))
}

fn excerpt(path: &Path, limits: Limits) -> Result<(Story, Option<Verdict>), ReadError> {
    let mut choice = Choice {
        limits,
        whole: Whole::default(),
        files: HashSet::new(),
        addresses: HashSet::new(),
        urls: HashSet::new(),
        processes: HashSet::new(),
        records: HashSet::new(),
    };
    let reader = Reader::open(path, false)?;
    let start = reader.start().clone();
    let mut judged = policy::judge_recording(path, reader, start, &mut |record, story| {
        choice.note(record, story)
    })?;
    choice.finish(&mut judged);
    let Judged { story, verdict, .. } = judged;
    drop(story);

    let mut part = Part { choice, introduced: 0, taken: BTreeMap::new(), cookies: HashSet::new() };
    let mut reader = Reader::open(path, false)?;
    let mut story = Story::new(reader.start().clone());
    while let Some(record) = reader.next_event()? {
        if part.takes(&record, &story) {
            story.add(record);
        }
    }
    let finish = reader.finish()?;
    (story.end, story.integrity) = (finish.end, finish.integrity);
    story.whole = Some(Box::new(part.choice.whole));
    Ok((story, verdict))
}
