//! Loading, attaching, detaching. Each step is a type: [`Loaded`] has maps and programs,
//! [`Attached`] has links too, and only detaching gives the final counters.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Btf, Ebpf, EbpfLoader, Pod,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, FExit,
        Program, ProgramError, RawTracePoint, TracePoint, UProbe,
        links::{FdLink, LinkError},
        uprobe::{UProbeAttachPoint, UProbeScope},
    },
};
use tracer_ebpf::abi::{
    Fault, FileKey, Flow, FlowTotals, KIND_COUNT, Kind, Stats, TLS_FILES_MAX, TlsKey, TlsPlaces,
    TlsSession, name_hash,
};

use super::{
    btf::{BTF_PATH, BtfError, Offsets},
    enlist::{Enroller, Identifier},
    finder::Finder,
    guard::{self, Watched},
    kernel::{kernel_release, kills_at_uretprobes, refuses_function_probes},
    mappings,
    multi::Programs,
    sensors::{Attach, Hook, Probe, SENSORS, Sensor, UNATTACHED, Wanted},
    tls, tracepoint,
};
use crate::{model::FileId, record::schema::SensorState};

/// The eBPF object that `cargo xtask build` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer-probes"));

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Btf(#[from] BtfError),
    #[error(
        "not permitted to load probes into the kernel: {0}. \
         tracer needs root, or the capabilities that `tracer doctor` lists; run it with sudo"
    )]
    NotPermitted(String),
    #[error(
        "the kernel refused the probe `{program}`: {detail}. \
         `tracer doctor` shows what this kernel allows; kernels from {minimum} on are supported",
        minimum = super::sensors::MINIMUM_KERNEL
    )]
    Refused { program: &'static str, detail: String },
    #[error("the command has no cgroup of its own: {0}")]
    NoCgroup(String),
    #[error("this kernel refuses programs on its functions")]
    NoFunctionProbes,
    #[error("there are more than {TLS_FILES_MAX} files with a TLS library")]
    TooManyFiles,
    #[error("no C library with getaddrinfo was found where they usually are")]
    NoLibrary,
    #[error(
        "this kernel ({0}) kills processes with a seccomp filter that come back from a watched \
         function, inside the tree and outside; 6.14 and 6.12.20 do not"
    )]
    KillsAtReturn(String),
    #[error(
        "the only way this kernel has for it costs processes that are not traced ({tax}); a policy that \
         counts attempts, or --attempts, allows that"
    )]
    Taxed { tax: &'static str },
    #[error("the probes could not be loaded: {0}. `tracer doctor` shows what this kernel allows")]
    Object(String),
}

/// What a test can ask for.
#[derive(Clone, Debug, Default)]
pub struct Debug {
    /// Lose every n-th record of a ring, by ring.
    pub lose_process_every: u32,
    pub lose_argv_every: u32,
    pub lose_net_every: u32,
    pub lose_attempt_every: u32,
    pub lose_names_every: u32,
    pub lose_resolver_every: u32,
    pub lose_tls_every: u32,
    /// Bytes of each ring of executable mappings; a power of two and a multiple of the page size.
    pub maps_bytes: Option<u32>,
    /// Attach everything but this program.
    pub silence: Option<String>,
    /// Entries of maps, by name.
    pub map_entries: Vec<(String, u32)>,
    /// Ways to attach ([`Attach::way`]) that are not to be used where there are others.
    pub forbid: Vec<String>,
}

/// A C library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    pub path: PathBuf,
    /// Where in the file getaddrinfo begins.
    pub getaddrinfo_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// The kernel's BTF.
    pub btf: PathBuf,
    /// Bytes of every ring, a power of two and a multiple of the page size, instead of what each has
    /// by itself.
    pub ring_bytes: Option<u32>,
    /// Watch failed execs, whatever that costs other processes.
    pub attempts: bool,
    /// Watch the C library's resolver, which costs other processes that call it.
    pub resolver: bool,
    /// Watch TLS libraries, which costs other processes that use them.
    pub http: bool,
    /// The C libraries there are.
    pub libraries: Vec<Library>,
    /// Watch what reaches processes outside the tree.
    pub hand_offs: bool,
    /// Kill what [`Attached::forbid`] names.
    pub enforce: bool,
    /// Processes that run already are to be found.
    pub find: bool,
    /// Whoever joins the cgroup joins the tree.
    pub follow_cgroup: bool,
    pub debug: Debug,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            btf: BTF_PATH.into(),
            ring_bytes: None,
            attempts: false,
            resolver: false,
            http: false,
            libraries: Vec::new(),
            hand_offs: false,
            enforce: false,
            find: false,
            follow_cgroup: false,
            debug: Debug::default(),
        }
    }
}

