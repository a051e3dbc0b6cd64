//! What strace's calls come down to.
//!
//! strace numbers threads. Which of them are processes follows from the calls that made them, and whether
//! a socket is TCP or UDP from the call that made it, wherever it got to since: its inode stays.

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry},
    ffi::OsStr,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    facts::{Contact, Exec, Fact, Outcome, Protocol, Status, Told, Who},
    script,
    strace::{self, Call, Step, Tid, bytes, descriptor, string},
};

/// A thread: its number, and the how-manieth thread with that number it is.
type Life = (Tid, u32);

/// What the tree did below its first process, which is the one that starts the workload.
pub(super) fn facts(steps: &[Step], folder: &Path) -> Result<Told> {
    let family = Family::of(steps)?;
    let mut reading = Reading::new(&family, folder);
    for step in steps {
        match step {
            Step::Seen(tid) => reading.seen(*tid),
            Step::Call(call) => reading.call(call),
            Step::Ended(tid, status) => reading.ended(*tid, status),
            Step::Became { .. } => {}
        }
    }
    let births = family.parents.iter().filter(|(child, _)| family.is_inside(**child));
    let births = births.map(|(child, who)| Fact::Birth { who: *who, child: *child });
    let others = reading.facts.into_iter().filter(|fact| family.is_inside(fact.who()));
    let facts = births.chain(others).collect();
    let inside = |life: &&Life| family.process_of(**life).is_some_and(|who| family.is_inside(who));
    let threads = family.threads.iter().filter(inside).count() as u64;
    let (unsure, untraced) = (reading.unsure, family.untraced);
    Ok(Told { facts, threads, unsure, untraced })
}

/// Who made whom.
struct Family {
    first: Who,
    /// Of each process but the first.
    parents: HashMap<Who, Who>,
    /// The process that each thread is of, its first one included.
    processes: HashMap<Life, Who>,
    threads: Vec<Life>,
    /// Those that were made so that nobody who watches their maker watches them.
    untraced: HashSet<Who>,
}

/// A call that made a thread or a process.
struct Made {
    by: Life,
    is_thread: bool,
    is_untraced: bool,
}

impl Family {
    fn of(steps: &[Step]) -> Result<Family> {
        let first: Life = (strace::first(steps).context("strace saw nothing")?, 0);
        let (made, lives) = makers(steps, first);
        let mut family = Family {
            first: Who { pid: first.0, life: 0 },
            parents: HashMap::new(),
            processes: HashMap::new(),
            threads: Vec::new(),
            untraced: HashSet::new(),
        };
        // A child may have been seen before the call that made it came back, but never before its
        // maker was.
        let mut processes: HashMap<Tid, u32> = HashMap::new();
        for life in lives {
            let made = made.get(&life);
            let by = made.and_then(|made| family.process_of(made.by));
            if made.is_some_and(|made| made.is_thread)
                && let Some(who) = by
            {
                family.processes.insert(life, who);
                family.threads.push(life);
                continue;
            }
            let count = processes.entry(life.0).or_default();
            let who = Who { pid: life.0, life: *count };
            *count += 1;
            family.processes.insert(life, who);
            if made.is_some_and(|made| made.is_untraced) {
                family.untraced.insert(who);
            }
            if let Some(by) = by {
                family.parents.insert(who, by);
            }
        }
        Ok(family)
    }

    fn process_of(&self, life: Life) -> Option<Who> {
        self.processes.get(&life).copied()
    }

    /// Whether it is of the workload.
    fn is_inside(&self, who: Who) -> bool {
        let mut above = self.parents.get(&who);
        while let Some(parent) = above {
            if *parent == self.first {
                return true;
            }
            above = self.parents.get(parent);
        }
        false
    }
}

