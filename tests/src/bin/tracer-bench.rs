//! Measures tracer beside what one would use instead.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tracer_tests::{
    bench::{self, Effort, Part, table::Section, tools::Bench},
    document, tool,
};

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
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Put the tables into this document too, each part in its place
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    #[arg(value_name = "PART", help = format!("Only these parts: {}", Part::ALL.map(Part::name).join(", ")))]
    parts: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Markdown,
    Json,
}

/// Where it was measured, and with what.
#[derive(Debug, Serialize)]
struct Machine {
    kernel: String,
    processor: String,
    processors: usize,
    /// What each program says that it is.
    programs: Vec<String>,
    quick: bool,
}

#[derive(Debug, Serialize)]
struct Measured {
    part: &'static str,
    sections: Vec<Section>,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    parts: Vec<Measured>,
}

fn main() -> ExitCode {
    tool::exit_code("tracer-bench", run(&Options::parse()))
}

fn run(options: &Options) -> Result<bool> {
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    let tracer = tool::tracer(&options.tracer)?;
    let known = Part::ALL.map(Part::name);
    for part in &options.parts {
        ensure!(known.contains(&part.as_str()), "no part `{part}`; there are {}", known.join(", "));
    }
    let bench = Bench::new(tracer)?;
    let wanted =
        |part: &str| options.parts.is_empty() || options.parts.iter().any(|name| name == part);
    let mut report = Report { machine: machine(&bench, effort, options.quick)?, parts: Vec::new() };
    for part in Part::ALL.into_iter().filter(|part| wanted(part.name())) {
        eprintln!("{}", part.name());
        let sections = bench::sections(part, &bench, effort).context(part.name())?;
        let measured = Measured { part: part.name(), sections };
        if let Some(file) = &options.into {
            put(file, &report.machine, &measured)?;
        }
        report.parts.push(measured);
    }
    match options.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Format::Text => print!("{}", shown(&report, Section::text)),
        Format::Markdown => print!("{}", shown(&report, Section::markdown)),
    }
    Ok(true)
}

/// Replaces the tables of a part in the document.
fn put(file: &Path, machine: &Machine, measured: &Measured) -> Result<()> {
    let tables: String =
        measured.sections.iter().map(|section| section.markdown() + "\n").collect();
    let command = format!("cargo xtask bench --write {}", measured.part);
    document::put(file, &command, &(tables + &heading(machine)))
}

/// Where, with what, and how seriously to take it.
fn heading(machine: &Machine) -> String {
    let Machine { kernel, processor, processors, programs, quick } = machine;
    let doubt = if *quick { "A quick run: these numbers are no measurement.\n\n" } else { "" };
    let programs = programs.join("; ");
    format!("{doubt}On Linux {kernel}, {processors} x {processor}: {programs}.\n")
}

fn shown(report: &Report, section: impl Fn(&Section) -> String) -> String {
    let sections = report.parts.iter().flat_map(|part| &part.sections);
    let tables: String = sections.map(|each| section(each) + "\n").collect();
    heading(&report.machine) + "\n" + &tables
}

fn machine(bench: &Bench, effort: Effort, quick: bool) -> Result<Machine> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let tracer = bench.tracer.display().to_string();
    let peers = ["node", "bpftrace", "perf", "strace", "jq"];
    let programs =
        std::iter::once(tracer.as_str()).chain(peers.into_iter().filter(|_| effort.peers));
    Ok(Machine {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        processor: model.map_or("unknown processor", |(_, model)| model).to_owned(),
        processors: std::thread::available_parallelism()?.get(),
        programs: programs.map(|program| bench.version_of(program)).collect(),
        quick,
    })
}