impl Options {
    /// Bytes of the ring of executable mappings that each CPU gets.
    pub fn maps_ring_bytes(&self) -> usize {
        if let Some(bytes) = self.debug.maps_bytes {
            return bytes as usize;
        }
        // About 20,000 mappings a CPU; less where there are many CPUs.
        const ALL_BYTES: usize = 32 * 1024 * 1024;
        const EACH_BYTES: std::ops::RangeInclusive<usize> = 256 * 1024..=4 * 1024 * 1024;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let each = (ALL_BYTES / cpus).clamp(*EACH_BYTES.start(), *EACH_BYTES.end());
        // Rounded down to a power of two, as the kernel wants it.
        1 << each.ilog2()
    }
}

/// Copies of plain data that the kernel side stores in maps.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Plain<T>(pub(super) T);

// SAFETY: both are repr(C) integers without padding (zerocopy's IntoBytes holds for them), for
// which any bytes are a value.
unsafe impl Pod for Plain<Stats> {}
// SAFETY: as above.
unsafe impl Pod for Plain<FileKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Flow> {}
// SAFETY: as above.
unsafe impl Pod for Plain<FlowTotals> {}
// SAFETY: as above.
unsafe impl Pod for Plain<TlsKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<TlsSession> {}
// SAFETY: as above.
unsafe impl Pod for Plain<TlsPlaces> {}

/// The command's cgroup, to which programs are attached.
#[derive(Debug)]
pub struct CgroupTarget {
    /// As the kernel has it.
    pub id: u64,
    /// Its directory.
    pub directory: OwnedFd,
}

/// The rings.
pub struct Rings {
    pub process: RingBuf<MapData>,
    pub argv: RingBuf<MapData>,
    pub net: RingBuf<MapData>,
    pub attempt: RingBuf<MapData>,
    pub names: RingBuf<MapData>,
    pub resolver: RingBuf<MapData>,
    pub tls: RingBuf<MapData>,
}

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rings").finish_non_exhaustive()
    }
}

