//! What the fold asks of the machine it runs on.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracer_ebpf::abi::{exec_flag, unread};

use super::{
    clock::wall_offset_ns,
    content::Contents,
    tls::{FoundCode, Seen, Tls},
};
use crate::{
    model::{Bytes, ExecEvent, FileId, FileVersion},
    probe::{Attached, Identifier, Opener},
    record::{
        Record,
        schema::{KnownInterpreter, MappedFile},
    },
    session::{Machine, Numbers},
};

#[derive(Debug)]
pub(super) struct LiveMachine {
    /// Inode of the pid namespace that /proc shows.
    own_pid_ns: Option<u32>,
    identifier: Identifier,
    contents: Contents,
    /// Sizes of known copies: a file of another size is none of them.
    known_sizes: HashSet<u64>,
    /// Realtime minus boot time, for times of change; the least that was seen.
    wall_offset_ns: i64,
    /// Mapped files that were looked at, with what stat(2) said then.
    looked_at: HashMap<(FileId, Bytes), (Stat, FileVersion)>,
    /// By size. They are read when another file of their size is executed.
    interpreters: HashMap<u64, Vec<KnownInterpreter>>,
    /// Where what goes through TLS libraries is read.
    tls: Option<Tls>,
}

/// What shows that a path leads to the file that it led to before.
type Stat = (u64, u64, u64, i64, i64);

/// The initial pid namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const INITIAL_PID_NS: u32 = 0xeffffffc;

impl LiveMachine {
    pub(super) fn new(identifier: Identifier) -> LiveMachine {
        let own_pid_ns = std::fs::metadata("/proc/self/ns/pid")
            .ok()
            .and_then(|metadata| u32::try_from(metadata.ino()).ok());
        LiveMachine {
            own_pid_ns,
            identifier,
            contents: Contents::new(),
            known_sizes: HashSet::new(),
            wall_offset_ns: 0,
            looked_at: HashMap::new(),
            interpreters: HashMap::new(),
            tls: None,
        }
    }

    /// tracer has given up its rights: others open files, and they are read from now on.
    pub(super) fn confined(&mut self, opener: Arc<dyn Opener>) -> io::Result<()> {
        self.identifier.open_through(opener);
        self.contents.start()
    }

    /// Unix time minus `CLOCK_BOOTTIME`.
    pub(super) fn set_wall_offset(&mut self, wall_offset_ns: i64) {
        self.wall_offset_ns = wall_offset_ns;
    }

    /// Has a file read that a policy may compare with.
    pub(super) fn read_known(&mut self, path: &Path) {
        if let Some(version) = self.identifier.file_at(path) {
            self.known_sizes.insert(version.size_bytes);
            self.contents.ask(version, std::iter::once(path.to_owned()), &self.identifier);
        }
    }

    /// Has the file of an image read that was found running.
    pub(super) fn read_running(&mut self, version: FileVersion, path: PathBuf) {
        self.contents.ask(version, std::iter::once(path), &self.identifier);
        self.read_interpreters_like(&version);
    }

    /// Files that others may be copies of.
    pub(super) fn compare_with(&mut self, interpreters: Vec<KnownInterpreter>) {
        for known in interpreters {
            self.interpreters.entry(known.size_bytes).or_default().push(known);
        }
    }

    fn read_interpreters_like(&mut self, version: &FileVersion) {
        let Some(alike) = self.interpreters.get(&version.size_bytes) else { return };
        if alike.iter().any(|known| known.file == version.id) {
            return;
        }
        for known in self.interpreters.remove(&version.size_bytes).unwrap_or_default() {
            self.read_known(known.path.as_path());
        }
    }

    /// Looks for TLS libraries from now on.
    pub(super) fn look_for_tls(&mut self, tls: Tls) {
        self.tls = Some(tls);
    }

