//! The tests of the ABI under Miri, an interpreter that finds undefined behaviour: uninitialised
//! padding that is read, references that are not aligned, bytes that are no value of their type.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    command::{self, IfFails},
    layout::Layout,
    setup::{self, Toolchain},
    steps::Steps,
    tally::Tally,
    test,
};

pub(crate) fn task(layout: &Layout) -> Result<ExitCode> {
    let toolchain = setup::toolchain_only(layout)?;
    let mut steps = Steps::begin();
    steps.step("the ABI under Miri", || step(layout, &toolchain));
    Ok(steps.end_with_tally())
}

/// Skipped where there is no Miri.
pub(crate) fn step(layout: &Layout, toolchain: &Toolchain) -> Result<((), Tally)> {
    if let Err(error) = toolchain.add_miri(layout) {
        let reason = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
        println!("skipped: the ABI under Miri: {reason}");
        return Ok(((), Tally::ONE_SKIPPED));
    }
    // The standard library that it interprets is built once, and kept there.
    let library = layout.tools().join("miri");
    let cargo = || {
        let mut cargo = toolchain.cargo(layout);
        cargo.env("XDG_CACHE_HOME", &library).env_remove("RUSTC");
        cargo.arg("miri");
        cargo
    };
    let if_fails = IfFails {
        it_means: "the standard library cannot be built for Miri",
        remedy: "remove target/tools/miri and try again; it takes the component rust-src",
    };
    command::run_shown(cargo().arg("setup"), if_fails)?;
    let mut tests = cargo();
    tests.args(["test", "--package=tracer-ebpf", "--lib", "--tests", "--target-dir"]);
    tests.arg(layout.target().join("miri"));
    Ok(((), test::count(&mut tests)?))
}
