//! The broker's side: what it does for tracer, and what it refuses.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::Path,
    process::Child,
    sync::mpsc,
};

use super::{
    Task,
    wire::{self, Refusal, Reply, Request},
};
use crate::{
    model::Bytes,
    probe::{self, Breakpoints, Enroller, Identifier},
    record::{self, OutputError},
    run::{
        canary,
        cgroup::{CommandCgroup, Door, Doors},
        launch::{self, LaunchError, Perf},
        signals::{self, OriginalMask},
        watch::fanotify_mark,
    },
};

/// More than canaries and a command are never asked for.
const CHILDREN_MAX: usize = 8;
/// Nor are more descriptors to be closed: a witness, some tracepoints, some watches of files.
const KEPT_MAX: usize = 64;

pub(super) struct Server {
    task: Task,
    mask: OriginalMask,
    /// Of tracer, for names.
    owner: u32,
    cgroup: Option<CommandCgroup>,
    /// Others are in the cgroup above it.
    is_shared: bool,
    children: Vec<Child>,
    /// What canaries talk to.
    outside: Vec<[OwnedFd; 2]>,
    launched: bool,
    anchor: Option<mpsc::Sender<()>>,
    /// What the kernel takes long to close.
    kept: Vec<OwnedFd>,
}

type Answer = (Reply, Vec<OwnedFd>);

impl Server {
    pub(super) fn new(task: Task, mask: OriginalMask, owner: u32) -> Server {
        Server {
            task,
            mask,
            owner,
            cgroup: None,
            is_shared: false,
            children: Vec::new(),
            outside: Vec::new(),
            launched: false,
            anchor: None,
            kept: Vec::new(),
        }
    }

    /// Until tracer is gone, whatever became of it.
    pub(super) fn serve(mut self, socket: &OwnedFd) {
        while let Ok(Some((request, descriptors))) = wire::receive::<Request>(socket) {
            if matches!(request, Request::Finish) {
                self.finish(socket);
            }
            let (reply, answer) = self
                .answer(request, &descriptors)
                .unwrap_or_else(|error| (Reply::failed(&error), Vec::new()));
            if wire::send(socket, reply, &wire::borrow(&answer)).is_err() {
                break;
            }
        }
    }

    /// tracer ends now, and nobody waits for what is done after the reply: some tenths of a second go by until
    /// a tracepoint is off.
    fn finish(mut self, socket: &OwnedFd) -> ! {
        let kept = std::mem::take(&mut self.kept);
        drop(self);
        // If tracer is gone, nobody needs to be told.
        let _ = wire::send(socket, Reply::Done, &[]);
        // Whoever reads what tracer writes, or waits for a lock that it was handed, waits no longer.
        close_all_but(&kept);
        // SAFETY: ends the process, without running what owns the descriptors that were just closed.
        unsafe { libc::_exit(0) };
    }

