//! A run with a fault.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tracer::{
    policy::{self, Ruling},
    record,
    session::Story,
};

use super::{
    Fault, Random,
    account::{self, Made},
    fault,
};
use crate::{
    bench::load::{Deed, Loads},
    cgroup, lab, on_path, programs,
    scratch::{MARK, Scratch},
};

/// Files that the load makes: at its start, at its end, and with the uptime that it sees.
const STARTED: &str = "started";
const ENDED: &str = "ended";
const UPTIME: &str = "uptime";

/// Bytes of an argument that has records of its own beside that of the exec.
const LONG_ARGUMENT: usize = 20_000;

/// No run takes nearly that long.
const LONGEST: Duration = Duration::from_secs(120);

/// Rests on every kind of event there is.
const POLICY: &str = r#"
name = "both"

[[claim]]
kind = "never-runs"
programs = ["/nowhere/program"]

[[claim]]
kind = "connects-only-to"
endpoints = ["127.0.0.0/8"]
"#;

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// Nothing was missing.
    Proven,
    Inconclusive,
    /// tracer refused to start the command.
    NotStarted,
    /// The recording has no end.
    Cut,
}

impl Ended {
    pub fn name(self) -> &'static str {
        match self {
            Ended::Proven => "proven, nothing missing",
            Ended::Inconclusive => "inconclusive",
            Ended::NotStarted => "command not started",
            Ended::Cut => "recording cut",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) ended: Ended,
    pub(super) lost: u64,
    /// The fault had its effect; else the run was as any other.
    pub(super) occurred: bool,
}

/// How often the load does what.
#[derive(Debug)]
struct Amounts {
    spawns: u64,
    connects: u64,
    /// At the same time: more than a map that is made small has room for.
    connections: u64,
    sockets: u64,
    processes: u64,
    /// Execs that fail.
    attempts: u64,
}

/// Executed files that differ: also more than there is room for.
const FILES: u64 = fault::MOST_ENTRIES;

pub(super) fn run(
    tracer: &Path,
    loads: &Loads,
    fault: &Fault,
    random: &mut Random,
) -> Result<Found> {
    let mut held = || random.between(fault::MOST_ENTRIES + 1, 60);
    let (connections, sockets, processes) = (held(), held(), held());
    let amounts = Amounts {
        spawns: random.between(20, 150),
        connects: random.between(5, 150),
        connections,
        sockets,
        processes,
        attempts: random.between(60, 150),
    };
    lab::in_private_namespaces(|| {
        let mut trial = Trial::new(fault, loads, &amounts)?;
        let status = trial.start(tracer)?;
        trial.judge(status)
    })
}

struct Trial<'a> {
    fault: &'a Fault,
    /// Before the folder that it is in: fields are dropped in this order.
    _disk: Option<SmallDisk>,
    scratch: Scratch,
    recording: PathBuf,
    /// What is traced.
    words: Vec<String>,
    made: Made,
    /// The reader was stopped while the load was at work.
    was_stopped: bool,
    /// How long the machine was up before the run.
    uptime: f64,
}

