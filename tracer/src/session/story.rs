//! What a sequence of records adds up to: processes, their programs, their connections.

mod forget;
mod process;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use tracer_ebpf::abi::Kind;

use crate::{
    catalogue::{CallKind, Catalogue, Classified, Endpoints},
    model::{Endpoint, FileId, FileVersion, ProcessKey},
    policy,
    record::{
        Finish, Integrity, ReadError, Reader, Recording,
        schema::{
            AttachedTo, Attempt, Call, CallGap, CgroupMove, CredentialFile, Datagram, Dns, End,
            Exchange, Exec, ForeignSend, FoundSocket, HandOff, Intrusion, LocalSend, Mapped,
            OddSocket, Opened, Opening, Record, Resolved, Snapshot, Start, TlsLibrary,
        },
    },
};

use super::excerpt::Whole;
use forget::Forgetting;
pub use forget::{Forgotten, Window};
pub use process::{Connection, Process};

/// Adds an entry where such are kept.
fn keep<T>(keeps: bool, to: &mut Vec<T>, entry: T) {
    if keeps {
        to.push(entry);
    }
}

#[derive(Debug)]
pub struct Story {
    pub start: Start,
    pub end: Option<End>,
    pub integrity: Integrity,
    pub processes: BTreeMap<ProcessKey, Process>,
    pub connections: Vec<Connection>,
    /// Files of programs that were opened.
    pub opened: Vec<Opened>,
    /// Work that left the tree.
    pub hand_offs: Vec<HandOff>,
    pub attempts: Vec<Attempt>,
    pub mapped: Vec<Mapped>,
    pub local_sends: Vec<LocalSend>,
    pub intrusions: Vec<Intrusion>,
    pub datagrams: Vec<Datagram>,
    pub exchanges: Vec<Exchange>,
    pub odd_sockets: Vec<OddSocket>,
    pub foreign_sends: Vec<ForeignSend>,
    pub cgroup_moves: Vec<CgroupMove>,
    pub dns: Vec<Dns>,
    pub openings: Vec<Opening>,
    pub resolved: Vec<Resolved>,
    /// Files with a TLS library that processes have.
    pub tls_libraries: Vec<TlsLibrary>,
    pub calls: Vec<Call>,
    pub call_gaps: Vec<CallGap>,
    pub credential_files: Vec<CredentialFile>,
    /// When the processes that ran already had been found.
    pub snapshot: Option<Snapshot>,
    pub found_sockets: Vec<FoundSocket>,
    /// Successful execs recorded.
    pub execs: u64,
    /// Of executed and known files: SHA-256, or why there is none.
    contents: BTreeMap<FileVersion, Result<String, String>>,
    /// Those of them that an inherited perf counter can see.
    pub witnessed_execs: u64,
    /// The first exec at which the kernel took the inherited counter away, and why it did.
    pub left_witness: Option<String>,
    /// Processes of which the kernel's own count of execs was read.
    pub counted_processes: u64,
    /// Those of them whose execs are not in the recording as often: process, counted, recorded.
    pub miscounted: Vec<(ProcessKey, u64, u64)>,
    /// Events of processes that no root or fork record introduced.
    pub orphans: u64,
    /// Introduced and not seen to exit.
    pub alive: BTreeSet<ProcessKey>,
    roots: Vec<ProcessKey>,
    exec_order: Vec<(ProcessKey, usize)>,
    execs_by_file: BTreeMap<FileId, u64>,
    connection_index: BTreeMap<u64, usize>,
    recorded: BTreeMap<&'static str, u64>,
    attempt_tries: u64,
    /// Whether contacts are kept, or only counted: connections, datagrams, and what names them.
    keeps_contacts: bool,
    /// What was left out of all this because no verdict needs it.
    pub forgotten: Forgotten,
    /// Whether anything is.
    forgetting: Option<Forgetting>,
    /// Where this is an excerpt: what is true of all of it.
    pub whole: Option<Box<Whole>>,
    /// The catalogue's endpoints that it was recorded with, or what is wrong with them.
    endpoints: Result<Cow<'static, Endpoints>, String>,
}

