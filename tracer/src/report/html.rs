//! The report as one HTML page that needs nothing else.
//!
//! The page's script and style are files beside this one and are allowed by their digests alone;
//! nothing else may run or be loaded. The data is JSON in an element that is never executed, of
//! strings that are fit to be shown. The script puts them on the page as text.

use base64::Engine as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    clean::clean,
    perfetto::end_of_trace,
    summary::{
        ClaimSummary, ConnectionSummary, DatagramSummary, EndpointSummary, ExecSummary,
        ProcessSummary, Summary,
    },
    tables::{self, Table},
    words::{self, date, duration, status},
};
use crate::{
    policy::{Ruling, Verdict},
    session::Story,
};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// What the script gets. Times are nanoseconds from the start of the trace.
#[derive(Debug, Serialize)]
struct Data<'a> {
    ruling: Option<Ruling>,
    command: &'a str,
    totals: String,
    claims: Vec<Claim<'a>>,
    /// The end of the trace.
    span: u64,
    /// Each process before its connections and its children.
    rows: Vec<Row<'a>>,
    endpoints: Table,
    others: Vec<Table>,
    /// Path, digest and number of execs.
    programs: Vec<[String; 3]>,
    unseen: &'a [String],
    completeness: &'a [crate::policy::Requirement],
    facts: Vec<(&'static str, String)>,
}

#[derive(Debug, Serialize)]
struct Claim<'a> {
    ruling: Ruling,
    what: String,
    findings: Vec<Finding<'a>>,
    reasons: &'a [String],
}

#[derive(Debug, Serialize)]
struct Finding<'a> {
    how: &'static str,
    lineage: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<usize>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Row<'a> {
    Process(ProcessRow<'a>),
    Connection(ConnectionRow<'a>),
}

#[derive(Debug, Serialize)]
struct ProcessRow<'a> {
    depth: u32,
    pid: u32,
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
struct ExecPart<'a> {
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
struct ConnectionRow<'a> {
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

pub fn html(story: &Story, verdict: Option<&Verdict>) -> String {
    page(&data(&Summary::of(story, verdict)))
}

/// The page's parts are put in one after the other, so that no data can name a place for another.
fn page(data: &str) -> String {
    let csp = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; base-uri 'none'; form-action 'none'",
        digest(SCRIPT),
        digest(STYLE)
    );
    let mut page = String::with_capacity(PAGE.len() + STYLE.len() + SCRIPT.len() + data.len());
    let mut rest = PAGE;
    for (place, content) in
        [("{csp}", csp.as_str()), ("{style}", STYLE), ("{data}", data), ("{script}", SCRIPT)]
    {
        let (before, after) = rest.split_once(place).unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(content);
        rest = after;
    }
    page.push_str(rest);
    page
}

/// As a content security policy names what it allows.
pub(crate) fn digest(text: &str) -> String {
    format!("sha256-{}", base64::prelude::BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// JSON without a character that means anything to an HTML parser. All of them can only be in
/// strings, where an escape is as good.
#[expect(clippy::expect_used, reason = "every map of these types has strings for keys")]
fn data(summary: &Summary) -> String {
    let json = serde_json::to_string(&Data::of(summary)).expect("no map with other keys");
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            _ => out.push(character),
        }
    }
    out
}

