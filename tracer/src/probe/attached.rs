//! Probes that fire: what can be asked of them and told them, and their counters in the end.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use aya::maps::{HashMap, LpmTrie, MapError, PerCpuArray, lpm_trie::Key};
use tracer_ebpf::abi::{
    Asked, Fault, FileKey, Flow, FlowTotals, KIND_COUNT, Kind, Stats, VARIABLE_KEY_BYTES, Variable,
    name_hash,
};

use super::{
    error::LoadError,
    guard::Unfrozen,
    links::{self, Link},
    load::Loaded,
    plain::Plain,
    sensors::UNATTACHED,
};
use crate::{model::FileId, record::schema::SensorState};

/// The probes fire.
#[derive(Debug)]
pub struct Attached {
    pub(super) loaded: Loaded,
    pub(super) links: Vec<Link>,
    /// Those that are attached.
    pub(super) programs: Vec<&'static str>,
    /// What a canary makes the kernel report.
    pub canary_kinds: Vec<Kind>,
    pub sensors: Vec<SensorState>,
    /// Breakpoints in TLS libraries are links of several places.
    pub(super) tls_together: bool,
    /// Files whose TLS library is watched.
    pub(super) tls_files: u32,
    /// Their breakpoints, by their number.
    pub(super) tls_links: BTreeMap<u32, Vec<Link>>,
    pub(super) deputy: Option<Arc<dyn Deputy>>,
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

/// Who does for tracer what it may not do itself any more, or what takes long.
pub trait Deputy: std::fmt::Debug + Send + Sync {
    /// Has a program run at places in a file, in every process that has it mapped, while what is returned is
    /// open.
    fn break_at(
        &self,
        program: BorrowedFd<'_>,
        file: BorrowedFd<'_>,
        places: &Breakpoints<'_>,
    ) -> io::Result<OwnedFd>;

    /// Closes these when nobody waits for tracer any more.
    fn close_later(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()>;
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
    /// Of such sockets, by their cookies, those that sent to none of their destinations, and how many packets.
    pub elsewhere: BTreeMap<u64, u64>,
}

impl FinalCounters {
    pub fn produced(&self, kind: Kind) -> u64 {
        self.stats.iter().map(|cpu| cpu.kinds[kind as usize].produced).sum()
    }

    pub fn lost(&self, kind: Kind) -> u64 {
        lost(&self.stats, kind)
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
        let mut tracepoints = Vec::new();
        // The kernel waits out a grace period for each of these; those of several threads are one.
        std::thread::scope(|scope| {
            let of_tls = std::mem::take(&mut self.tls_links).into_values().flatten();
            for link in self.links.drain(..).chain(of_tls) {
                match link {
                    Link::Bpf(link) => drop(link),
                    Link::Breakpoints(link) => drop(scope.spawn(move || drop(link))),
                    Link::Tracepoint { link, event } => {
                        scope.spawn(move || drop(link));
                        tracepoints.push(event);
                    }
                }
            }
        });
        // And of these one after the other, in whatever thread.
        let tracepoints: Vec<_> = tracepoints.iter().map(OwnedFd::as_fd).collect();
        if let Some(deputy) = &self.deputy {
            // Otherwise they are closed here and now.
            let _ = deputy.close_later(&tracepoints);
        }
    }

    /// From now on breakpoints are made, and tracepoints closed, by somebody else.
    pub fn rely_on(&mut self, deputy: Arc<dyn Deputy>) {
        self.deputy = Some(deputy);
    }