impl Story {
    pub fn new(start: Start) -> Story {
        Story {
            endpoints: Endpoints::recorded(start.endpoints.as_ref()),
            start,
            end: None,
            integrity: Integrity::CutShort,
            processes: BTreeMap::new(),
            connections: Vec::new(),
            opened: Vec::new(),
            hand_offs: Vec::new(),
            attempts: Vec::new(),
            mapped: Vec::new(),
            local_sends: Vec::new(),
            intrusions: Vec::new(),
            datagrams: Vec::new(),
            exchanges: Vec::new(),
            odd_sockets: Vec::new(),
            foreign_sends: Vec::new(),
            cgroup_moves: Vec::new(),
            dns: Vec::new(),
            openings: Vec::new(),
            resolved: Vec::new(),
            tls_libraries: Vec::new(),
            calls: Vec::new(),
            call_gaps: Vec::new(),
            credential_files: Vec::new(),
            snapshot: None,
            found_sockets: Vec::new(),
            attempt_tries: 0,
            execs: 0,
            contents: BTreeMap::new(),
            witnessed_execs: 0,
            left_witness: None,
            counted_processes: 0,
            miscounted: Vec::new(),
            orphans: 0,
            alive: BTreeSet::new(),
            roots: Vec::new(),
            exec_order: Vec::new(),
            execs_by_file: BTreeMap::new(),
            connection_index: BTreeMap::new(),
            recorded: BTreeMap::new(),
            keeps_contacts: true,
            forgotten: Forgotten::default(),
            forgetting: None,
            whole: None,
        }
    }

    /// What a verdict by the policies of `start` needs and no more. Where all of their claims are that
    /// programs never run, memory does not grow with the length of a recording ([`Window`]); where none of
    /// them asks for contacts, those are counted and not kept.
    pub fn for_verdict(start: Start) -> Story {
        Story::for_verdict_in(start, Window::USUAL)
    }

    pub fn for_verdict_in(start: Start, window: Window) -> Story {
        let forgets = policy::settled::can_settle(&start.policies);
        Story {
            keeps_contacts: policy::asks_for_contacts(&start, &start.policies),
            forgetting: forgets.then(|| Forgetting::new(window)),
            ..Story::new(start)
        }
    }

    /// Of a recording that was read back.
    pub fn of(recording: Recording) -> Story {
        let mut story = Story::new(recording.start);
        for record in recording.events {
            story.add(record);
        }
        story.end = recording.end;
        story.integrity = recording.integrity;
        story
    }

    /// Of a recording that is being read, each record being shown before it is added; and the digest of the file if the reader makes one.
    pub fn read(
        mut self,
        mut reader: Reader,
        seen: &mut dyn FnMut(&Record, &Story),
    ) -> Result<(Story, Option<[u8; 32]>), ReadError> {
        while let Some(record) = reader.next_event()? {
            seen(&record, &self);
            self.add(record);
        }
        let Finish { end, integrity, sha256 } = reader.finish()?;
        (self.end, self.integrity) = (end, integrity);
        Ok((self, sha256))
    }

