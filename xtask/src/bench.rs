//! How fast tracer is on this machine. Numbers are printed, not judged.

use anyhow::Result;
use clap::ValueEnum;

use crate::{
    build,
    command::{self, IfFails},
    layout::Layout,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What to measure
    #[arg(value_enum, value_name = "WHAT")]
    what: What,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// `tracer verify` over a million events
    Verify,
}

impl What {
    /// The example program of tracer's that measures it.
    fn example(self) -> &'static str {
        match self {
            What::Verify => "verify-rate",
        }
    }
}

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<()> {
    build::task(layout, &build::Options::default())?;
    let mut cargo = command::host_cargo(layout);
    cargo.args(["run", "--quiet", "--release", "--package", "tracer"]);
    cargo.args(["--example", options.what.example()]);
    cargo.arg("--target-dir").arg(layout.target());
    let if_fails = IfFails {
        it_means: "there is no measurement",
        remedy: "read the messages above; it needs about 1 GB in the folder for temporary files",
    };
    command::run_shown(&mut cargo, if_fails)
}
