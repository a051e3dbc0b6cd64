//! The process that keeps tracer's rights.
//!
//! tracer reads what others wrote: arguments, packets, programs. So once the probes are attached it gives up
//! whatever it could do beyond that ([`sandbox`](super::sandbox)), and what still takes rights is done by a
//! process that was forked before anything was loaded: it starts the command and the canaries, waits for them
//! and signals them, opens files, opens the next file of a recording, and removes the command's cgroup, also when
//! tracer was killed.
//!
//! ```text
//! caller ─► tracer ─────────────► load, attach ─► confine ─► drain … judge, report
//!              └─► broker ─► canary, command ─────────────────► canary
//! ```
//!
//! It takes requests of a fixed form only ([`wire`]). What is run, as whom, and where a recording is written it
//! has from before the fork, and no request can change that. Without a broker, tracer cannot go on, and says so.

mod serve;
pub mod wire;

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{Pid, WaitOptions, waitpid},
};

use self::wire::{Refusal, Reply, Request};
use super::{LaunchError, inherited, launch::Perf, signals::OriginalMask, user::CallingUser};
use crate::{
    model::Bytes,
    probe::{Breakpoints, Deputy, Enroller, Opener},
    record::Existing,
};

/// What a broker is for.
#[derive(Clone, Debug, Default)]
pub struct Task {
    pub command: Vec<OsString>,
    /// As whom the command runs, if not as tracer.
    pub user: Option<CallingUser>,
    /// The first file of a recording that may have further ones, and what becomes of those that are there.
    pub parts: Option<(PathBuf, Existing)>,
}

/// The broker, as tracer has it.
#[derive(Clone, Debug)]
pub struct Broker(Arc<Mutex<Connection>>);

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    pid: Pid,
    canary: Begun,
}

/// What became of a canary that was asked for and not waited for.
#[derive(Debug)]
enum Begun {
    No,
    /// The next answer is about it.
    Asked,
    Answered(io::Result<Answer>),
}

type Answer = (Reply, Vec<OwnedFd>);

impl Connection {
    fn answer(&self) -> io::Result<Answer> {
        match wire::receive(&self.socket)? {
            None => Err(gone(io::ErrorKind::UnexpectedEof.into())),
            Some((Reply::Failed { errno, why }, _)) => Err(wire::error_of(errno, why)),
            Some(answer) => Ok(answer),
        }
    }
}

/// Process ids of it and of what sends log records, for those who leave out what tracer does itself.
static OWN: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

/// Whether a process is tracer or was forked from it to do what it may not do.
pub(super) fn is_own(pid: u32) -> bool {
    pid == std::process::id() || OWN.iter().any(|own| pid == own.load(Ordering::Relaxed))
}

