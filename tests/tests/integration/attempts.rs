//! Execs that failed: recorded when asked for, one attempt for a search along PATH, judged where a
//! policy counts them.

use anyhow::{Context as _, Result, ensure};
use tracer::{policy::Ruling, record::schema::Attempt};

use crate::{
    Test,
    harness::{Run, Scratch, write_program},
};

pub(crate) const TESTS: &[Test] = &[
    ("not_watched_unless_asked_for", not_watched_unless_asked_for),
    ("asked_for_without_a_policy", asked_for_without_a_policy),
    ("a_forbidden_program_that_is_not_there", a_forbidden_program_that_is_not_there),
    ("search_along_path_is_one", search_along_path_is_one),
    ("search_that_finds_is_none", search_that_finds_is_none),
    ("why_it_failed", why_it_failed),
    ("an_allowed_attempt", an_allowed_attempt),
    ("every_try_is_counted", every_try_is_counted),
    ("what_is_lost", what_is_lost),
    ("enforcing_needs_a_rule", enforcing_needs_a_rule),
];

fn the_attempt<'a>(run: &'a Run, name: &str) -> Result<&'a Attempt> {
    let called = |attempt: &&Attempt| {
        attempt.filenames.iter().any(|file| file.base_name() == name.as_bytes())
    };
    let mut found = run.story.attempts.iter().filter(called);
    let first = found.next().with_context(|| format!("no attempt: {:?}", run.story.attempts))?;
    ensure!(found.next().is_none(), "several attempts: {:?}", run.story.attempts);
    Ok(first)
}

fn not_watched_unless_asked_for(scratch: &Scratch) -> Result<()> {
    let run = scratch.run(["sh", "-c", "/nowhere/aws; true"]).record()?;
    ensure!(run.story.attempts.is_empty(), "{:?}", run.story.attempts);
    let sensors = &run.story.start.sensors;
    ensure!(sensors.iter().all(|sensor| sensor.tax.is_empty()), "{sensors:?}");
    Ok(())
}

fn asked_for_without_a_policy(scratch: &Scratch) -> Result<()> {
    let run = scratch.run(["sh", "-c", "/nowhere/aws --x; true"]).option("--attempts").record()?;
    let attempt = the_attempt(&run, "aws")?;
    ensure!(attempt.error == "ENOENT" && attempt.tries == 1, "{attempt:?}");
    ensure!(attempt.argv == ["/nowhere/aws".into(), "--x".into()], "{attempt:?}");
    ensure!(attempt.argv_complete && attempt.unread.is_empty(), "{attempt:?}");
    Ok(())
}

fn a_forbidden_program_that_is_not_there(scratch: &Scratch) -> Result<()> {
    let run = scratch.run(["sh", "-c", "/nowhere/aws; true"]).policy("no-aws-cli").record()?;
    run.rules(Ruling::Violated)?
        .because(&["tried to run aws", "/nowhere/aws could not be executed: ENOENT"])?;
    Ok(())
}

fn search_along_path_is_one(scratch: &Scratch) -> Result<()> {
    let run = scratch
        .run(["/usr/bin/env", "PATH=/nowhere/a:/nowhere/b:/nowhere/c", "aws", "s3"])
        .policy("no-aws-cli")
        .record()?;
    run.rules(Ruling::Violated)?;
    let attempt = the_attempt(&run, "aws")?;
    ensure!(attempt.tries == 3 && attempt.filenames.len() == 3, "{attempt:?}");
    Ok(())
}

/// The program is found in the last folder, so that is an exec and no attempt.
fn search_that_finds_is_none(scratch: &Scratch) -> Result<()> {
    let path = "PATH=/nowhere/a:/nowhere/b:/usr/bin";
    let run = scratch
        .run(["/usr/bin/env", path, "env", "true"])
        .policy(scratch.write(
            "only.toml",
            "name = 'only'\n[[claim]]\nkind = 'runs-only'\nprograms = ['@command', 'true']\n\
             attempts = true\n",
        )?)
        .record()?;
    run.proven()?;
    ensure!(run.story.attempts.iter().any(|attempt| attempt.tries == 2), "no search was seen");
    Ok(())
}

