//! What several formats show as a table. A new list of the summary needs its table here, and every
//! format but JSON has it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    clean::clean,
    observed::ObservedKind,
    summary::{
        CallSummary, CredentialSummary, DnsSummary, EndpointSummary, McpSummary, McpTransportKind,
        ProcessSummary, Summary, nanoseconds,
    },
    words::{count, duration, name_source},
};
use crate::{catalogue::Classified, record::schema::JoinedBy, session::Named};

/// What stands in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Cells {
    /// Words of tracer's own.
    Words,
    /// What traced programs, or somebody else, have chosen.
    Code,
    Number,
}

/// Cells are fit to be shown.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) head: Vec<(&'static str, Cells)>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// Without the columns of these titles.
    pub(super) fn without(mut self, titles: &[&str]) -> Table {
        let keep: Vec<bool> = self.head.iter().map(|(title, _)| !titles.contains(title)).collect();
        let mut kept = keep.iter();
        self.head.retain(|_| *kept.next().unwrap_or(&true));
        for row in &mut self.rows {
            let mut kept = keep.iter();
            row.retain(|_| *kept.next().unwrap_or(&true));
        }
        self
    }
}

/// A table for each list that is not empty, besides endpoints and programs: the most telling first.
/// `thorough`: also what led to what the others say.
pub(super) fn others(summary: &Summary, thorough: bool) -> Vec<Table> {
    let calls = if thorough { calls } else { call_groups };
    let details = [timeline, dns].into_iter().filter(|_| thorough);
    let tables = [calls, credentials, mcp_servers].into_iter().chain(details);
    let tables = tables.map(|table| table(summary));
    let observed = ObservedKind::ALL.into_iter().map(|kind| observed(summary, kind));
    tables.chain(observed).filter(|table| !table.rows.is_empty()).collect()
}

fn credentials(summary: &Summary) -> Table {
    let row = |one: &CredentialSummary| {
        vec![label(summary, Some(one.process)), one.provider.clone(), one.conclusion.clone()]
    };
    Table {
        title: "Credentials",
        head: [("process", Cells::Code), ("provider", Cells::Code), ("conclusion", Cells::Words)]
            .into(),
        rows: summary.credentials.iter().map(row).collect(),
    }
}

/// One row for each call.
fn calls(summary: &Summary) -> Table {
    let row = |call: &CallSummary| {
        vec![
            duration(call.at_ns),
            call.method.clone(),
            call.url.clone(),
            call.what(),
            call.outcome(),
            ms(call.ttfb_ms),
            ms(call.total_ms),
            format!("{} B", call.request_bytes),
            format!("{} B", call.response_bytes),
            call.signed(),
            call.request_id.clone().unwrap_or_default(),
            over(call),
            who_made(summary, call),
        ]
    };
    Table {
        title: "HTTP calls",
        head: vec![
            ("at", Cells::Number),
            ("method", Cells::Code),
            ("URL", Cells::Code),
            ("what", Cells::Code),
            ("outcome", Cells::Code),
            ("first byte", Cells::Number),
            ("total", Cells::Number),
            ("request", Cells::Number),
            ("response", Cells::Number),
            ("signed by", Cells::Words),
            ("request id", Cells::Code),
            ("over", Cells::Code),
            ("process", Cells::Code),
        ],
        rows: summary.calls.iter().map(row).collect(),
    }
}

/// One row for calls that differ in their times and ids only.
fn call_groups(summary: &Summary) -> Table {
    let mut groups: BTreeMap<_, Vec<&CallSummary>> = BTreeMap::new();
    let mut order = Vec::new();
    for call in &summary.calls {
        let url = call.url.split('?').next().unwrap_or_default();
        let key = (call.process, call.served, &call.method, url, call.outcome(), call.what());
        let group = groups.entry(key.clone()).or_default();
        if group.is_empty() {
            order.push(key);
        }
        group.push(call);
    }
    let mean = |calls: &[&CallSummary], of: fn(&CallSummary) -> Option<f64>| {
        let values: Vec<f64> = calls.iter().filter_map(|call| of(call)).collect();
        let sum: f64 = values.iter().sum();
        ms((!values.is_empty()).then(|| sum / values.len() as f64))
    };
    let row = |key: &(usize, bool, &String, &str, String, String)| {
        let calls = groups.get(key).map(Vec::as_slice).unwrap_or_default();
        let (_, _, method, url, outcome, what) = key;
        vec![
            calls.len().to_string(),
            format!("{method} {url}"),
            what.clone(),
            outcome.clone(),
            mean(calls, |call| call.ttfb_ms),
            mean(calls, |call| call.total_ms),
            calls.first().map(|call| who_made(summary, call)).unwrap_or_default(),
        ]
    };
    Table {
        title: "HTTP calls",
        head: vec![
            ("calls", Cells::Number),
            ("call", Cells::Code),
            ("what", Cells::Code),
            ("outcome", Cells::Code),
            ("first byte", Cells::Number),
            ("total", Cells::Number),
            ("process", Cells::Code),
        ],
        rows: order.iter().map(row).collect(),
    }
}