    /// Whether every probe is attached still, as far as the kernel tells.
    pub fn check(&self) -> Result<(), String> {
        let mut detached = 0;
        for link in &self.links {
            // Nobody can take the others away from who holds them.
            let Link::Bpf(link) = link else { continue };
            match links::is_detached(link.as_fd()) {
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
        let object = |error: MapError| LoadError::Object(error.to_string());
        let mut map = |name: &str| self.loaded.object.take_map(name);
        let refused = |error: io::Error| LoadError::Object(error.to_string());
        let (by_file, by_name) = (map("FORBIDDEN_FILES")?, map("FORBIDDEN_NAMES")?);
        let filled = [Unfrozen::of(&by_file), Unfrozen::of(&by_name)];
        let mut by_file = HashMap::<_, Plain<FileKey>, u32>::try_from(by_file).map_err(object)?;
        for file in files {
            let key = FileKey { inode: file.inode, device: file.device.0, padding: 0 };
            by_file.insert(Plain(key), FORBIDDEN, 0).map_err(object)?;
        }
        let mut by_name = HashMap::<_, u64, u32>::try_from(by_name).map_err(object)?;
        for name in names {
            by_name.insert(name_hash(name.as_bytes()), FORBIDDEN, 0).map_err(object)?;
        }
        filled.into_iter().try_for_each(|map| map?.freeze()).map_err(refused)
    }

    /// Has execs say which of these environment variables are set; each by its place in the list.
    pub fn look_for(&mut self, variables: &[String]) -> Result<(), LoadError> {
        let object = |error: MapError| LoadError::Object(error.to_string());
        let map = self.loaded.object.take_map("VARIABLES")?;
        let refused = |error: io::Error| LoadError::Object(error.to_string());
        let filled = Unfrozen::of(&map).map_err(refused)?;
        let mut numbers = LpmTrie::<_, [u8; VARIABLE_KEY_BYTES], Plain<Variable>>::try_from(map)
            .map_err(object)?;
        for (number, name) in (0u32..).zip(variables) {
            let mut bytes = [0; VARIABLE_KEY_BYTES];
            let mut value_at = 0_u32;
            for (to, from) in bytes.iter_mut().zip(name.bytes().chain(*b"=")) {
                *to = from;
                value_at += 1;
            }
            let key = Key::new(value_at * u8::BITS, bytes);
            numbers.insert(&key, Plain(Variable { number, value_at }), 0).map_err(object)?;
        }
        filled.freeze().map_err(refused)
    }

    /// Instructions the verifier walked, by program that is attached or run on demand.
    pub fn verified_instructions(&self) -> Result<BTreeMap<&'static str, u32>, LoadError> {
        let find = self.loaded.options.find.then_some(&"find");
        let programs = self.programs.iter().chain(UNATTACHED).chain(find);
        programs
            .map(|name| {
                let count = about_program(self.loaded.program(name)?, "verified_insns:");
                Ok((*name, count.and_then(|count| count.try_into().ok()).unwrap_or(0)))
            })
            .collect()
    }

    /// By CPU.
    fn stats(&self) -> Result<Vec<Stats>, LoadError> {
        let map = self.loaded.object.map("STATS")?;
        let stats = PerCpuArray::<_, Plain<Stats>>::try_from(map)
            .and_then(|stats| stats.get(&0, 0))
            .map_err(object)?;
        Ok(stats.iter().map(|Plain(cpu)| *cpu).collect())
    }

    /// Records that were lost so far.
    pub fn lost(&self, kind: Kind) -> Result<u64, LoadError> {
        Ok(lost(&self.stats()?, kind))
    }

    /// Reads the counters. They are final once detached and no probe runs.
    pub fn counters(&self) -> Result<FinalCounters, LoadError> {
        let stats = self.stats()?;
        let kernel = &self.loaded.object;
        let ledger = HashMap::<_, Plain<FileKey>, u64>::try_from(kernel.map("LEDGER")?)
            .map_err(object)?
            .iter()
            .map(|row| row.map(|(Plain(file), count)| (file, count)))
            .collect::<Result<_, _>>()
            .map_err(object)?;
        let mut flows =
            HashMap::<_, Plain<Flow>, Plain<FlowTotals>>::try_from(kernel.map("FLOWS")?)
                .map_err(object)?
                .iter()
                .map(|row| row.map(|(Plain(flow), Plain(totals))| (flow, totals)))
                .collect::<Result<Vec<_>, _>>()
                .map_err(object)?;
        flows.sort_unstable_by_key(|(flow, _)| *flow);
        let elsewhere = HashMap::<_, u64, Plain<Asked>>::try_from(kernel.map("ASKED")?)
            .map_err(object)?
            .iter()
            .map(|row| row.map(|(cookie, Plain(asked))| (cookie, asked.elsewhere_packets)))
            .filter(|row| !matches!(row, Ok((_, 0))))
            .collect::<Result<_, _>>()
            .map_err(object)?;
        let mut skipped_runs = BTreeMap::new();
        for name in &self.programs {
            let fd = self.loaded.program(name)?;
            // How often the kernel skipped it because it was already running on that CPU (5.12+).
            let misses = about_program(fd, "recursion_misses:").ok_or_else(|| {
                LoadError::Object(format!("the kernel does not say how often it skipped `{name}`"))
            })?;
            if !EACH_FOR_THE_OTHER.contains(name) || self.loaded.real_time {
                skipped_runs.insert(*name, misses);
            }
        }
        Ok(FinalCounters { stats, skipped_runs, ledger, flows, elsewhere })
    }
}

fn lost(stats: &[Stats], kind: Kind) -> u64 {
    stats.iter().map(|cpu| cpu.kinds[kind as usize].lost).sum()
}

fn object(error: MapError) -> LoadError {
    LoadError::Object(error.to_string())
}

/// Of these two only what comes in a softirq is skipped, and of that only by one of them: the other tells it. There
/// is much of it on a machine whose network is busy. Of real-time kernels that is not believed: later ones may let
/// tracepoints be preempted.
const EACH_FOR_THE_OTHER: [&str; 2] = ["connect", "sock_state"];

/// A number that the kernel tells of a program.
pub(super) fn about_program(program: BorrowedFd<'_>, name: &str) -> Option<u64> {
    let info =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
    let (_, rest) = info.split_once(name)?;
    rest.split_whitespace().next()?.parse().ok()
}
