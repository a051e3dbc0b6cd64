//! Verdicts of stories of which things are forgotten are those of whole stories.

use proptest::prelude::*;

use super::*;
use crate::{
    model::Endpoint,
    policy::{Claim, Policy, Verdict},
    session::Window,
};

const SMALL: Window = Window { records: 7, newest: 2 };
/// An image that the claims know nothing of, and an interpreter's size.
const PYTHON: u64 = 50;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Fork(usize),
    Exec(usize, usize),
    Exit(usize),
    Attempt(usize, bool),
    /// Whose, whom by DNS, what is said, and whether the socket is TCP's.
    Contact(usize, u8, Option<bool>, bool),
    Mapped(usize, u64),
    Opened(usize),
    /// The content of the file of an exec becomes known, or why it does not.
    Content(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..6_usize;
    prop_oneof![
        4 => who.clone().prop_map(Step::Fork),
        4 => (who.clone(), 0..EXECS).prop_map(|(who, what)| Step::Exec(who, what)),
        4 => who.clone().prop_map(Step::Exit),
        1 => (who.clone(), any::<bool>()).prop_map(|(who, aws)| Step::Attempt(who, aws)),
        2 => (who.clone(), 0..4_u8, proptest::option::of(any::<bool>()), any::<bool>())
            .prop_map(|(who, to, said, tcp)| Step::Contact(who, to, said, tcp)),
        1 => (who.clone(), 2..5_u64).prop_map(|(who, inode)| Step::Mapped(who, inode)),
        1 => who.prop_map(Step::Opened),
        3 => (0..EXECS).prop_map(Step::Content),
    ]
}

const EXECS: usize = 9;

fn program(process: ProcessKey, which: usize) -> Exec {
    let record = match which {
        0 => exec(process, "/usr/bin/git", 2, &["git"]),
        1 => exec(process, "/usr/bin/node", 1, &["node", "a.js"]),
        2 => exec(process, "/usr/bin/aws", AWS, &["aws", "s3"]),
        // As large as the program, and as an interpreter.
        3 => exec(process, "/tmp/x", 3, &["x", "/opt/aws"]),
        4 => exec(process, "/usr/bin/python3", PYTHON, &["python3", "-m", "awscli"]),
        5 => exec(process, "/bin/sh", 4, &["sh", "-c", "true"]),
        6 => exec(process, "/lib64/ld-linux-x86-64.so.2", 5, &["ld.so", "/bin/true"]),
        7 => exec(process, "/usr/bin/env", 6, &["env", "x"]),
        _ => exec(process, "/usr/bin/large", 7, &["large"]),
    };
    let Record::Exec(mut exec) = record else { unreachable!() };
    if let (8, Some(file)) = (which, &mut exec.file) {
        file.size_bytes = 9;
    }
    exec.memfd = which == 7;
    *exec
}

/// What the records of such a session are. Whoever a step is about is one of those who live.
#[derive(Debug)]
struct Session {
    records: Vec<Record>,
    living: Vec<ProcessKey>,
    born: u32,
    t_ns: u64,
}

impl Session {
    fn of(steps: &[Step]) -> Session {
        let begin = events(&[]);
        let mut session =
            Session { records: begin[..2].to_vec(), living: vec![ROOT], born: 0, t_ns: 100 };
        for step in steps {
            session.t_ns += 10;
            session.take(*step);
        }
        for process in std::mem::take(&mut session.living).into_iter().rev() {
            session.t_ns += 1;
            session.exit(process);
        }
        count_execs(&mut session.records);
        session
    }

    fn who(&self, who: usize) -> ProcessKey {
        self.living[who % self.living.len()]
    }

    fn exit(&mut self, process: ProcessKey) {
        let Record::Exit(mut ended) = exit(process) else { unreachable!() };
        ended.t_ns = self.t_ns;
        self.records.push(Record::Exit(ended));
    }

