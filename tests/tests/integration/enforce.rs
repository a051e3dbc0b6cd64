//! `--enforce`: what is forbidden is killed before its first instruction.

use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use tracer::policy::Ruling;

use crate::{
    Test,
    harness::{Run, Scratch, program, repeats},
};

pub(crate) const TESTS: &[Test] = &[("never_gets_to_its_first_line", never_gets_to_its_first_line)];

/// Ways to execute the program that enforcing is sure of: by one of its names, or its inode.
const WAYS: &[&str] = &[
    "aws",
    "bin/aws",
    "./link",
    "./hard-link",
    "elsewhere/aws",
    "programs/argv0 innocent bin/aws",
    "programs/argv0 aws ./hard-link",
    "programs/thread-exec ./hard-link",
    "programs/vfork-exec ./hard-link",
    "programs/clone-parent ./hard-link",
];

fn traced(scratch: &Scratch, options: &[&str], rounds: u64) -> Result<Run> {
    let mut path = scratch.file("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    // Whoever is killed in a child of a child ends later than its parent.
    let ways = WAYS.join(" $i\n");
    let line =
        format!("i=0\nwhile [ $i -lt {rounds} ]; do\n{ways} $i\ni=$((i+1))\ndone\nwait\ntrue");
    let mut tracer = scratch.run(["sh", "-c", &line]).policy("no-aws-cli");
    for option in options {
        tracer = tracer.option(option);
    }
    tracer.env("PATH", path).env("RAN", scratch.file("ran")).record()
}

/// The first thing the program does is to make a file. That file must never be there.
fn never_gets_to_its_first_line(scratch: &Scratch) -> Result<()> {
    let rounds = repeats(1000)?.div_ceil(WAYS.len() as u64);
    let stand_in = program(scratch, "stand-in")?;
    for folder in ["bin", "elsewhere"] {
        scratch.folder(folder)?;
        scratch.copy(&stand_in, format!("{folder}/aws"))?;
    }
    for name in ["argv0", "thread-exec", "vfork-exec", "clone-parent"] {
        program(scratch, name)?;
    }
    let aws = scratch.file("bin/aws");
    symlink(&aws, scratch.file("link"))?;
    std::fs::hard_link(&aws, scratch.file("hard-link"))?;

    let run = traced(scratch, &["--enforce", "--quiet"], rounds)?;
    run.rules(Ruling::Violated)?.because(&["killed before its first instruction"])?;
    let killed = run.execs().iter().filter(|exec| exec.killed).count() as u64;
    let tries = rounds * WAYS.len() as u64;
    ensure!(killed == tries, "{killed} of {tries} were killed");
    ensure!(!scratch.file("ran").exists(), "the program ran");

    // The control: without --enforce every way leads to the program.
    traced(scratch, &["--quiet"], 1)?.rules(Ruling::Violated)?;
    let ran = std::fs::read_to_string(scratch.file("ran"))?.lines().count();
    ensure!(ran == WAYS.len(), "{ran} of {} ways lead to the program", WAYS.len());
    eprintln!("  {tries} tries to run it, each killed before it did anything");
    Ok(())
}
