//! The comparison as tables, which every format but JSON shows.

use std::collections::BTreeMap;

use super::{
    CallsSummary, Comparison, GroupSummary, LatencyDifference, Quantiles, Repeated, Seen, Spread,
    Verdicts,
};
use crate::{
    catalogue::EndpointClass,
    report::{clean, duration},
};

/// A head and rows. Cells are fit to be shown.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) title: &'static str,
    /// Columns, and whether they are numbers.
    pub(super) head: &'static [(&'static str, bool)],
    pub(super) rows: Vec<Vec<String>>,
    /// What stands there when there are no rows.
    pub(super) none: &'static str,
    /// How to read it; may be empty.
    pub(super) note: &'static str,
}

pub(super) fn tables(comparison: &Comparison) -> Vec<Table> {
    let tables = [
        recordings(comparison),
        unused(comparison),
        repeated(comparison),
        per_session(comparison),
        latency(comparison),
        differences(comparison),
        calls(comparison),
        call_times(comparison),
        call_differences(comparison),
        urls(comparison),
        request_ids(comparison),
        endpoints(comparison),
        classes(comparison),
        credentials(comparison),
        programs(comparison),
    ];
    // All recordings in order is no news; every other empty table is.
    tables.into_iter().filter(|table| !(table.rows.is_empty() && table.none.is_empty())).collect()
}

fn name(group: &str) -> String {
    clean(group.as_bytes())
}

fn recordings(comparison: &Comparison) -> Table {
    let row = |group: &GroupSummary| {
        let verdicts: Vec<String> =
            group.verdicts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
        vec![
            name(&group.name),
            group.recordings.to_string(),
            group.unused.len().to_string(),
            verdicts.join(", "),
        ]
    };
    Table {
        title: "Recordings",
        head: &[("group", false), ("used", true), ("not used", true), ("verdicts", false)],
        rows: comparison.groups.iter().map(row).collect(),
        none: "none",
        note: match comparison.verdicts {
            Verdicts::Computed => {
                "Verdicts are computed from the events, not taken from the recordings."
            }
            Verdicts::Recorded => {
                "Verdicts are what the recordings say of themselves; `tracer verify` computes them \
                 from the events."
            }
        },
    }
}

fn unused(comparison: &Comparison) -> Table {
    let rows = comparison.groups.iter().flat_map(|group| {
        group
            .unused
            .iter()
            .map(|unused| vec![name(&group.name), unused.recording.clone(), unused.reason.clone()])
    });
    Table {
        title: "Not used",
        head: &[("group", false), ("recording", false), ("why", false)],
        rows: rows.collect(),
        none: "",
        note: "No number below contains anything of these.",
    }
}

fn repeated(comparison: &Comparison) -> Table {
    const SHOWN: usize = 4;
    let row = |same: &Vec<Repeated>| {
        let shown = same.iter().take(SHOWN);
        let mut names: Vec<String> =
            shown.map(|one| format!("{} ({})", one.recording, name(&one.group))).collect();
        if same.len() > SHOWN {
            names.push(format!("and {} more", same.len() - SHOWN));
        }
        vec![same.len().to_string(), names.join(", ")]
    };
    Table {
        title: "Sessions that count more than once",
        head: &[("times", true), ("recordings of the same session", false)],
        rows: comparison.repeated.iter().map(row).collect(),
        none: "",
        note: "Every number below takes each of them for a session of its own.",
    }
}

/// What is compared stands side by side.
fn per_session(comparison: &Comparison) -> Table {
    type Of = fn(&GroupSummary) -> &Spread;
    let measures: [(&str, Of); 4] = [
        ("connections", |group| &group.connections_per_session),
        ("datagram destinations", |group| &group.datagrams_per_session),
        ("processes started", |group| &group.processes_per_session),
        ("programs run", |group| &group.execs_per_session),
    ];
    let rows = measures.into_iter().flat_map(|(what, of)| {
        comparison.groups.iter().map(move |group| {
            let spread = of(group);
            vec![
                what.into(),
                name(&group.name),
                format!("{:.1}", spread.mean()),
                spread.min.to_string(),
                spread.max.to_string(),
            ]
        })
    });
    Table {
        title: "Per session",
        head: &[("what", false), ("group", false), ("mean", true), ("min", true), ("max", true)],
        rows: rows.collect(),
        none: "none",
        note: "",
    }
}

fn latency(comparison: &Comparison) -> Table {
    let rows = comparison.groups.iter().filter_map(|group| {
        let latency = group.connect_latency_ns?;
        let quantiles = [latency.min, latency.median, latency.p95, latency.max];
        let mut row = vec![name(&group.name), latency.count.to_string()];
        row.push(signed_duration(latency.mean));
        row.extend(quantiles.map(duration));
        Some(row)
    });
    Table {
        title: "Connect latency",
        head: &[
            ("group", false),
            ("connections", true),
            ("mean", true),
            ("min", true),
            ("median", true),
            ("p95", true),
            ("max", true),
        ],
        rows: rows.collect(),
        none: "no connection was established",
        note: "From the attempt to an established connection. Quantiles are exact to 0.1 %.",
    }
}

