//! From what was asked for to who is joined and where programs on sockets are attached.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use procfs::process::{Process, StatFlags};

use super::{
    super::{
        broker::Broker,
        cgroup,
        hierarchies::{self, NoContainer, NoPod, mounts, v2_directory, v2_directory_of, v2_path},
    },
    search::Members,
    threads,
};
use crate::{
    model::Bytes,
    probe::CgroupTarget,
    record::schema::{self, AttachedTo},
};

/// What to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Pid(u32),
    Cgroup(PathBuf),
    /// The beginning of its ID.
    Container(String),
    /// By its UID.
    Pod(String),
    Host,
}

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error(transparent)]
    NoContainer(#[from] NoContainer),
    #[error(transparent)]
    NoPod(#[from] NoPod),
    #[error(
        "{path} is no cgroup: {why}; nothing was traced. A cgroup is a directory below /sys/fs/cgroup"
    )]
    NoCgroup { path: String, why: String },
    #[error("the process {0} has ended, and its parent did not ask how yet; nothing was traced")]
    Ended(u32),
    #[error("there is no process {0} in tracer's pid namespace; nothing was traced")]
    NoProcess(u32),
    #[error("{0} is a thread of process {1}, not a process; nothing was traced. Give --pid {1}")]
    Thread(u32, i32),
    #[error("process {0} is a thread of the kernel, which runs no programs; nothing was traced")]
    OfTheKernel(u32),
    #[error("{0}")]
    Proc(String),
}

/// A target, found.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) to: AttachedTo,
    pub(super) members: Members,
    /// The v2 cgroup that has all of them, or why there is none.
    pub(super) cgroup: Result<PathBuf, String>,
    /// Whoever joins that cgroup is to be joined too.
    pub(super) follow: bool,
    /// Others may come when everybody has ended.
    pub(super) for_ever: bool,
    /// Who may be missed for certain, whatever the search finds.
    pub(super) doubt: Option<String>,
}

impl Target {
    /// Whether it is there, before anything is written or loaded for it.
    pub fn check(&self) -> Result<(), TargetError> {
        self.find().map(drop)
    }

    pub(super) fn find(&self) -> Result<Place, TargetError> {
        let mounts = mounts(&cgroup::read("/proc/self/mountinfo").map_err(TargetError::Proc)?);
        match self {
            Target::Pid(pid) => {
                check_process(*pid)?;
                let directory = v2_of(&mounts, *pid);
                Ok(Place {
                    to: AttachedTo::Pid(*pid),
                    members: Members::Tree(*pid),
                    cgroup: directory,
                    follow: false,
                    for_ever: false,
                    doubt: None,
                })
            }
            Target::Cgroup(path) => {
                let path =
                    path.canonicalize().map_err(|error| no_cgroup(path, &error.to_string()))?;
                if !path.join(hierarchies::PROCESSES).exists() {
                    return Err(no_cgroup(&path, "it has no cgroup.procs"));
                }
                let to = AttachedTo::Cgroup(Bytes::from(path.as_path()));
                Ok(cgroups(&mounts, to, vec![path]))
            }
            Target::Container(asked) => {
                let container = hierarchies::container(&mounts, asked)?;
                let to = AttachedTo::Container {
                    id: container.id,
                    cgroups: as_bytes(&container.directories),
                };
                Ok(cgroups(&mounts, to, container.directories))
            }
            Target::Pod(uid) => {
                let directories = hierarchies::pod(&mounts, uid)?;
                let to = AttachedTo::Pod { uid: uid.clone(), cgroups: as_bytes(&directories) };
                Ok(cgroups(&mounts, to, directories))
            }
            Target::Host => {
                let v2 = mounts.iter().find(|mount| mount.is_v2);
                let no_v2 =
                    || "the v2 cgroups are not mounted (file system type cgroup2)".to_owned();
                Ok(Place {
                    to: AttachedTo::Host,
                    members: Members::Everybody,
                    cgroup: v2.map(|mount| mount.point.clone()).ok_or_else(no_v2),
                    follow: false,
                    for_ever: true,
                    doubt: None,
                })
            }
        }
    }
}

