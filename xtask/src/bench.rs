//! What tracer costs on this machine, beside what one would use instead. Numbers are printed, not
//! judged.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use crate::{command::IfFails, layout::Layout, setup, tally::Tally, tool::Tool};

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
    /// Only these: spawn, connect, programs, untraced, resolver, http, node, work, start, losses,
    /// memory, reading, growth
    #[arg(value_name = "PART")]
    parts: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Markdown,
    Json,
}

const TOOL: Tool = Tool { program: "tracer-bench", document: "docs/performance.md" };
const QUICK: &str = "--quick";

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    if !options.quick
        && let Err(error) = setup::peers(layout)
    {
        eprintln!("setup: not there: {error:#}");
    }
    let format = options.format.to_possible_value();
    let mut arguments: Vec<&str> = vec!["--format"];
    arguments.extend(format.as_ref().map(clap::builder::PossibleValue::get_name));
    if options.quick {
        arguments.push(QUICK);
    }
    arguments.extend(options.parts.iter().map(String::as_str));
    TOOL.task(layout, options.write, arguments)
}

/// As a step of the tests: it must not rot.
pub(crate) fn step(layout: &Layout) -> Result<((), Tally)> {
    let if_fails = IfFails {
        it_means: "some part of `cargo xtask bench` does not work any more",
        remedy: "read the messages above; `cargo xtask bench --quick PART` runs one part alone",
    };
    TOOL.step(layout, QUICK, if_fails)
}
