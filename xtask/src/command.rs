//! Running other programs: what is printed, and what a failure says.
//!
//! Every failure names the command, what its failing means for the task, and the remedy.

use std::{
    ffi::OsStr,
    fmt, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{env, layout::Layout};

/// The two sentences a failing command is reported with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IfFails<'a> {
    pub(crate) it_means: &'a str,
    pub(crate) remedy: &'a str,
}

impl fmt::Display for IfFails<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  it means: {}\n  remedy:   {}", self.it_means, self.remedy)
    }
}

/// A command that starts in the workspace with the user's own environment and no standard input.
pub(crate) fn program(layout: &Layout, name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(layout.root()).stdin(Stdio::null());
    env::restore(&mut command, &layout.target());
    command
}

/// The cargo that runs xtask, for programs of this machine.
pub(crate) fn host_cargo(layout: &Layout) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = program(layout, cargo);
    // This cargo finds its rustc through rustup's proxy, which would otherwise pick the default
    // toolchain where the user had said `cargo +other xtask`.
    if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    // For `tracer --version`; each build gets the same, or each would compile tracer anew.
    if let Some(commit) = commit(layout) {
        command.env("TRACER_COMMIT", commit);
    }
    command
}

/// The commit that is checked out, where there is one.
fn commit(layout: &Layout) -> Option<String> {
    let output = program(layout, "git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Shows the command on the terminal, lets it talk there, and fails if it does.
pub(crate) fn run_shown(command: &mut Command, if_fails: IfFails<'_>) -> Result<()> {
    eprintln!("$ {}", render(command));
    let status = command.status().map_err(|error| cannot_start(command, &error, if_fails))?;
    if !status.success() {
        bail!("`{}` failed ({status})\n{if_fails}", render(command));
    }
    Ok(())
}

/// Runs the command silently and gives what it printed; its last lines are shown if it fails.
pub(crate) fn capture(command: &mut Command, if_fails: IfFails<'_>) -> Result<Output> {
    let output = command.output().map_err(|error| cannot_start(command, &error, if_fails))?;
    if !output.status.success() {
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        let said = last_lines(&said, 25);
        bail!("`{}` failed ({})\n{if_fails}\n  it said:\n{said}", render(command), output.status);
    }
    Ok(output)
}

fn cannot_start(command: &Command, error: &io::Error, if_fails: IfFails<'_>) -> anyhow::Error {
    anyhow!("cannot start `{}`: {error}\n{if_fails}", render(command))
}

/// Standard output of a command that must succeed.
pub(crate) fn stdout(command: &mut Command, if_fails: IfFails<'_>) -> Result<String> {
    let output = capture(command, if_fails)?;
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not UTF-8", render(command)))
}

/// The first program of that name on `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The command as one would type it.
pub(crate) fn render(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let start = lines.len().saturating_sub(count);
    lines[start..].iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_as_typed() {
        let mut command = Command::new("cargo");
        command.args(["build", "--features=a,b", "two words", "it's", ""]);
        assert_eq!(render(&command), r"cargo build --features=a,b 'two words' 'it'\''s' ''");
    }

    #[test]
    fn keeps_the_end() {
        assert_eq!(last_lines("a\nb\nc", 2), "    b\n    c\n");
        assert_eq!(last_lines("a", 2), "    a\n");
        assert_eq!(last_lines("", 2), "");
    }

    #[test]
    fn a_failure_says_what_it_means() {
        let if_fails = IfFails { it_means: "no trees", remedy: "plant some" };
        let error = capture(Command::new("sh").args(["-c", "echo why; exit 3"]), if_fails)
            .expect_err("exit 3 is a failure");
        let text = error.to_string();
        for part in ["exit status: 3", "it means: no trees", "remedy:   plant some", "why"] {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
    }
}
