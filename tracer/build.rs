//! Hands the eBPF object to `include_bytes_aligned!`.
//!
//! The object is built by another compiler for another target, so it is not built from here:
//! `cargo xtask build` does that first. Packagers can name one with `TRACER_EBPF_OBJECT`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

const OBJECT: &str = "TRACER_EBPF_OBJECT";

fn main() -> ExitCode {
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
