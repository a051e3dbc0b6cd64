//! From records to log records, one after the other.
//!
//! What is kept in mind are the processes that run and the connections that are open, so memory does not
//! grow with time. Both stay for [`LATE_NS`] after their end: what belongs to them can be recorded behind it,
//! because it comes in another ring.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use super::{
    attributes::{Attributes, SCHEMA_URL},
    message::{AnyValue, LogRecord, LogsData, Resource, ResourceLogs, Scope, ScopeLogs, Severity},
};
use crate::{
    model::{Bytes, Endpoint, FileId, ProcessKey},
    policy::{ClaimVerdict, Ruling, Verdict},
    record::{
        Record,
        schema::{
            AttachedTo, Close, Connect, ConnectResult, Datagram, End, Exec, FirstBytes, HandOff,
            Opening, Outcome, Start,
        },
    },
    report::clean,
};

/// By the times of the records.
const LATE_NS: u64 = 1_000_000_000;

/// A process that runs.
#[derive(Clone, Debug, Default)]
struct Program {
    /// Its number in its own pid namespace.
    vpid: Option<u32>,
    parent_pid: Option<u32>,
    /// What it executed last, or the process that made it.
    path: Option<Arc<Bytes>>,
}

/// A connection that has not ended.
#[derive(Debug)]
pub(super) struct Open {
    process: ProcessKey,
    /// What that ran when it connected. The connection may end after it.
    program: Option<Program>,
    attempted_ns: u64,
    pub(super) destination: Option<Endpoint>,
    connect_ns: Option<u64>,
    /// What the process said it was connecting to.
    pub(super) name: Option<String>,
    /// What is known of it beside this.
    more: Attributes,
    severity: Severity,
    /// What became of it, as the rest of a sentence.
    said: String,
}

/// Makes log records.
#[derive(Debug)]
pub struct Logs {
    /// Unix time minus `CLOCK_BOOTTIME`.
    wall_offset_ns: i64,
    resource: Resource,
    version: String,
    programs: HashMap<ProcessKey, Program>,
    pub(super) open: BTreeMap<u64, Open>,
    /// Those of them that have ended, and when.
    ended: VecDeque<(u64, Ended)>,
    latest_ns: u64,
    /// Libraries that cannot be read and of which that was said: once is enough for what is only mapped.
    pub(super) unreadable: HashSet<FileId>,
}

/// What has ended.
#[derive(Clone, Copy, Debug)]
enum Ended {
    Process(ProcessKey),
    Connection(u64),
}

impl Logs {
    pub fn new(start: &Start) -> Logs {
        Logs {
            wall_offset_ns: start.wall_offset_ns,
            resource: resource(start),
            version: start.tracer.clone(),
            programs: HashMap::new(),
            open: BTreeMap::new(),
            ended: VecDeque::new(),
            latest_ns: 0,
            unreadable: HashSet::new(),
        }
    }

    /// One message with all of them.
    pub fn message(&self, log_records: Vec<LogRecord>) -> LogsData {
        LogsData {
            resource_logs: [ResourceLogs {
                resource: self.resource.clone(),
                scope_logs: [ScopeLogs {
                    scope: Scope { name: "tracer", version: self.version.clone() },
                    log_records,
                    schema_url: SCHEMA_URL,
                }],
                schema_url: SCHEMA_URL,
            }],
        }
    }

    /// The log records that are to be made now that this record is there.
    pub fn of(&mut self, record: &Record) -> Vec<LogRecord> {
        let own = self.own(record);
        let mut logs = self.over(self.latest_ns.saturating_sub(LATE_NS));
        logs.extend(own);
        logs
    }

    /// Of what ended before then, nothing more is expected.
    fn over(&mut self, before_ns: u64) -> Vec<LogRecord> {
        let mut logs = Vec::new();
        while let Some((_, ended)) = self.ended.pop_front_if(|(t_ns, _)| *t_ns < before_ns) {
            match ended {
                Ended::Process(process) => {
                    self.programs.remove(&process);
                }
                Ended::Connection(id) => {
                    logs.extend(self.open.remove(&id).map(|open| self.connection(open)));
                }
            }
        }
        logs
    }

