//! What is kept of a process and of a connection.

use crate::{
    model::{Endpoint, ProcessKey},
    record::schema::{Close, ConnectResult, Exec, Exit, Outcome},
};

#[derive(Clone, Debug)]
pub struct Process {
    pub key: ProcessKey,
    /// Who created it; none for a root.
    pub creator: Option<ProcessKey>,
    pub children: Vec<ProcessKey>,
    pub born_ns: u64,
    /// Its id in its own pid namespace.
    pub ns_pid: Option<u32>,
    /// In boxes, because most processes execute once and a vector begins with room for four.
    pub execs: Vec<Box<Exec>>,
    pub exit: Option<Exit>,
    /// Indexes into [`Story::connections`].
    pub connections: Vec<usize>,
    /// When it made a process or asked for a contact: the first times.
    pub(super) acted_ns: Vec<u64>,
    /// The inherited perf counter no longer counts here.
    pub(super) witness_detached: bool,
    /// It was forgotten, and then something came that belongs to it.
    pub(super) came_back: bool,
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub id: u64,
    pub process: ProcessKey,
    pub attempted_ns: u64,
    /// The kernel's name of the socket, where something asked for one.
    pub cookie: Option<u64>,
    pub destination: Option<Endpoint>,
    /// Absent while there is no outcome.
    pub result: Option<ConnectResult>,
    pub close: Option<Close>,
}

impl Process {
    /// More of what a process did is not kept.
    const ACTED_MAX: usize = 64;

    pub(super) fn acted(&mut self, t_ns: u64) {
        if self.acted_ns.len() < Self::ACTED_MAX {
            self.acted_ns.push(t_ns);
        }
    }

    /// Whether it made no process and asked for no contact between these times.
    pub(crate) fn did_nothing_between(&self, from_ns: u64, until_ns: u64) -> bool {
        self.acted_ns.len() < Self::ACTED_MAX
            && !self.acted_ns.iter().any(|at_ns| (from_ns..=until_ns).contains(at_ns))
    }

    /// Its id in its own pid namespace, where that is another one.
    pub fn namespace_pid(&self) -> Option<u32> {
        self.ns_pid.filter(|pid| *pid != self.key.pid)
    }
}

impl Connection {
    pub fn is_established(&self) -> bool {
        self.result.as_ref().is_some_and(|result| result.outcome == Outcome::Established)
    }
}
