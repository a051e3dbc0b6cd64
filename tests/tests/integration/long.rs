//! Audits that last: memory that does not grow with what has ended, and what signals end and leave.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tracer::{
    policy::Ruling,
    record::{self, Integrity},
    session::Story,
};

use crate::{
    Test,
    harness::{
        Scratch,
        attached::{Attached, Workload},
        program, repeats, until,
    },
};

pub(crate) const TESTS: &[Test] =
    &[("memory", memory), ("signals_end_rotated", signals_end_rotated)];

/// Anonymous memory of a process.
fn memory_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// On a machine that is busy, tracer has still to read what is over: until next to nothing is written any more.
fn until_read(scratch: &Scratch) -> Result<()> {
    const NEXT_TO_NOTHING_BYTES: u64 = 32 << 10;
    let written = || -> Result<u64> {
        let parts = scratch.path().read_dir()?.map(|entry| Ok(entry?.metadata()?.len()));
        parts.sum()
    };
    let mut last = written()?;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = written()?;
        if now.saturating_sub(last) < NEXT_TO_NOTHING_BYTES {
            return Ok(());
        }
        last = now;
    }
}

/// As many processes as an agent starts in a day, in less than a minute: what has ended costs nothing once
/// what is meant to be filled is full (the newest records, and buffers), which takes some 160,000 processes.
/// Were all kept, the usual number of them would take 15 MiB more; with more of them, less of each is found.
fn memory(scratch: &Scratch) -> Result<()> {
    const FIRST: u64 = 40_000;
    // docs/attach.md says 9 MiB.
    const GROWTH_KIB: u64 = 11 << 10;
    // `TRACER_TEST_REPEAT=1000` is the usual number.
    let more = 60_000 * repeats(1000)? / 1000;
    let storm = program(scratch, "storm")?;
    let script = format!(
        "{wait}; {storm} {FIRST}; : > half; while [ ! -e on ]; do sleep 0.1; done; \
         {storm} {more}; : > all; sleep 100; exit",
        wait = "while [ ! -e go ]; do sleep 0.01; done",
        storm = storm.display()
    );
    let workload = Workload::shell(scratch, &script)?;
    let options = ["-p", "no-aws-cli", "--from-arming", "--rotate", "4M"];
    let attached = Attached::to(scratch, &["--pid", &workload.pid()], &options)?;
    scratch.write("go", "")?;
    until("the first part", || scratch.file("half").exists())?;
    until_read(scratch)?;
    let before = memory_kib(attached.pid())?;
    scratch.write("on", "")?;
    until("the second part", || scratch.file("all").exists())?;
    until_read(scratch)?;
    let after = memory_kib(attached.pid())?;
    let seen = attached.stop()?;
    seen.rules(Ruling::Inconclusive)?;
    let processes = seen.story.processes.len() as u64;
    ensure!(processes >= FIRST + more, "{processes} processes");
    eprintln!("  long: {before} KiB after {FIRST} processes, {after} KiB after {processes}");
    ensure!(after < before + GROWTH_KIB, "{before} KiB became {after} KiB");
    Ok(())
}

/// With a recording in several files, SIGHUP too ends tracing, with a last line.
fn signals_end_rotated(scratch: &Scratch) -> Result<()> {
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        let workload = Workload::shell(scratch, "while :; do /bin/true; done")?;
        let attached = Attached::to(scratch, &["--pid", &workload.pid()], &["--rotate", "64K"])?;
        let recording = attached.recording.clone();
        let second = recording.with_extension("jsonl.1");
        until("a second file", || second.exists())?;
        attached.signal(signal)?;
        let seen = attached.end()?;
        ensure!(seen.code == 0, "{signal:?}: {}", seen.code);
        let story = Story::of(record::read(&recording)?);
        ensure!(story.integrity == Integrity::Intact && story.end.is_some(), "{signal:?}");
    }
    Ok(())
}
