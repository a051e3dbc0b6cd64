//! The text report: the verdict first, then what it rests on.

use super::{
    clean::clean,
    columns::{self, Column},
    paint::Paint,
    summary::Summary,
    tables::{self, Cells, Table},
    tree::{Tree, marked, notes},
    words::{duration, lineage, not_seen, status, subject, totals},
};
use crate::{
    policy::{ClaimVerdict, Ruling, Verdict},
    session::Story,
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
    let summary = Summary::of(story, verdict);
    headline(story, &summary, verdict, paint, &mut out);
    if let Some(verdict) = verdict {
        section("Claims", paint, &mut out);
        for claim in &verdict.claims {
            claim_lines(story, claim, detail, paint, &mut out);
        }
    }
    section("Processes", paint, &mut out);
    let notes = notes(&summary, detail);
    out.extend(Tree::lines(story, paint, marked(verdict), notes, detail.limit()));
    // The tree shows whose they are.
    let endpoints = match detail {
        Detail::Summary => tables::endpoints(&summary, false).without(&["process"]),
        Detail::Full => tables::endpoints(&summary, true),
    };
    show(endpoints, detail, paint, &mut out);
    for table in tables::others(&summary, detail == Detail::Full) {
        show(table, detail, paint, &mut out);
    }
    section("What could not be seen", paint, &mut out);
    out.extend(not_seen(story).iter().flat_map(|line| columns::sentence("  ", 4, line, paint)));
    section("Completeness", paint, &mut out);
    let lines = &summary.completeness;
    for line in lines {
        let mark = if line.holds { "ok" } else { "NO" };
        if line.holds && detail == Detail::Summary {
            continue;
        }
        let mark = if line.holds { paint.dim(mark) } else { paint.bad(mark) };
        let found = format!("{}: {}", line.name, line.detail);
        out.extend(columns::sentence(&format!("  {mark} "), 5, &found, paint));
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

fn headline(
    story: &Story,
    summary: &Summary,
    verdict: Option<&Verdict>,
    paint: Paint,
    out: &mut Vec<String>,
) {
    let ruling = match verdict {
        Some(verdict) => paint.ruling(verdict.overall, &verdict.overall.name().to_uppercase()),
        None => paint.bold("TRACED (no policy)"),
    };
    let command = subject(&story.start);
    let status = story.end.as_ref().map_or_else(
        || "how the command ended is not known".into(),
        |end| status(&end.command_status),
    );
    out.push(format!("{ruling}  {command}"));
    let took = story.end.as_ref().map(|end| duration(end.t_ns.saturating_sub(story.start.t_ns)));
    out.push(format!(
        "  {status}; {}{}",
        totals(&summary.totals),
        took.map(|took| format!(", {took}")).unwrap_or_default()
    ));
    let left_out = summary.left_out.iter();
    out.extend(left_out.flat_map(|sentence| columns::sentence("  ", 2, sentence, paint)));
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
    let lead = " ".repeat(16);
    out.extend(rows.iter().flat_map(|row| columns::sentence(&lead, 18, row, paint)));
    if hidden > 0 {
        out.push(format!("                ... and {hidden} more lines"));
    }
}

/// A table under its title, without columns that are for thorough readers.
fn show(table: Table, detail: Detail, paint: Paint, out: &mut Vec<String>) {
    section(table.title, paint, out);
    if table.rows.is_empty() {
        out.push("  none".into());
        return;
    }
    let left_out: &[&str] = match detail {
        Detail::Summary => &["at", "server"],
        Detail::Full => &["at"],
    };
    let table = table.without(left_out);
    let column = |(title, cells): &(&'static str, Cells)| match cells {
        Cells::Number => Column::right(title),
        Cells::Words | Cells::Code => Column::left(title),
    };
    let columns: Vec<Column> = table.head.iter().map(column).collect();
    let shown = table.rows.len().min(detail.limit());
    let rows: Vec<Vec<String>> =
        table.rows[..shown].iter().map(|row| short(&table, row, paint)).collect();
    out.extend(columns::table(&columns, &rows, paint));
    if table.rows.len() > shown {
        out.push(format!("  ... and {} more", table.rows.len() - shown));
    }
}

/// With URLs no longer than half a line: one that is as long as a page would push everything else aside. The
/// other formats have them whole.
fn short(table: &Table, row: &[String], paint: Paint) -> Vec<String> {
    const URLS: [&str; 2] = ["URL", "call"];
    const LONGEST: usize = 100;
    const SHORTEST: usize = 40;
    let most = paint.width().map_or(LONGEST, |width| (width / 2).clamp(SHORTEST, LONGEST));
    let cell = |((title, _), cell): (&(&str, Cells), &String)| {
        if URLS.contains(title) { columns::shortened(cell, most) } else { cell.clone() }
    };
    table.head.iter().zip(row).map(cell).collect()
}
