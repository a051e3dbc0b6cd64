//! What a child process must not inherit from the `cargo run` that started xtask.
//!
//! Cargo and rustup leave their marks in the environment: which toolchain runs, where its libraries
//! are, which package is "being built". A cargo started for another toolchain would obey them, and a
//! traced program would see an environment its user never had.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::Command,
};

/// Set by cargo for the program it runs, or by rustup's proxies for the cargo they start.
fn is_mark_of_the_outer_cargo(name: &str) -> bool {
    const PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    const NAMES: [&str; 6] = [
        "CARGO",
        "CARGO_PRIMARY_PACKAGE",
        "RUSTUP_TOOLCHAIN",
        "RUSTUP_TOOLCHAIN_SOURCE",
        "RUST_RECURSION_COUNT",
        "OUT_DIR",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A wish of the user's for how host programs are built. The kernel side is another target and
/// another compiler, where a wrapper, a linker or flags meant for the host break the build.
fn is_about_host_builds(name: &str) -> bool {
    const PREFIXES: [&str; 7] = [
        "RUSTC",
        "RUSTFLAGS",
        "CARGO_BUILD_",
        "CARGO_ENCODED_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_UNSTABLE_",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// `LD_LIBRARY_PATH` without what cargo and rustup put in front: the target folder and the
/// toolchain's libraries. `None` if nothing of the user's is left.
fn user_library_path(value: &OsStr, target: &Path, rustup_home: Option<&Path>) -> Option<OsString> {
    let kept: Vec<_> = std::env::split_paths(value)
        .filter(|entry| {
            let of_rustup = rustup_home.is_some_and(|home| entry.starts_with(home));
            let of_sysroot = entry.components().any(|part| part.as_os_str() == "rustlib");
            !(entry.starts_with(target) || of_rustup || of_sysroot || entry.as_os_str().is_empty())
        })
        .collect();
    if kept.is_empty() { None } else { std::env::join_paths(kept).ok() }
}

/// Gives `command` the environment the user has.
pub(crate) fn restore(command: &mut Command, target: &Path) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_mark_of_the_outer_cargo) {
            command.env_remove(name);
        }
    }
    let Some(value) = std::env::var_os("LD_LIBRARY_PATH") else { return };
    let rustup_home = std::env::var_os("RUSTUP_HOME");
    match user_library_path(&value, target, rustup_home.as_deref().map(Path::new)) {
        Some(kept) => command.env("LD_LIBRARY_PATH", kept),
        None => command.env_remove("LD_LIBRARY_PATH"),
    };
}

/// The names of the variables the user has.
pub(crate) fn user_variables() -> impl Iterator<Item = OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| !name.to_str().is_some_and(is_mark_of_the_outer_cargo))
}

/// Additionally takes away what speaks about host builds.
pub(crate) fn forget_host_builds(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_about_host_builds) {
            command.env_remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["CARGO", "CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "RUSTUP_TOOLCHAIN"] {
            assert!(is_mark_of_the_outer_cargo(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "RUST_LOG", "PATH"] {
            assert!(!is_mark_of_the_outer_cargo(name), "{name}");
            assert!(!is_about_host_builds(name), "{name}");
        }
        for name in ["RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS"] {
            assert!(is_about_host_builds(name), "{name}");
        }
    }

    #[test]
    fn library_path() {
        let check = |value: &str, expected: Option<&str>| {
            let got = user_library_path(
                OsStr::new(value),
                Path::new("/w/target"),
                Some(Path::new("/home/u/.rustup")),
            );
            assert_eq!(got.as_deref(), expected.map(OsStr::new), "{value}");
        };
        check("/w/target/debug:/w/target/debug/deps", None);
        check("/home/u/.rustup/toolchains/x/lib:/opt/mine", Some("/opt/mine"));
        check("/usr/lib/rustlib/x86_64/lib:/a:/b", Some("/a:/b"));
        check("", None);
    }
}
