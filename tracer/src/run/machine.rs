//! What the fold asks of the machine it runs on.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use tracer_ebpf::abi::{exec_flag, unread};

use super::content::Contents;
use crate::{
    model::{Bytes, ExecEvent, FileVersion},
    probe::Identifier,
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

    pub(super) fn identifier(&self) -> &Identifier {
        &self.identifier
    }

    /// Whether pids as this process sees them are those of the initial namespace, as the probes
    /// report them.
    pub(super) fn sees_global_pids(&self) -> bool {
        self.own_pid_ns == Some(INITIAL_PID_NS)
    }

    pub(super) fn contents(&mut self) -> &mut Contents {
        &mut self.contents
    }

    /// The /proc folder of the process that executed, if this /proc shows it.
    fn proc_folder(&self, exec: &ExecEvent) -> Option<PathBuf> {
        let pid = if self.sees_global_pids() {
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
    /// The program through the running image first: that link leads to the executed file whatever
    /// became of its name. A script only has its name, as the process saw it or as we do.
    fn executed(&mut self, exec: &ExecEvent) {
        let folder = self.proc_folder(exec);
        let absolute = |path: &Bytes, flag: u32| {
            let whole = exec.flags & flag == 0;
            Some(path.as_path().to_owned()).filter(|path| whole && path.is_absolute())
        };
        // As the caller spelled it, for paths that are too deep for the kernel's walk.
        let spelled = absolute(&exec.cwd, exec_flag::CWD_CUT)
            .map(|cwd| cwd.join(exec.filename.as_path()))
            .or_else(|| absolute(&exec.filename, 0));
        if !exec.header.is_unread(unread::FILE) {
            let image = folder.as_ref().map(|folder| folder.join("exe"));
            let path = absolute(&exec.path, exec_flag::PATH_CUT);
            let paths = image.into_iter().chain(path).chain(spelled.clone());
            self.contents.ask(FileVersion::from(&exec.file), paths, &self.identifier);
        }
        let is_script = exec.flags & exec_flag::SCRIPT != 0;
        if is_script && !exec.header.is_unread(unread::SCRIPT) {
            let own = absolute(&exec.script_path, exec_flag::SCRIPT_PATH_CUT);
            let inside = folder.as_ref().and_then(|folder| {
                Some(folder.join("root").join(own.as_ref()?.strip_prefix("/").ok()?))
            });
            // fexecve: the kernel spells the script /dev/fd/N.
            let descriptor = folder.as_ref().and_then(|folder| {
                Some(folder.join("fd").join(exec.filename.as_path().strip_prefix("/dev/fd").ok()?))
            });
            let paths = inside.into_iter().chain(own).chain(descriptor).chain(spelled);
            self.contents.ask(FileVersion::from(&exec.script), paths, &self.identifier);
        }
    }
}
