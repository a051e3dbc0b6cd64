//! bpf-linker, built to run on the very LLVM library that the kernel side's compiler runs on.
//!
//! bpf-linker reads the bitcode that rustc writes, so its LLVM must not be older than rustc's. It
//! is linked dynamically to one library, and its bindings need neither headers nor llvm-config.
//! rustup's and Debian's compilers ship that library, so nothing of LLVM has to be installed, on
//! any distribution, and the two can never be of different versions. (An LLVM from the distribution
//! would be one more download that only some have, in a version that follows its own calendar.)

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    stamp::Stamp,
    toolchain::{Toolchain, Version},
};
use crate::{
    command::{self, IfFails},
    env,
    layout::Layout,
};

const VERSION: &str = "0.13.0";
/// The LLVM versions it has a feature for (`llvm-21`, ...).
const LLVM_KNOWN: std::ops::RangeInclusive<u32> = 21..=23;
/// Names a bpf-linker to use as it is.
const OVERRIDE: &str = "TRACER_BPF_LINKER";
const REMEDY: &str = "get a bpf-linker for this LLVM or a later one (distribution package, or its \
                      project's release) and name it: TRACER_BPF_LINKER=/path/to/bpf-linker";

pub(crate) fn find_or_install(layout: &Layout, toolchain: &Toolchain) -> Result<PathBuf> {
    if let Some(given) = std::env::var_os(OVERRIDE) {
        let linker = PathBuf::from(given);
        check_given(layout, &linker)?;
        eprintln!("ok: bpf-linker of {OVERRIDE}, {}", linker.display());
        return Ok(linker);
    }
    let version = toolchain.version(layout)?;
    let folder = layout.tools().join("bpf-linker");
    let linker = folder.join("bin/bpf-linker");
    let stamp = Stamp::new(
        folder.join(".stamp"),
        format!("bpf-linker {VERSION}\nin {}\nfor {}", folder.display(), version.text),
    );
    if stamp.is_current(&linker) {
        eprintln!("ok: bpf-linker {VERSION} with LLVM {}", version.llvm_major);
        return Ok(linker);
    }
    let llvm = own_llvm(toolchain, &version)?;
    let prefix = link_folder(&folder, &llvm)?;
    eprintln!(
        "setup: install bpf-linker {VERSION} with LLVM {} of the compiler (about a minute)",
        version.llvm_major
    );
    install(layout, &folder, &prefix, &toolchain.library_folders(), &version)?;
    stamp.write()?;
    Ok(linker)
}

fn check_given(layout: &Layout, linker: &Path) -> Result<()> {
    let if_fails = IfFails {
        it_means: "the eBPF object cannot be linked with it",
        remedy: "let TRACER_BPF_LINKER name a bpf-linker that starts, or unset it",
    };
    command::capture(command::program(layout, linker).arg("--version"), if_fails).map(|_| ())
}

fn own_llvm(toolchain: &Toolchain, version: &Version) -> Result<PathBuf> {
    let major = version.llvm_major;
    if !LLVM_KNOWN.contains(&major) {
        bail!(
            "bpf-linker {VERSION} cannot be built for LLVM {major}\n  it means: the compiler of \
             the kernel side ({}) is too old or too new for it\n  remedy:   {REMEDY}",
            version.text.lines().next().unwrap_or_default()
        );
    }
    toolchain.libllvm().ok_or_else(|| {
        anyhow!(
            "the compiler of the kernel side has no shared LLVM library (libLLVM.so)\n  it means: \
             there is nothing to link bpf-linker to\n  remedy:   {REMEDY}"
        )
    })
}

/// A folder with the library under both names it is asked for: `libLLVM.so` when linking, its own
/// name (which is its soname) when starting.
fn link_folder(folder: &Path, llvm: &Path) -> Result<PathBuf> {
    let prefix = folder.join("llvm");
    if prefix.exists() {
        fs::remove_dir_all(&prefix)
            .with_context(|| format!("cannot remove {}", prefix.display()))?;
    }
    let libraries = prefix.join("lib");
    fs::create_dir_all(&libraries)
        .with_context(|| format!("cannot create {}", libraries.display()))?;
    let own_name = llvm.file_name().context("a library has a file name")?;
    for name in [Path::new("libLLVM.so"), Path::new(own_name)] {
        let link = libraries.join(name);
        symlink(llvm, &link).with_context(|| format!("cannot create {}", link.display()))?;
    }
    Ok(prefix)
}

fn install(
    layout: &Layout,
    folder: &Path,
    prefix: &Path,
    libraries: &[PathBuf],
    version: &Version,
) -> Result<()> {
    let mut cargo = command::host_cargo(layout);
    env::forget_host_builds(&mut cargo);
    cargo.args(["install", "bpf-linker", "--locked", "--force", "--no-default-features"]);
    cargo.arg(format!("--version={VERSION}"));
    cargo.arg(format!("--features=llvm-{}", version.llvm_major));
    cargo.arg("--root").arg(folder).env("LLVM_PREFIX", prefix);
    // The work is done inside LLVM, which is not compiled here.
    cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "0").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    find_neighbours(&mut cargo, libraries)?;
    let if_fails = IfFails { it_means: "the eBPF object cannot be linked", remedy: REMEDY };
    command::capture(&mut cargo, if_fails)?;
    command::capture(
        command::program(layout, folder.join("bin/bpf-linker")).arg("--version"),
        if_fails,
    )?;
    Ok(())
}

/// LLVM's own libraries may lie beside it (Debian's, unpacked). The old kind of run path is asked
/// for because it holds for the libraries of a library too.
fn find_neighbours(cargo: &mut Command, libraries: &[PathBuf]) -> Result<()> {
    let mut flags = vec!["-Clink-arg=-Wl,--disable-new-dtags".to_owned()];
    for folder in libraries {
        let folder = folder.to_str().with_context(|| {
            format!("{} has a path that is not UTF-8; move the workspace", folder.display())
        })?;
        flags.extend(["-Clink-arg=-Wl,-rpath".to_owned(), format!("-Clink-arg=-Wl,{folder}")]);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    Ok(())
}
