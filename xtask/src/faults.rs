//! Injects faults into runs of tracer.

use std::process::ExitCode;

use anyhow::Result;

use crate::{command::IfFails, layout::Layout, tally::Tally, tool::Tool};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask faults                        # 1,000 runs, a few minutes
  cargo xtask faults --runs 90 --seed 7     # the same runs each time
  cargo xtask faults --runs 50 map          # only faults with this in their name

Exits with 1 if a run was wrong, or if a fault had its effect in none of many runs.")]
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

const TOOL: Tool = Tool { program: "tracer-faults", document: "docs/conformance.md" };

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    let mut arguments = vec![runs(options.runs)];
    arguments.extend(options.seed.map(|seed| format!("--seed={seed}")));
    arguments.extend(options.filter.clone());
    TOOL.task(layout, options.write, arguments)
}

/// As a step of the tests: some of each, others each time.
pub(crate) fn step(layout: &Layout) -> Result<((), Tally)> {
    const RUNS: u64 = 36;
    let if_fails = IfFails {
        it_means: "something that was missing was not told exactly, or a claim was proven all the same, or a \
                   fault had no effect in any of many runs",
        remedy: "read the messages above; `cargo xtask faults --runs N --seed S`, with the seed that was \
                 printed, does the same again",
    };
    TOOL.step(layout, &runs(RUNS), if_fails)
}

fn runs(count: u64) -> String {
    format!("--runs={count}")
}
