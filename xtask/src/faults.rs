//! Injects faults into runs of tracer.

use std::process::ExitCode;

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
  cargo xtask faults                        # 1,000 runs, a few minutes
  cargo xtask faults --runs 90 --seed 7     # the same runs each time
  cargo xtask faults --runs 50 map          # only faults with this in their name

Exits with 1 if a run was wrong.")]
pub(crate) struct Options {
    #[arg(long, default_value_t = 1_000)]
    runs: u64,
    /// Everything follows from it; without it, another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// Put the table into docs/conformance.md too
    #[arg(long, conflicts_with = "filter")]
    write: bool,
    /// Only faults with this in their name
    #[arg(value_name = "WORDS")]
    filter: Option<String>,
}

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    let tools = setup::everything(layout)?;
    build::everything(layout, &tools, &build::Options::default())?;
    let mut program = command(layout, options.runs)?;
    if let Some(seed) = options.seed {
        program.arg(format!("--seed={seed}"));
    }
    if options.write {
        program.arg("--into").arg(layout.root().join("docs/conformance.md"));
    }
    program.args(&options.filter);
    eprintln!("$ {}", command::render(&program));
    let status = program.status().context("cannot start the campaign")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As a step of the tests: some of each, others each time.
pub(crate) fn step(layout: &Layout) -> Result<((), Tally)> {
    const RUNS: u64 = 36;
    let if_fails = IfFails {
        it_means: "something that was missing was not told exactly, or a claim was proven all the same",
        remedy: "read the messages above; `cargo xtask faults --runs N --seed S`, with the seed that was \
                 printed, does the same again",
    };
    command::run_shown(&mut command(layout, RUNS)?, if_fails)?;
    Ok(((), Tally { passed: 1, ..Tally::NOTHING }))
}

fn command(layout: &Layout, runs: u64) -> Result<std::process::Command> {
    let mut program = elevated(layout, &layout.release("tracer-faults"))?;
    program.arg("--tracer").arg(layout.release("tracer")).arg(format!("--runs={runs}"));
    Ok(program)
}
