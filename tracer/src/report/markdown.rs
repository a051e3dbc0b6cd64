//! The report as a document: finding, evidence, what follows from it, what could not be seen, what
//! it rests on, and how to check it.
//!
//! Everything that a traced program chose is shown as code, in which Markdown and HTML mean nothing.

use std::path::Path;

use super::{
    clean::{clean, command_line, command_line_of},
    paint::Paint,
    summary::{CallSummary, ClaimSummary, FindingSummary, Summary},
    tables::{self, Cells, Table},
    text::Detail,
    tree::{Tree, marked, notes},
    words::{count, date, duration, status},
};
use crate::{
    model::Bytes,
    policy::{Concern, Requirement, Ruling, Verdict},
    session::Story,
};

/// Rows of a table and lines of the tree, beyond which a document is no longer read.
const ROWS_MAX: usize = 500;
const SHOWN_MAX: usize = 400;

/// `recording` is the file, for the commands that check it.
pub fn markdown(story: &Story, verdict: Option<&Verdict>, recording: &Path) -> String {
    let summary = Summary::of(story, verdict);
    let mut page = Page { text: String::new() };
    page.head(&summary);
    page.finding(&summary);
    page.line("## Evidence\n");
    page.programs(&summary);
    page.line("### 2. The process tree\n");
    let marked = marked(verdict);
    let notes = notes(&summary, Detail::Full);
    page.block("text", &Tree::lines(story, Paint::OFF, marked, notes, ROWS_MAX));
    page.endpoints(&summary);
    page.others(&summary);
    page.implications(&summary);
    page.line("## What could not be seen\n");
    for sentence in &summary.not_seen {
        page.line(&format!("- {}", prose(sentence)));
    }
    page.line("");
    page.completeness(&summary.completeness);
    page.audit_trail(&summary);
    page.reproduction(&summary, recording);
    page.text
}

struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A fenced block; the fence is longer than any run of backticks in it.
    fn block(&mut self, language: &str, lines: &[String]) {
        let longest = lines.iter().map(|line| longest_run(line)).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        self.line(&format!("{fence}{language}"));
        lines.iter().for_each(|line| self.line(line));
        self.line(&format!("{fence}\n"));
    }

    fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        self.line(&format!("| {} |", head.join(" | ")));
        self.line(&format!("|{}", "---|".repeat(head.len())));
        for row in rows.iter().take(ROWS_MAX) {
            self.line(&format!("| {} |", row.join(" | ")));
        }
        self.line("");
        if rows.len() > ROWS_MAX {
            self.line(&format!("... and {} more\n", rows.len() - ROWS_MAX));
        }
    }

    fn head(&mut self, summary: &Summary) {
        let ruling = match summary.verdict {
            Some(ruling) => ruling.name().to_uppercase(),
            None => "TRACED".into(),
        };
        let command = code(&command_line(&summary.command));
        self.line(&format!("# {ruling}: {command}\n"));
        let ended = match &summary.command_status {
            Some(known) => status(known),
            None => "not known: the recording has no end".into(),
        };
        let took = summary.duration_ns.map(duration).unwrap_or_else(|| "not known".into());
        let host = &summary.host;
        let system = format!("{}, Linux {}, {}", host.name, host.kernel, host.machine);
        let rows = [
            ("command", code(&command_line_of(&summary.command, SHOWN_MAX))),
            ("in", code(&clean(&summary.cwd.0))),
            ("as", format!("user {}, group {}", summary.uid, summary.gid)),
            ("ended", prose(&ended)),
            ("traced", format!("{}, for {took}", date(summary.started_unix_ns))),
            ("on", code(&clean(system.as_bytes()))),
            ("by", prose(&format!("tracer {}", summary.tracer))),
            ("recording", prose(&summary.integrity)),
        ];
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(name, value)| vec![name.into(), cell(&value)]).collect();
        self.table(&["", ""], &rows);
    }

    fn finding(&mut self, summary: &Summary) {
        self.line("## Finding\n");
        let totals = &summary.totals;
        let seen = format!(
            "{} made {} of {}, and asked for {}{} to {}{}.",
            count(totals.processes, "process", "processes"),
            count(totals.execs, "exec", "execs"),
            count(totals.programs, "file", "files"),
            count(totals.connections, "TCP connection", "TCP connections"),
            match totals.datagrams {
                0 => String::new(),
                some => format!(" and {}", count(some, "datagram socket", "datagram sockets")),
            },
            count(totals.endpoints, "endpoint", "endpoints"),
            match totals.calls {
                0 => String::new(),
                some => format!("; {} went over them", count(some, "HTTP call", "HTTP calls")),
            },
        );
        if summary.verdict.is_none() {
            self.line("The recording was made without a policy, so it has no verdict.\n");
        }
        for claim in &summary.claims {
            self.claim(claim);
        }
        self.line(&format!("{seen}\n"));
        if let Some(sentence) = &summary.left_out {
            self.line(&format!("{sentence}\n"));
        }
    }

    fn claim(&mut self, claim: &ClaimSummary) {
        let what = format!("{}: {}", claim.policy, claim.claim);
        self.line(&format!("- **{}**: {}", claim.ruling.name(), prose(&what)));
        self.findings("violated by", &claim.violations);
        if claim.ruling != Ruling::Proven {
            for reason in claim.reasons.iter().take(ROWS_MAX) {
                self.line(&format!("  - because {}", prose(reason)));
            }
            self.rest(claim.reasons.len(), "reasons");
        }
        self.findings("allowed by the policy:", &claim.allowed);
        self.line("");
    }

    fn findings(&mut self, how: &str, findings: &[FindingSummary]) {
        for finding in findings.iter().take(ROWS_MAX) {
            let at = duration(finding.at_ns);
            let who = code(&finding.lineage);
            self.line(&format!("  - {how} {who} at {at}: {}", prose(&finding.detail)));
        }
        self.rest(findings.len(), "such events");
    }

    fn rest(&mut self, all: usize, of_what: &str) {
        if all > ROWS_MAX {
            self.line(&format!("  - ... and {} more {of_what}", all - ROWS_MAX));
        }
    }

    fn programs(&mut self, summary: &Summary) {
        self.line("### 1. The files that were executed\n");
        if summary.programs.is_empty() {
            self.line("None is recorded.\n");
            return;
        }
        let rows: Vec<Vec<String>> = summary
            .programs
            .iter()
            .map(|program| {
                let content = match (&program.sha256, &program.unread) {
                    (Some(sha256), _) => code(sha256),
                    (None, Some(why)) => format!("not read: {}", prose(why)),
                    (None, None) => "not read".into(),
                };
                vec![cell(&code(&program.shown)), program.execs.to_string(), cell(&content)]
            })
            .collect();
        self.table(&["file", "execs", "SHA-256"], &rows);
    }

    fn endpoints(&mut self, summary: &Summary) {
        self.line("### 3. The endpoints\n");
        if summary.endpoints.is_empty() {
            self.line("Neither a TCP connection nor a datagram is recorded.\n");
            return;
        }
        self.rows(tables::endpoints(summary, true));
    }

    /// A section for each list there is.
    fn others(&mut self, summary: &Summary) {
        const FIRST_NUMBER: usize = 4;
        for (index, table) in tables::others(summary, true).into_iter().enumerate() {
            self.line(&format!("### {}. {}\n", index + FIRST_NUMBER, table.title));
            self.rows(table);
        }
    }

    /// Columns with nothing in them are left out.
    fn rows(&mut self, table: Table) {
        let empty = |at: usize| table.rows.iter().all(|row| row[at].is_empty());
        let heads = table.head.iter().enumerate();
        let unused: Vec<&str> =
            heads.filter(|(at, _)| empty(*at)).map(|(_, (title, _))| *title).collect();
        let Table { head, rows, .. } = table.without(&unused);
        let shown = |(text, (_, cells)): (&String, &(&str, Cells))| match cells {
            Cells::Number => text.clone(),
            Cells::Words => cell(&prose(text)),
            Cells::Code if text.is_empty() => String::new(),
            Cells::Code => cell(&code(text)),
        };
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().zip(&head).map(shown).collect()).collect();
        let titles: Vec<&str> = head.iter().map(|(title, _)| *title).collect();
        self.table(&titles, &rows);
    }

    fn implications(&mut self, summary: &Summary) {
        self.line("## What follows\n");
        for sentence in implications(summary) {
            self.line(&format!("- {sentence}"));
        }
        self.line("");
    }

    fn completeness(&mut self, lines: &[Requirement]) {
        let holding = lines.iter().filter(|line| line.holds).count();
        self.line("## Completeness\n");
        self.line(&format!("{holding} of {} requirements hold.\n", lines.len()));
        let rows: Vec<Vec<String>> = lines
            .iter()
            .map(|line| {
                let holds = if line.holds { "holds" } else { "**does not hold**" };
                vec![prose(&line.name), holds.into(), cell(&prose(&line.detail))]
            })
            .collect();
        self.table(&["requirement", "", "what was found"], &rows);
    }

    /// What the services were told to call the calls, for who asks them.
    fn audit_trail(&mut self, summary: &Summary) {
        let ids =
            || summary.calls.iter().filter_map(|call| Some((call, call.request_id.as_ref()?)));
        if ids().next().is_none() {
            return;
        }
        self.line("## Audit trail\n");
        self.line("The ids that the services gave these calls, under which they know them.\n");
        let started_ns = summary.started_unix_ns;
        let row = |(call, id): (&CallSummary, &String)| {
            let at_ns = i64::try_from(call.at_ns).unwrap_or(i64::MAX);
            vec![
                date(started_ns.saturating_add(at_ns)),
                cell(&code(&format!("{} {}", call.method, call.url))),
                call.status.map(|status| status.to_string()).unwrap_or_default(),
                cell(&code(id)),
            ]
        };
        let rows: Vec<Vec<String>> = ids().map(row).collect();
        self.table(&["begun", "call", "status", "request id"], &rows);
    }

    fn reproduction(&mut self, summary: &Summary, recording: &Path) {
        self.line("## How to check this\n");
        let outcome = match summary.verdict {
            Some(ruling) => format!("prints `verdict: {}`", ruling.name()),
            None => "checks the recording".into(),
        };
        self.line(&format!(
            "The first command {outcome}, which it computes from the events and the kernel's \
             counters; it needs no root. The others list every command line, every destination{} \
             and every digest of an executed file.\n",
            if summary.calls.is_empty() { "" } else { ", every HTTP call with its request id" },
        ));
        let file = quoted(recording);
        let jq = |filter: &str| format!("jq --ascii-output --compact-output '{filter}' {file}");
        let mut lines = vec![
            format!("tracer verify {file}"),
            jq("select(.type == \"exec\") | .argv.args"),
            jq("select(.type == \"connect\") | .destination") + " | sort | uniq -c",
            jq("select(.type == \"content\") | .sha256") + " | sort -u",
        ];
        if !summary.calls.is_empty() {
            lines.push(jq("select(.type == \"call\") | [.method, .url, .status, .request_id]"));
        }
        self.block("sh", &lines);
    }
}

