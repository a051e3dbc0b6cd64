//! Debian's compiler as a private toolchain, for machines where rustup's nightly cannot be had.
//!
//! The packages are downloaded by apt-get and unpacked below the tools folder, never installed, so
//! that no other compiler of the machine is touched (they conflict with rustup's and Debian's own
//! `rustc`). apt's lists are kept there too, so none of this needs root.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::stamp::{Stamp, replace_if_different};
use crate::{
    command::{self, IfFails},
    layout::Layout,
};

/// Debian's backport of the current compiler for its browsers, and its sources.
const PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// The first version with what the kernel side and the pinned bpf-linker need (LLVM 21 or later).
const OLDEST_RUSTC: (u32, u32) = (1, 94);

/// Any machine that links programs has these, and a second C library would only do harm.
const OF_EVERY_MACHINE: [&str; 7] =
    ["binutils", "gcc", "gcc-12-base", "libc6", "libc6-dev", "libgcc-s1", "libstdc++6"];

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

    /// `usr/lib/x86_64-linux-gnu` and `lib/x86_64-linux-gnu`: Debian 12 has libraries in both.
    pub(crate) fn library_folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<_> = ["usr/lib", "lib"]
            .iter()
            .filter_map(|parent| fs::read_dir(self.folder.join(parent)).ok())
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().ends_with("-linux-gnu"))
            .collect();
        folders.sort();
        folders
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
    for tool in ["apt-get", "apt-cache", "dpkg-deb", "dpkg-query"] {
        if command::on_path(tool).is_none() {
            bail!("{tool} is not on PATH: this is no Debian system\n{IF_DEBIAN_FAILS}");
        }
    }
    eprintln!("setup: unpack Debian's compiler below {}", unpacked.folder.display());
    if unpacked.folder.exists() {
        fs::remove_dir_all(&unpacked.folder)
            .with_context(|| format!("cannot remove {}", unpacked.folder.display()))?;
    }
    let apt = Apt::with_fresh_lists(layout)?;
    for file in apt.download(layout, &apt.wanted(layout)?)? {
        let mut dpkg = command::program(layout, "dpkg-deb");
        command::capture(dpkg.arg("-x").arg(&file).arg(&unpacked.folder), IF_DEBIAN_FAILS)?;
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    fs::remove_dir_all(&apt.folder)
        .with_context(|| format!("cannot remove {}", apt.folder.display()))?;
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

/// apt with lists and cache of its own. Which archives to ask stays as the machine has it.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn with_fresh_lists(layout: &Layout) -> Result<Self> {
        let apt = Self { folder: layout.tools().join("apt") };
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let folder = apt.folder.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        eprintln!("setup: read Debian's package lists");
        command::capture(apt.command(layout, "apt-get").arg("update"), IF_DEBIAN_FAILS)?;
        Ok(apt)
    }

    fn command(&self, layout: &Layout, tool: &str) -> Command {
        let mut command = command::program(layout, tool);
        let option = |name: &str, folder: &str| {
            format!("-oDir::{name}={}", self.folder.join(folder).display())
        };
        command.arg(option("State", "state")).arg(option("Cache", "cache"));
        // As root apt would drop to a user who cannot write here, and warn about it.
        command.args(["-oAPT::Sandbox::User=", "-qq"]);
        command
    }

    /// The packages, and what they depend on as far as the machine lacks it.
    fn wanted(&self, layout: &Layout) -> Result<BTreeSet<String>> {
        let mut wanted = BTreeSet::new();
        let mut open: Vec<String> = PACKAGES.iter().map(ToString::to_string).collect();
        while let Some(package) = open.pop() {
            if !wanted.insert(package.clone()) {
                continue;
            }
            let mut apt_cache = self.command(layout, "apt-cache");
            apt_cache.args(["depends", "--important", &package]);
            let depends = command::stdout(&mut apt_cache, IF_DEBIAN_FAILS)?;
            open.extend(dependencies(&depends).into_iter().filter(|name| {
                !OF_EVERY_MACHINE.contains(&name.as_str()) && !is_installed(layout, name)
            }));
        }
        Ok(wanted)
    }

    fn download(&self, layout: &Layout, packages: &BTreeSet<String>) -> Result<Vec<PathBuf>> {
        let names: Vec<_> = packages.iter().map(String::as_str).collect();
        eprintln!("setup: download {} from Debian", names.join(", "));
        let folder = self.folder.join("packages");
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let mut apt_get = self.command(layout, "apt-get");
        apt_get.arg("download").args(names).current_dir(&folder);
        command::capture(&mut apt_get, IF_DEBIAN_FAILS)?;
        files_in(&folder)
    }
}

/// Only libraries may come from the machine. An installed compiler or LLVM is not counted on: it
/// could be of another version than the one that is downloaded.
fn is_installed(layout: &Layout, package: &str) -> bool {
    let is_part_of_compiler = package.contains("rust") || package.contains("llvm");
    let mut dpkg = command::program(layout, "dpkg-query");
    dpkg.args(["-W", "-f=${db:Status-Status}", package]);
    !is_part_of_compiler
        && dpkg.output().is_ok_and(|output| output.stdout.starts_with(b"installed"))
}

/// The names in the output of `apt-cache depends`: alternatives too, virtual packages (`<name>`)
/// not.
fn dependencies(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "))
        .filter(|name| !name.starts_with('<'))
        .map(ToString::to_string)
        .collect()
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_dependencies() {
        let text = "libllvm22\n  Depends: libc6\n |Depends: libedit2\n  Depends: <libfoo>\n    libx\n  \
                    Conflicts: rustc\n  Recommends: cargo\n";
        assert_eq!(dependencies(text), ["libc6", "libedit2"]);
    }

    #[test]
    fn versions() {
        assert_eq!(rustc_version("rustc 1.96.0 (built from a source tarball)"), Some((1, 96)));
        assert_eq!(rustc_version("gcc 12"), None);
        assert!((1, 85) < OLDEST_RUSTC && (2, 0) > OLDEST_RUSTC);
    }
}