fn differences(comparison: &Comparison) -> Table {
    Table {
        title: "Difference of mean connect latency",
        head: DIFFERENCE,
        rows: difference_rows(&comparison.latency_differences, "connections"),
        none: "",
        note: INTERVAL,
    }
}

const DIFFERENCE: &[(&str, bool)] =
    &[("group", false), ("minus", false), ("difference", true), ("95 % interval", false)];
const INTERVAL: &str =
    "The interval is a bootstrap over sessions; one that contains zero shows no difference.";

fn difference_rows(differences: &[LatencyDifference], of_what: &str) -> Vec<Vec<String>> {
    let rows = differences.iter().map(|row| {
        let difference = row.difference.map(|difference| signed_duration(difference.mean));
        let interval = row
            .difference
            .and_then(|difference| difference.interval)
            .map(|(low, high)| format!("{} to {}", signed_duration(low), signed_duration(high)));
        vec![
            name(&row.group),
            name(&row.from),
            difference.unwrap_or_else(|| format!("unknown: one has no {of_what}")),
            interval.unwrap_or_else(|| "unknown: it takes two sessions of each".into()),
        ]
    });
    rows.collect()
}

/// Groups whose sessions recorded calls.
fn with_calls(comparison: &Comparison) -> impl Iterator<Item = (&GroupSummary, &CallsSummary)> {
    comparison.groups.iter().filter_map(|group| Some((group, group.calls.as_ref()?)))
}

fn calls(comparison: &Comparison) -> Table {
    type Of = fn(&CallsSummary) -> &Spread;
    let measures: [(&str, Of); 3] = [
        ("HTTP calls", |calls| &calls.calls_per_session),
        ("calls to APIs", |calls| &calls.api_calls_per_session),
        ("calls to MCP servers", |calls| &calls.mcp_calls_per_session),
    ];
    let row = |what: &str, group: &GroupSummary, calls: &CallsSummary, values: &[String]| {
        let mut row = vec![what.to_owned(), name(&group.name), calls.sessions.to_string()];
        row.extend(values.iter().cloned());
        row.resize(6, String::new());
        row
    };
    let mut rows = Vec::new();
    for (what, of) in measures {
        rows.extend(with_calls(comparison).map(|(group, calls)| {
            let spread = of(calls);
            let [min, max] = [spread.min, spread.max].map(|value| value.to_string());
            row(what, group, calls, &[format!("{:.1}", spread.mean()), min, max])
        }));
    }
    rows.extend(with_calls(comparison).map(|(group, calls)| {
        row("unique URLs, in all sessions", group, calls, &[calls.urls.len().to_string()])
    }));
    Table {
        title: "HTTP calls per session",
        head: &[
            ("what", false),
            ("group", false),
            ("sessions", true),
            ("mean", true),
            ("min", true),
            ("max", true),
        ],
        rows,
        none: "",
        note: "Of sessions that recorded calls (`tracer run --http`). URLs count without their queries.",
    }
}

fn call_times(comparison: &Comparison) -> Table {
    let rows = with_calls(comparison).flat_map(|(group, calls)| {
        let row = |what: &str, times: Option<Quantiles>| {
            let times = times?;
            let mut row = vec![name(&group.name), what.to_owned(), times.count.to_string()];
            row.push(signed_duration(times.mean));
            row.extend([times.min, times.median, times.p95, times.max].map(duration));
            Some(row)
        };
        [row("to the first byte", calls.api_ttfb_ns), row("to the last", calls.api_total_ns)]
    });
    Table {
        title: "Time of calls to APIs",
        head: &[
            ("group", false),
            ("what", false),
            ("calls", true),
            ("mean", true),
            ("min", true),
            ("median", true),
            ("p95", true),
            ("max", true),
        ],
        rows: rows.flatten().collect(),
        none: "",
        note: "From the first byte of the request to that of the response's head, and to the last of \
               its body. Quantiles are exact to 0.1 %.",
    }
}

fn call_differences(comparison: &Comparison) -> Table {
    Table {
        title: "Difference of the mean time of calls to APIs",
        head: DIFFERENCE,
        rows: difference_rows(&comparison.call_differences, "such calls"),
        none: "",
        note: INTERVAL,
    }
}

