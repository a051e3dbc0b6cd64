//! How costs grow with what there is: processes alive, events, recordings.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result, ensure};

use super::{
    Effort,
    load::{Deed, LOAD_CPU, Loads},
    stats::median,
    table::{Cell, Finding, Section},
    tools::{self, Bench, Tool},
};

pub(super) fn section(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    let mut section = Section::new(
        "How costs grow",
        "near-linear: each column is per spawn, event or recording and stays what it is",
        1,
        effort.pairs.min(5),
    );
    section.columns =
        &["of how many", "added to a spawn", "CPU of report, each", "CPU of compare, each"];
    for alive in [10, 100, 1_000, 10_000] {
        let alive = if effort.peers { alive } else { alive / 10 };
        let added = added(bench, loads, alive, effort)?;
        row(&mut section, "processes alive", alive, [Some(added), None, None]);
    }
    for events in [1_000u64, 10_000, 100_000, 1_000_000] {
        let events = events / effort.divisor;
        let recording = record(bench, loads, events)?;
        let report = cpu_ns(bench, &["report", &recording])?;
        row(&mut section, "events", events, [None, Some(report / events as f64), None]);
    }
    let recording = record(bench, loads, 3_000 / effort.divisor)?;
    let most = if effort.peers { 1_000 } else { 10 };
    for recordings in [1u64, 10, 100, 1_000].into_iter().filter(|count| *count <= most) {
        let copies = copies(bench, &recording, recordings)?;
        let compare = cpu_ns(bench, &["compare", &format!("group={copies}/*.jsonl")])?;
        row(
            &mut section,
            "recordings",
            recordings,
            [None, None, Some(compare / recordings as f64)],
        );
    }
    Ok(section)
}

fn row(section: &mut Section, name: &str, count: u64, values: [Option<f64>; 3]) {
    let cells = values.into_iter().map(Cell::nanoseconds);
    let all = [Cell::Count(count)].into_iter().chain(cells).collect();
    section.rows.push((name.into(), Finding::Measured(all)));
}

/// What tracing adds to a spawn in this crowd, in nanoseconds.
fn added(bench: &Bench, loads: &Loads, alive: u64, effort: Effort) -> Result<f64> {
    let count = 2_000 / effort.divisor;
    let command = loads.among(alive, &loads.command(Deed::Spawn, count, LOAD_CPU));
    let mut differences = Vec::new();
    for _ in 0..effort.pairs.min(5) {
        let without = bench.trial(Tool::Nothing, &command)?;
        let with = bench.trial(Tool::Tracer, &command)?;
        differences.push((with.load.wall_ns - without.load.wall_ns) / count as f64);
    }
    median(&differences).context("no pairs")
}

/// A recording with about this many events: a spawn is three.
fn record(bench: &Bench, loads: &Loads, events: u64) -> Result<String> {
    let recording = bench.scratch.file(format!("{events}.jsonl"));
    let shown = recording.display().to_string();
    let command = loads.command(Deed::Spawn, (events / 3).max(1), LOAD_CPU);
    let mut words: Vec<String> =
        [&bench.tracer.display().to_string(), "run", "-q", "--force", "-o", &shown, "--"]
            .map(ToString::to_string)
            .into();
    words.extend(command);
    let (output, _) = tools::run(&mut bench.prepared(&words)?)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(shown)
}

/// A folder with so many links to the recording.
fn copies(bench: &Bench, recording: &str, count: u64) -> Result<String> {
    let folder = bench.scratch.folder(format!("{count}-copies"))?;
    for number in 0..count {
        fs::hard_link(recording, folder.join(format!("{number}.jsonl")))?;
    }
    Ok(folder.display().to_string())
}

fn cpu_ns(bench: &Bench, arguments: &[&str]) -> Result<f64> {
    let mut words = vec![bench.tracer.display().to_string()];
    words.extend(arguments.iter().map(ToString::to_string));
    let started = Instant::now();
    let (output, used) = tools::run(&mut bench.prepared(&words)?)?;
    ensure!(
        output.status.success(),
        "{arguments:?} after {:?}: {}",
        started.elapsed(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(used.cpu_ns)
}
