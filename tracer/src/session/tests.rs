//! Event in, record out, with a machine that does nothing.

use tracer_ebpf::abi::{ExecFile, FileKey, exec_flag, header_flag, unread};

use super::{Fold, Machine, Numbers, Story};
use crate::{
    model::*,
    record::schema::{Outcome, Record},
};

const PARENT: ProcessKey = ProcessKey { pid: 10, start_ns: 1 };
const CHILD: ProcessKey = ProcessKey { pid: 11, start_ns: 2 };

struct NoMachine;

impl Machine for NoMachine {
    fn executed(&mut self, _: &ExecEvent, _: Option<Numbers>) {}
}

fn header(process: ProcessKey, time_ns: u64) -> EventHeader {
    EventHeader { time_ns, process, tid: process.pid, cpu: 0, flags: 0, unread: 0 }
}

fn fork() -> Event {
    Event::Fork(ForkEvent {
        header: header(PARENT, 2),
        child: CHILD,
        child_ns_pid: 11,
        child_parent_pid: 10,
        untracked: false,
    })
}

fn exec(argv: &[u8]) -> ExecEvent {
    ExecEvent {
        header: header(CHILD, 3),
        file: ExecFile::default(),
        flags: 0,
        old_tid: CHILD.pid,
        ns_pid: 11,
        pid_ns_inum: 1,
        uid: 0,
        euid: 0,
        gid: 0,
        egid: 0,
        cgroup_id: 1,
        argc: 1,
        argv_inline: argv.to_vec(),
        argv_len: argv.len() as u64,
        argv_chunks: 0,
        filename: "/s".into(),
        interpreter: Bytes::default(),
        path: "/bin/sh".into(),
        cwd: "/".into(),
        script: ExecFile::default(),
        script_path: Bytes::default(),
        environment: 0,
        stdio: [tracer_ebpf::abi::Stdio::default(); 2],
    }
}

fn piece(offset_bytes: u64, bytes: &[u8]) -> Event {
    Event::ArgvPiece(ArgvPiece { header: header(CHILD, 3), offset_bytes, bytes: bytes.to_vec() })
}

/// The argv that comes out, and whether it is complete.
fn argv(pieces: Vec<Event>, exec: ExecEvent) -> (Vec<String>, bool) {
    let mut fold = Fold::default();
    for piece in pieces {
        assert_eq!(fold.apply(piece, &mut NoMachine), None, "a piece waits for its exec");
    }
    let Some(Record::Exec(exec)) = fold.apply(Event::Exec(Box::new(exec)), &mut NoMachine) else {
        panic!("an exec gives a record");
    };
    assert_eq!(fold.unclaimed_argv(), 0);
    let args = exec.argv.args.iter().map(|arg| arg.lossy().into_owned()).collect();
    (args, exec.argv.complete)
}

#[test]
fn argv_is_complete_only_with_every_byte() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(argv(vec![], exec(b"a\0\0b\0")), (words(&["a", "", "b"]), true));
    assert_eq!(argv(vec![], exec(b"")), (words(&[]), true));

    let long = || ExecEvent { argv_len: 6, ..exec(b"a\0") };
    assert_eq!(
        argv(vec![piece(4, b"c\0"), piece(2, b"b\0")], long()),
        (words(&["a", "b", "c"]), true)
    );
    assert_eq!(argv(vec![piece(4, b"c\0")], long()), (words(&["a"]), false), "the middle is lost");
    assert_eq!(argv(vec![], long()), (words(&["a"]), false));

    let mut unread = exec(b"a\0");
    unread.header.unread = unread::ARGV;
    assert_eq!(argv(vec![], unread), (words(&["a"]), false));
}

