//! A browser for the tests that open reports: Debian's headless Chromium, unpacked and not
//! installed, with fonts of its own, so that pictures look alike on every machine.
//!
//! Tests fall back to a browser on PATH and are skipped where there is none, so a machine that
//! cannot get this package still builds and tests everything else.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::{self, Apt},
    stamp::{Stamp, replace_if_different},
};
use crate::{
    command::{self, IfFails},
    layout::Layout,
};

const PACKAGES: [&str; 2] = ["chromium-headless-shell", "fonts-dejavu-core"];
const PROGRAM: &str = "usr/lib/chromium/chromium-headless-shell";

const IF_DEBIAN_FAILS: IfFails<'static> = IfFails {
    it_means: "reports are not opened in a browser unless one is on PATH; those tests are skipped",
    remedy: "use a Debian 12 (with its security updates) or later, or install Chromium",
};

pub(crate) fn find_or_install(layout: &Layout) -> Result<()> {
    let folder = layout.tools().join("chromium");
    let wrapper = folder.join("chromium");
    // The folder is part of it: the wrapper names it. apt is asked only the first time: removing
    // the folder gets the newer version.
    let made_from = format!("{}\nin {}", PACKAGES.join(" "), folder.display());
    let stamp = Stamp::new(folder.join(".stamp"), made_from);
    if stamp.is_current(&wrapper) {
        eprintln!("ok: headless Chromium");
        return Ok(());
    }
    let apt = Apt::with_fresh_lists(layout, IF_DEBIAN_FAILS)?;
    apt.unpack(&apt.with_dependencies(&PACKAGES)?, &folder)?;
    if !folder.join(PROGRAM).is_file() {
        bail!("Debian's {} has no {PROGRAM}\n{IF_DEBIAN_FAILS}", PACKAGES[0]);
    }
    write_fonts(&folder)?;
    write_wrapper(&folder, &wrapper)?;
    let mut version = command::program(layout, &wrapper);
    command::capture(version.arg("--version"), IF_DEBIAN_FAILS)?;
    stamp.write()
}

/// The unpacked fonts and no others.
fn write_fonts(folder: &Path) -> Result<()> {
    let text = format!(
        "<?xml version=\"1.0\"?>\n<fontconfig>\n  <dir>{0}/usr/share/fonts</dir>\n  \
         <cachedir>{0}/font-cache</cachedir>\n</fontconfig>\n",
        folder.display()
    );
    replace_if_different(&folder.join("fonts.conf"), text.as_bytes())?;
    Ok(())
}

/// A wrapper, because the libraries are not where the program was built to find them.
fn write_wrapper(folder: &Path, wrapper: &Path) -> Result<()> {
    let folders = apt::library_folders(folder);
    // PulseAudio's library keeps a part of itself one level down.
    let deeper = folders.iter().map(|path| path.join("pulseaudio"));
    let all = folders.iter().cloned().chain(deeper).chain([folder.join("usr/lib/chromium")]);
    let libraries: Vec<String> = all.map(|path| path.display().to_string()).collect();
    let text = format!(
        "#!/bin/sh\nFONTCONFIG_FILE='{0}/fonts.conf' LD_LIBRARY_PATH='{1}' \
         exec '{0}/{PROGRAM}' \"$@\"\n",
        folder.display(),
        libraries.join(":")
    );
    replace_if_different(wrapper, text.as_bytes())?;
    fs::set_permissions(wrapper, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", wrapper.display()))
}
