//! Between the rings and everything that consumes records.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use tracer_ebpf::abi::{Flow, FlowTotals, header_flag};

use super::{
    broker::{self, Broker},
    clock::boottime_ns,
    kept::Kept,
    machine::LiveMachine,
    tls::FoundCode,
    watch::Watch,
};
use crate::{
    ingest::{Drain, flow_destination},
    model::{Event, FileVersion, ProcessKey},
    perf::{MapEvent, MapRecord, MapStream},
    probe::{Attached, Identifier, Rings, TlsSessions},
    record::{
        Record,
        schema::{Content, Exchange, Mapped, MapsWatched, Start, TlsReading},
    },
    session::{Fold, Image, ImageEvent, Images, Story},
};

/// Drains, folds, and hands on what is recorded.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) drain: Drain,
    pub(super) fold: Fold,
    pub(super) kept: Kept,
    pub(super) watch: Watch,
    rings: Rings,
    machine: LiveMachine,
    maps: Maps,
    /// What is to be recorded of processes that were found, when their enrolment is.
    pub(super) found: BTreeMap<ProcessKey, Vec<Record>>,
}

impl Collector {
    pub(super) fn new(
        rings: Rings,
        machine: LiveMachine,
        watch: Watch,
        start: Start,
        kept: Kept,
    ) -> Collector {
        let mut collector = Collector {
            drain: Drain::default(),
            fold: Fold::default(),
            kept,
            watch,
            rings,
            machine,
            maps: Maps::default(),
            found: BTreeMap::new(),
        };
        collector.machine.set_wall_offset(start.wall_offset_ns);
        collector.machine.compare_with(start.interpreters.clone());
        for copy in start.known_programs.values().flatten() {
            collector.machine.read_known(copy.path.as_path());
        }
        collector.kept.write(&Record::Start(Box::new(start)));
        collector.kept.flush();
        collector
    }

    pub(super) fn rings(&self) -> &Rings {
        &self.rings
    }

    /// So many pieces of TLS sessions were lost so far. To be said before each round.
    pub(super) fn lost_tls_data(&mut self, pieces: u64) {
        self.fold.lost_tls_data(pieces);
    }

    /// Handles everything that is in the rings. Returns how many records there were.
    pub(super) fn round(&mut self) -> io::Result<usize> {
        self.watch.collect(self.machine.identifier(), boottime_ns)?;
        let Collector { drain, fold, kept, rings, machine, found, .. } = self;
        let mut sink = |event: Event| {
            if let Some(tls) = machine.tls() {
                tls.notice(&event);
            }
            if let Some(record) = fold.apply(event, machine) {
                let known = if let Record::Root(root) = &record {
                    found.remove(&root.process)
                } else {
                    None
                };
                kept.accept(record);
                known.into_iter().flatten().for_each(|record| kept.accept(record));
            }
        };
        let count = drain.round(rings, &mut sink);
        if count > 0 {
            self.early(false);
            self.said(false);
            self.attempts(false);
            let finished = self.machine.contents().finished();
            self.contents(finished);
        }
        let mut seen = self.watch.attribute(&self.kept.story, false);
        seen.extend(self.maps.round(Some(boottime_ns()?), &mut self.machine, &self.kept.story));
        if count > 0 || !seen.is_empty() {
            self.accept(seen);
            self.kept.flush_soon();
        } else if self.kept.flush_at.is_some() {
            self.kept.flush_soon();
        }
        Ok(count)
    }

    /// Watches TLS libraries that processes have had since before tracer came.
    pub(super) fn found_code(
        &mut self,
        code: Vec<FoundCode>,
        attached: &mut Attached,
    ) -> io::Result<()> {
        for found in code {
            let record = self.machine.found_code(found, attached)?;
            self.watched_late(record.as_slice());
            self.accept(record.into_iter().collect());
        }
        self.kept.flush();
        Ok(())
    }

    /// Watches TLS libraries that processes have. To be called after each round.
    pub(super) fn watch_tls(
        &mut self,
        attached: &mut Attached,
        sessions: &mut TlsSessions,
    ) -> io::Result<()> {
        let global_pids = self.machine.sees_global_pids();
        let Some(tls) = self.machine.tls() else { return Ok(()) };
        let records = tls.round(attached, sessions, &self.kept.story, global_pids)?;
        self.watched_late(&records);
        self.accept(records);
        Ok(())
    }

    /// What is known of sessions in libraries depends on when these were watched.
    fn watched_late(&mut self, records: &[Record]) {
        for record in records {
            if let Record::TlsLibrary(library) = record
                && let TlsReading::From { t_ns } = library.reading
            {
                self.fold.tls_watched_from(library.process, t_ns);
            }
        }
    }

    /// tracer has given up its rights, and the broker has them.
    pub(super) fn confined(&mut self, broker: &Broker) -> io::Result<()> {
        self.watch.mark_through(broker);
        self.machine.confined(Arc::new(broker.clone()))?;
        self.kept.start_sending()
    }

    /// The command has been started as this process.
    pub(super) fn launched(&mut self, pid: u32) -> io::Result<()> {
        self.watch.inherited(pid, boottime_ns()?);
        Ok(())
    }

    /// What the command's process maps is told by this stream.
    pub(super) fn watch_maps(&mut self, stream: Result<MapStream, String>) {
        self.maps.stream = Some(stream);
    }

    /// Whether that stream is still one of all that runs.
    pub(super) fn check_maps(&mut self) {
        if let Some(Ok(stream)) = &mut self.maps.stream {
            stream.check();
        }
    }

