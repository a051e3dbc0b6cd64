//! What tracer costs on this machine, beside what one would use instead. Numbers are printed, not
//! judged.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{
    build,
    command::{self, IfFails},
    elevate::elevated,
    layout::Layout,
    setup,
    tally::Tally,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Few and short runs, without other tools: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Put the tables into docs/performance.md too
    #[arg(long, conflicts_with_all = ["quick", "format"])]
    write: bool,
    /// Only these: spawn, connect, untraced, resolver, http, node, work, start, losses, reading,
    /// growth
    #[arg(value_name = "PART")]
    parts: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Markdown,
    Json,
}

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    let tools = setup::everything(layout)?;
    if !options.quick
        && let Err(error) = setup::peers(layout)
    {
        eprintln!("setup: not there: {error:#}");
    }
    build::everything(layout, &tools, &build::Options::default())?;
    let mut bench = command(layout)?;
    if options.quick {
        bench.arg("--quick");
    }
    let format = options.format.to_possible_value();
    bench.arg("--format").args(format.as_ref().map(clap::builder::PossibleValue::get_name));
    if options.write {
        bench.arg("--into").arg(layout.root().join("docs/performance.md"));
    }
    bench.args(&options.parts);
    eprintln!("$ {}", command::render(&bench));
    let status = bench.status().context("cannot start the benchmark")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As a step of the tests: it must not rot.
pub(crate) fn step(layout: &Layout) -> Result<((), Tally)> {
    let mut bench = command(layout)?;
    bench.arg("--quick");
    let if_fails = IfFails {
        it_means: "some part of `cargo xtask bench` does not work any more",
        remedy: "read the messages above; `cargo xtask bench --quick PART` runs one part alone",
    };
    command::run_shown(&mut bench, if_fails)?;
    Ok(((), Tally { passed: 1, ..Tally::NOTHING }))
}

fn command(layout: &Layout) -> Result<std::process::Command> {
    let mut bench = elevated(layout, &layout.release("tracer-bench"))?;
    bench.arg("--tracer").arg(layout.release("tracer"));
    Ok(bench)
}
