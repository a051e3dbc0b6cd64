//! Every check and every test, and one closing line that sums them up.
//!
//! A step that fails does not stop the ones after it, except where they could not run at all
//! (setup, build). Whatever fails without counting a failed test (a lint, a compile error, a test
//! program that crashed) counts as one, so the closing line never looks better than the status.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::{
    bench, build,
    command::{self, IfFails},
    conformance,
    elevate::elevated,
    faults, fuzz,
    layout::Layout,
    miri,
    setup::{self, Toolchain},
    steps::{Steps, counting_nothing},
    tally::Tally,
    tidy, vm,
};

/// Tests that need the kernel's privileges live in this package, all of them.
const ELEVATED_PACKAGE: &str = "tracer-tests";

/// A test that hangs must not hang the run: the whole is meant to take less than 30 minutes.
const LONGEST_ELEVATED_RUN: Duration = Duration::from_secs(20 * 60);

const IF_TESTS_FAIL: IfFails<'static> = IfFails {
    it_means: "some test does not compile, failed, or crashed its program",
    remedy: "read the messages above; `cargo test --package ...` runs one package alone",
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only those on other kernels, in virtual machines; `cargo xtask vm --help` has more options
    #[arg(long)]
    vm: bool,
}

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    if options.vm {
        return vm::task(layout, &vm::Options::default());
    }
    let mut steps = Steps::begin();
    let tools =
        steps.step("setup of the compilers", || counting_nothing(setup::for_build(layout)?));
    if let Some(tools) = tools {
        thread::scope(|scope| {
            // Most of it waits for downloads, which compilers do not.
            let setup = scope.spawn(|| set_up_tests(layout));
            let built = steps.step("build", || {
                counting_nothing(build::everything(layout, &tools, &build::Options::default())?)
            });
            if built.is_some() {
                tidy::checks(layout, &tools.toolchain, &mut steps);
                let set_up = steps.step("setup of the tests", || {
                    let joined = setup.join().map_err(|_| anyhow!("its thread panicked"))?;
                    counting_nothing(joined?)
                });
                if set_up.is_some() {
                    all_tests(layout, &tools.toolchain, &mut steps);
                }
            }
        });
    }
    Ok(steps.end_with_tally())
}

fn set_up_tests(layout: &Layout) -> Result<()> {
    setup::for_tests(layout)?;
    // Steps that go without what is not there: they try again, and say why.
    for optional in [setup::conformance(layout, false), vm::set_up(layout)] {
        if let Err(error) = optional {
            eprintln!("setup: not there: {error:#}");
        }
    }
    Ok(())
}

fn all_tests(layout: &Layout, toolchain: &Toolchain, steps: &mut Steps) {
    steps.step("unit tests", || unit_tests(layout));
    steps.step("the ABI under Miri", || miri::step(layout, toolchain));
    steps.step("fuzzing, a moment", || fuzz::step(layout, toolchain));
    // One of the integration tests starts the container image.
    steps.step("container image", || counting_nothing(build::for_image(layout)?));
    steps.step("integration tests", || integration_tests(layout));
    steps.step("benchmark, quick", || bench::step(layout));
    steps.step("conformance, quick", || conformance::step(layout));
    steps.step("faults, a few", || faults::step(layout));
    steps.step("other kernels", || vm::step(layout));
}

/// In the development profile, where arithmetic that overflows and failing debug assertions are
/// errors. Documentation examples are among them.
fn unit_tests(layout: &Layout) -> Result<((), Tally)> {
    let mut cargo = command::host_cargo(layout);
    cargo.args(["test", "--workspace", "--no-fail-fast", "--exclude", ELEVATED_PACKAGE]);
    cargo.arg("--target-dir").arg(layout.target());
    Ok(((), count(&mut cargo)?))
}

fn integration_tests(layout: &Layout) -> Result<((), Tally)> {
    let mut tally = Tally::NOTHING;
    for program in elevated_programs(layout)? {
        tally += count(&mut elevated_test(layout, &program, &[])?)?;
    }
    Ok(((), tally))
}

