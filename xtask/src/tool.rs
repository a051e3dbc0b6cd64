//! Programs of the tests' package that need root and try the tracer that was built: tables, measurements,
//! campaigns.

use std::{
    ffi::OsStr,
    io::{self, Write},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    build,
    command::{self, IfFails},
    elevate::elevated,
    layout::Layout,
    setup, show,
    tally::Tally,
    test::pass_on,
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

    /// As a step of the tests, which have built it. What it says of its parts is counted; a tool that
    /// says nothing of them is one check.
    pub(crate) fn step(
        &self,
        layout: &Layout,
        argument: &str,
        if_fails: IfFails<'_>,
    ) -> Result<((), Tally)> {
        step_of(self.command(layout)?.arg(argument), if_fails, io::stdout())
    }

    fn command(&self, layout: &Layout) -> Result<Command> {
        let mut command = elevated(layout, &layout.release(self.program))?;
        command.arg("--tracer").arg(layout.release("tracer"));
        Ok(command)
    }
}

fn step_of(
    command: &mut Command,
    if_fails: IfFails<'_>,
    to_out: impl Write,
) -> Result<((), Tally)> {
    let shown = command::render(command);
    eprintln!("$ {shown}");
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start `{shown}`\n{if_fails}"))?;
    let out = child.stdout.take().context("the child's output was asked for")?;
    let tally = parts(&pass_on(out, to_out)?);
    let status = child.wait()?;
    if status.success() {
        let one = Tally { passed: 1, ..Tally::NOTHING };
        return Ok(((), if tally == Tally::NOTHING { one } else { tally }));
    }
    let error = anyhow!("`{shown}` failed ({status})\n{if_fails}");
    if tally == Tally::NOTHING {
        return Err(error);
    }
    show(&error);
    Ok(((), Tally { failed: tally.failed.max(1), ..tally }))
}

/// What a tool says of its parts, each in a line of its own: `passed: NAME`, `failed: NAME`,
/// `skipped: NAME: REASON`.
fn parts(said: &str) -> Tally {
    let count = |word: &str| said.lines().filter(|line| line.starts_with(word)).count() as u64;
    let failed = said.lines().filter_map(|line| line.strip_prefix("failed: "));
    let failures: Vec<String> = failed.map(str::to_owned).collect();
    Tally {
        passed: count("passed: "),
        failed: count("failed: "),
        skipped: count("skipped: "),
        failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IF_FAILS: IfFails<'static> = IfFails { it_means: "a test", remedy: "none" };

    /// Of what a tool prints and how it ends.
    fn tally(script: &str) -> Option<String> {
        let outcome = step_of(Command::new("sh").args(["-c", script]), IF_FAILS, io::sink());
        outcome.ok().map(|((), tally)| tally.to_string())
    }

    #[test]
    fn parts_are_counted() {
        let said =
            "passed: a\nskipped: b: there is no b\n| passed: in a table |\nfailed: c\npassed: d\n";
        assert_eq!(parts(said).to_string(), "2 passed, 1 failed, 1 skipped");
        assert_eq!(parts("it skipped: nothing\n"), Tally::NOTHING);
    }

    #[test]
    fn how_a_tool_ends_counts_too() {
        let is = |script, expected: &str| assert_eq!(tally(script).as_deref(), Some(expected));
        is("echo a table", "1 passed, 0 failed, 0 skipped");
        is("echo 'passed: a'; echo 'failed: b'; exit 1", "1 passed, 1 failed, 0 skipped");
        is("echo 'passed: a'; exit 1", "1 passed, 1 failed, 0 skipped");
        assert_eq!(tally("exit 1"), None);
    }
}
