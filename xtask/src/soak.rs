//! Keeps tracer busy for a long time.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{build, command, elevate::elevated, layout::Layout, setup};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask soak                 # 10 minutes with every processor saturated
  cargo xtask soak --seconds 3600
  cargo xtask soak --write         # and put the result into docs/conformance.md

Exits with 1 if an event was lost, memory grew, or the verdict is not proven.")]
pub(crate) struct Options {
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Put the result into docs/conformance.md too
    #[arg(long)]
    write: bool,
}

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    let tools = setup::everything(layout)?;
    build::everything(layout, &tools, &build::Options::default())?;
    let mut program = elevated(layout, &layout.release("tracer-soak"))?;
    program.arg("--tracer").arg(layout.release("tracer"));
    program.arg(format!("--seconds={}", options.seconds));
    if options.write {
        program.arg("--into").arg(layout.root().join("docs/conformance.md"));
    }
    eprintln!("$ {}", command::render(&program));
    let status = program.status().context("cannot start the load")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
