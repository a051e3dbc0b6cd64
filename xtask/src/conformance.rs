//! Compares what tracer records of real workloads with what strace and the kernel's counters say.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    build,
    command::{self, IfFails},
    elevate::elevated,
    layout::Layout,
    setup,
    tally::Tally,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask conformance                        # all workloads, a few minutes
  cargo xtask conformance --quick
  cargo xtask conformance --keep target/logs python
  cargo xtask conformance --write                # and put the tables into docs/conformance.md

Exits with 1 if there is a difference that no rule explains.")]
pub(crate) struct Options {
    /// Only workloads that take seconds
    #[arg(long)]
    quick: bool,
    /// Put the tables into docs/conformance.md too
    #[arg(long, conflicts_with_all = ["quick", "filter"])]
    write: bool,
    /// Keep the recording and the logs of each workload in this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Only workloads with this in their name
    #[arg(value_name = "WORKLOAD")]
    filter: Option<String>,
}

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    let tools = setup::everything(layout)?;
    if let Err(error) = setup::conformance(layout, !options.quick) {
        eprintln!("setup: not there: {error:#}");
    }
    build::everything(layout, &tools, &build::Options::default())?;
    let mut program = command(layout)?;
    if options.quick {
        program.arg("--quick");
    }
    if options.write {
        program.arg("--into").arg(layout.root().join("docs/conformance.md"));
    }
    if let Some(folder) = &options.keep {
        program.arg("--keep").arg(folder);
    }
    program.args(&options.filter);
    eprintln!("$ {}", command::render(&program));
    let status = program.status().context("cannot start the comparison")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As a step of the tests.
pub(crate) fn step(layout: &Layout) -> Result<((), Tally)> {
    if let Err(error) = setup::conformance(layout, false) {
        eprintln!("setup: not there: {error:#}");
    }
    let mut program = command(layout)?;
    program.arg("--quick");
    let if_fails = IfFails {
        it_means: "tracer, strace and the kernel's counters do not say the same of a workload",
        remedy: "read the differences above; `cargo xtask conformance --keep FOLDER WORKLOAD` runs one \
                 alone and keeps what each of them wrote",
    };
    command::run_shown(&mut program, if_fails)?;
    Ok(((), Tally { passed: 1, ..Tally::NOTHING }))
}

fn command(layout: &Layout) -> Result<std::process::Command> {
    let mut program = elevated(layout, &layout.release("tracer-conformance"))?;
    program.arg("--tracer").arg(layout.release("tracer"));
    Ok(program)
}