/// Programs and maps are in the kernel, nothing is attached.
pub struct Loaded {
    pub(super) ebpf: Ebpf,
    options: Options,
    /// The kernel's types, once a program needs them.
    types: Option<Btf>,
    no_function_probes: bool,
    /// Or why there is none.
    cgroup: Result<CgroupTarget, String>,
    /// For TLS libraries, where the kernel has links of several breakpoints.
    pub(super) together: Option<Programs>,
    /// Why there are none although calls are asked for.
    no_together: Option<String>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

impl Loaded {
    pub fn new(
        options: &Options,
        cgroup: Result<CgroupTarget, String>,
    ) -> Result<Loaded, LoadError> {
        let offsets = Offsets::of_kernel(&options.btf)?;
        let mut loader = EbpfLoader::new();
        for (global, offset) in &offsets.0 {
            loader.override_global(global, offset, true);
        }
        let debug = &options.debug;
        for (global, every) in [
            ("FAIL_PROCESS_EVERY", &debug.lose_process_every),
            ("FAIL_ARGV_EVERY", &debug.lose_argv_every),
            ("FAIL_NET_EVERY", &debug.lose_net_every),
            ("FAIL_ATTEMPT_EVERY", &debug.lose_attempt_every),
            ("FAIL_NAMES_EVERY", &debug.lose_names_every),
            ("FAIL_RESOLVER_EVERY", &debug.lose_resolver_every),
            ("FAIL_TLS_EVERY", &debug.lose_tls_every),
        ] {
            loader.override_global(global, every, true);
        }
        let enforce = u32::from(options.enforce);
        loader.override_global("ENFORCE", &enforce, true);
        let resolver = u32::from(options.resolver);
        loader.override_global("WATCH_RESOLVER", &resolver, true);
        let http = u32::from(options.http);
        loader.override_global("WATCH_TLS", &http, true);
        let find = u32::from(options.find);
        loader.override_global("FINDING", &find, true);
        let follow = u32::from(options.follow_cgroup && cgroup.is_ok());
        loader.override_global("FOLLOW_CGROUP", &follow, true);
        let cgroup_id = cgroup.as_ref().map_or(0, |cgroup| cgroup.id);
        loader.override_global("COMMAND_CGROUP", &cgroup_id, true);
        // aya would read the kernel's types for relocations, which rustc cannot emit.
        loader.btf(None);
        // The smallest there is, where nothing will write to it.
        const NOTHING: u32 = 4096;
        for (ring, is_used) in [
            ("PROCESS_RING", true),
            ("ARGV_RING", true),
            ("NET_RING", true),
            ("NAMES_RING", true),
            ("ATTEMPT_RING", options.attempts),
            ("RESOLVER_RING", options.resolver),
            ("TLS_RING", options.http),
        ] {
            let bytes = if is_used { options.ring_bytes } else { Some(NOTHING) };
            if let Some(bytes) = bytes {
                loader.map_max_entries(ring, bytes);
            }
        }
        // Threads that are in the resolver at the same time; they take 2.5 MB.
        const CALLS: u32 = 4096;
        loader.map_max_entries("CALLS", if options.resolver { CALLS } else { 1 });
        // Threads that are in a TLS library at the same time, and sessions: 1 MB and 2 MB.
        const TLS_CALLS: u32 = 4096;
        const TLS_SESSIONS: u32 = 32_768;
        loader.map_max_entries("TLS_CALLS", if options.http { TLS_CALLS } else { 1 });
        loader.map_max_entries("TLS_SESSIONS", if options.http { TLS_SESSIONS } else { 1 });
        loader.map_max_entries("TREE", tree_entries());
        loader.map_max_entries("BIRTHS", if options.find { tree_entries() } else { 1 });
        for (map, entries) in &debug.map_entries {
            loader.map_max_entries(map, *entries);
        }
        let ebpf = loader.load(OBJECT).map_err(load_error)?;
        let mut loaded = Loaded {
            ebpf,
            options: options.clone(),
            types: None,
            no_function_probes: refuses_function_probes(),
            cgroup,
            together: None,
            no_together: None,
        };
        if options.http {
            // Now: the maps that it needs are taken later.
            match tls::load_together(OBJECT, &loaded.ebpf) {
                Ok(programs) => loaded.together = Some(programs),
                Err(why) => loaded.no_together = Some(why),
            }
        }
        let find = options.find.then_some("find");
        for program in UNATTACHED.iter().copied().chain(find) {
            loaded.raw(program)?.load().map_err(|error| refused(program, &error))?;
        }
        for hook in SENSORS.iter().filter(|sensor| sensor.wanted == Wanted::Always).flat_map(first)
        {
            loaded.load(hook)?;
        }
        #[cfg(feature = "debug-log")]
        super::debug_log::start(&mut loaded.ebpf).map_err(LoadError::Object)?;
        Ok(loaded)
    }

    fn program<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, LoadError>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or_else(|| LoadError::Object(format!("the object has no program `{name}`")))?;
        program.try_into().map_err(|error| refused(name, &error))
    }

