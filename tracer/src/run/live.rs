//! A run that goes on: from armed probes to the last event.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::ExitStatus,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use rustix::thread::CapabilitySet;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until, timeout},
};
use tracer_ebpf::abi::Kind;

use super::{
    RunError, Settings,
    broker::{Broker, Child},
    canary,
    collector::Collector,
    engine::Prepared,
    launch::{LaunchError, Perf},
    sandbox,
    settings::OnError,
    signals::{Received, Signals},
    tls::FoundCode,
    witness::ExecWitness,
};
use crate::{
    perf::MapStream,
    probe::{Attached, Enroller, TlsSessions},
    record::schema::{self, Canary, CanaryPhase, Checks, CommandStatus, Witness},
};

/// Events are handled in batches this far apart under load: a wake-up per event would cost more
/// than the event.
const BATCH: Duration = Duration::from_millis(5);
/// How long a canary may take. It takes a few milliseconds, but needs locks of the kernel's (namespaces of
/// others that end, moves between cgroups) for which it waits seconds where the machine is very busy.
const CANARY_WAIT: Duration = Duration::from_secs(30);
/// How long its events may take once it has ended: they are in the rings by then.
const CANARY_EVENTS_WAIT: Duration = Duration::from_secs(2);
/// And how long when its end has come.
const CANARY_LAST_WAIT: Duration = Duration::from_millis(300);
/// How often it is looked up whether the probes are attached still.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// This many signals from the terminal end tracing although the command goes on.
const IMPATIENT_AFTER: u32 = 3;

/// The command, and its witness if that was asked for, or why there is none.
type Running = (Child, Option<Result<ExecWitness, String>>);

pub(super) struct Session {
    pub(super) collector: Collector,
    pub(super) attached: Attached,
    signals: Signals,
    pub(super) broker: Broker,
    readiness: Vec<AsyncFd<OwnedFd>>,
    pub(super) canaries: Vec<Canary>,
    pub(super) checks: Checks,
    next_check: Instant,
    pub(super) interrupted: bool,
    impatience: u32,
    /// What the kernel side knows, if TLS is read.
    tls_sessions: Option<TlsSessions>,
}

/// What there is to do.
enum Wake {
    /// A batch of events, or what is done now and then.
    Work,
    Deadline,
    Signal(Received),
}

impl Session {
    pub(super) fn new(prepared: Prepared, signals: Signals, broker: Broker) -> io::Result<Session> {
        let Prepared { collector, attached, tls_sessions } = prepared;
        // A descriptor of its own for each ring, to wait on: the rings stay with the collector.
        let rings = collector.rings();
        // argv pieces need no wake-up: they are read when their exec is.
        let mut sources = collector.watch.queues()?;
        for ring in [
            rings.process.as_fd(),
            rings.net.as_fd(),
            rings.attempt.as_fd(),
            rings.names.as_fd(),
            rings.resolver.as_fd(),
            rings.tls.as_fd(),
        ] {
            sources.push(ring.try_clone_to_owned()?);
        }
        let readiness = sources.into_iter().map(wait_on).collect::<io::Result<_>>()?;
        Ok(Session {
            collector,
            attached,
            signals,
            broker,
            readiness,
            canaries: Vec::new(),
            checks: Checks::default(),
            next_check: Instant::now() + CHECK_EVERY,
            interrupted: false,
            impatience: 0,
            tls_sessions,
        })
    }