    fn ends(&mut self, t_ns: u64, what: Ended) {
        self.latest_ns = self.latest_ns.max(t_ns);
        self.ended.push_back((t_ns, what));
    }

    /// The log record of this record, if it has one at once.
    fn own(&mut self, record: &Record) -> Option<LogRecord> {
        match record {
            Record::Root(root) => {
                let program = self.programs.entry(root.process).or_default();
                (program.vpid, program.parent_pid) = (root.ns_pid, root.parent_pid);
                None
            }
            Record::Fork(fork) => {
                let path = self.programs.get(&fork.process).and_then(|parent| parent.path.clone());
                let parent_pid = Some(fork.child_parent_pid.unwrap_or(fork.process.pid));
                let program = Program { vpid: fork.child_ns_pid, parent_pid, path };
                self.programs.insert(fork.child, program);
                None
            }
            Record::Exit(exit) => {
                self.ends(exit.t_ns, Ended::Process(exit.process));
                None
            }
            Record::Exec(exec) => Some(self.exec(exec)),
            Record::Connect(connect) => {
                self.connect(connect);
                None
            }
            Record::Opening(opening) => {
                self.opening(opening);
                None
            }
            Record::ConnectResult(result) => {
                self.connect_result(result);
                None
            }
            Record::Close(close) => {
                self.close(close);
                None
            }
            Record::Datagram(datagram) => Some(self.datagram(datagram)),
            Record::Call(call) => Some(self.call(call)),
            Record::CallGap(gap) => Some(self.call_gap(gap)),
            Record::TlsLibrary(library) => self.tls_library(library),
            Record::HandOff(hand_off) => Some(self.hand_off(hand_off)),
            Record::Start(_)
            | Record::Content(_)
            | Record::Opened(_)
            | Record::Attempt(_)
            | Record::Mapped(_)
            | Record::LocalSend(_)
            | Record::Intrusion(_)
            | Record::Exchange(_)
            | Record::OddSocket(_)
            | Record::ForeignSend(_)
            | Record::CgroupMove(_)
            | Record::Dns(_)
            | Record::Resolved(_)
            | Record::CredentialFile(_)
            | Record::Snapshot(_)
            | Record::FoundSocket(_)
            | Record::End(_) => None,
        }
    }

    /// What stands at the end: connections that are open still, the claims, and the whole.
    pub fn end(&mut self, end: &End, verdict: Option<&Verdict>) -> Vec<LogRecord> {
        let mut logs = self.over(u64::MAX);
        let open: Vec<Open> = std::mem::take(&mut self.open).into_values().collect();
        let established = open.into_iter().filter(|open| open.connect_ns.is_some());
        logs.extend(established.map(|open| self.connection(open)));
        let claims = verdict.iter().flat_map(|verdict| &verdict.claims);
        logs.extend(claims.map(|claim| self.claim(end.t_ns, claim)));
        if let Some(verdict) = verdict {
            let mut attributes = Attributes::default();
            attributes.text("tracer.verdict", verdict.overall.name());
            let body = format!("the verdict is {}", verdict.overall.name());
            let severity = severity(verdict.overall);
            logs.push(self.log(end.t_ns, "tracer.verdict", severity, body, attributes));
        }
        logs
    }

    pub(super) fn log(
        &self,
        t_ns: u64,
        event_name: &'static str,
        severity: Severity,
        body: String,
        attributes: Attributes,
    ) -> LogRecord {
        let time = t_ns.saturating_add_signed(self.wall_offset_ns);
        LogRecord {
            time_unix_nano: time,
            observed_time_unix_nano: time,
            severity_number: severity,
            severity_text: severity.text(),
            // For people, so without what a terminal would obey; attributes are as they are.
            body: AnyValue::String(clean(body.as_bytes())),
            attributes: attributes.0,
            event_name,
        }
    }

    pub(super) fn process(&self, key: ProcessKey) -> Attributes {
        Self::running(key, self.programs.get(&key))
    }

