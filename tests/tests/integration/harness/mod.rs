//! What the tests share: a scratch directory, the tracer under test, its recordings, odd programs.

mod compare;
mod network;
mod programs;
mod run;
mod scratch;
mod tracer;
mod tree;

pub(crate) use compare::same_lines;
pub(crate) use network::{Network, Peer, active_opens_of, in_private_network};
pub(crate) use programs::program;
pub(crate) use run::Run;
pub(crate) use scratch::Scratch;
pub(crate) use tracer::{Output, Tracer, tracer_program, wait_for};

use std::path::{Path, PathBuf};

/// Somebody who is not root, as the caller behind sudo.
pub(crate) const NOBODY: u32 = 65_534;

/// Why this machine cannot run a test. An error, so that `?` carries it out.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends the test as skipped.
pub(crate) fn skip<T>(reason: impl Into<String>) -> anyhow::Result<T> {
    Err(Skip(reason.into()).into())
}

/// A program of the machine, by its name on PATH, or the test is skipped.
pub(crate) fn on_path(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => skip(format!("there is no `{name}` on PATH")),
    }
}

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}
