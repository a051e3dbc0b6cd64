//! The text report: the verdict first, then what it rests on.

use std::collections::BTreeMap;

use super::{
    clean::{clean, command_line},
    columns::{Column, table},
    observed::{Observed, ObservedKind, observed},
    paint::Paint,
    tree::{Tree, marked},
    words::{count, duration, label, lineage, not_seen, outcome, status},
};
use crate::{
    model::{Endpoint, ProcessKey},
    policy::{ClaimVerdict, Ruling, Verdict, completeness},
    record::schema::Close,
    session::{Connection, Story},
};

/// How much to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// After a run: long lists are cut.
    Summary,
    /// Everything.
    Full,
}

impl Detail {
    fn limit(self) -> usize {
        const SUMMARY_LINES: usize = 40;
        match self {
            Detail::Summary => SUMMARY_LINES,
            Detail::Full => usize::MAX,
        }
    }
}

pub fn text(story: &Story, verdict: Option<&Verdict>, detail: Detail, paint: Paint) -> String {
    let mut out = Vec::new();
    headline(story, verdict, paint, &mut out);
    if let Some(verdict) = verdict {
        section("Claims", paint, &mut out);
        for claim in &verdict.claims {
            claim_lines(story, claim, detail, paint, &mut out);
        }
    }
    section("Processes", paint, &mut out);
    out.extend(Tree::lines(story, paint, marked(verdict), detail.limit()));
    section("TCP connections", paint, &mut out);
    connections(story, detail, paint, &mut out);
    for kind in ObservedKind::ALL {
        let events = observed(story, kind);
        if !events.is_empty() {
            section(kind.title(), paint, &mut out);
            observations(story, &events, detail, paint, &mut out);
        }
    }
    section("What could not be seen", paint, &mut out);
    out.extend(not_seen(story).into_iter().map(|line| format!("  {line}")));
    section("Completeness", paint, &mut out);
    let lines =
        verdict.map_or_else(|| completeness(story, false), |verdict| verdict.completeness.clone());
    for line in &lines {
        let mark = if line.holds { "ok" } else { "NO" };
        if line.holds && detail == Detail::Summary {
            continue;
        }
        let mark = if line.holds { paint.dim(mark) } else { paint.bad(mark) };
        out.push(format!("  {mark} {}: {}", line.name, clean(line.detail.as_bytes())));
    }
    let holding = lines.iter().filter(|line| line.holds).count();
    if detail == Detail::Summary {
        out.push(format!("  {holding} of {} requirements hold", lines.len()));
    }
    out.push(String::new());
    out.join("\n")
}

fn section(title: &str, paint: Paint, out: &mut Vec<String>) {
    out.push(String::new());
    out.push(paint.bold(title));
}

fn headline(story: &Story, verdict: Option<&Verdict>, paint: Paint, out: &mut Vec<String>) {
    let ruling = match verdict {
        Some(verdict) => paint.ruling(verdict.overall, &verdict.overall.name().to_uppercase()),
        None => paint.bold("TRACED (no policy)"),
    };
    let command = command_line(&story.start.command);
    let status = story.end.as_ref().map_or("not known".into(), |end| status(&end.command_status));
    out.push(format!("{ruling}  {command}"));
    let took = story.end.as_ref().map(|end| duration(end.t_ns.saturating_sub(story.start.t_ns)));
    out.push(format!(
        "  {status}; {}, {}, {}{}",
        count(story.processes.len() as u64, "process", "processes"),
        count(story.execs, "exec", "execs"),
        count(story.connections.len() as u64, "TCP connection", "TCP connections"),
        took.map(|took| format!(", {took}")).unwrap_or_default()
    ));
}