/// Who made each thread, and all threads in the order in which they were first seen.
fn makers(steps: &[Step], first: Life) -> (HashMap<Life, Made>, Vec<Life>) {
    let (mut made, mut lives) = (HashMap::new(), Vec::new());
    let mut seen: HashMap<Tid, u32> = HashMap::new();
    let mut born: HashMap<Tid, u32> = HashMap::from([(first.0, 1)]);
    for step in steps {
        match step {
            Step::Seen(tid) => {
                let count = seen.entry(*tid).or_default();
                lives.push((*tid, *count));
                *count += 1;
            }
            Step::Call(call) => {
                let Some(child) = child_of(call) else { continue };
                let count = born.entry(child).or_default();
                let by = (call.tid, seen.get(&call.tid).map_or(0, |count| count - 1));
                let is_thread = call.arguments.contains("CLONE_THREAD");
                let is_untraced = call.arguments.contains("CLONE_UNTRACED");
                made.insert((child, *count), Made { by, is_thread, is_untraced });
                *count += 1;
            }
            // Whoever made it may have been ended by its exec before the call came back.
            Step::Became { from, to } => {
                let last = |tid| (tid, seen.get(&tid).map_or(0, |count| count - 1));
                if let Entry::Vacant(place) = made.entry(last(*from)) {
                    place.insert(Made { by: last(*to), is_thread: true, is_untraced: false });
                    *born.entry(*from).or_default() += 1;
                }
            }
            Step::Ended(..) => {}
        }
    }
    // Killed before it ever ran.
    let mut unseen: Vec<Life> = made
        .keys()
        .filter(|(tid, count)| seen.get(tid).is_none_or(|seen| seen <= count))
        .copied()
        .collect();
    unseen.sort_unstable();
    lives.extend(unseen);
    (made, lives)
}

/// The number of the thread that a call made.
fn child_of(call: &Call) -> Option<Tid> {
    if !matches!(call.name.as_str(), "clone" | "clone3" | "fork" | "vfork") {
        return None;
    }
    // In a pid namespace, the caller gets another number than strace has.
    let own = call.result.split_once("/* ").and_then(|(_, note)| {
        note.strip_suffix(" in strace's PID NS */").and_then(|number| number.parse().ok())
    });
    own.or_else(|| call.returned().and_then(|number| Tid::try_from(number).ok()))
        .filter(|tid| *tid > 0)
}

struct Reading<'a> {
    family: &'a Family,
    /// How many threads with that number there were.
    seen: HashMap<Tid, u32>,
    folders: HashMap<Who, PathBuf>,
    execs: HashMap<Who, u32>,
    sockets: HashMap<u64, Option<Protocol>>,
    /// Attempts whose outcome is not known yet, by the socket's inode: where their facts are.
    open: HashMap<u64, usize>,
    sent: HashSet<(u64, SocketAddr)>,
    facts: Vec<Fact>,
    unsure: Vec<Exec>,
}

