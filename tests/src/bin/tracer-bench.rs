//! Measures tracer beside what one would use instead.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tracer_tests::bench::{self, Effort, Part, table::Section};

/// Prints tables of costs and losses. Needs root, two processors, and nothing else running.
#[derive(Debug, Parser)]
#[command(name = "tracer-bench")]
struct Options {
    /// The tracer to measure
    #[arg(long, value_name = "FILE")]
    tracer: PathBuf,
    /// Few and short runs: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,
    #[arg(long, value_enum, default_value = "markdown")]
    format: Format,
    /// Only these parts: spawn, connect, untraced, start, losses
    #[arg(value_name = "PART")]
    parts: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Markdown,
    Json,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
struct Machine {
    kernel: String,
    processor: String,
    processors: usize,
    quick: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    sections: Vec<Section>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tracer-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "it needs root: run it with sudo");
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    let tracer = fs::canonicalize(&options.tracer)
        .with_context(|| format!("there is no {}", options.tracer.display()))?;
    for part in &options.parts {
        let known = Part::ALL.map(Part::name);
        ensure!(known.contains(&part.as_str()), "no part `{part}`; there are {}", known.join(", "));
    }
    let bench = bench::bench(tracer)?;
    let wanted = |part: &Part| {
        options.parts.is_empty() || options.parts.iter().any(|name| name == part.name())
    };
    let mut sections = Vec::new();
    for part in Part::ALL.into_iter().filter(wanted) {
        eprintln!("{}", part.name());
        sections.push(bench::section(part, &bench, effort).context(part.name())?);
    }
    let report = Report { machine: machine(options.quick)?, sections };
    match options.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Format::Markdown => {
            let Machine { kernel, processor, processors, quick } = &report.machine;
            println!("Linux {kernel}, {processors} x {processor}\n");
            if *quick {
                println!("A quick run: these numbers are no measurement.\n");
            }
            for section in &report.sections {
                println!("{}", section.markdown());
            }
        }
    }
    Ok(())
}

fn machine(quick: bool) -> Result<Machine> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(Machine {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        processor: model.map_or("unknown processor", |(_, model)| model).to_owned(),
        processors: std::thread::available_parallelism()?.get(),
        quick,
    })
}
