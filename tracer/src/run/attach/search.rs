//! Finds the processes that are to be joined, without a gap.
//!
//! ```text
//! probes attached ─► first look ─► births are noted ─► look, enrol, look, ... ─► nobody new: done
//! ```
//!
//! A member's children are members by the fork probe. What a process forked before it was enrolled is
//! found by the next look; if that child has ended by then, the note of its birth still tells whose
//! children its own children are. So the last look has nobody left to find, but for one case that is
//! reported: a process born between the first look and the first note, whose parent ended at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use tracer_ebpf::abi::{Finding, FoundProcess, Switch, found_state};

use super::super::hierarchies;
use crate::{
    model::ProcessKey,
    probe::{Finder, PidFd},
};

/// Who is to be joined.
#[derive(Debug)]
pub(super) enum Members {
    /// A process, by its number in tracer's pid namespace, and its descendants.
    Tree(u32),
    /// Who is in these cgroups or below.
    Cgroups(Vec<PathBuf>),
    /// Every process but the kernel's threads and tracer.
    Everybody,
}

/// A process, as one look found it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Its number in tracer's pid namespace.
    pub(super) pid: u32,
    pub(super) found: FoundProcess,
}

impl Look {
    pub(super) fn key(&self) -> ProcessKey {
        ProcessKey { pid: self.found.tgid, start_ns: self.found.start_ns }
    }
}

/// What the search came to.
#[derive(Debug, Default)]
pub(super) struct Searched {
    /// In the order of their births.
    pub(super) enrolled: Vec<Look>,
    /// Members by their births, which happened while others were enrolled.
    pub(super) born: u64,
    pub(super) rounds: u64,
    pub(super) doubts: Vec<String>,
}

pub(super) struct Search<'a> {
    finder: &'a mut Finder,
    members: &'a Members,
    family: Family,
    searched: Searched,
}

/// More rounds than any search needs: each has to find somebody who was there before its members were.
const ROUNDS_MAX: u64 = 200;

/// Enrols everybody. `clock` gives `CLOCK_BOOTTIME`.
pub(super) fn search(
    finder: &mut Finder,
    members: &Members,
    clock: fn() -> io::Result<u64>,
) -> io::Result<Searched> {
    let mut search =
        Search { finder, members, family: Family::default(), searched: Searched::default() };
    search.first_look()?;
    search.finder.switch(Switch::NoteBirths, true)?;
    let noted_since_ns = clock()?;
    let result = search.until_nobody_is_new(noted_since_ns);
    search.finder.switch(Switch::NoteBirths, false)?;
    result.map(|()| search.searched)
}

