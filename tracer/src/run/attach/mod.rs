//! `tracer attach`: what runs already, joined.
//!
//! ```text
//! load ─► attach ─► canary ─► find who runs ─► drain … ─► canary ─► detach ─► drain ─► judge
//! ```
//!
//! The probes are attached first and the processes are found after that, so nobody slips through
//! between the two ([`search`]). What they did before is unknown, which the recording says.

mod found;
mod search;
mod target;
mod threads;

use std::{io, time::Duration};

use tracer_ebpf::abi::{Finding, Switch, found_state};

pub use target::{Target, TargetError};

use self::{
    found::Sockets,
    search::{Look, Searched},
    target::{Place, SharedCgroup},
};
use super::{
    Settings, capabilities,
    clock::boottime_ns,
    engine::{Finished, RunError, check_capabilities, on_event_loop, prepare},
    libraries::libraries_among,
    live::Session,
    sandbox,
    signals::Signals,
    tls::FoundCode,
    user::CallingUser,
};
use crate::{
    probe::{Finder, Loaded, PidFd},
    record::{
        Record,
        schema::{
            Attachment, CallGap, CanaryPhase, CommandCgroup, CommandStatus, ExecutedFile,
            FoundSocket, Snapshot, Witness,
        },
    },
};

/// What to join and for how long.
#[derive(Clone, Debug)]
pub struct Join {
    pub target: Target,
    /// Until the tree has ended or a signal comes, when there is none.
    pub duration: Option<Duration>,
    /// Claims are about the time from when the running processes have been found.
    pub from_arming: bool,
}

/// Why the kernel's counter of execs is not there.
const NO_WITNESS: &str = "a process that runs already inherits no counter of execs";
const TLS_SENSOR: &str = "tls";
/// There is no command.
const COMMANDS_CGROUP: &str = "the command's cgroup";
const JOINED_CGROUP: &str = "the cgroup that was joined";
/// What follows from that.
const LATER_LIBRARIES: &str = "libraries that a process maps after it was found, unless the system's \
                               folders have them; what was sent over a connection before tracer came";
/// Those that had been mapped are watched.
const OWN_LIBRARY: &str = "have a C library of their own, as in a container";
const LATER_LIBRARY: &str = "have a C library, as in a container, that is not the machine's and that nobody who \
                             was joined had mapped before";
/// Why mappings are not watched.
const NO_MAPS: &str = "a process that runs already inherits no watch of what it maps";

/// Traces what runs until it has ended, the time is over or a signal comes.
pub fn attach(settings: Settings, join: Join) -> Result<Finished, RunError> {
    on_event_loop(join_what_runs(settings, join))
}

async fn join_what_runs(mut settings: Settings, join: Join) -> Result<Finished, RunError> {
    check_capabilities(&settings, false, false, true)?;
    let broker = settings.broker.clone();
    let Place { to, members, cgroup, follow, for_ever, doubt } = join.target.find()?;
    settings.probes.find = true;
    settings.probes.follow_cgroup = follow;
    if settings.probes.resolver {
        settings.probes.libraries =
            libraries_among(members.now()?.into_iter().flat_map(found::mapped_files));
    }
    let signals = Signals::block()?;
    let cgroup = SharedCgroup::make(cgroup, &broker);
    if let Err(why) = &cgroup {
        crate::notice(capabilities::without_cgroup(why));
    }
    let programs_at = cgroup.as_ref().map_err(Clone::clone).and_then(SharedCgroup::target);
    let follows = follow && programs_at.is_ok();
    let mut loaded = Loaded::new(&settings.probes, programs_at)?;
    let enroll_canary = loaded.enroller()?;
    let enroll_last = loaded.enroller()?;
    let mut finder = loaded.take_finder()?;
    let reported = match &cgroup {
        Ok(cgroup) => cgroup.report(&members),
        Err(why) => CommandCgroup::Absent(why.clone()),
    };
    let user = CallingUser::from_environment().map_err(io::Error::other)?;
    let armed = || Ok(());
    let mut prepared = prepare(&mut settings, loaded, user.as_ref(), reported, armed, |start| {
        start.attached = Some(Attachment { to, from_arming: join.from_arming });
        start.armed_before_first_instruction = false;
        for sensor in &mut start.sensors {
            sensor.cannot_see = sensor.cannot_see.replace(COMMANDS_CGROUP, JOINED_CGROUP);
        }
        for sensor in &mut start.sensors {
            sensor.cannot_see = sensor.cannot_see.replace(OWN_LIBRARY, LATER_LIBRARY);
        }
        // They are tracer's.
        for sensor in start.sensors.iter_mut().filter(|sensor| sensor.sensor == TLS_SENSOR) {
            sensor.cannot_see = format!("{}; {LATER_LIBRARIES}", sensor.cannot_see);
        }
        start.inherited_sockets.clear();
        start.inherited_network_sockets.clear();
    })?;
    if settings.probes.hand_offs {
        prepared.collector.watch_maps(Err(NO_MAPS.into()));
    }
    let mut session = Session::new(prepared, signals, broker.clone())?;
    // From here on packets of others can be read; processes are to be looked at still.
    sandbox::confine(sandbox::TO_LOOK).map_err(RunError::Unconfined)?;
    session.canary(CanaryPhase::Start, broker.canary(&enroll_canary)).await?;

    finder.switch(Switch::FollowCgroup, follows)?;
    let mut searched = search::search(&mut finder, &members, boottime_ns)?;
    searched.doubts.extend(doubt.or_else(|| {
        (follow && !follows).then(|| "who joins the cgroup later is not followed".to_owned())
    }));
    let code = describe(&mut session, &mut finder, searched, settings.probes.http)?;
    session.confine()?;
    // Now: what is in those files was written by others.
    session.found_code(code)?;
    session.stay(join.duration, for_ever, settings.on_error).await?;
    // The last canary is no member.
    finder.switch(Switch::FollowCgroup, false)?;
    session.canary(CanaryPhase::End, broker.canary(&enroll_last)).await?;
    let status = CommandStatus::NoCommand;
    let end = session.end(status.clone(), Witness::Absent(NO_WITNESS.into())).await?;
    Ok(session.finish(end, &settings.policies, status, None))
}

