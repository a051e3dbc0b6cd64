//! Compares what tracer records with what strace and the kernel's counters say.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use tracer_tests::{
    Skip,
    conformance::{self, GroundTruth, WORKLOADS, Workload, table},
    document, tool,
};

/// Runs real workloads under tracer, strace and perf at the same time, and prints what they agree on.
/// Exits with 1 if there is a difference that no rule explains, if a workload did not do its work, or if
/// none was run; with `--into` if any was not. Needs root.
#[derive(Debug, Parser)]
#[command(name = "tracer-conformance")]
struct Options {
    /// The tracer to try
    #[arg(long, value_name = "FILE")]
    tracer: PathBuf,
    /// Only workloads that take seconds
    #[arg(long)]
    quick: bool,
    /// Put the tables into this document too
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Keep the recording and the logs of each workload in this folder, and in full length what rules
    /// explain
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Only workloads with this in their name
    #[arg(value_name = "WORKLOAD")]
    filter: Option<String>,
}

fn main() -> ExitCode {
    tool::exit_code("tracer-conformance", run(&Options::parse()))
}

fn run(options: &Options) -> Result<bool> {
    let tracer = tool::tracer(&options.tracer)?;
    let filter = options.filter.as_deref().unwrap_or_default();
    let chosen: Vec<&Workload> = WORKLOADS
        .iter()
        .filter(|workload| workload.name.contains(filter) && (workload.is_quick || !options.quick))
        .collect();
    let names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
    ensure!(!chosen.is_empty(), "no workload `{filter}`; there are {}", names.join(", "));
    let whole = options.filter.is_none() && !options.quick;
    ensure!(whole || options.into.is_none(), "only all workloads make the document");
    if let Some(folder) = &options.keep {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let truth = GroundTruth::find()?;
    let (mut lines, mut all_well, mut were_run) = (Vec::new(), true, false);
    for workload in chosen {
        eprintln!("{}", workload.name);
        let name = workload.name;
        let outcome = conformance::run(&tracer, workload, &truth, options.keep.as_deref());
        let outcome = match outcome {
            Ok(outcome) => {
                were_run = true;
                all_well &= report(name, &outcome.failures(workload));
                Ok(outcome)
            }
            Err(error) => match error.downcast::<Skip>() {
                Ok(skip) if options.into.is_some() => {
                    let why = format!("{skip}: the document is of all workloads");
                    all_well = report(name, std::slice::from_ref(&why));
                    Err(why)
                }
                Ok(skip) => {
                    println!("skipped: {name}: {skip}");
                    Err(skip.to_string())
                }
                Err(error) => {
                    all_well = report(name, &[format!("{error:#}")]);
                    Err(format!("{error:#}"))
                }
            },
        };
        lines.push((workload, outcome));
    }
    let text = table::render(&lines);
    println!("{text}");
    ensure!(were_run || !all_well, "no workload was run, so nothing was compared");
    if let Some(file) = options.into.as_deref().filter(|_| all_well) {
        put(file, &text)?;
    }
    Ok(all_well)
}

/// Whether it passed, in words that xtask counts; the first failures.
fn report(name: &str, failures: &[String]) -> bool {
    const SHOWN: usize = 20;
    for failure in failures.iter().take(SHOWN) {
        eprintln!("  {failure}");
    }
    if failures.len() > SHOWN {
        eprintln!("  and {} more", failures.len() - SHOWN);
    }
    println!("{}: {name}", if failures.is_empty() { "passed" } else { "failed" });
    failures.is_empty()
}

fn put(file: &Path, text: &str) -> Result<()> {
    let where_and_when = document::where_and_when(&["strace", "perf", "node"])?;
    document::put(file, "cargo xtask conformance --write", &format!("{where_and_when}\n{text}"))
}