    fn running(key: ProcessKey, program: Option<&Program>) -> Attributes {
        let mut attributes = Attributes::default();
        attributes.number("process.pid", key.pid);
        let Some(program) = program else { return attributes };
        if let Some(vpid) = program.vpid {
            attributes.number("process.vpid", vpid);
        }
        if let Some(parent) = program.parent_pid {
            attributes.number("process.parent_pid", parent);
        }
        if let Some(path) = &program.path {
            attributes.executable(path);
        }
        attributes
    }

    /// The program of a process, for sentences.
    pub(super) fn name(attributes: &Attributes) -> &str {
        let name = attributes.0.iter().find(|pair| pair.key == "process.executable.name");
        match name.map(|pair| &pair.value) {
            Some(AnyValue::String(name)) => name,
            Some(_) | None => "a process",
        }
    }

    fn exec(&mut self, exec: &Exec) -> LogRecord {
        let file = exec.file.as_ref().and_then(|file| file.path.clone());
        let program = self.programs.entry(exec.process).or_default();
        program.path = file.or_else(|| exec.filename.clone()).map(Arc::new);
        program.vpid = exec.ns_pid.or(program.vpid);
        let mut attributes = self.process(exec.process);
        attributes.command(exec);
        if exec.killed {
            attributes.flag("tracer.killed", true);
        }
        let words = exec.argv.args.iter().map(|word| word.lossy());
        let words = words.collect::<Vec<_>>().join(" ");
        let severity = if exec.killed { Severity::Error } else { Severity::Info };
        let (event, body) = match (exec.found, exec.killed) {
            (true, _) => ("tracer.found", format!("runs already: {words}")),
            (false, true) => {
                ("tracer.exec", format!("killed before its first instruction: {words}"))
            }
            (false, false) => ("tracer.exec", format!("executed: {words}")),
        };
        self.latest_ns = self.latest_ns.max(exec.t_ns);
        self.log(exec.t_ns, event, severity, body, attributes)
    }

    fn connect(&mut self, connect: &Connect) {
        let open = Open {
            process: connect.process,
            program: self.programs.get(&connect.process).cloned(),
            attempted_ns: connect.t_ns,
            destination: connect.destination,
            connect_ns: None,
            name: None,
            more: Attributes::default(),
            severity: Severity::Info,
            said: "is open still".into(),
        };
        self.latest_ns = self.latest_ns.max(connect.t_ns);
        self.open.insert(connect.connection, open);
    }

    fn opening(&mut self, opening: &Opening) {
        let Some(open) = opening.connection.and_then(|id| self.open.get_mut(&id)) else { return };
        open.name = match &opening.what {
            FirstBytes::Tls { sni, .. } => sni.clone(),
            FirstBytes::Http { host, .. } => host.clone(),
            FirstBytes::Other | FirstBytes::Unread { .. } => None,
        };
    }

    fn connect_result(&mut self, result: &ConnectResult) {
        let Some(open) = self.open.get_mut(&result.connection) else { return };
        let (outcome, error) = match &result.outcome {
            Outcome::Established => ("established", None),
            Outcome::Failed { name, .. } => ("failed", Some(name.as_str())),
            Outcome::Abandoned => ("abandoned", None),
            Outcome::Unsent => ("unsent", None),
            Outcome::Unknown => ("unknown", None),
        };
        open.more.text("tracer.connection.outcome", outcome);
        if let Some(source) = result.source {
            let address = source.address.to_canonical().to_string();
            open.more.text("network.local.address", address);
            open.more.number("network.local.port", source.port);
        }
        if result.outcome == Outcome::Established {
            open.connect_ns = Some(result.connect_ns.unwrap_or(0));
            return;
        }
        open.severity = Severity::Warn;
        open.said = outcome.to_owned();
        if let Some(error) = error {
            open.more.text("error.type", error);
            open.said = format!("failed: {error}");
        }
        self.ends(result.t_ns, Ended::Connection(result.connection));
    }

    fn close(&mut self, close: &Close) {
        let Some(open) = self.open.get_mut(&close.connection) else { return };
        open.said = "has ended".into();
        if let Some(bytes) = close.sent_bytes {
            open.more.number("tracer.connection.sent_bytes", bytes);
        }
        if let Some(bytes) = close.received_bytes {
            open.more.number("tracer.connection.received_bytes", bytes);
        }
        if let Some(duration_ns) = close.duration_ns {
            open.more.double("tracer.connection.duration_ms", milliseconds(duration_ns));
        }
        self.ends(close.t_ns, Ended::Connection(close.connection));
    }

