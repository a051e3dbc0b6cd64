//! Keeps tracer busy for a long time.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use tracer_tests::{document, soak, tool};

/// Saturates every processor with processes and connections while tracer records them. Exits with 1 if an
/// event was lost, if the recording has others than the load made, if memory grew, or if the verdict is not
/// proven. Needs root.
#[derive(Debug, Parser)]
#[command(name = "tracer-soak")]
struct Options {
    /// The tracer to try
    #[arg(long, value_name = "FILE")]
    tracer: PathBuf,
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Put the result into this document too
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

fn main() -> ExitCode {
    tool::exit_code("tracer-soak", run(&Options::parse()))
}

fn run(options: &Options) -> Result<bool> {
    let tracer = tool::tracer(&options.tracer)?;
    let soak = soak::run(&tracer, options.seconds)?;
    println!("{}", soak.sentence());
    let failures = soak.failures();
    for failure in &failures {
        eprintln!("  {failure}");
    }
    if let Some(file) = options.into.as_deref().filter(|_| failures.is_empty()) {
        let where_and_when = document::where_and_when(&[])?;
        let text = format!("{where_and_when}\n{}", soak.sentence());
        document::put(file, "cargo xtask soak --write", &text)?;
    }
    Ok(failures.is_empty())
}
