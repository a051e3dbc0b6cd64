//! From the start of a tool to its end, around a command that does nothing.

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use super::{
    Effort,
    load::{Deed, LOAD_CPU, Loads},
    stats::median,
    table::{Cell, Section},
    tools::{self, Bench},
};
use crate::Skip;

/// What one start took.
struct Started {
    /// Until the command's first instructions.
    until_command_ns: f64,
    until_end_ns: f64,
    cpu_ns: f64,
}

pub(super) fn section(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    let mut section = Section::new(
        "From the start of the tool to its end, around a command that does nothing",
        "tracer <= 120 ms, and <= 60 ms until the command runs",
        1,
        effort.pairs,
    );
    section.columns = &["until the command runs", "wall", "CPU"];
    let tracer = bench.tracer.display().to_string();
    let command = loads.command(Deed::Clock, 1, LOAD_CPU);
    let line = command.join(" ");
    let probe = "tracepoint:sched:sched_process_exec { @ = count(); }";
    let cases: [(&str, &[&str], &[&str]); 4] = [
        ("nothing", &[], &[]),
        ("tracer run", &[&tracer, "run", "-q", "--"], &[]),
        ("tracer run -p no-aws-cli", &[&tracer, "run", "-q", "-p", "no-aws-cli", "--"], &[]),
        ("bpftrace, one probe", &["bpftrace", "-c"], &[&line, "-e", probe]),
    ];
    for (name, before, own) in cases {
        if name.starts_with("bpftrace") && !effort.peers {
            continue;
        }
        let words = before.iter().chain(own).map(|word| (*word).to_owned());
        let mut words: Vec<String> = words.collect();
        if own.is_empty() {
            words.extend_from_slice(&command);
        }
        let measured = (0..effort.pairs).map(|_| start(bench, &words)).collect::<Result<Vec<_>>>();
        section.add(name, measured, |runs| {
            let of = |pick: fn(&Started) -> f64| {
                Cell::nanoseconds(median(&runs.iter().map(pick).collect::<Vec<_>>()))
            };
            vec![of(|run| run.until_command_ns), of(|run| run.until_end_ns), of(|run| run.cpu_ns)]
        })?;
    }
    Ok(section)
}

fn start(bench: &Bench, words: &[String]) -> Result<Started> {
    // As somebody starts it: it has all processors.
    let mut command = bench.anywhere(words)?;
    let started_ns = now_ns();
    let (output, used) = tools::run(&mut command)?;
    let ended_ns = now_ns();
    ensure!(
        matches!(output.status.code(), Some(0 | 11)),
        Skip(format!(
            "it ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default()
        ))
    );
    let said = String::from_utf8_lossy(&output.stdout);
    // Other lines are the tool's.
    let command_ns: Option<f64> = said.lines().find_map(|line| {
        let numbers: Vec<f64> = line.split(' ').map_while(|word| word.parse().ok()).collect();
        (numbers.len() == 3).then(|| numbers[0])
    });
    let command_ns = command_ns.with_context(|| format!("the command printed {said:?}"))?;
    Ok(Started {
        until_command_ns: command_ns - started_ns,
        until_end_ns: ended_ns - started_ns,
        cpu_ns: used.cpu_ns,
    })
}

fn now_ns() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}
