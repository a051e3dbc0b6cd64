//! Programs of Debian's that the table of evasions is tried with: disguises that need one, and other
//! tools that shall see through them; and `hey`, which calls servers and is written in Go. Unpacked and
//! not installed.
//!
//! Tests that need one are skipped without it, so a machine that cannot get them still tests the rest.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::{self, Apt},
    stamp::{Stamp, replace_if_different},
};
use crate::{command::IfFails, layout::Layout};

/// Program and package.
const PROGRAMS: [(&str, &str); 6] = [
    ("busybox", "busybox"),
    ("execsnoop", "libbpf-tools"),
    ("hey", "hey"),
    ("runc", "runc"),
    ("strace", "strace"),
    ("tmux", "tmux"),
];

const NODE: &str = "nodejs";

const IF_DEBIAN_FAILS: IfFails<'static> = IfFails {
    it_means: "disguises by busybox, runc or tmux, and what Go does (hey), are not tried unless these are \
               on PATH, Debian's Node is not, and strace and execsnoop are not compared with",
    remedy: "use a Debian 12 (with its security updates) or later, or install these programs",
};

/// What `cargo xtask bench` compares with, beside these: large, and needed for nothing else.
const PEERS: [(&str, &str); 3] = [("bpftrace", "bpftrace"), ("perf", "linux-perf"), ("jq", "jq")];

/// What `cargo xtask conformance` needs beside those.
const CONFORMANCE: [(&str, &str); 2] = [("perf", "linux-perf"), ("stress-ng", "stress-ng")];

pub(crate) fn find_or_install(layout: &Layout) -> Result<()> {
    unpack(layout, "debian", &PROGRAMS)
}

/// Debian's Node, whose code and whose TLS are in libraries: `target/tools/debian-node/unpacked` is laid
/// over a root, because it looks for its parts below `/usr`.
pub(crate) fn node(layout: &Layout) -> Result<()> {
    let folder = layout.tools().join("debian-node");
    let unpacked = folder.join("unpacked");
    let stamp = Stamp::new(folder.join(".stamp"), NODE);
    if stamp.is_current(&unpacked) {
        eprintln!("ok: Debian's Node");
        return Ok(());
    }
    let apt = Apt::with_fresh_lists(layout, IF_DEBIAN_FAILS)?;
    apt.unpack(&apt.with_dependencies(&[NODE])?, &unpacked)?;
    stamp.write()
}

pub(crate) fn peers(layout: &Layout) -> Result<()> {
    unpack(layout, "peers", &PEERS)
}

pub(crate) fn conformance(layout: &Layout) -> Result<()> {
    unpack(layout, "conformance", &CONFORMANCE)
}

/// Into `target/tools/NAME/bin`.
fn unpack(layout: &Layout, name: &str, programs: &[(&str, &str)]) -> Result<()> {
    let folder = layout.tools().join(name);
    let packages: Vec<&str> = programs.iter().map(|(_, package)| *package).collect();
    // The folder is part of it: the wrappers name it. apt is asked only the first time: removing the
    // folder gets the newer version.
    let made_from = format!("{}\nin {}", packages.join(" "), folder.display());
    let stamp = Stamp::new(folder.join(".stamp"), made_from);
    let wrappers = folder.join("bin");
    if stamp.is_current(&wrappers) {
        let names: Vec<&str> = programs.iter().map(|(program, _)| *program).collect();
        eprintln!("ok: {}", names.join(", "));
        return Ok(());
    }
    let apt = Apt::with_fresh_lists(layout, IF_DEBIAN_FAILS)?;
    apt.unpack(&apt.with_dependencies(&packages)?, &folder.join("unpacked"))?;
    for (program, package) in programs {
        write_wrapper(&folder.join("unpacked"), program, package, &wrappers.join(program))?;
    }
    stamp.write()
}

/// A wrapper, because the libraries are not where the program was built to find them.
fn write_wrapper(unpacked: &Path, program: &str, package: &str, wrapper: &Path) -> Result<()> {
    let folders = ["usr/sbin", "usr/bin", "bin"];
    let found = folders.iter().map(|folder| unpacked.join(folder).join(program));
    let Some(found) = found.into_iter().find(|file| file.is_file()) else {
        bail!("Debian's {package} has no {program}\n{IF_DEBIAN_FAILS}");
    };
    let libraries: Vec<PathBuf> = apt::library_folders(unpacked);
    let libraries: Vec<String> =
        libraries.iter().map(|folder| folder.display().to_string()).collect();
    let set = match libraries.as_slice() {
        [] => String::new(),
        some => format!("LD_LIBRARY_PATH='{}' ", some.join(":")),
    };
    let text = format!("#!/bin/sh\n{set}exec '{}' \"$@\"\n", found.display());
    replace_if_different(wrapper, text.as_bytes())?;
    fs::set_permissions(wrapper, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", wrapper.display()))
}
