//! Hands the eBPF object to `include_bytes_aligned!` and the commit to `--version`.
//!
//! The object is built by another compiler for another target, so it is not built from here:
//! `cargo xtask build` does that first. Packagers can name one with `TRACER_EBPF_OBJECT`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const OBJECT: &str = "TRACER_EBPF_OBJECT";

fn main() -> ExitCode {
    name_commit();
    match copy_object() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            println!("cargo::error={sentence}");
            ExitCode::FAILURE
        }
    }
}

fn copy_object() -> Result<(), String> {
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let object = env::var_os(OBJECT)
        .map_or_else(|| workspace.join("target/bpf/tracer-probes"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        return Err(format!(
            "the eBPF object {} is missing: run `cargo xtask build` first",
            object.display()
        ));
    }
    let out = env::var_os("OUT_DIR").ok_or("cargo set no OUT_DIR")?;
    let copy = Path::new(&out).join("tracer-probes");
    fs::copy(&object, &copy)
        .map(|_| ())
        .map_err(|error| format!("cannot copy {} to {}: {error}", object.display(), copy.display()))
}

/// `TRACER_VERSION`: the version and, in a git checkout, the commit the build is based on.
fn name_commit() {
    let version = env!("CARGO_PKG_VERSION");
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(commit) => println!("cargo::rustc-env=TRACER_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=TRACER_VERSION={version}"),
    }
    // The log of HEAD grows with every commit and checkout; HEAD itself does not.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
