//! What the fold asks of the machine it runs on.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use tracer_ebpf::abi::unread;

use super::content::Contents;
use crate::{
    model::{Bytes, ExecEvent, FileVersion},
    probe::Identifier,
    record::schema::ScriptFile,
    session::Machine,
};

#[derive(Debug)]
pub(super) struct LiveMachine {
    /// Inode of the pid namespace that /proc shows.
    own_pid_ns: Option<u32>,
    identifier: Identifier,
    contents: Contents,
}

/// The initial pid namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const INITIAL_PID_NS: u32 = 0xeffffffc;

impl LiveMachine {
    pub(super) fn new(identifier: Identifier) -> io::Result<LiveMachine> {
        let own_pid_ns = std::fs::metadata("/proc/self/ns/pid")
            .ok()
            .and_then(|metadata| u32::try_from(metadata.ino()).ok());
        Ok(LiveMachine { own_pid_ns, identifier, contents: Contents::new()? })
    }

    /// Has a file read that a policy may compare with.
    pub(super) fn read_known(&mut self, path: &Path) {
        if let Some(version) = self.identifier.file_at(path) {
            self.contents.ask(version, std::iter::once(path.to_owned()), &self.identifier);
        }
    }

    pub(super) fn contents(&mut self) -> &mut Contents {
        &mut self.contents
    }

    /// The script at `path`, shown without the folder of /proc that led to it.
    fn look_up(&mut self, path: PathBuf, root: &Path) -> Option<ScriptFile> {
        let version = self.identifier.file_at(&path)?;
        let resolved = std::fs::canonicalize(&path).ok()?;
        let shown =
            resolved.strip_prefix(root).map_or(resolved.clone(), |path| Path::new("/").join(path));
        self.contents.ask(version, std::iter::once(path), &self.identifier);
        Some(ScriptFile {
            id: version.id,
            size_bytes: version.size_bytes,
            ctime_ns: version.ctime_ns,
            path: Bytes::from(shown.as_path()),
        })
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
        let top = Path::new("/");
        // fexecve: the kernel spells the script /dev/fd/N.
        if let Ok(descriptor) = name.strip_prefix("/dev/fd") {
            return self.look_up(folder?.join("fd").join(descriptor), top);
        }
        let absolute =
            if name.is_absolute() { name.to_owned() } else { exec.cwd.as_path().join(name) };
        let inside = absolute.strip_prefix("/").ok()?.to_owned();
        let root = folder.map(|folder| folder.join("root"));
        root.and_then(|root| self.look_up(root.join(inside), &root))
            .or_else(|| self.look_up(absolute, top))
    }

    /// Through the running image first: that link leads to the executed file whatever became of
    /// its name.
    fn executed(&mut self, exec: &ExecEvent) {
        if exec.header.is_unread(unread::FILE) {
            return;
        }
        let image = self.proc_folder(exec).map(|folder| folder.join("exe"));
        let path = Some(exec.path.as_path().to_owned()).filter(|path| path.is_absolute());
        let paths = image.into_iter().chain(path);
        self.contents.ask(FileVersion::from(&exec.file), paths, &self.identifier);
    }
}
