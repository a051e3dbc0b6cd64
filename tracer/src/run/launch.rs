//! Starts the command so that nothing of it can run unseen.
//!
//! The child puts itself into the tracked tree before it becomes the calling user and before it
//! executes anything, so there is no gap between start and trace, and nothing has to be waited for. All this
//! happens in the broker, which has what the caller had.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Child, Command},
    sync::mpsc,
    thread,
};

use tracer_ebpf::abi::Role;

use super::{
    cgroup::Door, inherited, signals::OriginalMask, user::CallingUser, witness::ExecWitness,
};
use crate::{perf::MapStream, probe::Enroller};

/// What the child's own steps report when they fail, told apart from a failed exec.
const ENROL_FAILED: i32 = libc::EKEYREJECTED;
const USER_FAILED: i32 = libc::EKEYREVOKED;
const JOIN_FAILED: i32 = libc::EKEYEXPIRED;

#[derive(Debug)]
pub(super) struct Launched {
    pub(super) child: Child,
    /// Or why there is none; not there unless it is asked for.
    pub(super) witness: Option<Result<ExecWitness, String>>,
    /// Events of executable mappings, if they are wanted.
    pub(super) maps: Option<Result<Vec<OwnedFd>, String>>,
    /// Keeps the thread alive that the witness was opened on.
    pub(super) anchor: mpsc::Sender<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("the command `{0}` was not found (or the interpreter it names was not)")]
    NotFound(String),
    #[error("the command `{0}` could not be started: {1}")]
    NotStarted(String, io::Error),
    #[error(
        "the command was not started, because the kernel did not take it into the traced tree; `tracer doctor` shows what this kernel allows"
    )]
    NotEnrolled,
    #[error("the command was not started, because its process could not become the calling user")]
    NotTheUser,
    #[error(
        "the command was not started, because its process could not join the cgroup that was made for it"
    )]
    NotInCgroup,
    #[error("no thread could be started: {0}")]
    NoThread(io::Error),
}

/// Perf events that the command inherits. Each costs every process that it creates some microseconds,
/// so they are opened only for what needs them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Perf {
    pub(super) counts_execs: bool,
    /// Bytes of the ring of executable mappings that each CPU gets, if they are wanted.
    pub(super) maps: Option<usize>,
    /// Each mapping is to be known as soon as there is one.
    pub(super) at_once: bool,
}

pub(super) fn launch(
    command: &[OsString],
    enroller: Enroller,
    door: Option<Door>,
    user: Option<CallingUser>,
    mask: OriginalMask,
    perf: Perf,
) -> Result<Launched, LaunchError> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(LaunchError::NotFound(String::new()));
    };
    let name = program.to_string_lossy().into_owned();
    let mut prepared = Command::new(program);
    prepared.args(arguments);
    if let Some(user) = &user {
        prepared.envs(user.environment());
    }
    let in_child = move || {
        let refused = |errno| move |_| io::Error::from_raw_os_error(errno);
        // Before it is traced: a traced process that changes its cgroup is reported.
        if let Some(door) = &door {
            door.enter().map_err(refused(JOIN_FAILED))?;
        }
        enroller.enrol(Role::Traced).map_err(refused(ENROL_FAILED))?;
        if let Some(user) = &user {
            user.assume().map_err(refused(USER_FAILED))?;
        }
        mask.restore()?;
        inherited::restore()
    };
    // SAFETY: the closure makes system calls only: no allocation, no lock.
    unsafe { prepared.pre_exec(in_child) };

    let (report, reported) = mpsc::channel();
    let (anchor, until_dropped) = mpsc::channel::<()>();
    thread::Builder::new()
        .name("launcher".into())
        .spawn(move || {
            let text = |error: io::Error| error.to_string();
            let witness = perf.counts_execs.then(|| ExecWitness::open().map_err(text));
            let open = |bytes| MapStream::open(bytes, perf.at_once).map_err(text);
            // Mapped before the command starts, and as long as the anchor is there: without memory the
            // kernel writes nothing, and does not even count it as lost.
            let stream = perf.maps.map(open);
            let events = |stream: &MapStream| stream.events().map_err(text);
            let maps = stream
                .as_ref()
                .map(|stream| stream.as_ref().map_err(Clone::clone).and_then(events));
            // A receiver that is gone means that tracer is ending: nothing to do.
            let _ = report.send((prepared.spawn(), witness, maps));
            let _ = until_dropped.recv();
            drop(stream);
        })
        .map_err(LaunchError::NoThread)?;
    let (spawned, witness, maps) =
        reported.recv().map_err(|error| LaunchError::NoThread(io::Error::other(error)))?;
    let child = spawned.map_err(|error| match error.raw_os_error() {
        Some(ENROL_FAILED) => LaunchError::NotEnrolled,
        Some(USER_FAILED) => LaunchError::NotTheUser,
        Some(JOIN_FAILED) => LaunchError::NotInCgroup,
        _ if error.kind() == io::ErrorKind::NotFound => LaunchError::NotFound(name),
        _ => LaunchError::NotStarted(name, error),
    })?;
    Ok(Launched { child, witness, maps, anchor })
}