    /// Handles everything that is in the rings, and nothing else.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        if self.tls_sessions.is_some() {
            let lost = self.attached.lost(Kind::TlsData).map_err(io::Error::other)?;
            self.collector.lost_tls_data(lost);
        }
        self.collector.round()?;
        Ok(())
    }

    /// Handles everything that is in the rings, and what that asks for.
    fn round(&mut self) -> io::Result<()> {
        self.drain()?;
        if let Some(sessions) = &mut self.tls_sessions {
            self.collector.watch_tls(&mut self.attached, sessions)?;
        }
        Ok(())
    }

    /// Watches what runs already has mapped.
    pub(super) fn found_code(&mut self, code: Vec<FoundCode>) -> io::Result<()> {
        self.collector.found_code(code, &mut self.attached)
    }

    /// Starts the command, whose mappings are watched from here on.
    pub(super) fn launch(
        &mut self,
        settings: &Settings,
        enroller: &Enroller,
    ) -> io::Result<Result<Running, LaunchError>> {
        let ring_bytes = settings.probes.maps_ring_bytes();
        let perf = Perf {
            counts_execs: settings.probes.hand_offs,
            maps: (settings.probes.hand_offs || settings.probes.http).then_some(ring_bytes),
            // A library is watched once its mapping is known.
            at_once: settings.probes.http,
        };
        let name = settings.command.first().map(|name| name.to_string_lossy());
        let started = match self.broker.launch(&name.unwrap_or_default(), enroller, perf)? {
            Ok(started) => started,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(events) = started.maps {
            let map =
                |events| MapStream::map(events, ring_bytes).map_err(|error| error.to_string());
            let stream = events.and_then(map);
            if let Ok(stream) = &stream {
                self.readiness.push(wait_on(stream.ready()?)?);
            }
            self.collector.watch_maps(stream);
        }
        self.readiness.push(wait_on(started.child.end()?)?);
        self.collector.launched(started.child.id)?;
        let witness = started.witness.map(|witness| witness.map(ExecWitness::opened));
        Ok(Ok((started.child, witness)))
    }

    /// Gives up for good what is not needed from here on. Whatever was written by others is read after this.
    pub(super) fn confine(&mut self) -> Result<(), RunError> {
        sandbox::confine(CapabilitySet::empty()).map_err(RunError::Unconfined)?;
        self.attached.rely_on(Arc::new(self.broker.clone()));
        Ok(self.collector.confined(&self.broker)?)
    }

    /// Waits until all events of a canary have come. At the start a probe that does
    /// not fire is an error; at the end it is the verdict's business.
    pub(super) async fn canary(
        &mut self,
        phase: CanaryPhase,
        child: io::Result<Child>,
    ) -> Result<(), RunError> {
        let before = self.collector.fold.canary_events.clone();
        let mut deadline = Instant::now() + CANARY_WAIT;
        let mut kinds = self.attached.canary_kinds.clone();
        // Only out of a cgroup of its own can one go and come back, or bring a socket in.
        if !matches!(
            &self.collector.kept.story.start.cgroup,
            Some(schema::CommandCgroup::Own { .. })
        ) {
            kinds.retain(|kind| !matches!(kind, Kind::CgroupMove | Kind::ForeignSend));
        }
        let (mut seen, mut ended) = (BTreeMap::new(), None);
        if let Ok(child) = &child {
            loop {
                self.collector.round()?;
                if ended.is_none() {
                    ended = child.ended()?;
                    if let Some(status) = &ended {
                        if canary::was_refused_control(status) {
                            kinds.retain(|kind| *kind != Kind::Intrusion);
                        }
                        deadline = Instant::now() + CANARY_EVENTS_WAIT;
                    }
                }
                seen = canary::seen(&kinds, &before, &self.collector.fold.canary_events);
                // What it did before it ended is in the rings by the time that its end is.
                if ended.is_some() && seen.get(Kind::Exit.name()) == Some(&true) {
                    deadline = deadline.min(Instant::now() + CANARY_LAST_WAIT);
                }
                if (ended.is_some() && seen.values().all(|seen| *seen))
                    || Instant::now() >= deadline
                {
                    break;
                }
                // SIGCHLD is not waited for here: it comes before the exit event is drained.
                let _ = timeout(Duration::from_millis(1), any_readable(&self.readiness)).await;
            }
            if ended.is_none() {
                child.signal(libc::SIGKILL)?;
            }
        }
        if child.is_err() {
            self.broker.check()?;
        }
        let failed = match (child, ended) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(_), None) => Some(format!("it did not end in {} s", CANARY_WAIT.as_secs())),
            (Ok(_), Some(status)) if !status.success() && !canary::was_refused_control(&status) => {
                Some(format!("it ended with {status}"))
            }
            (Ok(_), Some(_)) => None,
        };
        let missing: Vec<&str> =
            seen.iter().filter(|(_, seen)| !**seen).map(|(kind, _)| kind.as_str()).collect();
        if phase == CanaryPhase::Start {
            // One that did not get there is no probe's fault.
            if let Some(failed) = failed {
                return Err(RunError::Canary(failed));
            }
            if !missing.is_empty() {
                return Err(RunError::SilentProbe(missing.join(", ")));
            }
        }
        self.canaries.push(Canary { phase, seen, failed });
        Ok(())
    }

    /// Drains until the command has ended and its descendants too, or the linger time is over.
    pub(super) async fn follow(
        &mut self,
        child: Child,
        witness: Option<Result<ExecWitness, String>>,
        settings: &Settings,
    ) -> io::Result<(CommandStatus, Witness)> {
        let Settings { linger, progress, on_error, .. } = *settings;
        let mut stopped = false;
        let mut ended: Option<(ExitStatus, Instant)> = None;
        loop {
            self.round()?;
            self.check();
            if ended.is_none() {
                ended = child.ended()?.map(|status| (status, Instant::now() + linger));
                if ended.is_some() {
                    self.round()?;
                    if progress {
                        self.say_what_is_left(linger);
                    }
                }
            }
            if ended.is_none() && !stopped && self.should_stop(on_error) {
                stopped = true;
                say_stopped("the command gets SIGTERM");
                child.signal(libc::SIGTERM)?;
            }
            let now = Instant::now();
            let over = ended.is_some_and(|(_, deadline)| {
                self.collector.kept.story.alive.is_empty() || now >= deadline
            });
            if over || self.interrupted {
                break;
            }
            let linger = ended.map(|(_, deadline)| deadline);
            if let Wake::Signal(received) = self.wake(linger).await? {
                self.on_signal(received, &child, &mut ended)?;
            }
        }
        let status = ended.map_or(CommandStatus::Running, |(status, _)| command_status(status));
        let witness = match witness.map(|witness| witness.map(|mut witness| witness.read())) {
            None => Witness::NotAsked,
            Some(Ok(Ok(count))) => Witness::Counted(count),
            Some(Ok(Err(error))) => Witness::Absent(format!("it could not be read: {error}")),
            Some(Err(error)) => Witness::Absent(format!("it could not be opened: {error}")),
        };
        Ok((status, witness))
    }

    /// Drains until a signal comes, the time is over or, unless nobody waits for that, everybody has ended.
    pub(super) async fn stay(
        &mut self,
        duration: Option<Duration>,
        for_ever: bool,
        on_error: OnError,
    ) -> io::Result<()> {
        let deadline = duration.map(|duration| Instant::now() + duration);
        loop {
            self.round()?;
            self.check();
            if !for_ever && self.collector.kept.story.alive.is_empty() {
                return Ok(());
            }
            if self.should_stop(on_error) {
                say_stopped("tracing ends, and what was joined goes on");
                return Ok(());
            }
            match self.wake(deadline).await? {
                Wake::Work => {}
                Wake::Deadline => return Ok(()),
                Wake::Signal(received) if received.signal == libc::SIGCHLD => {
                    self.broker.check()?
                }
                Wake::Signal(_) => return Ok(()),
            }
        }
    }

    /// When something is to be done even if nothing happens.
    fn next(&self) -> Instant {
        let flush = self.collector.kept.flush_at.map(Instant::from_std);
        flush.map_or(self.next_check, |flush| flush.min(self.next_check))
    }

    /// Until there is something to do.
    async fn wake(&mut self, deadline: Option<Instant>) -> io::Result<Wake> {
        let over = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let next = self.next();
        tokio::select! {
            result = batch(&self.readiness) => result.map(|()| Wake::Work),
            () = sleep_until(next) => Ok(Wake::Work),
            () = over => Ok(Wake::Deadline),
            received = self.signals.next() => received.map(Wake::Signal),
        }
    }

    fn on_signal(
        &mut self,
        received: Received,
        child: &Child,
        ended: &mut Option<(ExitStatus, Instant)>,
    ) -> io::Result<()> {
        if received.signal == libc::SIGCHLD {
            return self.broker.check();
        }
        self.impatience += 1;
        if let Some((_, deadline)) = ended {
            // Only descendants are waited for: whoever asks tracer to end means that.
            *deadline = Instant::now();
        } else if self.impatience >= IMPATIENT_AFTER {
            self.interrupted = true;
        } else if received.from_process {
            child.signal(received.signal)?;
        }
        Ok(())
    }

    fn should_stop(&self, on_error: OnError) -> bool {
        on_error == OnError::Stop && self.collector.kept.write_error.is_some()
    }

    fn say_what_is_left(&self, linger: Duration) {
        let story = &self.collector.kept.story;
        if story.alive.is_empty() {
            return;
        }
        const NAMED: usize = 5;
        let mut names: Vec<String> =
            story.alive.iter().take(NAMED).map(|key| story.label(*key)).collect();
        if story.alive.len() > NAMED {
            names.push("...".into());
        }
        crate::notice(format_args!(
            "the command has ended; waiting up to {} s for what it left behind: {}",
            linger.as_secs(),
            names.join(", ")
        ));
    }

    /// Looks, now and then, whether the probes are attached still.
    fn check(&mut self) {
        if Instant::now() >= self.next_check {
            self.next_check = Instant::now() + CHECK_EVERY;
            self.check_now();
        }
    }

    pub(super) fn check_now(&mut self) {
        self.checks.made += 1;
        if let Err(why) = self.attached.check() {
            self.checks.failure.get_or_insert(why);
        }
        self.collector.check_maps();
    }
}