impl<'a> Reading<'a> {
    fn new(family: &'a Family, folder: &Path) -> Reading<'a> {
        Reading {
            family,
            seen: HashMap::new(),
            folders: HashMap::from([(family.first, folder.to_owned())]),
            execs: HashMap::new(),
            sockets: HashMap::new(),
            open: HashMap::new(),
            sent: HashSet::new(),
            facts: Vec::new(),
            unsure: Vec::new(),
        }
    }

    fn seen(&mut self, tid: Tid) {
        let count = self.seen.entry(tid).or_default();
        let life = (tid, *count);
        *count += 1;
        let Some(who) = self.family.process_of(life) else { return };
        let Some(parent) = self.family.parents.get(&who) else { return };
        // A thread of a process that is known already.
        if who.pid != tid || self.folders.contains_key(&who) {
            return;
        }
        if let Some(folder) = self.folders.get(parent).cloned() {
            self.folders.insert(who, folder);
        }
    }

    fn call(&mut self, call: &Call) {
        let count = self.seen.get(&call.tid).copied().unwrap_or(1);
        let Some(who) = self.family.process_of((call.tid, count - 1)) else { return };
        match call.name.as_str() {
            "execve" | "execveat" if call.returned() == Some(0) => {
                let exec = self.exec(who, call);
                self.facts.extend(exec.map(Fact::Exec));
            }
            "execve" | "execveat" if call.result == "?" => {
                let exec = self.exec(who, call);
                self.unsure.extend(exec);
            }
            "chdir" | "fchdir" if call.returned() == Some(0) => self.chdir(who, &call.arguments),
            "socket" => self.socket(call),
            "connect" => self.connect(who, call),
            "sendto" | "sendmsg" | "sendmmsg" => self.send(who, call),
            "getsockopt" => self.asked(call),
            _ => {}
        }
    }

    fn exec(&mut self, who: Who, call: &Call) -> Option<Exec> {
        let number = self.execs.entry(who).or_default();
        *number += 1;
        let number = *number;
        let Executed { filename, path, argv } = executed(call)?;
        let folder = self.folders.get(&who).map_or(Path::new("/"), PathBuf::as_path);
        let file = without_links(&folder.join(&path));
        let found = file.as_ref().and_then(|file| script::of(file, folder, &filename, &argv));
        let (argv, interpreter) = match found {
            Some((argv, interpreter)) => (argv, Some(interpreter)),
            None => (argv, None),
        };
        Some(Exec { who, number, filename, file, argv, interpreter })
    }

    /// A process ends as its first thread does, of which strace is told last.
    fn ended(&mut self, tid: Tid, status: &Status) {
        let Some(count) = self.seen.get(&tid) else { return };
        let Some(who) = self.family.process_of((tid, count - 1)) else { return };
        if who.pid == tid {
            self.facts.push(Fact::End { who, status: status.clone() });
        }
    }

    fn chdir(&mut self, who: Who, arguments: &str) {
        let to = string(arguments).map(|(path, ..)| path);
        let to = to.or_else(|| descriptor(arguments).map(|(_, path, _)| path));
        let Some(to) = to else { return };
        let folder = self.folders.entry(who).or_default();
        *folder = folder.join(OsStr::from_bytes(&to));
    }

    fn socket(&mut self, call: &Call) {
        let Some(inode) = inode_of(&call.result) else { return };
        let mut words = call.arguments.split(", ");
        let (Some("AF_INET" | "AF_INET6"), Some(of), Some(protocol)) =
            (words.next(), words.next(), words.next())
        else {
            return;
        };
        let of = of.split('|').next();
        self.sockets.insert(
            inode,
            match (of, protocol) {
                // Over MPTCP too, TCP is what connects.
                (Some("SOCK_STREAM"), "IPPROTO_IP" | "IPPROTO_TCP" | "IPPROTO_MPTCP") => {
                    Some(Protocol::Tcp)
                }
                (Some("SOCK_DGRAM"), "IPPROTO_IP" | "IPPROTO_UDP") => Some(Protocol::Udp),
                _ => None,
            },
        );
    }

    fn connect(&mut self, who: Who, call: &Call) {
        let Some(inode) = inode_of(&call.arguments) else { return };
        if call.arguments.contains("sa_family=AF_UNSPEC") {
            self.open.remove(&inode);
            return;
        }
        let Some(to) = addresses(&call.arguments).first().copied() else { return };
        // Not made by `socket`: accepted.
        match self.sockets.get(&inode).copied().unwrap_or(Some(Protocol::Tcp)) {
            Some(Protocol::Tcp) => self.attempt(who, call, inode, to),
            Some(Protocol::Udp) => self.datagram(who, inode, to),
            None => {}
        }
    }

    fn attempt(&mut self, who: Who, call: &Call, inode: u64, to: SocketAddr) {
        let before = self.open.get(&inode).copied();
        let outcome = match (call.returned(), call.error()) {
            (Some(0..), _) | (_, Some("EISCONN")) if before.is_some() => Outcome::Established,
            (Some(0..), _) => Outcome::Established,
            (_, Some("EINPROGRESS" | "EALREADY" | "EINTR" | "ERESTARTSYS" | "ERESTARTNOINTR")) => {
                Outcome::Unknown
            }
            (_, Some(error)) => Outcome::Failed(error.into()),
            (_, None) => Outcome::Unknown,
        };
        let is_open = outcome == Outcome::Unknown;
        let place = match before {
            Some(place) => {
                self.set_outcome(place, outcome);
                place
            }
            None => {
                let contact = Contact { who, protocol: Protocol::Tcp, to, outcome };
                self.facts.push(Fact::Contact(contact));
                self.facts.len() - 1
            }
        };
        if is_open {
            self.open.insert(inode, place)
        } else {
            self.open.remove(&inode)
        };
    }

    fn set_outcome(&mut self, place: usize, outcome: Outcome) {
        if let Some(Fact::Contact(contact)) = self.facts.get_mut(place) {
            contact.outcome = outcome;
        }
    }

    /// How a program asks what became of an attempt.
    fn asked(&mut self, call: &Call) {
        let Some((_, said)) = call.arguments.split_once("SO_ERROR, [") else { return };
        let Some(inode) = inode_of(&call.arguments) else { return };
        let Some(place) = self.open.remove(&inode) else { return };
        match said.split([']', ' ']).next() {
            Some("0") => self.set_outcome(place, Outcome::Established),
            Some(error) => self.set_outcome(place, Outcome::Failed(error.into())),
            None => {}
        }
    }

    fn send(&mut self, who: Who, call: &Call) {
        let Some(inode) = inode_of(&call.arguments) else { return };
        let opens = call.arguments.contains("MSG_FASTOPEN");
        match self.sockets.get(&inode).copied().unwrap_or(Some(Protocol::Udp)) {
            Some(Protocol::Udp) => {
                for to in addresses(&call.arguments) {
                    self.datagram(who, inode, to);
                }
            }
            Some(Protocol::Tcp) if opens => {
                if let Some(to) = addresses(&call.arguments).first().copied() {
                    self.attempt(who, call, inode, to);
                }
            }
            Some(Protocol::Tcp) | None => {}
        }
    }

    fn datagram(&mut self, who: Who, inode: u64, to: SocketAddr) {
        if self.sent.insert((inode, to)) {
            let outcome = Outcome::None;
            let contact = Contact { who, protocol: Protocol::Udp, to, outcome };
            self.facts.push(Fact::Contact(contact));
        }
    }
}

struct Executed {
    filename: Vec<u8>,
    path: PathBuf,
    argv: Vec<Vec<u8>>,
}

fn executed(call: &Call) -> Option<Executed> {
    let (filename, path, rest) = if call.name == "execve" {
        let (filename, _, rest) = string(&call.arguments)?;
        let path = PathBuf::from(OsStr::from_bytes(&filename));
        (filename, path, rest)
    } else {
        below_descriptor(&call.arguments)?
    };
    let mut rest = rest.strip_prefix(", ")?;
    let mut argv = Vec::new();
    if let Some(list) = rest.strip_prefix('[') {
        rest = list;
        while let Some((word, _, after)) = string(rest) {
            argv.push(word);
            rest = after.strip_prefix(", ").unwrap_or(after);
        }
    }
    Some(Executed { filename, path, argv })
}

/// Of `execveat`: the name that the kernel makes up, the path, and what follows.
fn below_descriptor(arguments: &str) -> Option<(Vec<u8>, PathBuf, &str)> {
    let (folder, rest) = match arguments.strip_prefix("AT_FDCWD") {
        // With `-y`, its path follows.
        Some(rest) => {
            let rest = rest.strip_prefix('<').and_then(|rest| rest.split_once('>'));
            (None, rest.map_or("", |(_, rest)| rest))
        }
        None => {
            let (number, of, rest) = descriptor(arguments)?;
            (Some((number, of)), rest)
        }
    };
    let rest = if rest.is_empty() { arguments.strip_prefix("AT_FDCWD")? } else { rest };
    let (name, _, rest) = string(rest.strip_prefix(", ")?)?;
    let path = PathBuf::from(OsStr::from_bytes(&name));
    Some(match folder {
        Some((number, of)) if !path.is_absolute() => {
            let folder = PathBuf::from(OsStr::from_bytes(&of));
            let (made_up, path) = if name.is_empty() {
                (format!("/dev/fd/{number}").into_bytes(), folder)
            } else {
                let start = format!("/dev/fd/{number}/");
                ([start.as_bytes(), &name].concat(), folder.join(&path))
            };
            (made_up, path, rest)
        }
        Some(_) | None => (name, path, rest),
    })
}

/// Where links lead; none where it cannot be told any more, or where it depends on who asks.
pub(super) fn without_links(path: &Path) -> Option<PathBuf> {
    let depends = ["/proc", "/dev/fd"].iter().any(|of| path.starts_with(of));
    if depends { None } else { fs::canonicalize(path).ok() }
}

/// The inode number in the first descriptor of a text, if it is a socket.
fn inode_of(text: &str) -> Option<u64> {
    let (_, of, _) = descriptor(text)?;
    let of = String::from_utf8(of).ok()?;
    of.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Internet addresses in the arguments of a call.
fn addresses(arguments: &str) -> BTreeSet<SocketAddr> {
    let mut found = BTreeSet::new();
    for rest in arguments.split("{sa_family=").skip(1) {
        let quoted = |after: &str| {
            let (_, rest) = rest.split_once(after)?;
            let text = String::from_utf8(bytes(rest.split('"').next()?)).ok()?;
            text.parse::<IpAddr>().ok()
        };
        let port = rest.split_once("port=htons(").and_then(|(_, rest)| rest.split(')').next());
        let port = port.and_then(|port| port.parse().ok());
        let address = if rest.starts_with("AF_INET6,") {
            quoted("inet_pton(AF_INET6, \"")
        } else if rest.starts_with("AF_INET,") {
            quoted("inet_addr(\"")
        } else {
            None
        };
        found.extend(address.zip(port).map(|(address, port)| SocketAddr::new(address, port)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Told {
        facts(&strace::parse(text).unwrap(), Path::new("/")).unwrap()
    }

    #[test]
    fn a_thread_whose_exec_ends_the_call_that_made_it() {
        let told = told(
            "\
6 fork() = 7
7 clone3({flags=CLONE_THREAD}, 88 <unfinished ...>
9 execve(\"\\x2f\", [], NULL <pid changed to 7 ...>
7 <... clone3 resumed> <unfinished ...>) = ?
7 +++ superseded by execve in pid 9 +++
7 <... execve resumed>) = 0
7 +++ exited with 3 +++
6 +++ exited with 0 +++
",
        );
        assert_eq!(told.threads, 1);
        let (who, child) = (Who { pid: 6, life: 0 }, Who { pid: 7, life: 0 });
        let end = Fact::End { who: child, status: Status::Code(3) };
        assert_eq!(told.facts.len(), 3, "{:?}", told.facts);
        assert!(told.facts.contains(&Fact::Birth { who, child }) && told.facts.contains(&end));
    }

    #[test]
    fn what_was_asked_for_when_the_process_was_killed() {
        let told = told(
            "\
6 fork() = 7
6 clone(flags=CLONE_UNTRACED|SIGCHLD) = 8
7 execve(\"\\x2f\\x78\", [\"\\x79\"], NULL) = ?
7 +++ killed by SIGKILL +++
",
        );
        let who = Who { pid: 7, life: 0 };
        let [asked] = told.unsure.as_slice() else { panic!("{:?}", told.unsure) };
        assert_eq!((asked.who, asked.number), (who, 1));
        assert_eq!(
            (asked.filename.as_slice(), asked.argv.as_slice()),
            (&b"/x"[..], &[b"y".to_vec()][..])
        );
        let end = Fact::End { who, status: Status::Signal("SIGKILL".into()) };
        assert!(told.facts.contains(&end));
        assert_eq!(told.untraced, HashSet::from([Who { pid: 8, life: 0 }]));
    }
}
