//! Finds the processes that are to be joined, without a gap.
//!
//! ```text
//! probes attached ─► first look ─► births are noted ─► look, enrol, look, ... ─► nobody new: done
//! ```
//!
//! A member's children are members by the fork probe, and so is, while tracer is looking, who has a member
//! among its ancestors. Who was born to others is noted with its parent, and tells whose children its own
//! children are when it has ended. A search is over when a look finds nobody new and nobody noted is
//! alive who should be a member: a line of processes that each fork and end at once is never seen by a
//! look. One case remains, and is reported: a process born between the first look and the first note,
//! whose parent ended at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use procfs::process::Process;
use tracer_ebpf::abi::{Finding, FoundProcess, Switch, found_state};

use super::super::{broker, hierarchies};
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

impl Members {
    /// Who is one now, as far as /proc tells, by their numbers in tracer's pid namespace.
    pub(super) fn now(&self) -> io::Result<BTreeSet<u32>> {
        match self {
            Members::Everybody => all_pids(),
            Members::Cgroups(directories) => in_cgroups(directories),
            Members::Tree(root) => Ok(descendants(*root, &parents(all_pids()?))),
        }
    }
}

/// 0 for those that have no number here.
fn in_cgroups(directories: &[PathBuf]) -> io::Result<BTreeSet<u32>> {
    let mut pids = BTreeSet::new();
    for directory in directories {
        pids.extend(hierarchies::processes(directory)?);
    }
    Ok(pids)
}

/// Each process's parent.
fn parents(pids: BTreeSet<u32>) -> Vec<(u32, u32)> {
    let parent = |pid: u32| {
        let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
        Some((pid, u32::try_from(stat.ppid).ok()?))
    };
    pids.into_iter().filter_map(parent).collect()
}

/// A process and those whose parent is one of these.
fn descendants(root: u32, parents: &[(u32, u32)]) -> BTreeSet<u32> {
    let mut known = BTreeSet::from([root]);
    loop {
        let before = known.len();
        for (child, parent) in parents {
            if known.contains(parent) {
                known.insert(*child);
            }
        }
        if known.len() == before {
            return known;
        }
    }
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
    /// Who became a member by birth meanwhile, and is alive.
    pub(super) born: Vec<Look>,
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
const ROUNDS_MAX: u64 = 1000;

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
            let births = self.finder.births()?;
            for (child, (parent, _)) in &births {
                self.family.is_child_of(*child, *parent);
            }
            let mut new: Vec<Look> = looks
                .iter()
                .filter(|look| look.found.state == found_state::OUTSIDE)
                .filter(|look| !broker::is_own(look.pid) && self.is_wanted(look))
                .copied()
                .collect();
            new.sort_by_key(Look::key_by_birth);
            let is_new = !new.is_empty();
            // Before whoever was born meanwhile: the recording is to have parents first.
            for look in new {
                self.enrol(look)?;
            }
            let missed = self.missed(&births, &looks)?;
            if !is_new && !missed {
                self.family.doubt(&looks, noted_since_ns, &mut self.searched.doubts);
                let known: BTreeSet<ProcessKey> =
                    self.searched.enrolled.iter().map(Look::key).collect();
                let inside = |look: &&Look| look.found.state == found_state::INSIDE;
                let born = looks.iter().filter(inside).filter(|look| !known.contains(&look.key()));
                self.searched.born = born.copied().collect();
                return Ok(());
            }
            if self.searched.rounds == ROUNDS_MAX {
                let doubt = "processes were still found when tracer stopped looking for them";
                self.searched.doubts.push(doubt.into());
                return Ok(());
            }
        }
    }

    /// Whether somebody who was born meanwhile is alive and no member, although it should be. Who can be
    /// reached by its number is enrolled at once, before it ends.
    fn missed(
        &mut self,
        births: &BTreeMap<ProcessKey, (ProcessKey, bool)>,
        looks: &[Look],
    ) -> io::Result<bool> {
        if !matches!(self.members, Members::Tree(_)) {
            return Ok(false);
        }
        let alive = births.iter().filter(|(_, (_, alive))| *alive).map(|(child, _)| *child);
        let inside = looks.iter().filter(|look| look.found.state == found_state::INSIDE);
        let inside: BTreeSet<ProcessKey> = inside.map(Look::key).collect();
        let wanted: Vec<ProcessKey> =
            alive.filter(|child| !inside.contains(child) && self.family.descends(*child)).collect();
        let mut missed = false;
        for key in wanted {
            // In another pid namespace the number is somebody else's, and the next look decides.
            let Some(process) = PidFd::open(key.pid)? else {
                missed = true;
                continue;
            };
            let look = Look { pid: key.pid, found: self.finder.find(&process, Finding::Look)? };
            if look.key() != key {
                missed = true;
            } else if look.found.state == found_state::OUTSIDE {
                self.enrol(look)?;
                missed = true;
            }
        }
        Ok(missed)
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
                let mut pids = in_cgroups(directories)?;
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
    /// All that were ever seen: a process whose parent ends is handed to one of that parent's ancestors, so
    /// whoever has a parent of the tree at any time belongs to it.
    parents: BTreeMap<ProcessKey, BTreeSet<ProcessKey>>,
}

