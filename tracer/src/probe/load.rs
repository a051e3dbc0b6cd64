//! Loading: maps and programs are in the kernel, which has checked them, and nothing is attached.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    panic::resume_unwind,
    thread,
};

use aya::maps::{Map, MapData, MapError, RingBuf};

use super::{
    btf::{KernelTypes, Offsets},
    enlist::{Enroller, Identifier},
    error::LoadError,
    finder::Finder,
    guard,
    kernel::{is_real_time, refuses_function_probes},
    mappings,
    object::{Globals, Object},
    options::Options,
    sensors::{Attach, Hook, Probe, SENSORS, Sensor, UNATTACHED, Wanted},
    threads::at_once,
};

/// The eBPF object that `cargo xtask build` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer-probes"));

/// Programs that the kernel takes longest to check.
const LONGEST_FIRST: [&str; 4] = ["exec", "fork", "packet_out", "packet_in"];

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

impl Rings {
    const NAMES: [&str; 7] = [
        "PROCESS_RING",
        "ARGV_RING",
        "NET_RING",
        "ATTEMPT_RING",
        "NAMES_RING",
        "RESOLVER_RING",
        "TLS_RING",
    ];

    /// Maps them into memory.
    fn map(maps: [Result<Map, LoadError>; Rings::NAMES.len()]) -> Result<Rings, LoadError> {
        let mapped = |map: Result<Map, LoadError>| {
            RingBuf::try_from(map?).map_err(|error: MapError| LoadError::Object(error.to_string()))
        };
        let [process, argv, net, attempt, names, resolver, tls] = maps;
        let rings = Rings {
            process: mapped(process)?,
            argv: mapped(argv)?,
            net: mapped(net)?,
            attempt: mapped(attempt)?,
            names: mapped(names)?,
            resolver: mapped(resolver)?,
            tls: mapped(tls)?,
        };
        mappings::keep_from_children();
        Ok(rings)
    }
}

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rings").finish_non_exhaustive()
    }
}

/// Programs and maps are in the kernel, nothing is attached.
pub struct Loaded {
    pub(super) object: Object,
    programs: BTreeMap<&'static str, Program>,
    /// Until they are taken.
    rings: Option<Rings>,
    pub(super) options: Options,
    /// Why programs were refused that a sensor may want.
    refusals: BTreeMap<&'static str, LoadError>,
    /// Until everything is attached.
    pub(super) types: Option<KernelTypes>,
    pub(super) no_function_probes: bool,
    pub(super) real_time: bool,
    /// Or why there is none.
    pub(super) cgroup: Result<CgroupTarget, String>,
}

