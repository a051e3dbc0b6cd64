//! Chrome's trace event format, which ui.perfetto.dev and chrome://tracing open.
//!
//! A process is a track, each program it ran a slice on it. A connection is an asynchronous slice
//! with its handshake inside, an HTTP call one with the wait for its response inside. Times are
//! microseconds from the start of the trace, with nanoseconds behind the point.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    clean::clean,
    summary::{CallSummary, ConnectionSummary, EndpointSummary, ProcessSummary, Summary},
    tables,
    words::destination,
};

/// Linux gives pids below 2^22 (`PID_MAX_LIMIT`), so this tells the second owner of a pid from the
/// first.
const NEXT_OWNER: u64 = 1 << 22;

#[derive(Debug, Serialize)]
struct Event {
    name: String,
    /// Phase: M metadata, X complete slice, b and e the ends of an asynchronous slice, i instant.
    ph: &'static str,
    pid: u64,
    tid: u64,
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Scope of an instant: p process, g global.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    args: Value,
}

impl Event {
    fn new(
        name: impl Into<String>,
        ph: &'static str,
        track: u64,
        at_ns: u64,
        args: Value,
    ) -> Event {
        Event {
            name: name.into(),
            ph,
            pid: track,
            tid: track,
            ts: microseconds(at_ns),
            dur: None,
            cat: None,
            id: None,
            s: None,
            args,
        }
    }

    fn lasting(self, ns: u64) -> Event {
        Event { dur: Some(microseconds(ns)), ..self }
    }

    fn of(self, cat: &'static str) -> Event {
        Event { cat: Some(cat), ..self }
    }

    fn with_id(self, id: &str) -> Event {
        Event { id: Some(id.into()), ..self }
    }
}

fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// Events on their way out. They are written as they come: all of them together take many times the
/// memory of the summary.
struct Events<'a> {
    out: &'a mut dyn Write,
    are_some: bool,
    written: io::Result<()>,
}

impl Events<'_> {
    /// After an error, nothing.
    fn push(&mut self, event: Event) {
        if self.written.is_ok() {
            self.written = self.write(&event);
            self.are_some = true;
        }
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        if self.are_some {
            self.out.write_all(b",")?;
        }
        Ok(serde_json::to_writer(&mut *self.out, event)?)
    }
}

