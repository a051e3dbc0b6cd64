//! A run that was recorded, and what must be true of every one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use tracer::{
    model::ProcessKey,
    policy::{self, Ruling, Verdict},
    record::{
        self, Integrity,
        schema::{End, Exec, Outcome, Witness},
    },
    session::{Connection, Process, Story},
};

use super::{Output, same_lines, tree};

/// What tracer gave and what it recorded.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) output: Output,
    pub(crate) recording: PathBuf,
    pub(crate) story: Story,
    pub(crate) verdict: Option<Verdict>,
}

/// Counters of one kind of event, over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) produced: u64,
    pub(crate) lost: u64,
    pub(crate) read: u64,
}

impl Run {
    pub(super) fn read(output: Output, recording: PathBuf) -> Result<Run> {
        let read = record::read(&recording);
        let story = Story::of(read.with_context(|| format!("tracer said: {}", output.stderr))?);
        let verdict = policy::judge(&story, &story.start.policies);
        let run = Run { output, recording, story, verdict };
        run.invariants().with_context(|| format!("tracer said: {}", run.output.stderr))?;
        Ok(run)
    }

    /// True of every recording that has an end, whatever was lost.
    fn invariants(&self) -> Result<()> {
        ensure!(self.story.integrity == Integrity::Intact, "{:?}", self.story.integrity);
        let end = self.end()?;
        for row in &end.counters {
            ensure!(row.produced == row.read + row.lost, "events unaccounted for: {row:?}");
        }
        ensure!(
            end.verdict == self.verdict,
            "written and recomputed verdict differ:\n{:?}\n{:?}",
            end.verdict,
            self.verdict
        );
        Ok(())
    }

    pub(crate) fn end(&self) -> Result<&End> {
        self.story.end.as_ref().context("the recording has no end")
    }

    pub(crate) fn exits(&self, code: i32) -> Result<&Self> {
        self.output.exits(code)?;
        Ok(self)
    }

    /// Exit code and verdict.
    pub(crate) fn rules(&self, ruling: Ruling) -> Result<&Self> {
        let verdict = self.verdict.as_ref().context("there is no verdict")?;
        ensure!(
            verdict.overall == ruling,
            "the verdict is {}, not {}:\n{}\n{}",
            verdict.overall.name(),
            ruling.name(),
            self.reasons().join("\n"),
            self.output.stderr
        );
        self.exits(match ruling {
            Ruling::Proven => 0,
            Ruling::Violated => 10,
            Ruling::Inconclusive => 11,
        })
    }

    pub(crate) fn proven(&self) -> Result<&Self> {
        self.rules(Ruling::Proven)?.all_seen()
    }

