//! The real AWS CLI, in a Python environment of its own: the program that must not run is best
//! recognised on the real thing.

use anyhow::{Result, bail};

use super::stamp::Stamp;
use crate::{
    command::{self, IfFails},
    layout::Layout,
};

const PACKAGE: &str = "awscli==1.46.3";

pub(crate) fn find_or_install(layout: &Layout) -> Result<()> {
    let folder = layout.awscli();
    let aws = folder.join("bin/aws");
    // The folder is part of it: scripts of such an environment name it and break when it moves.
    let stamp = Stamp::new(folder.join(".stamp"), format!("{PACKAGE}\nin {}", folder.display()));
    if stamp.is_current(&aws) {
        eprintln!("ok: AWS CLI, {PACKAGE}");
        return Ok(());
    }
    if command::on_path("python3").is_none() {
        bail!(
            "python3 is not on PATH\n  it means: the tests have no real AWS CLI to recognise\n  \
             remedy:   install Python 3.9 or later with its venv module"
        );
    }
    eprintln!("setup: install the AWS CLI ({PACKAGE})");
    let if_fails = IfFails {
        it_means: "the tests have no real AWS CLI to recognise",
        remedy: "install Python's venv module (Debian: python3-venv) and check that pip reaches \
                 its index",
    };
    let mut venv = command::program(layout, "python3");
    command::capture(venv.args(["-m", "venv", "--clear"]).arg(&folder), if_fails)?;
    let mut pip = command::program(layout, folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", PACKAGE]);
    command::capture(&mut pip, if_fails)?;
    command::capture(command::program(layout, &aws).arg("--version"), if_fails)?;
    stamp.write()
}