/// A test program as cargo would start it, but with the kernel's privileges and a limit.
pub(crate) fn elevated_test(
    layout: &Layout,
    program: &Path,
    variables: &[(&str, &Path)],
) -> Result<Command> {
    // Variables go by env(1), since sudo would drop them.
    let mut command = elevated(layout, "/usr/bin/env".as_ref())?;
    command.arg(format!("CARGO_MANIFEST_DIR={}", layout.tests().display()));
    command.args(variables.iter().map(|(name, value)| format!("{name}={}", value.display())));
    command.args(["timeout", "--kill-after=10", &LONGEST_ELEVATED_RUN.as_secs().to_string()]);
    command.arg(program).current_dir(layout.tests());
    Ok(command)
}

/// Builds the test programs and asks cargo where they are. Not run by cargo: it would have to be
/// root for that, and so would every compiler.
pub(crate) fn elevated_programs(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut cargo = command::host_cargo(layout);
    // Its programs have no tests of their own.
    cargo.args(["test", "--release", "--no-run", "--lib", "--test", "*"]);
    cargo.args(["--package", ELEVATED_PACKAGE]);
    cargo.arg("--message-format=json-render-diagnostics");
    cargo.arg("--target-dir").arg(layout.target());
    eprintln!("$ {}", command::render(&cargo));
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}` failed ({})\n{IF_TESTS_FAIL}", command::render(&cargo), output.status);
    }
    let messages = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    let programs = test_programs(&messages)?;
    if programs.is_empty() {
        bail!("cargo built no test program of {ELEVATED_PACKAGE}");
    }
    Ok(programs)
}

fn test_programs(messages: &str) -> Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Value =
            serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        let is_test = message["profile"]["test"].as_bool() == Some(true);
        if let Some(program) = message["executable"].as_str().filter(|_| is_test) {
            programs.push(PathBuf::from(program));
        }
    }
    Ok(programs)
}

/// Runs test programs in full view and counts what they say. A failure without a failed test (they
/// did not compile, one crashed) counts as one.
pub(crate) fn count(command: &mut Command) -> Result<Tally> {
    count_into(command, std::io::stdout(), std::io::stderr())
}

fn count_into(
    command: &mut Command,
    to_out: impl Write,
    to_err: impl Write + Send + 'static,
) -> Result<Tally> {
    eprintln!("$ {}", command::render(command));
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| anyhow!("cannot start `{}`: {error}", command::render(command)))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = out.zip(err).context("the child's output was asked for")?;
    let err = thread::spawn(move || pass_on(err, to_err));
    let mut said = pass_on(out, to_out)?;
    said.push('\n');
    said.push_str(&err.join().map_err(|_| anyhow!("reading standard error panicked"))??);
    let status = child.wait()?;
    let mut tally = Tally::of_lines(said.lines());
    if !status.success() {
        println!("`{}` failed ({status})\n{IF_TESTS_FAIL}", command::render(command));
        tally.failed = tally.failed.max(1);
    }
    Ok(tally)
}

/// Writes every line on as it comes, and gives all of them at the end.
pub(crate) fn pass_on(from: impl Read, mut to: impl Write) -> Result<String> {
    let mut from = BufReader::new(from);
    let mut all = Vec::new();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        all.append(&mut line);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs() {
        let messages = r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":"/t/tracer-lab"}
{"reason":"compiler-artifact","profile":{"test":true},"executable":"/t/deps/it-1"}
{"reason":"compiler-artifact","profile":{"test":true},"executable":null}
{"reason":"build-finished","success":true}"#;
        assert_eq!(test_programs(messages).unwrap(), [PathBuf::from("/t/deps/it-1")]);
        assert!(test_programs("error: no").is_err());
    }

    #[test]
    fn a_crash_counts_as_a_failure() {
        let check = |script: &str, expected: &str| {
            // Swallowed: a run of all tests would count these lines as its own.
            let mut sh = Command::new("sh");
            let tally =
                count_into(sh.args(["-c", script]), std::io::sink(), std::io::sink()).unwrap();
            assert_eq!(tally.to_string(), expected, "{script}");
        };
        check(
            "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'",
            "2 passed, 0 failed, 0 skipped",
        );
        check("kill -9 $$", "0 passed, 1 failed, 0 skipped");
        check(
            "echo 'skipped: no' >&2; echo 'test result: ok. 1 passed; 0 failed'",
            "0 passed, 0 failed, 1 skipped",
        );
    }
}
