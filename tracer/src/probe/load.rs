//! Loading: maps and programs are in the kernel, which has checked them, and nothing is attached.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    panic::resume_unwind,
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{MapData, RingBuf},
    programs::{
        CgroupSkb, CgroupSock, CgroupSockAddr, FExit, Program, ProgramError, RawTracePoint,
        TracePoint, UProbe,
    },
};

use super::{
    btf::Offsets,
    enlist::{Enroller, Identifier},
    error::{LoadError, chain, load_error, refused},
    finder::Finder,
    guard,
    kernel::{is_real_time, refuses_function_probes},
    mappings,
    multi::Programs,
    options::Options,
    sensors::{Attach, Hook, Probe, SENSORS, Sensor, UNATTACHED, Wanted},
    tls,
};

/// The eBPF object that `cargo xtask build` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer-probes"));

/// Programs that the kernel takes longest to check.
const LONGEST_FIRST: [&str; 4] = ["exec", "packet_out", "packet_in", "fork"];

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
    pub(super) options: Options,
    /// Why programs were refused that a sensor may want.
    refusals: BTreeMap<&'static str, LoadError>,
    types: Types,
    pub(super) no_function_probes: bool,
    pub(super) real_time: bool,
    /// Or why there is none.
    pub(super) cgroup: Result<CgroupTarget, String>,
    /// For TLS libraries, where the kernel has links of several breakpoints.
    pub(super) together: Option<Programs>,
    /// Why there are none although calls are asked for.
    no_together: Option<String>,
}

/// The kernel's types, which are read when a program needs them.
struct Types {
    file: PathBuf,
    read: OnceLock<Result<Btf, String>>,
}

