//! Which process a bare pid means.
//!
//! Sources other than the probes name a process by its pid alone, which the kernel gives to another
//! process once the first is gone. The times of the story tell them apart.

use super::{Process, Story};
use crate::model::ProcessKey;

/// What a story knows about a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByPid {
    /// No process of the tree had it then.
    Nobody,
    One(ProcessKey),
    /// The pid was reused within the tree; the latest of those processes.
    Several(ProcessKey),
}

impl ByPid {
    /// The process, or the latest of several.
    pub fn latest(self) -> Option<ProcessKey> {
        match self {
            ByPid::Nobody => None,
            ByPid::One(key) | ByPid::Several(key) => Some(key),
        }
    }
}

impl Story {
    /// The process that had `pid` (a thread group id of the initial pid namespace) at `at_ns`
    /// (`CLOCK_BOOTTIME`), or at any time when there is none.
    pub fn by_pid(&self, pid: u32, at_ns: Option<u64>) -> ByPid {
        match at_ns {
            Some(at_ns) => self.by_pid_between(pid, at_ns, at_ns),
            None => self.by_pid_between(pid, 0, u64::MAX),
        }
    }

    /// The latest process alive at `at_ns` with this id in its own pid namespace. Several namespaces
    /// can have one each.
    pub fn by_namespace_pid(&self, pid: u32, at_ns: u64) -> Option<ProcessKey> {
        let alive = |process: &&Process| {
            process.key.start_ns <= at_ns
                && process.exit.as_ref().is_none_or(|exit| exit.t_ns >= at_ns)
        };
        let found = self.processes.values().filter(|process| process.ns_pid == Some(pid));
        found.filter(alive).map(|process| process.key).max_by_key(|key| key.start_ns)
    }

    /// The process that had `pid` at some time between `from_ns` and `to_ns`, both included.
    pub fn by_pid_between(&self, pid: u32, from_ns: u64, to_ns: u64) -> ByPid {
        let mut found = self.processes_of_pid(pid, from_ns, to_ns);
        match (found.next(), found.next()) {
            (None, _) => ByPid::Nobody,
            (Some(key), None) => ByPid::One(key),
            (Some(latest), Some(_)) => ByPid::Several(latest),
        }
    }

    /// All processes that had `pid` at some time between `from_ns` and `to_ns`, latest first.
    pub fn processes_of_pid(
        &self,
        pid: u32,
        from_ns: u64,
        to_ns: u64,
    ) -> impl Iterator<Item = ProcessKey> {
        let started_at = |start_ns| ProcessKey { pid, start_ns };
        self.processes
            .range(started_at(0)..=started_at(to_ns))
            .rev()
            .filter(move |(_, process)| {
                process.exit.as_ref().is_none_or(|exit| exit.t_ns >= from_ns)
            })
            .map(|(key, _)| *key)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{ByPid, ProcessKey, Story};
    use crate::record::schema::{Exit, Record, Root};

    pub(in super::super) const ROOT: ProcessKey = ProcessKey { pid: 9, start_ns: 1 };
    const FIRST: ProcessKey = ProcessKey { pid: 10, start_ns: 5 };
    const SECOND: ProcessKey = ProcessKey { pid: 10, start_ns: 20 };

    /// A pid that two processes have one after the other.
    pub(in super::super) fn story() -> Story {
        let policy = crate::policy::load("no-aws-cli").unwrap();
        let mut story = Story::new(crate::policy::test_start(&policy));
        let fork = |child: ProcessKey| crate::policy::test_fork(child.start_ns, ROOT, child);
        story.add(Record::Root(Root {
            t_ns: 2,
            process: ROOT,
            ns_pid: None,
            parent_pid: None,
            unread: Vec::new(),
        }));
        story.add(fork(FIRST));
        story.add(Record::Exit(Exit {
            t_ns: 10,
            process: FIRST,
            code: Some(0),
            signal: None,
            duration_ns: 5,
            execs: None,
            unread: Vec::new(),
        }));
        story.add(fork(SECOND));
        story
    }

    #[test]
    fn times_tell_a_reused_pid_apart() {
        let story = story();
        let check = |at_ns, expected| assert_eq!(story.by_pid(10, at_ns), expected, "{at_ns:?}");
        check(Some(4), ByPid::Nobody);
        check(Some(5), ByPid::One(FIRST));
        check(Some(10), ByPid::One(FIRST));
        check(Some(15), ByPid::Nobody);
        check(Some(20), ByPid::One(SECOND));
        check(Some(u64::MAX), ByPid::One(SECOND));
        check(None, ByPid::Several(SECOND));
        assert_eq!(story.by_pid(11, None), ByPid::Nobody);
        assert_eq!(story.by_pid(9, None).latest(), Some(ROOT));
    }

    #[test]
    fn a_span_of_time_finds_everybody_in_it() {
        let story = story();
        let check = |from_ns, to_ns, expected| {
            assert_eq!(story.by_pid_between(10, from_ns, to_ns), expected, "{from_ns} {to_ns}");
        };
        check(11, 19, ByPid::Nobody);
        check(8, 19, ByPid::One(FIRST));
        check(11, 30, ByPid::One(SECOND));
        check(8, 30, ByPid::Several(SECOND));
    }
}
