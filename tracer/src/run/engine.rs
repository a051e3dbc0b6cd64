//! The course of a run.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};

use rustix::thread::CapabilitySet;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracer_ebpf::abi::{Fault, Kind};

use super::{
    Settings,
    attach::TargetError,
    broker::{Broker, Child},
    canary,
    capabilities::{self, Feature, Powerless},
    cgroup::{self, CommandCgroup},
    collector::Collector,
    inherited,
    kept::Kept,
    known::Known,
    launch::{LaunchError, Perf},
    libraries::libraries,
    machine::LiveMachine,
    sandbox,
    settings::OnError,
    signals::{Received, Signals},
    tls::Tls,
    user::CallingUser,
    watch::Watch,
    witness::ExecWitness,
};
use crate::{
    model::{Bytes, Device, FileId},
    otlp::Delivery,
    perf::MapStream,
    policy::{self, Verdict},
    probe::{Attached, Enroller, FinalCounters, LoadError, Loaded, TlsSessions, sensors},
    record::{
        Record, Writer,
        schema::{
            self, Canary, CanaryPhase, Checks, CommandStatus, CounterRow, End, FileWatch, Host,
            LedgerRow, SCHEMA, SensorState, Start, Witness,
        },
    },
    session::Story,
};

/// Version and commit.
pub(crate) const VERSION: &str = env!("TRACER_VERSION");

