//! Prints what is recorded of each hidden connection.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;
use tracer_tests::{
    Skip, document,
    hidden::{
        self,
        table::{self, Line},
    },
    tool,
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
    tool::exit_code("tracer-hidden", run(&Options::parse()))
}

fn run(options: &Options) -> Result<bool> {
    let tracer = tool::tracer(&options.tracer)?;
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
        document::put(file, table::COMMAND, &text)?;
    }
    Ok(as_demanded)
}
