//! Event in, record out.
//!
//! The fold joins what belongs together: pieces of an argv to their exec, an outcome to its
//! connect, a script to its file. It does no IO and never fails; what it cannot join is counted.

mod records;

use std::collections::{BTreeMap, HashMap, VecDeque};

use tracer_ebpf::abi::{exec_flag, unread};

pub(super) use self::records::names;
use self::records::{
    cgroup_move, datagram, executed_file, exit, foreign_send, fork, intrusion, known, local_send,
    odd_socket, resolved, script_file,
};
use super::{
    attempts::Attempts,
    calls::{Calls, Chunk, Direction},
    errno,
    payload::Payloads,
    stdio::stdio,
};
use crate::{
    model::{
        ArgvPiece, Bytes, CloseEvent, ConnectEvent, ConnectResultEvent, Event, EventHeader,
        ExecEvent, ProcessKey, RootEvent, TlsDataEvent,
    },
    record::schema::{
        Argv, Attempt, Close, Connect, ConnectResult, Credentials, Exec, Outcome, Record, Root,
        Script,
    },
};

/// What the fold has to ask of the machine it runs on.
pub trait Machine {
    /// A program was executed: the time to look at its file, and its script's, is now. The process that
    /// made this one may see that file still when this one has ended.
    fn executed(&mut self, exec: &ExecEvent, parent: Option<Numbers>);
}

/// The numbers of a process.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    pub pid: u32,
    /// In its own pid namespace.
    pub ns_pid: Option<u32>,
}

/// A process that was introduced.
#[derive(Clone, Copy, Debug)]
struct Met {
    ns_pid: Option<u32>,
    parent: Option<ProcessKey>,
}

/// An open connection.
#[derive(Debug)]
struct Pending {
    attempted_ns: u64,
    established_ns: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Fold {
    /// Pieces of argv whose exec record has not come yet, by process and time.
    argv: HashMap<(ProcessKey, u64), Vec<ArgvPiece>>,
    connections: HashMap<u64, Pending>,
    attempts: Attempts,
    payloads: Payloads,
    /// HTTP calls, where they are read.
    calls: Option<Calls>,
    /// What payloads said.
    said: Vec<Record>,
    /// Processes that a root or fork event introduced: those that run, and the latest that have ended.
    met: HashMap<ProcessKey, Met>,
    /// The latest that have ended, in that order.
    ended: VecDeque<ProcessKey>,
    /// Net events of processes not met yet.
    early: Vec<Event>,
    /// The latest time of any event.
    latest_ns: u64,
    /// Environment variables that execs are asked about, by their numbers; none were asked about when
    /// it is empty.
    pub variables: Vec<String>,
    /// Canary events, by kind: counted, not recorded.
    pub canary_events: BTreeMap<&'static str, u64>,
    /// The first process enrolled that is no canary.
    pub root: Option<ProcessKey>,
}

/// So many processes that have ended are known still, for what comes after their end.
const ENDED_KEPT: usize = 1 << 14;
/// An event waits so long for its process, as the other events' times have it. Records of one moment are
/// read within milliseconds; a collector that is stopped finds them all when it goes on.
const EARLY_NS: u64 = 10_000_000_000;

impl Fold {
    /// The record of an event; none for a canary's, for an argv piece, which waits for its exec, and
    /// for a connection whose process was not met yet.
    pub fn apply(&mut self, event: Event, machine: &mut dyn Machine) -> Option<Record> {
        self.attempts.time_is(event.header().time_ns);
        self.latest_ns = self.latest_ns.max(event.header().time_ns);
        if event.header().is_canary() {
            *self.canary_events.entry(event.kind().name()).or_default() += 1;
            return None;
        }
        match &event {
            Event::Root(event) => {
                let ns_pid = known(&event.header, unread::NS_PID, event.ns_pid);
                self.met.insert(event.header.process, Met { ns_pid, parent: None });
            }
            Event::Fork(event) => {
                let ns_pid = known(&event.header, unread::NS_PID, event.child_ns_pid);
                let parent = Some(event.header.process);
                self.met.insert(event.child, Met { ns_pid, parent });
            }
            // A connection can outlive its process by far.
            Event::ConnectResult(ConnectResultEvent { id, .. })
            | Event::Close(CloseEvent { id, .. })
                if self.connections.contains_key(id) => {}
            Event::Connect(_)
            | Event::ConnectResult(_)
            | Event::Close(_)
            | Event::Attempt(_)
            | Event::LocalSend(_)
            | Event::Intrusion(_)
            | Event::Datagram(_)
            | Event::OddSocket(_)
            | Event::ForeignSend(_)
            | Event::CgroupMove(_)
            | Event::Payload(_)
            | Event::Resolve(_)
            | Event::TlsData(_)
            | Event::TlsBegin(_)
            | Event::TlsEnd(_) => {
                let process = event.header().process;
                // Behind those of its process that wait already, so that they stay in order.
                let waits = |early: &Event| early.header().process == process;
                if !self.met.contains_key(&process) || self.early.iter().any(waits) {
                    self.early.push(event);
                    return None;
                }
            }
            Event::Exit(event) => {
                self.ended.push_back(event.header.process);
                if self.ended.len() > ENDED_KEPT
                    && let Some(oldest) = self.ended.pop_front()
                {
                    self.met.remove(&oldest);
                }
            }
            Event::Exec(_) | Event::ArgvPiece(_) => {}
        }
        self.record(event, machine)
    }