    fn take(&mut self, step: Step) {
        let t_ns = self.t_ns;
        match step {
            Step::Fork(who) => {
                self.born += 1;
                let child = ProcessKey { pid: 100 + self.born, start_ns: t_ns };
                self.records.push(fork(t_ns, self.who(who), child));
                self.living.push(child);
            }
            Step::Exec(who, which) => {
                let exec = Exec { t_ns, ..program(self.who(who), which) };
                self.records.push(Record::Exec(Box::new(exec)));
            }
            Step::Exit(who) if self.living.len() > 1 => {
                let at = 1 + who % (self.living.len() - 1);
                let process = self.living.remove(at);
                self.exit(process);
            }
            Step::Exit(_) => {}
            Step::Attempt(who, aws) => self.records.push(Record::Attempt(Attempt {
                t_ns,
                last_t_ns: t_ns,
                process: self.who(who),
                thread: 1,
                filenames: vec![if aws { "/usr/local/bin/aws" } else { "/bin/none" }.into()],
                filename_cut: false,
                argv: Vec::new(),
                argv_complete: true,
                tries: 1,
                errno: 2,
                error: "ENOENT".into(),
                unread: Vec::new(),
            })),
            Step::Contact(who, to, said, tcp) => self.contact(self.who(who), to, said, tcp),
            Step::Mapped(who, inode) => self.records.push(Record::Mapped(Mapped {
                t_ns,
                process: self.who(who),
                files: vec![mapped(inode)],
            })),
            Step::Opened(who) => self.records.push(Record::Opened(Opened {
                t_ns,
                after_ns: t_ns,
                process: Some(self.who(who)),
                pid: self.who(who).pid,
                what: OpenedWhat::Copy,
                programs: vec!["aws".into()],
                to_execute: false,
                inherited: false,
                file: Some(file(AWS)),
                path: "/usr/bin/aws".into(),
            })),
            Step::Content(which) => {
                let Some(file) = program(ROOT, which).file else { return };
                let sha256 = if which == 3 { AWS.to_string() } else { which.to_string() };
                self.records.push(content(file.version(), Ok(&sha256)));
            }
        }
    }

    fn contact(&mut self, process: ProcessKey, to: u8, said: Option<bool>, tcp: bool) {
        let t_ns = self.t_ns;
        let name = |aws| if aws { "sts.us-east-1.amazonaws.com" } else { "example.org" };
        let address = [10, 0, 0, to].into();
        let destination = Some(Endpoint { address, port: 443 });
        if to < 2 {
            let (id, of, name) = (1, "A".to_owned(), name(to == 0).to_owned());
            let records = vec![DnsRecord {
                name: name.clone(),
                of: of.clone(),
                ttl_s: 1,
                data: address.to_string(),
            }];
            for message in [
                DnsMessage::Question { id, name: name.clone(), of: of.clone() },
                DnsMessage::Answer {
                    id,
                    name,
                    of,
                    code: "NOERROR".into(),
                    records,
                    truncated: false,
                },
            ] {
                let (cookie, server) = (t_ns + 1, None);
                let t_ns = t_ns - 1;
                self.records.push(Record::Dns(Dns {
                    t_ns,
                    process,
                    cookie,
                    server,
                    tcp: false,
                    message,
                }));
            }
        }
        self.records.push(if tcp {
            Record::Connect(Connect {
                t_ns,
                process,
                thread: process.pid,
                connection: t_ns,
                cookie: Some(t_ns),
                destination,
                net_ns_inum: 1,
                unread: Vec::new(),
            })
        } else {
            Record::Datagram(Datagram {
                t_ns,
                process,
                thread: process.pid,
                cookie: t_ns,
                protocol: 17,
                destination,
                net_ns_inum: 1,
                via: DatagramVia::Send,
                unspecified: false,
                unread: Vec::new(),
            })
        });
        let tls = |sni| FirstBytes::Tls {
            sni,
            alpn: Vec::new(),
            encrypted_hello: false,
            client_random: String::new(),
            quic: !tcp,
        };
        // Who says nothing hides it, or has no TLS.
        let what = match said {
            Some(aws) => tls(Some(name(aws).to_owned())),
            None if to == 3 => tls(None),
            None => return,
        };
        self.records.push(Record::Opening(Opening {
            t_ns: t_ns + 1,
            process,
            cookie: t_ns,
            connection: tcp.then_some(t_ns),
            destination,
            what,
        }));
    }
}

fn mapped(inode: u64) -> MappedFile {
    MappedFile {
        id: file(inode),
        size_bytes: Some(1),
        ctime_ns: Some(0),
        path: "/lib/x.so".into(),
        upper: None,
        unread: None,
    }
}

fn judged(
    policy: &Policy,
    records: &[Record],
    window: Window,
    spoil: impl FnOnce(&mut Start, &mut End),
) -> (Verdict, Story) {
    let (mut start, mut end) = (start(policy), good_end(records));
    start.files = Some(FileWatch::default());
    end.files = Some(FileEvents::default());
    end.maps = Some(MapsWatched::Lost(0));
    start.interpreters = vec![KnownInterpreter {
        name: "python3".into(),
        path: "/usr/bin/python3".into(),
        file: file(PYTHON),
        size_bytes: 1,
    }];
    spoil(&mut start, &mut end);
    let mut story = Story::for_verdict_in(start, window);
    for record in records.iter().cloned().chain([Record::End(Box::new(end))]) {
        story.add(record);
    }
    (judge(&story, std::slice::from_ref(policy)).unwrap(), story)
}

fn reasons(verdict: &Verdict) -> Vec<&String> {
    let mut reasons: Vec<_> = verdict.claims.iter().flat_map(|claim| &claim.reasons).collect();
    reasons.sort();
    reasons
}

