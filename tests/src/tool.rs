//! What the programs have in common that `cargo xtask` runs as root: tables, measurements, campaigns.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};

/// Ends with 1 if something was not as demanded, or went wrong, which is said.
pub fn exit_code(name: &str, outcome: Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The tracer that is tried, whatever folder it is started in; only root can.
pub fn tracer(file: &Path) -> Result<PathBuf> {
    ensure!(rustix::process::geteuid().is_root(), "it needs root: run it with sudo");
    fs::canonicalize(file).with_context(|| format!("there is no {}", file.display()))
}