impl<'a> Data<'a> {
    fn of(summary: &'a Summary) -> Data<'a> {
        let (rows, places) = rows(summary);
        let totals = &summary.totals;
        let took = summary.duration_ns.map(duration).unwrap_or_else(|| "no end".into());
        let ended = match &summary.command_status {
            Some(known) => status(known),
            None => "how the command ended is not known".into(),
        };
        Data {
            ruling: summary.verdict,
            command: &summary.command_line,
            totals: format!("{ended}; {}, {took}", words::totals(totals)),
            claims: summary.claims.iter().map(|claim| Claim::of(claim, &places)).collect(),
            span: end_of_trace(summary),
            rows,
            endpoints: tables::endpoints(summary, true),
            others: tables::others(summary, true),
            programs: programs(summary),
            unseen: &summary.not_seen,
            completeness: &summary.completeness,
            facts: facts(summary),
        }
    }
}

impl<'a> Claim<'a> {
    fn of(claim: &'a ClaimSummary, places: &[usize]) -> Claim<'a> {
        let violations = claim.violations.iter().map(|one| ("violated by", one));
        let allowed = claim.allowed.iter().map(|one| ("allowed by the policy:", one));
        Claim {
            ruling: claim.ruling,
            what: format!("{}: {}", claim.policy, claim.claim),
            findings: violations
                .chain(allowed)
                .map(|(how, finding)| Finding {
                    how,
                    lineage: &finding.lineage,
                    detail: &finding.detail,
                    row: finding.process.and_then(|process| places.get(process).copied()),
                })
                .collect(),
            reasons: &claim.reasons,
        }
    }
}

/// The rows, and of each process the row it is in.
fn rows(summary: &Summary) -> (Vec<Row<'_>>, Vec<usize>) {
    let mut connections: Vec<Vec<ConnectionRow<'_>>> = Vec::new();
    connections.resize_with(summary.processes.len(), Vec::new);
    let depth = |place: usize| summary.processes.get(place).map_or(0, |process| process.depth + 1);
    let of_connections = summary
        .connections
        .iter()
        .map(|one| (one.process, ConnectionRow::of(one, summary, depth(one.process))));
    let of_datagrams = summary
        .datagrams
        .iter()
        .map(|one| (one.process, ConnectionRow::of_datagrams(one, summary, depth(one.process))));
    for (process, row) in of_connections.chain(of_datagrams) {
        if let Some(of_process) = connections.get_mut(process) {
            of_process.push(row);
        }
    }
    let mut marks: Vec<Vec<u64>> = vec![Vec::new(); summary.processes.len()];
    for event in &summary.observed {
        if let Some(of_process) = event.process.and_then(|process| marks.get_mut(process)) {
            of_process.push(event.at_ns);
        }
    }
    let (mut rows, mut places) = (Vec::new(), Vec::new());
    for ((process, connections), marks) in summary.processes.iter().zip(connections).zip(marks) {
        places.push(rows.len());
        rows.push(Row::Process(ProcessRow::of(process, marks)));
        rows.extend(connections.into_iter().map(Row::Connection));
    }
    (rows, places)
}

impl<'a> ProcessRow<'a> {
    fn of(process: &'a ProcessSummary, marks: Vec<u64>) -> ProcessRow<'a> {
        let end = match (process.exited_at_ns, process.exit_code, process.exit_signal) {
            (None, ..) => "still running".into(),
            (Some(_), Some(code), _) => format!("exit {code}"),
            (Some(_), None, Some(signal)) => format!("signal {signal}"),
            (Some(_), None, None) => "exit unknown".into(),
        };
        ProcessRow {
            depth: process.depth,
            pid: process.pid,
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

fn programs(summary: &Summary) -> Vec<[String; 3]> {
    let row = |program: &super::ProgramSummary| {
        let content = match (&program.sha256, &program.unread) {
            (Some(sha256), _) => sha256.clone(),
            (None, why) => format!("not read: {}", why.as_deref().unwrap_or("no reason is known")),
        };
        [program.shown.clone(), content, program.execs.to_string()]
    };
    summary.programs.iter().map(row).collect()
}

fn facts(summary: &Summary) -> Vec<(&'static str, String)> {
    let host = &summary.host;
    let system = format!("{}, Linux {}, {}", host.name, host.kernel, host.machine);
    vec![
        ("traced", date(summary.started_unix_ns)),
        ("on", clean(system.as_bytes())),
        ("in", clean(&summary.cwd.0)),
        ("as", format!("user {}, group {}", summary.uid, summary.gid)),
        ("by", format!("tracer {}", summary.tracer)),
        ("integrity", summary.integrity.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn data_cannot_end_its_element_nor_name_a_place() {
        for (name, mut summary) in fixture::all() {
            summary.command_line.push_str("{script}{style}</script>\u{2028}");
            let data = data(&summary);
            for forbidden in ['<', '>', '&', '\u{2028}', '\u{2029}'] {
                assert!(!data.contains(forbidden), "{name}: {forbidden:?}");
            }
            assert_eq!(data.chars().find(|character| character.is_control()), None, "{name}");
            let page = page(&data);
            assert_eq!(page.matches(SCRIPT).count(), 1, "{name}");
            assert_eq!(page.matches("</script>").count(), 2, "{name}");
            let (_, rest) = page.split_once("id=\"data\">").unwrap();
            let (json, _) = rest.split_once("</script>").unwrap();
            let read: serde_json::Value = serde_json::from_str(json).unwrap();
            assert!(read["command"].as_str().unwrap().ends_with("</script>\u{2028}"));
        }
    }

    #[test]
    fn every_place_is_filled_and_the_policy_names_what_is_there() {
        let page = page("{}");
        for place in ["{csp}", "{style}", "{data}", "{script}"] {
            assert!(PAGE.contains(place) && !page.contains(place), "{place}");
        }
        for (element, text) in [("style", STYLE), ("script", SCRIPT)] {
            assert!(page.contains(&format!("<{element}>{text}</{element}>")));
            assert!(page.contains(&format!("{element}-src '{}'", digest(text))));
            assert!(!text.contains(&format!("</{element}")));
        }
    }

    /// The script has no way to make markup of a string.
    #[test]
    fn strings_become_text_only() {
        for way in
            ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function("]
        {
            assert!(!SCRIPT.contains(way), "{way}");
        }
    }
}
