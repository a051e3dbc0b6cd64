//! What is kept in mind, and for how long.

use super::{EARLY_NS, ENDED_KEPT, Fold, Machine, Numbers};
use crate::{
    model::{
        CloseEvent, ConnectEvent, ConnectResultEvent, Event, EventHeader, ExecEvent, ExitEvent,
        ForkEvent, ProcessKey,
    },
    record::Record,
};

struct NoMachine;

impl Machine for NoMachine {
    fn executed(&mut self, _: &ExecEvent, _: Option<Numbers>) {}
}

fn header(process: ProcessKey, time_ns: u64) -> EventHeader {
    EventHeader { time_ns, process, tid: process.pid, cpu: 0, flags: 0, unread: 0 }
}

fn process(number: u64) -> ProcessKey {
    ProcessKey { pid: 10, start_ns: number }
}

/// A day of a busy machine.
const MANY: u64 = 4 * ENDED_KEPT as u64;

fn born_and_ended(fold: &mut Fold, number: u64) {
    let header = header(process(0), number);
    let fork = ForkEvent {
        header,
        child: process(number),
        child_ns_pid: 1,
        child_parent_pid: 10,
        untracked: false,
    };
    fold.apply(Event::Fork(fork), &mut NoMachine);
    let exit = ExitEvent {
        header: EventHeader { process: process(number), ..header },
        wait_status: 0,
        execs: 0,
    };
    fold.apply(Event::Exit(exit), &mut NoMachine);
}

fn connect(process: ProcessKey, time_ns: u64) -> Event {
    Event::Connect(ConnectEvent {
        header: header(process, time_ns),
        id: 7,
        cookie: 0,
        destination: None,
        net_ns_inum: 1,
    })
}

#[test]
fn what_has_ended_is_not_kept_for_ever() {
    let mut fold = Fold::default();
    (1..=MANY).for_each(|number| born_and_ended(&mut fold, number));
    assert!(fold.met.len() <= ENDED_KEPT && fold.ended.len() <= ENDED_KEPT);
}

#[test]
fn a_connection_outlives_its_process() {
    let mut fold = Fold::default();
    born_and_ended(&mut fold, 1);
    assert!(fold.apply(connect(process(1), 1), &mut NoMachine).is_some());
    (2..=MANY).for_each(|number| born_and_ended(&mut fold, number));
    let result = ConnectResultEvent {
        header: header(process(1), MANY),
        id: 7,
        established: true,
        errno: 0,
        unsent: false,
        source: None,
        local: None,
    };
    assert!(fold.apply(Event::ConnectResult(result), &mut NoMachine).is_some());
    let close =
        CloseEvent { header: header(process(1), MANY), id: 7, sent_bytes: 1, received_bytes: 1 };
    let closed = fold.apply(Event::Close(close), &mut NoMachine);
    assert!(matches!(closed, Some(Record::Close(_))), "{closed:?}");
    assert!(fold.early.is_empty());
}

#[test]
fn nothing_waits_for_ever_for_its_process() {
    let mut fold = Fold::default();
    assert!(fold.apply(connect(process(1), 1), &mut NoMachine).is_none());
    born_and_ended(&mut fold, 2);
    assert!(fold.take_early(false).is_empty(), "its process may come still");
    born_and_ended(&mut fold, 2 + EARLY_NS);
    assert_eq!(fold.take_early(false).len(), 1);
}
