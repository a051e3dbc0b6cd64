//! Debian packages without installing them: downloaded by apt-get, unpacked below the tools folder.
//!
//! apt's lists are kept there too, so none of this needs root, and nothing of the machine changes.
//! Which archives to ask stays as the machine has it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{self, IfFails},
    layout::Layout,
};

/// Any machine that links programs has these, and a second C library would only do harm.
const OF_EVERY_MACHINE: [&str; 7] =
    ["binutils", "gcc", "gcc-12-base", "libc6", "libc6-dev", "libgcc-s1", "libstdc++6"];

/// A file of apt's that says so.
const NOTHING_INSTALLED: &str = "state/status";

/// apt with lists and cache of its own, which go when this goes.
#[derive(Debug)]
pub(crate) struct Apt<'a> {
    layout: &'a Layout,
    folder: PathBuf,
    /// Where it says which archives to ask, when that is not as the machine has it.
    lists: Option<PathBuf>,
    if_fails: IfFails<'static>,
}

impl<'a> Apt<'a> {
    pub(crate) fn with_fresh_lists(layout: &'a Layout, if_fails: IfFails<'static>) -> Result<Self> {
        let apt = Self::without_lists(layout, if_fails)?;
        apt.update()?;
        Ok(apt)
    }

    /// Likewise for source packages, from wherever the machine has its binary packages from.
    pub(crate) fn with_fresh_lists_of_sources(
        layout: &'a Layout,
        if_fails: IfFails<'static>,
    ) -> Result<Self> {
        let mut apt = Self::without_lists(layout, if_fails)?;
        let ours = apt.folder.join("sources.list.d");
        fs::create_dir_all(&ours).with_context(|| format!("cannot create {}", ours.display()))?;
        for (file, text) in machines_lists()? {
            let file = ours.join(file);
            fs::write(&file, of_sources(&text))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        apt.lists = Some(ours);
        apt.update()?;
        Ok(apt)
    }

    fn update(&self) -> Result<()> {
        eprintln!("setup: read Debian's package lists");
        command::capture(self.command("apt-get").arg("update"), self.if_fails)?;
        Ok(())
    }

    fn without_lists(layout: &'a Layout, if_fails: IfFails<'static>) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb", "dpkg-query"] {
            if command::on_path(tool).is_none() {
                bail!("{tool} is not on PATH: this is no Debian system\n{if_fails}");
            }
        }
        let apt = Self { layout, folder: layout.tools().join("apt"), lists: None, if_fails };
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let folder = apt.folder.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let status = apt.folder.join(NOTHING_INSTALLED);
        fs::write(&status, "").with_context(|| format!("cannot write {}", status.display()))?;
        Ok(apt)
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = command::program(self.layout, tool);
        let option = |name: &str, folder: &str| {
            format!("-oDir::{name}={}", self.folder.join(folder).display())
        };
        command.arg(option("State", "state")).arg(option("Cache", "cache"));
        // A version that is installed need not be one that the archives have.
        command.arg(option("State::status", NOTHING_INSTALLED));
        if let Some(lists) = &self.lists {
            command.arg("-oDir::Etc::sourcelist=/dev/null");
            command.arg(format!("-oDir::Etc::sourceparts={}", lists.display()));
        }
        // As root apt would drop to a user who cannot write here, and warn about it.
        command.args(["-oAPT::Sandbox::User=", "-qq"]);
        command
    }

    /// Downloads what the authors of the packages published.
    pub(crate) fn download_sources(&self, packages: &[String], into: &Path) -> Result<()> {
        eprintln!("setup: download the sources of {} from Debian", packages.join(", "));
        let mut apt_get = self.command("apt-get");
        apt_get.args(["source", "--download-only", "--tar-only"]).args(packages).current_dir(into);
        command::capture(&mut apt_get, self.if_fails)?;
        Ok(())
    }

    /// Names of packages that match a regular expression.
    pub(crate) fn search(&self, pattern: &str) -> Result<Vec<String>> {
        let mut apt_cache = self.command("apt-cache");
        apt_cache.args(["search", "--names-only", pattern]);
        let found = command::stdout(&mut apt_cache, self.if_fails)?;
        Ok(found.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// The packages, and what they depend on as far as the machine lacks it.
    pub(crate) fn with_dependencies(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut wanted = BTreeSet::new();
        let mut open: Vec<String> = packages.iter().map(ToString::to_string).collect();
        while let Some(package) = open.pop() {
            if !wanted.insert(package.clone()) {
                continue;
            }
            let mut apt_cache = self.command("apt-cache");
            apt_cache.args(["depends", "--important", &package]);
            let depends = command::stdout(&mut apt_cache, self.if_fails)?;
            open.extend(dependencies(&depends).into_iter().filter(|name| {
                !OF_EVERY_MACHINE.contains(&name.as_str()) && !is_installed(self.layout, name)
            }));
        }
        Ok(wanted.into_iter().collect())
    }

    /// Downloads the packages, these alone, and unpacks them into one folder, which is replaced.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        eprintln!("setup: download {} from Debian", packages.join(", "));
        let downloads = self.folder.join("packages");
        for folder in [into, &downloads] {
            remove(folder)?;
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let mut apt_get = self.command("apt-get");
        apt_get.arg("download").args(packages).current_dir(&downloads);
        command::capture(&mut apt_get, self.if_fails)?;
        for file in files_in(&downloads)? {
            let mut dpkg = command::program(self.layout, "dpkg-deb");
            command::capture(dpkg.arg("-x").arg(&file).arg(into), self.if_fails)?;
        }
        Ok(())
    }
}

impl Drop for Apt<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folder) {
            eprintln!("setup: {error:#}");
        }
    }
}

