//! What `--version` says, and every recording.

use std::sync::OnceLock;

static NAMED: OnceLock<String> = OnceLock::new();

/// To be called first by the program, with the commit it is built from. The library does not know it, or it would be
/// compiled anew with every commit.
pub fn name(commit: Option<&str>) {
    let version = env!("CARGO_PKG_VERSION");
    let named = commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"));
    // The first name stays.
    let _ = NAMED.set(named);
}

/// The version and, where the program has named one, the commit.
pub(crate) fn version() -> &'static str {
    NAMED.get().map_or(env!("CARGO_PKG_VERSION"), String::as_str)
}
