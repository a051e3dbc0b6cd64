//! Forgetting what no verdict needs any more, so that memory stays what it is however long a recording
//! is.
//!
//! What matters is what claims say ([`settled`]). A process goes when it has ended, and all that it
//! made have gone; a contact when nobody can suspect it, else it is kept as it was seen. Both are looked
//! at after each [`Window`], and the newest are left alone, because what belongs to them can come after
//! them. A recording that is no longer than a window is judged with all that is in it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::{Connection, Process, Story};
use crate::{
    model::{Endpoint, FileVersion, ProcessKey},
    policy::{Claim, Contact, settled},
    record::schema::Opening,
    session::answers,
};

/// How much waits.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Records until it is looked at what can be forgotten.
    pub records: usize,
    /// Of each kind, the newest that stay.
    pub newest: usize,
}

impl Window {
    pub const USUAL: Window = Window { records: 65_536, newest: 4_096 };
    /// Nothing is forgotten.
    pub const ENDLESS: Window = Window { records: usize::MAX, newest: usize::MAX };
}

/// What is left of what was forgotten. It grows with the number of different files and endpoints.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// Processes; each was seen to exit.
    pub processes: u64,
    /// Files that they executed, and who was the first to.
    pub(crate) files: BTreeMap<FileVersion, String>,
    /// Where contacts went, and whose was the first.
    pub(crate) destinations: BTreeMap<Endpoint, String>,
    /// Claims that some of the programs are others for than the policy names.
    pub(crate) other_programs: Vec<Claim>,
    /// Contacts that matter, with the names they had.
    pub(crate) contacts: Vec<Contact>,
}

