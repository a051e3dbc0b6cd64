//! What one test or one row of a table makes and leaves.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{copy_program, write_program};

/// Variable by which everything a test started can be found again.
pub const MARK: &str = "TRACER_TEST";

/// A directory and a mark. Dropping it kills every process that carries the mark and removes the
/// directory.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    mark: String,
}

impl Scratch {
    pub fn new() -> Result<Scratch> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::Builder::new()
            .prefix("tracer-test-")
            // Some commands run as another user.
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .context("cannot make a directory for temporary files")?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Scratch { folder, mark: format!("{}-{number}", std::process::id()) })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// A file that can be executed.
    pub fn script(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        write_program(&path, text.as_bytes(), 0o755)?;
        Ok(path)
    }

    pub fn folder(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.file(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    pub fn copy(&self, from: &Path, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.file(name);
        copy_program(from, &path)?;
        Ok(path)
    }

    /// Lets a user who is not root write here.
    pub fn give_to(&self, uid: u32) -> Result<()> {
        Ok(std::os::unix::fs::chown(self.path(), Some(uid), Some(uid))?)
    }

    /// The value of [`MARK`] in the environment of everything that is to be found again.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Kills everything that was started with this scratch's mark and still runs.
    pub fn sweep(&self) {
        let mark = format!("{MARK}={}\0", self.mark);
        // A process can fork while the list is read, so until nothing is found.
        for _ in 0..100 {
            let found = marked(mark.as_bytes());
            for pid in &found {
                let _ = rustix::process::kill_process(*pid, rustix::process::Signal::KILL);
            }
            if found.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.sweep();
    }
}

fn marked(mark: &[u8]) -> Vec<rustix::process::Pid> {
    let carries = |folder: &Path| -> io::Result<bool> {
        let environment = fs::read(folder.join("environ"))?;
        Ok(environment.windows(mark.len()).any(|window| window == mark))
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| {
            let folder = entry.ok()?.path();
            let name = std::str::from_utf8(folder.file_name()?.as_bytes()).ok()?;
            let pid = rustix::process::Pid::from_raw(name.parse().ok()?)?;
            carries(&folder).ok()?.then_some(pid)
        })
        .collect()
}