    /// Net events that came before their process. To be called after each drain; when `all`, also
    /// those whose process was never met, as otherwise after a while.
    pub fn take_early(&mut self, all: bool) -> Vec<Event> {
        let met = &self.met;
        let waited_ns = self.latest_ns.saturating_sub(EARLY_NS);
        let over = |event: &EventHeader| all || event.time_ns < waited_ns;
        self.early
            .extract_if(.., |event| {
                met.contains_key(&event.header().process) || over(event.header())
            })
            .collect()
    }

    /// The record of an event whose process was met, or never will be.
    pub fn record(&mut self, event: Event, machine: &mut dyn Machine) -> Option<Record> {
        Some(match event {
            Event::Root(event) => self.root(&event),
            Event::Fork(event) => {
                if let Some(calls) = &mut self.calls {
                    calls.forked(event.header.process, event.child);
                }
                fork(&event)
            }
            Event::Exec(event) => {
                if let Some(calls) = &mut self.calls {
                    calls.executed(event.header.process);
                }
                self.exec(*event, machine)
            }
            Event::ArgvPiece(piece) => {
                let key = (piece.header.process, piece.header.time_ns);
                self.argv.entry(key).or_default().push(piece);
                return None;
            }
            Event::Exit(event) => {
                if let Some(calls) = &mut self.calls {
                    calls.exited(event.header.process);
                }
                exit(&event)
            }
            Event::Connect(event) => self.connect(&event),
            Event::ConnectResult(event) => self.connect_result(&event),
            Event::Close(event) => self.close(&event),
            Event::Attempt(event) => return self.attempts.add(*event).map(Record::Attempt),
            Event::LocalSend(event) => local_send(&event),
            Event::Intrusion(event) => intrusion(&event),
            Event::Datagram(event) => datagram(&event),
            Event::OddSocket(event) => odd_socket(&event),
            Event::ForeignSend(event) => foreign_send(&event),
            Event::CgroupMove(event) => cgroup_move(event),
            Event::Payload(event) => {
                if let Some(calls) = &mut self.calls {
                    calls.payload(&event);
                }
                let records = self.payloads.add(*event);
                if let Some(calls) = &mut self.calls {
                    for record in &records {
                        if let Record::Opening(opening) = record {
                            calls.heard(opening);
                        }
                    }
                }
                self.said.extend(records);
                return None;
            }
            Event::Resolve(event) => resolved(event),
            Event::TlsData(event) => {
                self.tls_data(&event);
                return None;
            }
            Event::TlsBegin(event) => {
                if let Some(calls) = &mut self.calls {
                    for random in &event.randoms {
                        calls.hello(event.header.process, event.stream, *random);
                    }
                }
                return None;
            }
            Event::TlsEnd(event) => {
                if let Some(calls) = &mut self.calls {
                    let bytes = (event.sent_bytes, event.received_bytes);
                    let time_ns = event.header.time_ns;
                    calls.closed(event.header.process, event.stream, bytes, time_ns);
                }
                return None;
            }
        })
    }

