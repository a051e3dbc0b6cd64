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
    conformance::{self, WORKLOADS, Workload, table},
    document, tool,
};

/// Runs real workloads under tracer, strace and perf at the same time, and prints what they agree on.
/// Exits with 1 if there is a difference that no rule explains. Needs root.
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
    /// Keep the recording and the logs of each workload in this folder
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
    if let Some(folder) = &options.keep {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let (mut lines, mut all_well) = (Vec::new(), true);
    for workload in chosen {
        eprintln!("{}", workload.name);
        let outcome = conformance::run(&tracer, workload, options.keep.as_deref());
        let outcome = match outcome {
            Ok(outcome) => {
                all_well &= report(&outcome.failures(workload));
                Ok(outcome)
            }
            Err(error) => match error.downcast::<Skip>() {
                Ok(skip) => {
                    eprintln!("  skipped: {skip}");
                    Err(skip.to_string())
                }
                Err(error) => {
                    all_well = report(&[format!("{error:#}")]);
                    Err(format!("{error:#}"))
                }
            },
        };
        lines.push((workload, outcome));
    }
    let text = table::render(&lines);
    println!("{text}");
    let whole = options.filter.is_none() && !options.quick;
    if let Some(file) = options.into.as_deref().filter(|_| all_well) {
        ensure!(whole, "only all workloads make the document");
        put(file, &text)?;
    }
    Ok(all_well)
}

/// The first of them; whether there are none.
fn report(failures: &[String]) -> bool {
    const SHOWN: usize = 20;
    for failure in failures.iter().take(SHOWN) {
        eprintln!("  {failure}");
    }
    if failures.len() > SHOWN {
        eprintln!("  and {} more", failures.len() - SHOWN);
    }
    failures.is_empty()
}

fn put(file: &Path, text: &str) -> Result<()> {
    let where_and_when = document::where_and_when(&["strace", "perf", "node"])?;
    document::put(file, "cargo xtask conformance --write", &format!("{where_and_when}\n{text}"))
}
