//! What is compared: the same facts, whoever says them.

use std::{collections::HashSet, fmt, net::SocketAddr, path::PathBuf};

/// A process: its number, and the how-manieth process with that number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    pub pid: u32,
    pub life: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// `who` made the process `child`.
    Birth {
        who: Who,
        child: Who,
    },
    Exec(Exec),
    Contact(Contact),
    /// The process ended.
    End {
        who: Who,
        status: Status,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exec {
    pub who: Who,
    /// From 1.
    pub number: u32,
    /// As it was spelled.
    pub filename: Vec<u8>,
    /// What was executed, without links; nobody knows it any more when it is gone.
    pub file: Option<PathBuf>,
    /// As the program got them.
    pub argv: Vec<Vec<u8>>,
    /// Of a script.
    pub interpreter: Option<Interpreter>,
}

/// What executes a script: the last one, where it is a script too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interpreter {
    /// As it stands after `#!`.
    pub name: Vec<u8>,
    /// Without links.
    pub file: Option<PathBuf>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Code(u8),
    /// The signal's name.
    Signal(String),
    /// Nobody said.
    Unknown,
}

/// TCP: one for each attempt. UDP: one for each socket and destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    pub who: Who,
    pub protocol: Protocol,
    pub to: SocketAddr,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Established,
    /// The error's name.
    Failed(String),
    Abandoned,
    Unsent,
    /// Nobody said.
    Unknown,
    /// There is none: a datagram.
    None,
}

impl Fact {
    pub fn who(&self) -> Who {
        match self {
            Fact::Birth { who, .. } | Fact::End { who, .. } => *who,
            Fact::Exec(exec) => exec.who,
            Fact::Contact(contact) => contact.who,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.life {
            0 => write!(f, "{}", self.pid),
            more => write!(f, "{}#{more}", self.pid),
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Birth { who, child } => write!(f, "{who} made {child}"),
            Fact::Exec(Exec { who, number, filename, file, argv, interpreter }) => {
                let words: Vec<String> = argv.iter().map(|word| shown(word)).collect();
                let path = |file: &Option<PathBuf>| {
                    file.as_ref().map_or("?".into(), |file| file.display().to_string())
                };
                let (filename, file) = (shown(filename), path(file));
                write!(f, "{who} exec {number}: {filename} ({file}) [{}]", words.join(" "))?;
                match interpreter {
                    Some(by) => write!(f, " by {} ({})", shown(&by.name), path(&by.file)),
                    None => Ok(()),
                }
            }
            Fact::Contact(Contact { who, protocol, to, outcome }) => {
                write!(f, "{who} {protocol:?} {to}: {outcome:?}")
            }
            Fact::End { who, status } => write!(f, "{who} ended: {status:?}"),
        }
    }
}

/// Enough of it to find it again.
fn shown(bytes: &[u8]) -> String {
    const LONGEST: usize = 80;
    let text = String::from_utf8_lossy(bytes);
    let short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() { format!("{short}... ({} bytes)", bytes.len()) } else { short }
}

/// What one of both says about the workload.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub facts: Vec<Fact>,
    /// Threads that were made, which are no processes.
    pub threads: u64,
    /// Execs within which the process ended, so that nobody was told whether they succeeded.
    pub unsure: Vec<Exec>,
    /// Processes that strace was not allowed to follow.
    pub untraced: HashSet<Who>,
}
