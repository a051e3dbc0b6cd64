//! Whether the numbers come out.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use tracer::record::{Recording, schema::End};

/// What a load makes, by kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Made(pub(super) BTreeMap<&'static str, u64>);

/// Events of each kind that the two canaries make.
const CANARIES: [(&str, u64); 4] = [("fork", 2), ("exec", 2), ("exit", 4), ("connect", 2)];

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
    let untracked = end.faults.get("tree-insert").copied().unwrap_or(0);
    for (kind, canaries) in CANARIES {
        let lines = lines.get(kind).copied().unwrap_or(0);
        let read = lines + end.canary_events.get(kind).copied().unwrap_or(0);
        let (told, lost) = (sum(kind, |row| row.read), sum(kind, |row| row.lost));
        ensure!(told == read, "{kind}: {told} were read, and {read} are there");
        let made = made.0.get(kind).context("a kind without a number")? + canaries;
        let seen = read + lost;
        if untracked == 0 {
            ensure!(
                seen == made,
                "{kind}: {made} were made, {read} are there, {lost} told as lost"
            );
        } else {
            // Whoever was kept out, and whatever comes from it, is not seen.
            ensure!(seen <= made, "{kind}: {made} were made, {seen} seen");
        }
    }
    Ok(end.counters.iter().map(|row| row.lost).sum())
}
