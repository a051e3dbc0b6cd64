//! What a recording comes down to.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use tracer::{
    model::{Endpoint, ProcessKey},
    record::{
        Recording,
        schema::{self, Record},
    },
};

use super::facts::{Contact, Exec, Fact, Interpreter, Outcome, Protocol, Status, Told, Who};

/// What was recorded of the workload, with what only the recording has.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) told: Told,
    /// TCP connections whose first packet was sent, wherever in the tree.
    pub(super) opened: u64,
}

/// What the tree did below the process that starts the workload, which executed a file with this name.
pub(super) fn facts(recording: &Recording, starter: u32) -> Result<Recorded> {
    let tree = Tree::of(recording, starter)?;
    let results: HashMap<u64, &schema::Outcome> = recording
        .events
        .iter()
        .filter_map(|record| {
            match_result(record).map(|result| (result.connection, &result.outcome))
        })
        .collect();
    let mut numbers: HashMap<Who, u32> = HashMap::new();
    let (mut facts, mut opened) = (Vec::new(), 0);
    for record in &recording.events {
        #[expect(clippy::wildcard_enum_match_arm, reason = "other kinds are not compared")]
        match record {
            Record::Fork(fork) => {
                if let (Some(who), Some(child)) = (tree.who(fork.process), tree.inside(fork.child))
                {
                    facts.push(Fact::Birth { who, child });
                }
            }
            Record::Exec(exec) => {
                let Some(who) = tree.inside(exec.process) else { continue };
                let number = numbers.entry(who).or_default();
                *number += 1;
                facts.push(Fact::Exec(exec_of(who, *number, exec)));
            }
            Record::Exit(exit) => {
                let Some(who) = tree.inside(exit.process) else { continue };
                facts.push(Fact::End { who, status: status_of(exit) });
            }
            Record::Connect(connect) => {
                let outcome = results.get(&connect.connection).copied();
                opened += u64::from(outcome != Some(&schema::Outcome::Unsent));
                let Some(who) = tree.inside(connect.process) else { continue };
                let Some(to) = connect.destination else { continue };
                let outcome = outcome_of(outcome);
                let (protocol, to) = (Protocol::Tcp, address(to));
                facts.push(Fact::Contact(Contact { who, protocol, to, outcome }));
            }
            Record::Datagram(datagram) if datagram.protocol == 17 => {
                let Some(who) = tree.inside(datagram.process) else { continue };
                let Some(to) = datagram.destination else { continue };
                let (protocol, to, outcome) = (Protocol::Udp, address(to), Outcome::None);
                facts.push(Fact::Contact(Contact { who, protocol, to, outcome }));
            }
            _ => {}
        }
    }
    Ok(Recorded { told: Told { facts, ..Told::default() }, opened })
}

fn match_result(record: &Record) -> Option<&schema::ConnectResult> {
    if let Record::ConnectResult(result) = record { Some(result) } else { None }
}

fn exec_of(who: Who, number: u32, exec: &schema::Exec) -> Exec {
    let path = |bytes: &tracer::model::Bytes| PathBuf::from(bytes.as_path());
    let executed = exec.file.as_ref().and_then(|file| file.path.as_ref()).map(path);
    let (file, interpreter) = match &exec.script {
        Some(script) => {
            let name = script.interpreter.clone().unwrap_or_default().0;
            let file = script.file.as_ref().map(|file| path(&file.path));
            (file, Some(Interpreter { name, file: executed }))
        }
        None => (executed, None),
    };
    Exec {
        who,
        number,
        filename: exec.filename.clone().unwrap_or_default().0,
        file,
        argv: exec.argv.args.iter().map(|word| word.0.clone()).collect(),
        interpreter,
    }
}

fn status_of(exit: &schema::Exit) -> Status {
    match (exit.code, exit.signal) {
        (_, Some(number)) => Status::Signal(signal(number)),
        (Some(code), None) => Status::Code(code),
        (None, None) => Status::Unknown,
    }
}

/// A signal's name as strace writes it.
fn signal(number: u8) -> String {
    // As numbered on x86-64 and arm64 alike.
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match NAMES.get(usize::from(number).wrapping_sub(1)) {
        Some(name) => format!("SIG{name}"),
        None => format!("SIGRT_{}", number.saturating_sub(32)),
    }
}

fn address(to: Endpoint) -> SocketAddr {
    SocketAddr::new(to.address, to.port)
}

fn outcome_of(outcome: Option<&schema::Outcome>) -> Outcome {
    match outcome {
        Some(schema::Outcome::Established) => Outcome::Established,
        Some(schema::Outcome::Failed { name, .. }) => Outcome::Failed(name.clone()),
        Some(schema::Outcome::Abandoned) => Outcome::Abandoned,
        Some(schema::Outcome::Unsent) => Outcome::Unsent,
        Some(schema::Outcome::Unknown) | None => Outcome::Unknown,
    }
}

/// The processes of the workload.
struct Tree {
    who: HashMap<ProcessKey, Who>,
    inside: HashSet<ProcessKey>,
}

impl Tree {
    fn of(recording: &Recording, starter: u32) -> Result<Tree> {
        let mut tree = Tree { who: HashMap::new(), inside: HashSet::new() };
        let mut lives: HashMap<u32, u32> = HashMap::new();
        let mut start = None;
        for record in &recording.events {
            #[expect(clippy::wildcard_enum_match_arm, reason = "others make no process")]
            let (parent, process) = match record {
                Record::Root(root) => (None, root.process),
                Record::Fork(fork) => (Some(fork.process), fork.child),
                _ => continue,
            };
            let is_start = process.pid == starter && start.is_none();
            let is_inside =
                parent.is_some_and(|parent| Some(parent) == start || tree.inside.contains(&parent));
            if is_start {
                start = Some(process);
            }
            if is_inside {
                tree.inside.insert(process);
            }
            // Others are not strace's, which counts how often a number came back.
            if is_start || is_inside {
                let life = lives.entry(process.pid).or_default();
                tree.who.insert(process, Who { pid: process.pid, life: *life });
                *life += 1;
            }
        }
        start.with_context(|| {
            format!("the recording has no process {starter}: strace numbers processes otherwise")
        })?;
        Ok(tree)
    }

    fn who(&self, process: ProcessKey) -> Option<Who> {
        self.who.get(&process).copied()
    }

    fn inside(&self, process: ProcessKey) -> Option<Who> {
        self.who(process).filter(|_| self.inside.contains(&process))
    }
}