fn who_made(summary: &Summary, call: &CallSummary) -> String {
    let who = label(summary, Some(call.process));
    if call.served { format!("answered by {who}") } else { who }
}

/// What it went over, and how certain that is.
pub(super) fn over(call: &CallSummary) -> String {
    let stream = call.http2_stream.map(|stream| format!(" stream {stream}")).unwrap_or_default();
    let plain = if call.plaintext { " without TLS" } else { "" };
    let connection = match (call.connection, call.connection_by) {
        (Some(place), Some(JoinedBy::Exact)) => format!(", connection {place}"),
        (Some(place), Some(JoinedBy::Inferred)) => format!(", connection {place} (inferred)"),
        (Some(_), None) | (None, _) => String::new(),
    };
    format!("HTTP/{}{stream}{plain}{connection}", call.http_version)
}

/// Milliseconds, where they are known.
fn ms(ms: Option<f64>) -> String {
    ms.map(|ms| duration(nanoseconds(ms))).unwrap_or_default()
}

fn timeline(summary: &Summary) -> Table {
    let rows = summary.credentials.iter().flat_map(|one| {
        one.steps.iter().map(|step| {
            let at = match step.after_ns {
                Some(after_ns) => format!("{} to {}", duration(after_ns), duration(step.at_ns)),
                None => duration(step.at_ns),
            };
            let who = label(summary, Some(one.process));
            vec![who, one.provider.clone(), at, step.what.clone()]
        })
    });
    Table {
        title: "Credential timeline",
        head: vec![
            ("process", Cells::Code),
            ("provider", Cells::Code),
            ("when", Cells::Number),
            ("what it did", Cells::Code),
        ],
        rows: rows.collect(),
    }
}

fn mcp_servers(summary: &Summary) -> Table {
    let row = |server: &McpSummary| {
        let transport = match server.transport {
            McpTransportKind::Stdio => "stdio",
            McpTransportKind::Http => "HTTP",
        };
        vec![
            server.name.clone(),
            transport.into(),
            server.reached(),
            label(summary, server.process),
            server.client.map_or_else(|| "outside".into(), |at| label(summary, Some(at))),
        ]
    };
    Table {
        title: "MCP servers",
        head: vec![
            ("name", Cells::Code),
            ("over", Cells::Words),
            ("reached at", Cells::Code),
            ("server process", Cells::Code),
            ("client", Cells::Code),
        ],
        rows: summary.mcp_servers.iter().map(row).collect(),
    }
}

/// Of a place in the list of processes.
fn label(summary: &Summary, place: Option<usize>) -> String {
    let process = place.and_then(|place| summary.processes.get(place));
    process.map_or_else(String::new, ProcessSummary::label)
}

/// `thorough`: with further names where there is no need for them too.
pub(super) fn endpoints(summary: &Summary, thorough: bool) -> Table {
    let row = |endpoint: &EndpointSummary| {
        let also = thorough || endpoint.disagree || !endpoint.says_its_name();
        vec![
            endpoint.label(),
            endpoint.name_note(),
            if also { others_of(endpoint) } else { String::new() },
            endpoint.catalogue.as_ref().map(service).unwrap_or_default(),
            addresses(endpoint),
            outcomes(endpoint),
            endpoint.fastest_connect_ns.map(duration).unwrap_or_default(),
            amount(endpoint.sent_packets, endpoint.sent_bytes),
            amount(endpoint.received_packets, endpoint.received_bytes),
            who(summary, &endpoint.processes),
        ]
    };
    Table {
        title: "Endpoints",
        head: vec![
            ("endpoint", Cells::Code),
            ("named by", Cells::Words),
            ("also", Cells::Code),
            ("service", Cells::Code),
            ("address", Cells::Code),
            ("outcome", Cells::Words),
            ("connect", Cells::Number),
            ("sent", Cells::Number),
            ("received", Cells::Number),
            ("process", Cells::Code),
        ],
        rows: summary.endpoints.iter().map(row).collect(),
    }
}