impl<'a> Trial<'a> {
    fn new(fault: &'a Fault, loads: &Loads, amounts: &Amounts) -> Result<Trial<'a>> {
        let scratch = Scratch::new()?;
        let last = thread::available_parallelism().map_or(0, |count| count.get() - 1);
        let Amounts { spawns, connects, connections, sockets, processes, attempts } = *amounts;
        let spawn = loads.command(Deed::Spawn, spawns, 0).join(" ");
        let connect = loads.command(Deed::Connect, connects, last).join(" ");
        let hold = programs::program(&scratch, "hold-all")?;
        // A small ring has no room for what is of that length, so it would never lose something else only.
        let is_long = matches!(fault, Fault::LostRecords { ring: "argv", .. });
        let mut files = String::new();
        for number in 0..FILES {
            let copy = scratch.file(format!("nothing-{number}"));
            programs::copy_program(loads.spawned(), &copy)?;
            let _ = write!(files, "{} $long; ", copy.display());
        }
        // It runs in the folder of the files it makes, and the shell makes them without a process.
        let text = format!(
            "read up rest </proc/uptime; echo $up >{UPTIME}; : >{STARTED}; {spawn} >/dev/null; {connect} \
             >/dev/null; {hold} {connections} {sockets} {processes} {attempts}; long={long}; {files}: >{ENDED}",
            hold = hold.display(),
            long = "x".repeat(if is_long { LONG_ARGUMENT } else { 1 })
        );
        let shell = on_path("sh")?.display().to_string();
        let mut words = vec![shell, "-c".to_owned(), text];
        // The shell, three loads, what they start, and the files.
        let others = 3 + FILES;
        let mut made = [
            ("fork", others + spawns + processes),
            ("exec", 1 + others + spawns),
            ("exit", 1 + others + spawns + processes),
        ];
        if let Fault::OtherClock { seconds, inside: true } = fault {
            let unshare = on_path("unshare")?.display().to_string();
            let unshare = [&*unshare, "--time", "--boottime", &seconds.to_string()];
            words = unshare.iter().map(ToString::to_string).chain(words).collect();
            // unshare executes the shell without a fork.
            for (kind, count) in &mut made {
                *count += u64::from(*kind == "exec");
            }
        }
        let connected = connects + connections;
        let of_sockets = [
            ("connect", connected),
            ("connect-result", connected),
            ("close", connected),
            ("payload", connections),
            ("datagram", sockets),
            ("attempt", attempts),
        ];
        let made = Made(made.into_iter().chain(of_sockets).collect());
        let (recording, disk) = if let Fault::FullDisk { bytes, .. } = fault {
            let disk = SmallDisk::mount(&scratch, *bytes)?;
            (disk.0.join("recording"), Some(disk))
        } else {
            (scratch.file("recording"), None)
        };
        let uptime = uptime(Path::new("/proc/uptime"))?;
        Ok(Trial {
            fault,
            _disk: disk,
            scratch,
            recording,
            words,
            made,
            was_stopped: false,
            uptime,
        })
    }

    fn command(&self, tracer: &Path) -> Result<Command> {
        let policy = self.scratch.write("both.toml", POLICY)?;
        let mut command = if let Fault::OtherClock { seconds, inside: false } = self.fault {
            let mut unshare = Command::new(on_path("unshare")?);
            unshare.args(["--time", "--boottime", &seconds.to_string()]).arg(tracer);
            unshare
        } else {
            Command::new(tracer)
        };
        command.args(["run", "--quiet", "--linger=1", "--attempts", "--policy"]).arg(policy);
        command.args(self.fault.options()).arg("--output");
        if let Fault::HungUp { .. } = self.fault {
            command.arg("-");
        } else {
            command.arg(&self.recording);
        }
        command.arg("--").args(&self.words).env(MARK, self.scratch.mark());
        command.current_dir(self.scratch.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(self.scratch.file("said"))?);
        Ok(command)
    }

    /// Starts it, lets the fault happen, and waits.
    fn start(&mut self, tracer: &Path) -> Result<ExitStatus> {
        let mut command = self.command(tracer)?;
        match self.fault {
            Fault::HungUp { bytes } => self.with_terminal(command, *bytes),
            Fault::StoppedReader { after, stopped, .. } => {
                let mut child = command.spawn()?;
                if self.after_start(&mut child, *after)? {
                    signal(&child, Signal::STOP)?;
                    self.was_stopped = is_stopped(&child) && !self.scratch.file(ENDED).exists();
                    thread::sleep(*stopped);
                    signal(&child, Signal::CONT)?;
                }
                self.wait(child)
            }
            Fault::Killed { after } => {
                let mut child = command.spawn()?;
                let pid = child.id();
                if self.after_start(&mut child, *after)? {
                    signal(&child, Signal::KILL)?;
                }
                let status = self.wait(child);
                self.scratch.sweep();
                cgroup::remove_of(pid);
                status
            }
            Fault::TinyRings { .. }
            | Fault::LostRecords { .. }
            | Fault::FullDisk { .. }
            | Fault::OtherClock { .. }
            | Fault::FullMap { .. }
            | Fault::SilentProbe { .. } => self.wait(command.spawn()?),
        }
    }

    /// Waits until the traced command runs, and so long after. Whether tracer was there when that began.
    fn after_start(&self, child: &mut Child, after: Duration) -> Result<bool> {
        let (started, deadline) = (self.scratch.file(STARTED), Instant::now() + LONGEST);
        while !started.exists() {
            // From here on the number of the process may be another one's.
            if child.try_wait()?.is_some() {
                return Ok(false);
            }
            ensure!(Instant::now() < deadline, "the command does not start");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(after);
        Ok(true)
    }

    fn wait(&self, mut child: Child) -> Result<ExitStatus> {
        let deadline = Instant::now() + LONGEST;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                self.scratch.sweep();
                bail!("tracer had not ended after {LONGEST:?}");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The recording goes to a terminal, which hangs up.
    fn with_terminal(&self, mut command: Command, bytes: u64) -> Result<ExitStatus> {
        let (ours, theirs) = raw_terminal()?;
        command.stdout(Stdio::from(theirs));
        let child = command.spawn()?;
        drop(command);
        let mut read = Vec::new();
        // At the end of its input a terminal fails, so what was read before that counts.
        let _ = File::from(ours).take(bytes).read_to_end(&mut read);
        fs::write(&self.recording, read)?;
        self.wait(child)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.scratch.file("said")).unwrap_or_default()
    }

    fn judge(&self, status: ExitStatus) -> Result<Found> {
        let said = self.said();
        if !self.scratch.file(STARTED).exists() {
            ensure!(status.code() == Some(125), "the command was not started; {status}: {said}");
            ensure!(
                self.fault.explains(&said),
                "the command was not started, for another reason than the fault: {said}"
            );
            // That of a probe is to be refused; with the others, what the load makes is to be missed.
            let occurred = matches!(self.fault, Fault::SilentProbe { .. });
            return Ok(Found { ended: Ended::NotStarted, lost: 0, occurred });
        }
        ensure!(
            !matches!(self.fault, Fault::SilentProbe { .. }),
            "the command was started, so the probe that is silent is not missed; {status}: {said}"
        );
        let bytes = fs::metadata(&self.recording).map_or(0, |about| about.len());
        if bytes == 0 {
            ensure!(self.cuts(), "there is no recording; {status}: {said}");
            return self.cut(status, &said, false);
        }
        let recording = match record::read(&self.recording) {
            Ok(recording) => recording,
            // Not even the first line is whole.
            Err(_) if self.cuts() => return self.cut(status, &said, false),
            Err(error) => return Err(error).context(said),
        };
        if recording.end.is_none() {
            let story = Story::of(recording);
            let verdict = policy::judge(&story, &story.start.policies).context("no verdict")?;
            ensure!(verdict.overall == Ruling::Inconclusive, "without an end: {verdict:?}");
            ensure!(self.cuts(), "the recording has no end; {status}: {said}");
            return self.cut(status, &said, true);
        }
        self.whole(recording, status)
    }

    /// Whether the fault ends the recording before its time.
    fn cuts(&self) -> bool {
        matches!(self.fault, Fault::FullDisk { .. } | Fault::HungUp { .. } | Fault::Killed { .. })
    }

    /// With a recording that can be read as far as it goes, or without.
    fn cut(&self, status: ExitStatus, said: &str, is_readable: bool) -> Result<Found> {
        let occurred = if let Some(named) = self.fault.named_by() {
            ensure!(status.code() == Some(125), "{status}: {said}");
            ensure!(said.contains(named), "not named: {said}");
            true
        } else {
            ensure!(status.signal() == Some(libc::SIGKILL), "{status}: {said}");
            is_readable
        };
        Ok(Found { ended: Ended::Cut, lost: 0, occurred })
    }

    fn whole(&self, recording: record::Recording, status: ExitStatus) -> Result<Found> {
        let end = recording.end.clone().context("no end")?;
        let lost = account::check(&recording, &end, &self.made)?;
        let story = Story::of(recording);
        let verdict = policy::judge(&story, &story.start.policies).context("no verdict")?;
        let reasons: Vec<&String> =
            verdict.claims.iter().flat_map(|claim| &claim.reasons).collect();
        let is_missing = lost > 0 || !end.faults.is_empty();
        let expected = if is_missing { Ruling::Inconclusive } else { Ruling::Proven };
        ensure!(
            verdict.overall == expected,
            "{} with {lost} lost and the faults {:?}: {reasons:?}",
            verdict.overall.name(),
            end.faults
        );
        if is_missing {
            let named = self.fault.named_by().with_context(|| format!("no reason: {reasons:?}"))?;
            ensure!(reasons.iter().any(|reason| reason.contains(named)), "not named: {reasons:?}");
        }
        let (code, ended) = match verdict.overall {
            Ruling::Proven => (0, Ended::Proven),
            Ruling::Violated | Ruling::Inconclusive => (11, Ended::Inconclusive),
        };
        // What was killed has no status of its own, though its recording may have been whole.
        let is_killed = matches!(self.fault, Fault::Killed { .. });
        ensure!(is_killed || status.code() == Some(code), "{status}: {}", self.said());
        let occurred = match self.fault {
            Fault::TinyRings { .. } | Fault::LostRecords { .. } => lost > 0,
            Fault::StoppedReader { .. } => lost > 0 || self.was_stopped,
            Fault::FullMap { map, .. } => end.faults.contains_key(fault::insert_fault(map)),
            Fault::OtherClock { seconds, .. } => self.had_other_clock(*seconds)?,
            // The recording was at its end before that.
            Fault::FullDisk { .. } | Fault::HungUp { .. } | Fault::Killed { .. } => false,
            Fault::SilentProbe { .. } => bail!("the probe that is silent is not missed"),
        };
        Ok(Found { ended, lost, occurred })
    }

    /// Whether the load saw another uptime than there was.
    fn had_other_clock(&self, seconds: u64) -> Result<bool> {
        let (inside, now) =
            (uptime(&self.scratch.file(UPTIME))?, uptime(Path::new("/proc/uptime"))?);
        // All of them are rounded.
        let (first, last) = (self.uptime + seconds as f64 - 1.0, now + seconds as f64 + 1.0);
        Ok((first..=last).contains(&inside))
    }
}

/// Seconds, the first word of the file.
fn uptime(file: &Path) -> Result<f64> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let seconds = text.split_whitespace().next().context("no uptime")?;
    Ok(seconds.parse()?)
}

/// Whether every thread of it has come to a stop, which takes a moment.
fn is_stopped(child: &Child) -> bool {
    const TRIES: usize = 20;
    let has_stopped = |task: io::Result<fs::DirEntry>| {
        let stat = task.and_then(|task| fs::read_to_string(task.path().join("stat")));
        stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    };
    (0..TRIES).any(|_| {
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id()));
        let have_stopped = tasks.is_ok_and(|mut tasks| tasks.all(has_stopped));
        if !have_stopped {
            thread::sleep(Duration::from_millis(1));
        }
        have_stopped
    })
}

