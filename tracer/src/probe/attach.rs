//! Attaching: each sensor in the best way that the kernel allows.

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, FExit,
    ProgramError, TracePoint, UProbe,
    links::{FdLink, LinkError},
    uprobe::{UProbeAttachPoint, UProbeScope},
};
use tracer_ebpf::abi::Kind;

use super::{
    attached::{Attached, Breakpoints, Deputy},
    error::{LoadError, chain, refused},
    guard::{self, Watched},
    kernel::{kernel_release, kills_at_uretprobes, numbers},
    load::Loaded,
    options::{Library, Options},
    sensors::{Attach, Hook, Probe, SENSORS, Sensor, Wanted},
    tracepoint,
};
use crate::record::schema::SensorState;

/// What keeps a program attached; closing its descriptor detaches.
#[derive(Debug)]
pub(super) enum Link {
    Bpf(FdLink),
    /// As slow to detach as a perf event.
    Slow(FdLink),
    /// Breakpoints that somebody else made, or several in one: slow to detach, too.
    Breakpoints(OwnedFd),
    /// Closing the link detaches the program; closing the event, slow to close, only frees it.
    Tracepoint {
        link: OwnedFd,
        event: OwnedFd,
    },
}

impl Link {
    fn of_cgroup(
        link: Result<FdLink, LinkError>,
        program: &'static str,
    ) -> Result<Link, LoadError> {
        link.map(Link::Bpf).map_err(|error| refused(program, &error))
    }
}

impl Loaded {
    /// Attaches every sensor that is wanted, in the best way the kernel allows.
    pub fn attach(mut self) -> Result<Attached, LoadError> {
        let (mut links, mut states, mut programs) = (Vec::new(), Vec::new(), Vec::new());
        let mut canary_kinds = vec![Kind::Root];
        for sensor in SENSORS {
            if !sensor.is_wanted(&self.options) {
                continue;
            }
            match self.attach_sensor(sensor) {
                Ok((hook, attached)) => {
                    links.extend(attached);
                    canary_kinds.extend(sensor.canary);
                    programs.extend(hook.probes.iter().map(|probe| probe.program));
                    states.push(state(sensor, Ok(hook), &self.options));
                }
                Err(error) if sensor.wanted == Wanted::Always => return Err(error),
                Err(error) => {
                    states.push(state(sensor, Err(error.to_string()), &self.options));
                }
            }
        }
        guard::freeze_maps(&self.ebpf).map_err(|error| {
            LoadError::Object(format!("the maps could not be made read-only for others: {error}"))
        })?;
        let ways = |name: &str| states.iter().any(|state| state.hook.starts_with(name));
        if !ways("uprobe_multi") {
            self.together = None;
        }
        let tls_files = 0;
        let watched = watch(&links);
        Ok(Attached {
            loaded: self,
            links,
            watched,
            programs,
            canary_kinds,
            sensors: states,
            tls_files,
            deputy: None,
        })
    }

    fn attach_sensor(
        &mut self,
        sensor: &'static Sensor,
    ) -> Result<(&'static Hook, Vec<Link>), LoadError> {
        self.can_have(sensor)?;
        let mut refusal = LoadError::Object(format!("the sensor {} has no hook left", sensor.name));
        for hook in sensor.hooks {
            let attached = self
                .may_use(sensor, hook)
                .and_then(|()| self.load(hook.probes))
                .and_then(|()| self.attach_hook(hook));
            match attached {
                Ok(links) => return Ok((hook, links)),
                Err(error) => refusal = refusal.and_then(error),
            }
        }
        Err(refusal)
    }

