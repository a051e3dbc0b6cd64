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
    /// What both say of each of them.
    pub facts: Vec<String>,
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
            if !found.is_empty() {
                let in_both = matches!(rule.fits, Fits::Both(_));
                comparison.explained.push(Explained { rule, facts: found, in_both });
            }
        }
        Comparison { missed, invented, ..comparison }
    }

    /// Facts that both have, in whatever words.
    fn in_both(&self) -> u64 {
        let explained = self.explained.iter().filter(|explained| explained.in_both);
        self.same + explained.map(|explained| explained.facts.len() as u64).sum::<u64>()
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::conformance::facts::{Exec, Interpreter, Status, Who};

    const WHO: Who = Who { pid: 7, life: 0 };

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    fn program() -> Exec {
        Exec {
            who: WHO,
            number: 1,
            filename: b"./conftest".to_vec(),
            file: Some(PathBuf::from("/work/conftest")),
            argv: words("./conftest one"),
            interpreter: None,
        }
    }

    fn script() -> Exec {
        let (name, file) = (b"/bin/sh".to_vec(), Some(PathBuf::from("/usr/bin/dash")));
        Exec {
            argv: words("/bin/sh -e ./conftest one"),
            interpreter: Some(Interpreter { name, file }),
            ..program()
        }
    }

    /// strace's, when the file is gone: what the call says.
    fn gone() -> Exec {
        Exec { file: None, interpreter: None, ..program() }
    }

    /// Facts that no rule explains.
    fn wrong(strace: Exec, tracer: Exec) -> usize {
        let known = Known::default();
        let compared = Comparison::of(&[Fact::Exec(strace)], &[Fact::Exec(tracer)], &known);
        compared.missed.len() + compared.invented.len()
    }

    #[test]
    fn a_script_is_recorded_as_the_kernel_starts_it() {
        assert_eq!(wrong(script(), script()), 0);
        let argv = words("/usr/bin/aws s3 ls /bin/sh -e ./conftest one");
        assert_eq!(wrong(script(), Exec { argv, ..script() }), 2);
        let file = Some(PathBuf::from("/usr/bin/aws"));
        for interpreter in [
            Interpreter { name: b"/bin/sh".to_vec(), file },
            Interpreter { name: b"/bin/bash".to_vec(), file: Some("/usr/bin/dash".into()) },
        ] {
            assert_eq!(wrong(script(), Exec { interpreter: Some(interpreter), ..script() }), 2);
        }
        assert_eq!(wrong(script(), Exec { interpreter: None, ..script() }), 2);
    }

    #[test]
    fn of_a_file_that_is_gone_the_words_are_compared() {
        assert_eq!(wrong(gone(), program()), 0);
        for argv in ["/bin/sh -e ./conftest one", "/bin/sh ./conftest one"] {
            assert_eq!(wrong(gone(), Exec { argv: words(argv), ..script() }), 0);
        }
        for argv in [
            "/bin/sh -e -u ./conftest one",
            "/bin/bash -e ./conftest one",
            "/bin/sh -e ./other one",
            "./conftest one",
            "/bin/sh -e ./conftest two",
        ] {
            assert_eq!(wrong(gone(), Exec { argv: words(argv), ..script() }), 2, "{argv}");
        }
        let file = Some(PathBuf::from("/usr/bin/aws"));
        assert_eq!(wrong(gone(), Exec { file, ..program() }), 2);
        assert_eq!(wrong(gone(), Exec { filename: b"./other".to_vec(), ..program() }), 2);
        // There is such a file, so it must be this one.
        assert_eq!(wrong(program(), Exec { file: None, ..program() }), 2);
    }

    #[test]
    fn killed_within_this_exec_and_no_other() {
        let known = Known { unsure: vec![program()], ..Known::default() };
        let invented = |tracer: &Exec| {
            Comparison::of(&[], &[Fact::Exec(tracer.clone())], &known).invented.len()
        };
        assert_eq!(invented(&program()), 0);
        assert_eq!(invented(&Exec { argv: words("./conftest two"), ..program() }), 1);
        assert_eq!(invented(&Exec { file: Some("/usr/bin/aws".into()), ..program() }), 1);
        assert_eq!(invented(&Exec { filename: b"/usr/bin/aws".to_vec(), ..program() }), 1);
        assert_eq!(invented(&Exec { number: 2, ..program() }), 1);
    }

    #[test]
    fn how_a_process_ended_is_compared() {
        let end = |status| Fact::End { who: WHO, status };
        let (zero, killed) = (end(Status::Code(0)), end(Status::Signal("SIGKILL".into())));
        for other in [&killed, &end(Status::Code(77)), &end(Status::Unknown)] {
            let compared = Comparison::of(
                std::slice::from_ref(&zero),
                std::slice::from_ref(other),
                &Known::default(),
            );
            assert_eq!((compared.missed.len(), compared.invented.len()), (1, 1), "{other}");
        }
        let known = Known { untraced: [WHO].into(), ..Known::default() };
        assert!(Comparison::of(&[], std::slice::from_ref(&zero), &known).invented.is_empty());
        assert_eq!(Comparison::of(&[], &[zero], &Known::default()).invented.len(), 1);
    }

    #[test]
    fn everything_that_is_explained_is_kept() {
        let strace: Vec<Fact> =
            (1..=3).map(|number| Fact::Exec(Exec { number, ..gone() })).collect();
        let tracer: Vec<Fact> =
            (1..=3).map(|number| Fact::Exec(Exec { number, ..program() })).collect();
        let compared = Comparison::of(&strace, &tracer, &Known::default());
        let [explained] = compared.explained.as_slice() else { panic!("{compared:?}") };
        assert_eq!(explained.facts.len(), 3);
    }
}
