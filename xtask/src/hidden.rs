//! Prints the table of hidden connections.

use std::process::ExitCode;

use anyhow::Result;

use crate::{layout::Layout, tool::Tool};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Put the table into docs/hidden-connections.md too
    #[arg(long)]
    write: bool,
    /// Only rows with this in their name
    #[arg(value_name = "WORDS", conflicts_with = "write")]
    filter: Option<String>,
}

const TOOL: Tool = Tool { program: "tracer-hidden", document: "docs/hidden-connections.md" };

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    TOOL.task(layout, options.write, &options.filter)
}
