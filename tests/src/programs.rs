//! Odd programs, one behaviour each, compiled when the first test asks for them.

use std::{
    collections::HashMap,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use anyhow::{Result, ensure};

use crate::{fixtures, on_path, scratch::Scratch};

/// Where `fixtures/programs/NAME.c` was compiled to, inside the test's own scratch so that nothing
/// has to be cleaned up at the end of the process.
pub fn program(scratch: &Scratch, name: &str) -> Result<PathBuf> {
    let compiled = compiled(name)?;
    let path = scratch.folder("programs")?.join(name);
    if !path.exists() {
        std::fs::write(&path, &*compiled)?;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(path)
}

/// The program's bytes: compiled once, kept in memory.
fn compiled(name: &str) -> Result<Arc<Vec<u8>>> {
    static COMPILED: OnceLock<Mutex<HashMap<String, Arc<Vec<u8>>>>> = OnceLock::new();
    let mut known =
        COMPILED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = known.get(name) {
        return Ok(Arc::clone(bytes));
    }
    let compiler = on_path("cc")?;
    let folder = tempfile::tempdir()?;
    let to = folder.path().join(name);
    let source = fixtures().join("programs").join(format!("{name}.c"));
    let output = Command::new(compiler)
        .args(["-std=gnu11", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&to)
        .arg(source)
        .output()?;
    ensure!(output.status.success(), "{name}.c: {}", String::from_utf8_lossy(&output.stderr));
    let bytes = Arc::new(std::fs::read(to)?);
    known.insert(name.into(), Arc::clone(&bytes));
    Ok(bytes)
}
