//! A Python environment of our own, for tests that want somebody else's opinion: a JSON Schema
//! validator and a verifier of signed statements that share no code with what they check.

use anyhow::Result;

use super::stamp::Stamp;
use crate::{
    command::{self, IfFails},
    layout::Layout,
};

const PACKAGES: [&str; 3] =
    ["jsonschema==4.26.0", "securesystemslib==1.6.0", "cryptography==50.0.2"];

const IF_FAILS: IfFails<'static> = IfFails {
    it_means: "no schema and no signature is checked independently; those tests are skipped",
    remedy: "install Python 3.9 or later with its venv module (Debian: python3-venv) and check \
             that pip reaches its index",
};

pub(crate) fn find_or_install(layout: &Layout) -> Result<()> {
    let folder = layout.tools().join("python");
    let stamp = Stamp::new(folder.join(".stamp"), PACKAGES.join("\n"));
    if stamp.is_current(&folder.join("bin/python3")) {
        eprintln!("ok: Python with {}", PACKAGES.join(", "));
        return Ok(());
    }
    eprintln!("setup: install {} for Python", PACKAGES.join(", "));
    let mut venv = command::program(layout, "python3");
    command::capture(venv.args(["-m", "venv", "--clear"]).arg(&folder), IF_FAILS)?;
    let mut pip = command::program(layout, folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
    command::capture(&mut pip, IF_FAILS)?;
    stamp.write()
}