/// Records who was found. Returns what they have mapped as code, if that is of interest.
fn describe(
    session: &mut Session,
    finder: &mut Finder,
    searched: Searched,
    reads_calls: bool,
) -> io::Result<Vec<FoundCode>> {
    let mut code = Vec::new();
    let Searched { enrolled, born, rounds, mut doubts } = searched;
    let mut sockets = Sockets::default();
    let processes = (enrolled.len() + born.len()) as u64;
    for look in enrolled.iter().chain(&born) {
        let t_ns = boottime_ns()?;
        let image = stable_image(session, finder, look, t_ns)?;
        let open = sockets.of(look, t_ns);
        // What has ended meanwhile is in the recording with its end, and nothing else of it is known.
        let Some(image) = image else { continue };
        if image.content.is_none() && is_alive(finder, look)? {
            doubts.push(format!("which file process {} executes could not be read", look.pid));
        }
        if reads_calls {
            code.extend(found::code(look, t_ns, image.exec.file.as_ref().map(ExecutedFile::id)));
        }
        let mut records = Vec::new();
        if let Some((version, path)) = image.content {
            session.collector.read_content(version, path);
        }
        records.push(Record::Exec(Box::new(image.exec)));
        match open {
            Ok(open) => {
                let gaps = open.iter().filter(|_| reads_calls).filter_map(FoundSocket::call_gap);
                let gaps: Vec<CallGap> = gaps.collect();
                records.extend(open.into_iter().map(Record::FoundSocket));
                records.extend(gaps.into_iter().map(Record::CallGap));
            }
            Err(why) if is_alive(finder, look)? => doubts.push(why),
            Err(_ended) => {}
        }
        session.collector.found.insert(look.key(), records);
    }
    session.collector.round()?;
    // Children that the fork probe reported have their parents' images.
    session.collector.found.clear();
    let snapshot = Snapshot { t_ns: boottime_ns()?, processes, rounds, doubts };
    session.collector.add(Record::Snapshot(snapshot));
    Ok(code)
}

fn is_alive(finder: &Finder, look: &Look) -> io::Result<bool> {
    let Some(process) = PidFd::open(look.pid)? else { return Ok(false) };
    let now = finder.find(&process, Finding::Look)?;
    Ok(now.start_ns == look.found.start_ns && now.state != found_state::ENDED)
}

/// The image that a process has had since it was enrolled; none when it has ended. One that it takes on
/// while it is being looked at is looked at again, for that exec may have been too early to be seen.
fn stable_image(
    session: &Session,
    finder: &Finder,
    look: &Look,
    t_ns: u64,
) -> io::Result<Option<found::Image>> {
    const TRIES: u32 = 10;
    let mut image = None;
    let mut number = look.found.exec_id;
    for _ in 0..TRIES {
        let Some(process) = PidFd::open(look.pid)? else { return Ok(None) };
        let seen = found::image(look, t_ns, session.collector.identifier());
        let now = finder.find(&process, Finding::Look)?;
        if now.start_ns != look.found.start_ns || now.state == found_state::ENDED {
            return Ok(None);
        }
        image = Some(seen);
        if now.exec_id == number {
            break;
        }
        number = now.exec_id;
    }
    Ok(image)
}
