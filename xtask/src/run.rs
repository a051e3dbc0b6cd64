//! Runs tracer as built: the bundled session, or whatever arguments were given.
//!
//! xtask is replaced by the last command it prints. So its exit status, signals and standard input
//! are that command's own, and `cargo xtask run` exits as tracer does.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Result, anyhow};
use clap::ValueEnum;

use crate::{build, command, elevate::elevated, layout::Layout, setup};

const RECORDING: &str = "target/session.jsonl";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which API the agent of the bundled session talks to
    #[arg(long, value_enum, default_value_t = Mode::Bedrock)]
    mode: Mode,
    /// Let the agent of the bundled session call the aws CLI once, to see tracer find it
    #[arg(long)]
    shell_out: bool,
    /// Arguments for tracer, instead of the bundled session
    #[arg(last = true, value_name = "ARGS", conflicts_with_all = ["mode", "shell_out"])]
    arguments: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Bedrock,
    Direct,
    Guardrail,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Bedrock => "bedrock",
            Self::Direct => "direct",
            Self::Guardrail => "guardrail",
        }
    }
}

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    if options.arguments.is_empty() {
        let tools = setup::everything(layout)?;
        build::everything(layout, &tools, &build::Options::default())?;
        become_it(bundled_session(layout, options)?)
    } else {
        build::task(layout, &build::Options::default())?;
        become_it(with_arguments(layout, &options.arguments)?)
    }
}

/// Paths relative to the workspace, where it runs: the printed line can be typed again.
fn bundled_session(layout: &Layout, options: &Options) -> Result<Command> {
    let mut lab = elevated(layout, Path::new("target/release/tracer-lab"))?;
    lab.args(["--", "target/release/tracer", "run", "--policy", "no-aws-cli"]);
    lab.args(["--force", "--output", RECORDING, "--", "node", "tests/fixtures/agent/agent.mjs"]);
    lab.args(["--mode", options.mode.name()]);
    if options.shell_out {
        lab.arg("--shell-out");
    }
    Ok(lab)
}

/// In the folder of the caller, whose arguments may name files there.
fn with_arguments(layout: &Layout, arguments: &[OsString]) -> Result<Command> {
    let mut tracer = elevated(layout, &layout.release("tracer"))?;
    tracer.args(arguments).current_dir(std::env::current_dir()?);
    Ok(tracer)
}

fn become_it(mut last: Command) -> Result<ExitCode> {
    eprintln!("$ {}", command::render(&last));
    let error = last.stdin(Stdio::inherit()).exec();
    Err(anyhow!(
        "cannot start `{}`: {error}\n  it means: the build did not leave a program that runs here\n  \
         remedy:   remove target/release and try again",
        command::render(&last)
    ))
}