fn why_it_failed(scratch: &Scratch) -> Result<()> {
    let folder = scratch.folder("bin")?;
    let aws = folder.join("aws");
    for (text, mode, error) in [
        ("no right to execute", 0o644, "EACCES"),
        ("\x7fELF, but not a program", 0o755, "ENOEXEC"),
        ("#!/nowhere/interpreter\n", 0o755, "ENOENT"),
    ] {
        write_program(&aws, text.as_bytes(), mode)?;
        // Not a shell, which would run a text file itself.
        let python =
            "import os,sys\ntry: os.execv(sys.argv[1], ['aws', 'x'])\nexcept OSError: pass";
        let run = scratch
            .run(["/usr/bin/python3", "-c", python, &aws.to_string_lossy()])
            .policy("no-aws-cli")
            .record()?;
        run.rules(Ruling::Violated)?.because(&["tried to run aws", error])?;
        ensure!(the_attempt(&run, "aws")?.error == error, "{:?}", run.story.attempts);
    }
    Ok(())
}

fn an_allowed_attempt(scratch: &Scratch) -> Result<()> {
    let policy = scratch.write(
        "allow.toml",
        "name = 'allow'\n[[claim]]\nkind = 'never-runs'\nprograms = ['aws']\nattempts = true\n\
         allow = [{ argv = ['aws', '--version'] }]\n",
    )?;
    let run = scratch.run(["sh", "-c", "/nowhere/aws --version; true"]).policy(&policy).record()?;
    run.proven()?.output.says("allowed: ")?;
    let run = scratch.run(["sh", "-c", "/nowhere/aws --help; true"]).policy(&policy).record()?;
    run.rules(Ruling::Violated)?;
    Ok(())
}

fn every_try_is_counted(scratch: &Scratch) -> Result<()> {
    const TRIES: u64 = 500;
    let script = format!(
        "i=0; while [ $i -lt {TRIES} ]; do /nowhere/$((i % 7))/tool; i=$((i+1)); done 2>/dev/null; true"
    );
    let run = scratch.run(["sh", "-c", &script]).policy("no-aws-cli").record()?;
    run.proven()?;
    let called =
        |attempt: &&Attempt| attempt.filenames.iter().any(|file| file.base_name() == b"tool");
    let tries: u64 = run.story.attempts.iter().filter(called).map(|attempt| attempt.tries).sum();
    ensure!(tries == TRIES, "{tries} tries recorded, not {TRIES}");
    Ok(())
}

fn what_is_lost(scratch: &Scratch) -> Result<()> {
    let script = "i=0; while [ $i -lt 50 ]; do /nowhere/tool; i=$((i+1)); done 2>/dev/null; true";
    // The canaries' own attempts are the first and the last.
    let run = scratch
        .run(["sh", "-c", script])
        .policy("no-aws-cli")
        .option("--debug-lose=attempt=7")
        .record()?;
    run.rules(Ruling::Inconclusive)?;
    let counted = run.counted("attempt")?;
    ensure!(counted.lost > 0 && counted.produced == counted.read + counted.lost, "{counted:?}");
    run.because(&[&format!("{} of {} attempt events were lost", counted.lost, counted.produced)])?;
    Ok(())
}

fn enforcing_needs_a_rule(scratch: &Scratch) -> Result<()> {
    let usage = |options: &[&str], says: &str| -> Result<()> {
        let mut tracer = scratch.run(["true"]);
        for option in options {
            tracer = tracer.option(option);
        }
        tracer.output()?.exits(2)?.says(says)?;
        Ok(())
    };
    usage(&["--enforce"], "--policy")?;
    usage(&["--enforce", "-p", "no-shell-outs"], "never-runs")?;
    let policy = scratch.write(
        "allow.toml",
        "name = 'allow'\n[[claim]]\nkind = 'never-runs'\nprograms = ['aws']\n\
         allow = [{ argv = ['aws', '--version'] }]\n",
    )?;
    usage(&["--enforce", "-p", &policy.to_string_lossy()], "`allow`")
}
