//! The project's tasks, one module each. `cargo xtask --help` lists them.
//!
//! Every task builds on the ones before it: `run` and `test` set up and build first, and what is
//! already done is skipped, so any of them can be the first command in a fresh clone.

mod bench;
mod build;
mod command;
mod conformance;
mod elevate;
mod env;
mod evasions;
mod faults;
mod fuzz;
mod hidden;
mod layout;
mod miri;
mod pictures;
mod run;
mod setup;
mod soak;
mod steps;
mod tally;
mod test;
mod tidy;
mod tool;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::layout::Layout;

/// Status of `run` when tracer could not even be started, the same as tracer's own for "it failed".
const EXIT_TRACER_FAILED: u8 = 125;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's tasks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or install what building and testing need, below target/tools
    Setup,
    /// Set up, then build the eBPF object, tracer and the test programs
    Build(build::Options),
    /// Set up, build, then run tracer (elevated): the bundled session, or the arguments after `--`
    Run(run::Options),
    /// Set up, build, then run every check and every test
    Test(test::Options),
    /// Set up, build, then run the integration tests on other kernels, in virtual machines
    /// (docs/kernel-support.md)
    Vm(vm::Options),
    /// Set up, build, then take the documentation's pictures anew
    Pictures,
    /// Set up, build, then measure what tracer costs (docs/performance.md)
    Bench(bench::Options),
    /// Set up, build, then print what becomes of each disguise and escape (docs/evasions.md)
    Evasions(evasions::Options),
    /// Set up, build, then print what is recorded of each hidden connection
    /// (docs/hidden-connections.md)
    Hidden(hidden::Options),
    /// Set up, build, then compare tracer with strace and the kernel's counters on real workloads
    /// (docs/conformance.md)
    Conformance(conformance::Options),
    /// Set up, build, then inject faults into runs of tracer (docs/conformance.md)
    Faults(faults::Options),
    /// Set up, build, then keep tracer busy for a long time (docs/conformance.md)
    Soak(soak::Options),
    /// Set up, then fuzz everything that reads bytes of others (tests/fuzz)
    Fuzz(fuzz::Options),
    /// Set up, then run the tests of the ABI under Miri, which sees undefined behaviour
    Miri,
    /// Check formatting and lints only
    Tidy,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let failure_status = match cli.task {
        Task::Run(_) => EXIT_TRACER_FAILED,
        Task::Setup
        | Task::Build(_)
        | Task::Test(_)
        | Task::Vm(_)
        | Task::Pictures
        | Task::Bench(_)
        | Task::Evasions(_)
        | Task::Hidden(_)
        | Task::Conformance(_)
        | Task::Faults(_)
        | Task::Soak(_)
        | Task::Fuzz(_)
        | Task::Miri
        | Task::Tidy => 1,
    };
    let layout = Layout::of_workspace();
    let outcome = match cli.task {
        Task::Setup => setup::everything(&layout).map(|_| ExitCode::SUCCESS),
        Task::Build(options) => build::task(&layout, &options).map(|()| ExitCode::SUCCESS),
        Task::Run(options) => run::task(&layout, &options),
        Task::Test(options) => test::task(&layout, &options),
        Task::Vm(options) => vm::task(&layout, &options),
        Task::Pictures => pictures::task(&layout),
        Task::Bench(options) => bench::task(&layout, &options),
        Task::Evasions(options) => evasions::task(&layout, &options),
        Task::Hidden(options) => hidden::task(&layout, &options),
        Task::Conformance(options) => conformance::task(&layout, &options),
        Task::Faults(options) => faults::task(&layout, &options),
        Task::Soak(options) => soak::task(&layout, &options),
        Task::Fuzz(options) => fuzz::task(&layout, &options),
        Task::Miri => miri::task(&layout),
        Task::Tidy => tidy::task(&layout),
    };
    outcome.unwrap_or_else(|error| {
        show(&error);
        ExitCode::from(failure_status)
    })
}

fn show(error: &anyhow::Error) {
    // Not `{error:?}`: that would add a backtrace of xtask, which helps nobody.
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}
