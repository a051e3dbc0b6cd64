//! The compiler of the kernel side: one that can build `core` for the bpf target.
//!
//! That takes unstable flags and the sources of `core`, so a stable toolchain as it is installed
//! does not do. Preferred is rustup's nightly, which every distribution can have; Debian's packages
//! are the other way, for machines where rustup is missing or may not download.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::debian;
use crate::{
    command::{self, IfFails},
    env,
    layout::Layout,
};

const NIGHTLY: &str = "nightly";
const CHOICE: &str = "TRACER_BPF_TOOLCHAIN";

#[derive(Debug)]
pub(crate) enum Toolchain {
    RustupNightly,
    /// Debian's packages, unpacked below the tools folder.
    Debian(debian::Unpacked),
}

/// What decides how a linker must be built to fit.
#[derive(Debug)]
pub(crate) struct Version {
    /// The whole of `rustc -vV`: changes whenever the compiler does.
    pub(crate) text: String,
    pub(crate) llvm_major: u32,
}

impl Toolchain {
    pub(crate) fn find_or_install(layout: &Layout) -> Result<Self> {
        match std::env::var(CHOICE).as_deref() {
            Ok("rustup") => rustup_nightly(layout),
            Ok("debian") => Ok(Self::Debian(debian::find_or_install(layout)?)),
            Ok("auto") | Err(std::env::VarError::NotPresent) => {
                rustup_nightly(layout).or_else(|refused| {
                    println!("setup: rustup's nightly cannot be had, trying Debian's packages");
                    debian::find_or_install(layout).map(Self::Debian).map_err(|error| {
                        anyhow!("no compiler for the kernel side\n\n{refused}\n\n{error}")
                    })
                })
            }
            other => bail!("{CHOICE} is {other:?}; known are `auto`, `rustup` and `debian`"),
        }
    }

    /// Cargo with this compiler, free of any wish meant for host builds.
    pub(crate) fn cargo(&self, layout: &Layout) -> Command {
        let mut cargo = match self {
            Self::RustupNightly => rustup_run(layout, "cargo"),
            Self::Debian(_) => command::host_cargo(layout),
        };
        env::forget_host_builds(&mut cargo);
        if let Self::Debian(unpacked) = self {
            // Debian's compiler is a stable one; this is the switch its own build uses.
            cargo.env("RUSTC", unpacked.rustc()).env("RUSTC_BOOTSTRAP", "1");
        }
        cargo
    }

    fn rustc(&self, layout: &Layout) -> Command {
        match self {
            Self::RustupNightly => rustup_run(layout, "rustc"),
            Self::Debian(unpacked) => command::program(layout, unpacked.rustc()),
        }
    }

    /// Whether clippy comes with it. Debian's is a package of its own that is not unpacked.
    pub(crate) fn has_clippy(&self, layout: &Layout) -> bool {
        match self {
            Self::RustupNightly => {
                command::succeeds(rustup_run(layout, "cargo").args(["clippy", "--version"]))
            }
            Self::Debian(_) => false,
        }
    }

    pub(crate) fn version(&self, layout: &Layout) -> Result<Version> {
        let if_fails = IfFails {
            it_means: "the compiler of the kernel side is there but does not start",
            remedy: "remove target/tools and run `cargo xtask setup` again; with rustup, \
                     `rustup toolchain uninstall nightly` first",
        };
        let text = command::stdout(self.rustc(layout).arg("-vV"), if_fails)?;
        let llvm_major = llvm_major(&text)
            .with_context(|| format!("`rustc -vV` names no LLVM version:\n{text}"))?;
        Ok(Version { text, llvm_major })
    }

