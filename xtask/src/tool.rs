//! Programs of the tests' package that need root and try the tracer that was built: tables, measurements,
//! campaigns.

use std::{ffi::OsStr, process::Command, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    build,
    command::{self, IfFails},
    elevate::elevated,
    layout::Layout,
    setup,
    tally::Tally,
};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    /// Which it puts what it prints into, when that is asked for.
    pub(crate) document: &'static str,
}

impl Tool {
    /// Sets up, builds and runs it; what it returns is the outcome.
    pub(crate) fn task(
        &self,
        layout: &Layout,
        writes: bool,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<ExitCode> {
        let tools = setup::everything(layout)?;
        build::everything(layout, &tools, &build::Options::default())?;
        let mut command = self.command(layout)?;
        if writes {
            command.arg("--into").arg(layout.root().join(self.document));
        }
        command.args(arguments);
        eprintln!("$ {}", command::render(&command));
        let status = command.status().with_context(|| format!("cannot start {}", self.program))?;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// As a step of the tests, which have built it: one check.
    pub(crate) fn step(
        &self,
        layout: &Layout,
        argument: &str,
        if_fails: IfFails<'_>,
    ) -> Result<((), Tally)> {
        command::run_shown(self.command(layout)?.arg(argument), if_fails)?;
        Ok(((), Tally { passed: 1, ..Tally::NOTHING }))
    }

    fn command(&self, layout: &Layout) -> Result<Command> {
        let mut command = elevated(layout, &layout.release(self.program))?;
        command.arg("--tracer").arg(layout.release("tracer"));
        Ok(command)
    }
}