    fn tls_data(&mut self, event: &TlsDataEvent) {
        let Some(calls) = &mut self.calls else { return };
        // A request is made when its bytes are given away, a response is there when they have come.
        let (direction, at_ns) = match event.received {
            false => (Direction::Sent, event.began_ns),
            true => (Direction::Received, event.header.time_ns),
        };
        calls.chunk(&Chunk {
            process: event.header.process,
            stream: event.stream,
            direction,
            at_ns,
            offset: event.offset_bytes,
            length: event.length_bytes,
            bytes: &event.bytes,
        });
    }

    /// Attempts that are complete; when `all`, also those that may not be.
    pub fn take_attempts(&mut self, all: bool) -> Vec<Attempt> {
        self.attempts.take(all)
    }

    /// Reads HTTP calls, and with `extract` a few values of JSON that they send.
    pub fn read_calls(&mut self, extract: bool) {
        self.calls = Some(Calls::new(extract));
    }

    /// A TLS library of the process is watched from then on.
    pub fn tls_watched_from(&mut self, process: ProcessKey, t_ns: u64) {
        if let Some(calls) = &mut self.calls {
            calls.watched_from(process, t_ns);
        }
    }

    /// So many pieces of TLS sessions were lost so far. To be said before each drain.
    pub fn lost_tls_data(&mut self, pieces: u64) {
        if let Some(calls) = &mut self.calls {
            calls.lost(pieces);
        }
    }

    /// What payloads and calls said since the last call. To be called after each drain; when `all`, also what
    /// those amount to that are not complete.
    pub fn take_said(&mut self, all: bool) -> Vec<Record> {
        let mut said = std::mem::take(&mut self.said);
        said.extend(self.payloads.round());
        if all {
            said.extend(self.payloads.rest());
        }
        if let Some(calls) = &mut self.calls {
            for record in &said {
                if let Record::Opening(opening) = record {
                    let connection = opening.connection.and_then(|id| self.connections.get(&id));
                    calls.opening(opening, connection.map(|pending| pending.attempted_ns));
                }
            }
            said.extend(calls.round(all));
        }
        said
    }

    /// Argv pieces that no exec claimed: their exec record was lost.
    pub fn unclaimed_argv(&self) -> usize {
        self.argv.len()
    }

    fn root(&mut self, event: &RootEvent) -> Record {
        self.root.get_or_insert(event.header.process);
        let header = &event.header;
        Record::Root(Root {
            t_ns: header.time_ns,
            process: header.process,
            ns_pid: known(header, unread::NS_PID, event.ns_pid),
            parent_pid: known(header, unread::PARENT, event.parent_pid),
            unread: names(header),
        })
    }

    fn exec(&mut self, mut event: ExecEvent, machine: &mut dyn Machine) -> Record {
        let parent = self.met.get(&event.header.process).and_then(|own| own.parent);
        let parent = parent.map(|key| Numbers {
            pid: key.pid,
            ns_pid: self.met.get(&key).and_then(|parent| parent.ns_pid),
        });
        machine.executed(&event, parent);
        let argv = self.argv(&mut event);
        let script = (event.flags & exec_flag::SCRIPT != 0).then(|| Script {
            interpreter: known(&event.header, unread::INTERPRETER, event.interpreter.clone()),
            file: known(&event.header, unread::SCRIPT, script_file(&event)),
        });
        let header = event.header;
        Record::Exec(Box::new(Exec {
            t_ns: header.time_ns,
            process: header.process,
            thread: (event.old_tid != header.process.pid).then_some(event.old_tid),
            file: (!header.is_unread(unread::FILE)).then(|| executed_file(&event)),
            filename: known(&header, unread::FILENAME, event.filename),
            argv,
            // One that lacks its beginning is another folder's path.
            cwd: known(&header, unread::CWD, event.cwd)
                .filter(|_| event.flags & exec_flag::CWD_CUT == 0),
            script,
            found: false,
            killed: event.flags & exec_flag::KILLED != 0,
            memfd: event.flags & exec_flag::MEMFD != 0,
            unlinked: event.flags & exec_flag::UNLINKED != 0,
            witness_detached: event.flags & exec_flag::WITNESS_DETACHED != 0,
            credentials: known(
                &header,
                unread::CREDENTIALS,
                Credentials { uid: event.uid, euid: event.euid, gid: event.gid, egid: event.egid },
            ),
            environment: self.environment(event.environment),
            stdio: known(&header, unread::STDIO, stdio(&event.stdio)),
            cgroup_id: event.cgroup_id,
            ns_pid: known(&header, unread::NS_PID, event.ns_pid),
            pid_ns_inum: known(&header, unread::NS_PID, event.pid_ns_inum),
            unread: names(&header),
        }))
    }

