//! Formatting and lints, for both targets.

use std::process::Command;

use anyhow::Result;

use crate::{
    build,
    command::{self, IfFails},
    layout::Layout,
    setup::{self, Toolchain},
};

pub(crate) fn task(layout: &Layout) -> Result<()> {
    let toolchain = setup::toolchain_only(layout)?;
    formatting(layout)?;
    lints(layout)?;
    kernel_side_lints(layout, &toolchain)?;
    Ok(())
}

pub(crate) fn formatting(layout: &Layout) -> Result<()> {
    let if_fails = IfFails { it_means: "some file is not formatted", remedy: "run `cargo fmt`" };
    command::run_shown(command::host_cargo(layout).args(["fmt", "--all", "--check"]), if_fails)
}

pub(crate) fn lints(layout: &Layout) -> Result<()> {
    let mut cargo = command::host_cargo(layout);
    cargo.args(["clippy", "--workspace", "--all-targets", "--target-dir"]).arg(layout.target());
    if !layout.bpf_object().exists() {
        // Lints need no real object, only something to include.
        let stand_in = layout.target().join("tmp").join("no-object");
        setup::replace_if_different(&stand_in, b"")?;
        cargo.env("TRACER_EBPF_OBJECT", stand_in);
    }
    run_clippy(&mut cargo)
}

/// `false` if this toolchain has no clippy: then there is nothing to say about the kernel side.
pub(crate) fn kernel_side_lints(layout: &Layout, toolchain: &Toolchain) -> Result<bool> {
    if !toolchain.has_clippy() {
        println!(
            "skipped: lints of the kernel side (its compiler comes without clippy; with rustup: \
             rustup component add clippy --toolchain nightly)"
        );
        return Ok(false);
    }
    let mut cargo = toolchain.cargo(layout);
    build::select_bpf(cargo.arg("clippy"), layout, "probes,debug-log");
    run_clippy(&mut cargo)?;
    Ok(true)
}

fn run_clippy(cargo: &mut Command) -> Result<()> {
    let if_fails = IfFails {
        it_means: "the code does not compile or has lints",
        remedy: "mend what is shown above; an exception is an `#[expect(..., reason = ...)]`",
    };
    command::run_shown(cargo.args(["--", "-Dwarnings"]), if_fails)
}