    /// Everything that keeps a claim from being proven, and every violation.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let claims = self.verdict.iter().flat_map(|verdict| &verdict.claims);
        claims
            .flat_map(|claim| {
                let violations = claim.violations.iter().map(|violation| &violation.detail);
                claim.reasons.iter().chain(violations).cloned()
            })
            .collect()
    }

    /// A reason or a violation that contains all of `parts`.
    pub(crate) fn because(&self, parts: &[&str]) -> Result<&Self> {
        let reasons = self.reasons();
        let fits = |reason: &String| parts.iter().all(|part| reason.contains(part));
        ensure!(
            reasons.iter().any(fits),
            "no reason has all of {parts:?}:\n{}",
            reasons.join("\n")
        );
        Ok(self)
    }

    /// The kernel's own counts (the witness's, if a policy asked for it), the ledger and the recording
    /// agree on the number of execs.
    pub(crate) fn all_seen(&self) -> Result<&Self> {
        let end = self.end()?;
        let witness = match &end.witness {
            Witness::Counted(count) => *count == self.story.execs,
            Witness::NotAsked => self.story.start.policies.is_empty(),
            Witness::Absent(_) => false,
        };
        ensure!(witness, "{} execs recorded, {:?}", self.story.execs, end.witness);
        let processes = self.story.processes.len() as u64;
        ensure!(self.story.miscounted.is_empty(), "{:?}", self.story.miscounted);
        ensure!(self.story.counted_processes == processes, "{processes} processes");
        let ledger: u64 = end.ledger.iter().map(|row| row.execs).sum();
        ensure!(ledger == self.story.execs, "{} execs, {ledger} in the ledger", self.story.execs);
        ensure!(self.story.alive.is_empty(), "{:?} did not end", self.story.alive);
        ensure!(self.story.orphans == 0, "{} events of unknown processes", self.story.orphans);
        ensure!(end.faults.is_empty() && end.damaged_records == 0, "{end:?}");
        self.nothing_unread()
    }

    /// No probe failed to read something. In a record of a file's content, `unread` is the reason why
    /// tracer did not read the file, which may be gone by then.
    fn nothing_unread(&self) -> Result<&Self> {
        let text = std::fs::read_to_string(&self.recording)?;
        let unread = text.lines().find(|line| line.contains("\"unread\":["));
        ensure!(unread.is_none(), "{unread:?}");
        Ok(self)
    }

    /// The tree, as `tree::lines` gives it.
    pub(crate) fn tree(&self, expected: &str) -> Result<&Self> {
        let folder = self.recording.parent().unwrap_or(Path::new("/"));
        same_lines(expected, &tree::lines(&self.story, folder)).context("the tree differs")?;
        Ok(self)
    }

    pub(crate) fn execs(&self) -> Vec<&Exec> {
        self.story.execs_in_order().collect()
    }

    /// The exec whose argv[0] ends with `name`.
    pub(crate) fn exec(&self, name: &str) -> Result<&Exec> {
        let found = self.story.execs_in_order().find(|exec| {
            exec.argv.args.first().is_some_and(|word| word.base_name() == name.as_bytes())
        });
        found.with_context(|| {
            let all: Vec<_> = self.story.execs_in_order().map(|exec| &exec.argv.args).collect();
            format!("nothing executed `{name}`: {all:?}")
        })
    }

    pub(crate) fn process(&self, key: ProcessKey) -> Result<&Process> {
        self.story.processes.get(&key).with_context(|| format!("no process {key:?}"))
    }

    pub(crate) fn root(&self) -> Result<&Process> {
        self.process(self.story.root().context("no root")?)
    }

    pub(crate) fn counted(&self, kind: &str) -> Result<Counted> {
        let mut sum = Counted { produced: 0, lost: 0, read: 0 };
        for row in self.end()?.counters.iter().filter(|row| row.kind == kind) {
            sum.produced += row.produced;
            sum.lost += row.lost;
            sum.read += row.read;
        }
        Ok(sum)
    }

    /// The connections as lines `DESTINATION OUTCOME SENT RECEIVED`, without ports.
    pub(crate) fn connection_lines(&self) -> Vec<String> {
        self.story.connections.iter().map(connection_line).collect()
    }

    pub(crate) fn connections(&self, expected: &str) -> Result<&Self> {
        same_lines(expected, &self.connection_lines()).context("the connections differ")?;
        Ok(self)
    }

    pub(crate) fn only_connection(&self) -> Result<&Connection> {
        match &self.story.connections[..] {
            [one] => Ok(one),
            others => bail!("{} connections, not one", others.len()),
        }
    }
}

fn connection_line(connection: &Connection) -> String {
    let to = connection.destination.map_or("unread".into(), |to| to.address.to_string());
    let outcome = match connection.result.as_ref().map(|result| &result.outcome) {
        Some(Outcome::Established) => "established".into(),
        Some(Outcome::Failed { name, .. }) => name.clone(),
        Some(Outcome::Abandoned) => "abandoned".into(),
        Some(Outcome::Unsent) => "unsent".into(),
        Some(Outcome::Unknown) => "unknown".into(),
        None => "none".into(),
    };
    let bytes = |bytes: Option<u64>| bytes.map_or("unread".into(), |bytes| bytes.to_string());
    match &connection.close {
        Some(close) => format!(
            "{to} {outcome} sent {} received {}",
            bytes(close.sent_bytes),
            bytes(close.received_bytes)
        ),
        None => format!("{to} {outcome}"),
    }
}
