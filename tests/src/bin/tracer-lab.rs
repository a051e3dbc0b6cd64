//! Runs one command inside tracer's lab and exits with its status.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use tracer_tests::lab::{self, Lab};

/// As shells and env(1) have them.
const LAB_FAILED: u8 = 125;
const CANNOT_START: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs COMMAND in private network and mount namespaces where the hosts that an AI agent calls are
/// mocked on loopback addresses. Needs root. Exits with COMMAND's status, 128 + the signal that
/// ended it, 125 when the lab failed, 126 or 127 when COMMAND cannot be started or is not found.
#[derive(Debug, Parser)]
#[command(name = "tracer-lab", override_usage = "tracer-lab [--keep-log FILE] -- COMMAND...")]
struct Options {
    /// Write the lab's own log of requests and DNS questions there, as JSON lines
    #[arg(long, value_name = "FILE")]
    keep_log: Option<PathBuf>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tracer-lab: {error:#}");
            ExitCode::from(LAB_FAILED)
        }
    }
}

fn run(options: &Options) -> Result<u8> {
    // Opened first, so that a bad path is told before the command runs.
    let keep = options.keep_log.as_ref().map(|path| {
        File::create(path)
            .map(|file| (file, path))
            .with_context(|| format!("cannot write the log to {}", path.display()))
    });
    let keep = keep.transpose()?;
    let lab = Lab::start()?;
    let (program, arguments) = options.command.split_first().context("no command")?;
    let status = match lab::run(lab.command(program).args(arguments)) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("tracer-lab: cannot run {}: {error}", program.display());
            let missing = error.kind() == ErrorKind::NotFound;
            return Ok(if missing { NOT_FOUND } else { CANNOT_START });
        }
    };
    if let Some((mut file, path)) = keep {
        file.write_all(&lab.log_text()?)
            .with_context(|| format!("cannot write the log to {}", path.display()))?;
    }
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).context("the command has no exit status")
}