fn urls(comparison: &Comparison) -> Table {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (group, calls) in with_calls(comparison) {
        let only = comparison.urls_only_in.get(&group.name);
        for (url, seen) in &calls.urls {
            rows.push(seen_row(comparison, (group, calls.sessions), url, seen, only));
        }
    }
    rows.sort_by(|one, other| one[0].cmp(&other[0]));
    Table {
        title: "URLs",
        head: &[
            ("URL", false),
            ("group", false),
            ("sessions", true),
            ("calls", true),
            ("seen", false),
        ],
        rows,
        none: "",
        note: "Without their queries.",
    }
}

fn request_ids(comparison: &Comparison) -> Table {
    let rows = with_calls(comparison).flat_map(|(group, calls)| {
        calls.api_request_ids.iter().map(|id| vec![name(&group.name), id.clone()])
    });
    Table {
        title: "Request ids of calls to APIs",
        head: &[("group", false), ("id", false)],
        rows: rows.collect(),
        none: "",
        note: "The first 1,000 of each group.",
    }
}

fn endpoints(comparison: &Comparison) -> Table {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for group in &comparison.groups {
        for (endpoint, known) in &group.endpoints {
            let only = comparison.endpoints_only_in.get(&group.name);
            let mut row =
                seen_row(comparison, (group, group.recordings), endpoint, &known.seen, only);
            row.insert(1, known.service.clone().unwrap_or_default());
            rows.push(row);
        }
    }
    rows.sort_by(|one, other| one[0].cmp(&other[0]));
    Table {
        title: "Endpoints",
        head: &[
            ("endpoint", false),
            ("service", false),
            ("group", false),
            ("sessions", true),
            ("contacts", true),
            ("seen", false),
        ],
        rows,
        none: "no connection was attempted",
        note: "By name where something named them. Contacts are connections and destinations of \
               datagrams.",
    }
}

/// With those of which there is none: zero is an answer too.
fn classes(comparison: &Comparison) -> Table {
    let mut rows = Vec::new();
    for class in EndpointClass::ALL {
        for group in &comparison.groups {
            let of_class = group.endpoints.values().filter(|known| known.class == Some(class));
            let seen = group.classes.get(&class).copied().unwrap_or_default();
            rows.push(vec![
                class.name().into(),
                name(&group.name),
                of_class.count().to_string(),
                format!("{} of {}", seen.sessions, group.recordings),
                seen.times.to_string(),
            ]);
        }
    }
    Table {
        title: "Classes of endpoints",
        head: &[
            ("class", false),
            ("group", false),
            ("endpoints", true),
            ("sessions", true),
            ("contacts", true),
        ],
        rows,
        none: "",
        note: "As the catalogue has them. What it does not know is in none of them.",
    }
}

fn credentials(comparison: &Comparison) -> Table {
    Table {
        title: "Credential sources",
        head: &[
            ("source", false),
            ("group", false),
            ("sessions", true),
            ("times", true),
            ("seen", false),
        ],
        rows: seen(comparison, |group| &group.credentials, &comparison.credentials_only_in),
        none: "no watched source was opened, and none was in an environment",
        note: "That a source was there does not say that it was used.",
    }
}

fn programs(comparison: &Comparison) -> Table {
    Table {
        title: "Programs",
        head: &[
            ("program", false),
            ("group", false),
            ("sessions", true),
            ("execs", true),
            ("seen", false),
        ],
        rows: seen(comparison, |group| &group.programs, &comparison.programs_only_in),
        none: "no program was run",
        note: "",
    }
}

/// One row for each thing and group, and what is special about the pair.
fn seen(
    comparison: &Comparison,
    of: impl Fn(&GroupSummary) -> &BTreeMap<String, Seen>,
    only_in: &BTreeMap<String, Vec<String>>,
) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for group in &comparison.groups {
        let only = only_in.get(&group.name);
        for (thing, seen) in of(group) {
            rows.push(seen_row(comparison, (group, group.recordings), thing, seen, only));
        }
    }
    rows.sort_by(|one, other| one[0].cmp(&other[0]));
    rows
}

fn seen_row(
    comparison: &Comparison,
    (group, sessions): (&GroupSummary, u64),
    thing: &str,
    seen: &Seen,
    only: Option<&Vec<String>>,
) -> Vec<String> {
    let mut special = Vec::new();
    let is_here = |only: &Vec<String>| only.iter().any(|name| name == thing);
    if comparison.groups.len() > 1 && only.is_some_and(is_here) {
        special.push("only in this group");
    }
    if seen.sessions < sessions {
        special.push("only in some sessions");
    }
    vec![
        thing.to_owned(),
        name(&group.name),
        format!("{} of {sessions}", seen.sessions),
        seen.times.to_string(),
        special.join(", "),
    ]
}

/// Whole nanoseconds, with a minus sign where there is one.
fn signed_duration(ns: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rounded absolute value; the cast saturates"
    )]
    let text = duration(ns.abs().round() as u64);
    if ns < 0.0 && text != "0 ns" { format!("-{text}") } else { text }
}