pub fn perfetto(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(br#"{"traceEvents":["#)?;
    let mut events = Events { out: &mut *out, are_some: false, written: Ok(()) };
    all(summary, &mut events);
    events.written?;
    let other = json!({
        "command": summary.command_line,
        "tracer": summary.tracer,
        "verdict": summary.verdict,
        "started_unix_ns": summary.started_unix_ns,
    });
    writeln!(out, r#"],"displayTimeUnit":"ns","otherData":{other}}}"#)
}

fn all(summary: &Summary, events: &mut Events<'_>) {
    let end_ns = end_of_trace(summary);
    let tracks = tracks(&summary.processes);
    for (place, (process, track)) in summary.processes.iter().zip(&tracks).enumerate() {
        describe(process, *track, place, events);
        programs(process, *track, end_ns, events);
    }
    for (number, connection) in summary.connections.iter().enumerate() {
        if let Some(track) = tracks.get(connection.process) {
            let endpoint = summary.endpoints.get(connection.endpoint);
            asynchronous(connection, endpoint, *track, number, end_ns, events);
        }
    }
    for datagram in &summary.datagrams {
        let endpoint = summary.endpoints.get(datagram.endpoint);
        if let (Some(track), Some(endpoint)) = (tracks.get(datagram.process), endpoint) {
            let args = json!({
                "named_by": endpoint.name_note(),
                "address": datagram.destination.map(|to| to.to_string()),
                "outcome": datagram.outcome,
                "sent_packets": datagram.sent_packets,
                "sent_bytes": datagram.sent_bytes,
                "received_packets": datagram.received_packets,
                "received_bytes": datagram.received_bytes,
            });
            let name = endpoint.label();
            let first = Event::new(name, "i", *track, datagram.at_ns, args).of("datagram");
            events.push(Event { s: Some("p"), ..first });
        }
    }
    for (number, call) in summary.calls.iter().enumerate() {
        if let Some(track) = tracks.get(call.process) {
            http_call(call, *track, number, events);
        }
    }
    for event in &summary.observed {
        let track = event.process.and_then(|place| tracks.get(place).copied());
        let args = json!({ "detail": event.detail });
        let name = format!("{}: {}", event.kind.title(), event.what);
        // Process 0 is nobody's: for what no process is known of.
        let instant = Event::new(name, "i", track.unwrap_or(0), event.at_ns, args);
        // Shown over all tracks where there is none of its own.
        let scope = if track.is_some() { "p" } else { "g" };
        events.push(Event { s: Some(scope), ..instant.of("observed") });
    }
}

/// The last moment anything is known of: for a recording that was cut short, of its last event.
pub(super) fn end_of_trace(summary: &Summary) -> u64 {
    let processes = summary.processes.iter().flat_map(|process| {
        let execs = process.execs.iter().map(|exec| exec.at_ns);
        execs.chain([process.born_at_ns, process.exited_at_ns.unwrap_or(0)])
    });
    let connections = summary
        .connections
        .iter()
        .map(|one| one.closed_at_ns.unwrap_or(one.at_ns + one.connect_ns.unwrap_or(0)));
    let calls = summary.calls.iter().filter_map(CallSummary::last_byte_ns);
    processes.chain(connections).chain(calls).chain(summary.duration_ns).max().unwrap_or(0)
}

fn tracks(processes: &[ProcessSummary]) -> Vec<u64> {
    let mut owners: BTreeMap<u32, u64> = BTreeMap::new();
    processes
        .iter()
        .map(|process| {
            let earlier = owners.entry(process.pid).or_default();
            let track = u64::from(process.pid) + *earlier * NEXT_OWNER;
            *earlier += 1;
            track
        })
        .collect()
}

fn describe(process: &ProcessSummary, track: u64, place: usize, events: &mut Events<'_>) {
    let metadata = |what: &str, args: Value| Event::new(what, "M", track, 0, args);
    events.push(metadata("process_name", json!({ "name": process.name() })));
    events.push(metadata("process_sort_index", json!({ "sort_index": place })));
    events.push(metadata("thread_name", json!({ "name": "programs" })));
    let line = process.execs.last().map_or("(fork, no exec)", |exec| exec.command_line.as_str());
    events.push(metadata("process_labels", json!({ "labels": line })));
}

/// One slice from each exec to the next, the first from birth where nothing was executed before.
fn programs(process: &ProcessSummary, track: u64, end_ns: u64, events: &mut Events<'_>) {
    let gone_ns = process.exited_at_ns.unwrap_or(end_ns);
    let first_ns = process.execs.first().map_or(gone_ns, |exec| exec.at_ns);
    let born_ns = process.born_at_ns;
    if born_ns < first_ns {
        let args = json!({ "pid": process.pid });
        let fork = Event::new("(fork)", "X", track, born_ns, args);
        events.push(fork.of("process").lasting(first_ns - born_ns));
    }
    for (index, exec) in process.execs.iter().enumerate() {
        let until_ns = process.execs.get(index + 1).map_or(gone_ns, |next| next.at_ns);
        let args = json!({
            "command_line": exec.command_line,
            "path": exec.path.as_ref().map(|path| clean(&path.0)),
            "script": exec.script.as_ref().map(|path| clean(&path.0)),
            "sha256": exec.sha256,
            "violates": exec.violates,
        });
        let slice = Event::new(exec.name(), "X", track, exec.at_ns, args);
        events.push(slice.of("exec").lasting(until_ns.saturating_sub(exec.at_ns)));
    }
    let args = json!({ "exit_code": process.exit_code, "signal": process.exit_signal });
    let last = match process.exited_at_ns {
        Some(at_ns) => Event::new("exit", "i", track, at_ns, args),
        None => Event::new("still running when the recording ends", "i", track, end_ns, args),
    };
    events.push(Event { s: Some("p"), ..last.of("process") });
}

fn asynchronous(
    connection: &ConnectionSummary,
    endpoint: Option<&EndpointSummary>,
    track: u64,
    number: usize,
    end_ns: u64,
    events: &mut Events<'_>,
) {
    let id = format!("{number:#x}");
    let to = endpoint.map_or_else(|| destination(connection.destination), EndpointSummary::label);
    let from_ns = connection.at_ns;
    let connected_ns = connection.connect_ns.map(|ns| from_ns.saturating_add(ns));
    // Without an outcome, or a close, it may have lasted until the end.
    let until_ns = match (connection.established, connection.closed_at_ns, connected_ns) {
        (_, Some(closed_ns), _) => closed_ns,
        (false, None, Some(failed_ns)) => failed_ns,
        (true, None, _) | (false, None, None) => end_ns,
    };
    let mut end = |name: &str, ph, at_ns: u64, args| {
        events.push(Event::new(name, ph, track, at_ns, args).of("connection").with_id(&id));
    };
    let service = endpoint.and_then(|endpoint| endpoint.catalogue.as_ref()).map(tables::service);
    let args = json!({
        "named_by": endpoint.map(EndpointSummary::name_note),
        "also": endpoint.map(tables::others_of),
        "service": service,
        "address": destination(connection.destination),
        "outcome": connection.outcome,
        "sent_bytes": connection.sent_bytes,
        "received_bytes": connection.received_bytes,
    });
    let until_ns = until_ns.max(from_ns);
    end(&to, "b", from_ns, args);
    if let Some(connected_ns) = connected_ns.filter(|at_ns| *at_ns <= until_ns) {
        end("connect", "b", from_ns, json!({}));
        end("connect", "e", connected_ns, json!({}));
    }
    end(&to, "e", until_ns, json!({}));
}

/// One that did not end is as long as it is known to have lasted.
fn http_call(call: &CallSummary, track: u64, number: usize, events: &mut Events<'_>) {
    let (first_ns, last_ns) = (call.first_byte_ns(), call.last_byte_ns());
    let until_ns = last_ns.or(first_ns).unwrap_or(call.at_ns);
    let id = format!("call {number:#x}");
    let name = format!("{} {}", call.method, call.url);
    let args = json!({
        "what": call.what(),
        "outcome": call.outcome(),
        "over": tables::over(call),
        "request_id": call.request_id,
        "request_bytes": call.request_bytes,
        "response_bytes": call.response_bytes,
    });
    let mut end = |name: &str, ph, at_ns: u64, args| {
        events.push(Event::new(name, ph, track, at_ns, args).of("http").with_id(&id));
    };
    end(&name, "b", call.at_ns, args);
    if let Some(first_ns) = first_ns.filter(|first_ns| *first_ns <= until_ns) {
        end("wait", "b", call.at_ns, json!({}));
        end("wait", "e", first_ns, json!({}));
    }
    end(&name, "e", until_ns, json!({}));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::fixture::{self, written};

    /// The rules of the format's description ("Trace Event Format"), for the phases used here.
    fn check(summary: &Summary) {
        let trace: Value = serde_json::from_str(&written(|out| perfetto(summary, out))).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let mut named = BTreeSet::new();
        let mut open: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
        let mut slices: BTreeMap<u64, f64> = BTreeMap::new();
        for event in events {
            let text = |field: &str| event[field].as_str().map(str::to_owned);
            let name = text("name").unwrap_or_else(|| panic!("no name: {event}"));
            let ts = event["ts"].as_f64().unwrap_or_else(|| panic!("no time: {event}"));
            let pid = event["pid"].as_u64().unwrap_or_else(|| panic!("no pid: {event}"));
            assert!(event["tid"].is_u64() && ts >= 0.0 && event["args"].is_object(), "{event}");
            match event["ph"].as_str().unwrap() {
                "M" => {
                    let args = &event["args"];
                    match &*name {
                        "process_name" | "thread_name" => assert!(args["name"].is_string()),
                        "process_labels" => assert!(args["labels"].is_string()),
                        "process_sort_index" => assert!(args["sort_index"].is_u64()),
                        other => panic!("no such metadata: {other}"),
                    }
                    named.insert((pid, name));
                }
                "X" => {
                    let dur = event["dur"].as_f64().unwrap();
                    // Slices of one thread must nest; these follow one another.
                    let before = slices.insert(pid, ts + dur).unwrap_or(0.0);
                    assert!(dur >= 0.0 && ts >= before - 1e-3, "{event} overlaps {before}");
                }
                "i" => assert!(["g", "p", "t"].contains(&event["s"].as_str().unwrap())),
                "b" => {
                    assert!(event["cat"].is_string(), "{event}");
                    open.entry(text("id").unwrap()).or_default().push((name, ts));
                }
                "e" => {
                    let (began, at) = open.get_mut(&text("id").unwrap()).unwrap().pop().unwrap();
                    assert!(began == name && ts >= at, "{event}");
                }
                other => panic!("no such phase: {other}"),
            }
        }
        assert!(open.values().all(Vec::is_empty), "{open:?}");
        let of_processes = events.iter().filter(|event| event["s"] != "g");
        let pids: BTreeSet<u64> =
            of_processes.map(|event| event["pid"].as_u64().unwrap()).collect();
        for pid in &pids {
            assert!(named.contains(&(*pid, "process_name".into())), "{pid} has no name");
        }
        assert_eq!(pids.len(), summary.processes.len());
        let asynchronous = events.iter().filter(|event| event["ph"] == "b");
        assert!(asynchronous.count() >= summary.connections.len());
    }

    #[test]
    fn the_rules_of_the_format_hold() {
        for (_, summary) in fixture::all() {
            check(&summary);
        }
    }

    #[test]
    fn a_pid_that_was_used_twice_has_two_tracks() {
        let mut summary = fixture::hostile();
        for process in &mut summary.processes {
            process.pid = 7;
        }
        check(&summary);
    }
}
