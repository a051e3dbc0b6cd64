//! Recordings as long as one likes: a real agent's session, its events repeated under other process and
//! connection ids, and its counters multiplied, so that the verdict has all the work of a session that
//! long.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use anyhow::{Context as _, Result};
use tracer::{
    model::{Endpoint, FileId, ProcessKey},
    record::{
        self, Recording, Writer,
        schema::{
            Connect, ConnectResult, CounterRow, Dns, DnsMessage, DnsRecord, End, LedgerRow,
            Outcome, Record, Witness,
        },
    },
};

/// Writes at least so many events, and gives their number.
pub fn write(to: &Path, wanted: u64) -> Result<u64> {
    let recording = golden("proven")?;
    let (root, end) = root_and_end(&recording)?;
    let mut writer = Writer::new(Box::new(File::create(to)?));
    writer.write(&Record::Start(Box::new(recording.start.clone())))?;
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

/// Writes a session that resolves so many names, each to an address of its own, and connects to each.
pub(super) fn write_names(to: &Path, names: u32) -> Result<()> {
    let recording = golden("made-up")?;
    let (root, end) = root_and_end(&recording)?;
    let mut writer = Writer::new(Box::new(File::create(to)?));
    writer.write(&Record::Start(Box::new(recording.start.clone())))?;
    let mut totals = Totals::default();
    let mut put = |record: &Record| {
        totals.add(record);
        writer.write(record)
    };
    for event in &recording.events {
        if matches!(event, Record::Root(_)) {
            put(event)?;
        }
    }
    let t_ns = recording.start.t_ns;
    for number in 0..names {
        let name = format!("host-{number}.example");
        let address = IpAddr::from(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number));
        let connection = u64::from(number) + 1;
        put(&Record::Dns(Dns {
            t_ns,
            process: root,
            cookie: 1,
            server: None,
            tcp: false,
            message: DnsMessage::Answer {
                id: 1,
                name: name.clone(),
                of: "A".to_owned(),
                code: "NOERROR".to_owned(),
                records: vec![DnsRecord {
                    name,
                    of: "A".to_owned(),
                    ttl_s: 60,
                    data: address.to_string(),
                }],
                truncated: false,
            },
        }))?;
        put(&Record::Connect(Connect {
            t_ns: t_ns + 1,
            process: root,
            thread: root.pid,
            connection,
            cookie: None,
            destination: Some(Endpoint { address, port: 443 }),
            net_ns_inum: 1,
            unread: Vec::new(),
        }))?;
        put(&Record::ConnectResult(ConnectResult {
            t_ns: t_ns + 2,
            process: root,
            connection,
            outcome: Outcome::Established,
            connect_ns: Some(1),
            source: None,
            local: None,
            unread: Vec::new(),
        }))?;
    }
    writer.write(&Record::End(Box::new(totals.end(end))))?;
    Ok(writer.flush()?)
}

fn golden(name: &str) -> Result<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer/tests/golden/reports");
    Ok(record::read(&folder.join(format!("{name}.jsonl")))?)
}

fn root_and_end(recording: &Recording) -> Result<(ProcessKey, End)> {
    let root = recording
        .events
        .iter()
        .find_map(|event| if let Record::Root(root) = event { Some(root.process) } else { None });
    let end = recording.end.clone().context("the session has no end")?;
    Ok((root.context("the session has no root")?, end))
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
        end
    }
}
