//! Prints what is recorded of each hidden connection.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use tracer_tests::{
    Skip,
    hidden::{
        self,
        table::{self, Line},
    },
};

/// Runs each row of the table of hidden connections under tracer and prints the table as Markdown.
/// Needs root. Exits with 1 if a recording did not show what was demanded.
#[derive(Debug, Parser)]
#[command(name = "tracer-hidden")]
struct Options {
    /// The tracer to run
    #[arg(long, value_name = "FILE")]
    tracer: PathBuf,
    /// Put the table into this document too, unless something was not shown as demanded
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Only rows with this in their name
    #[arg(value_name = "WORDS", conflicts_with = "into")]
    filter: Option<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tracer-hidden: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    ensure!(rustix::process::geteuid().is_root(), "it needs root: run it with sudo");
    // Each row has a directory of its own.
    let tracer = fs::canonicalize(&options.tracer)
        .with_context(|| format!("there is no {}", options.tracer.display()))?;
    let filter = options.filter.as_deref().unwrap_or_default();
    let (mut lines, mut as_demanded) = (Vec::new(), true);
    for row in hidden::rows().filter(|row| row.name.contains(filter)) {
        eprintln!("{}", row.name);
        let not_tried = match hidden::trial(&tracer, row) {
            Ok(trial) => {
                if let Err(error) = trial.check(row) {
                    as_demanded = false;
                    eprintln!("  {error:#}");
                }
                None
            }
            Err(error) => Some(error.downcast::<Skip>().context(row.name)?.to_string()),
        };
        lines.push(Line { row, not_tried });
    }
    let text = table::render(&lines);
    println!("{text}");
    if let Some(file) = options.into.as_ref().filter(|_| as_demanded) {
        let context = || format!("cannot change {}", file.display());
        let document = fs::read_to_string(file).with_context(context)?;
        fs::write(file, table::replaced(&document, &text)?).with_context(context)?;
    }
    Ok(as_demanded)
}
