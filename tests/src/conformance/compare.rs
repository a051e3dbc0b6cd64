//! What both say, what a rule explains, and the rest.

use std::collections::BTreeMap;

use super::{
    facts::Fact,
    rules::{Fits, Known, RULES, Rule},
};

/// Differences that one rule explains.
#[derive(Clone, Debug)]
pub struct Explained {
    pub rule: &'static Rule,
    pub count: u64,
    /// The first of them.
    pub example: String,
    /// Both have it, each in its own words; else only one does.
    pub in_both: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Facts that both say in the same words.
    pub same: u64,
    pub explained: Vec<Explained>,
    /// Facts that only strace has, and no rule explains.
    pub missed: Vec<Fact>,
    /// Facts that only tracer has, and no rule explains.
    pub invented: Vec<Fact>,
}

impl Comparison {
    pub fn of(strace: &[Fact], tracer: &[Fact], known: &Known) -> Comparison {
        let mut comparison = Comparison::default();
        let (mut missed, mut invented) = (left_over(strace, tracer), left_over(tracer, strace));
        comparison.same = (strace.len() - missed.len()) as u64;
        for rule in RULES {
            let found = match rule.fits {
                Fits::Both(fits) => pairs(&mut missed, &mut invented, |a, b| fits(a, b, known)),
                Fits::StraceAlone(fits) => taken(&mut missed, |fact| fits(fact, known)),
                Fits::TracerAlone(fits) => taken(&mut invented, |fact| fits(fact, known)),
            };
            if let Some(example) = found.first() {
                let (count, example) = (found.len() as u64, example.clone());
                let in_both = matches!(rule.fits, Fits::Both(_));
                comparison.explained.push(Explained { rule, count, example, in_both });
            }
        }
        Comparison { missed, invented, ..comparison }
    }

    /// Facts that both have, in whatever words.
    fn in_both(&self) -> u64 {
        let explained = self.explained.iter().filter(|explained| explained.in_both);
        self.same + explained.map(|explained| explained.count).sum::<u64>()
    }

    /// Of the facts that strace has and that could be recorded, the share that is.
    pub fn recall(&self) -> f64 {
        share(self.in_both(), self.missed.len())
    }

    /// Of the recorded facts that strace could see, the share that it did.
    pub fn precision(&self) -> f64 {
        share(self.in_both(), self.invented.len())
    }
}

fn share(of: u64, others: usize) -> f64 {
    let all = of + others as u64;
    if all == 0 { 1.0 } else { of as f64 / all as f64 }
}

/// The facts of one that the other does not have, each as often as it is missing.
fn left_over(of: &[Fact], other: &[Fact]) -> Vec<Fact> {
    let mut counts: BTreeMap<&Fact, usize> = BTreeMap::new();
    for fact in other {
        *counts.entry(fact).or_default() += 1;
    }
    let mut left = Vec::new();
    for fact in of {
        match counts.get_mut(fact) {
            Some(count) if *count > 0 => *count -= 1,
            Some(_) | None => left.push(fact.clone()),
        }
    }
    left
}

fn taken(from: &mut Vec<Fact>, fits: impl Fn(&Fact) -> bool) -> Vec<String> {
    let taken = from.extract_if(.., |fact| fits(fact));
    taken.map(|fact| fact.to_string()).collect()
}

fn pairs(
    strace: &mut Vec<Fact>,
    tracer: &mut Vec<Fact>,
    fit: impl Fn(&Fact, &Fact) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    strace.retain(|fact| {
        let other = tracer.iter().position(|other| other.who() == fact.who() && fit(fact, other));
        let Some(other) = other else { return true };
        let other = tracer.swap_remove(other);
        found.push(format!("strace: {fact}; tracer: {other}"));
        false
    });
    found
}
