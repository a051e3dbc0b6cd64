//! Whether anything gets lost when there is too much of everything.

use std::{
    collections::BTreeMap,
    fs,
    io::BufRead as _,
    path::{Path, PathBuf},
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
    /// Forks, execs and exits.
    lost_of_processes: u64,
    lost_of_failed_execs: u64,
    lost_of_others: u64,
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
    section.columns = &[
        "events read",
        "lost: processes",
        "lost: failed execs",
        "lost: others",
        "execs recorded",
        "events read a second",
        "flood a second",
        "verdict",
    ];
    let busy = busy(loads, effort.seconds);
    let stopped = Some(Duration::from_millis(2_500));
    // Longer than the rings can hold.
    let long = Some(Duration::from_secs(effort.seconds / 2));
    let (plain, attempts): (&[&str], &[&str]) = (&[], &["--attempts"]);
    let cases = [
        ("all processors saturated with execs and connects", busy.clone(), None, plain),
        ("the same, the collector stopped for 2.5 s", busy.clone(), stopped, plain),
        ("the same, the collector stopped for half of the time", busy, long, plain),
        (
            "failed execs and UDP connects without end, and 1,000 execs; `--attempts`",
            hostile(loads, effort, &flooded(bench)),
            None,
            attempts,
        ),
    ];
    let flooded = flooded(bench);
    for (name, script, stopped, options) in cases {
        fs::write(&flooded, "")?;
        let started = Instant::now();
        let told = trace(bench, &script, stopped, options).with_context(|| name.to_owned())?;
        let seconds = started.elapsed().as_secs_f64();
        let flood = flood_rate(&fs::read_to_string(&flooded)?)?;
        section.rows.push((
            name.into(),
            Finding::Measured(vec![
                Cell::Count(told.read),
                Cell::Count(told.lost_of_processes),
                Cell::Count(told.lost_of_failed_execs),
                Cell::Count(told.lost_of_others),
                Cell::Count(told.execs),
                Cell::Words(format!("{:.0}", told.read as f64 / seconds)),
                flood.map_or(Cell::Nothing, |rate| Cell::Words(format!("{rate:.0}"))),
                Cell::Words(told.ruling),
            ]),
        ));
    }
    Ok(section)
}

/// Every processor makes execs and connections until the time is over.
pub(crate) fn busy(loads: &Loads, seconds: u64) -> String {
    let forever = |deed, cpu| {
        format!("while :; do {}; done >/dev/null & ", loads.command(deed, 500, cpu).join(" "))
    };
    let all: String = [(Deed::Spawn, LOAD_CPU), (Deed::Connect, TOOL_CPU)]
        .map(|(deed, cpu)| forever(deed, cpu))
        .concat();
    format!("{all} sleep {seconds}; kill $(jobs -p); wait")
}

/// Where each piece of a flood says how long it took, and of how much it was.
fn flooded(bench: &Bench) -> PathBuf {
    bench.scratch.file("flooded")
}

/// How many of each kind came in a second, together.
fn flood_rate(said: &str) -> Result<Option<f64>> {
    let mut kinds: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for line in said.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let &[kind, wall_ns, _, count] = &words[..] else { continue };
        let (sum, seconds) = kinds.entry(kind).or_default();
        *sum += count.parse::<f64>()?;
        *seconds += wall_ns.parse::<f64>()? / 1e9;
    }
    let rate = kinds.values().map(|(sum, seconds)| sum / seconds).sum();
    Ok((!kinds.is_empty()).then_some(rate))
}

/// The cheapest events there are, as fast as they can be made, around what must not get lost.
fn hostile(loads: &Loads, effort: Effort, flooded: &Path) -> String {
    let flood = |deed, cpu| {
        let load = loads.command(deed, 100_000, cpu).join(" ");
        format!("while :; do echo {deed:?} $({load}) >>{}; done & ", flooded.display())
    };
    let execs = loads.command(Deed::Spawn, 1_000, LOAD_CPU).join(" ");
    format!(
        "{}{} sleep {}; {execs} >/dev/null; kill $(jobs -p); wait",
        flood(Deed::FailedExec, LOAD_CPU),
        flood(Deed::UdpConnect, TOOL_CPU),
        effort.seconds.min(10)
    )
}

fn trace(bench: &Bench, script: &str, stopped: Option<Duration>, options: &[&str]) -> Result<Told> {
    let log = bench.scratch.file("losses.jsonl");
    let _ = fs::remove_file(&log);
    let policy = bench.scratch.write(
        "never.toml",
        "name = \"never\"\n[[claim]]\nkind = \"never-runs\"\nprograms = [\"/nowhere/program\"]\n",
    )?;
    // The tool may run anywhere: the machine is full.
    let mut command = std::process::Command::new(&bench.tracer);
    command.args(["run", "--quiet", "-p"]).arg(&policy).args(options).arg("--output").arg(&log);
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
    let sum = |field: &str, of: &dyn Fn(&str) -> bool| -> u64 {
        let rows = counters.iter().filter(|row| row["kind"].as_str().is_some_and(of));
        rows.filter_map(|row| row[field].as_u64()).sum()
    };
    let of_processes = |kind: &str| matches!(kind, "root" | "fork" | "exec" | "exit");
    let of_failed_execs = |kind: &str| kind == "attempt";
    let of_others = |kind: &str| !of_processes(kind) && !of_failed_execs(kind);
    let ruling = end["verdict"]["overall"].as_str().context("no verdict")?.to_owned();
    Ok(Told {
        read: sum("read", &|_| true),
        lost_of_processes: sum("lost", &of_processes),
        lost_of_failed_execs: sum("lost", &of_failed_execs),
        lost_of_others: sum("lost", &of_others),
        execs,
        ruling,
    })
}