/// From here on it is. There are as many as there is room for.
pub(super) fn add_own(pid: Pid) {
    let pid = pid.as_raw_nonzero().get().unsigned_abs();
    for own in &OWN {
        if own.compare_exchange(0, pid, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

/// A process that the broker has started.
#[derive(Debug)]
pub(super) struct Child {
    broker: Broker,
    pub(super) id: u32,
    /// Readable once it has ended.
    pidfd: OwnedFd,
}

/// The command, started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child,
    /// Or why there is none; not there unless it is asked for.
    pub(super) witness: Option<Result<OwnedFd, String>>,
    /// Events of executable mappings, one for each CPU.
    pub(super) maps: Option<Result<Vec<OwnedFd>, String>>,
}

impl Broker {
    /// Forks it. To be called while the process has one thread.
    pub fn start(task: Task) -> io::Result<Broker> {
        inherited::settle()?;
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let owner = std::process::id();
        let mask = OriginalMask::block()?;
        // SAFETY: this process has one thread, so the child finds no lock taken and no state half changed.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            drop(here);
            // Only to be told apart in a list of processes.
            let _ = rustix::thread::set_name(c"tracer-broker");
            serve::Server::new(task, mask, owner).serve(&there);
            // SAFETY: ends the process without running what belongs to tracer.
            unsafe { libc::_exit(0) };
        }
        // tracer takes the signals itself, when it is ready.
        mask.restore()?;
        let Some(pid) = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 0) else {
            return Err(io::Error::last_os_error());
        };
        add_own(pid);
        Ok(Broker(Arc::new(Mutex::new(Connection { socket: here, pid, canary: Begun::No }))))
    }

    fn ask(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<Answer> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Begun::Asked = connection.canary {
            connection.canary = Begun::Answered(connection.answer());
        }
        wire::send(&connection.socket, request, descriptors).map_err(gone)?;
        connection.answer()
    }

    /// An error when it has ended.
    pub(super) fn check(&self) -> io::Result<()> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match waitpid(Some(connection.pid), WaitOptions::NOHANG) {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => Err(gone(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// The path of a cgroup that is removed when tracer ends, however that comes.
    pub(super) fn make_cgroup(&self, below: Option<&Path>) -> Result<PathBuf, String> {
        let request = Request::MakeCgroup { below: below.map(Bytes::from) };
        match self.ask(request, &[]) {
            Ok((Reply::Cgroup { path }, _)) => Ok(path.as_path().to_owned()),
            Ok(other) => Err(odd(&other).to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn canary(&self, enroller: &Enroller) -> io::Result<Child> {
        self.canary_of(self.ask(Request::Canary, &[enroller.program()])?)
    }

    /// Starts one while something else is done.
    pub(super) fn begin_canary(&self, enroller: &Enroller) -> io::Result<()> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire::send(&connection.socket, Request::Canary, &[enroller.program()]).map_err(gone)?;
        connection.canary = Begun::Asked;
        Ok(())
    }

    /// The one that was begun.
    pub(super) fn begun_canary(&self) -> io::Result<Child> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match std::mem::replace(&mut connection.canary, Begun::No) {
            Begun::No => Err(io::ErrorKind::NotFound.into()),
            Begun::Asked => connection.answer(),
            Begun::Answered(answer) => answer,
        };
        drop(connection);
        self.canary_of(answer?)
    }

    fn canary_of(&self, answer: Answer) -> io::Result<Child> {
        match answer {
            (Reply::Started { child, .. }, descriptors) => {
                let pidfd = descriptors.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
                Ok(Child { broker: self.clone(), id: child, pidfd })
            }
            other => Err(odd(&other)),
        }
    }

    /// Starts the command, whose name is for errors only.
    pub(super) fn launch(
        &self,
        name: &str,
        enroller: &Enroller,
        perf: Perf,
    ) -> io::Result<Result<Started, LaunchError>> {
        let Perf { counts_execs, maps: maps_bytes, at_once: maps_at_once } = perf;
        let request = Request::Launch { counts_execs, maps_bytes, maps_at_once };
        match self.ask(request, &[enroller.program()])? {
            (Reply::NotStarted(refusal), _) => Ok(Err(launch_error(name, refusal))),
            (Reply::Started { child, witness, maps }, descriptors) => {
                let mut descriptors = descriptors.into_iter();
                let mut next = || descriptors.next().ok_or(io::ErrorKind::InvalidData);
                let pidfd = next()?;
                let witness = match witness {
                    Some(Ok(())) => Some(Ok(next()?)),
                    Some(Err(why)) => Some(Err(why)),
                    None => None,
                };
                let maps = maps.map(|maps| maps.map(|_| descriptors.collect()));
                let child = Child { broker: self.clone(), id: child, pidfd };
                Ok(Ok(Started { child, witness, maps }))
            }
            other => Err(odd(&other)),
        }
    }

    /// The file of a recording with that number.
    pub fn part(&self, number: u32) -> io::Result<File> {
        self.file(Request::Part { number }, &[])
    }

    /// Marks a file for a watch of files.
    pub(super) fn mark(
        &self,
        queue: BorrowedFd<'_>,
        file: BorrowedFd<'_>,
        mask: u64,
    ) -> io::Result<()> {
        self.ask(Request::Mark { mask }, &[queue, file]).map(drop)
    }

    fn file(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<File> {
        let (reply, opened) = self.ask(request, descriptors)?;
        match opened.into_iter().next() {
            Some(file) => Ok(file.into()),
            None => Err(odd(&(reply, Vec::new()))),
        }
    }

    /// Has it close what takes long, once nobody waits for tracer any more.
    pub(super) fn close_later(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.ask(Request::CloseLater, descriptors).map(drop)
    }

    /// Lets it end: the command's cgroup is gone then. It may be there for some tenths of a second longer than
    /// tracer, and holds nothing then but what [`close_later`](Broker::close_later) gave it.
    pub fn finish(&self) {
        if self.ask(Request::Finish, &[]).is_ok() {
            return;
        }
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has ended already is as well.
        let _ = rustix::net::shutdown(&connection.socket, rustix::net::Shutdown::Both);
        let wait = || waitpid(Some(connection.pid), WaitOptions::empty());
        while matches!(wait(), Err(rustix::io::Errno::INTR)) {}
    }
}

impl Opener for Broker {
    fn open(&self, path: &Path) -> io::Result<File> {
        self.file(Request::Open { path: Bytes::from(path) }, &[])
    }

    fn read(&self, handle: BorrowedFd<'_>) -> io::Result<File> {
        self.file(Request::Read, &[handle])
    }
}

impl Deputy for Broker {
    fn break_at(
        &self,
        program: BorrowedFd<'_>,
        file: BorrowedFd<'_>,
        places: &Breakpoints<'_>,
    ) -> io::Result<OwnedFd> {
        let Breakpoints { offsets, cookie, at_return, together } = *places;
        let request = Request::Break { offsets: offsets.to_vec(), cookie, at_return, together };
        self.file(request, &[program, file]).map(OwnedFd::from)
    }

    fn close_later(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        Broker::close_later(self, descriptors)
    }
}

impl Child {
    /// Its status, once it has ended.
    pub(super) fn ended(&self) -> io::Result<Option<ExitStatus>> {
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut polled, Some(&at_once))? == 0 {
            return Ok(None);
        }
        match self.broker.ask(Request::Ended { child: self.id }, &[])? {
            (Reply::Ended { status }, _) => Ok(status.map(ExitStatus::from_raw)),
            other => Err(odd(&other)),
        }
    }

    pub(super) fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        self.broker.ask(Request::Signal { child: self.id, signal }, &[]).map(drop)
    }

    /// To wait on.
    pub(super) fn end(&self) -> io::Result<OwnedFd> {
        self.pidfd.as_fd().try_clone_to_owned()
    }
}

fn launch_error(name: &str, refusal: Refusal) -> LaunchError {
    match refusal {
        Refusal::NotFound => LaunchError::NotFound(name.to_owned()),
        Refusal::NotStarted { errno, why } => {
            LaunchError::NotStarted(name.to_owned(), wire::error_of(errno, why))
        }
        Refusal::NotEnrolled => LaunchError::NotEnrolled,
        Refusal::NotTheUser => LaunchError::NotTheUser,
        Refusal::NotInCgroup => LaunchError::NotInCgroup,
        Refusal::NoThread { why } => LaunchError::NoThread(io::Error::other(why)),
    }
}

fn gone(error: io::Error) -> io::Error {
    io::Error::other(format!(
        "the process that keeps tracer's rights has ended ({error}), so tracing cannot go on; what is recorded up \
         to here says that it was cut short, and the command goes on"
    ))
}

fn odd(answer: &Answer) -> io::Error {
    io::Error::other(format!("the broker's answer makes no sense: {:?}", answer.0))
}