/// A file as a shell reads it; one whose name cannot be shown as it is, as bash, zsh and ksh do.
fn quoted(file: &Path) -> String {
    let name = Bytes::from(file);
    let can_be_shown =
        std::str::from_utf8(&name.0).is_ok_and(|text| clean(text.as_bytes()) == text);
    if can_be_shown {
        return command_line(&[name]);
    }
    let byte = |byte: &u8| match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
        b' '..=b'~' => char::from(*byte).to_string(),
        other => format!("\\{other:03o}"),
    };
    format!("$'{}'", name.0.iter().map(byte).collect::<String>())
}

/// What the data imply, and nothing that they do not.
fn implications(summary: &Summary) -> Vec<String> {
    let mut sentences: Vec<String> = summary.claims.iter().map(implication).collect();
    // What others were given to do is told apart from what the tree did.
    let of_others = |line: &Requirement| matches!(line.name.as_str(), "outside" | "files");
    let complete = |concern: Concern| {
        let lines = summary.completeness.iter().filter(|line| match concern {
            Concern::Programs => true,
            Concern::Connections | Concern::Both | Concern::Names | Concern::Calls => {
                !of_others(line)
            }
        });
        lines
            .filter(|line| line.concern == concern || line.concern == Concern::Both)
            .all(|line| line.holds)
    };
    let totals = &summary.totals;
    if complete(Concern::Programs) {
        let execs = count(totals.execs, "exec", "execs");
        let listed = if summary.left_out.is_none() { " listed here" } else { "" };
        sentences.push(format!("The {execs}{listed} are all that the tree made."));
    } else {
        sentences.push(
            "The record of programs is not complete: nothing follows from a program that is \
             missing in it."
                .into(),
        );
    }
    let openers: Vec<usize> = {
        let mut openers: Vec<usize> = summary.connections.iter().map(|one| one.process).collect();
        openers.sort_unstable();
        openers.dedup();
        openers
    };
    if summary.left_out.is_some() {
        sentences.push(
            "Not all connections are listed here: nothing follows from one that is missing.".into(),
        );
        return sentences;
    }
    sentences.push(match (complete(Concern::Connections), openers.as_slice()) {
        (false, _) => "The record of connections is not complete: nothing follows from a \
                       connection that is missing in it."
            .into(),
        (true, []) => "Apart from what the next section lists, no process of the tree asked the \
                       kernel for a TCP connection."
            .into(),
        (true, [one]) => {
            let who = summary.processes.get(*one).map(|process| code(&process.label()));
            format!(
                "Every TCP connection recorded here was asked for by one process, {}. Apart from \
                 what the next section lists, no other process of the tree asked for one.",
                who.unwrap_or_default()
            )
        }
        (true, many) => format!(
            "{} of the {} asked for TCP connections. Apart from what the next section lists, the \
             others asked for none.",
            many.len(),
            count(totals.processes, "process", "processes")
        ),
    });
    sentences
}