fn say_stopped(what: &str) {
    crate::notice(format_args!(
        "the recording cannot be written any more, and --on-error=stop is given: {what}"
    ));
}

fn wait_on(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: AsyncFd owns the descriptor until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Until there are some events.
async fn batch(sources: &[AsyncFd<OwnedFd>]) -> io::Result<()> {
    any_readable(sources).await?;
    // Nothing else runs in this thread, and a timer of the event loop takes three calls of the kernel.
    std::thread::sleep(BATCH);
    Ok(())
}

/// Until a ring or the watch of files has something.
async fn any_readable(sources: &[AsyncFd<OwnedFd>]) -> io::Result<()> {
    std::future::poll_fn(|context| {
        let mut any = Poll::Pending;
        for source in sources {
            if let Poll::Ready(ready) = source.poll_read_ready(context) {
                match ready {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(error) => return Poll::Ready(Err(error)),
                }
                any = Poll::Ready(Ok(()));
            }
        }
        any
    })
    .await
}

fn command_status(status: ExitStatus) -> CommandStatus {
    let byte = |value: i32| u8::try_from(value).ok();
    match (status.code().and_then(byte), status.signal().and_then(byte)) {
        (Some(code), _) => CommandStatus::Exited(code),
        (None, Some(signal)) => CommandStatus::Killed(signal),
        (None, None) => CommandStatus::Running,
    }
}