/// Events are handled in batches this far apart under load: a wake-up per event would cost more
/// than the event.
const BATCH: Duration = Duration::from_millis(2);
/// How long a canary's events may take. They come in a few milliseconds; a suspended machine or a
/// starved hypervisor takes longer.
const CANARY_WAIT: Duration = Duration::from_secs(5);
/// How long records that are already reserved may take to be submitted after detaching.
const SETTLE_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked up whether the probes are attached still.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// This many signals from the terminal end tracing although the command goes on.
const IMPATIENT_AFTER: u32 = 3;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(
        "the canary at the start was not seen by the probe of: {0}. It is attached and does not fire, or its record was lost, so nothing could be proven; the command was not started"
    )]
    SilentProbe(String),
    #[error("the canary at the start failed: {0}; the command was not started")]
    Canary(String),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Powerless(#[from] Powerless),
    #[error(
        "tracer could not give up its rights, without which it reads nothing of others: {0}. What was started goes on"
    )]
    Unconfined(io::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A run that has ended, whatever its verdict.
#[derive(Debug)]
pub struct Finished {
    pub story: Story,
    pub verdict: Option<Verdict>,
    pub status: CommandStatus,
    /// The command was not there or could not be executed.
    pub launch_error: Option<LaunchError>,
    /// The recording could not be written to its end.
    pub write_error: Option<io::Error>,
    /// What a collector has of it, if there is one.
    pub delivery: Option<Delivery>,
}

/// Traces the command to its end.
pub async fn run(mut settings: Settings) -> Result<Finished, RunError> {
    let broker = settings.broker.clone();
    let user = CallingUser::from_environment().map_err(io::Error::other)?;
    check_capabilities(&settings, user.is_some(), user.is_some())?;
    let signals = Signals::block()?;
    let cgroup = broker.make_cgroup(None).and_then(CommandCgroup::made);
    if settings.probes.resolver {
        settings.probes.libraries = libraries(&settings.command);
    }
    let mut loaded = Loaded::new(&settings.probes, cgroup::target(&cgroup))?;
    let enroll_canary = loaded.enroller()?;
    let enroll_command = loaded.enroller()?;
    let enroll_last = loaded.enroller()?;
    let reported = cgroup::report(&cgroup);
    let prepared = prepare(&mut settings, loaded, user.as_ref(), reported, |_| {})?;
    let mut session = Session::new(prepared, signals, broker)?;

    session.canary(CanaryPhase::Start, &enroll_canary).await?;
    let launched = session.launch(&settings, &enroll_command)?;
    // Nothing of the command's has been read yet.
    session.confine()?;
    let (status, witness, launch_error) = match launched {
        Ok((child, witness)) => {
            let (status, witness) = session.follow(child, witness, &settings).await?;
            (status, witness, None)
        }
        Err(error) => (
            CommandStatus::NotStarted(error.to_string()),
            Witness::Absent("the command was not started".into()),
            Some(error),
        ),
    };
    session.canary(CanaryPhase::End, &enroll_last).await?;
    let end = session.end(status.clone(), witness).await?;
    Ok(session.finish(end, &settings.policies, status, launch_error))
}

/// Whether tracer may do what the run needs; says what it will not see otherwise.
pub(super) fn check_capabilities(
    settings: &Settings,
    has_caller: bool,
    has_others: bool,
) -> Result<(), Powerless> {
    let asked = |feature| match feature {
        Feature::Always => true,
        Feature::Verdict => !settings.policies.is_empty(),
        Feature::Caller => has_caller,
        Feature::Others => has_others,
        // Whether it is one shows when the cgroup is made, and what follows is said then.
        Feature::ForeignCgroup => false,
    };
    for sentence in capabilities::check(capabilities::held(), asked)? {
        eprintln!("tracer: {sentence}");
    }
    Ok(())
}

/// The command, and its witness if that was asked for, or why there is none.
type Running = (Child, Option<Result<ExecWitness, String>>);

/// What is there before anything is traced.
pub(super) struct Prepared {
    pub(super) collector: Collector,
    pub(super) attached: Attached,
    /// What the kernel side knows, if TLS is read.
    tls_sessions: Option<TlsSessions>,
}

/// Attaches the probes and makes the first line of the recording, about which `change` has the last word.
pub(super) fn prepare(
    settings: &mut Settings,
    mut loaded: Loaded,
    user: Option<&CallingUser>,
    cgroup: schema::CommandCgroup,
    change: impl FnOnce(&mut Start),
) -> Result<Prepared, RunError> {
    let rings = loaded.take_rings()?;
    let identifier = loaded.take_identifier()?;
    let mut attached = loaded.attach()?;
    let home = user
        .and_then(|user| user.home.clone())
        .or_else(|| std::env::var_os("HOME").map(PathBuf::from));
    let known = Known::search(settings, home, &identifier);
    let mut machine = LiveMachine::new(identifier);
    let mut tls_sessions = None;
    if settings.probes.http {
        tls_sessions = Some(attached.take_tls_sessions()?);
        let mut tls = Tls::new(settings.catalogue.clone());
        tls.prepare(&settings.command, &mut attached, machine.identifier())?;
        machine.look_for_tls(tls);
    }
    let watch =
        Watch::new(&known.wanted(settings), machine.identifier(), machine.sees_global_pids());
    let mut start = start_record(settings, &attached, known, &watch, user, cgroup)?;
    change(&mut start);
    if settings.probes.enforce {
        let (files, names) = policy::rules(&start);
        attached.forbid(&files, &names)?;
    }
    let variables = settings.catalogue.credential_variables();
    attached.look_for(&variables)?;
    let writer = settings.output.take().map(Writer::new);
    let kept = Kept::new(
        start.clone(),
        settings.summary,
        settings.catalogue.clone(),
        writer,
        settings.collector.take(),
    )?;
    let mut collector = Collector::new(rings, machine, watch, start, kept);
    collector.fold.variables = variables;
    if settings.probes.http {
        collector.fold.read_calls(settings.http_fields);
    }
    Ok(Prepared { collector, attached, tls_sessions })
}

pub(super) struct Session {
    pub(super) collector: Collector,
    attached: Attached,
    signals: Signals,
    broker: Broker,
    readiness: Vec<AsyncFd<OwnedFd>>,
    canaries: Vec<Canary>,
    checks: Checks,
    next_check: Instant,
    interrupted: bool,
    impatience: u32,
    /// What the kernel side knows, if TLS is read.
    tls_sessions: Option<TlsSessions>,
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

    /// Handles everything that is in the rings.
    fn round(&mut self) -> io::Result<()> {
        self.collector.round()?;
        if let Some(sessions) = &mut self.tls_sessions {
            self.collector.watch_tls(&mut self.attached, sessions)?;
        }
        Ok(())
    }

    /// Starts the command, whose mappings are watched from here on.
    fn launch(
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
        // Sending takes what would be given up here.
        if !self.collector.kept.sends() {
            sandbox::confine(CapabilitySet::empty()).map_err(RunError::Unconfined)?;
        }
        self.attached.break_through(Arc::new(self.broker.clone()));
        Ok(self.collector.confined(&self.broker)?)
    }

    /// Starts a canary and waits until all its events have come. At the start a probe that does
    /// not fire is an error; at the end it is the verdict's business.
    pub(super) async fn canary(
        &mut self,
        phase: CanaryPhase,
        enroller: &Enroller,
    ) -> Result<(), RunError> {
        let before = self.collector.fold.canary_events.clone();
        let deadline = Instant::now() + CANARY_WAIT;
        let mut kinds = self.attached.canary_kinds.clone();
        // Only out of a cgroup of its own can one go and come back.
        if !matches!(
            &self.collector.kept.story.start.cgroup,
            Some(schema::CommandCgroup::Own { .. })
        ) {
            kinds.retain(|kind| *kind != Kind::CgroupMove);
        }
        let child = self.broker.canary(enroller);
        let (mut seen, mut ended) = (BTreeMap::new(), None);
        if let Ok(child) = &child {
            loop {
                self.collector.round()?;
                seen = canary::seen(&kinds, &before, &self.collector.fold.canary_events);
                ended = child.ended()?;
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
            (Ok(_), None) => Some("it did not end".into()),
            (Ok(_), Some(status)) if !status.success() => Some(format!("it ended with {status}")),
            (Ok(_), Some(_)) => None,
        };
        let missing: Vec<&str> =
            seen.iter().filter(|(_, seen)| !**seen).map(|(kind, _)| kind.as_str()).collect();
        if phase == CanaryPhase::Start {
            if !missing.is_empty() {
                return Err(RunError::SilentProbe(missing.join(", ")));
            }
            if let Some(failed) = failed {
                return Err(RunError::Canary(failed));
            }
        }
        self.canaries.push(Canary { phase, seen, failed });
        Ok(())
    }

    /// Drains until the command has ended and its descendants too, or the linger time is over.
    async fn follow(
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
            self.wait(&child, &mut ended).await?;
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
            self.collector.round()?;
            self.check();
            if !for_ever && self.collector.kept.story.alive.is_empty() {
                return Ok(());
            }
            if self.should_stop(on_error) {
                say_stopped("tracing ends, and what was joined goes on");
                return Ok(());
            }
            let over = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let batch = async {
                any_readable(&self.readiness).await?;
                sleep(BATCH).await;
                Ok::<_, io::Error>(())
            };
            tokio::select! {
                result = batch => result?,
                () = over => return Ok(()),
                () = sleep_until(self.next_check) => {}
                received = self.signals.next() => {
                    if received?.signal != libc::SIGCHLD {
                        return Ok(());
                    }
                    self.broker.check()?;
                }
            }
        }
    }

    /// Until there is something to do: events (a batch of them), a signal, or the end of lingering.
    async fn wait(
        &mut self,
        child: &Child,
        ended: &mut Option<(ExitStatus, Instant)>,
    ) -> io::Result<()> {
        let deadline = ended.map(|(_, deadline)| deadline);
        let end_of_linger = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let batch = async {
            any_readable(&self.readiness).await?;
            sleep(BATCH).await;
            Ok::<_, io::Error>(())
        };
        tokio::select! {
            result = batch => result?,
            () = end_of_linger => {}
            () = sleep_until(self.next_check) => {}
            received = self.signals.next() => {
                let received = received?;
                self.on_signal(received, child, ended)?;
            }
        }
        Ok(())
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
        eprintln!(
            "tracer: the command has ended; waiting up to {} s for what it left behind: {}",
            linger.as_secs(),
            names.join(", ")
        );
    }

    /// Looks, now and then, whether the probes are attached still.
    fn check(&mut self) {
        if Instant::now() >= self.next_check {
            self.next_check = Instant::now() + CHECK_EVERY;
            self.check_now();
        }
    }

    fn check_now(&mut self) {
        self.checks.made += 1;
        if let Err(why) = self.attached.check() {
            self.checks.failure.get_or_insert(why);
        }
    }

    /// Detaches, drains to the last record and takes the counters.
    pub(super) async fn end(
        &mut self,
        status: CommandStatus,
        witness: Witness,
    ) -> Result<End, RunError> {
        self.check_now();
        self.attached.detach();
        let counters = self.settle().await?;
        let collector = &mut self.collector;
        collector.settle()?;
        let t_ns = boottime_ns()?;
        collector.exchanges(t_ns, &counters.flows);
        Ok(End {
            t_ns,
            command_status: status,
            interrupted: self.interrupted,
            counters: counter_rows(&counters, collector),
            canary_events: named(&collector.fold.canary_events),
            faults: Fault::ALL
                .iter()
                .map(|fault| (fault.name().to_owned(), counters.fault(*fault)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            skipped_runs: named(&counters.skipped_runs),
            damaged_records: collector.drain.damaged
                + u64::try_from(collector.fold.unclaimed_argv()).unwrap_or(u64::MAX),
            witness,
            canaries: std::mem::take(&mut self.canaries),
            ledger: counters
                .ledger
                .iter()
                .map(|(file, execs)| LedgerRow {
                    file: FileId { device: Device(file.device), inode: file.inode },
                    execs: *execs,
                })
                .collect(),
            survivors: collector.kept.story.alive.iter().copied().collect(),
            files: Some(collector.watch.events()),
            credentials: Some(collector.watch.credentials.events()),
            maps: collector.maps_watched(),
            hosts: collector.kept.hosts(),
            checks: Some(std::mem::take(&mut self.checks)),
            verdict: None,
        })
    }

    /// Drains until everything the kernel submitted was read and the counters stand still, which
    /// a probe that ran during the detach can delay by microseconds.
    async fn settle(&mut self) -> Result<FinalCounters, RunError> {
        let deadline = Instant::now() + SETTLE_WAIT;
        let mut before = None;
        loop {
            self.collector.round()?;
            let counters = self.attached.counters()?;
            let drain = &self.collector.drain;
            let read = drain.read.values().sum::<u64>() + drain.damaged;
            let settled = read == counters.submitted() && before == Some(read);
            if settled || Instant::now() >= deadline {
                return Ok(counters);
            }
            before = Some(read);
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Judges and writes the last line.
    pub(super) fn finish(
        self,
        end: End,
        policies: &[policy::Policy],
        status: CommandStatus,
        launch_error: Option<LaunchError>,
    ) -> Finished {
        let mut collector = self.collector;
        collector.kept.story.add(Record::End(Box::new(end.clone())));
        let verdict = policy::judge(&collector.kept.story, policies);
        let end = Record::End(Box::new(End { verdict: verdict.clone(), ..end }));
        collector.kept.write(&end);
        collector.kept.flush();
        let delivery = collector.kept.deliver(verdict.as_ref());
        Finished {
            delivery,
            story: collector.kept.story,
            verdict,
            status,
            launch_error,
            write_error: collector.kept.write_error,
        }
    }
}

fn say_stopped(what: &str) {
    eprintln!(
        "tracer: the recording cannot be written any more, and --on-error=stop is given: {what}"
    );
}

fn wait_on(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: AsyncFd owns the descriptor until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
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

fn named(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn counter_rows(counters: &FinalCounters, collector: &Collector) -> Vec<CounterRow> {
    let mut rows = Vec::new();
    for (cpu, stats) in (0u32..).zip(&counters.stats) {
        for kind in Kind::ALL {
            let counted = &stats.kinds[*kind as usize];
            let read = collector.drain.read.get(&(cpu, *kind)).copied().unwrap_or(0);
            if counted.produced > 0 || read > 0 {
                rows.push(CounterRow {
                    cpu,
                    kind: kind.name().into(),
                    produced: counted.produced,
                    lost: counted.lost,
                    read,
                });
            }
        }
    }
    rows
}

fn command_status(status: ExitStatus) -> CommandStatus {
    let byte = |value: i32| u8::try_from(value).ok();
    match (status.code().and_then(byte), status.signal().and_then(byte)) {
        (Some(code), _) => CommandStatus::Exited(code),
        (None, Some(signal)) => CommandStatus::Killed(signal),
        (None, None) => CommandStatus::Running,
    }
}

fn clock_ns(clock: libc::clockid_t) -> io::Result<i64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec is writable.
    match unsafe { libc::clock_gettime(clock, &raw mut time) } {
        0 => Ok(time.tv_sec * 1_000_000_000 + time.tv_nsec),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `CLOCK_BOOTTIME` as the kernel side has it: in a time namespace, this process is told another one.
pub(super) fn boottime_ns() -> io::Result<u64> {
    static OFFSET_NS: OnceLock<i64> = OnceLock::new();
    let offset = OFFSET_NS.get_or_init(|| {
        // No such file: no such namespaces.
        let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        boottime_offset_ns(&text).unwrap_or(0)
    });
    clock_ns(libc::CLOCK_BOOTTIME).map(|told| told.saturating_sub(*offset).unsigned_abs())
}

/// Unix time minus that.
pub(super) fn wall_offset_ns() -> io::Result<i64> {
    Ok(clock_ns(libc::CLOCK_REALTIME)?.saturating_sub_unsigned(boottime_ns()?))
}

/// Of time_namespaces(7): a line is a clock, seconds and nanoseconds.
fn boottime_offset_ns(text: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix("boottime"))?;
    let mut numbers = line.split_whitespace().map(str::parse::<i64>);
    let (seconds, nanoseconds) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

fn plain(sensor: &sensors::PlainSensor, missing: Option<String>) -> SensorState {
    SensorState {
        sensor: sensor.name.into(),
        hook: sensor.hook.into(),
        cannot_see: sensor.cannot_see.into(),
        tax: String::new(),
        missing,
    }
}

fn start_record(
    settings: &Settings,
    attached: &Attached,
    known: Known,
    watch: &Watch,
    user: Option<&CallingUser>,
    cgroup: schema::CommandCgroup,
) -> io::Result<Start> {
    use std::os::unix::ffi::OsStrExt as _;
    // Whether mappings can be watched shows when the command is started, and stands in the last line.
    let watches_maps = settings.probes.hand_offs || settings.probes.http;
    let maps = watches_maps.then(|| plain(&sensors::MAPS, None));
    let others = [plain(&sensors::FILES, watch.refused())].into_iter().chain(maps);
    let FileWatch { marks, mut gaps } = watch.report();
    gaps.extend(known.gaps);
    let t_ns = boottime_ns()?;
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
    };
    Ok(Start {
        schema: SCHEMA,
        tracer: VERSION.into(),
        t_ns,
        wall_offset_ns: wall_offset_ns()?,
        host: Host {
            name: read("/proc/sys/kernel/hostname"),
            kernel: crate::probe::kernel_release(),
            machine: std::env::consts::ARCH.into(),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        },
        command: settings.command.iter().map(|word| Bytes::from(word.as_bytes())).collect(),
        cwd: std::env::current_dir().map(|cwd| Bytes::from(cwd.as_path())).unwrap_or_default(),
        // SAFETY: these cannot fail and have no precondition.
        uid: user.map_or_else(|| unsafe { libc::getuid() }, |user| user.uid),
        // SAFETY: as above.
        gid: user.map_or_else(|| unsafe { libc::getgid() }, |user| user.gid),
        armed_before_first_instruction: true,
        sensors: attached.sensors.iter().cloned().chain(others).collect(),
        policies: settings.policies.clone(),
        catalogue: Some(known.entries),
        endpoints: Some(settings.catalogue.endpoints.rules().clone()),
        inherited_sockets: inherited::sockets(|_| true),
        inherited_network_sockets: inherited::sockets(inherited::is_network),
        enforced: settings.probes.enforce,
        known_programs: known.copies,
        known_packages: known.packages,
        interpreters: known.interpreters,
        files: Some(FileWatch { marks, gaps }),
        cgroup: Some(cgroup),
        credentials: Some(watch.credentials.report()),
        mcp_servers: settings.catalogue.mcp_servers.clone(),
        part_bytes: settings.part_bytes,
        attached: None,
    })
}

#[cfg(test)]
mod tests {
    use super::boottime_offset_ns;

    #[test]
    fn offsets_of_time_namespaces() {
        let text = "monotonic           0         0\nboottime      -1000         7\n";
        assert_eq!(boottime_offset_ns(text), Some(-999_999_999_993));
        assert_eq!(boottime_offset_ns(""), None);
    }
}