impl Types {
    /// Has the kernel check a program for where it is to be attached.
    fn load(
        &self,
        name: &'static str,
        program: &mut Program,
        attach: Attach,
    ) -> Result<(), LoadError> {
        fn of<'a, P>(program: &'a mut Program) -> Result<&'a mut P, ProgramError>
        where
            &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
        {
            program.try_into()
        }
        match attach {
            Attach::RawTracepoint(_) => of::<RawTracePoint>(program).and_then(|one| one.load()),
            Attach::SyscallTracepoint(_) => of::<TracePoint>(program).and_then(|one| one.load()),
            Attach::LibraryCall(_) | Attach::LibraryReturn(_) | Attach::Tls(_) => {
                of::<UProbe>(program).and_then(|one| one.load())
            }
            // Not aya's: see [`tls::load_together`].
            Attach::TlsTogether(_) => Ok(()),
            Attach::CgroupAddress(_) => of::<CgroupSockAddr>(program).and_then(|one| one.load()),
            Attach::CgroupPacket(_) => of::<CgroupSkb>(program).and_then(|one| one.load()),
            Attach::CgroupSocket(_) => of::<CgroupSock>(program).and_then(|one| one.load()),
            Attach::FunctionExit(function) => {
                let types = self.get()?;
                of::<FExit>(program).and_then(|one| one.load(function, types))
            }
        }
        .map_err(|error| refused(name, &error))
    }

    fn get(&self) -> Result<&Btf, LoadError> {
        let read = || {
            Btf::parse_file(&self.file, aya::Endianness::default()).map_err(|error| chain(&error))
        };
        self.read.get_or_init(read).as_ref().map_err(|error| LoadError::Object(error.clone()))
    }
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
        // aya reads the kernel's types for relocations, which rustc cannot emit, before it can be told
        // not to: at the same time, since it is several megabytes.
        let (offsets, mut loader) = thread::scope(|scope| {
            let offsets = scope.spawn(|| Offsets::of_kernel(&options.btf));
            let loader = EbpfLoader::new();
            (offsets.join().unwrap_or_else(|panic| resume_unwind(panic)), loader)
        });
        let offsets = offsets?;
        for (global, offset) in &offsets.0 {
            loader.override_global(global, offset, true);
        }
        let switches = switches(options, cgroup.as_ref().ok());
        for (global, value) in &switches {
            loader.override_global(global, value, true);
        }
        let cgroup_id = cgroup.as_ref().map_or(0, |cgroup| cgroup.id);
        loader.override_global("COMMAND_CGROUP", &cgroup_id, true);
        for (map, entries) in sizes(options) {
            loader.map_max_entries(map, entries);
        }
        for (map, entries) in &options.debug.map_entries {
            loader.map_max_entries(map, *entries);
        }
        loader.btf(None);
        let ebpf = loader.load(OBJECT).map_err(load_error)?;
        let mut loaded = Loaded {
            ebpf,
            options: options.clone(),
            refusals: BTreeMap::new(),
            types: Types { file: options.btf.clone(), read: OnceLock::new() },
            no_function_probes: refuses_function_probes(),
            real_time: is_real_time(),
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
        loaded.load_wanted()?;
        #[cfg(feature = "debug-log")]
        super::debug_log::start(&mut loaded.ebpf).map_err(LoadError::Object)?;
        Ok(loaded)
    }

    /// Has the kernel check what will be attached if it lets it, and what the collector runs by itself.
    fn load_wanted(&mut self) -> Result<(), LoadError> {
        let find = self.options.find.then_some("find");
        // All of them are programs of raw tracepoints.
        let unattached = UNATTACHED.iter().copied().chain(find);
        let by_itself: Vec<Probe> = unattached
            .map(|program| Probe { program, attach: Attach::RawTracepoint("") })
            .collect();
        let hooks: Vec<(&Sensor, &Hook)> = SENSORS
            .iter()
            .filter(|sensor| sensor.is_wanted(&self.options) && self.can_have(sensor).is_ok())
            .filter_map(|sensor| {
                let mut hooks = sensor.hooks.iter();
                Some((sensor, hooks.find(|hook| self.may_use(sensor, hook).is_ok())?))
            })
            .collect();
        let probes = hooks.iter().flat_map(|(_, hook)| hook.probes).chain(&by_itself);
        self.load_at_once(&probes.map(|probe| (probe.program, probe.attach)).collect());
        for (sensor, hook) in hooks {
            if sensor.wanted == Wanted::Always {
                self.load(hook.probes)?;
            }
        }
        self.load(&by_itself)
    }

    /// Several programs at a time: the kernel's verifier takes most of the time of a start.
    fn load_at_once(&mut self, wanted: &BTreeMap<&'static str, Attach>) {
        let Loaded { ebpf, types, refusals, .. } = self;
        let mut jobs: Vec<_> = ebpf
            .programs_mut()
            .filter_map(|(name, program)| {
                let (name, attach) = wanted.get_key_value(name)?;
                Some((*name, *attach, program))
            })
            .collect();
        // Else the longest one may come last, and the other threads wait for it.
        let place = |name| LONGEST_FIRST.iter().position(|long| *long == name);
        jobs.sort_by_key(|(name, ..)| place(*name).unwrap_or(LONGEST_FIRST.len()));
        let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
        let (jobs, refused) = (Mutex::new(jobs.into_iter()), Mutex::new(refusals));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let job = lock(&jobs).next();
                        let Some((name, attach, program)) = job else { break };
                        if let Err(error) = types.load(name, program, attach) {
                            lock(&refused).insert(name, error);
                        }
                    }
                });
            }
        });
    }

    /// Has the kernel check programs that it did not check yet.
    pub(super) fn load(&mut self, probes: &[Probe]) -> Result<(), LoadError> {
        for Probe { program: name, attach } in probes {
            if let Attach::TlsTogether(_) = attach {
                match &self.no_together {
                    None => continue,
                    Some(why) => {
                        return Err(LoadError::Refused { program: name, detail: why.clone() });
                    }
                }
            }
            if let Some(error) = self.refusals.remove(name) {
                return Err(error);
            }
            let program = self.ebpf.program_mut(name).ok_or_else(|| no_program(name))?;
            if program.fd().is_err() {
                self.types.load(name, program, *attach)?;
            }
        }
        Ok(())
    }

    pub(super) fn program<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, LoadError>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self.ebpf.program_mut(name).ok_or_else(|| no_program(name))?;
        program.try_into().map_err(|error| refused(name, &error))
    }

    /// A program that is loaded; none where the object does not have it.
    pub(super) fn program_fd(
        &self,
        name: &'static str,
    ) -> Result<Option<BorrowedFd<'_>>, LoadError> {
        if let Some(fd) = self.together.as_ref().and_then(|programs| programs.descriptor(name)) {
            return Ok(Some(fd));
        }
        let Some(program) = self.ebpf.program(name) else { return Ok(None) };
        program.fd().map(|fd| Some(fd.as_fd())).map_err(|error| refused(name, &error))
    }

    pub(super) fn raw(&mut self, name: &'static str) -> Result<&mut RawTracePoint, LoadError> {
        self.program(name)
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
        guard::freeze_one(&map).map_err(|error| LoadError::Object(error.to_string()))?;
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
        for only_read in [&answer, &births] {
            guard::freeze_one(only_read).map_err(|error| LoadError::Object(error.to_string()))?;
        }
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
}

