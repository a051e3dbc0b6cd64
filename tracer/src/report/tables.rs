//! What several formats show as a table. A new list of the summary needs its table here, and every
//! format but JSON has it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    clean::clean,
    observed::ObservedKind,
    summary::{
        CredentialSummary, DnsSummary, EndpointSummary, McpSummary, McpTransportKind,
        ProcessSummary, Summary,
    },
    words::{count, duration, name_source},
};
use crate::{catalogue::Classified, session::Named};

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
    let details = [timeline, dns].into_iter().filter(|_| thorough);
    let tables = [credentials, mcp_servers].into_iter().chain(details).map(|table| table(summary));
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