    /// The LLVM library that this compiler itself runs on, if it has one of its own to link to.
    pub(crate) fn libllvm(&self, layout: &Layout) -> Result<Option<PathBuf>> {
        let folders = match self {
            Self::RustupNightly => {
                let if_fails = IfFails {
                    it_means: "rustup's nightly does not say where it is",
                    remedy: "run `rustup toolchain install nightly` again",
                };
                let mut rustc = self.rustc(layout);
                let sysroot = command::stdout(rustc.args(["--print", "sysroot"]), if_fails)?;
                vec![Path::new(sysroot.trim()).join("lib")]
            }
            Self::Debian(unpacked) => unpacked.library_folders(),
        };
        Ok(folders.iter().find_map(|folder| libllvm_in(folder)))
    }
}

fn rustup_nightly(layout: &Layout) -> Result<Toolchain> {
    if command::on_path("rustup").is_none() {
        bail!(
            "rustup is not on PATH\n  it means: the nightly compiler cannot be had from it\n  \
             remedy:   install rustup"
        );
    }
    let installed = command::succeeds(rustup_run(layout, "rustc").arg("--version"));
    if !installed {
        println!("setup: install rustup's nightly toolchain (beside the others)");
        let mut rustup = command::program(layout, "rustup");
        rustup.args(["toolchain", "install", NIGHTLY, "--profile=minimal", "--component=rust-src"]);
        let if_fails = IfFails {
            it_means: "rustup may not or cannot download the nightly toolchain",
            remedy: "install it by hand: rustup toolchain install nightly --component rust-src; \
                     on Debian, TRACER_BPF_TOOLCHAIN=debian uses its packages",
        };
        command::capture(rustup.args(["--component=clippy", "--no-self-update"]), if_fails)?;
    } else if !has_sources(layout)? {
        println!("setup: add the sources of core (rust-src) to rustup's nightly");
        let mut rustup = command::program(layout, "rustup");
        rustup.args(["component", "add", "rust-src", "--toolchain", NIGHTLY]);
        let if_fails = IfFails {
            it_means: "`core` cannot be built for the bpf target",
            remedy: "run it by hand where the network allows it, or `rustup update nightly`; \
                     on Debian, TRACER_BPF_TOOLCHAIN=debian uses its packages",
        };
        command::capture(&mut rustup, if_fails)?;
    } else {
        println!("ok: rustup's nightly with the sources of core");
    }
    Ok(Toolchain::RustupNightly)
}

fn has_sources(layout: &Layout) -> Result<bool> {
    let if_fails = IfFails {
        it_means: "rustup's nightly does not say where it is",
        remedy: "run `rustup toolchain install nightly` again",
    };
    let mut rustc = rustup_run(layout, "rustc");
    let sysroot = command::stdout(rustc.args(["--print", "sysroot"]), if_fails)?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists())
}

fn rustup_run(layout: &Layout, program: &str) -> Command {
    let mut command = command::program(layout, "rustup");
    command.args(["run", NIGHTLY, program]);
    // Asking for a version must not be what starts a download; installing is a step of its own.
    command.env("RUSTUP_AUTO_INSTALL", "0");
    command
}

fn llvm_major(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.trim().parse().ok()
}

/// `libLLVM.so.22.1-rust-1.97.0-nightly`, `libLLVM.so.22.1`: the versioned name, which is the one
/// programs are linked to. `libLLVM-22-rust-...so` is a linker script that names it.
fn libllvm_in(folder: &Path) -> Option<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            file.file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix("libLLVM.so."))
                .is_some_and(|version| version.contains('.'))
        })
        .collect();
    found.sort();
    found.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_version() {
        let check = |text: &str, expected| assert_eq!(llvm_major(text), expected, "{text}");
        check(
            "rustc 1.97.0-nightly\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.4\n",
            Some(22),
        );
        check("LLVM version: 19", Some(19));
        check("rustc 1.97.0", None);
        check("LLVM version: unknown", None);
    }

    #[test]
    fn finds_the_versioned_library() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(libllvm_in(folder.path()), None);
        for name in ["libLLVM-22-rust-1.97.0.so", "libLLVM.so.1", "libLLVM.so.22.1", "librustc.so"]
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(libllvm_in(folder.path()), Some(folder.path().join("libLLVM.so.22.1")));
    }
}
