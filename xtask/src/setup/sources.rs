//! Source packages of Debian's, as their authors published them, that workloads build and test.
//!
//! Workloads that need one are skipped without it.

use std::fs;

use anyhow::{Context as _, Result};

use super::{Apt, stamp::Stamp};
use crate::{command::IfFails, layout::Layout};

const PACKAGES: [&str; 2] = ["hello", "perl"];

const IF_DEBIAN_FAILS: IfFails<'static> = IfFails {
    it_means: "the workloads that build and test a source package are not compared",
    remedy: "use a Debian 12 or later whose archive has sources",
};

pub(crate) fn find_or_download(layout: &Layout) -> Result<()> {
    let folder = layout.tools().join("sources");
    let stamp = Stamp::new(folder.join(".stamp"), PACKAGES.join("\n"));
    if stamp.is_current(&folder) {
        eprintln!("ok: source packages {}", PACKAGES.join(", "));
        return Ok(());
    }
    // Of the release itself: its security updates have the same code by the author, and are not everywhere.
    let release = release()?;
    let packages: Vec<String> = PACKAGES.iter().map(|name| format!("{name}/{release}")).collect();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let apt = Apt::with_fresh_lists_of_sources(layout, IF_DEBIAN_FAILS)?;
    apt.download_sources(&packages, &folder)?;
    stamp.write()
}

/// The machine's own, by its name.
fn release() -> Result<String> {
    let file = "/etc/os-release";
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name =
        name.with_context(|| format!("{file} has no VERSION_CODENAME\n{IF_DEBIAN_FAILS}"))?;
    Ok(name.trim_matches('"').to_owned())
}