    /// Whether there is what the sensor watches, and nothing speaks against all its hooks.
    pub(super) fn can_have(&self, sensor: &Sensor) -> Result<(), LoadError> {
        if sensor.wanted == Wanted::WithCgroup
            && let Err(why) = &self.cgroup
        {
            return Err(LoadError::NoCgroup(why.clone()));
        }
        if sensor.wanted == Wanted::ForNames && self.options.libraries.is_empty() {
            return Err(LoadError::NoLibrary);
        }
        if matches!(sensor.wanted, Wanted::ForNames | Wanted::ForCalls) {
            let release = kernel_release();
            if kills_at_uretprobes(&release) {
                return Err(LoadError::KillsAtReturn(release));
            }
        }
        Ok(())
    }

    /// Whether a hook is not out of the question from the start.
    pub(super) fn may_use(&self, sensor: &Sensor, hook: &Hook) -> Result<(), LoadError> {
        let forbidden = &self.options.debug.forbid;
        if let Some(way) = hook.names().find(|name| forbidden.iter().any(|no| no == name)) {
            return Err(LoadError::Forbidden { way });
        }
        if numbers(&kernel_release()) < numbers(hook.since) {
            return Err(LoadError::Since(hook.since));
        }
        let on_functions =
            hook.probes.iter().any(|probe| matches!(probe.attach, Attach::FunctionExit(_)));
        if on_functions && self.no_function_probes {
            return Err(LoadError::NoFunctionProbes);
        }
        if !hook.tax.is_empty() && !sensor.may_tax(&self.options) {
            return Err(LoadError::Taxed { tax: hook.tax });
        }
        Ok(())
    }

    /// Attaches the programs of a hook, all or none.
    fn attach_hook(&mut self, hook: &Hook) -> Result<Vec<Link>, LoadError> {
        const MODE: CgroupAttachMode = CgroupAttachMode::Single; // links are many all the same
        let mut links = Vec::new();
        for Probe { program, attach } in hook.probes {
            if self.options.debug.silence.as_deref() == Some(*program) {
                continue;
            }
            let error = |error: ProgramError| refused(program, &error);
            links.push(match attach {
                Attach::RawTracepoint(tracepoint) => {
                    let program = self.raw(program)?;
                    let id = program.attach(tracepoint).map_err(error)?;
                    Link::Bpf(program.take_link(id).map_err(error)?.into())
                }
                Attach::FunctionExit(_) => {
                    let program = self.program::<FExit>(program)?;
                    let id = program.attach().map_err(error)?;
                    Link::Bpf(program.take_link(id).map_err(error)?.into())
                }
                Attach::SyscallTracepoint(name) => {
                    let fd = self.program::<TracePoint>(program)?.fd().map_err(error)?.as_fd();
                    tracepoint::attach("syscalls", name, fd)
                        .map_err(|error| refused(program, &error))?
                }
                Attach::LibraryCall(_) | Attach::LibraryReturn(_) => {
                    links.extend(self.attach_to_libraries(program)?);
                    continue;
                }
                // As their files are found: see [`Attached::watch_tls`].
                Attach::Tls(_) | Attach::TlsTogether(_) => continue,
                Attach::CgroupAddress(_) => {
                    let cgroup = self.cgroup_directory()?;
                    let attached = self.program::<CgroupSockAddr>(program)?;
                    let id = attached.attach(&cgroup, MODE).map_err(error)?;
                    Link::of_cgroup(attached.take_link(id).map_err(error)?.try_into(), program)?
                }
                Attach::CgroupPacket(direction) => {
                    let direction = match *direction {
                        "ingress" => CgroupSkbAttachType::Ingress,
                        _ => CgroupSkbAttachType::Egress,
                    };
                    let cgroup = self.cgroup_directory()?;
                    let attached = self.program::<CgroupSkb>(program)?;
                    let id = attached.attach(&cgroup, direction, MODE).map_err(error)?;
                    Link::of_cgroup(attached.take_link(id).map_err(error)?.try_into(), program)?
                }
                Attach::CgroupSocket(_) => {
                    let cgroup = self.cgroup_directory()?;
                    let attached = self.program::<CgroupSock>(program)?;
                    let id = attached.attach(&cgroup, MODE).map_err(error)?;
                    Link::of_cgroup(attached.take_link(id).map_err(error)?.try_into(), program)?
                }
            });
        }
        Ok(links)
    }

