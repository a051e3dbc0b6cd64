//! How fast a recording is read, beside programs that read the same file.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{
    Effort, long,
    stats::median,
    table::{Cell, Section},
    tools::{self, Bench},
};
use crate::Skip;

const EVENTS: u64 = 1_000_000;

pub(super) fn section(bench: &Bench, effort: Effort) -> Result<Section> {
    let file = bench.scratch.file("long.jsonl");
    let events = long::write(&file, EVENTS / effort.divisor)?;
    let runs = effort.pairs.min(5);
    let mut section = Section::new(
        "Read a recording of an agent's session, events repeated",
        "tracer verify: 1,000,000 events a second",
        events,
        runs,
    );
    section.columns = &["wall", "events a second", "CPU", "memory"];
    let shown = file.display().to_string();
    let group = format!("group={shown}");
    let tracer = bench.tracer.display().to_string();
    let cases: [(&str, Vec<&str>); 5] = [
        ("tracer verify", vec![&tracer, "verify", &shown]),
        ("tracer report", vec![&tracer, "report", &shown]),
        ("tracer compare", vec![&tracer, "compare", &group]),
        ("jq, counting the lines", vec!["jq", "-n", "reduce inputs as $line (0; . + 1)", &shown]),
        ("sha256sum", vec!["sha256sum", &shown]),
    ];
    for (name, words) in cases {
        if !effort.peers && words[0] != tracer {
            continue;
        }
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let measured = (0..runs)
            .map(|_| {
                let mut command = bench.anywhere(&words)?;
                let started = Instant::now();
                let (output, used) = tools::run(&mut command)?;
                ensure!(output.status.success(), Skip(format!("it ended with {}", output.status)));
                Ok((started.elapsed().as_nanos() as f64, used))
            })
            .collect::<Result<Vec<_>>>();
        section.add(name, measured, |runs| {
            let wall = median(&runs.iter().map(|run| run.0).collect::<Vec<_>>());
            let cpu = median(&runs.iter().map(|run| run.1.cpu_ns).collect::<Vec<_>>());
            let rate = wall.map(|wall| format!("{:.0}", events as f64 * 1e9 / wall));
            vec![
                Cell::nanoseconds(wall),
                rate.map_or(Cell::Nothing, Cell::Words),
                Cell::nanoseconds(cpu),
                runs.iter()
                    .map(|run| run.1)
                    .max_by_key(|used| used.largest_bytes)
                    .map_or(Cell::Nothing, |used| used.memory()),
            ]
        })?;
    }
    Ok(section)
}
