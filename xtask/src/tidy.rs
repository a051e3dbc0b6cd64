//! Formatting and lints, for both targets.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    build,
    command::{self, IfFails},
    layout::Layout,
    setup::{self, Toolchain},
    steps::{Steps, counting_nothing},
    tally::Tally,
};

pub(crate) fn task(layout: &Layout) -> Result<ExitCode> {
    let toolchain = setup::toolchain_only(layout)?;
    let mut steps = Steps::begin();
    checks(layout, &toolchain, &mut steps);
    Ok(steps.end())
}

pub(crate) fn checks(layout: &Layout, toolchain: &Toolchain, steps: &mut Steps) {
    steps.step("formatting", || counting_nothing(formatting(layout)?));
    steps.step("lints", || counting_nothing(lints(layout)?));
    steps.step("lints of the kernel side", || kernel_side_lints(layout, toolchain));
}

fn formatting(layout: &Layout) -> Result<()> {
    let if_fails = IfFails { it_means: "some file is not formatted", remedy: "run `cargo fmt`" };
    command::run_shown(command::host_cargo(layout).args(["fmt", "--all", "--check"]), if_fails)
}

fn lints(layout: &Layout) -> Result<()> {
    let mut cargo = command::host_cargo(layout);
    cargo.args(["clippy", "--workspace", "--all-targets", "--target-dir"]).arg(layout.target());
    build::use_stand_in(layout, &mut cargo)?;
    run_clippy(&mut cargo)
}

/// Skipped if this toolchain has no clippy.
fn kernel_side_lints(layout: &Layout, toolchain: &Toolchain) -> Result<((), Tally)> {
    if !toolchain.has_clippy() {
        println!(
            "skipped: lints of the kernel side (its compiler comes without clippy; with rustup: \
             rustup component add clippy --toolchain nightly)"
        );
        return Ok(((), Tally::ONE_SKIPPED));
    }
    let mut cargo = toolchain.cargo(layout);
    build::select_bpf(cargo.arg("clippy"), layout, "probes,debug-log");
    counting_nothing(run_clippy(&mut cargo)?)
}

fn run_clippy(cargo: &mut Command) -> Result<()> {
    let if_fails = IfFails {
        it_means: "the code does not compile or has lints",
        remedy: "mend what is shown above; an exception is an `#[expect(..., reason = ...)]`",
    };
    command::run_shown(cargo.args(["--", "-Dwarnings"]), if_fails)
}
