//! Debian's compiler as a private toolchain, for machines where rustup's nightly cannot be had.
//!
//! The packages are unpacked below the tools folder, never installed, so that no other compiler of
//! the machine is touched (they conflict with rustup's and Debian's own `rustc`).

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::{self, Apt},
    stamp::{Stamp, replace_if_different},
};
use crate::{
    command::{self, IfFails},
    layout::Layout,
};

/// Debian's backport of the current compiler for its browsers, and its sources.
const PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// The first version with what the kernel side and the pinned bpf-linker need (LLVM 21 or later).
const OLDEST_RUSTC: (u32, u32) = (1, 94);

const IF_DEBIAN_FAILS: IfFails<'static> = IfFails {
    it_means: "the compiler of the kernel side cannot be had from Debian's packages",
    remedy: "use a Debian 12 (with its security updates) or later, or install rustup and run \
             `rustup toolchain install nightly --component rust-src`",
};

#[derive(Debug)]
pub(crate) struct Unpacked {
    folder: PathBuf,
}

impl Unpacked {
    /// A wrapper, because the compiler's libraries are not where it was built to find them.
    pub(crate) fn rustc(&self) -> PathBuf {
        self.folder.join("rustc")
    }

    pub(crate) fn library_folders(&self) -> Vec<PathBuf> {
        apt::library_folders(&self.folder)
    }
}

pub(crate) fn find_or_install(layout: &Layout) -> Result<Unpacked> {
    let unpacked = Unpacked { folder: layout.tools().join("debian-rust") };
    // apt is asked only the first time: removing the folder gets the newer version.
    let stamp = Stamp::new(unpacked.folder.join(".stamp"), PACKAGES.join(" "));
    if stamp.is_current(&unpacked.rustc()) {
        eprintln!("ok: Debian's compiler with the sources of core");
        return Ok(unpacked);
    }
    eprintln!("setup: unpack Debian's compiler below {}", unpacked.folder.display());
    let apt = Apt::with_fresh_lists(layout, IF_DEBIAN_FAILS)?;
    apt.unpack(&apt.with_dependencies(&PACKAGES)?, &unpacked.folder)?;
    write_wrapper(&unpacked)?;
    check_version(layout, &unpacked)?;
    stamp.write()?;
    Ok(unpacked)
}

fn write_wrapper(unpacked: &Unpacked) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let libraries: Vec<_> =
        unpacked.library_folders().iter().map(|path| path.display().to_string()).collect();
    // Only here: cargo, the linker and build scripts keep the machine's libraries.
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}/usr/bin/rustc' \"$@\"\n",
        libraries.join(":"),
        unpacked.folder.display()
    );
    let file = unpacked.rustc();
    replace_if_different(&file, text.as_bytes())?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", file.display()))
}

fn check_version(layout: &Layout, unpacked: &Unpacked) -> Result<()> {
    let mut rustc = command::program(layout, unpacked.rustc());
    let text = command::stdout(rustc.arg("--version"), IF_DEBIAN_FAILS)?;
    match rustc_version(&text) {
        Some(version) if version >= OLDEST_RUSTC => Ok(()),
        Some(_) | None => bail!("Debian's {} is too old\n{IF_DEBIAN_FAILS}", text.trim()),
    }
}

fn rustc_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("rustc ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(rustc_version("rustc 1.96.0 (built from a source tarball)"), Some((1, 96)));
        assert_eq!(rustc_version("gcc 12"), None);
        assert!((1, 85) < OLDEST_RUSTC && (2, 0) > OLDEST_RUSTC);
    }
}