impl Search<'_> {
    /// Before births are noted: whose child is whose.
    fn first_look(&mut self) -> io::Result<()> {
        let looks = self.look()?;
        if let Members::Tree(pid) = self.members {
            let root = looks.iter().find(|look| look.pid == *pid);
            let alive = root.filter(|look| look.found.state != found_state::ENDED);
            self.family.root = Some(alive.map(Look::key).ok_or_else(|| no_such_process(*pid))?);
        }
        self.family.before = looks.iter().map(Look::key).collect();
        self.family.learn(&looks);
        Ok(())
    }

    fn until_nobody_is_new(&mut self, noted_since_ns: u64) -> io::Result<()> {
        loop {
            self.searched.rounds += 1;
            let looks = self.look()?;
            self.family.learn(&looks);
            // After the look: whoever it did not see any more has left its note.
            self.family.parents.extend(self.finder.births()?);
            let mut new: Vec<Look> = looks
                .iter()
                .filter(|look| look.found.state == found_state::OUTSIDE)
                .filter(|look| look.pid != std::process::id() && self.is_wanted(look))
                .copied()
                .collect();
            new.sort_by_key(Look::key_by_birth);
            if new.is_empty() {
                self.family.doubt(&looks, noted_since_ns, &mut self.searched.doubts);
                let inside = |look: &&Look| look.found.state == found_state::INSIDE;
                let inside = looks.iter().filter(inside).count() as u64;
                self.searched.born = inside.saturating_sub(self.searched.enrolled.len() as u64);
                return Ok(());
            }
            if self.searched.rounds == ROUNDS_MAX {
                let doubt = "processes were still found when tracer stopped looking for them";
                self.searched.doubts.push(doubt.into());
                return Ok(());
            }
            for look in new {
                self.enrol(look)?;
            }
        }
    }

    fn is_wanted(&self, look: &Look) -> bool {
        match self.members {
            Members::Tree(_) => self.family.descends(look.key()),
            // The look was at nobody else.
            Members::Cgroups(_) | Members::Everybody => true,
        }
    }

    fn enrol(&mut self, look: Look) -> io::Result<()> {
        let Some(process) = PidFd::open(look.pid)? else { return Ok(()) };
        let again = Look { found: self.finder.find(&process, Finding::Look)?, ..look };
        if again.key() != look.key() {
            return Ok(()); // it ended, and its number is another's
        }
        let found = self.finder.find(&process, Finding::Enrol)?;
        match found.state {
            found_state::ENROLLED => self.searched.enrolled.push(Look { found, ..look }),
            found_state::NO_ROOM => {
                self.searched
                    .doubts
                    .push(format!("there was no room to follow process {}", look.pid));
            }
            // Or it became a member by its birth, or by joining the cgroup, or ended.
            _ => {}
        }
        Ok(())
    }

    /// Everybody who may be wanted.
    fn look(&mut self) -> io::Result<Vec<Look>> {
        let pids = match self.members {
            Members::Tree(_) | Members::Everybody => all_pids()?,
            Members::Cgroups(directories) => {
                let mut pids = BTreeSet::new();
                for directory in directories {
                    pids.extend(hierarchies::processes(directory)?);
                }
                if pids.remove(&0) {
                    let doubt = "processes of other pid namespaces are in the cgroup, and tracer sees no \
                                 way to them from its own; run it in the host's pid namespace";
                    if self.searched.doubts.is_empty() {
                        self.searched.doubts.push(doubt.into());
                    }
                }
                pids
            }
        };
        let mut looks = Vec::with_capacity(pids.len());
        for pid in pids {
            let Some(process) = PidFd::open(pid)? else { continue };
            let found = self.finder.find(&process, Finding::Look)?;
            // A process that was reaped has nothing any more.
            if found.tgid != 0 {
                looks.push(Look { pid, found });
            }
        }
        Ok(looks)
    }
}

impl Look {
    fn key_by_birth(&self) -> (u64, u32) {
        (self.found.start_ns, self.found.tgid)
    }
}

fn no_such_process(pid: u32) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("there is no process {pid}; nothing was traced"),
    )
}

