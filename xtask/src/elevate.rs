//! Becoming root, for what needs it and only for that.

use std::{
    ffi::{OsStr, OsString},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
};

use anyhow::{Result, bail};

use crate::{command, env, layout::Layout};

/// A command that runs as root in the caller's environment; `sudo` may ask for a password.
///
/// sudo clears the environment and puts its own `PATH` in place, which would hide a `node` that a
/// version manager installed and take the traced program's configuration away. The variables are
/// handed over by name, because values on a command line are seen by everyone; `PATH` alone goes by
/// value, since sudo's `secure_path` overrules the list.
pub(crate) fn elevated(layout: &Layout, program: &Path) -> Result<Command> {
    if is_root() {
        return Ok(command::program(layout, program));
    }
    let Some(sudo) = command::on_path("sudo") else {
        bail!(
            "not root, and sudo is not on PATH\n  it means: the kernel lets only root load eBPF \
             programs\n  remedy:   run the same command as root, or install sudo"
        );
    };
    let mut command = command::program(layout, sudo);
    command.arg(preserved(env::user_variables())).args(["--", "/usr/bin/env"]);
    let mut path = OsString::from("PATH=");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    command.arg(path).arg(program);
    Ok(command)
}

/// The owner of our own entry in /proc is our effective user.
fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|meta| meta.uid() == 0)
}

/// sudo splits the list at commas and knows no quoting; odd names (exported shell functions) stay.
fn preserved(names: impl Iterator<Item = OsString>) -> OsString {
    let is_plain = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
    };
    let mut names: Vec<_> = names.filter(|name| is_plain(name) && name != "PATH").collect();
    names.sort();
    let mut option = OsString::from("--preserve-env=");
    option.push(names.join(OsStr::new(",")));
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_only() {
        let names = ["HOME", "PATH", "BASH_FUNC_f%%", "AWS_PROFILE", "a,b"].map(OsString::from);
        assert_eq!(preserved(names.into_iter()), "--preserve-env=AWS_PROFILE,HOME");
    }
}