impl Family {
    fn learn(&mut self, looks: &[Look]) {
        let by_pid: BTreeMap<u32, ProcessKey> =
            looks.iter().map(|look| (look.found.tgid, look.key())).collect();
        for look in looks {
            // A parent that is younger than its child has the number of one that ended.
            let parent = by_pid.get(&look.found.parent_tgid);
            if let Some(parent) = parent.filter(|parent| parent.start_ns <= look.found.start_ns) {
                self.is_child_of(look.key(), *parent);
            }
        }
    }

    fn is_child_of(&mut self, child: ProcessKey, parent: ProcessKey) {
        self.parents.entry(child).or_default().insert(parent);
    }

    fn descends(&self, key: ProcessKey) -> bool {
        self.root.is_some_and(|root| self.with_ancestors(key).contains(&root))
    }

    /// A process and all its ancestors.
    fn with_ancestors(&self, key: ProcessKey) -> BTreeSet<ProcessKey> {
        let mut known = BTreeSet::from([key]);
        let mut next = vec![key];
        while let Some(key) = next.pop() {
            let parents = self.parents.get(&key).into_iter().flatten();
            next.extend(parents.filter(|parent| known.insert(**parent)));
        }
        known
    }

    /// Who may be a descendant whose parent ended before it was seen. Such a process is handed to an
    /// ancestor of that parent, which is one of the root's.
    fn doubt(&self, looks: &[Look], noted_since_ns: u64, doubts: &mut Vec<String>) {
        let Some(root) = self.root else { return };
        let mut ancestors = self.with_ancestors(root);
        ancestors.remove(&root);
        for look in looks.iter().filter(|look| look.found.state == found_state::OUTSIDE) {
            let key = look.key();
            let unseen = key.start_ns < noted_since_ns && !self.before.contains(&key);
            let mut parents = self.parents.get(&key).into_iter().flatten();
            if unseen && parents.all(|parent| ancestors.contains(parent)) {
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
    fn descendants_of_descendants_count() {
        let parents = [(30, 20), (20, 10), (10, 1), (40, 1)];
        assert_eq!(descendants(10, &parents), BTreeSet::from([10, 20, 30]));
        assert_eq!(descendants(99, &parents), BTreeSet::from([99]));
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
        family.is_child_of(key(20, 9), key(10, 5));
        family.is_child_of(key(21, 10), key(20, 9));
        family.learn(&[look(1, 0, 0), look(10, 5, 1), look(21, 10, 1)]);
        assert!(family.descends(key(21, 10)));
    }

    #[test]
    fn who_is_handed_to_a_member_is_one() {
        let mut family = family(&[look(1, 0, 0), look(10, 5, 1)], key(10, 5));
        // Nobody ever saw 20; its child 21 was noted, and is handed to 10 later.
        family.is_child_of(key(21, 10), key(20, 9));
        assert!(!family.descends(key(21, 10)));
        family.learn(&[look(1, 0, 0), look(10, 5, 1), look(21, 10, 10)]);
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
