//! Prints what becomes of each disguise and escape, under tracer and under other tools.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use tracer_tests::{
    Skip, document,
    evasions::{
        self, Program, Row,
        peers::{self, Execsnoop, Seen},
        table::{self, Line, NOT_TRIED},
    },
    tool,
};

/// Runs each row of the table of disguises and escapes under tracer, strace and execsnoop, and prints
/// the table as Markdown. Needs root. Exits with 1 if tracer did not rule as demanded.
#[derive(Debug, Parser)]
#[command(name = "tracer-evasions")]
struct Options {
    /// The tracer to run
    #[arg(long, value_name = "FILE")]
    tracer: PathBuf,
    /// Put the table into this document too
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Only rows with this in their name
    #[arg(value_name = "WORDS", conflicts_with = "into")]
    filter: Option<String>,
}

fn main() -> ExitCode {
    tool::exit_code("tracer-evasions", run(&Options::parse()))
}

fn run(options: &Options) -> Result<bool> {
    let tracer = tool::tracer(&options.tracer)?;
    let mut execsnoop = Execsnoop::start();
    if let Err(error) = &execsnoop {
        eprintln!("execsnoop cannot trace here: {error:#}");
    }
    let filter = options.filter.as_deref().unwrap_or_default();
    let (mut lines, mut as_demanded) = (Vec::new(), true);
    for row in evasions::rows().filter(|row| row.name.contains(filter)) {
        eprintln!("{}", row.name);
        let (rulings, good) = rulings(&tracer, row).context(row.name)?;
        as_demanded &= good;
        let strace = seen(peers::strace(row));
        let execsnoop = match &mut execsnoop {
            Ok(execsnoop) => seen(execsnoop.watch(row)),
            Err(_) => "cannot trace".into(),
        };
        lines.push(Line { row, rulings, peers: [strace, execsnoop] });
    }
    let text = table::render(&lines);
    println!("{text}");
    if let Some(file) = &options.into {
        document::put(file, table::COMMAND, &text)?;
    }
    Ok(as_demanded)
}

/// The row's rulings, and whether they are those that it demands. What depends on what runs first is
/// shown as demanded, so that the table is the same every time.
fn rulings(tracer: &Path, row: &Row) -> Result<(Vec<(Program, String)>, bool)> {
    let (mut rulings, mut good) = (Vec::new(), true);
    for (program, expected) in row.cases() {
        let cell = match evasions::trial(tracer, row, program) {
            Ok(trial) => match trial.check(expected) {
                Ok(()) => expected.name(),
                Err(error) => {
                    good = false;
                    eprintln!("  {program:?}: {error}");
                    trial.ruling.name().into()
                }
            },
            Err(error) => {
                let skip = error.downcast::<Skip>();
                format!("{NOT_TRIED}: {}", skip.with_context(|| format!("{program:?}"))?)
            }
        };
        rulings.push((program, cell));
    }
    Ok((rulings, good))
}

fn seen(seen: Result<Seen>) -> String {
    match seen {
        Ok(seen) => seen.name().into(),
        Err(error) => match error.downcast::<Skip>() {
            Ok(skip) => format!("{NOT_TRIED}: {skip}"),
            Err(error) => {
                eprintln!("  {error:#}");
                NOT_TRIED.into()
            }
        },
    }
}
