//! From what was seen, with a bare pid, to records of processes of the tree.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use super::marks::{Point, StatId};
use crate::{
    model::{Bytes, FileId, ProcessKey},
    record::{
        Record,
        schema::{HandOff, Opened, OpenedWhat},
    },
    session::Story,
};

/// So many files opened by processes that are not the tree's can be kept in mind.
const WAITING_MAX: usize = 65_536;

/// What happened to a marked file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Open {
        what: OpenedWhat,
        programs: Vec<String>,
        to_execute: bool,
        inherited: bool,
        stat: StatId,
        file: Option<FileId>,
        path: Bytes,
    },
    Change {
        /// Index of the point.
        point: usize,
        via: Bytes,
    },
}

/// What makes two sightings of one process the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Same {
    Open(StatId, bool),
    Change(Bytes),
}

impl Subject {
    fn same(&self) -> Same {
        match self {
            Subject::Open { stat, to_execute, .. } => Same::Open(*stat, *to_execute),
            Subject::Change { via, .. } => Same::Change(via.clone()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) pid: u32,
    /// It happened between these two times.
    pub(super) after_ns: u64,
    pub(super) until_ns: u64,
    pub(super) subject: Subject,
}

impl Sighting {
    fn order(&self) -> (u64, u32, &Bytes) {
        let name = match &self.subject {
            Subject::Open { path, .. } => path,
            Subject::Change { via, .. } => via,
        };
        (self.until_ns, self.pid, name)
    }
}

#[derive(Debug)]
pub(super) struct Sightings {
    /// Pids are those of the initial namespace, as in the story.
    global_pids: bool,
    /// Of this round.
    fresh: HashMap<(u32, Same), Sighting>,
    /// Of earlier rounds: by processes that the story did not have.
    waiting: HashMap<(u32, Same), Sighting>,
    /// What was recorded, by process and the number of its execs: what comes after another exec is
    /// told apart.
    recorded: HashSet<(ProcessKey, usize, Same)>,
    /// The same, where no process could be named.
    recorded_pids: HashSet<(u32, Same)>,
    /// There was no room to wait.
    pub(super) dropped: u64,
}

impl Sightings {
    pub(super) fn new(global_pids: bool) -> Sightings {
        Sightings {
            global_pids,
            fresh: HashMap::new(),
            waiting: HashMap::new(),
            recorded: HashSet::new(),
            recorded_pids: HashSet::new(),
            dropped: 0,
        }
    }

    /// Whether the same was seen in this round.
    pub(super) fn has(&self, pid: u32, stat: StatId, to_execute: bool) -> bool {
        self.fresh.contains_key(&(pid, Same::Open(stat, to_execute)))
    }

    pub(super) fn add(&mut self, sighting: Sighting) {
        self.fresh.entry((sighting.pid, sighting.subject.same())).or_insert(sighting);
    }

    /// Records of what processes of the story did, or may have done. What the story does not know
    /// waits until the `last` time: its fork may come late.
    pub(super) fn attribute(&mut self, story: &Story, points: &[Point], last: bool) -> Vec<Record> {
        let mut sightings: Vec<Sighting> = self.fresh.drain().map(|(_, seen)| seen).collect();
        if last {
            sightings.extend(self.waiting.drain().map(|(_, seen)| seen));
        }
        // A hash map has no order, and a recording should.
        sightings.sort_by(|one, other| one.order().cmp(&other.order()));
        let mut records = Vec::new();
        for sighting in sightings {
            let same = sighting.subject.same();
            if !self.global_pids || sighting.pid == 0 {
                if self.recorded_pids.insert((sighting.pid, same)) {
                    records.push(record(&sighting, None, points));
                }
                continue;
            }
            let (from, to) = (sighting.after_ns, sighting.until_ns);
            let mut known = false;
            for key in story.processes_of_pid(sighting.pid, from, to) {
                known = true;
                let execs = story.processes.get(&key).map_or(0, |process| process.execs.len());
                if self.recorded.insert((key, execs, same.clone())) {
                    records.push(record(&sighting, Some(key), points));
                }
            }
            if !known && !last {
                self.wait(sighting, same);
            }
        }
        records
    }

    fn wait(&mut self, sighting: Sighting, same: Same) {
        let full = self.waiting.len() >= WAITING_MAX;
        match self.waiting.entry((sighting.pid, same)) {
            Entry::Occupied(mut earlier) => {
                let earlier = earlier.get_mut();
                earlier.after_ns = earlier.after_ns.min(sighting.after_ns);
                earlier.until_ns = earlier.until_ns.max(sighting.until_ns);
            }
            Entry::Vacant(_) if full => self.dropped += 1,
            Entry::Vacant(room) => {
                room.insert(sighting);
            }
        }
    }
}

fn record(sighting: &Sighting, process: Option<ProcessKey>, points: &[Point]) -> Record {
    let Sighting { pid, after_ns, until_ns, subject } = sighting.clone();
    match subject {
        Subject::Open { what, programs, to_execute, inherited, stat: _, file, path } => {
            Record::Opened(Opened {
                t_ns: until_ns,
                after_ns,
                process,
                pid,
                what,
                programs,
                to_execute,
                inherited,
                file,
                path,
            })
        }
        Subject::Change { point, via } => {
            let point = points.get(point);
            let name = point.map(|point| point.name.clone()).unwrap_or_default();
            let why = point.map(|point| point.why.clone()).unwrap_or_default();
            let how = format!("it made, wrote or moved something there; {name} {why}");
            Record::HandOff(HandOff { t_ns: until_ns, process, pid, name, via, how })
        }
    }
}