    /// A program that is loaded; none where the object does not have it.
    fn program_fd(&self, name: &'static str) -> Result<Option<BorrowedFd<'_>>, LoadError> {
        if let Some(fd) = self.together.as_ref().and_then(|programs| programs.descriptor(name)) {
            return Ok(Some(fd));
        }
        let Some(program) = self.ebpf.program(name) else { return Ok(None) };
        program.fd().map(|fd| Some(fd.as_fd())).map_err(|error| refused(name, &error))
    }

    fn raw(&mut self, name: &'static str) -> Result<&mut RawTracePoint, LoadError> {
        self.program(name)
    }

    /// Has the kernel check the programs of a hook.
    fn load(&mut self, hook: &Hook) -> Result<(), LoadError> {
        for Probe { program, attach } in hook.probes {
            match attach {
                Attach::RawTracepoint(_) => self.raw(program)?.load(),
                Attach::SyscallTracepoint(_) => self.program::<TracePoint>(program)?.load(),
                Attach::LibraryCall(_) | Attach::LibraryReturn(_) | Attach::Tls(_) => {
                    self.program::<UProbe>(program)?.load()
                }
                // They are loaded together, or none is.
                Attach::TlsTogether(_) => match &self.no_together {
                    None => Ok(()),
                    Some(why) => {
                        return Err(LoadError::Refused { program, detail: why.clone() });
                    }
                },
                Attach::CgroupAddress(_) => self.program::<CgroupSockAddr>(program)?.load(),
                Attach::CgroupPacket(_) => self.program::<CgroupSkb>(program)?.load(),
                Attach::CgroupSocket(_) => self.program::<CgroupSock>(program)?.load(),
                Attach::FunctionExit(function) => {
                    let types = match self.types.take() {
                        Some(types) => types,
                        None => Btf::parse_file(&self.options.btf, aya::Endianness::default())
                            .map_err(|error| LoadError::Object(chain(&error)))?,
                    };
                    let loaded = self.program::<FExit>(program)?.load(function, &types);
                    self.types = Some(types);
                    loaded
                }
            }
            .map_err(|error| refused(program, &error))?;
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
                    Link::Event(
                        tracepoint::attach("syscalls", name, fd)
                            .map_err(|error| refused(program, &error))?,
                    )
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
        breaker: Option<&dyn Breaker>,
        file: &File,
        places: &Breakpoints<'_>,
    ) -> Result<Link, LoadError> {
        let program: &mut UProbe = self.program(name)?;
        if let Some(breaker) = breaker {
            let fd = program.fd().map_err(|error| refused(name, &error))?.as_fd();
            let link = breaker.break_at(fd, file.as_fd(), places);
            return link.map(Link::Event).map_err(|error| refused(name, &error));
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

    /// The rings can be taken once.
    pub fn take_rings(&mut self) -> Result<Rings, LoadError> {
        let mut ring = |name: &str| {
            let map = self
                .ebpf
                .take_map(name)
                .ok_or_else(|| LoadError::Object(format!("the object has no map `{name}`")))?;
            RingBuf::try_from(map).map_err(|error| LoadError::Object(error.to_string()))
        };
        let rings = Rings {
            process: ring("PROCESS_RING")?,
            argv: ring("ARGV_RING")?,
            net: ring("NET_RING")?,
            attempt: ring("ATTEMPT_RING")?,
            names: ring("NAMES_RING")?,
            resolver: ring("RESOLVER_RING")?,
            tls: ring("TLS_RING")?,
        };
        mappings::keep_from_children();
        Ok(rings)
    }

    /// What a process needs to enrol itself.
    pub fn enroller(&mut self) -> Result<Enroller, LoadError> {
        Ok(Enroller::new(self.descriptor("enrol")?))
    }

    /// What tells files apart as the kernel does. Can be taken once.
    pub fn take_identifier(&mut self) -> Result<Identifier, LoadError> {
        let program = self.descriptor("identify")?;
        let map = self
            .ebpf
            .take_map("IDENTIFIED")
            .ok_or_else(|| LoadError::Object("the object has no map `IDENTIFIED`".into()))?;
        Identifier::new(program, map).map_err(|error| LoadError::Object(error.to_string()))
    }

    /// What finds processes that run already, which the options must ask for. Can be taken once.
    pub fn take_finder(&mut self) -> Result<Finder, LoadError> {
        let program = self.descriptor("find")?;
        let mut map = |name: &str| {
            self.ebpf
                .take_map(name)
                .ok_or_else(|| LoadError::Object(format!("the object has no map `{name}`")))
        };
        let (answer, switches, births) = (map("FOUND")?, map("SWITCHES")?, map("BIRTHS")?);
        Finder::new(program, answer, switches, births)
            .map_err(|error| LoadError::Object(error.to_string()))
    }

    fn descriptor(&mut self, program: &'static str) -> Result<OwnedFd, LoadError> {
        self.raw(program)?
            .fd()
            .map_err(|error| refused(program, &error))?
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| LoadError::Object(error.to_string()))
    }

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
            breaker: None,
        })
    }