/// A folder with so much room and no more. Dropping it unmounts it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(scratch: &Scratch, bytes: u64) -> Result<SmallDisk> {
        let folder = scratch.folder("small")?;
        let room = std::ffi::CString::new(format!("mode=755,size={bytes}"))?;
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &folder, "tmpfs", flags, room.as_c_str())
            .context("cannot mount a small tmpfs")?;
        Ok(SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
    match kill_process(pid, signal) {
        // It is a child that was not waited for, so the number is its own; it may have ended.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Both ends of a terminal that changes no byte.
fn raw_terminal() -> Result<(OwnedFd, OwnedFd)> {
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: termios is plain data, for which all zeroes is a value.
    let mut how: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is live and writable.
    unsafe { libc::cfmakeraw(&raw mut how) };
    how.c_cflag |= libc::CS8 | libc::CREAD | libc::B38400;
    // SAFETY: both descriptors and the settings are live; neither a name nor a size is asked for.
    let status = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            std::ptr::null_mut(),
            &raw const how,
            std::ptr::null(),
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error()).context("cannot open a terminal");
    }
    // SAFETY: the call has just made it, and nobody else has it.
    let ours = unsafe { OwnedFd::from_raw_fd(ours) };
    // SAFETY: likewise.
    let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
    for end in [&ours, &theirs] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok((ours, theirs))
}
