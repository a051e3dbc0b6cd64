//! How fast a recording is verified on this machine: `cargo xtask bench verify`.
//!
//! The recording is a real agent's session, its events repeated under other process and connection
//! ids, and its counters multiplied, so that the verdict has all the work of a session that long.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use tracer::{
    model::{FileId, ProcessKey},
    policy::{self, Ruling},
    record::{
        self, Reader, Writer,
        schema::{CounterRow, End, LedgerRow, Record, Witness},
    },
    session::Story,
};

/// Unless told otherwise.
const EVENTS: u64 = 1_000_000;

fn main() -> Result<()> {
    let session =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer/tests/golden/reports/proven.jsonl");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("long.jsonl");
    let wanted = std::env::args().nth(1).map_or(Ok(EVENTS), |count| count.parse());
    let events = write_long(&session, &file, wanted.context("usage: verify-rate [EVENTS]")?)?;
    let bytes = file.metadata()?.len();
    println!("{events} events of an agent's session, {bytes} bytes");
    rate("read the file", events, || pass_over(&file, |_| ()))?;
    rate("SHA-256 alone, one thread", events, || {
        let mut hash = Sha256::new();
        pass_over(&file, |bytes| hash.update(bytes))
    })?;
    rate("check the chain and parse", events, || {
        let mut reader = Reader::open(&file, false)?;
        while reader.next_event()?.is_some() {}
        Ok(())
    })?;
    rate("verify", events, || {
        let reader = Reader::open(&file, false)?;
        let story = Story::for_verdict(reader.start().clone());
        let (story, _) = story.read(reader, |_| ())?;
        let verdict = policy::judge(&story, &story.start.policies).context("no policy")?;
        ensure!(verdict.overall == Ruling::Proven, "{:?}", verdict.completeness);
        Ok(())
    })?;
    println!("peak memory: {}", peak_memory()?);
    Ok(())
}

fn pass_over(file: &Path, mut seen: impl FnMut(&[u8])) -> Result<()> {
    let mut source = File::open(file)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        seen(&buffer[..read]);
    }
}

/// The best of three, because other work on the machine only ever makes it slower.
fn rate(what: &str, events: u64, work: impl Fn() -> Result<()>) -> Result<()> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        work()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    println!("{what}: {best:.3} s, {:.0} events/s", events as f64 / best);
    Ok(())
}

fn peak_memory() -> Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.context("no VmHWM")?.trim().into())
}

/// Gives the number of events.
fn write_long(session: &Path, to: &Path, wanted: u64) -> Result<u64> {
    let recording = record::read(session)?;
    let end = recording.end.context("the session has no end")?;
    let root = recording
        .events
        .iter()
        .find_map(|event| if let Record::Root(root) = event { Some(root.process) } else { None });
    let root = root.context("the session has no root")?;
    let mut writer = Writer::new(Box::new(File::create(to)?));
    writer.write(&Record::Start(Box::new(recording.start)))?;
    let mut totals = Totals::default();
    let mut copies = 0;
    while totals.events < wanted {
        for event in &recording.events {
            if let Some(copy) = copied(event, root, copies) {
                totals.add(&copy);
                writer.write(&copy)?;
            }
        }
        copies += 1;
    }
    let last = recording.events.iter().find(|event| is_exit_of(event, root));
    let last = last.context("the root did not exit")?;
    totals.add(last);
    writer.write(last)?;
    writer.write(&Record::End(Box::new(totals.end(end))))?;
    writer.flush()?;
    Ok(totals.events)
}

fn is_exit_of(event: &Record, process: ProcessKey) -> bool {
    if let Record::Exit(exit) = event { exit.process == process } else { false }
}

/// The event in the n-th copy of the session. What happens once is in the first copy only; the
/// root's exit comes last.
fn copied(event: &Record, root: ProcessKey, copy: u64) -> Option<Record> {
    const CONNECTIONS: u64 = 1 << 40;
    let moved = |key: ProcessKey| {
        if key == root { key } else { ProcessKey { start_ns: key.start_ns + copy, ..key } }
    };
    let once = |record: &Record| (copy == 0).then(|| record.clone());
    let mut record = event.clone();
    #[expect(clippy::wildcard_enum_match_arm, reason = "the session has no others more than once")]
    match &mut record {
        Record::Fork(fork) => {
            fork.process = moved(fork.process);
            fork.child = moved(fork.child);
        }
        Record::Exec(exec) if exec.process == root => return once(event),
        Record::Exec(exec) => exec.process = moved(exec.process),
        Record::Exit(exit) if exit.process == root => return None,
        Record::Exit(exit) => exit.process = moved(exit.process),
        Record::Connect(connect) => {
            connect.process = moved(connect.process);
            connect.connection += copy * CONNECTIONS;
        }
        Record::ConnectResult(result) => {
            result.process = moved(result.process);
            result.connection += copy * CONNECTIONS;
        }
        Record::Close(close) => {
            close.process = moved(close.process);
            close.connection += copy * CONNECTIONS;
        }
        _ => return once(event),
    }
    Some(record)
}

/// What was written, which the counters have to agree with.
#[derive(Default)]
struct Totals {
    events: u64,
    by_kind: BTreeMap<String, u64>,
    by_file: BTreeMap<FileId, u64>,
}

impl Totals {
    fn add(&mut self, record: &Record) {
        self.events += 1;
        *self.by_kind.entry(record.name().into()).or_default() += 1;
        if let Record::Exec(exec) = record
            && let Some(file) = &exec.file
        {
            *self.by_file.entry(file.id()).or_default() += 1;
        }
    }

    fn end(&self, mut end: End) -> End {
        end.witness = Witness::Counted(self.by_file.values().sum());
        let ledger = self.by_file.iter();
        end.ledger = ledger.map(|(file, execs)| LedgerRow { file: *file, execs: *execs }).collect();
        // Kinds without lines, such as pieces of argv, are the canaries' alone in this session.
        let kinds: BTreeSet<String> = end.counters.iter().map(|row| row.kind.clone()).collect();
        let row = |kind: String| {
            let counts = [&self.by_kind, &end.canary_events];
            let produced = counts.iter().filter_map(|counts| counts.get(&kind)).sum();
            CounterRow { cpu: 0, kind, produced, lost: 0, read: produced }
        };
        end.counters = kinds.into_iter().map(row).collect();
        end.verdict = None;
        end
    }
}
