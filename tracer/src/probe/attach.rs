//! Attaching: each sensor in the best way that the kernel allows.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use tracer_ebpf::abi::Kind;

use super::{
    attached::{Attached, Breakpoints, Deputy},
    error::{LoadError, refused},
    guard,
    kernel::{kernel_release, kills_at_uretprobes, numbers},
    links::{self, Link},
    load::Loaded,
    options::{Library, Options},
    sensors::{Attach, Hook, Probe, SENSORS, Sensor, Wanted},
};
use crate::record::schema::SensorState;

impl Loaded {
    /// Attaches every sensor that is wanted, in the best way the kernel allows.
    pub fn attach(mut self) -> Result<Attached, LoadError> {
        let (mut links, mut states, mut programs) = (Vec::new(), Vec::new(), Vec::new());
        let mut tls_together = false;
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
                    tls_together |= hook.is_together();
                    states.push(state(sensor, Ok(hook), &self.options));
                }
                Err(error) if sensor.wanted == Wanted::Always => return Err(error),
                Err(error) => {
                    states.push(state(sensor, Err(error.to_string()), &self.options));
                }
            }
        }
        guard::freeze_maps(&self.object).map_err(|error| {
            LoadError::Object(format!("the maps could not be made read-only for others: {error}"))
        })?;
        self.types = None;
        Ok(Attached {
            loaded: self,
            links,
            programs,
            canary_kinds,
            sensors: states,
            tls_together,
            tls_files: 0,
            tls_links: BTreeMap::new(),
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
    fn attach_hook(&self, hook: &Hook) -> Result<Vec<Link>, LoadError> {
        let mut links = Vec::new();
        for Probe { program: name, attach } in hook.probes {
            if self.options.debug.silence.as_deref() == Some(*name) {
                continue;
            }
            let program = self.program(name)?;
            let link = match attach {
                Attach::RawTracepoint(place) => {
                    links::to_raw_tracepoint(program, place).map(Link::Bpf)
                }
                Attach::FunctionExit(_) => links::to_function(program).map(Link::Bpf),
                Attach::SyscallTracepoint(place) => {
                    links::to_tracepoint(program, "syscalls", place)
                }
                Attach::LibraryCall(_) | Attach::LibraryReturn(_) => {
                    let at_return = matches!(attach, Attach::LibraryReturn(_));
                    links.extend(self.attach_to_libraries(name, program, at_return)?);
                    continue;
                }
                // As their files are found: see [`Attached::watch_tls`].
                Attach::Tls(_) => continue,
                Attach::TlsTogether(_) => match links::has_several_breakpoints(program) {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                Attach::CgroupAddress(_) | Attach::CgroupPacket(_) | Attach::CgroupSocket(_) => {
                    let cgroup = self.cgroup.as_ref();
                    let cgroup = cgroup.map_err(|why| LoadError::NoCgroup(why.clone()))?;
                    let attach_type = self.object.cgroup_attach(name)?;
                    links::to_cgroup(program, cgroup.directory.as_fd(), attach_type).map(Link::Bpf)
                }
            };
            links.push(link.map_err(|error| refused(name, &error))?);
        }
        Ok(links)
    }

    /// Attaches to getaddrinfo, in every process that has one of the libraries.
    fn attach_to_libraries(
        &self,
        name: &'static str,
        program: BorrowedFd<'_>,
        at_return: bool,
    ) -> Result<Vec<Link>, LoadError> {
        let attach = |library: &Library| {
            let Library { path, file, getaddrinfo_bytes } = library;
            let places = Breakpoints {
                offsets: &[*getaddrinfo_bytes],
                cookie: 0,
                at_return,
                together: false,
            };
            let attached = links::to_breakpoints(program, file.as_fd(), &places);
            attached.map(Link::Breakpoints).map_err(|error| {
                let words = format!("{}: {error}", path.display());
                refused(name, &io::Error::new(error.kind(), words))
            })
        };
        self.options.libraries.iter().map(attach).collect()
    }

    /// Attaches a program to places in a file, in every process that has it mapped.
    pub(super) fn break_at(
        &self,
        name: &'static str,
        deputy: Option<&dyn Deputy>,
        file: &File,
        places: &Breakpoints<'_>,
    ) -> Result<Link, LoadError> {
        let program = self.program(name)?;
        let link = match deputy {
            Some(deputy) => deputy.break_at(program, file.as_fd(), places),
            None => links::to_breakpoints(program, file.as_fd(), places),
        };
        link.map(Link::Breakpoints).map_err(|error| refused(name, &error))
    }
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
