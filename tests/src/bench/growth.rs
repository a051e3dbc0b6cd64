//! How costs grow with what there is: processes alive, events, recordings, names.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{
    Effort,
    load::{Deed, LOAD_CPU, Loads},
    long,
    stats::median,
    table::{Cell, Finding, Section},
    tools::{self, Bench, Tool, Use},
};

const GOAL: &str = "near-linear or better: what one more costs stays what it is";

pub(super) fn sections(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Vec<Section>> {
    Ok(vec![
        processes(bench, loads, effort)?,
        events(bench, effort)?,
        recordings(bench, effort)?,
        names(bench, effort)?,
    ])
}

/// As many steps, each ten times the one before, as there is time for.
fn steps(first: u64, steps: u32, effort: Effort) -> impl Iterator<Item = u64> {
    let steps = if effort.peers { steps } else { 2 };
    (0..steps).map(move |step| first * 10_u64.pow(step))
}

fn row(section: &mut Section, count: u64, what: &str, cells: Vec<Cell>) {
    section.rows.push((format!("{count} {what}"), Finding::Measured(cells)));
}

/// What tracing adds to a spawn in a crowd.
fn processes(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    let count = 2_000 / effort.divisor;
    let pairs = effort.pairs.min(5);
    let mut section = Section::new("Growth with processes alive", GOAL, count, pairs);
    section.columns = &["added to a spawn"];
    for alive in steps(10, 4, effort) {
        let command = loads.among(alive, &loads.command(Deed::Spawn, count, LOAD_CPU));
        let mut differences = Vec::new();
        for _ in 0..pairs {
            let without = bench.trial(Tool::Nothing, &command)?;
            let with = bench.trial(Tool::Tracer, &command)?;
            differences.push((with.load.wall_ns - without.load.wall_ns) / count as f64);
        }
        let added = median(&differences).context("no pairs")?;
        row(&mut section, alive, "processes", vec![Cell::Nanoseconds(added)]);
    }
    Ok(section)
}

/// What reading a recording costs. A tenth of these events are of a process each.
fn events(bench: &Bench, effort: Effort) -> Result<Section> {
    let mut section = Section::new("Growth with the events of a recording", GOAL, 1, 1);
    section.columns = &[
        "CPU of verify, each",
        "memory",
        "CPU of report, each",
        "memory",
        "CPU of compare, each",
        "memory",
    ];
    for wanted in steps(1_000, 5, effort) {
        let file = bench.scratch.file("long.jsonl");
        let events = long::write(&file, wanted)?;
        let shown = file.display().to_string();
        let each = |used: Use| Cell::Nanoseconds(used.cpu_ns / events as f64);
        let verify = used(bench, &["verify", &shown])?;
        let report = used(bench, &["report", &shown])?;
        let compare = used(bench, &["compare", &format!("group={shown}")])?;
        let cells = vec![
            each(verify),
            verify.memory(),
            each(report),
            report.memory(),
            each(compare),
            compare.memory(),
        ];
        row(&mut section, wanted, "events", cells);
        fs::remove_file(&file)?;
    }
    Ok(section)
}

/// What comparing many recordings costs.
fn recordings(bench: &Bench, effort: Effort) -> Result<Section> {
    let recording = bench.scratch.file("one.jsonl");
    let events = long::write(&recording, 3_000)?;
    let mut section = Section::new("Growth with the recordings that are compared", GOAL, events, 1);
    section.columns = &["CPU of compare, each", "memory"];
    for count in steps(1, 4, effort) {
        let folder = bench.scratch.folder(format!("{count}-copies"))?;
        for number in 0..count {
            fs::hard_link(&recording, folder.join(format!("{number}.jsonl")))?;
        }
        let used = used(bench, &["compare", &format!("group={}/*.jsonl", folder.display())])?;
        let cells = vec![Cell::Nanoseconds(used.cpu_ns / count as f64), used.memory()];
        row(&mut section, count, "recordings", cells);
    }
    Ok(section)
}

/// What names cost that the tree resolved, each with a connection to its own address.
fn names(bench: &Bench, effort: Effort) -> Result<Section> {
    let mut section = Section::new("Growth with the names that were resolved", GOAL, 1, 1);
    section.columns = &["CPU of report, each", "memory"];
    for names in steps(10, 5, effort) {
        let file = bench.scratch.file("names.jsonl");
        long::write_names(&file, u32::try_from(names)?)?;
        let used = used(bench, &["report", &file.display().to_string()])?;
        let cells = vec![Cell::Nanoseconds(used.cpu_ns / names as f64), used.memory()];
        row(&mut section, names, "names", cells);
    }
    Ok(section)
}

/// What tracer used for this. What it prints is thrown away: kept here, it would be memory of this
/// process, which counts as that of the next one it starts.
pub(super) fn used(bench: &Bench, arguments: &[&str]) -> Result<Use> {
    let mut words: Vec<String> =
        ["sh", "-c", "exec \"$@\" > /dev/null", "sh"].map(str::to_owned).into();
    words.push(bench.tracer.display().to_string());
    words.extend(arguments.iter().map(ToString::to_string));
    let (output, used) = tools::run(&mut bench.anywhere(&words)?)?;
    ensure!(
        // A recording of these need not prove anything.
        matches!(output.status.code(), Some(0 | 10 | 11)),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(used)
}
