pub mod bench;
pub mod browser;
pub mod cgroup;
pub mod conformance;
pub mod document;
pub mod evasions;
pub mod faults;
pub mod hidden;
pub mod lab;
pub mod network;
mod programs;
pub mod scratch;
pub mod soak;
pub mod tool;
pub mod vm;

use std::path::{Path, PathBuf};

pub use self::programs::{compile_all, copy_program, program, write_program};

/// Why this machine cannot run a test. An error, so that `?` carries it out.
#[derive(Debug)]
pub struct Skip(pub String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends the test as skipped.
pub fn skip<T>(reason: impl Into<String>) -> anyhow::Result<T> {
    Err(Skip(reason.into()).into())
}

/// A program of the machine, by its name on PATH, or the test is skipped.
pub fn on_path(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => skip(format!("there is no `{name}` on PATH")),
    }
}

/// A program of Debian's, as xtask's set-up leaves it or on PATH, or the test is skipped.
pub fn debian_tool(name: &str) -> anyhow::Result<PathBuf> {
    let here = evasions::debian_tools().join(name);
    if here.is_file() { Ok(here.canonicalize()?) } else { on_path(name) }
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}