    pub(super) fn tls(&mut self) -> Option<&mut Tls> {
        self.tls.as_mut()
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

impl LiveMachine {
    /// The root directory of a process that may be in this pid namespace.
    fn root_of(&self, process: Numbers, pid_ns_inum: u32) -> Option<PathBuf> {
        let pid = if self.sees_global_pids() {
            process.pid
        } else if self.own_pid_ns == Some(pid_ns_inum) {
            process.ns_pid?
        } else {
            return None;
        };
        Some(PathBuf::from(format!("/proc/{pid}/root")))
    }
}

/// Executable mappings.
impl LiveMachine {
    /// Says which version of a file was mapped, and has it read if it may be a copy of a known one.
    pub(super) fn mapped(&mut self, t_ns: u64, pid: u32, id: FileId, path: Bytes) -> MappedFile {
        let found = self.mapped_version(t_ns, pid, id, &path);
        let paths = self.tls.is_some().then(|| self.paths_of_mapping(pid, &path));
        if let Some((tls, paths)) = self.tls.as_mut().zip(paths) {
            let version = found.as_ref().ok().copied();
            tls.mapped(pid, &Seen { t_ns, id, version, path: &path }, &paths, &self.identifier);
        }
        if let Ok(version) = &found
            && self.known_sizes.contains(&version.size_bytes)
        {
            let paths = self.paths_of_mapping(pid, &path);
            self.contents.ask(*version, paths.into_iter(), &self.identifier);
        }
        MappedFile::new(path, id, found)
    }

    /// Watches the TLS library that is in such a file, and says so.
    pub(super) fn found_code(
        &mut self,
        found: FoundCode,
        attached: &mut Attached,
    ) -> io::Result<Option<Record>> {
        let paths = self.paths_of_mapping(found.pid, &found.path);
        match &mut self.tls {
            Some(tls) => tls.found(found, &paths, attached, &self.identifier),
            None => Ok(None),
        }
    }

    fn paths_of_mapping(&self, pid: u32, path: &Bytes) -> Vec<PathBuf> {
        let inside = path.as_path().strip_prefix("/").ok();
        let root = inside.map(|inside| PathBuf::from(format!("/proc/{pid}/root")).join(inside));
        root.into_iter().chain([path.as_path().to_owned()]).collect()
    }

    fn mapped_version(
        &mut self,
        t_ns: u64,
        pid: u32,
        id: FileId,
        path: &Bytes,
    ) -> Result<FileVersion, String> {
        // A clock that was set back makes changes look older than they are.
        if let Ok(now) = wall_offset_ns() {
            self.wall_offset_ns = self.wall_offset_ns.min(now);
        }
        let key = (id, path.clone());
        let mut why = "no path leads to it any more".to_owned();
        // Our own view first, where it has that very file: that of the process is not ours to look into.
        let own = std::iter::once((path.as_path().to_owned(), true));
        let paths = self.paths_of_mapping(pid, path).into_iter().map(|path| (path, false));
        for (at, is_exact) in own.chain(paths) {
            let Ok(handle) = self.identifier.open(&at) else { continue };
            let Ok(metadata) = handle.metadata() else { continue };
            let stat = (
                metadata.dev(),
                metadata.ino(),
                metadata.size(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            );
            if let Some((known, version)) = self.looked_at.get(&key)
                && *known == stat
            {
                return Ok(*version);
            }
            let Some(version) = self.identifier.version_of(&handle) else { continue };
            let beneath = !is_exact && metadata.ino() == id.inode && is_overlay(&handle);
            if version.id != id && !beneath {
                why = "another file has its path now".into();
                continue;
            }
            if version.ctime_ns > self.wall_ns(t_ns).saturating_sub(CLOCK_TICK_NS) {
                why = "it was changed when it was mapped, or since".into();
                continue;
            }
            self.looked_at.insert(key, (stat, version));
            return Ok(version);
        }
        Err(why)
    }

    fn wall_ns(&self, boottime_ns: u64) -> i64 {
        i64::try_from(boottime_ns).unwrap_or(i64::MAX).saturating_add(self.wall_offset_ns)
    }
}

/// Times of change have the resolution of the kernel's tick, 100 Hz at the least, before Linux 6.13.
const CLOCK_TICK_NS: i64 = 10_000_000;

/// There, a mapping is one of the file beneath, which is on another device.
pub(super) fn is_overlay(file: &File) -> bool {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type == OVERLAYFS_SUPER_MAGIC)
}

impl Machine for LiveMachine {
    /// The program through the running image first: that link leads to the executed file whatever
    /// became of its name. A script only has its name, as the process saw it or as we do.
    fn executed(&mut self, exec: &ExecEvent, parent: Option<Numbers>) {
        let folder = self.proc_folder(exec);
        let beside = parent.and_then(|parent| self.root_of(parent, exec.pid_ns_inum));
        let beside =
            |path: Option<&PathBuf>| Some(beside.as_ref()?.join(path?.strip_prefix("/").ok()?));
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
            // In a container, the path leads there only from within.
            let inside = beside(path.as_ref()).into_iter().chain(beside(spelled.as_ref()));
            let outside = path.clone().into_iter().chain(spelled.clone());
            let paths: Vec<_> = image.into_iter().chain(inside).chain(outside).collect();
            let version = FileVersion::from(&exec.file);
            if let Some(tls) = &mut self.tls {
                let t_ns = exec.header.time_ns;
                let (id, path) = (version.id, &exec.path);
                let seen = Seen { t_ns, id, version: Some(version), path };
                tls.executed(exec.header.process, &seen, &paths, &self.identifier);
            }
            let paths = paths.into_iter();
            self.contents.ask(version, paths, &self.identifier);
            self.read_interpreters_like(&version);
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
            let beside = beside(own.as_ref()).into_iter().chain(beside(spelled.as_ref()));
            let paths =
                inside.into_iter().chain(beside).chain(own).chain(descriptor).chain(spelled);
            self.contents.ask(FileVersion::from(&exec.script), paths, &self.identifier);
        }
    }
}
