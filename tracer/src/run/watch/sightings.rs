//! From what was seen, with a bare pid, to records of processes of the tree.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use super::marks::{Point, StatId};
use crate::{
    model::{Bytes, FileId, ProcessKey},
    record::{
        Record,
        schema::{CredentialAccess, CredentialFile, HandOff, Opened, OpenedWhat},
    },
    session::Story,
};

/// So many files opened by processes that are not the tree's can be kept in mind.
const WAITING_MAX: usize = 65_536;

/// Until there are more, what was recorded of processes that the story has forgotten is not looked for.
const RECORDED_USUAL: usize = 65_536;

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
    Credential {
        source: String,
        access: CredentialAccess,
        file: Option<FileId>,
        path: Bytes,
    },
}

/// What makes two sightings of one process the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Same {
    Open(StatId, bool),
    Change(Bytes),
    Credential(Bytes, CredentialAccess),
}

impl Subject {
    pub(super) fn same(&self) -> Same {
        match self {
            Subject::Open { stat, to_execute, .. } => Same::Open(*stat, *to_execute),
            Subject::Change { via, .. } => Same::Change(via.clone()),
            Subject::Credential { path, access, .. } => Same::Credential(path.clone(), *access),
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
            Subject::Open { path, .. } | Subject::Credential { path, .. } => path,
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
    fresh: Vec<Sighting>,
    /// Of earlier rounds: by processes that the story did not have.
    waiting: HashMap<(u32, Same), Sighting>,
    /// What was recorded, by process and the number of its execs: what comes after another exec is
    /// told apart.
    recorded: HashSet<(ProcessKey, usize, Same)>,
    /// When there are so many of them, some may be forgotten.
    forget_at: usize,
    /// The same, where no process could be named.
    recorded_pids: HashSet<(u32, Same)>,
    /// There was no room to wait.
    pub(super) dropped: u64,
}

impl Sightings {
    pub(super) fn new(global_pids: bool) -> Sightings {
        Sightings {
            global_pids,
            fresh: Vec::new(),
            waiting: HashMap::new(),
            recorded: HashSet::new(),
            forget_at: RECORDED_USUAL,
            recorded_pids: HashSet::new(),
            dropped: 0,
        }
    }

    pub(super) fn add(&mut self, sighting: Sighting) {
        self.fresh.push(sighting);
    }

    /// Records of what processes of the story did, or may have done. What the story does not know
    /// waits until the `last` time: its fork may come late.
    pub(super) fn attribute(&mut self, story: &Story, points: &[Point], last: bool) -> Vec<Record> {
        let mut sightings = std::mem::take(&mut self.fresh);
        if last {
            sightings.extend(self.waiting.drain().map(|(_, seen)| seen));
        }
        // Of files that were opened in the same round, the order is not known.
        sightings.sort_by(|one, other| one.order().cmp(&other.order()));
        // Of those that the story has forgotten nothing more is recorded.
        if self.recorded.len() >= self.forget_at {
            self.recorded.retain(|(process, ..)| story.processes.contains_key(process));
            self.forget_at = (2 * self.recorded.len()).max(RECORDED_USUAL);
        }
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
        Subject::Credential { source, access, file, path } => {
            Record::CredentialFile(CredentialFile {
                t_ns: until_ns,
                after_ns,
                process,
                pid,
                source,
                access,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::schema::{Exit, Fork, Root};

    const ROOT: ProcessKey = ProcessKey { pid: 10, start_ns: 1 };
    const CHILD: ProcessKey = ProcessKey { pid: 11, start_ns: 20 };

    fn story() -> Story {
        let policy = crate::policy::load("no-aws-cli").unwrap();
        let mut story = Story::new(crate::policy::test_start(&policy));
        story.add(Record::Root(Root {
            t_ns: 2,
            process: ROOT,
            ns_pid: None,
            parent_pid: None,
            unread: Vec::new(),
        }));
        story
    }

    fn fork() -> Record {
        Record::Fork(Fork {
            t_ns: CHILD.start_ns,
            process: ROOT,
            child: CHILD,
            child_ns_pid: None,
            child_parent_pid: None,
            untracked: false,
            unread: Vec::new(),
        })
    }

    fn sighting(pid: u32, after_ns: u64, until_ns: u64) -> Sighting {
        let subject = Subject::Change { point: 0, via: "/q/x".into() };
        Sighting { pid, after_ns, until_ns, subject }
    }

    fn processes(records: &[Record]) -> Vec<Option<ProcessKey>> {
        let process = |record: &Record| {
            let Record::HandOff(hand_off) = record else { panic!("{record:?}") };
            hand_off.process
        };
        records.iter().map(process).collect()
    }

    #[test]
    fn what_nobody_of_the_tree_did_is_dropped_at_the_end() {
        let (mut sightings, mut story) = (Sightings::new(true), story());
        sightings.add(sighting(11, 5, 9));
        sightings.add(sighting(11, 15, 30));
        sightings.add(sighting(99, 15, 30));
        assert!(sightings.attribute(&story, &[], false).is_empty());
        // The fork was late.
        story.add(fork());
        assert!(sightings.attribute(&story, &[], false).is_empty());
        assert_eq!(processes(&sightings.attribute(&story, &[], true)), [Some(CHILD)]);
        assert!(sightings.attribute(&story, &[], true).is_empty());
        assert_eq!(sightings.dropped, 0);
    }

    #[test]
    fn the_same_is_recorded_once_until_another_exec() {
        let (mut sightings, story) = (Sightings::new(true), story());
        for _ in 0..3 {
            sightings.add(sighting(10, 5, 9));
        }
        assert_eq!(processes(&sightings.attribute(&story, &[], false)), [Some(ROOT)]);
        sightings.add(sighting(10, 9, 12));
        assert!(sightings.attribute(&story, &[], false).is_empty());
    }

    #[test]
    fn everybody_who_had_the_pid_then_may_have_done_it() {
        let (mut sightings, mut story) = (Sightings::new(true), story());
        story.add(Record::Exit(Exit {
            t_ns: 15,
            process: ROOT,
            code: Some(0),
            signal: None,
            duration_ns: 14,
            execs: None,
            unread: Vec::new(),
        }));
        let again = ProcessKey { pid: ROOT.pid, start_ns: 18 };
        let Record::Fork(mut fork) = fork() else { unreachable!() };
        fork.child = again;
        story.add(Record::Fork(fork));
        sightings.add(sighting(10, 14, 30));
        let records = sightings.attribute(&story, &[], false);
        assert_eq!(processes(&records), [Some(again), Some(ROOT)]);
        sightings.add(sighting(10, 16, 17));
        assert!(sightings.attribute(&story, &[], true).is_empty());
    }

    #[test]
    fn pids_of_another_namespace_name_nobody() {
        let (mut sightings, story) = (Sightings::new(false), story());
        sightings.add(sighting(10, 5, 9));
        assert_eq!(processes(&sightings.attribute(&story, &[], false)), [None]);
        let mut global = Sightings::new(true);
        global.add(sighting(0, 5, 9));
        assert_eq!(processes(&global.attribute(&story, &[], false)), [None]);
    }

    #[test]
    fn too_many_strangers_are_counted() {
        let (mut sightings, story) = (Sightings::new(true), story());
        for pid in 100..100 + WAITING_MAX as u32 + 3 {
            sightings.add(sighting(pid, 5, 9));
        }
        assert!(sightings.attribute(&story, &[], false).is_empty());
        assert_eq!(sightings.dropped, 3);
    }
}
