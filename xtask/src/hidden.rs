//! Prints the table of hidden connections.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{build, command, elevate::elevated, layout::Layout, setup};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Put the table into docs/hidden-connections.md too
    #[arg(long)]
    write: bool,
    /// Only rows with this in their name
    #[arg(value_name = "WORDS", conflicts_with = "write")]
    filter: Option<String>,
}

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    let tools = setup::everything(layout)?;
    build::everything(layout, &tools, &build::Options::default())?;
    let mut table = elevated(layout, &layout.release("tracer-hidden"))?;
    table.arg("--tracer").arg(layout.release("tracer"));
    if options.write {
        table.arg("--into").arg(layout.root().join("docs/hidden-connections.md"));
    }
    table.args(&options.filter);
    eprintln!("$ {}", command::render(&table));
    let status = table.status().context("cannot start the table's program")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