/// The machine's lists of archives, by file name.
fn machines_lists() -> Result<Vec<(String, String)>> {
    let etc = Path::new("/etc/apt");
    let parts = files_in(&etc.join("sources.list.d")).unwrap_or_default();
    let mut lists = Vec::new();
    for file in parts.into_iter().chain([etc.join("sources.list")]) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".list") || name.ends_with(".sources") {
            // The one file for all is not there on newer systems.
            if let Ok(text) = fs::read_to_string(&file) {
                lists.push((name, text));
            }
        }
    }
    Ok(lists)
}

/// A list of archives, in either of its forms, that asks for sources.
fn of_sources(text: &str) -> String {
    let asks = |line: &str| match line.split_once([' ', ':']) {
        Some(("deb", rest)) => format!("deb-src {rest}\n"),
        Some(("Types", _)) => "Types: deb-src\n".into(),
        Some(_) | None => format!("{line}\n"),
    };
    text.lines().map(asks).collect()
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// The folders of an unpacked package that hold libraries: `usr/lib/x86_64-linux-gnu` and
/// `lib/x86_64-linux-gnu`, because Debian 12 has libraries in both.
pub(crate) fn library_folders(unpacked: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> = ["usr/lib", "lib"]
        .iter()
        .filter_map(|parent| fs::read_dir(unpacked.join(parent)).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with("-linux-gnu"))
        .collect();
    folders.sort();
    folders
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
    fn lists_ask_for_sources() {
        let check = |text: &str, sources: &str| assert_eq!(of_sources(text), sources);
        check("deb http://a b main\n# deb x", "deb-src http://a b main\n# deb x\n");
        check("Types: deb\nURIs: http://a\n", "Types: deb-src\nURIs: http://a\n");
        check("deb-src http://a b main", "deb-src http://a b main\n");
    }

    #[test]
    fn names_of_dependencies() {
        let text = "libllvm22\n  Depends: libc6\n |Depends: libedit2\n  Depends: <libfoo>\n    libx\n  \
                    Conflicts: rustc\n  Recommends: cargo\n";
        assert_eq!(dependencies(text), ["libc6", "libedit2"]);
    }
}
