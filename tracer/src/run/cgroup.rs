//! The cgroup (v2) that the command gets for itself, below tracer's own.
//!
//! Programs on sockets are attached to a cgroup; in this one there is nobody else. It goes when
//! tracing ends: the broker makes it and removes it, also when tracer was killed. When the broker was killed,
//! the next tracer there does that.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{Access, FlockOperation, access},
    io::Errno,
};

use super::hierarchies::{PROCESSES, mounts, v2_directory, v2_directory_of, v2_path};
use crate::{model::Bytes, probe::CgroupTarget, record::schema};

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct CommandCgroup {
    path: PathBuf,
    /// The kernel's number of it, which is the inode number of its directory.
    id: u64,
    /// Whoever has made it removes it, and has it locked until then.
    lock: Option<File>,
}

/// Lets a process join.
#[derive(Debug)]
pub(super) struct Door(File);

/// The ways of a canary.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) inside: Door,
    /// To where tracer is, which a canary leaves for and comes back from.
    pub(super) outside: Option<Door>,
}

impl Door {
    /// The calling process joins. Async-signal-safe.
    pub(super) fn enter(&self) -> io::Result<()> {
        const MYSELF: &[u8] = b"0";
        // SAFETY: the pointer and the length describe one array.
        let written =
            unsafe { libc::write(self.0.as_raw_fd(), MYSELF.as_ptr().cast(), MYSELF.len()) };
        if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl CommandCgroup {
    /// Or why there is none.
    pub(super) fn make(owner: u32) -> Result<CommandCgroup, String> {
        CommandCgroup::make_below(&own_directory()?, owner)
    }

    /// One that the broker has made.
    pub(super) fn made(path: PathBuf) -> Result<CommandCgroup, String> {
        let about = |error: io::Error| format!("{}: {error}", path.display());
        let id = fs::metadata(&path).map_err(about)?.ino();
        Ok(CommandCgroup { path, id, lock: None })
    }

    /// A cgroup for a process of tracer, somewhere else. It has the number of that tracer in its name.
    pub(super) fn make_below(parent: &Path, owner: u32) -> Result<CommandCgroup, String> {
        remove_abandoned(parent);
        // With processes in it, or of a tracer in another pid namespace.
        const TAKEN_MAX: u32 = 100;
        let mut path = PathBuf::new();
        let mut made = Err(io::Error::from(io::ErrorKind::AlreadyExists));
        for number in 0..TAKEN_MAX {
            path = parent.join(format!("{PREFIX}{owner}-{number}"));
            // One that is not locked yet may be taken for abandoned.
            let taken = |_| io::Error::from(io::ErrorKind::AlreadyExists);
            made = fs::create_dir(&path).and_then(|()| lock(&path).map_err(taken));
            if made.as_ref().err().map(io::Error::kind) != Some(io::ErrorKind::AlreadyExists) {
                break;
            }
        }
        let lock =
            made.map_err(|error| format!("{} could not be made: {error}", path.display()))?;
        // From here on it is removed when something fails.
        let mut cgroup = CommandCgroup { path, id: 0, lock: Some(lock) };
        let about = |error: io::Error| format!("{}: {error}", cgroup.path.display());
        let kind = fs::read_to_string(cgroup.path.join("cgroup.type")).map_err(about)?;
        if kind.trim() != "domain" {
            return Err(format!(
                "the cgroup above is threaded, so {} would be \"{}\" and no process could join it",
                cgroup.path.display(),
                kind.trim()
            ));
        }
        cgroup.id = fs::metadata(&cgroup.path).map_err(about)?.ino();
        Ok(cgroup)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// To be opened before a fork.
    pub(super) fn door(&self) -> io::Result<Door> {
        open_door(&self.path)
    }

    pub(super) fn doors(&self) -> io::Result<Doors> {
        let outside = self.path.parent().map(open_door).transpose()?;
        Ok(Doors { inside: self.door()?, outside })
    }

    fn target(&self) -> io::Result<CgroupTarget> {
        target_at(&self.path)
    }

    /// Who is still in it goes to where tracer is, and would have been without it.
    fn move_out(&self) -> io::Result<()> {
        let Some(parent) = self.path.parent() else { return Ok(()) };
        let mut outside = OpenOptions::new().write(true).open(parent.join(PROCESSES))?;
        for process in fs::read_to_string(self.path.join(PROCESSES))?.lines() {
            // One that has just ended is no error; for any other, removing fails and says so.
            let _ = outside.write_all(process.as_bytes());
        }
        Ok(())
    }
}

/// Of the names of cgroups for commands and canaries.
const PREFIX: &str = "tracer-";

/// Succeeds when nobody has it: a lock goes with the process that took it, whatever ended that.
fn lock(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    // It may have been removed in between, and be another one now.
    if fs::metadata(directory)?.ino() == file.metadata()?.ino() {
        Ok(file)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// What tracers left whose broker was killed, unless processes are in it.
fn remove_abandoned(parent: &Path) {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let numbers = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        if numbers.is_some_and(|(owner, number)| is_number(owner) && is_number(number))
            && let Ok(_lock) = lock(&entry.path())
        {
            remove_empty(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn open_door(directory: &Path) -> io::Result<Door> {
    OpenOptions::new().write(true).open(directory.join(PROCESSES)).map(Door)
}

impl Drop for CommandCgroup {
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        // A process that forks meanwhile, or is just ending, needs another turn.
        const TURNS: u32 = 100;
        const TURN: Duration = Duration::from_millis(2);
        let mut removed = Ok(());
        for _ in 0..TURNS {
            let _ = self.move_out();
            remove_empty(&self.path);
            removed = fs::remove_dir(&self.path);
            match &removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => std::thread::sleep(TURN),
                Ok(()) | Err(_) => return,
            }
        }
        if let Err(error) = removed {
            crate::notice(format_args!(
                "the cgroup {} could not be removed: {error}",
                self.path.display()
            ));
        }
    }
}

/// Cgroups that the command made below its own and left empty; of others, the kernel refuses it.
fn remove_empty(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Programs can be attached to the cgroup of that directory.
pub(super) fn target_at(directory: &Path) -> io::Result<CgroupTarget> {
    let directory = File::open(directory)?;
    Ok(CgroupTarget { id: directory.metadata()?.ino(), directory: OwnedFd::from(directory) })
}

/// What programs are attached to.
pub(super) fn target(cgroup: &Result<CommandCgroup, String>) -> Result<CgroupTarget, String> {
    let cgroup = cgroup.as_ref().map_err(Clone::clone)?;
    cgroup.target().map_err(|error| format!("{} cannot be opened: {error}", cgroup.path.display()))
}

/// For the recording's first line.
pub(super) fn report(cgroup: &Result<CommandCgroup, String>) -> schema::CommandCgroup {
    match cgroup {
        Ok(cgroup) => {
            schema::CommandCgroup::Own { id: cgroup.id, path: Bytes::from(cgroup.path.as_path()) }
        }
        Err(why) => schema::CommandCgroup::Absent(why.clone()),
    }
}

/// The directory of the v2 cgroup that tracer is in.
fn own_directory() -> Result<PathBuf, String> {
    let own = v2_path(&read("/proc/self/cgroup")?)
        .ok_or("this kernel has no v2 cgroups, or tracer is in none of them")?;
    let mounts = mounts(&read("/proc/self/mountinfo")?);
    if !mounts.iter().any(|mount| mount.is_v2) {
        return Err("the v2 cgroups are not mounted (file system type cgroup2)".into());
    }
    // A container sees its own part read-only or not at all, and its path begins there. Where the host's
    // hierarchy is mounted too, that may be written to, and tracer is somewhere in it.
    let is_read_only = |at: &PathBuf| access(at, Access::WRITE_OK) == Err(Errno::ROFS);
    let (writable, read_only) = match v2_directory(&mounts, &own) {
        Some(directory) if is_read_only(&directory) => (None, Some(directory)),
        found => (found, None),
    };
    let found = writable.or_else(|| v2_directory_of(&mounts, std::process::id()));
    found.or(read_only).ok_or_else(|| {
        format!("tracer's own cgroup {} is in no mounted part of the v2 cgroups", own.display())
    })
}

pub(super) fn read(path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{path}: {error}"))
}
