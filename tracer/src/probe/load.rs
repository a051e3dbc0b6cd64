//! Loading, attaching, detaching. Each step is a type: [`Loaded`] has maps and programs,
//! [`Attached`] has links too, and only detaching gives the final counters.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::{RawTracePoint, links::FdLink, raw_trace_point::RawTracePointLink},
};
use tracer_ebpf::abi::{Fault, FileKey, KIND_COUNT, Kind, Stats};

use super::{
    btf::{BTF_PATH, BtfError, Offsets},
    enlist::{Enroller, Identifier},
    sensors::{Attach, Hook, SENSORS, UNATTACHED},
};
use crate::record::schema::SensorState;

/// The eBPF object that `cargo xtask build` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer-probes"));

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Btf(#[from] BtfError),
    #[error(
        "not permitted to load probes into the kernel: {0}. \
         tracer needs root (or the capabilities CAP_BPF, CAP_PERFMON and CAP_SYS_RESOURCE); run it with sudo"
    )]
    NotPermitted(String),
    #[error(
        "the kernel refused the probe `{program}`: {detail}. \
         `tracer doctor` shows what this kernel allows; kernels from {minimum} on are supported",
        minimum = super::sensors::MINIMUM_KERNEL
    )]
    Refused { program: &'static str, detail: String },
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
    /// Attach everything but this program.
    pub silence: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// The kernel's BTF.
    pub btf: PathBuf,
    /// Bytes of each ring; a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    pub debug: Debug,
}

impl Default for Options {
    fn default() -> Self {
        // 2.5 s of two saturated cores make about 17 MB of process records.
        const RING_BYTES: u32 = 16 * 1024 * 1024;
        Options { btf: BTF_PATH.into(), ring_bytes: RING_BYTES, debug: Debug::default() }
    }
}

/// Copies of plain data that the kernel side stores in maps.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: both are repr(C) integers without padding (zerocopy's IntoBytes holds for them), for
// which any bytes are a value.
unsafe impl Pod for Plain<Stats> {}
// SAFETY: as above.
unsafe impl Pod for Plain<FileKey> {}

/// The three rings.
pub struct Rings {
    pub process: RingBuf<MapData>,
    pub argv: RingBuf<MapData>,
    pub net: RingBuf<MapData>,
}

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rings").finish_non_exhaustive()
    }
}

/// Programs and maps are in the kernel, nothing is attached.
pub struct Loaded {
    ebpf: Ebpf,
    debug: Debug,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

impl Loaded {
    pub fn new(options: &Options) -> Result<Loaded, LoadError> {
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
        ] {
            loader.override_global(global, every, true);
        }
        for ring in ["PROCESS_RING", "ARGV_RING", "NET_RING"] {
            loader.map_max_entries(ring, options.ring_bytes);
        }
        loader.map_max_entries("TREE", tree_entries());
        let ebpf = loader.load(OBJECT).map_err(load_error)?;
        let mut loaded = Loaded { ebpf, debug: options.debug.clone() };
        for program in programs() {
            loaded.program(program)?.load().map_err(|error| refused(program, &error))?;
        }
        #[cfg(feature = "debug-log")]
        super::debug_log::start(&mut loaded.ebpf).map_err(LoadError::Object)?;
        Ok(loaded)
    }

    fn program(&mut self, name: &'static str) -> Result<&mut RawTracePoint, LoadError> {
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or_else(|| LoadError::Object(format!("the object has no program `{name}`")))?;
        program.try_into().map_err(|error| refused(name, &error))
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
        Ok(Rings {
            process: ring("PROCESS_RING")?,
            argv: ring("ARGV_RING")?,
            net: ring("NET_RING")?,
        })
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

    fn descriptor(&mut self, program: &'static str) -> Result<OwnedFd, LoadError> {
        self.program(program)?
            .fd()
            .map_err(|error| refused(program, &error))?
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| LoadError::Object(error.to_string()))
    }

    /// Instructions the verifier walked, by program.
    pub fn verified_instructions(&mut self) -> Result<BTreeMap<&'static str, u32>, LoadError> {
        programs()
            .map(|name| {
                let info = self.program(name)?.info().map_err(|error| refused(name, &error))?;
                Ok((name, info.verified_instruction_count().unwrap_or(0)))
            })
            .collect()
    }

    /// Attaches every sensor.
    pub fn attach(mut self) -> Result<Attached, LoadError> {
        let mut links = Vec::new();
        let mut sensors = Vec::new();
        for (sensor, hook) in hooks() {
            if self.debug.silence.as_deref() != Some(hook.program) {
                let Attach::RawTracepoint(tracepoint) = hook.attach;
                let program = self.program(hook.program)?;
                let link = program
                    .attach(tracepoint)
                    .and_then(|id| program.take_link(id))
                    .map_err(|error| refused(hook.program, &error))?;
                links.push(link);
            }
            sensors.push(SensorState {
                sensor: sensor.into(),
                hook: hook.attach.describe(),
                cannot_see: hook.cannot_see.into(),
            });
        }
        Ok(Attached { loaded: self, links, sensors })
    }
}

/// The probes fire.
#[derive(Debug)]
pub struct Attached {
    loaded: Loaded,
    links: Vec<RawTracePointLink>,
    pub sensors: Vec<SensorState>,
}

/// Counters of the kernel side, final.
#[derive(Debug, Default)]
pub struct FinalCounters {
    /// By CPU.
    pub stats: Vec<Stats>,
    pub skipped_runs: BTreeMap<&'static str, u64>,
    pub ledger: Vec<(FileKey, u64)>,
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
        for link in self.links.drain(..) {
            // Closing the descriptor is what detaches.
            drop(FdLink::from(link));
        }
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
        let mut skipped_runs = BTreeMap::new();
        for (_, hook) in hooks() {
            let program = self.loaded.program(hook.program)?;
            let fd = program.fd().map_err(|error| refused(hook.program, &error))?;
            skipped_runs.insert(hook.program, recursion_misses(fd.as_fd()).unwrap_or(0));
        }
        Ok(FinalCounters {
            stats: stats.iter().map(|Plain(cpu)| *cpu).collect(),
            skipped_runs,
            ledger,
        })
    }
}

/// Every program of the object.
fn programs() -> impl Iterator<Item = &'static str> {
    UNATTACHED.iter().copied().chain(hooks().map(|(_, hook)| hook.program))
}

/// All hooks that are attached, with their sensor's name.
fn hooks() -> impl Iterator<Item = (&'static str, &'static Hook)> {
    SENSORS.iter().filter_map(|sensor| sensor.hooks.first().map(|hook| (sensor.name, hook)))
}

/// Room for every process that can exist at once, up to a limit that costs 12 MB.
fn tree_entries() -> u32 {
    const MAX: u32 = 131_072;
    std::fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .map_or(MAX, |pid_max| pid_max.min(MAX))
}

/// How often the kernel skipped the program because it was already running on that CPU (5.12+).
fn recursion_misses(program: BorrowedFd<'_>) -> Option<u64> {
    let info =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
    let (_, rest) = info.split_once("recursion_misses:")?;
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
