//! Whether the numbers come out.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use tracer::record::{Recording, schema::End};

/// What a load makes, by kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Made(pub(super) BTreeMap<&'static str, u64>);

/// A kind of events that is compared with what was made.
struct Compared {
    kind: &'static str,
    /// Events of it that the two canaries make.
    canaries: u64,
    /// Whether each event is a line. Of others, tracer's count of those it read is taken.
    in_lines: bool,
    /// What is counted instead of an event, where a map is full.
    instead: Option<&'static str>,
    /// Whether there is one for each time that is counted.
    is_exact: bool,
}

/// Every kind that the load makes in numbers.
fn compared() -> Vec<Compared> {
    let kind = |kind, canaries, in_lines| Compared {
        kind,
        canaries,
        in_lines,
        instead: None,
        is_exact: true,
    };
    let instead = Some("socket-insert");
    // To each address it sends a datagram and connects.
    let ways = if UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() { 4 } else { 2 };
    vec![
        kind("fork", 2, true),
        kind("exec", 2, true),
        kind("exit", 4, true),
        kind("connect", 2, true),
        Compared { instead, ..kind("connect-result", 2, true) },
        Compared { instead, ..kind("close", 2, true) },
        Compared { instead: Some("flow-insert"), ..kind("datagram", 2 * ways, true) },
        kind("attempt", 4, false),
        // Not every connection has one.
        Compared { instead, is_exact: false, ..kind("payload", 2, false) },
    ]
}

/// How many events were lost, in all. Fails unless each one that was made is in the recording or told as
/// lost, or is of a process or connection that a full map kept out, which is counted as a fault.
pub(super) fn check(recording: &Recording, end: &End, made: &Made) -> Result<u64> {
    for row in &end.counters {
        ensure!(row.produced == row.read + row.lost, "unaccounted for: {row:?}");
    }
    let mut lines: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &recording.events {
        *lines.entry(event.name()).or_default() += 1;
    }
    let sum = |kind: &str, of: fn(&tracer::record::schema::CounterRow) -> u64| -> u64 {
        end.counters.iter().filter(|row| row.kind == kind).map(of).sum()
    };
    let fault = |name: &str| end.faults.get(name).copied().unwrap_or(0);
    for Compared { kind, canaries, in_lines, instead, is_exact } in compared() {
        let (told, lost) = (sum(kind, |row| row.read), sum(kind, |row| row.lost));
        if in_lines {
            let lines = lines.get(kind).copied().unwrap_or(0);
            let read = lines + end.canary_events.get(kind).copied().unwrap_or(0);
            ensure!(told == read, "{kind}: {told} were read, and {read} are there");
        }
        let made = made.0.get(kind).context("a kind without a number")? + canaries;
        let uncounted = instead.map_or(0, fault);
        let seen = told + lost;
        // Whoever was kept out of the tree, and whatever comes from it, is not seen.
        if fault("tree-insert") > 0 || uncounted > 0 && !is_exact {
            ensure!(seen <= made, "{kind}: {made} were made, {seen} seen");
        } else {
            ensure!(
                seen + uncounted == made,
                "{kind}: {made} were made, {told} are there, {lost} told as lost, and {uncounted} as \
                 without room in a map"
            );
        }
    }
    Ok(end.counters.iter().map(|row| row.lost).sum())
}