    fn attach_sensor(
        &mut self,
        sensor: &'static Sensor,
    ) -> Result<(&'static Hook, Vec<Link>), LoadError> {
        let mut refusal = LoadError::Object(format!("the sensor {} has no hook left", sensor.name));
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
        for hook in sensor.hooks {
            let way = |probe: &Probe| probe.attach.way();
            if hook
                .probes
                .iter()
                .any(|probe| self.options.debug.forbid.iter().any(|no| no == way(probe)))
            {
                continue;
            }
            let on_functions =
                hook.probes.iter().any(|probe| matches!(probe.attach, Attach::FunctionExit(_)));
            if on_functions && self.no_function_probes {
                refusal = LoadError::NoFunctionProbes;
                continue;
            }
            if !hook.tax.is_empty() && !sensor.may_tax(&self.options) {
                refusal = LoadError::Taxed { tax: hook.tax };
                continue;
            }
            let loaded = match sensor.wanted {
                Wanted::Always => Ok(()), // already
                Wanted::WithCgroup
                | Wanted::ForAttempts
                | Wanted::ForNames
                | Wanted::ForCalls
                | Wanted::ForHandOffs => self.load(hook),
            };
            match loaded.and_then(|()| self.attach_hook(hook)) {
                Ok(links) => return Ok((hook, links)),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

/// Opened once: asking the kernel for a link by its number needs CAP_SYS_ADMIN.
fn watch(links: &[Link]) -> Result<Vec<Watched>, String> {
    let watched = links.iter().filter_map(|link| match link {
        Link::Bpf(link) => Some(Watched::new(link)),
        // Nobody can take these away from who holds them.
        Link::Slow(_) | Link::Event(_) => None,
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

/// The way a sensor that is always attached is attached.
fn first(sensor: &'static Sensor) -> Option<&'static Hook> {
    sensor.hooks.first()
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

impl Link {
    fn of_cgroup(
        link: Result<FdLink, LinkError>,
        program: &'static str,
    ) -> Result<Link, LoadError> {
        link.map(Link::Bpf).map_err(|error| refused(program, &error))
    }
}

/// What keeps a program attached; closing its descriptor detaches.
#[derive(Debug)]
pub(super) enum Link {
    Bpf(FdLink),
    /// As slow to detach as a perf event.
    Slow(FdLink),
    /// A perf event, or a link of several breakpoints: slow to detach, too.
    Event(OwnedFd),
}

/// The probes fire.
#[derive(Debug)]
pub struct Attached {
    pub(super) loaded: Loaded,
    pub(super) links: Vec<Link>,
    /// Of the links that others can detach: those; or why they cannot be watched.
    watched: Result<Vec<Watched>, String>,
    /// Those that are attached.
    programs: Vec<&'static str>,
    /// What a canary makes the kernel report.
    pub canary_kinds: Vec<Kind>,
    pub sensors: Vec<SensorState>,
    /// Files whose TLS library is watched.
    pub(super) tls_files: u32,
    pub(super) breaker: Option<Arc<dyn Breaker>>,
}

/// Places in a file.
#[derive(Debug)]
pub struct Breakpoints<'a> {
    /// In the file.
    pub offsets: &'a [u64],
    /// What the program gets to know of them.
    pub cookie: u64,
    /// When the function that begins there returns.
    pub at_return: bool,
    /// As one link (`uprobe_multi`), for which the program was loaded. Otherwise there is one place.
    pub together: bool,
}

/// Who makes breakpoints for tracer when it may not do so itself any more.
pub trait Breaker: std::fmt::Debug + Send + Sync {
    /// Has a program run at places in a file, in every process that has it mapped, while what is returned is
    /// open.
    fn break_at(
        &self,
        program: BorrowedFd<'_>,
        file: BorrowedFd<'_>,
        places: &Breakpoints<'_>,
    ) -> io::Result<OwnedFd>;
}

/// Counters of the kernel side, final.
#[derive(Debug, Default)]
pub struct FinalCounters {
    /// By CPU.
    pub stats: Vec<Stats>,
    pub skipped_runs: BTreeMap<&'static str, u64>,
    pub ledger: Vec<(FileKey, u64)>,
    /// What sockets without connections exchanged.
    pub flows: Vec<(Flow, FlowTotals)>,
}

impl FinalCounters {
    pub fn produced(&self, kind: Kind) -> u64 {
        self.stats.iter().map(|cpu| cpu.kinds[kind as usize].produced).sum()
    }

    pub fn lost(&self, kind: Kind) -> u64 {
        self.stats.iter().map(|cpu| cpu.kinds[kind as usize].lost).sum()
    }

    pub fn fault(&self, fault: Fault) -> u64 {
        self.stats.iter().map(|cpu| cpu.faults[fault as usize]).sum()
    }

    /// Records that are or will be in the rings.
    pub fn submitted(&self) -> u64 {
        debug_assert_eq!(KIND_COUNT, Kind::ALL.len());
        Kind::ALL.iter().map(|kind| self.produced(*kind) - self.lost(*kind)).sum()
    }
}

impl Attached {
    /// Nothing fires any more afterwards, but for a probe that runs at this very moment.
    pub fn detach(&mut self) {
        self.watched = Ok(Vec::new());
        // The kernel waits out a grace period for each tracepoint and breakpoint; those of several
        // threads are one.
        std::thread::scope(|scope| {
            for link in self.links.drain(..) {
                match link {
                    Link::Bpf(link) => drop(link),
                    Link::Slow(link) => drop(scope.spawn(move || drop(link))),
                    Link::Event(event) => drop(scope.spawn(move || drop(event))),
                }
            }
        });
    }

    /// From now on breakpoints are made by somebody else.
    pub fn break_through(&mut self, breaker: Arc<dyn Breaker>) {
        self.breaker = Some(breaker);
    }

    /// Whether every probe is attached still, as far as the kernel tells.
    pub fn check(&self) -> Result<(), String> {
        let mut detached = 0;
        for link in self.watched.as_ref().map_err(Clone::clone)? {
            match link.is_detached() {
                Ok(None | Some(false)) => {}
                Ok(Some(true)) => detached += 1,
                Err(error) => {
                    return Err(format!("whether probes are attached could not be read: {error}"));
                }
            }
        }
        if detached > 0 {
            return Err(format!(
                "{detached} probes were detached by somebody else, and what they would have seen is not known"
            ));
        }
        Ok(())
    }

    /// Has execs of these files, and of files of these names, killed. The kernel must have been told
    /// to enforce when the programs were loaded.
    pub fn forbid(&mut self, files: &[FileId], names: &[String]) -> Result<(), LoadError> {
        const FORBIDDEN: u32 = 1;
        let object = |error: aya::maps::MapError| LoadError::Object(error.to_string());
        let mut map = |name: &str| {
            self.loaded
                .ebpf
                .take_map(name)
                .ok_or_else(|| LoadError::Object(format!("the object has no map `{name}`")))
        };
        let mut by_file =
            HashMap::<_, Plain<FileKey>, u32>::try_from(map("FORBIDDEN_FILES")?).map_err(object)?;
        for file in files {
            let key = FileKey { inode: file.inode, device: file.device.0, padding: 0 };
            by_file.insert(Plain(key), FORBIDDEN, 0).map_err(object)?;
        }
        let mut by_name =
            HashMap::<_, u64, u32>::try_from(map("FORBIDDEN_NAMES")?).map_err(object)?;
        for name in names {
            by_name.insert(name_hash(name.as_bytes()), FORBIDDEN, 0).map_err(object)?;
        }
        Ok(())
    }

    /// Has execs say which of these environment variables are set; each by its place in the list.
    pub fn look_for(&mut self, variables: &[String]) -> Result<(), LoadError> {
        let object = |error: aya::maps::MapError| LoadError::Object(error.to_string());
        let map = self
            .loaded
            .ebpf
            .take_map("VARIABLES")
            .ok_or_else(|| LoadError::Object("the object has no map `VARIABLES`".into()))?;
        let mut numbers = HashMap::<_, u64, u32>::try_from(map).map_err(object)?;
        for (number, name) in (0u32..).zip(variables) {
            numbers.insert(name_hash(name.as_bytes()), number, 0).map_err(object)?;
        }
        Ok(())
    }

    /// Instructions the verifier walked, by program that is attached or run on demand.
    pub fn verified_instructions(&mut self) -> Result<BTreeMap<&'static str, u32>, LoadError> {
        let programs = self.programs.iter().chain(UNATTACHED);
        programs
            .map(|name| {
                let fd = self.loaded.program_fd(name)?;
                let count = fd.and_then(|fd| about_program(fd, "verified_insns:"));
                Ok((*name, count.and_then(|count| count.try_into().ok()).unwrap_or(0)))
            })
            .collect()
    }

    /// Reads the counters. They are final once detached and no probe runs.
    pub fn counters(&mut self) -> Result<FinalCounters, LoadError> {
        let object = |error: aya::maps::MapError| LoadError::Object(error.to_string());
        let ebpf = &mut self.loaded.ebpf;
        let no_map = || LoadError::Object("the object lacks a map".into());
        let stats = PerCpuArray::<_, Plain<Stats>>::try_from(ebpf.map("STATS").ok_or_else(no_map)?)
            .and_then(|stats| stats.get(&0, 0))
            .map_err(object)?;
        let ledger =
            HashMap::<_, Plain<FileKey>, u64>::try_from(ebpf.map("LEDGER").ok_or_else(no_map)?)
                .map_err(object)?
                .iter()
                .map(|row| row.map(|(Plain(file), count)| (file, count)))
                .collect::<Result<_, _>>()
                .map_err(object)?;
        let mut flows = HashMap::<_, Plain<Flow>, Plain<FlowTotals>>::try_from(
            ebpf.map("FLOWS").ok_or_else(no_map)?,
        )
        .map_err(object)?
        .iter()
        .map(|row| row.map(|(Plain(flow), Plain(totals))| (flow, totals)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(object)?;
        flows.sort_unstable_by_key(|(flow, _)| *flow);
        let mut skipped_runs = BTreeMap::new();
        for name in &self.programs {
            let Some(fd) = self.loaded.program_fd(name)? else { continue };
            // How often the kernel skipped it because it was already running on that CPU (5.12+).
            let misses = about_program(fd, "recursion_misses:");
            skipped_runs.insert(*name, misses.unwrap_or(0));
        }
        Ok(FinalCounters {
            stats: stats.iter().map(|Plain(cpu)| *cpu).collect(),
            skipped_runs,
            ledger,
            flows,
        })
    }
}

/// Room for every process that can exist at once, up to a limit that costs 12 MB.
fn tree_entries() -> u32 {
    const MAX: u32 = 131_072;
    std::fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .map_or(MAX, |pid_max| pid_max.min(MAX))
}

/// A number that the kernel tells of a program.
fn about_program(program: BorrowedFd<'_>, name: &str) -> Option<u64> {
    let info =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
    let (_, rest) = info.split_once(name)?;
    rest.split_whitespace().next()?.parse().ok()
}

fn refused(program: &'static str, error: &(dyn std::error::Error + 'static)) -> LoadError {
    match permission(error) {
        Some(detail) => LoadError::NotPermitted(detail),
        None => LoadError::Refused { program, detail: chain(error) },
    }
}

fn load_error(error: aya::EbpfError) -> LoadError {
    match permission(&error) {
        Some(detail) => LoadError::NotPermitted(detail),
        None => LoadError::Object(chain(&error)),
    }
}

/// The error's own words when it is a missing privilege. EACCES is not: the verifier uses it.
fn permission(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.raw_os_error() == Some(libc::EPERM)
        {
            return Some(io.to_string());
        }
        cause = error.source();
    }
    None
}

/// An error and its causes. Of a verifier log, the end: that is where the reason stands.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let detail = error.to_string();
        if !text.contains(&detail) {
            text = format!("{text}: {detail}");
        }
        cause = error.source();
    }
    const LINES_MAX: usize = 12;
    let lines: Vec<&str> = text.lines().collect();
    match lines.len().checked_sub(LINES_MAX) {
        Some(skipped) if skipped > 1 => {
            format!("{}\n  [{} lines]\n{}", lines[0], skipped - 1, lines[skipped..].join("\n"))
        }
        _ => text,
    }
}