fn all_pids() -> io::Result<BTreeSet<u32>> {
    let mut pids = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// Whose child is whose. No IO.
#[derive(Debug, Default)]
struct Family {
    root: Option<ProcessKey>,
    /// Who was there at the first look.
    before: BTreeSet<ProcessKey>,
    /// As first seen: a process whose parent ends gets another one.
    parents: BTreeMap<ProcessKey, ProcessKey>,
}

impl Family {
    fn learn(&mut self, looks: &[Look]) {
        let by_pid: BTreeMap<u32, ProcessKey> =
            looks.iter().map(|look| (look.found.tgid, look.key())).collect();
        for look in looks {
            // A parent that is younger than its child has the number of one that ended.
            let parent = by_pid.get(&look.found.parent_tgid);
            if let Some(parent) = parent.filter(|parent| parent.start_ns <= look.found.start_ns) {
                self.parents.entry(look.key()).or_insert(*parent);
            }
        }
    }

    fn descends(&self, key: ProcessKey) -> bool {
        self.line(key).any(|ancestor| Some(ancestor) == self.root)
    }

    /// A process and its ancestors.
    fn line(&self, key: ProcessKey) -> impl Iterator<Item = ProcessKey> {
        // Numbers are reused and parents are not always known by their births: no walk is endless.
        const ANCESTORS_MAX: usize = 100_000;
        std::iter::successors(Some(key), |key| {
            self.parents.get(key).filter(|parent| *parent != key).copied()
        })
        .take(ANCESTORS_MAX)
    }

    /// Who may be a descendant whose parent ended before it was seen. Such a process is handed to an
    /// ancestor of that parent, which is one of the root's.
    fn doubt(&self, looks: &[Look], noted_since_ns: u64, doubts: &mut Vec<String>) {
        let Some(root) = self.root else { return };
        let ancestors: BTreeSet<ProcessKey> = self.line(root).skip(1).collect();
        for look in looks.iter().filter(|look| look.found.state == found_state::OUTSIDE) {
            let key = look.key();
            let unseen = key.start_ns < noted_since_ns && !self.before.contains(&key);
            let parent = self.parents.get(&key);
            if unseen && parent.is_none_or(|parent| ancestors.contains(parent)) {
                doubts.push(format!(
                    "process {} was born while tracer was looking for the others, and whose child it was is \
                     not known",
                    look.pid
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(tgid: u32, start_ns: u64, parent_tgid: u32) -> Look {
        let state = found_state::OUTSIDE;
        let found = FoundProcess { start_ns, tgid, parent_tgid, state, ..FoundProcess::default() };
        Look { pid: tgid, found }
    }

    fn key(pid: u32, start_ns: u64) -> ProcessKey {
        ProcessKey { pid, start_ns }
    }

    fn family(looks: &[Look], root: ProcessKey) -> Family {
        let mut family = Family { root: Some(root), ..Family::default() };
        family.before = looks.iter().map(Look::key).collect();
        family.learn(looks);
        family
    }

    #[test]
    fn descendants_stay_descendants_when_their_parents_end() {
        let mut family =
            family(&[look(1, 0, 0), look(10, 5, 1), look(11, 6, 10), look(12, 7, 11)], key(10, 5));
        // 11 has ended, and 12 has been handed to init.
        family.learn(&[look(1, 0, 0), look(10, 5, 1), look(12, 7, 1)]);
        assert!(family.descends(key(12, 7)));
        assert!(!family.descends(key(1, 0)));
    }

    #[test]
    fn births_tell_of_parents_that_nobody_saw() {
        let mut family = family(&[look(1, 0, 0), look(10, 5, 1)], key(10, 5));
        // 20 was born and ended between two looks; its child 21 was handed to init.
        family.parents.extend([(key(20, 9), key(10, 5)), (key(21, 10), key(20, 9))]);
        family.learn(&[look(1, 0, 0), look(10, 5, 1), look(21, 10, 1)]);
        assert!(family.descends(key(21, 10)));
    }

    #[test]
    fn a_reused_number_is_nobodys_parent() {
        let mut family = family(&[look(1, 0, 0), look(10, 5, 1)], key(10, 5));
        family.learn(&[look(10, 50, 1), look(30, 20, 10)]);
        assert!(!family.descends(key(30, 20)), "its parent has the number of one that ended");
    }

    #[test]
    fn who_may_be_missing_is_told() {
        let check = |late: Look, noted_since_ns, expected| {
            let before = [look(1, 0, 0), look(10, 5, 1), look(40, 6, 1)];
            let mut family = family(&before, key(10, 5));
            family.learn(&[before[0], before[1], before[2], late]);
            let mut doubts = Vec::new();
            family.doubt(&[late], noted_since_ns, &mut doubts);
            assert_eq!(doubts.len(), expected, "{late:?} {doubts:?}");
        };
        check(look(50, 8, 1), 9, 1);
        check(look(50, 9, 1), 9, 0); // its birth would have been noted
        check(look(50, 8, 40), 9, 0); // a child of somebody else
        check(look(40, 6, 1), 9, 0); // seen at the first look, and then a child of init's
    }
}