    fn answer(&mut self, request: Request, descriptors: &[OwnedFd]) -> io::Result<Answer> {
        let plain = |reply| Ok((reply, Vec::new()));
        let opened = |file: File| Ok((Reply::Opened, vec![OwnedFd::from(file)]));
        match (request, descriptors) {
            (Request::MakeCgroup { below }, []) => plain(self.make_cgroup(below)?),
            (Request::Canary, [program]) => self.canary(program),
            (Request::Launch { counts_execs, maps_bytes, maps_at_once }, [program]) => {
                let perf = Perf { counts_execs, maps: maps_bytes, at_once: maps_at_once };
                self.launch(program, perf)
            }
            (Request::Ended { child }, []) => {
                let status = self.child(child)?.try_wait()?.map(ExitStatusExt::into_raw);
                plain(Reply::Ended { status })
            }
            (Request::Signal { child, signal }, []) => {
                self.signal(child, signal)?;
                plain(Reply::Done)
            }
            (Request::Part { number }, []) => opened(self.part(number)?),
            (Request::Open { path }, []) => opened(open(path.as_path())?),
            (Request::Read, [handle]) => opened(read(handle)?),
            (Request::Break { offsets, cookie, at_return, together }, [program, file]) => {
                let places = Breakpoints { offsets: &offsets, cookie, at_return, together };
                Ok((
                    Reply::Opened,
                    vec![probe::to_breakpoints(program.as_fd(), file.as_fd(), &places)?],
                ))
            }
            (Request::Mark { mask }, [queue, file]) => {
                fanotify_mark(queue.as_fd(), file.as_fd(), mask)?;
                plain(Reply::Done)
            }
            (Request::CloseLater, descriptors) => {
                self.close_later(descriptors)?;
                plain(Reply::Done)
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn close_later(&mut self, descriptors: &[OwnedFd]) -> io::Result<()> {
        if self.kept.len() + descriptors.len() > KEPT_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        for descriptor in descriptors {
            self.kept.push(descriptor.try_clone()?);
        }
        Ok(())
    }

    fn make_cgroup(&mut self, below: Option<Bytes>) -> io::Result<Reply> {
        if self.cgroup.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let is_shared = below.is_some();
        let made = match below {
            Some(parent) => CommandCgroup::make_below(parent.as_path(), self.owner),
            None => CommandCgroup::make(self.owner),
        };
        let made = made.map_err(io::Error::other)?;
        let path = Bytes::from(made.path());
        self.cgroup = Some(made);
        self.is_shared = is_shared;
        Ok(Reply::Cgroup { path })
    }

    fn door(&self) -> io::Result<Option<Door>> {
        self.cgroup.as_ref().map(CommandCgroup::door).transpose()
    }

    fn canary(&mut self, program: &OwnedFd) -> io::Result<Answer> {
        self.has_room()?;
        let doors = self.cgroup.as_ref().map(CommandCgroup::doors).transpose()?;
        // What is outside a cgroup that is shared is others', and whoever comes in again may be followed.
        let doors = doors
            .map(|doors| Doors { outside: doors.outside.filter(|_| !self.is_shared), ..doors });
        let (child, outside) = canary::spawn(enroller(program)?, doors, self.mask)?;
        self.outside.push(outside);
        let started = Reply::Started { child: child.id(), witness: None, maps: None };
        let descriptors = vec![pidfd(&child)?];
        self.children.push(child);
        Ok((started, descriptors))
    }

    fn launch(&mut self, program: &OwnedFd, perf: Perf) -> io::Result<Answer> {
        self.has_room()?;
        if std::mem::replace(&mut self.launched, true) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let Task { command, user, .. } = &self.task;
        let door = self.door()?;
        let launched =
            launch::launch(command, enroller(program)?, door, user.clone(), self.mask, perf);
        let launched = match launched {
            Ok(launched) => launched,
            Err(error) => return Ok((Reply::NotStarted(refusal(error)), Vec::new())),
        };
        let mut descriptors = vec![pidfd(&launched.child)?];
        let witness = launched.witness.map(|witness| witness.map(OwnedFd::from));
        if let Some(Ok(witness)) = &witness {
            self.close_later(std::slice::from_ref(witness))?;
        }
        let witness = witness.map(|witness| witness.map(|witness| descriptors.push(witness)));
        let maps = launched.maps.map(|events| {
            events.map(|events| {
                let count = events.len();
                descriptors.extend(events);
                count
            })
        });
        let started = Reply::Started { child: launched.child.id(), witness, maps };
        self.children.push(launched.child);
        self.anchor = Some(launched.anchor);
        Ok((started, descriptors))
    }

    fn has_room(&self) -> io::Result<()> {
        if self.children.len() < CHILDREN_MAX {
            Ok(())
        } else {
            Err(io::ErrorKind::QuotaExceeded.into())
        }
    }

    fn child(&mut self, id: u32) -> io::Result<&mut Child> {
        let found = self.children.iter_mut().find(|child| child.id() == id);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Only to a child that was not waited for yet: its number is its own until then.
    fn signal(&mut self, child: u32, signal: i32) -> io::Result<()> {
        if !signals::is_handed_on(signal) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let child = self.child(child)?;
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
        // SAFETY: no memory is involved, and the pid is that of a child that was not waited for.
        match unsafe { libc::kill(pid, signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn part(&self, number: u32) -> io::Result<File> {
        let Task { parts, user, .. } = &self.task;
        let (path, existing) = parts.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let open = || record::create_output(&record::part(path, number), *existing);
        let opened = match user {
            Some(user) => user.with_file_rights(open),
            None => open(),
        };
        opened.map_err(|error| match error {
            OutputError::Io(error) => error,
            other @ (OutputError::SymbolicLink
            | OutputError::HardLinks
            | OutputError::Exists
            | OutputError::PartsExist) => io::Error::other(other),
        })
    }
}

/// To be followed by the end of the process: others own these descriptors.
fn close_all_but(kept: &[OwnedFd]) {
    let mut kept: Vec<u32> = kept.iter().map(|kept| kept.as_raw_fd().unsigned_abs()).collect();
    kept.sort_unstable();
    let mut first = 0;
    for next in kept.into_iter().chain([u32::MAX]) {
        if first < next {
            // SAFETY: nothing of this process uses a descriptor any more.
            unsafe { libc::syscall(libc::SYS_close_range, first, next - 1, 0) };
        }
        first = next.saturating_add(1);
    }
}

fn enroller(program: &OwnedFd) -> io::Result<Enroller> {
    Ok(Enroller::new(program.try_clone()?))
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

fn open(path: &Path) -> io::Result<File> {
    if !path.is_absolute() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Identifier::open_here(path)
}

/// A regular file of a file system that stores files: nothing of /proc or /sys, whose files are the memory and
/// the switches of others, and nothing whose opening or reading has an effect.
fn read(handle: &OwnedFd) -> io::Result<File> {
    let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
    let status = rustix::fs::fstat(handle)?;
    if rustix::fs::FileType::from_raw_mode(status.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(refused());
    }
    let system = rustix::fs::fstatfs(handle)?.f_type;
    if MEMORY_AND_SWITCHES.contains(&system) {
        return Err(refused());
    }
    Identifier::read_here(handle.as_fd())
}

/// include/uapi/linux/magic.h: proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, bpf, pidfs,
/// configfs, efivarfs, pstore.
const MEMORY_AND_SWITCHES: [i64; 12] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x5049_4446,
    0x6265_6570,
    0xde5e_81e4,
    0x6165_676c,
];

fn refusal(error: LaunchError) -> Refusal {
    match error {
        LaunchError::NotFound(_) => Refusal::NotFound,
        LaunchError::NotStarted(_, error) => {
            Refusal::NotStarted { errno: error.raw_os_error(), why: error.to_string() }
        }
        LaunchError::NotEnrolled => Refusal::NotEnrolled,
        LaunchError::NotTheUser => Refusal::NotTheUser,
        LaunchError::NotInCgroup => Refusal::NotInCgroup,
        LaunchError::NoThread(error) => Refusal::NoThread { why: error.to_string() },
    }
}