/// A program that the kernel has checked for where it is to be attached.
struct Program {
    way: &'static str,
    fd: OwnedFd,
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
        let types = KernelTypes::read(&options.btf)?;
        let mut object = Object::load(
            OBJECT,
            &globals(&types.offsets()?, options, cgroup.as_ref().ok()),
            &sizes(options),
        )?;
        let rings = Rings::NAMES.map(|name| object.take_map(name));
        let mut loaded = Loaded {
            object,
            programs: BTreeMap::new(),
            rings: None,
            options: options.clone(),
            refusals: BTreeMap::new(),
            types: Some(types),
            no_function_probes: refuses_function_probes(),
            real_time: is_real_time(),
            cgroup,
        };
        // Mapping the rings takes the kernel as long as checking some programs does.
        let rings = thread::scope(|scope| {
            let rings = scope.spawn(|| Rings::map(rings));
            let checked = loaded.load_wanted();
            let rings = rings.join().unwrap_or_else(|panic| resume_unwind(panic));
            checked.and(rings)
        });
        loaded.rings = Some(rings?);
        #[cfg(feature = "debug-log")]
        super::debug_log::start(&loaded).map_err(LoadError::Object)?;
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
        self.load_at_once(probes.map(|probe| (probe.program, probe.attach)).collect());
        for (sensor, hook) in hooks {
            if sensor.wanted == Wanted::Always {
                self.load(hook.probes)?;
            }
        }
        self.load(&by_itself)
    }

    /// Several programs at a time: the kernel's verifier takes most of the time of a start.
    fn load_at_once(&mut self, wanted: BTreeMap<&'static str, Attach>) {
        let mut jobs: Vec<(&str, Attach)> = wanted.into_iter().collect();
        // Else the longest one may come last, and the other threads wait for it.
        let place = |name| LONGEST_FIRST.iter().position(|long| *long == name);
        jobs.sort_by_key(|(name, _)| place(*name).unwrap_or(LONGEST_FIRST.len()));
        let checked = at_once(&jobs, |(name, attach)| self.check(name, *attach));
        for ((name, _), checked) in jobs.into_iter().zip(checked) {
            match checked {
                Ok(program) => drop(self.programs.insert(name, program)),
                Err(error) => drop(self.refusals.insert(name, error)),
            }
        }
    }

    /// Has the kernel check a program for where it is to be attached.
    fn check(&self, name: &'static str, attach: Attach) -> Result<Program, LoadError> {
        let mut number = None;
        if let Attach::FunctionExit(function) = attach {
            let types = self.types.as_ref().map(|types| types.function(function));
            number = types.transpose()?.flatten();
            if number.is_none() {
                return Err(LoadError::NoFunction { program: name, function });
            }
        }
        Ok(Program { way: attach.way(), fd: self.object.check(name, attach, number)? })
    }

    /// Has the kernel check programs that it did not check yet.
    pub(super) fn load(&mut self, probes: &[Probe]) -> Result<(), LoadError> {
        for Probe { program: name, attach } in probes {
            if let Some(error) = self.refusals.remove(name) {
                return Err(error);
            }
            // The same one may have been loaded to be attached in another way.
            if self.programs.get(name).is_none_or(|program| program.way != attach.way()) {
                let program = self.check(name, *attach)?;
                self.programs.insert(name, program);
            }
        }
        Ok(())
    }

    /// A program that is loaded.
    pub(super) fn program(&self, name: &'static str) -> Result<BorrowedFd<'_>, LoadError> {
        let program = self.programs.get(name);
        let not_loaded = || LoadError::Object(format!("the program `{name}` was not loaded"));
        program.map(|program| program.fd.as_fd()).ok_or_else(not_loaded)
    }

    /// The rings can be taken once.
    pub fn take_rings(&mut self) -> Result<Rings, LoadError> {
        self.rings.take().ok_or_else(|| LoadError::Object("the rings were taken already".into()))
    }

    /// What a process needs to enrol itself.
    pub fn enroller(&self) -> Result<Enroller, LoadError> {
        Ok(Enroller::new(self.descriptor("enrol")?))
    }

    /// What tells files apart as the kernel does. Can be taken once.
    pub fn take_identifier(&mut self) -> Result<Identifier, LoadError> {
        let program = self.descriptor("identify")?;
        let map = self.object.take_map("IDENTIFIED")?;
        guard::freeze_one(&map).map_err(|error| LoadError::Object(error.to_string()))?;
        Identifier::new(program, map).map_err(|error| LoadError::Object(error.to_string()))
    }

    /// What finds processes that run already, which the options must ask for. Can be taken once.
    pub fn take_finder(&mut self) -> Result<Finder, LoadError> {
        let program = self.descriptor("find")?;
        let mut map = |name: &str| self.object.take_map(name);
        let (answer, switches, births) = (map("FOUND")?, map("SWITCHES")?, map("BIRTHS")?);
        for only_read in [&answer, &births] {
            guard::freeze_one(only_read).map_err(|error| LoadError::Object(error.to_string()))?;
        }
        Finder::new(program, answer, switches, births)
            .map_err(|error| LoadError::Object(error.to_string()))
    }

    fn descriptor(&self, program: &'static str) -> Result<OwnedFd, LoadError> {
        self.program(program)?
            .try_clone_to_owned()
            .map_err(|error| LoadError::Object(error.to_string()))
    }
}

/// What the programs are told.
fn globals<'a>(
    offsets: &Offsets,
    options: &'a Options,
    cgroup: Option<&CgroupTarget>,
) -> Globals<'a> {
    let debug = &options.debug;
    let switches: [(&str, u32); 13] = [
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
    ];
    let numbers = offsets.0.iter().copied().chain(switches);
    let numbers = numbers.map(|(name, number)| (name, number.to_ne_bytes().to_vec()));
    let cgroup = cgroup.map_or(0, |cgroup| cgroup.id);
    numbers.chain([("COMMAND_CGROUP", cgroup.to_ne_bytes().to_vec())]).collect()
}

/// How much maps hold, where that is not said in the object.
fn sizes(options: &Options) -> HashMap<&str, u32> {
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
    let asked = options.debug.map_entries.iter().map(|(map, entries)| (&**map, *entries));
    rings.chain(others).chain(asked).collect()
}

/// Room for every process that can exist at once, up to a limit that costs 12 MB.
fn tree_entries() -> u32 {
    const MAX: u32 = 131_072;
    std::fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .map_or(MAX, |pid_max| pid_max.min(MAX))
}
