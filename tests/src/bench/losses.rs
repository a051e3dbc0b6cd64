//! Whether anything gets lost when there is too much of everything.

use std::{
    fs,
    io::BufRead as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Effort,
    load::{Deed, LOAD_CPU, Loads, TOOL_CPU},
    table::{Cell, Finding, Section},
    tools::Bench,
};

/// What the last line of a recording says.
struct Told {
    read: u64,
    lost: u64,
    execs: u64,
    ruling: String,
}

pub(super) fn section(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    let mut section = Section::new(
        "Lost events under load",
        "none; if there are any, they are counted and the verdict is inconclusive",
        1,
        1,
    );
    section.columns = &["events read", "lost", "execs recorded", "a second", "verdict"];
    let busy = busy(loads, effort.seconds);
    let cases: [(&str, String, Option<Duration>); 3] = [
        ("all processors saturated with execs and connects", busy.clone(), None),
        ("the same, the collector stopped for 2.5 s", busy, Some(Duration::from_millis(2_500))),
        (
            "failed execs and UDP connects without end, and 1,000 execs",
            hostile(loads, effort),
            None,
        ),
    ];
    for (name, script, stopped) in cases {
        let started = Instant::now();
        let told = trace(bench, &script, stopped).with_context(|| name.to_owned())?;
        let seconds = started.elapsed().as_secs_f64();
        section.rows.push((
            name.into(),
            Finding::Measured(vec![
                Cell::Count(told.read),
                Cell::Count(told.lost),
                Cell::Count(told.execs),
                Cell::Words(format!("{:.0}", told.read as f64 / seconds)),
                Cell::Words(told.ruling),
            ]),
        ));
    }
    Ok(section)
}

/// Every processor makes execs and connections until the time is over.
fn busy(loads: &Loads, seconds: u64) -> String {
    let forever = |deed, cpu| {
        format!("while :; do {}; done >/dev/null & ", loads.command(deed, 500, cpu).join(" "))
    };
    let all: String = [(Deed::Spawn, LOAD_CPU), (Deed::Connect, TOOL_CPU)]
        .map(|(deed, cpu)| forever(deed, cpu))
        .concat();
    format!("{all} sleep {seconds}; kill $(jobs -p); wait")
}

/// The cheapest events there are, as fast as they can be made, around what must not get lost.
fn hostile(loads: &Loads, effort: Effort) -> String {
    let flood = |deed, cpu| {
        format!("while :; do {}; done >/dev/null & ", loads.command(deed, 100_000, cpu).join(" "))
    };
    let execs = loads.command(Deed::Spawn, 1_000, LOAD_CPU).join(" ");
    format!(
        "{}{} sleep {}; {execs} >/dev/null; kill $(jobs -p); wait",
        flood(Deed::FailedExec, LOAD_CPU),
        flood(Deed::UdpConnect, TOOL_CPU),
        effort.seconds.min(10)
    )
}

fn trace(bench: &Bench, script: &str, stopped: Option<Duration>) -> Result<Told> {
    let log = bench.scratch.file("losses.jsonl");
    let _ = fs::remove_file(&log);
    let policy = bench.scratch.write(
        "never.toml",
        "name = \"never\"\n[[claim]]\nkind = \"never-runs\"\nprograms = [\"/nowhere/program\"]\n",
    )?;
    // The tool may run anywhere: the machine is full.
    let mut command = std::process::Command::new(&bench.tracer);
    command.args(["run", "--quiet", "-p"]).arg(&policy).arg("--output").arg(&log);
    command.args(["--", "bash", "-c", script]).env(crate::scratch::MARK, bench.scratch.mark());
    let mut child = command.spawn().context("cannot start tracer")?;
    if let Some(stopped) = stopped {
        thread::sleep(Duration::from_secs(1));
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("a pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
        thread::sleep(stopped);
        rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
    }
    let status = child.wait()?;
    ensure!(matches!(status.code(), Some(0 | 11)), "tracer ended with {status}");
    told(&log)
}

fn told(log: &Path) -> Result<Told> {
    let file = fs::File::open(log)?;
    let (mut execs, mut last) = (0, String::new());
    for line in std::io::BufReader::new(file).lines() {
        let line = line?;
        execs += u64::from(line.starts_with(r#"{"type":"exec""#));
        last = line;
    }
    let end: Value = serde_json::from_str(&last)?;
    ensure!(end["type"] == "end", "the recording has no end");
    let counters = end["counters"].as_array().context("no counters")?;
    let sum = |field: &str| counters.iter().filter_map(|row| row[field].as_u64()).sum();
    let ruling = end["verdict"]["overall"].as_str().context("no verdict")?.to_owned();
    Ok(Told { read: sum("read"), lost: sum("lost"), execs, ruling })
}
