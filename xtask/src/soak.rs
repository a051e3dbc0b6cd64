//! Keeps tracer busy for a long time.

use std::process::ExitCode;

use anyhow::Result;

use crate::{layout::Layout, tool::Tool};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask soak                 # 10 minutes with every processor saturated
  cargo xtask soak --seconds 3600
  cargo xtask soak --write         # and put the result into docs/conformance.md

Exits with 1 if an event was lost, the recording has others than the load made, memory grew, or the
verdict is not proven.")]
pub(crate) struct Options {
    /// 30 at least
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Put the result into docs/conformance.md too
    #[arg(long)]
    write: bool,
}

const TOOL: Tool = Tool { program: "tracer-soak", document: "docs/conformance.md" };

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    TOOL.task(layout, options.write, [format!("--seconds={}", options.seconds)])
}
