//! A thousand short runs: nothing is missed, ever.

use anyhow::{Context as _, Result, ensure};

use crate::{
    Test,
    harness::{Scratch, program, repeats},
};

pub(crate) const TESTS: &[Test] =
    &[("runs_of_true", runs_of_true), ("runs_of_an_exec_chain", runs_of_an_exec_chain)];

/// Without failed execs and debuggers: where their sensors are of system calls, each run takes twice as long.
const POLICY: &str = "name = 'no-aws'
allow-hand-offs = ['debugger']
[[claim]]
kind = 'never-runs'
programs = ['aws']
";

/// Runs `command` again and again; each run must be proven with exactly `execs` execs.
fn check(scratch: &Scratch, name: &str, command: &[&str], execs: u64) -> Result<()> {
    let runs = repeats(1000)?;
    let policy = scratch.write("policy.toml", POLICY)?;
    for number in 1..=runs {
        let run = scratch.run(command).policy(&policy).option("--quiet").record();
        let seen = run.and_then(|run| {
            run.proven()?;
            std::fs::remove_file(&run.recording)?;
            Ok(run.story.execs)
        });
        let seen = seen.with_context(|| format!("run {number} of {runs}"))?;
        ensure!(seen == execs, "run {number} of {runs} has {seen} execs, not {execs}");
    }
    eprintln!(
        "  {name}: {runs} runs of {execs} execs, each proven, {} execs and none missed",
        runs * execs
    );
    Ok(())
}

fn runs_of_true(scratch: &Scratch) -> Result<()> {
    check(scratch, "true", &["true"], 1)
}

fn runs_of_an_exec_chain(scratch: &Scratch) -> Result<()> {
    let chain = program(scratch, "chain")?;
    check(scratch, "exec chain", &[&chain.to_string_lossy(), "6"], 8)
}
