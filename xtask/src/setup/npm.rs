//! The npm packages of the Node fixtures, each in its own `node_modules`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use super::stamp::Stamp;
use crate::{
    command::{self, IfFails},
    layout::Layout,
};

pub(crate) fn install_fixtures(layout: &Layout) -> Result<()> {
    let fixtures = layout.fixtures();
    let mut folders: Vec<_> = fs::read_dir(&fixtures)
        .with_context(|| format!("cannot list {}", fixtures.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| folder.join("package-lock.json").exists())
        .collect();
    folders.sort();
    folders.iter().try_for_each(|folder| install(layout, folder))
}

fn install(layout: &Layout, folder: &Path) -> Result<()> {
    let name = folder.strip_prefix(layout.root()).unwrap_or(folder).display();
    let lock_file = folder.join("package-lock.json");
    let lock =
        fs::read(&lock_file).with_context(|| format!("cannot read {}", lock_file.display()))?;
    // The whole lock file is the stamp. It lies inside, so that it goes when node_modules goes.
    let modules = folder.join("node_modules");
    let stamp = Stamp::new(modules.join(".package-lock.installed"), lock);
    if stamp.is_current(&modules) {
        eprintln!("ok: npm packages of {name}");
        return Ok(());
    }
    if command::on_path("npm").is_none() {
        bail!(
            "npm is not on PATH\n  it means: the Node programs of the tests cannot run\n  remedy:   \
             install Node.js 20 or later with npm"
        );
    }
    eprintln!("setup: install the npm packages of {name}");
    let if_fails = IfFails {
        it_means: "the Node programs of the tests cannot run",
        remedy: "check that npm reaches its registry; after a change of package.json run \
                 `npm install` in that folder and commit package-lock.json",
    };
    // No package of ours needs to run a script when it is installed, so none gets to.
    let mut npm = command::program(layout, "npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
    command::capture(&mut npm, if_fails)?;
    stamp.write()
}