fn claim_lines(
    story: &Story,
    claim: &ClaimVerdict,
    detail: Detail,
    paint: Paint,
    out: &mut Vec<String>,
) {
    let ruling = paint.ruling(claim.ruling, &format!("{:<12}", claim.ruling.name()));
    let what = format!("{}: {}", claim.policy, claim.claim);
    out.push(format!("  {ruling}  {}", clean(what.as_bytes())));
    let mut rows = Vec::new();
    for violation in &claim.violations {
        rows.push(format!("violated by {}", lineage(story, violation.process, violation.t_ns)));
        rows.push(format!("  it {}", clean(violation.detail.as_bytes())));
    }
    if claim.ruling != Ruling::Proven {
        let reasons = claim.reasons.iter().map(|reason| clean(reason.as_bytes()));
        rows.extend(reasons.map(|reason| format!("because {reason}")));
    }
    for allowed in &claim.allowed {
        rows.push(format!("allowed: {}", lineage(story, allowed.process, allowed.t_ns)));
    }
    let hidden = rows.len().saturating_sub(detail.limit());
    rows.truncate(detail.limit());
    out.extend(rows.into_iter().map(|row| format!("                {row}")));
    if hidden > 0 {
        out.push(format!("                ... and {hidden} more lines"));
    }
}

/// One line per process and destination.
fn connections(story: &Story, detail: Detail, paint: Paint, out: &mut Vec<String>) {
    let mut groups: BTreeMap<(ProcessKey, Option<Endpoint>), Vec<&Connection>> = BTreeMap::new();
    for connection in &story.connections {
        groups.entry((connection.process, connection.destination)).or_default().push(connection);
    }
    if groups.is_empty() {
        out.push("  none".into());
        return;
    }
    let shown = groups.len().min(detail.limit());
    let rows = groups.iter().take(shown).map(|((process, destination), group)| {
        let destination = destination.map_or("unreadable address".into(), |to| to.to_string());
        let Traffic { outcomes, connected, sent, received, open } = traffic(group);
        vec![destination, outcomes, connected, sent, received, open, label(story, *process)]
    });
    let columns = [
        Column::left("destination"),
        Column::left("outcome"),
        Column::right("connect"),
        Column::right("sent"),
        Column::right("received"),
        Column::left(""),
        Column::left("process"),
    ];
    out.extend(table(&columns, &rows.collect::<Vec<_>>(), paint));
    if groups.len() > shown {
        out.push(format!("  ... and {} more", groups.len() - shown));
    }
}

/// One line per event.
fn observations(
    story: &Story,
    events: &[Observed],
    detail: Detail,
    paint: Paint,
    out: &mut Vec<String>,
) {
    let shown = events.len().min(detail.limit());
    let rows = events.iter().take(shown).map(|event| {
        let who = event.process.map_or("unknown process".into(), |key| label(story, key));
        vec![event.what.clone(), event.detail.clone(), who]
    });
    let columns = ["what", "how", "process"].map(Column::left);
    out.extend(table(&columns, &rows.collect::<Vec<_>>(), paint));
    if events.len() > shown {
        out.push(format!("  ... and {} more", events.len() - shown));
    }
}

/// Cells of a group of connections; empty where there is nothing to say.
struct Traffic {
    outcomes: String,
    connected: String,
    sent: String,
    received: String,
    open: String,
}

fn traffic(group: &[&Connection]) -> Traffic {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for connection in group {
        *kinds.entry(outcome(connection)).or_default() += 1;
    }
    let outcomes: Vec<String> = kinds
        .into_iter()
        .map(|(kind, count)| if count == 1 { kind } else { format!("{count} x {kind}") })
        .collect();
    let established: Vec<_> = group.iter().filter(|one| one.is_established()).collect();
    let fastest = established.iter().filter_map(|one| one.result.as_ref()?.connect_ns).min();
    let bytes = |field: fn(&Close) -> Option<u64>| {
        let known: Vec<u64> =
            established.iter().filter_map(|one| field(one.close.as_ref()?)).collect();
        match known.len() {
            0 => String::new(),
            _ => format!("{} B", known.iter().sum::<u64>()),
        }
    };
    let open = established.iter().filter(|one| one.close.is_none()).count();
    Traffic {
        outcomes: outcomes.join(", "),
        connected: fastest.map(duration).unwrap_or_default(),
        sent: bytes(|close| close.sent_bytes),
        received: bytes(|close| close.received_bytes),
        open: if open > 0 { format!("{open} still open, bytes unknown") } else { String::new() },
    }
}