fn implication(claim: &ClaimSummary) -> String {
    let what = prose(&claim.claim);
    let rest = match claim.ruling {
        Ruling::Proven => {
            "holds: every exec of the tree is known, each was identified, and none of them \
             violates it."
        }
        Ruling::Violated => {
            "does not hold: one event that violates it is enough, whatever else was not seen."
        }
        Ruling::Inconclusive => {
            "is neither proven nor refuted by this recording, for the reasons above."
        }
    };
    let allowed = match claim.allowed.len() as u64 {
        0 => String::new(),
        allowed => {
            format!(" {} would, and the policy allows it by name.", count(allowed, "exec", "execs"))
        }
    };
    format!("The claim \u{201c}{what}\u{201d} {rest}{allowed}")
}

/// Inline code. Its delimiter is longer than any run of backticks inside.
pub(crate) fn code(text: &str) -> String {
    let fence = "`".repeat(longest_run(text) + 1);
    // One space on each side is taken away again, and keeps backticks at the ends apart.
    let pad = if text.starts_with('`') || text.ends_with('`') || text.trim().is_empty() {
        " "
    } else {
        ""
    };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// A sentence of tracer's own as it is; one that has more than words in it, such as a path of a
/// traced program, as code.
fn prose(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || " ,.;:'()/=+-".contains(c);
    let is_link = ["://", "www."].iter().any(|mark| text.to_lowercase().contains(mark));
    if text.chars().all(harmless) && !is_link { text.into() } else { code(text) }
}

/// In a table a bar ends the cell, even inside code.
pub(crate) fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}