/// The likely mistakes, told apart.
fn check_process(pid: u32) -> Result<(), TargetError> {
    let no_process = || TargetError::NoProcess(pid);
    let process = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok());
    let process = process.ok_or_else(no_process)?;
    let status = process.status().map_err(|_| no_process())?;
    if u32::try_from(status.tgid) != Ok(pid) {
        return Err(TargetError::Thread(pid, status.tgid));
    }
    if threads::living(pid).is_none() {
        return Err(TargetError::Ended(pid));
    }
    let flags = process.stat().and_then(|stat| stat.flags()).map_err(|_| no_process())?;
    if flags.contains(StatFlags::PF_KTHREAD) {
        return Err(TargetError::OfTheKernel(pid));
    }
    Ok(())
}

fn as_bytes(paths: &[PathBuf]) -> Vec<Bytes> {
    paths.iter().map(|path| Bytes::from(path.as_path())).collect()
}

fn no_cgroup(path: &Path, why: &str) -> TargetError {
    TargetError::NoCgroup { path: path.display().to_string(), why: why.into() }
}

/// Members of these cgroups. What is in v1 hierarchies only is in some v2 cgroup all the same.
fn cgroups(mounts: &[hierarchies::Mount], to: AttachedTo, directories: Vec<PathBuf>) -> Place {
    let in_v2 = |directory: &&PathBuf| {
        // The longest mount point is the one that a path is on.
        let on = mounts.iter().filter(|mount| directory.starts_with(&mount.point));
        on.max_by_key(|mount| mount.point.as_os_str().len()).is_some_and(|mount| mount.is_v2)
    };
    // Containers of a pod come and go.
    let for_ever = matches!(to, AttachedTo::Pod { .. });
    if let Some(v2) = directories.iter().find(in_v2).cloned() {
        let members = Members::Cgroups(vec![v2.clone()]);
        return Place { to, members, cgroup: Ok(v2), follow: true, for_ever, doubt: None };
    }
    let first = directories.iter().find_map(|directory| {
        let pids = hierarchies::processes(directory).ok()?;
        pids.into_iter().find(|pid| *pid != 0)
    });
    let cgroup = match first {
        Some(pid) => v2_of(mounts, pid),
        None => Err("the cgroup is of version 1 and has no processes that tracer sees".into()),
    };
    Place {
        to,
        members: Members::Cgroups(directories),
        cgroup,
        follow: false,
        for_ever,
        doubt: Some(
            "the cgroup is of version 1: a process that joins it later without being a child of one in \
             it is not followed"
                .into(),
        ),
    }
}

/// The directory of the v2 cgroup of a process.
fn v2_of(mounts: &[hierarchies::Mount], pid: u32) -> Result<PathBuf, String> {
    let path = v2_path(&cgroup::read(&format!("/proc/{pid}/cgroup"))?)
        .ok_or("this kernel has no v2 cgroups")?;
    v2_directory(mounts, &path).or_else(|| v2_directory_of(mounts, pid)).ok_or_else(|| {
        format!(
            "the cgroup {} of process {pid} is in no mounted part of the v2 cgroups",
            path.display()
        )
    })
}

/// A cgroup that others may be in too, with one below it for tracer's canaries, which is the only way in
/// where the cgroup itself holds no processes. Nobody else's process is moved.
#[derive(Debug)]
pub(super) struct SharedCgroup {
    directory: PathBuf,
}

impl SharedCgroup {
    pub(super) fn make(
        directory: Result<PathBuf, String>,
        broker: &Broker,
    ) -> Result<SharedCgroup, String> {
        let directory = directory?;
        broker.make_cgroup(Some(&directory))?;
        Ok(SharedCgroup { directory })
    }

    pub(super) fn target(&self) -> Result<CgroupTarget, String> {
        cgroup::target_at(&self.directory)
            .map_err(|error| format!("{} cannot be opened: {error}", self.directory.display()))
    }

    /// For the recording's first line. `members` are the processes that are joined, as far as that is
    /// known before.
    pub(super) fn report(&self, members: &Members) -> schema::CommandCgroup {
        let inside = hierarchies::processes(&self.directory).unwrap_or_default().len() as u64;
        let joined = match members {
            Members::Cgroups(directories) if directories.contains(&self.directory) => inside,
            Members::Cgroups(directories) => directories
                .iter()
                .map(|directory| hierarchies::processes(directory).unwrap_or_default().len() as u64)
                .max()
                .unwrap_or(0),
            Members::Tree(_) => 1,
            Members::Everybody => inside,
        };
        schema::CommandCgroup::Shared {
            id: fs::metadata(&self.directory).map_or(0, |metadata| metadata.ino()),
            path: Bytes::from(self.directory.as_path()),
            others: inside.saturating_sub(joined),
        }
    }
}
