//! What the fold asks of the machine it runs on.

use std::{
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::{
    model::{Bytes, ExecEvent},
    probe::Identifier,
    session::{Machine, ScriptFile},
};

#[derive(Debug)]
pub(super) struct LiveMachine {
    /// Inode of the pid namespace that /proc shows.
    own_pid_ns: Option<u32>,
    identifier: Identifier,
}

/// The initial pid namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const INITIAL_PID_NS: u32 = 0xeffffffc;

impl LiveMachine {
    pub(super) fn new(identifier: Identifier) -> LiveMachine {
        let own_pid_ns = std::fs::metadata("/proc/self/ns/pid")
            .ok()
            .and_then(|metadata| u32::try_from(metadata.ino()).ok());
        LiveMachine { own_pid_ns, identifier }
    }

    fn look_up(&self, path: &Path) -> Option<ScriptFile> {
        let file = self.identifier.file_at(path)?;
        let resolved = std::fs::canonicalize(path).ok()?;
        Some(ScriptFile { file, resolved_path: Bytes::from(resolved.as_path()) })
    }

    /// The /proc folder of the process that executed, if this /proc shows it.
    fn proc_folder(&self, exec: &ExecEvent) -> Option<PathBuf> {
        let pid = if self.own_pid_ns == Some(INITIAL_PID_NS) {
            exec.header.process.pid
        } else if self.own_pid_ns == Some(exec.pid_ns_inum) {
            exec.ns_pid
        } else {
            return None;
        };
        Some(PathBuf::from(format!("/proc/{pid}")))
    }
}

impl Machine for LiveMachine {
    /// Looks the script up by name, as the process sees names: through its root directory while it
    /// lives, else through our own.
    fn script_file(&mut self, exec: &ExecEvent) -> Option<ScriptFile> {
        let folder = self.proc_folder(exec);
        let name = exec.filename.as_path();
        // fexecve: the kernel spells the script /dev/fd/N.
        if let Ok(descriptor) = name.strip_prefix("/dev/fd") {
            return self.look_up(&folder?.join("fd").join(descriptor));
        }
        let absolute =
            if name.is_absolute() { name.to_owned() } else { exec.cwd.as_path().join(name) };
        if !absolute.is_absolute() {
            return None;
        }
        let inside = |folder: PathBuf| {
            let root = folder.join("root");
            self.look_up(&root.join(absolute.strip_prefix("/").ok()?)).map(|mut found| {
                let prefix = root.as_os_str().as_bytes();
                if let Some(rest) = found.resolved_path.0.strip_prefix(prefix) {
                    found.resolved_path = rest.into();
                }
                found
            })
        };
        folder.and_then(inside).or_else(|| self.look_up(&absolute))
    }
}