    /// Attaches to getaddrinfo, in every process that has one of the libraries.
    fn attach_to_libraries(&mut self, name: &'static str) -> Result<Vec<Link>, LoadError> {
        let libraries = self.options.libraries.clone();
        let program = self.program::<UProbe>(name)?;
        let attach = |library: &Library| {
            let Library { path, getaddrinfo_bytes } = library;
            break_at(program, name, (*getaddrinfo_bytes).into(), path)
        };
        libraries.iter().map(attach).collect()
    }

    /// Attaches a program to a place in a file, in every process that has it mapped.
    pub(super) fn break_at(
        &mut self,
        name: &'static str,
        deputy: Option<&dyn Deputy>,
        file: &File,
        places: &Breakpoints<'_>,
    ) -> Result<Link, LoadError> {
        let program: &mut UProbe = self.program(name)?;
        if let Some(deputy) = deputy {
            let fd = program.fd().map_err(|error| refused(name, &error))?.as_fd();
            let link = deputy.break_at(fd, file.as_fd(), places);
            return link.map(Link::Breakpoints).map_err(|error| refused(name, &error));
        }
        let at = places.offsets.first().copied().unwrap_or_default();
        let point = UProbeAttachPoint { location: at.into(), cookie: Some(places.cookie) };
        // The file itself, whatever becomes of its name.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        break_at(program, name, point, Path::new(&path))
    }

    fn cgroup_directory(&self) -> Result<OwnedFd, LoadError> {
        let cgroup = self.cgroup.as_ref().map_err(|why| LoadError::NoCgroup(why.clone()))?;
        cgroup.directory.try_clone().map_err(|error| LoadError::NoCgroup(error.to_string()))
    }
}

/// Opened once: asking the kernel for a link by its number needs CAP_SYS_ADMIN.
fn watch(links: &[Link]) -> Result<Vec<Watched>, String> {
    let watched = links.iter().filter_map(|link| match link {
        Link::Bpf(link) => Some(Watched::new(link)),
        // Nobody can take these away from who holds them.
        Link::Slow(_) | Link::Breakpoints(_) | Link::Tracepoint { .. } => None,
    });
    watched
        .collect::<Result<_, _>>()
        .map_err(|error| format!("whether probes are attached cannot be looked up: {error}"))
}

fn break_at(
    program: &mut UProbe,
    name: &'static str,
    point: UProbeAttachPoint<'_>,
    path: &Path,
) -> Result<Link, LoadError> {
    let id = program.attach(point, path, UProbeScope::AllProcesses);
    let link = id.and_then(|id| program.take_link(id)).map_err(|error| {
        let detail = format!("{}: {}", path.display(), chain(&error));
        LoadError::Refused { program: name, detail }
    })?;
    let link = FdLink::try_from(link).map_err(|error| refused(name, &error))?;
    Ok(Link::Slow(link))
}

fn state(sensor: &Sensor, attached: Result<&Hook, String>, options: &Options) -> SensorState {
    let place = if sensor.wanted == Wanted::ForNames {
        let paths = options.libraries.iter().map(|library| library.path.display().to_string());
        format!(" in {}", paths.collect::<Vec<_>>().join(", "))
    } else {
        String::new()
    };
    match attached {
        Ok(hook) => SensorState {
            sensor: sensor.name.into(),
            hook: hook.describe() + &place,
            cannot_see: hook.cannot_see.into(),
            tax: hook.tax.into(),
            missing: None,
        },
        Err(why) => SensorState {
            sensor: sensor.name.into(),
            hook: "none".into(),
            cannot_see: sensor.purpose.into(),
            tax: String::new(),
            missing: Some(why),
        },
    }
}
