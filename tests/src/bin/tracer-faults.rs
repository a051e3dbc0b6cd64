//! Injects faults into runs of tracer and checks what it makes of them.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, ensure};
use clap::Parser;
use tracer_tests::{document, faults::Campaign, tool};

/// Runs tracer again and again, each time with something failing, and checks that what is missing is told
/// exactly and that nothing is proven then. Exits with 1 if a run was wrong, or if a fault had its effect in
/// none of many runs; where they were too few to tell, it says so. Needs root.
#[derive(Debug, Parser)]
#[command(name = "tracer-faults")]
struct Options {
    /// The tracer to try
    #[arg(long, value_name = "FILE")]
    tracer: PathBuf,
    #[arg(long, default_value_t = 1_000)]
    runs: u64,
    /// Everything follows from it; without it, another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// So many runs at a time
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Put the table into this document too
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Only faults with this in their name
    #[arg(value_name = "WORDS", default_value = "")]
    filter: String,
}

fn main() -> ExitCode {
    tool::exit_code("tracer-faults", run(&Options::parse()))
}

fn run(options: &Options) -> Result<bool> {
    let tracer = tool::tracer(&options.tracer)?;
    let drawn = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |since| since.subsec_nanos().into())
    };
    let seed = options.seed.unwrap_or_else(drawn);
    eprintln!("{} runs, seed {seed}", options.runs);
    let campaign = Campaign::run(&tracer, seed, options.runs, options.jobs, &options.filter)?;
    let text = format!("{} runs, seed {seed}.\n\n{}", options.runs, campaign.table());
    println!("{text}");
    let (failures, untried) = (campaign.failures(), campaign.untried());
    for line in failures.iter().chain(&untried) {
        eprintln!("  {line}");
    }
    let all_well = failures.is_empty();
    if let Some(file) = options.into.as_deref().filter(|_| all_well) {
        ensure!(
            untried.is_empty(),
            "{} is left as it was, because of what was not tried or shown: ask for more runs (--runs)",
            file.display()
        );
        let where_and_when = document::where_and_when(&[])?;
        document::put(file, "cargo xtask faults --write", &format!("{where_and_when}{text}"))?;
    }
    Ok(all_well)
}