    /// Adds the next record. The last one completes the story.
    pub fn add(&mut self, record: Record) {
        *self.recorded.entry(record.name()).or_default() += 1;
        // Some records are for reports, and for claims of which nothing is forgotten.
        let all = self.forgetting.is_none();
        match record {
            Record::Start(_) => {}
            Record::Root(root) => {
                if self.processes.contains_key(&root.process) {
                    self.orphans += 1;
                } else {
                    // Of processes that were found running, one may be another's child.
                    let parent = root.parent_pid.filter(|_| self.start.attached.is_some());
                    let parent = parent.and_then(|pid| self.by_pid(pid, Some(root.t_ns)).latest());
                    match parent.and_then(|parent| self.processes.get_mut(&parent)) {
                        Some(parent) => parent.children.push(root.process),
                        None => self.roots.push(root.process),
                    }
                    self.introduce(root.process, parent, root.t_ns, root.ns_pid);
                }
            }
            Record::Fork(fork) => {
                self.expect(fork.process, fork.t_ns);
                // Nothing is born twice: a recording that says so could make a process its own
                // ancestor, and no walk through the tree would end.
                if self.processes.contains_key(&fork.child) {
                    self.orphans += 1;
                } else {
                    let parent = self.expect(fork.process, fork.t_ns);
                    parent.children.push(fork.child);
                    parent.acted(fork.t_ns);
                    self.introduce(fork.child, Some(fork.process), fork.t_ns, fork.child_ns_pid);
                }
            }
            Record::Exec(exec) => self.add_exec(exec),
            Record::Content(content) => {
                let result = content
                    .sha256
                    .clone()
                    .ok_or_else(|| content.unread.clone().unwrap_or_else(|| "no reason".into()));
                self.contents.insert(content.version(), result);
            }
            Record::Exit(exit) => {
                self.alive.remove(&exit.process);
                if let Some(forgetting) = &mut self.forgetting {
                    forgetting.exited(exit.process);
                }
                let (key, t_ns) = (exit.process, exit.t_ns);
                let counted = exit.execs.map(u64::from);
                let process = self.expect(key, t_ns);
                process.exit = Some(exit);
                let recorded = process.execs.iter().filter(|exec| !exec.found).count() as u64;
                if let Some(counted) = counted {
                    self.counted_processes += 1;
                    // The kernel counts an exec before it reports it; a process can be joined in between.
                    let under_way = self.start.attached.is_some() && recorded == counted + 1;
                    if counted != recorded && !under_way {
                        self.miscounted.push((key, counted, recorded));
                    }
                }
            }
            Record::Connect(connect) if !self.keeps_contacts => {
                self.expect(connect.process, connect.t_ns).acted(connect.t_ns);
            }
            Record::Connect(connect) => {
                let index = self.connections.len();
                let process = self.expect(connect.process, connect.t_ns);
                process.acted(connect.t_ns);
                keep(all, &mut process.connections, index);
                self.connection_index.insert(connect.connection, index);
                self.connections.push(Connection {
                    id: connect.connection,
                    process: connect.process,
                    attempted_ns: connect.t_ns,
                    cookie: connect.cookie,
                    destination: connect.destination,
                    result: None,
                    close: None,
                });
            }
            Record::ConnectResult(result) => {
                let connection = self.connection(result.connection);
                if let Some(connection) = connection {
                    connection.result = Some(result);
                }
            }
            Record::Close(close) => {
                let connection = self.connection(close.connection);
                if let Some(connection) = connection {
                    connection.close = Some(close);
                }
            }
            Record::Opened(opened) => self.opened.push(opened),
            Record::HandOff(hand_off) => self.hand_offs.push(hand_off),
            Record::Attempt(attempt) => {
                self.attempt_tries += attempt.tries;
                self.expect(attempt.process, attempt.t_ns);
                self.attempts.push(attempt);
            }
            Record::Mapped(mapped) => {
                self.expect(mapped.process, mapped.t_ns);
                self.mapped.push(mapped);
            }
            Record::LocalSend(send) => {
                self.expect(send.process, send.t_ns).acted(send.t_ns);
                keep(all, &mut self.local_sends, send);
            }
            Record::Intrusion(intrusion) => {
                self.expect(intrusion.process, intrusion.t_ns);
                keep(all, &mut self.intrusions, intrusion);
            }
            Record::Datagram(datagram) => {
                self.expect(datagram.process, datagram.t_ns).acted(datagram.t_ns);
                keep(self.keeps_contacts, &mut self.datagrams, datagram);
            }
            Record::Exchange(exchange) => {
                keep(self.keeps_contacts, &mut self.exchanges, exchange);
            }
            Record::OddSocket(socket) => {
                self.expect(socket.process, socket.t_ns);
                keep(all, &mut self.odd_sockets, socket);
            }
            Record::ForeignSend(send) => {
                self.expect(send.process, send.t_ns);
                self.foreign_sends.push(send);
            }
            Record::CgroupMove(moved) => {
                self.expect(moved.process, moved.t_ns);
                keep(all, &mut self.cgroup_moves, moved);
            }
            Record::Dns(dns) => {
                self.expect(dns.process, dns.t_ns);
                keep(self.keeps_contacts, &mut self.dns, dns);
            }
            Record::Opening(opening) => {
                self.expect(opening.process, opening.t_ns);
                keep(self.keeps_contacts, &mut self.openings, opening);
            }
            Record::Resolved(resolved) => {
                self.expect(resolved.process, resolved.t_ns);
                keep(self.keeps_contacts, &mut self.resolved, resolved);
            }
            Record::TlsLibrary(library) => {
                self.expect(library.process, library.t_ns);
                keep(all, &mut self.tls_libraries, library);
            }
            Record::Call(call) => {
                self.expect(call.process, call.t_ns);
                keep(all, &mut self.calls, *call);
            }
            Record::CallGap(gap) => {
                self.expect(gap.process, gap.t_ns);
                keep(all, &mut self.call_gaps, gap);
            }
            Record::CredentialFile(file) => keep(all, &mut self.credential_files, file),
            Record::Snapshot(snapshot) => self.snapshot = Some(snapshot),
            Record::FoundSocket(socket) => {
                self.expect(socket.process, socket.t_ns);
                keep(all, &mut self.found_sockets, socket);
            }
            Record::End(end) => {
                self.end = Some(*end);
                self.integrity = Integrity::Intact;
            }
        }
        self.forget_some();
    }

