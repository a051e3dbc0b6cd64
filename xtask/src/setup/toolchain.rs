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
/// In a sysroot, once rust-src is installed.
const CORE: &str = "lib/rustlib/src/rust/library/core/Cargo.toml";

#[derive(Debug)]
pub(crate) enum Toolchain {
    RustupNightly {
        sysroot: PathBuf,
    },
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
        let choice = std::env::var_os(CHOICE).unwrap_or_else(|| "auto".into());
        match choice.to_str() {
            Some("rustup") => rustup_nightly(layout),
            Some("debian") => Ok(Self::Debian(debian::find_or_install(layout)?)),
            Some("auto") => rustup_nightly(layout).or_else(|refused| {
                eprintln!("setup: rustup's nightly cannot be had, trying Debian's packages");
                debian::find_or_install(layout).map(Self::Debian).map_err(|error| {
                    anyhow!("no compiler for the kernel side\n\n{refused}\n\n{error}")
                })
            }),
            Some(_) | None => bail!(
                "{CHOICE} is `{}`\n  it means: that compiler is not known\n  remedy:   unset it, or \
                 let it be `auto`, `rustup` or `debian`",
                choice.display()
            ),
        }
    }

    /// Cargo with this compiler, free of any wish meant for host builds.
    pub(crate) fn cargo(&self, layout: &Layout) -> Command {
        let mut cargo = match self {
            Self::RustupNightly { .. } => {
                let mut cargo = rustup(layout);
                cargo.args(["run", NIGHTLY, "cargo"]);
                cargo
            }
            Self::Debian(_) => command::host_cargo(layout),
        };
        env::forget_host_builds(&mut cargo);
        // Another rustc may come first on PATH.
        cargo.env("RUSTC", self.rustc());
        if matches!(self, Self::Debian(_)) {
            // Debian's compiler is a stable one; this is the switch its own build uses.
            cargo.env("RUSTC_BOOTSTRAP", "1");
        }
        cargo
    }

    fn rustc(&self) -> PathBuf {
        match self {
            Self::RustupNightly { sysroot } => sysroot.join("bin/rustc"),
            Self::Debian(unpacked) => unpacked.rustc(),
        }
    }

    /// Whether clippy comes with it. Debian's is a package of its own that is not unpacked.
    pub(crate) fn has_clippy(&self) -> bool {
        match self {
            Self::RustupNightly { sysroot } => sysroot.join("bin/cargo-clippy").exists(),
            Self::Debian(_) => false,
        }
    }

    /// Has Miri come with it.
    pub(crate) fn add_miri(&self, layout: &Layout) -> Result<()> {
        let Self::RustupNightly { sysroot } = self else {
            bail!("Debian has no Miri; it comes with rustup's nightly");
        };
        if sysroot.join("bin/cargo-miri").exists() {
            return Ok(());
        }
        eprintln!("setup: add Miri to rustup's nightly");
        let if_fails = IfFails {
            it_means: "rustup may not or cannot download Miri for this nightly",
            remedy: "run it by hand where the network allows it; not every nightly has Miri",
        };
        add_component(layout, "miri", if_fails)
    }

    pub(crate) fn version(&self, layout: &Layout) -> Result<Version> {
        let if_fails = IfFails {
            it_means: "the compiler of the kernel side is there but does not start",
            remedy: "remove target/tools and run `cargo xtask setup` again; with rustup, \
                     `rustup toolchain uninstall nightly` first",
        };
        let mut rustc = command::program(layout, self.rustc());
        let text = command::stdout(rustc.arg("-vV"), if_fails)?;
        let llvm_major = llvm_major(&text)
            .with_context(|| format!("`rustc -vV` names no LLVM version:\n{text}"))?;
        Ok(Version { text, llvm_major })
    }

    /// Where the libraries lie that this compiler itself runs on.
    pub(crate) fn library_folders(&self) -> Vec<PathBuf> {
        match self {
            Self::RustupNightly { sysroot } => vec![sysroot.join("lib")],
            Self::Debian(unpacked) => unpacked.library_folders(),
        }
    }

    /// The LLVM library among them, if it has one of its own to link to.
    pub(crate) fn libllvm(&self) -> Option<PathBuf> {
        self.library_folders().iter().find_map(|folder| libllvm_in(folder))
    }
}

fn rustup_nightly(layout: &Layout) -> Result<Toolchain> {
    if command::on_path("rustup").is_none() {
        bail!(
            "rustup is not on PATH\n  it means: the nightly compiler cannot be had from it\n  \
             remedy:   install rustup"
        );
    }
    match nightly_sysroot(layout) {
        None => {
            eprintln!("setup: install rustup's nightly toolchain (beside the others)");
            install_nightly(layout)?;
        }
        Some(sysroot) if !sysroot.join(CORE).exists() => {
            eprintln!("setup: add the sources of core (rust-src) to rustup's nightly");
            add_sources(layout)?;
        }
        Some(_) => eprintln!("ok: rustup's nightly with the sources of core"),
    }
    let sysroot = nightly_sysroot(layout).context(
        "`rustup which` does not find the nightly rustc\n  it means: the toolchain is not complete\n  \
         remedy:   rustup toolchain uninstall nightly, then try again",
    )?;
    Ok(Toolchain::RustupNightly { sysroot })
}

fn nightly_sysroot(layout: &Layout) -> Option<PathBuf> {
    let output = rustup(layout).args(["which", "--toolchain", NIGHTLY, "rustc"]).output().ok()?;
    let rustc = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end());
    // The proxies' name for it is `<sysroot>/bin/rustc`.
    let sysroot = rustc.parent()?.parent()?;
    (output.status.success() && rustc.exists()).then(|| sysroot.to_path_buf())
}

fn install_nightly(layout: &Layout) -> Result<()> {
    let if_fails = IfFails {
        it_means: "rustup may not or cannot download the nightly toolchain",
        remedy: "install it by hand: rustup toolchain install nightly --component rust-src; \
                 on Debian, TRACER_BPF_TOOLCHAIN=debian uses its packages",
    };
    let mut rustup = rustup(layout);
    rustup.args(["toolchain", "install", NIGHTLY, "--profile=minimal", "--no-self-update"]);
    command::capture(rustup.args(["--component=rust-src", "--component=clippy"]), if_fails)?;
    Ok(())
}

fn add_sources(layout: &Layout) -> Result<()> {
    let if_fails = IfFails {
        it_means: "`core` cannot be built for the bpf target",
        remedy: "run it by hand where the network allows it, or `rustup update nightly`; \
                 on Debian, TRACER_BPF_TOOLCHAIN=debian uses its packages",
    };
    add_component(layout, "rust-src", if_fails)
}

fn add_component(layout: &Layout, component: &str, if_fails: IfFails<'_>) -> Result<()> {
    let mut rustup = rustup(layout);
    rustup.args(["component", "add", component, "--toolchain", NIGHTLY]);
    command::capture(&mut rustup, if_fails)?;
    Ok(())
}

fn rustup(layout: &Layout) -> Command {
    let mut rustup = command::program(layout, "rustup");
    // A question must not be what starts a download; installing is a step of its own.
    rustup.env("RUSTUP_AUTO_INSTALL", "0");
    rustup
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
