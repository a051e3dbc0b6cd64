//! Whether anything gets lost when there is too much of everything.

use std::{
    collections::BTreeMap,
    fs,
    io::BufRead as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    Effort,
    load::{Deed, LOAD_CPU, Loads, TOOL_CPU},
    table::{Cell, Finding, Section},
    tools::{Bench, Tool},
};

/// A load has begun by then.
const BEFORE_STOP: Duration = Duration::from_secs(1);
/// How long a tool is stopped.
const STOPPED: Duration = Duration::from_millis(2_500);

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
    let stopped = Some(STOPPED);
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
        let words = words(bench, &script, options)?;
        let told =
            trace(bench, bench.anywhere(&words)?, stopped).with_context(|| name.to_owned())?;
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
fn busy(loads: &Loads, seconds: u64) -> String {
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

/// Tracer, with a policy, around a script.
fn words(bench: &Bench, script: &str, options: &[&str]) -> Result<Vec<String>> {
    let policy = bench.scratch.write(
        "never.toml",
        "name = \"never\"\n[[claim]]\nkind = \"never-runs\"\nprograms = [\"/nowhere/program\"]\n",
    )?;
    let (tracer, policy, log) =
        (bench.tracer.to_string_lossy(), policy.to_string_lossy(), bench.log());
    let mut words = vec![&*tracer, "run", "--quiet", "-p", &*policy];
    words.extend(options);
    let log = log.to_string_lossy();
    words.extend(["--output", &*log, "--", "bash", "-c", script]);
    Ok(words.into_iter().map(str::to_owned).collect())
}

fn trace(bench: &Bench, mut command: Command, stopped: Option<Duration>) -> Result<Told> {
    let log = bench.log();
    let _ = fs::remove_file(&log);
    let mut child = command.spawn().context("cannot start tracer")?;
    if let Some(stopped) = stopped {
        thread::sleep(BEFORE_STOP);
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process(pid, Signal::STOP)?;
        thread::sleep(stopped);
        kill_process(pid, Signal::CONT)?;
    }
    let status = child.wait()?;
    ensure!(matches!(status.code(), Some(0 | 11)), "tracer ended with {status}");
    told(&log)
}

/// Execs on all processors, which are counted, and what each tool shows of them: it shares a processor
/// with half of them.
pub(super) fn beside_others(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    /// Which tracer records too.
    const SHELL_AND_LOADS: u64 = 3;
    let count = 20_000 / effort.divisor;
    let made = 2 * count;
    let mut section = Section::new(
        "Execs on all processors, and how many of them a tool shows",
        "all; what is missing is counted",
        made,
        1,
    );
    section.columns = &["shown", "missing", "lost, as it says"];
    let on = |cpu| loads.command(Deed::Spawn, count, cpu).join(" ");
    let script = format!("{} & {} & wait", on(LOAD_CPU), on(TOOL_CPU));
    let mut tools = vec![Tool::Tracer];
    if effort.peers {
        tools.extend([Tool::Execsnoop, Tool::ExecsnoopBpftrace]);
    }
    for tool in tools {
        for (how, stopped) in [("", None), (", stopped for 2.5 s", Some(STOPPED))] {
            let measured = if tool == Tool::Tracer {
                let words = words(bench, &format!("{{ {script}; }} >/dev/null"), &[])?;
                trace(bench, bench.prepared(&words)?, stopped).map(|told| {
                    (told.execs.saturating_sub(SHELL_AND_LOADS), told.lost_of_processes)
                })
            } else {
                shown(bench, tool, &script, stopped)
            };
            section.add(&format!("{}{how}", tool.name()), measured, |(shown, lost)| {
                let missing = made.saturating_sub(shown);
                vec![Cell::Count(shown), Cell::Count(missing), Cell::Count(lost)]
            })?;
        }
    }
    Ok(section)
}

/// The same of a tool that prints a line for each, with the program's name.
fn shown(bench: &Bench, tool: Tool, script: &str, stopped: Option<Duration>) -> Result<(u64, u64)> {
    let watcher = bench.watching(tool)?;
    let mut load = bench.anywhere(&["bash", "-c", script].map(str::to_owned))?;
    let mut load = load.stdout(Stdio::null()).spawn().context("cannot start the load")?;
    if let Some(stopped) = stopped {
        thread::sleep(BEFORE_STOP);
        watcher.stop_for(stopped)?;
    }
    ensure!(load.wait()?.success(), "the load failed");
    // The load is told what to start.
    let is_of_load = |line: &&str| line.contains("/nothing") && !line.contains("bench-load");
    // What it has not read or printed yet.
    let mut before = 0;
    loop {
        let said = bench.said()?;
        if said.len() == before {
            let shown = said.lines().filter(is_of_load).count();
            return Ok((shown as u64, said_lost(&said)));
        }
        before = said.len();
        thread::sleep(Duration::from_secs(2));
    }
}

/// `Lost 77 events`, as bpftrace and libbpf's tools have it.
fn said_lost(said: &str) -> u64 {
    let numbers = said.lines().filter_map(|line| {
        let (_, rest) = line.split_once("ost ")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    numbers.sum()
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
