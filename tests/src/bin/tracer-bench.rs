//! Measures tracer beside what one would use instead.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

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
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The program that measures the rate of `tracer verify`
    #[arg(long, value_name = "FILE")]
    verify_rate: PathBuf,
    /// Put the tables into this document too
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Only these parts: spawn, connect, untraced, resolver, http, node, start, losses,
    /// growth, verify
    #[arg(value_name = "PART")]
    parts: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
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
    /// What the program that measures `tracer verify` printed.
    verify: Option<String>,
}

/// The part that is not [`Part`]'s: a program of its own.
const VERIFY: &str = "verify";
const BEGIN: &str = "<!-- measured: cargo xtask bench --write -->\n";
const END: &str = "<!-- end -->";

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
    let known: Vec<&str> = Part::ALL.map(Part::name).into_iter().chain([VERIFY]).collect();
    for part in &options.parts {
        ensure!(known.contains(&part.as_str()), "no part `{part}`; there are {}", known.join(", "));
    }
    let bench = bench::bench(tracer)?;
    let wanted =
        |part: &str| options.parts.is_empty() || options.parts.iter().any(|name| name == part);
    let mut sections = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| wanted(part.name())) {
        eprintln!("{}", part.name());
        sections.push(bench::section(part, &bench, effort).context(part.name())?);
    }
    let verify = wanted(VERIFY).then(|| verify(&options.verify_rate, options.quick));
    let report = Report { machine: machine(options.quick)?, sections, verify: verify.transpose()? };
    match options.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Format::Text => print!("{}", text(&report)),
        Format::Markdown => print!("{}", markdown(&report)),
    }
    if let Some(file) = &options.into {
        let context = || format!("cannot change {}", file.display());
        let document = fs::read_to_string(file).with_context(context)?;
        let (before, rest) = document.split_once(BEGIN).context("the document has no tables")?;
        let (_, after) = rest.split_once(END).context("the document's tables have no end")?;
        let tables = markdown(&report);
        fs::write(file, format!("{before}{BEGIN}\n{tables}\n{END}{after}"))
            .with_context(context)?;
    }
    Ok(())
}

fn verify(program: &Path, quick: bool) -> Result<String> {
    const FEW_EVENTS: &str = "20000";
    eprintln!("{VERIFY}");
    let mut command = Command::new(program);
    command.args(quick.then_some(FEW_EVENTS));
    let output = command.output().context("cannot start it")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Where, and how seriously to take it.
fn heading(report: &Report) -> String {
    let Machine { kernel, processor, processors, quick } = &report.machine;
    let doubt = if *quick { "A quick run: these numbers are no measurement.\n\n" } else { "" };
    format!("Linux {kernel}, {processors} x {processor}\n\n{doubt}")
}

fn text(report: &Report) -> String {
    let mut text = heading(report);
    for section in &report.sections {
        text.push_str(&section.text());
        text.push('\n');
    }
    if let Some(verify) = &report.verify {
        text.push_str("tracer verify\n");
        text.extend(verify.lines().map(|line| format!("  {line}\n")));
    }
    text
}

fn markdown(report: &Report) -> String {
    let mut text = heading(report);
    for section in &report.sections {
        text.push_str(&section.markdown());
        text.push('\n');
    }
    if let Some(verify) = &report.verify {
        text.push_str("### `tracer verify`\n\n```text\n");
        text.push_str(verify);
        text.push_str("```\n");
    }
    text
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