impl Forgotten {
    pub fn is_any(&self) -> bool {
        self.processes > 0 || !self.destinations.is_empty() || !self.contacts.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Forgetting {
    window: Window,
    /// Records since the last look, and how many there are to be until the next one.
    since: usize,
    wait: usize,
    /// Processes that have ended, in that order.
    ended: VecDeque<ProcessKey>,
    /// The latest ones that were forgotten: what comes late belongs to nobody unknown.
    latest: (VecDeque<ProcessKey>, HashSet<ProcessKey>),
}

impl Forgetting {
    pub(super) fn new(window: Window) -> Forgetting {
        Forgetting {
            window,
            since: 0,
            wait: window.records,
            ended: VecDeque::new(),
            latest: Default::default(),
        }
    }

    pub(super) fn exited(&mut self, process: ProcessKey) {
        self.ended.push_back(process);
    }

    fn forgot(&mut self, process: ProcessKey) {
        let (order, keys) = &mut self.latest;
        order.push_back(process);
        keys.insert(process);
        // What comes after an end comes soon.
        let most = self.window.newest.saturating_mul(4);
        while order.len() > most {
            order.pop_front().map(|oldest| keys.remove(&oldest));
        }
    }
}

impl Story {
    /// To be called with each record, when it was added.
    pub(super) fn forget_some(&mut self) {
        let Some(waiting) = self.forgetting.as_mut() else { return };
        waiting.since += 1;
        if waiting.since < waiting.wait {
            return;
        }
        let Some(mut forgetting) = self.forgetting.take() else { return };
        self.forget_contacts(forgetting.window.newest);
        let kept = self.forget_processes(&mut forgetting) + self.forgotten.contacts.len();
        // Where much has to stay, looking at it is not to cost more than reading.
        forgetting.wait = forgetting.window.records.max(kept);
        forgetting.since = 0;
        self.forgetting = Some(forgetting);
    }

    /// Whether a process that was just introduced is one that was forgotten: then it has ended.
    pub(super) fn comes_back(&mut self, key: ProcessKey) -> bool {
        let Some(forgetting) = self.forgetting.as_mut().filter(|it| it.latest.1.contains(&key))
        else {
            return false;
        };
        forgetting.ended.push_back(key);
        self.alive.remove(&key);
        if let Some(process) = self.processes.get_mut(&key) {
            process.came_back = true;
        }
        true
    }

    fn forget_contacts(&mut self, newest: usize) {
        let contacts = settled::Contacts::of(self);
        let (mut kept, mut destinations) = (Vec::new(), Vec::new());
        let mut settle =
            |contact: Option<Contact>, process, destination: Option<Endpoint>| match contact {
                Some(contact) => kept.push(contact),
                None => destinations.extend(destination.map(|to| (to, process))),
            };
        let connections = but_newest(&self.connections, newest);
        for connection in connections {
            settle(contacts.connection(connection), connection.process, connection.destination);
        }
        let datagrams = but_newest(&self.datagrams, newest);
        for datagram in datagrams {
            settle(contacts.datagram(datagram), datagram.process, datagram.destination);
        }
        // Those of contacts that are there are judged with them.
        let (ids, flows) = (self.ids(0), self.flows(0));
        let late = |opening: &&Opening| !belongs(opening, &ids, &flows);
        for opening in but_newest(&self.openings, newest).iter().filter(late) {
            settle(contacts.opening(opening), opening.process, opening.destination);
        }
        let gone = [connections.len(), datagrams.len()];
        let openings = self.openings.len().saturating_sub(newest);
        for (to, process) in destinations {
            if !self.forgotten.destinations.contains_key(&to) {
                let label = self.label(process);
                self.forgotten.destinations.insert(to, label);
            }
        }
        self.forgotten.contacts.extend(kept);

        let (ids, flows) = (self.ids(gone[0]), self.flows(gone[1]));
        let mut at = 0..;
        let mut is_new = |from: usize| at.next().is_some_and(|at| at >= from);
        self.openings.retain(|opening| is_new(openings) || belongs(opening, &ids, &flows));
        let cookies: HashSet<u64> = flows.iter().map(|(cookie, _)| *cookie).collect();
        self.exchanges.retain(|exchange| cookies.contains(&exchange.cookie));
        self.connections.drain(..gone[0]);
        self.datagrams.drain(..gone[1]);
        self.connection_index =
            self.connections.iter().enumerate().map(|(at, one)| (one.id, at)).collect();
        let processes = &self.processes;
        let known = |process: ProcessKey| processes.contains_key(&process).then_some(process);
        answers::telling(&mut self.dns, newest, &cookies, known);
        // What the resolver told a process is of use to that one alone.
        let newest = self.resolved.len().saturating_sub(newest);
        let mut keep = answers::first_and_last(&self.resolved, |one| {
            Some((known(one.process)?, one.name.clone(), one.addresses.clone()))
        });
        keep.iter_mut().skip(newest).for_each(|keep| *keep = true);
        answers::retain(&mut self.resolved, &keep);
    }

    /// Connections from there on.
    fn ids(&self, from: usize) -> HashSet<u64> {
        self.connections[from..].iter().map(|connection| connection.id).collect()
    }

    /// Sockets, and where they go, of contacts from there on.
    fn flows(&self, from: usize) -> HashSet<(u64, Option<Endpoint>)> {
        let of_connection = |one: &Connection| Some((one.cookie?, one.destination));
        let connections = self.connections.iter().filter_map(of_connection);
        let datagrams = self.datagrams[from..].iter().map(|one| (one.cookie, one.destination));
        connections.chain(datagrams).collect()
    }

    /// How many that have ended are kept.
    fn forget_processes(&mut self, forgetting: &mut Forgetting) -> usize {
        let mut attempts = std::mem::take(&mut self.attempts);
        attempts.retain(|attempt| !settled::attempt_is_settled(self, attempt));
        self.attempts = attempts;
        let mut mapped = std::mem::take(&mut self.mapped);
        mapped.retain(|mapped| !settled::mapped_is_settled(self, mapped));
        self.mapped = mapped;

        let needed = self.needed();
        let newest = forgetting.ended.len().saturating_sub(forgetting.window.newest);
        let mut stay: VecDeque<ProcessKey> = forgetting.ended.split_off(newest);
        let mut gone: HashMap<ProcessKey, HashSet<ProcessKey>> = HashMap::new();
        let mut keys = HashSet::new();
        let mut kept = VecDeque::new();
        for key in std::mem::take(&mut forgetting.ended) {
            let settled = |process: &Process| {
                process.children.len() == gone.get(&key).map_or(0, HashSet::len)
                    && !needed.contains(&key)
                    && process.execs.iter().all(|exec| settled::exec_is_settled(self, exec))
            };
            if !self.processes.get(&key).is_some_and(settled) {
                kept.push_back(key);
                continue;
            }
            let Some(process) = self.processes.remove(&key) else { continue };
            if let Some(creator) = process.creator {
                gone.entry(creator).or_default().insert(key);
            }
            if !process.came_back {
                self.remember(&process);
            }
            keys.insert(key);
            forgetting.forgot(key);
        }
        for (parent, children) in gone {
            if let Some(parent) = self.processes.get_mut(&parent) {
                parent.children.retain(|child| !children.contains(child));
            }
        }
        if !keys.is_empty() {
            self.roots.retain(|root| !keys.contains(root));
            self.exec_order.retain(|(key, _)| !keys.contains(key));
        }
        kept.append(&mut stay);
        forgetting.ended = kept;
        forgetting.ended.len()
    }

    /// Processes that something is about that stays.
    fn needed(&self) -> HashSet<ProcessKey> {
        let first = self.exec_order.first().map(|(key, _)| *key);
        // Of those that joined a cgroup each is a root, and there is no end of them.
        let mut needed: HashSet<ProcessKey> =
            self.roots.first().copied().into_iter().chain(first).collect();
        needed.extend(self.connections.iter().map(|one| one.process));
        needed.extend(self.datagrams.iter().map(|one| one.process));
        needed.extend(self.openings.iter().map(|one| one.process));
        needed.extend(self.forgotten.contacts.iter().map(|one| one.process));
        needed.extend(self.foreign_sends.iter().map(|one| one.process));
        needed.extend(self.opened.iter().filter_map(|one| one.process));
        needed.extend(self.hand_offs.iter().filter_map(|one| one.process));
        needed.extend(self.attempts.iter().map(|one| one.process));
        needed.extend(self.mapped.iter().map(|one| one.process));
        needed.extend(self.miscounted.iter().map(|(process, ..)| *process));
        needed
    }

    fn remember(&mut self, process: &Process) {
        self.forgotten.processes += 1;
        for exec in &process.execs {
            let script = exec.script.as_ref().and_then(|script| script.file.as_ref());
            let versions = [
                exec.file.as_ref().map(|file| file.version()),
                script.map(|script| script.version()),
            ];
            let name = exec
                .filename
                .as_ref()
                .map_or("?".into(), |name| String::from_utf8_lossy(name.base_name()).into_owned());
            for version in versions.into_iter().flatten() {
                let who = || format!("{name} (pid {})", process.key.pid);
                self.forgotten.files.entry(version).or_insert_with(who);
            }
            let others: Vec<Claim> = settled::claims_with_others(self, exec)
                .filter(|claim| !self.forgotten.other_programs.contains(claim))
                .cloned()
                .collect();
            self.forgotten.other_programs.extend(others);
        }
    }
}

fn belongs(
    opening: &Opening,
    ids: &HashSet<u64>,
    flows: &HashSet<(u64, Option<Endpoint>)>,
) -> bool {
    opening.connection.is_some_and(|id| ids.contains(&id))
        || flows.contains(&(opening.cookie, opening.destination))
}

fn but_newest<T>(all: &[T], newest: usize) -> &[T] {
    &all[..all.len().saturating_sub(newest)]
}