    /// What became of that stream; none when it was never there.
    pub(super) fn maps_watched(&self) -> Option<MapsWatched> {
        let absent = |why: &str| MapsWatched::Absent(why.to_owned());
        Some(match self.maps.stream.as_ref()? {
            Err(why) => absent(&format!("it could not be opened: {why}")),
            // Each exec of the tree is in it.
            Ok(_) if !self.maps.has_said_anything && self.kept.story.execs > 0 => {
                absent("the kernel reported nothing at all, although programs were executed")
            }
            Ok(stream) => match stream.lost() {
                Ok(lost) => MapsWatched::Lost(lost),
                Err(error) => absent(&format!("what it lost is unknown: {error}")),
            },
        })
    }

    fn accept(&mut self, records: Vec<Record>) {
        for record in records {
            self.kept.accept(record);
        }
    }

    fn contents(&mut self, finished: Vec<Content>) {
        self.accept(finished.into_iter().map(Record::Content).collect());
    }

    /// Net events that came before their process.
    fn early(&mut self, all: bool) {
        for event in self.fold.take_early(all) {
            if let Some(record) = self.fold.record(event, &mut self.machine) {
                self.kept.accept(record);
            }
        }
    }

    /// What payloads say of names.
    fn said(&mut self, all: bool) {
        let said = self.fold.take_said(all);
        self.accept(said);
    }

    fn attempts(&mut self, all: bool) {
        for attempt in self.fold.take_attempts(all) {
            let record = Record::Attempt(attempt);
            self.kept.accept(record);
        }
    }

    /// After the last round: nothing more will introduce a process.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.early(true);
        self.said(true);
        self.attempts(true);
        self.watch.collect(self.machine.identifier(), boottime_ns)?;
        let mut seen = self.watch.attribute(&self.kept.story, true);
        seen.extend(self.watch.replaced(self.machine.identifier(), boottime_ns()?));
        seen.extend(self.maps.round(None, &mut self.machine, &self.kept.story));
        self.accept(seen);
        let rest = self.machine.contents().rest();
        self.contents(rest);
        self.kept.accept_rest();
        self.kept.flush();
        Ok(())
    }

    /// After settling: what sockets without connections exchanged, in all.
    pub(super) fn exchanges(
        &mut self,
        t_ns: u64,
        flows: &[(Flow, FlowTotals)],
        elsewhere: &BTreeMap<u64, u64>,
    ) {
        let traced = |totals: &FlowTotals| totals.flags & header_flag::CANARY == 0;
        let exchanges = flows.iter().filter(|(_, totals)| traced(totals)).map(|(flow, totals)| {
            Record::Exchange(Exchange {
                t_ns,
                cookie: flow.cookie,
                destination: flow_destination(flow),
                sent_packets: totals.sent_packets,
                sent_bytes: totals.sent_bytes,
                received_packets: totals.received_packets,
                received_bytes: totals.received_bytes,
                elsewhere_packets: elsewhere.get(&flow.cookie).copied().unwrap_or_default(),
            })
        });
        self.accept(exchanges.collect());
    }

    /// What tells files apart.
    pub(super) fn identifier(&self) -> &Identifier {
        self.machine.identifier()
    }

    /// Has a file read that a process of the tree runs already.
    pub(super) fn read_content(&mut self, version: FileVersion, path: PathBuf) {
        self.machine.read_running(version, path);
    }

    /// Adds a record that is no event.
    pub(super) fn add(&mut self, record: Record) {
        self.kept.accept(record);
        self.kept.flush();
    }
}

/// Executable mappings, on their way from the kernel to records.
#[derive(Debug, Default)]
struct Maps {
    /// None before the command is started.
    stream: Option<Result<MapStream, String>>,
    /// Whether the kernel ever wrote to it.
    has_said_anything: bool,
    images: Images,
}

impl Maps {
    /// Reads what there is; with no time, whatever is left.
    fn round(
        &mut self,
        now_ns: Option<u64>,
        machine: &mut LiveMachine,
        story: &Story,
    ) -> Vec<Record> {
        let Some(Ok(stream)) = &mut self.stream else { return Vec::new() };
        let (images, has_said_anything) = (&mut self.images, &mut self.has_said_anything);
        stream.drain(&mut |MapRecord { t_ns, pid, what }| {
            *has_said_anything = true;
            let event = match what {
                MapEvent::NewImage => ImageEvent::New,
                MapEvent::Ended => ImageEvent::Ended,
                // At once: a moment later the process may be gone, and its view of the files too.
                MapEvent::Mapped { file, path } => {
                    ImageEvent::Mapped(machine.mapped(t_ns, pid, file, path))
                }
            };
            images.add(t_ns, pid, event);
        });
        let images = self.images.take(now_ns);
        let global_pids = machine.sees_global_pids();
        images.into_iter().filter_map(|image| mapped(image, global_pids, story)).collect()
    }
}

/// The record of an image of a process of the tree.
fn mapped(image: Image, global_pids: bool, story: &Story) -> Option<Record> {
    // The stream is of the broker's launching thread and of the tree, and of nobody else.
    if broker::is_own(image.pid) {
        return None;
    }
    let found = if global_pids {
        story.by_pid(image.pid, Some(image.t_ns)).latest()
    } else {
        story.by_namespace_pid(image.pid, image.t_ns)
    };
    let process = found.or_else(|| story.root())?;
    // The exec comes when the image is complete, so after its mappings.
    let execs = &story.processes.get(&process)?.execs;
    let own = image.since_ns.and_then(|since| execs.iter().find(|exec| exec.t_ns >= since));
    let executed = own.and_then(|exec| exec.file.as_ref()).map(|file| file.id());
    let mut files = image.files;
    // What the exec itself says is not said again.
    files.retain(|file| Some(file.id) != executed);
    (!files.is_empty()).then_some(Record::Mapped(Mapped { t_ns: image.t_ns, process, files }))
}
