//! Compares what tracer records of real workloads with what strace and the kernel's counters say.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Result;

use crate::{command::IfFails, layout::Layout, setup, tally::Tally, tool::Tool};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask conformance                        # all workloads, a few minutes
  cargo xtask conformance --quick
  cargo xtask conformance --keep target/logs python
  cargo xtask conformance --write                # and put the tables into docs/conformance.md

Exits with 1 if there is a difference that no rule explains, if a workload did not do its work, or if none
was run; with --write if any was not.")]
pub(crate) struct Options {
    /// Only workloads that take seconds
    #[arg(long)]
    quick: bool,
    /// Put the tables into docs/conformance.md too
    #[arg(long, conflicts_with_all = ["quick", "filter"])]
    write: bool,
    /// Keep the recording and the logs of each workload in this folder, and in full length what rules
    /// explain
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Only workloads with this in their name
    #[arg(value_name = "WORKLOAD")]
    filter: Option<String>,
}

const TOOL: Tool = Tool { program: "tracer-conformance", document: "docs/conformance.md" };
const QUICK: &str = "--quick";

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    install(layout, !options.quick);
    let mut arguments: Vec<OsString> = Vec::new();
    if options.quick {
        arguments.push(QUICK.into());
    }
    if let Some(folder) = &options.keep {
        arguments.extend(["--keep".into(), folder.into()]);
    }
    arguments.extend(options.filter.as_ref().map(OsString::from));
    TOOL.task(layout, options.write, arguments)
}

/// As a step of the tests.
pub(crate) fn step(layout: &Layout) -> Result<((), Tally)> {
    install(layout, false);
    let if_fails = IfFails {
        it_means: "tracer, strace and the kernel's counters do not say the same of a workload, or it did \
                   not do its work, or there is nothing to compare with",
        remedy: "read the differences above; `cargo xtask conformance --keep FOLDER WORKLOAD` runs one \
                 alone and keeps what each of them wrote",
    };
    TOOL.step(layout, QUICK, if_fails)
}

/// A workload that lacks its programs is skipped, and says so; without strace and perf all of it fails.
fn install(layout: &Layout, all: bool) {
    if let Err(error) = setup::conformance(layout, all) {
        eprintln!("setup: not there: {error:#}");
    }
}
