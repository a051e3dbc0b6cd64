//! The course of a run.

use std::{io, path::PathBuf};

use super::{
    Settings,
    attach::TargetError,
    capabilities::{self, Feature, Powerless},
    cgroup::{self, CommandCgroup},
    collector::Collector,
    first::start_record,
    kept::Kept,
    known::Known,
    launch::LaunchError,
    libraries::libraries,
    live::Session,
    machine::LiveMachine,
    signals::Signals,
    tls::Tls,
    user::CallingUser,
    watch::Watch,
};
use crate::{
    otlp::Delivery,
    policy::{self, Verdict},
    probe::{Attached, LoadError, Loaded, TlsSessions},
    record::{
        Writer,
        schema::{self, CanaryPhase, CommandStatus, Start, Witness},
    },
    session::Story,
};

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(
        "the canary at the start was not seen by the probe of: {0}. It is attached and does not fire, or its record was lost, so nothing could be proven; nothing was started"
    )]
    SilentProbe(String),
    #[error("the canary at the start failed: {0}; nothing was started")]
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
pub fn run(settings: Settings) -> Result<Finished, RunError> {
    on_event_loop(run_command(settings))
}

/// Of this thread: there is no other one when it begins.
pub(super) fn on_event_loop<T>(
    work: impl Future<Output = Result<T, RunError>>,
) -> Result<T, RunError> {
    allow_files();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// As many open files as are allowed to be asked for. The broker starts the command, with the limit it had.
fn allow_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If not, there is one message more to read.
    let _ = setrlimit(Resource::Nofile, limit);
}

async fn run_command(mut settings: Settings) -> Result<Finished, RunError> {
    let broker = settings.broker.clone();
    let user = CallingUser::from_environment().map_err(io::Error::other)?;
    check_capabilities(&settings, true, user.is_some(), user.is_some())?;
    let signals = Signals::block()?;
    let cgroup = broker.make_cgroup(None).and_then(CommandCgroup::made);
    if let Err(why) = &cgroup {
        crate::notice(capabilities::without_cgroup(why));
    }
    if settings.probes.resolver {
        settings.probes.libraries = libraries(&settings.command);
    }
    let loaded = Loaded::new(&settings.probes, cgroup::target(&cgroup))?;
    let enroll_canary = loaded.enroller()?;
    let enroll_command = loaded.enroller()?;
    let enroll_last = loaded.enroller()?;
    let reported = cgroup::report(&cgroup);
    // A canary waits for locks of the kernel's most of the time, and there is enough to do meanwhile.
    let armed = || broker.begin_canary(&enroll_canary);
    let prepared = prepare(&mut settings, loaded, user.as_ref(), reported, armed, |_| {})?;
    let mut session = Session::new(prepared, signals, broker.clone())?;

    session.canary(CanaryPhase::Start, broker.begun_canary()).await?;
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
    session.canary(CanaryPhase::End, broker.canary(&enroll_last)).await?;
    let end = session.end(status.clone(), witness).await?;
    Ok(session.finish(end, &settings.policies, status, launch_error))
}

/// Whether tracer may do what the run needs; says what it will not see otherwise.
pub(super) fn check_capabilities(
    settings: &Settings,
    has_command: bool,
    has_caller: bool,
    has_others: bool,
) -> Result<(), Powerless> {
    let asked = |feature| match feature {
        Feature::Always => true,
        Feature::Verdict => !settings.policies.is_empty(),
        Feature::Mappings => has_command && !settings.policies.is_empty(),
        Feature::Names => settings.probes.resolver,
        Feature::Attempts => settings.probes.attempts,
        Feature::Calls => settings.probes.http,
        Feature::Caller => has_caller,
        Feature::Others => has_others,
        // Whether it is one shows when the cgroup is made, and what follows is said then.
        Feature::ForeignCgroup => false,
    };
    for sentence in capabilities::check(capabilities::held(), asked)? {
        crate::notice(sentence);
    }
    Ok(())
}

/// What is there before anything is traced.
pub(super) struct Prepared {
    pub(super) collector: Collector,
    pub(super) attached: Attached,
    /// What the kernel side knows, if TLS is read.
    pub(super) tls_sessions: Option<TlsSessions>,
}

/// Attaches the probes, when `armed` is called, and makes the first line of the recording, about which `change` has
/// the last word.
pub(super) fn prepare(
    settings: &mut Settings,
    mut loaded: Loaded,
    user: Option<&CallingUser>,
    cgroup: schema::CommandCgroup,
    armed: impl FnOnce() -> io::Result<()>,
    change: impl FnOnce(&mut Start),
) -> Result<Prepared, RunError> {
    let rings = loaded.take_rings()?;
    let identifier = loaded.take_identifier()?;
    let mut attached = loaded.attach()?;
    armed()?;
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
    // Without any, nobody can add one later either.
    let (files, names) =
        if settings.probes.enforce { policy::rules(&start) } else { Default::default() };
    attached.forbid(&files, &names)?;
    let variables = settings.catalogue.credential_variables();
    attached.look_for(&variables)?;
    let writer = settings.output.take().map(Writer::new);
    let kept = Kept::new(
        start.clone(),
        settings.summary,
        settings.catalogue.clone(),
        writer,
        settings.sender.take(),
    );
    let mut collector = Collector::new(rings, machine, watch, start, kept);
    collector.fold.variables = variables;
    if settings.probes.http {
        collector.fold.read_calls(settings.http_fields);
    }
    Ok(Prepared { collector, attached, tls_sessions })
}