    /// The names behind the bits of the kernel side.
    fn environment(&self, bits: u64) -> Option<Vec<String>> {
        let set = |(number, _): &(u32, &String)| bits & 1u64.checked_shl(*number).unwrap_or(0) != 0;
        let names = (0u32..).zip(&self.variables).filter(set).map(|(_, name)| name.clone());
        (!self.variables.is_empty()).then(|| names.collect())
    }

    /// Puts argv together from the record and its pieces; complete only if every byte is there.
    fn argv(&mut self, event: &mut ExecEvent) -> Argv {
        let mut bytes = std::mem::take(&mut event.argv_inline);
        let key = (event.header.process, event.header.time_ns);
        let mut pieces = self.argv.remove(&key).unwrap_or_default();
        pieces.sort_by_key(|piece| piece.offset_bytes);
        for piece in pieces {
            // A piece behind a lost one would move to the wrong place.
            if piece.offset_bytes == bytes.len() as u64 {
                bytes.extend(piece.bytes);
            }
        }
        let complete =
            !event.header.is_unread(unread::ARGV) && bytes.len() as u64 == event.argv_len;
        let text = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
        let args: Vec<Bytes> = if bytes.is_empty() {
            Vec::new()
        } else {
            text.split(|byte| *byte == 0).map(Bytes::from).collect()
        };
        Argv { args, total_bytes: event.argv_len, complete }
    }

    fn connect(&mut self, event: &ConnectEvent) -> Record {
        let header = &event.header;
        self.connections
            .insert(event.id, Pending { attempted_ns: header.time_ns, established_ns: None });
        Record::Connect(Connect {
            t_ns: header.time_ns,
            process: header.process,
            thread: header.tid,
            connection: event.id,
            cookie: (event.cookie != 0).then_some(event.cookie),
            destination: event.destination,
            net_ns_inum: event.net_ns_inum,
            unread: names(header),
        })
    }

    fn connect_result(&mut self, event: &ConnectResultEvent) -> Record {
        let header = &event.header;
        let pending = self.connections.get_mut(&event.id);
        let attempted_ns = pending.as_ref().map(|pending| pending.attempted_ns);
        if event.established {
            if let Some(pending) = pending {
                pending.established_ns = Some(header.time_ns);
            }
        } else {
            self.connections.remove(&event.id);
            self.payloads.closed(event.id);
        }
        let outcome = if event.established {
            Outcome::Established
        } else if header.is_unread(unread::STATUS) {
            Outcome::Unknown
        } else if event.errno == 0 && event.unsent {
            Outcome::Unsent
        } else if event.errno == 0 {
            Outcome::Abandoned
        } else {
            Outcome::Failed { errno: event.errno, name: errno::name(event.errno) }
        };
        Record::ConnectResult(ConnectResult {
            t_ns: header.time_ns,
            process: header.process,
            connection: event.id,
            outcome,
            connect_ns: attempted_ns.map(|attempted| header.time_ns.saturating_sub(attempted)),
            source: event.source.filter(|source| source.port != 0),
            local: event.local,
            unread: names(header),
        })
    }

    fn close(&mut self, event: &CloseEvent) -> Record {
        let header = &event.header;
        let established = self.connections.remove(&event.id).and_then(|known| known.established_ns);
        self.payloads.closed(event.id);
        let received_bytes = known(header, unread::BYTES, event.received_bytes);
        if let Some(calls) = &mut self.calls {
            calls.connection_closed(event.id, header.time_ns, received_bytes);
        }
        Record::Close(Close {
            t_ns: header.time_ns,
            process: header.process,
            connection: event.id,
            sent_bytes: known(header, unread::BYTES, event.sent_bytes),
            received_bytes,
            duration_ns: established.map(|established| header.time_ns.saturating_sub(established)),
            unread: names(header),
        })
    }
}

#[cfg(test)]
mod tests;
