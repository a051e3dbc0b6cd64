//! What happens when something fails that tracer rests on: each fault is really injected, into a run whose
//! events are known in number, and the account must come out exactly.
//!
//! The known numbers are those of the load, so they depend on no counter of tracer's. What must hold of a
//! run with an end: of each kind, as many events were made as the load makes, those that are not in the
//! recording are told as lost, and nothing is proven unless nothing is missing. A run without an end proves
//! nothing. A reason names what was injected. And what is injected must have its effect in some of the runs,
//! or they show nothing.

mod account;
mod fault;
mod trial;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};

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
    /// Runs in which the fault had its effect.
    occurred: u64,
    lost: u64,
    most_lost: u64,
    failures: u64,
}

/// In so many runs each fault is expected to have had its effect: where it has it in one of three runs only,
/// it has it in none of these once in 3,000 campaigns.
const ENOUGH: u64 = 20;

/// What came of all runs.
#[derive(Debug, Default)]
pub struct Campaign {
    rows: BTreeMap<String, Row>,
    /// Of each probe that is silenced, how often it was.
    probes: BTreeMap<&'static str, u64>,
    /// Of each wrong run: which it was, its fault, what was wrong.
    failures: Vec<String>,
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
        let mut campaign = Campaign::default();
        let rows = kinds.iter().flat_map(|kind| kind.rows());
        campaign.rows.extend(rows.map(|row| (row, Row::default())));
        if kinds.contains(&fault::Kind::SilentProbe) {
            campaign.probes = probes_of(tracer)?.into_iter().map(|probe| (probe, 0)).collect();
        }
        let probes: Vec<&'static str> = campaign.probes.keys().copied().collect();
        let (next, campaign) = (AtomicU64::new(0), Mutex::new(campaign));
        let work = || loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= runs {
                break;
            }
            let mut random = Random(seed.wrapping_add(number));
            // Each kind as often as the others.
            let (turn, kind) = (number / kinds.len() as u64, number % kinds.len() as u64);
            let kind = kinds[kind as usize];
            // What is tried one after the other does not begin with the same each time.
            let turn = seed.wrapping_add(turn) as usize;
            let fault = Fault::random(kind, turn, &probes, &mut random);
            let trial = trial::run(tracer, &loads, &fault, &mut random);
            campaign.lock().unwrap_or_else(PoisonError::into_inner).add(number, &fault, trial);
        };
        thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
        Ok(campaign.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&mut self, number: u64, fault: &Fault, trial: Result<trial::Found>) {
        if let Fault::SilentProbe { probe } = fault {
            *self.probes.entry(probe).or_default() += 1;
        }
        let row = self.rows.entry(fault.row()).or_default();
        row.runs += 1;
        match trial {
            Ok(found) => {
                *row.ended.entry(found.ended).or_default() += 1;
                row.occurred += u64::from(found.occurred);
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

    /// What is wrong.
    pub fn failures(&self) -> Vec<String> {
        let never = self.never().filter(|(_, row)| row.runs >= ENOUGH);
        let never = never.map(|(name, row)| format!("never occurred in {} runs: {name}", row.runs));
        self.failures.iter().cloned().chain(never).collect()
    }

    /// What the runs were too few to show.
    pub fn untried(&self) -> Vec<String> {
        let few = self.never().filter(|(_, row)| row.runs < ENOUGH);
        let few = few.map(|(name, row)| {
            format!(
                "not shown, as it did not occur in {} runs, which are too few: {name}",
                row.runs
            )
        });
        let probes = self.probes.iter().filter(|(_, runs)| **runs == 0);
        let probes = probes.map(|(probe, _)| format!("not tried: the probe `{probe}`, silent"));
        few.chain(probes).collect()
    }

    /// Faults that had their effect in no run.
    fn never(&self) -> impl Iterator<Item = (&String, &Row)> {
        self.rows.iter().filter(|(_, row)| row.occurred == 0)
    }

    /// As Markdown.
    pub fn table(&self) -> String {
        let ends = [Ended::Proven, Ended::Inconclusive, Ended::NotStarted, Ended::Cut];
        let heads: Vec<&str> = ends.iter().map(|ended| ended.name()).collect();
        let mut text = format!(
            "| injected | runs | it occurred | {} | events lost, in all | most in one run | wrong |\n\
             |---|---|---|{}---|---|---|\n",
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
                "| {name} | {} | {} | {} | {} | {} | {} |",
                row.runs,
                row.occurred,
                counts.join(" | "),
                row.lost,
                row.most_lost,
                row.failures
            );
        }
        if !self.probes.is_empty() {
            let probes: Vec<String> =
                self.probes.iter().map(|(probe, runs)| format!("`{probe}` {runs}")).collect();
            let _ = writeln!(
                text,
                "\nProbes that were silent, and in how many runs: {}.",
                probes.join(", ")
            );
        }
        text
    }
}

/// The programs of the kernel side that are silenced, of those that this kernel has.
fn probes_of(tracer: &Path) -> Result<Vec<&'static str>> {
    let output = Command::new(tracer).args(["doctor", "--json"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let about: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`tracer doctor --json` did not say what there is: {said}"))?;
    let programs = about["verified_instructions"].as_object().context("no programs")?;
    fault::probes_among(programs.keys().map(String::as_str))
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

    #[test]
    fn a_fault_that_never_occurs_is_a_failure_when_there_are_enough_runs() {
        let mut campaign = Campaign::default();
        let fault = Fault::TinyRings { bytes: 4096 };
        let found = |occurred| trial::Found { ended: Ended::Proven, lost: 0, occurred };
        for number in 1..ENOUGH {
            campaign.add(number, &fault, Ok(found(false)));
        }
        assert_eq!((campaign.failures().len(), campaign.untried().len()), (0, 1));
        campaign.add(ENOUGH, &fault, Ok(found(false)));
        assert_eq!((campaign.failures().len(), campaign.untried().len()), (1, 0));
        campaign.add(ENOUGH + 1, &fault, Ok(found(true)));
        assert_eq!((campaign.failures().len(), campaign.untried().len()), (0, 0));
    }
}