/// What the programs are told, besides where the kernel has what they read.
fn switches(options: &Options, cgroup: Option<&CgroupTarget>) -> [(&'static str, u32); 13] {
    let debug = &options.debug;
    [
        ("FAIL_PROCESS_EVERY", debug.lose_process_every),
        ("FAIL_ARGV_EVERY", debug.lose_argv_every),
        ("FAIL_NET_EVERY", debug.lose_net_every),
        ("FAIL_ATTEMPT_EVERY", debug.lose_attempt_every),
        ("FAIL_NAMES_EVERY", debug.lose_names_every),
        ("FAIL_RESOLVER_EVERY", debug.lose_resolver_every),
        ("FAIL_TLS_EVERY", debug.lose_tls_every),
        ("ENFORCE", options.enforce.into()),
        ("WATCH_RESOLVER", options.resolver.into()),
        ("WATCH_TLS", options.http.into()),
        ("WATCH_SENDS", options.hand_offs.into()),
        ("FINDING", options.find.into()),
        ("FOLLOW_CGROUP", (options.follow_cgroup && cgroup.is_some()).into()),
    ]
}

/// How much maps hold, where that is not said in the object.
fn sizes(options: &Options) -> Vec<(&'static str, u32)> {
    // The smallest ring there is, where nothing will write to it.
    const NOTHING: u32 = 4096;
    // Threads that are in the resolver at the same time; they take 2.5 MB.
    const CALLS: u32 = 4096;
    // Threads that are in a TLS library at the same time, and sessions: 1 MB and 2 MB.
    const TLS_CALLS: u32 = 4096;
    const TLS_SESSIONS: u32 = 32_768;
    // Processes that have ended and are still held by a socket, a pidfd or their parent: 2 MB.
    const ENDED: u32 = 16_384;
    let rings = [
        ("PROCESS_RING", true),
        ("ARGV_RING", true),
        ("NET_RING", true),
        ("NAMES_RING", true),
        ("ATTEMPT_RING", options.attempts),
        ("RESOLVER_RING", options.resolver),
        ("TLS_RING", options.http),
    ];
    let ring_bytes = |is_used| if is_used { options.ring_bytes } else { Some(NOTHING) };
    let rings = rings.into_iter().filter_map(|(ring, is_used)| Some((ring, ring_bytes(is_used)?)));
    let when = |is_used, entries| if is_used { entries } else { 1 };
    let others = [
        ("CALLS", when(options.resolver, CALLS)),
        ("TLS_CALLS", when(options.http, TLS_CALLS)),
        ("TLS_SESSIONS", when(options.http, TLS_SESSIONS)),
        ("ENDED", when(options.hand_offs, ENDED)),
        ("TREE", tree_entries()),
        ("BIRTHS", when(options.find, tree_entries())),
    ];
    rings.chain(others).collect()
}

/// What a thread leaves that panics is whole, and its panic is passed on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_program(name: &str) -> LoadError {
    LoadError::Object(format!("the object has no program `{name}`"))
}

/// Room for every process that can exist at once, up to a limit that costs 12 MB.
fn tree_entries() -> u32 {
    const MAX: u32 = 131_072;
    std::fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .map_or(MAX, |pid_max| pid_max.min(MAX))
}
