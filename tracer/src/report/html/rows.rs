//! What stands beside the timeline: processes, their connections, and the calls over those.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    record::schema::CallOutcome,
    report::{
        clean::clean,
        summary::{
            CallSummary, ConnectionSummary, DatagramSummary, EndpointSummary, ExecSummary,
            ProcessSummary, Summary, nanoseconds,
        },
        tables,
        words::duration,
    },
};

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Row<'a> {
    Process(ProcessRow<'a>),
    Connection(ConnectionRow<'a>),
    Call(CallRow),
}

#[derive(Debug, Serialize)]
pub(super) struct ProcessRow<'a> {
    depth: u32,
    pid: u32,
    /// In its own pid namespace, where that is another number.
    #[serde(skip_serializing_if = "Option::is_none")]
    inside: Option<u32>,
    from: u64,
    /// Absent for a process that was not seen to exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    /// How it ended.
    end: String,
    execs: Vec<ExecPart<'a>>,
    /// Times of what else was observed of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    marks: Vec<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct ExecPart<'a> {
    at: u64,
    line: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    bad: bool,
    /// Place in `programs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<usize>,
    /// The interpreter of a script.
    #[serde(skip_serializing_if = "Option::is_none")]
    through: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ConnectionRow<'a> {
    depth: u32,
    destination: String,
    outcome: &'a str,
    established: bool,
    from: u64,
    /// When the outcome was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    connected: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    /// A claim names it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    bad: bool,
    /// What else is known of it.
    more: Vec<(&'static str, String)>,
}

#[derive(Debug, Serialize)]
pub(super) struct CallRow {
    depth: u32,
    /// Method and URL.
    call: String,
    /// Status, and what became of it.
    outcome: String,
    /// It ended as it should, without an error of the client's or the server's.
    went_well: bool,
    from: u64,
    /// When the first byte of the response came.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    /// What else is known of it.
    more: Vec<(&'static str, String)>,
}

/// What belongs to a process.
#[derive(Debug, Default)]
struct Belongings<'a> {
    /// Connections and sockets of datagrams, each with the calls that went over it.
    contacts: Vec<(ConnectionRow<'a>, Vec<CallRow>)>,
    /// Calls of which the connection is not known.
    calls: Vec<CallRow>,
    /// Times of what else was observed of it.
    marks: Vec<u64>,
}

/// The rows, and of each process the row it is in.
pub(super) fn rows(summary: &Summary) -> (Vec<Row<'_>>, Vec<usize>) {
    let (mut rows, mut places) = (Vec::new(), Vec::new());
    for (process, own) in summary.processes.iter().zip(belongings(summary)) {
        places.push(rows.len());
        rows.push(Row::Process(ProcessRow::of(process, own.marks, summary)));
        for (contact, calls) in own.contacts {
            rows.push(Row::Connection(contact));
            rows.extend(calls.into_iter().map(Row::Call));
        }
        rows.extend(own.calls.into_iter().map(Row::Call));
    }
    (rows, places)
}

/// By place of the process.
fn belongings(summary: &Summary) -> Vec<Belongings<'_>> {
    let mut all: Vec<Belongings<'_>> = Vec::new();
    all.resize_with(summary.processes.len(), Belongings::default);
    let depth = |place: usize| summary.processes.get(place).map_or(0, |process| process.depth + 1);
    let mut over: BTreeMap<usize, Vec<CallRow>> = BTreeMap::new();
    for call in &summary.calls {
        let deep = depth(call.process);
        // Over a connection that another process made, it is a row of the process that called.
        let is_own = |at: &usize| {
            summary.connections.get(*at).is_some_and(|one| one.process == call.process)
        };
        match call.connection.filter(is_own) {
            Some(at) => over.entry(at).or_default().push(CallRow::of(call, deep + 1)),
            None => {
                if let Some(own) = all.get_mut(call.process) {
                    own.calls.push(CallRow::of(call, deep));
                }
            }
        }
    }
    for (at, one) in summary.connections.iter().enumerate() {
        if let Some(own) = all.get_mut(one.process) {
            let calls = over.remove(&at).unwrap_or_default();
            own.contacts.push((ConnectionRow::of(one, summary, depth(one.process)), calls));
        }
    }
    for one in &summary.datagrams {
        if let Some(own) = all.get_mut(one.process) {
            let row = ConnectionRow::of_datagrams(one, summary, depth(one.process));
            own.contacts.push((row, Vec::new()));
        }
    }
    for event in &summary.observed {
        if let Some(own) = event.process.and_then(|process| all.get_mut(process)) {
            own.marks.push(event.at_ns);
        }
    }
    all
}

impl<'a> ProcessRow<'a> {
    fn of(process: &'a ProcessSummary, marks: Vec<u64>, summary: &Summary) -> ProcessRow<'a> {
        let end = match (process.exited_at_ns, process.exit_code, process.exit_signal) {
            (None, ..) if summary.duration_ns.is_none() => "no exit is recorded".into(),
            (None, ..) => "still running".into(),
            (Some(_), Some(code), _) => format!("exit {code}"),
            (Some(_), None, Some(signal)) => format!("signal {signal}"),
            (Some(_), None, None) => "exit unknown".into(),
        };
        ProcessRow {
            depth: process.depth,
            pid: process.pid,
            inside: process.namespace_pid,
            from: process.born_at_ns,
            to: process.exited_at_ns,
            end,
            execs: process.execs.iter().map(ExecPart::of).collect(),
            marks,
        }
    }
}

impl<'a> ExecPart<'a> {
    fn of(exec: &'a ExecSummary) -> ExecPart<'a> {
        let notes = [
            (!exec.argv_complete).then(|| "the argv is not complete".to_owned()),
            exec.memfd.then(|| "an anonymous memory file".to_owned()),
            exec.unlinked.then(|| "the file had no name left".to_owned()),
            (!exec.unread.is_empty()).then(|| format!("not read: {}", exec.unread.join(", "))),
        ];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        let interpreter = exec.path.as_ref().filter(|_| exec.script.is_some());
        ExecPart {
            at: exec.at_ns,
            line: &exec.command_line,
            bad: exec.violates,
            program: exec.program,
            through: interpreter.map(|path| clean(&path.0)),
            cwd: exec.cwd.as_ref().map(|cwd| clean(&cwd.0)),
            uid: exec.uid,
            note: clean(notes.join("; ").as_bytes()),
        }
    }
}

impl<'a> ConnectionRow<'a> {
    fn of(connection: &'a ConnectionSummary, summary: &'a Summary, depth: u32) -> Self {
        let bytes = |bytes: u64| format!("{bytes} B");
        let endpoint = summary.endpoints.get(connection.endpoint);
        let own = [
            ("to", connection.destination.map(|to| to.to_string())),
            ("connect", connection.connect_ns.map(duration)),
            ("from", connection.source.map(|source| source.to_string())),
            ("sent", connection.sent_bytes.map(bytes)),
            ("received", connection.received_bytes.map(bytes)),
        ];
        let connected = connection.connect_ns.map(|ns| connection.at_ns.saturating_add(ns));
        ConnectionRow {
            depth,
            destination: endpoint.map(EndpointSummary::label).unwrap_or_default(),
            outcome: &connection.outcome,
            established: connection.established,
            from: connection.at_ns,
            connected,
            to: connection.closed_at_ns.or(connected.filter(|_| !connection.established)),
            bad: connection.violates,
            more: about(endpoint, own),
        }
    }

    /// When its last datagram was is not known: it is a moment.
    fn of_datagrams(datagram: &'a DatagramSummary, summary: &'a Summary, depth: u32) -> Self {
        let endpoint = summary.endpoints.get(datagram.endpoint);
        let amount = |packets, bytes| {
            Some(tables::amount(packets, bytes)).filter(|amount| !amount.is_empty())
        };
        let own = [
            ("to", datagram.destination.map(|to| to.to_string())),
            ("sent", amount(datagram.sent_packets, datagram.sent_bytes)),
            ("received", amount(datagram.received_packets, datagram.received_bytes)),
        ];
        ConnectionRow {
            depth,
            destination: endpoint.map(EndpointSummary::label).unwrap_or_default(),
            outcome: &datagram.outcome,
            established: true,
            from: datagram.at_ns,
            connected: None,
            to: Some(datagram.at_ns),
            bad: datagram.violates,
            more: about(endpoint, own),
        }
    }
}

impl CallRow {
    fn of(call: &CallSummary, depth: u32) -> CallRow {
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        let setup = call.setup_ms.map(|ms| duration(nanoseconds(ms)));
        let more = [
            ("what", call.what()),
            ("over", tables::over(call)),
            ("signed by", call.signed()),
            ("request id", optional(&call.request_id)),
            ("model", optional(&call.model)),
            ("set up in", setup.unwrap_or_default()),
            ("request", format!("{} B", call.request_bytes)),
            ("response", format!("{} B", call.response_bytes)),
        ];
        let is_error = call.status.is_some_and(|status| status >= 400);
        let served = if call.served { "answered: " } else { "" };
        CallRow {
            depth,
            call: format!("{served}{} {}", call.method, call.url),
            outcome: call.outcome(),
            went_well: !is_error
                && matches!(call.outcome, CallOutcome::Complete | CallOutcome::Upgraded { .. }),
            from: call.at_ns,
            answered: call.first_byte_ns(),
            to: call.last_byte_ns(),
            more: more.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
        }
    }
}

/// What else is known of a connection, and of what it goes to.
fn about<const OWN: usize>(
    endpoint: Option<&EndpointSummary>,
    own: [(&'static str, Option<String>); OWN],
) -> Vec<(&'static str, String)> {
    let of_endpoint = endpoint.into_iter().flat_map(|endpoint| {
        [
            ("named by", endpoint.name_note()),
            ("also", tables::others_of(endpoint)),
            ("service", endpoint.catalogue.as_ref().map(tables::service).unwrap_or_default()),
        ]
    });
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    of_endpoint.filter(|(_, value)| !value.is_empty()).chain(own).collect()
}
