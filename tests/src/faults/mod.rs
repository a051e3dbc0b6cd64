//! What happens when something fails that tracer rests on: each fault is really injected, into a run whose
//! events are known in number, and the account must come out exactly.
//!
//! The known numbers are those of the load, so they depend on no counter of tracer's. What must hold of a
//! run with an end: of each kind, as many events were made as the load makes, those that are not in the
//! recording are told as lost, and nothing is proven unless nothing is missing. A run without an end proves
//! nothing. A reason names what was injected.

mod account;
mod fault;
mod trial;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::Result;

pub use self::{fault::Fault, trial::Ended};
use crate::{bench::load::Loads, scratch::Scratch};

/// Random numbers that are the same for the same seed: SplitMix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From the first to the last, both included.
    fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.next() % (last - first + 1)
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[(self.next() % of.len() as u64) as usize]
    }
}

/// What came of the runs with one kind of fault.
#[derive(Debug, Default)]
struct Row {
    runs: u64,
    ended: BTreeMap<Ended, u64>,
    lost: u64,
    most_lost: u64,
    failures: u64,
}

/// What came of all runs.
#[derive(Debug, Default)]
pub struct Campaign {
    rows: BTreeMap<&'static str, Row>,
    /// Of the first wrong ones: the run, its fault, what was wrong.
    pub failures: Vec<String>,
}

impl Campaign {
    /// So many runs, each with another fault, load and moment, all of which follow from the seed, and
    /// so many at a time.
    pub fn run(tracer: &Path, seed: u64, runs: u64, jobs: usize, filter: &str) -> Result<Campaign> {
        let scratch = Scratch::new()?;
        let loads = Loads::compile(&scratch)?;
        let kinds: Vec<fault::Kind> =
            fault::Kind::ALL.into_iter().filter(|kind| kind.name().contains(filter)).collect();
        anyhow::ensure!(!kinds.is_empty(), "no fault is called `{filter}`");
        let (next, campaign) = (AtomicU64::new(0), Mutex::new(Campaign::default()));
        let work = || loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= runs {
                break;
            }
            let mut random = Random(seed.wrapping_add(number));
            // Each kind as often as the others.
            let kind = kinds[(number % kinds.len() as u64) as usize];
            let fault = Fault::random(kind, &mut random);
            let trial = trial::run(tracer, &loads, &fault, &mut random);
            campaign.lock().unwrap_or_else(PoisonError::into_inner).add(number, &fault, trial);
        };
        thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
        Ok(campaign.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&mut self, number: u64, fault: &Fault, trial: Result<trial::Found>) {
        let row = self.rows.entry(fault.kind().name()).or_default();
        row.runs += 1;
        match trial {
            Ok(found) => {
                *row.ended.entry(found.ended).or_default() += 1;
                row.lost += found.lost;
                row.most_lost = row.most_lost.max(found.lost);
            }
            Err(error) => {
                row.failures += 1;
                let failure = format!("run {number}, {fault:?}: {error:#}");
                eprintln!("{failure}");
                self.failures.push(failure);
            }
        }
    }

    /// As Markdown.
    pub fn table(&self) -> String {
        let ends = [Ended::Proven, Ended::Inconclusive, Ended::NotStarted, Ended::Cut];
        let heads: Vec<&str> = ends.iter().map(|ended| ended.name()).collect();
        let mut text = format!(
            "| injected | runs | {} | events lost, in all | most in one run | wrong |\n|---|---|{}---|---|---|\n",
            heads.join(" | "),
            "---|".repeat(ends.len())
        );
        for (name, row) in &self.rows {
            let counts: Vec<String> = ends
                .iter()
                .map(|ended| row.ended.get(ended).copied().unwrap_or(0).to_string())
                .collect();
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} |",
                row.runs,
                counts.join(" | "),
                row.lost,
                row.most_lost,
                row.failures
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_follow_from_the_seed() {
        let (mut one, mut same, mut other) = (Random(7), Random(7), Random(8));
        let first: Vec<u64> = (0..50).map(|_| one.between(3, 9)).collect();
        assert_eq!(first, (0..50).map(|_| same.between(3, 9)).collect::<Vec<_>>());
        assert_ne!(first, (0..50).map(|_| other.between(3, 9)).collect::<Vec<_>>());
        assert!((3..=9).all(|number| first.contains(&number)) && first.iter().all(|n| *n <= 9));
    }
}