    pub(super) fn has_connection(&self, id: u64) -> bool {
        self.connection_index.contains_key(&id)
    }

    fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        let index = self.connection_index.get(&id)?;
        self.connections.get_mut(*index)
    }

    fn introduce(
        &mut self,
        key: ProcessKey,
        creator: Option<ProcessKey>,
        born_ns: u64,
        ns_pid: Option<u32>,
    ) {
        let witness_detached = creator
            .and_then(|creator| self.processes.get(&creator))
            .is_some_and(|creator| creator.witness_detached);
        self.alive.insert(key);
        self.processes.insert(
            key,
            Process {
                key,
                creator,
                children: Vec::new(),
                born_ns,
                ns_pid,
                execs: Vec::new(),
                exit: None,
                connections: Vec::new(),
                acted_ns: Vec::new(),
                witness_detached,
                came_back: false,
            },
        );
    }

    /// The process of an event; one that nobody introduced becomes an orphan.
    fn expect(&mut self, key: ProcessKey, t_ns: u64) -> &mut Process {
        if !self.processes.contains_key(&key) {
            self.introduce(key, None, t_ns, None);
            if !self.comes_back(key) {
                self.orphans += 1;
                self.roots.push(key);
            }
        }
        #[expect(clippy::expect_used, reason = "inserted above when it was absent")]
        self.processes.get_mut(&key).expect("present")
    }

    fn add_exec(&mut self, exec: Box<Exec>) {
        let key = exec.process;
        if exec.witness_detached && self.left_witness.is_none() {
            self.left_witness = Some(left_witness(&exec));
        }
        let process = self.expect(key, exec.t_ns);
        process.witness_detached |= exec.witness_detached;
        let witnessed = !process.witness_detached;
        let found = exec.found;
        let file = exec.file.as_ref().map(|file| file.id());
        process.execs.push(exec);
        let index = process.execs.len() - 1;
        self.exec_order.push((key, index));
        if found {
            return; // nothing was executed
        }
        self.execs += 1;
        self.witnessed_execs += u64::from(witnessed);
        if let Some(file) = file {
            *self.execs_by_file.entry(file).or_default() += 1;
        }
    }

    /// What a process ran at that time: its latest exec, or that of the process that made it.
    pub fn image(&self, process: ProcessKey, t_ns: u64) -> Option<&Exec> {
        let (mut at, mut until_ns) = (Some(process), t_ns);
        while let Some(process) = at.and_then(|at| self.processes.get(&at)) {
            if let Some(exec) = process.execs.iter().rev().find(|exec| exec.t_ns <= until_ns) {
                return Some(exec);
            }
            (at, until_ns) = (process.creator, process.born_ns);
        }
        None
    }

    /// All execs, in the order of the recording: a process's own in order, and a child's after the
    /// fork that made it.
    pub fn execs_in_order(&self) -> impl Iterator<Item = &Exec> {
        self.exec_order
            .iter()
            .filter_map(|(key, index)| Some(self.processes.get(key)?.execs.get(*index)?.as_ref()))
    }

    /// The endpoints of the catalogue that it was recorded with, or what is wrong with them.
    pub fn endpoints(&self) -> Result<&Endpoints, &str> {
        self.endpoints.as_deref().map_err(String::as_str)
    }

    /// What stands behind a name or, without an entry for that, behind an address: by the catalogue
    /// that it was recorded with.
    pub fn classify(&self, name: Option<&str>, endpoint: Option<Endpoint>) -> Option<Classified> {
        self.endpoints().unwrap_or(&Catalogue::embedded().endpoints).classify(name, endpoint)
    }

    /// What a call is: by the catalogue that it was recorded with.
    pub fn call_kind(&self, call: &Call) -> CallKind {
        let endpoints = self.endpoints().unwrap_or(&Catalogue::embedded().endpoints);
        endpoints.call(&call.method, &call.url)
    }

    /// Whether what the process executed next is what it had tried to: a search along `PATH` that
    /// found the program in the end.
    pub fn found_later(&self, attempt: &Attempt) -> bool {
        let process = self.processes.get(&attempt.process);
        let mut execs = process.into_iter().flat_map(|process| &process.execs);
        let Some(next) = execs.find(|exec| exec.t_ns >= attempt.last_t_ns) else { return false };
        next.filename.as_ref().is_some_and(|name| {
            attempt.filenames.iter().all(|tried| tried.base_name() == name.base_name())
                && (next.script.is_some() || next.argv.args.first() == attempt.argv.first())
        })
    }

    /// SHA-256 of a version of a file, or why it is not known.
    pub fn content(&self, version: &FileVersion) -> Result<&str, &str> {
        match self.contents.get(version) {
            Some(Ok(sha256)) => Ok(sha256),
            Some(Err(why)) => Err(why),
            None => Err("the recording does not say"),
        }
    }

    /// SHA-256 of every version of a file that was read.
    pub fn contents_of(&self, file: FileId) -> impl Iterator<Item = &str> {
        self.versions_of(file).filter_map(|content| content.as_deref().ok())
    }

    /// Why a version of a file could not be read, if that is so of one.
    pub fn unread_of(&self, file: FileId) -> Option<&str> {
        self.versions_of(file).find_map(|content| content.as_ref().err()).map(String::as_str)
    }

    fn versions_of(&self, file: FileId) -> impl Iterator<Item = &Result<String, String>> {
        let of = |size_bytes, ctime_ns| FileVersion { id: file, size_bytes, ctime_ns };
        let versions = self.contents.range(of(0, i64::MIN)..=of(u64::MAX, i64::MAX));
        versions.map(|(_, content)| content)
    }

    pub fn execs_of(&self, file: FileId) -> u64 {
        self.execs_by_file.get(&file).copied().unwrap_or(0)
    }

    /// The traced command's process.
    pub fn root(&self) -> Option<ProcessKey> {
        self.roots.first().copied()
    }

    /// What the traced command executed first, or what a process that was joined ran then. There is none
    /// where several were joined together.
    pub fn command(&self) -> Option<&Exec> {
        match self.start.attached.as_ref().map(|attached| &attached.to) {
            None => self.execs_in_order().next(),
            Some(AttachedTo::Pid(_)) => {
                let first = self.processes.get(&self.root()?)?.execs.first()?;
                first.found.then_some(first)
            }
            Some(
                AttachedTo::Cgroup(_)
                | AttachedTo::Container { .. }
                | AttachedTo::Pod { .. }
                | AttachedTo::Host,
            ) => None,
        }
    }

    pub fn roots(&self) -> &[ProcessKey] {
        &self.roots
    }

    /// Events of this kind in the lines; none for a kind that has no lines of its own.
    pub fn recorded(&self, kind: Kind) -> Option<u64> {
        match kind {
            Kind::ArgvChunk | Kind::Payload | Kind::TlsData | Kind::TlsBegin | Kind::TlsEnd => None,
            // A line can stand for several.
            Kind::Attempt => Some(self.attempt_tries),
            Kind::Exec => Some(self.execs),
            Kind::Root
            | Kind::Fork
            | Kind::Exit
            | Kind::Connect
            | Kind::ConnectResult
            | Kind::Close
            | Kind::LocalSend
            | Kind::Intrusion
            | Kind::Datagram
            | Kind::OddSocket
            | Kind::ForeignSend
            | Kind::CgroupMove
            | Kind::Resolve => Some(self.recorded.get(kind.name()).copied().unwrap_or(0)),
        }
    }

    /// What programs on sockets were attached to, for messages.
    pub(crate) fn watched_cgroup(&self) -> &'static str {
        if self.start.attached.is_some() { "cgroup that was joined" } else { "command's cgroup" }
    }

    /// What a process is called in messages: its program and pid.
    pub fn label(&self, key: ProcessKey) -> String {
        // One that has not executed anything runs what its creator ran then.
        let Some(exec) = self.image(key, u64::MAX) else { return format!("pid {}", key.pid) };
        let name = exec.filename.as_ref().map_or_else(
            || "?".into(),
            |name| String::from_utf8_lossy(name.base_name()).into_owned(),
        );
        format!("{name} (pid {})", key.pid)
    }
}

/// Why the kernel took the inherited counter away at an exec: the condition is `begin_new_exec`'s.
fn left_witness(exec: &Exec) -> String {
    let name = exec
        .filename
        .as_ref()
        .map_or("a program".into(), |name| String::from_utf8_lossy(name.base_name()).into_owned());
    let why = match exec.credentials {
        Some(own) if own.uid != own.euid => "setuid",
        Some(own) if own.gid != own.egid => "setgid",
        Some(_) => "not readable for who ran it",
        None => "setuid, setgid or not readable",
    };
    format!("{name} (pid {}), which is {why}", exec.process.pid)
}