#[test]
fn a_script_gets_its_own_file() {
    let mut fold = Fold::default();
    let script =
        ExecFile { key: FileKey { inode: 5, ..FileKey::default() }, ..ExecFile::default() };
    let event = ExecEvent {
        flags: exec_flag::SCRIPT,
        interpreter: "/bin/sh".into(),
        script,
        script_path: "/real/s".into(),
        ..exec(b"sh\0/s\0")
    };
    let mut found =
        |event: ExecEvent| match fold.apply(Event::Exec(Box::new(event)), &mut NoMachine) {
            Some(Record::Exec(exec)) => exec.script.unwrap().file,
            other => panic!("{other:?}"),
        };
    let file = found(event.clone()).unwrap();
    assert_eq!((file.id.inode, file.path), (5, "/real/s".into()));
    let mut unread = event;
    unread.header.unread = unread::SCRIPT;
    assert_eq!(found(unread), None);
}

#[test]
fn canaries_are_counted_and_not_recorded() {
    let mut fold = Fold::default();
    let mut event = exec(b"a\0");
    event.header.flags = header_flag::CANARY;
    assert_eq!(fold.apply(Event::Exec(Box::new(event)), &mut NoMachine), None);
    assert_eq!(fold.canary_events.get("exec"), Some(&1));
}

#[test]
fn an_address_in_place_of_a_name_stays_one() {
    let mut fold = Fold::default();
    fold.apply(fork(), &mut NoMachine);
    let mut name = |asked: &str| {
        let event = ResolveEvent {
            header: header(CHILD, 5),
            name: asked.into(),
            name_cut: false,
            error: 0,
            addresses: Vec::new(),
            more: false,
        };
        match fold.apply(Event::Resolve(event), &mut NoMachine) {
            Some(Record::Resolved(resolved)) => resolved.name,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(name("2001:db8::1"), "2001:db8::1");
    assert_eq!(name("fe80::1%eth0"), "fe80::1");
    assert_eq!(name("a.example"), "a.example");
    assert_eq!(name("a b"), "a\\032b");
}

fn connect(time_ns: u64, id: u64) -> Event {
    Event::Connect(ConnectEvent {
        header: header(CHILD, time_ns),
        id,
        cookie: 0,
        destination: None,
        net_ns_inum: 1,
    })
}

fn result(time_ns: u64, id: u64, established: bool, errno: u32) -> ConnectResultEvent {
    ConnectResultEvent {
        header: header(CHILD, time_ns),
        id,
        source: None,
        local: None,
        established,
        errno,
        unsent: false,
    }
}

#[test]
fn connections_wait_for_their_process() {
    let mut fold = Fold::default();
    assert_eq!(fold.apply(connect(5, 1), &mut NoMachine), None);
    assert!(fold.take_early(false).is_empty(), "its process has not come");
    assert!(fold.apply(fork(), &mut NoMachine).is_some());
    assert_eq!(fold.take_early(false).len(), 1);
    assert!(fold.take_early(true).is_empty(), "each is taken once");
}

#[test]
fn outcomes_and_times_are_joined() {
    let mut fold = Fold::default();
    fold.apply(fork(), &mut NoMachine);
    let mut outcome = |event| {
        fold.apply(connect(5, 1), &mut NoMachine);
        match fold.apply(Event::ConnectResult(event), &mut NoMachine) {
            Some(Record::ConnectResult(result)) => (result.outcome, result.connect_ns),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(outcome(result(7, 1, true, 0)), (Outcome::Established, Some(2)));
    let refused = Outcome::Failed { errno: 111, name: "ECONNREFUSED".into() };
    assert_eq!(outcome(result(7, 1, false, 111)), (refused, Some(2)));
    assert_eq!(outcome(result(7, 1, false, 0)), (Outcome::Abandoned, Some(2)));
    let unsent = ConnectResultEvent { unsent: true, ..result(7, 1, false, 0) };
    assert_eq!(outcome(unsent), (Outcome::Unsent, Some(2)));
}

#[test]
fn an_event_of_an_unknown_process_is_an_orphan() {
    let policy = crate::policy::load("no-aws-cli").unwrap();
    let mut story = Story::new(crate::policy::test_start(&policy));
    let mut fold = Fold::default();
    let Some(record) = fold.apply(Event::Exec(Box::new(exec(b"a\0"))), &mut NoMachine) else {
        panic!("an exec gives a record");
    };
    story.add(record);
    assert_eq!((story.orphans, story.execs), (1, 1));
}
