//! A row under tracer.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::{Expected, Program, Row, Stage};

/// No row takes nearly that long; a hang shall not hang the suite.
const LONGEST: Duration = Duration::from_secs(90);

/// As `tracer run` exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    Proven,
    Violated,
    Inconclusive,
}

impl Ruling {
    pub fn name(self) -> &'static str {
        match self {
            Ruling::Proven => "proven",
            Ruling::Violated => "violated",
            Ruling::Inconclusive => "inconclusive",
        }
    }

    fn of_exit_code(code: Option<i32>) -> Option<Ruling> {
        match code {
            Some(0) => Some(Ruling::Proven),
            Some(10) => Some(Ruling::Violated),
            Some(11) => Some(Ruling::Inconclusive),
            _ => None,
        }
    }
}

/// What tracer said about a row.
#[derive(Clone, Debug)]
pub struct Trial {
    pub ruling: Ruling,
    /// Violations, or what keeps the claim from being proven.
    pub reasons: Vec<String>,
}

/// The part of a recording's last line that is needed here.
#[derive(Deserialize)]
struct End {
    verdict: Verdict,
}

#[derive(Deserialize)]
struct Verdict {
    claims: Vec<Claim>,
}

#[derive(Deserialize)]
struct Claim {
    #[serde(default)]
    violations: Vec<Violation>,
    #[serde(default)]
    reasons: Vec<String>,
}

#[derive(Deserialize)]
struct Violation {
    detail: String,
}

/// Traces the row's trick with this program, under the policy `no-aws-cli`.
pub fn trial(tracer: &Path, row: &Row, program: Program) -> Result<Trial> {
    Stage::with(row, program, |stage, traced| {
        let recording = stage.file("recording.jsonl");
        let mut command = stage.command(tracer);
        command.args(["run", "--policy", "no-aws-cli", "--linger=2", "--output"]);
        command.arg(&recording).arg("--").args(traced);
        let (status, printed, said) = run(stage, &mut command)?;
        let context = || format!("tracer said: {said}");
        let ruling = Ruling::of_exit_code(status.code()).with_context(context)?;
        if row.outside.is_empty() {
            ensure!(
                stage.did_run(&printed)?,
                "the program did not run. tracer said: {said}\nthe trick printed: {}",
                String::from_utf8_lossy(&printed)
            );
        }
        Ok(Trial { ruling, reasons: reasons(&recording).with_context(context)? })
    })
}

fn reasons(recording: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(recording).context("cannot read the recording")?;
    let last = text.lines().last().context("the recording is empty")?;
    let end: End = serde_json::from_str(last).context("the recording has no end")?;
    let of_claim = |claim: Claim| {
        claim.violations.into_iter().map(|violation| violation.detail).chain(claim.reasons)
    };
    Ok(end.verdict.claims.into_iter().flat_map(of_claim).collect())
}

impl Trial {
    /// Fails unless the ruling is an expected one, and for the expected reason. The reason of what is
    /// only caught is that it was not seen well, so a violation needs none.
    pub fn check(&self, expected: Expected) -> Result<()> {
        let reasons = self.reasons.join("\n  ");
        ensure!(
            expected.rulings.contains(&self.ruling),
            "it ended as {}, not as {}:\n  {reasons}",
            self.ruling.name(),
            expected.name()
        );
        let caught_better = expected.rulings.len() > 1 && self.ruling == Ruling::Violated;
        ensure!(
            caught_better
                || self.reasons.iter().any(|reason| reason.contains(expected.words))
                || expected.words.is_empty(),
            "it ended as {}, but no reason has the words `{}`:\n  {reasons}",
            self.ruling.name(),
            expected.words
        );
        Ok(())
    }
}

/// Runs a command of the stage to its end: status, standard output and standard error.
pub(super) fn run(stage: &Stage, command: &mut Command) -> Result<(ExitStatus, Vec<u8>, String)> {
    let [out, err] = ["out", "err"].map(|name| stage.file(name));
    command.stdout(File::create(&out)?).stderr(File::create(&err)?);
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let deadline = Instant::now() + LONGEST;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("it had not ended after {LONGEST:?}: {}", fs::read_to_string(&err)?);
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ok((status, fs::read(out)?, String::from_utf8_lossy(&fs::read(err)?).into_owned()))
}