fn dns(summary: &Summary) -> Table {
    let row = |question: &DnsSummary| {
        let mut answers = few(question.answers.iter().cloned());
        if question.truncated {
            answers.push_str(" (and more)");
        }
        let codes =
            question.codes.iter().filter(|(code, _)| *code != "NOERROR" && *code != "found");
        let mut outcome: Vec<String> =
            codes.map(|(code, times)| format!("{times} x {code}")).collect();
        let answered: u64 = question.codes.values().sum();
        if answered < question.asked {
            outcome.push(format!("{} without an answer", question.asked - answered));
        }
        vec![
            question.name.clone(),
            question.of.clone(),
            question.asked.to_string(),
            answers,
            outcome.join(", "),
            few(question.servers.iter().map(ToString::to_string)),
            who(summary, &question.processes),
        ]
    };
    Table {
        title: "Names that were looked up",
        head: vec![
            ("name", Cells::Code),
            ("type", Cells::Code),
            ("asked", Cells::Number),
            ("answers", Cells::Code),
            ("outcome", Cells::Code),
            ("server", Cells::Code),
            ("process", Cells::Code),
        ],
        rows: summary.dns.iter().map(row).collect(),
    }
}

fn observed(summary: &Summary, kind: ObservedKind) -> Table {
    let events = summary.observed.iter().filter(|event| event.kind == kind);
    let rows = events.map(|event| {
        let process = event.process.and_then(|place| summary.processes.get(place));
        let who = process.map_or("unknown process".into(), ProcessSummary::label);
        vec![duration(event.at_ns), event.what.clone(), event.detail.clone(), who]
    });
    let code = |title| (title, Cells::Code);
    Table {
        title: kind.title(),
        head: vec![("at", Cells::Number), code("what"), code("how"), code("process")],
        rows: rows.collect(),
    }
}

/// `bedrock-runtime, us-east-1 (api)`
pub(crate) fn service(found: &Classified) -> String {
    let region = found.region.as_ref().map(|region| format!(", {region}")).unwrap_or_default();
    let perhaps = if found.guess { "perhaps " } else { "" };
    let words = format!("{perhaps}{}{region} ({})", found.service, found.class.name());
    clean(words.as_bytes())
}

/// Those of an endpoint with a name; else they are what it is called.
pub(super) fn addresses(endpoint: &EndpointSummary) -> String {
    match endpoint.name {
        Some(_) => few(endpoint.addresses.iter().map(|to| to.address.to_string())),
        None => String::new(),
    }
}

/// The other names, with what they rest on.
pub(super) fn others_of(endpoint: &EndpointSummary) -> String {
    let mut by_source: BTreeMap<_, Vec<&Named>> = BTreeMap::new();
    for other in &endpoint.other_names {
        by_source.entry(other.source).or_default().push(other);
    }
    let parts = by_source.into_iter().map(|(source, names)| {
        let names = few(names.into_iter().map(|named| named.name.clone()));
        format!("{names} ({})", name_source(source))
    });
    parts.collect::<Vec<_>>().join(", ")
}

pub(super) fn outcomes(endpoint: &EndpointSummary) -> String {
    let times = |(outcome, times): (&String, &u64)| match times {
        1 => outcome.clone(),
        times => format!("{times} x {outcome}"),
    };
    let mut parts: Vec<String> = endpoint.outcomes.iter().map(times).collect();
    match endpoint.still_open {
        0 => {}
        open if endpoint.protocol == "tcp" => {
            parts.push(format!("{open} still open, bytes unknown"));
        }
        open => parts.push(format!("{open} not counted")),
    }
    parts.join(", ")
}

/// Empty when it is not known.
pub(super) fn amount(packets: Option<u64>, bytes: Option<u64>) -> String {
    match (bytes, packets) {
        (Some(bytes), Some(packets)) => {
            format!("{bytes} B in {}", count(packets, "packet", "packets"))
        }
        (Some(bytes), None) => format!("{bytes} B"),
        (None, _) => String::new(),
    }
}

/// The first few, and how many more there are.
fn few(all: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 4;
    let more = all.len().saturating_sub(SHOWN);
    let mut shown: Vec<String> = all.take(SHOWN).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

fn who(summary: &Summary, processes: &BTreeSet<usize>) -> String {
    few(processes.iter().map(|place| label(summary, Some(*place))))
}