fn policies() -> impl Strategy<Value = Policy> {
    let policy = load("no-aws-cli").unwrap();
    let changed = move |change: fn(&mut Claim)| {
        let mut policy = policy.clone();
        policy.claims.iter_mut().for_each(change);
        Just(policy)
    };
    prop_oneof![
        changed(|_| ()),
        changed(|claim| claim.attempts = false),
        changed(|claim| claim.sdk_users = Some(vec!["@any".into()])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_forgotten_changes_no_verdict(
        steps in proptest::collection::vec(step(), 1..120),
        policy in policies(),
        aws_is_read_first in any::<bool>(),
        size in proptest::option::of(1..3_u64),
    ) {
        let mut records = Session::of(&steps).records;
        let aws = content(AWS_VERSION, Ok(&AWS.to_string()));
        let at = if aws_is_read_first { 0 } else { records.len() };
        records.insert(at, aws);
        records.insert(at, content(python(), Ok("python")));
        let sized = |start: &mut Start, _: &mut End| {
            start.known_programs.values_mut().flatten().for_each(|copy| copy.size_bytes = size);
        };
        let (whole, all) = judged(&policy, &records, Window::ENDLESS, sized);
        let (verdict, _) = judged(&policy, &records, SMALL, sized);
        prop_assert!(!all.forgotten.is_any());
        // A file of another size than the program had at the start, whose content that had later.
        let later = reasons(&verdict).iter().any(|reason| reason.contains("was given later"));
        if later {
            let ruling = if verdict.claims[0].violations.is_empty() {
                Ruling::Inconclusive
            } else {
                Ruling::Violated
            };
            prop_assert_eq!((verdict.overall, whole.overall), (ruling, Ruling::Violated));
        } else {
            prop_assert!(verdict.says_the_same_as(&whole), "{:#?}\n{:#?}", verdict.claims, whole.claims);
            prop_assert_eq!(reasons(&verdict), reasons(&whole));
        }
    }
}

/// Children that run something and call somebody, one after the other.
fn long(children: usize) -> Vec<Record> {
    let steps = |_| {
        [
            Step::Fork(0),
            Step::Exec(1, 0),
            Step::Content(0),
            Step::Contact(1, 1, Some(false), true),
            Step::Contact(1, 1, None, false),
            Step::Attempt(1, false),
            Step::Exit(0),
        ]
    };
    let steps: Vec<Step> = (0..children).flat_map(steps).collect();
    let mut records = Session::of(&steps).records;
    let node = records.remove(1);
    records.insert(1, content(python(), Ok("python")));
    let Record::Exec(exec) = &node else { unreachable!() };
    records.insert(1, content(exec.file.as_ref().unwrap().version(), Ok("node")));
    records.insert(1, node);
    records
}

fn python() -> FileVersion {
    FileVersion { id: file(PYTHON), size_bytes: 1, ctime_ns: 0 }
}

#[test]
fn what_is_kept_does_not_grow() {
    let policy = load("no-aws-cli").unwrap();
    let kept = |children, window| {
        let (verdict, story) = judged(&policy, &long(children), window, |start, _| {
            start.known_programs.values_mut().flatten().for_each(|copy| copy.size_bytes = Some(5));
        });
        let contacts = story.connections.len() + story.datagrams.len();
        let names = story.dns.len() + story.openings.len();
        let kept = [story.processes.len(), contacts, names, story.attempts.len()];
        let left = &story.forgotten;
        let summary = left.files.len() + left.destinations.len() + left.contacts.len();
        (verdict, kept, summary)
    };
    let window = Window { records: 50, newest: 10 };
    let (first, few, summary) = kept(100, window);
    let (second, many, later) = kept(10_000, window);
    assert!(few.iter().zip(many).all(|(few, many)| many <= few + 100), "{few:?}, {many:?}");
    assert_eq!((summary, first.overall), (later, Ruling::Proven), "{first:#?}");
    assert_eq!(second.overall, Ruling::Proven, "{:#?}", second.claims);
    let (whole, all, none) = kept(1_000, Window::ENDLESS);
    assert_eq!((whole.overall, all[0], none), (Ruling::Proven, 1_001, 0));
}

#[test]
fn a_name_in_the_file_of_hosts_counts_for_what_is_forgotten() {
    let policy = load("no-aws-cli").unwrap();
    let window = Window { records: 50, newest: 10 };
    let ruling = |window, name: &str| {
        let hosts =
            vec![HostsEntry { address: [10, 0, 0, 1].into(), names: vec![name.to_owned()] }];
        let (verdict, _) = judged(&policy, &long(100), window, |start, end| {
            start.known_programs.values_mut().flatten().for_each(|copy| copy.size_bytes = Some(5));
            end.hosts = hosts;
        });
        verdict.overall
    };
    for window in [window, Window::ENDLESS] {
        assert_eq!(ruling(window, "sts.us-east-1.amazonaws.com"), Ruling::Inconclusive);
        assert_eq!(ruling(window, "example.org"), Ruling::Proven);
    }
}
