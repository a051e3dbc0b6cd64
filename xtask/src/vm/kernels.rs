//! The kernels, and what else comes from Debian's packages.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    command::IfFails,
    layout::Layout,
    setup::{Apt, Stamp},
};

/// A kernel that Debian's archive offers for this release.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    /// The end of its packages' names.
    flavour: &'static str,
}

/// All that Debian's archive offers for this release: the oldest kernel that is supported and the one
/// after it, each built for virtual machines, with PREEMPT_RT, and with all drivers.
pub(super) const SERIES: [Series; 6] = [
    Series { name: "6.1", flavour: "cloud-amd64" },
    Series { name: "6.12", flavour: "cloud-amd64" },
    Series { name: "6.1-rt", flavour: "rt-amd64" },
    Series { name: "6.12-rt", flavour: "rt-amd64" },
    Series { name: "6.1-plain", flavour: "amd64" },
    Series { name: "6.12-plain", flavour: "amd64" },
];

const IF_DEBIAN_FAILS: IfFails<'static> = IfFails {
    it_means: "what the virtual machines need cannot be had from Debian's packages",
    remedy: "use a Debian 12 (with its security updates), or name a kernel with \
             `cargo xtask vm --kernel FILE`",
};

/// What the user asks for.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Series(Series),
    File(PathBuf),
}

pub(super) fn default_series() -> Vec<Wanted> {
    SERIES.into_iter().map(Wanted::Series).collect()
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(series) = SERIES.into_iter().find(|series| series.name == text) {
            return Ok(Self::Series(series));
        }
        match std::path::absolute(text) {
            Ok(file) if file.is_file() => Ok(Self::File(file)),
            _ => {
                let names = SERIES.map(|series| series.name).join(", ");
                Err(format!("it is neither a file nor one of {names}"))
            }
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Series(series) => f.write_str(series.name),
            Self::File(file) => file.display().fmt(f),
        }
    }
}

#[derive(Debug)]
pub(super) struct Kernel {
    /// For messages and file names.
    pub(super) name: String,
    pub(super) image: PathBuf,
    /// As `vm-init` takes them.
    pub(super) profiles: String,
}

/// Unpacks packages below the tools folder. apt is asked only for what is not there: removing a
/// folder gets the newer version.
#[derive(Debug)]
pub(super) struct Downloads<'a> {
    layout: &'a Layout,
    apt: Option<Apt<'a>>,
}

impl<'a> Downloads<'a> {
    pub(super) fn new(layout: &'a Layout) -> Self {
        Self { layout, apt: None }
    }

    fn apt(&mut self) -> Result<&Apt<'a>> {
        let apt = match self.apt.take() {
            Some(apt) => apt,
            None => Apt::with_fresh_lists(self.layout, IF_DEBIAN_FAILS)?,
        };
        Ok(self.apt.insert(apt))
    }

    /// The first of `things` that is in the package, unpacked with what it needs into the folder
    /// that is named after it.
    pub(super) fn package(&mut self, package: &str, things: &[&str]) -> Result<PathBuf> {
        let folder = self.layout.tools().join(package);
        let stamp = Stamp::new(folder.join(".stamp"), package);
        let found = || things.iter().map(|thing| folder.join(thing)).find(|file| file.is_file());
        if let Some(thing) = found().filter(|thing| stamp.is_current(thing)) {
            return Ok(thing);
        }
        let apt = self.apt()?;
        apt.unpack(&apt.with_dependencies(&[package])?, &folder)?;
        stamp.write()?;
        found().ok_or_else(|| anyhow!("Debian's {package} lacks {}", things.join(" or ")))
    }

    pub(super) fn kernel(&mut self, wanted: &Wanted) -> Result<Kernel> {
        match wanted {
            Wanted::File(file) => {
                let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
                let name = name.unwrap_or_default();
                Ok(Kernel { name, image: file.clone(), profiles: String::new() })
            }
            Wanted::Series(series) => Ok(Kernel {
                name: series.name.to_owned(),
                image: self.debian_kernel(*series)?,
                profiles: String::new(),
            }),
        }
    }

    fn debian_kernel(&mut self, series: Series) -> Result<PathBuf> {
        let Series { name, flavour, .. } = series;
        let folder = self.layout.tools().join("kernels").join(name);
        let (boot, stamp) = (folder.join("boot"), Stamp::new(folder.join(".stamp"), name));
        if let Some(image) = image(&boot).filter(|image| stamp.is_current(image)) {
            return Ok(image);
        }
        let version = name.split('-').next().unwrap_or(name).replace('.', "[.]");
        let pattern = format!("^linux-image-{version}[.][0-9][^ -]*(-[0-9]+)?-{flavour}$");
        let apt = self.apt()?;
        let newest = apt.search(&pattern)?.into_iter().max_by_key(|name| numbers(name));
        let newest = newest
            .ok_or_else(|| anyhow!("Debian's archives have no kernel {name}\n{IF_DEBIAN_FAILS}"))?;
        apt.unpack(&[newest], &folder)?;
        for of_no_use in ["lib", "usr"].map(|name| folder.join(name)) {
            if of_no_use.exists() {
                fs::remove_dir_all(&of_no_use)
                    .with_context(|| format!("cannot remove {}", of_no_use.display()))?;
            }
        }
        stamp.write()?;
        image(&boot).ok_or_else(|| anyhow!("the package of kernel {name} has no image in boot"))
    }
}

fn image(boot: &Path) -> Option<PathBuf> {
    fs::read_dir(boot).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
    })
}

/// All numbers in a name, which order versions as one expects.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_not_the_last_of_the_alphabet() {
        let check = |names: &[&str], expected: &str| {
            assert_eq!(names.iter().copied().max_by_key(|name| numbers(name)), Some(expected));
        };
        check(
            &["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"],
            "linux-image-6.1.0-56-cloud-amd64",
        );
        check(
            &["linux-image-6.12.117+deb12-cloud-amd64", "linux-image-6.12.95+deb12-cloud-amd64"],
            "linux-image-6.12.117+deb12-cloud-amd64",
        );
    }

    #[test]
    fn a_kernel_is_a_series_or_a_file() {
        assert!(matches!("6.1".parse(), Ok(Wanted::Series(Series { name: "6.1", .. }))));
        assert!(matches!("Cargo.toml".parse(), Ok(Wanted::File(_))));
        let refused = Wanted::from_str("5.4").unwrap_err();
        assert_eq!(
            refused,
            "it is neither a file nor one of 6.1, 6.12, 6.1-rt, 6.12-rt, 6.1-plain, 6.12-plain"
        );
    }
}