    fn connection(&self, open: Open) -> LogRecord {
        let mut attributes = Self::running(open.process, open.program.as_ref());
        let Open { attempted_ns, destination, connect_ns, name, more, severity, said, .. } = open;
        let to = name.clone().or_else(|| destination.map(|to| to.to_string()));
        let to = to.unwrap_or_else(|| "an unknown address".into());
        let body = format!("{}: the connection to {to} {said}", Self::name(&attributes));
        attributes.0.extend(more.0);
        attributes.text("network.transport", "tcp").server(name.as_deref(), destination);
        if let Some(to) = destination {
            attributes.peer(to);
        }
        if let Some(connect_ns) = connect_ns {
            attributes.double("tracer.connection.connect_ms", milliseconds(connect_ns));
        }
        self.log(attempted_ns, "tracer.connection", severity, body, attributes)
    }

    fn datagram(&self, datagram: &Datagram) -> LogRecord {
        const UDP: u16 = 17;
        let mut attributes = self.process(datagram.process);
        let to = datagram.destination.map_or("an unknown address".into(), |to| to.to_string());
        let body = format!("{}: datagrams to {to}", Self::name(&attributes));
        if datagram.protocol == UDP {
            attributes.text("network.transport", "udp");
        }
        attributes.server(None, datagram.destination);
        if let Some(to) = datagram.destination {
            attributes.peer(to);
        }
        self.log(datagram.t_ns, "tracer.datagram", Severity::Info, body, attributes)
    }

    fn hand_off(&self, hand_off: &HandOff) -> LogRecord {
        let mut attributes =
            hand_off.process.map_or_else(Attributes::default, |key| self.process(key));
        attributes
            .text("tracer.hand_off.name", &*hand_off.name)
            .text("tracer.hand_off.via", hand_off.via.lossy());
        let body = format!("{}: {}", hand_off.name, hand_off.how);
        self.log(hand_off.t_ns, "tracer.hand_off", Severity::Warn, body, attributes)
    }

    fn claim(&self, t_ns: u64, claim: &ClaimVerdict) -> LogRecord {
        let mut attributes = Attributes::default();
        attributes
            .text("tracer.policy", &*claim.policy)
            .text("tracer.claim", &*claim.claim)
            .text("tracer.verdict", claim.ruling.name());
        if !claim.reasons.is_empty() {
            attributes.texts("tracer.reasons", &claim.reasons);
        }
        if !claim.violations.is_empty() {
            let details: Vec<String> =
                claim.violations.iter().map(|one| one.detail.clone()).collect();
            attributes.texts("tracer.violations", &details);
        }
        let body = format!("{}: {}: {}", claim.ruling.name(), claim.policy, claim.claim);
        self.log(t_ns, "tracer.claim", severity(claim.ruling), body, attributes)
    }
}

fn severity(ruling: Ruling) -> Severity {
    match ruling {
        Ruling::Proven => Severity::Info,
        Ruling::Inconclusive => Severity::Warn,
        Ruling::Violated => Severity::Error,
    }
}

pub(super) fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn resource(start: &Start) -> Resource {
    let mut attributes = Attributes::default();
    attributes
        .text("service.name", "tracer")
        .text("service.version", &*start.tracer)
        .text("host.name", &*start.host.name)
        .text("host.arch", architecture(&start.host.machine))
        .text("os.type", "linux")
        .text("os.description", format!("Linux {}", start.host.kernel));
    match start.attached.as_ref().map(|attached| &attached.to) {
        Some(AttachedTo::Container { id, .. }) => {
            attributes.text("container.id", &**id);
        }
        Some(AttachedTo::Pod { uid, .. }) => {
            attributes.text("k8s.pod.uid", &**uid);
        }
        Some(AttachedTo::Pid(_) | AttachedTo::Cgroup(_) | AttachedTo::Host) | None => {}
    }
    Resource { attributes: attributes.0 }
}

/// As the conventions name it.
fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
