//! The text report: the verdict first, then what it rests on.

use std::collections::{BTreeMap, BTreeSet};

use super::{clean::command_line, paint::Paint, tree::Tree};
use crate::{
    model::{Endpoint, ProcessKey},
    policy::{ClaimVerdict, Ruling, Verdict, completeness},
    record::schema::{CommandStatus, Outcome},
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
    let marked: BTreeSet<ProcessKey> = verdict
        .iter()
        .flat_map(|verdict| &verdict.claims)
        .flat_map(|claim| &claim.violations)
        .map(|violation| violation.process)
        .collect();
    out.extend(Tree::lines(story, paint, marked, detail.limit()));
    section("TCP connections", paint, &mut out);
    connections(story, detail, &mut out);
    if !story.hand_offs.is_empty() {
        section("Hand-offs", paint, &mut out);
        hand_offs(story, detail, &mut out);
    }
    section("What could not be seen", paint, &mut out);
    blind_spots(story, &mut out);
    section("Completeness", paint, &mut out);
    let lines =
        verdict.map_or_else(|| completeness(story, false), |verdict| verdict.completeness.clone());
    for line in &lines {
        let mark = if line.holds { "ok" } else { "NO" };
        if line.holds && detail == Detail::Summary {
            continue;
        }
        let mark = if line.holds { paint.dim(mark) } else { paint.bad(mark) };
        out.push(format!("  {mark} {}: {}", line.name, line.detail));
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

fn status(status: &CommandStatus) -> String {
    match status {
        CommandStatus::Exited(code) => format!("the command exited with {code}"),
        CommandStatus::Killed(signal) => format!("signal {signal} ended the command"),
        CommandStatus::Running => "the command was still running".into(),
        CommandStatus::NotStarted(why) => why.clone(),
    }
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn claim_lines(
    story: &Story,
    claim: &ClaimVerdict,
    detail: Detail,
    paint: Paint,
    out: &mut Vec<String>,
) {
    let ruling = paint.ruling(claim.ruling, &format!("{:<12}", claim.ruling.name()));
    out.push(format!("  {ruling}  {}: {}", claim.policy, claim.claim));
    let mut rows = Vec::new();
    for violation in &claim.violations {
        rows.push(format!("violated by {}", lineage(story, violation.process, violation.t_ns)));
        rows.push(format!("  it {}", violation.detail));
    }
    if claim.ruling != Ruling::Proven {
        rows.extend(claim.reasons.iter().map(|reason| format!("because {reason}")));
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

/// The command line of an exec, and who started it, up to the traced command.
fn lineage(story: &Story, key: ProcessKey, t_ns: u64) -> String {
    const SHOWN_MAX: usize = 12;
    let mut parts = Vec::new();
    let mut at = Some(key);
    while let Some(process) = at.and_then(|key| story.processes.get(&key)) {
        // The exec in question, and for the parents the program they ran at that time.
        let exec = process.execs.iter().rev().find(|exec| exec.t_ns <= t_ns);
        let before = process.execs.iter().rev().find(|exec| exec.t_ns < t_ns);
        let exec = if parts.is_empty() { exec } else { before.or(exec) };
        if let Some(exec) = exec {
            parts.push(format!("{} [{}]", command_line(&exec.argv.args), process.key.pid));
        }
        if parts.len() == SHOWN_MAX {
            parts.push("...".into());
            break;
        }
        at = process.creator;
    }
    parts.join(", started by ")
}

/// One line per process and destination.
fn connections(story: &Story, detail: Detail, out: &mut Vec<String>) {
    let mut groups: BTreeMap<(ProcessKey, Option<Endpoint>), Vec<&Connection>> = BTreeMap::new();
    for connection in &story.connections {
        groups.entry((connection.process, connection.destination)).or_default().push(connection);
    }
    if groups.is_empty() {
        out.push("  none".into());
        return;
    }
    let shown = groups.len().min(detail.limit());
    for ((process, destination), group) in groups.iter().take(shown) {
        let destination = destination.map_or("unreadable address".into(), |to| to.to_string());
        out.push(format!("  {destination:<24} {}  {}", outcomes(group), story.label(*process)));
    }
    if groups.len() > shown {
        out.push(format!("  ... and {} more", groups.len() - shown));
    }
}

/// Work that left the tree, also what the policy allows.
fn hand_offs(story: &Story, detail: Detail, out: &mut Vec<String>) {
    let shown = story.hand_offs.len().min(detail.limit());
    for hand_off in story.hand_offs.iter().take(shown) {
        let who = hand_off.process.map_or("unknown process".into(), |key| story.label(key));
        out.push(format!(
            "  {:<24} {}: {}  {}",
            super::clean(hand_off.name.as_bytes()),
            super::clean(&hand_off.via.0),
            super::clean(hand_off.how.as_bytes()),
            who
        ));
    }
    if story.hand_offs.len() > shown {
        out.push(format!("  ... and {} more", story.hand_offs.len() - shown));
    }
}

fn outcomes(group: &[&Connection]) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for connection in group {
        let kind = match connection.result.as_ref().map(|result| &result.outcome) {
            Some(Outcome::Established) => "established".into(),
            Some(Outcome::Failed { name, .. }) => name.clone(),
            Some(Outcome::Abandoned) => "abandoned".into(),
            Some(Outcome::Unknown) => "outcome unread".into(),
            None => "no outcome yet".into(),
        };
        *kinds.entry(kind).or_default() += 1;
    }
    let mut parts: Vec<String> = kinds
        .into_iter()
        .map(|(kind, count)| if count == 1 { kind } else { format!("{count} x {kind}") })
        .collect();
    let established: Vec<_> = group.iter().filter(|one| one.is_established()).collect();
    let fastest = established.iter().filter_map(|one| one.result.as_ref()?.connect_ns).min();
    if let Some(fastest) = fastest {
        parts.push(format!("in {}", duration(fastest)));
    }
    let sum = |field: fn(&crate::record::schema::Close) -> Option<u64>| {
        group.iter().filter_map(|one| field(one.close.as_ref()?)).sum::<u64>()
    };
    let open = established.iter().filter(|one| one.close.is_none()).count();
    if !established.is_empty() {
        let (sent, received) = (sum(|close| close.sent_bytes), sum(|close| close.received_bytes));
        parts.push(format!("{sent} B sent, {received} B received"));
    }
    if open > 0 {
        parts.push(format!("{open} still open, bytes unknown"));
    }
    parts.join(", ")
}

fn blind_spots(story: &Story, out: &mut Vec<String>) {
    for sensor in story.start.sensors.iter().filter(|sensor| !sensor.cannot_see.is_empty()) {
        out.push(format!("  {} ({}): {}", sensor.sensor, sensor.hook, sensor.cannot_see));
    }
    out.push(
        "  identity: programs are told apart by names, inodes and content; a changed copy under another name is not recognised"
            .into(),
    );
    for (program, copies) in &story.start.known_programs {
        if copies.is_empty() {
            out.push(format!(
                "  {}: no copy was found on PATH or in the usual folders, so none is recognised under another name",
                super::clean(program.as_bytes())
            ));
        }
    }
    let partial = story.execs_in_order().filter(|exec| !exec.unread.is_empty()).count();
    if partial > 0 {
        out.push(format!("  {partial} execs have fields the kernel could not read"));
    }
}

/// With three digits, in the unit that fits.
pub(super) fn duration(ns: u64) -> String {
    let ns_f = ns as f64;
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns_f / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns_f / 1e6, "ms"),
        _ => (ns_f / 1e9, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_have_three_digits() {
        let check = |ns, expected: &str| assert_eq!(duration(ns), expected);
        check(7, "7 ns");
        check(1_500, "1.50 us");
        check(12_345_678, "12.3 ms");
        check(999_000_000, "999 ms");
        check(61_000_000_000, "61.0 s");
    }
}
