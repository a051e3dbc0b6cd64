//! Odd programs, one behaviour each, compiled when the first test asks for them.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use anyhow::{Context as _, Result, ensure};

use crate::{fixtures, on_path, scratch::Scratch};

/// Where `fixtures/programs/NAME.c` was compiled to, inside the test's own scratch so that nothing
/// has to be cleaned up at the end of the process.
pub fn program(scratch: &Scratch, name: &str) -> Result<PathBuf> {
    let compiled = compiled(name)?;
    let path = scratch.folder("programs")?.join(name);
    if !path.exists() {
        write_program(&path, &compiled, 0o755)?;
    }
    Ok(path)
}

/// Writes a file that can be executed.
///
/// Another process does it. What other threads start meanwhile has all files of this process open until it
/// executes something, and the kernel executes no file that anybody has open for writing (ETXTBSY).
pub fn write_program(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    let mut command = Command::new("sh");
    command.args(["-c", "cat > \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut child = command.spawn().with_context(context)?;
    let sent = child.stdin.take().context("it was asked for")?.write_all(content);
    ensure!(child.wait()?.success(), "{}", context());
    sent.with_context(context)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Copies a file so that the copy can be executed, see [`write_program`].
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let from = from.as_ref();
    let context = || format!("cannot copy {}", from.display());
    let content = fs::read(from).with_context(context)?;
    let mode = fs::metadata(from).with_context(context)?.permissions().mode();
    write_program(to.as_ref(), &content, mode & 0o7777)
}

/// A folder with all of them, for machines without a compiler.
pub(crate) const FOLDER: &str = "TRACER_TEST_PROGRAMS";

/// Compiles every program into a folder, but for those that are there and not older than their sources.
pub fn compile_all(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let sources = fixtures().join("programs");
    let mut files =
        fs::read_dir(&sources)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    files.sort();
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified());
    let headers = files.iter().filter(|file| file.extension().is_some_and(|end| end == "h"));
    let newest_header = headers.map(|file| changed(file)).collect::<Result<Vec<_>, _>>()?;
    let newest_header = newest_header.into_iter().max();
    for source in files.iter().filter(|file| file.extension().is_some_and(|end| end == "c")) {
        let name = source.file_stem().and_then(|name| name.to_str()).context("a name")?;
        let to = folder.join(name);
        let source_changed = Some(changed(source)?).max(newest_header);
        if !changed(&to).is_ok_and(|compiled| Some(compiled) > source_changed) {
            compile(name, &to)?;
        }
    }
    Ok(())
}

/// The program's bytes: compiled once, kept in memory.
fn compiled(name: &str) -> Result<Arc<Vec<u8>>> {
    static COMPILED: OnceLock<Mutex<HashMap<String, Arc<Vec<u8>>>>> = OnceLock::new();
    let mut known =
        COMPILED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = known.get(name) {
        return Ok(Arc::clone(bytes));
    }
    let bytes = match std::env::var_os(FOLDER) {
        Some(folder) => fs::read(Path::new(&folder).join(name)).context(name.to_owned())?,
        None => {
            let folder = tempfile::tempdir()?;
            let to = folder.path().join(name);
            compile(name, &to)?;
            fs::read(to)?
        }
    };
    let bytes = Arc::new(bytes);
    known.insert(name.into(), Arc::clone(&bytes));
    Ok(bytes)
}

fn compile(name: &str, to: &Path) -> Result<()> {
    let compiler = on_path("cc")?;
    let source = fixtures().join("programs").join(format!("{name}.c"));
    let output = Command::new(compiler)
        .args(["-std=gnu11", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(to)
        .arg(source)
        .output()?;
    ensure!(output.status.success(), "{name}.c: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
