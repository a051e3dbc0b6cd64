//! A cgroup (v2) of a test's or a measurement's own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

/// Where the second version of cgroups is.
pub fn root() -> &'static Path {
    let beside_the_first = Path::new("/sys/fs/cgroup/unified");
    if beside_the_first.is_dir() { beside_the_first } else { Path::new("/sys/fs/cgroup") }
}

/// Dropping it removes it, if nothing is in it any more.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    pub fn new(name: &str) -> Result<Cgroup> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = root().join(format!("{name}-{}-{number}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Cgroup(folder))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What starts a command in it, as the words before the command's own.
    pub fn entering(&self) -> Vec<String> {
        let enter = "echo 0 > \"$0\" && exec \"$@\"";
        let procs = self.0.join("cgroup.procs").display().to_string();
        vec!["sh".to_owned(), "-c".to_owned(), enter.to_owned(), procs]
    }

    /// Processor time of everything that ever ran in it, by the kernel's own account.
    pub fn cpu_ns(&self) -> Result<f64> {
        let file = self.0.join("cpu.stat");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        let us: f64 = usage.with_context(|| format!("no usage in {text:?}"))?.trim().parse()?;
        Ok(us * 1e3)
    }
}

/// Removes what a tracer that was killed has left for its command.
pub fn remove_of(tracer: u32) {
    let Ok(folders) = fs::read_dir(root()) else { return };
    let start = format!("tracer-{tracer}-");
    for folder in folders.flatten() {
        if folder.file_name().to_string_lossy().starts_with(&start) {
            remove(&folder.path());
        }
    }
}

fn remove(folder: &Path) {
    // Those of a tracer or a service manager that was killed in it.
    for below in fs::read_dir(folder).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&below.path());
        }
    }
    // What has just been killed leaves a moment later.
    for _ in 0..100 {
        if fs::remove_dir(folder).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.0);
    }
}
