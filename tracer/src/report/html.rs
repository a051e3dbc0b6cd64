//! The report as one HTML page that needs nothing else.
//!
//! The page's script and style are files beside this one and are allowed by their digests alone;
//! nothing else may run or be loaded. The data is JSON in an element that is never executed, of
//! strings that are fit to be shown. The script puts them on the page as text.

mod rows;

use std::io::{self, Write};

use base64::Engine as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use self::rows::{Row, rows};
use super::{
    clean::clean,
    perfetto::end_of_trace,
    summary::{ClaimSummary, Summary},
    tables::{self, Table},
    words::{self, date, duration, status},
};
use crate::policy::Ruling;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// What the script gets. Times are nanoseconds from the start of the trace.
#[derive(Debug, Serialize)]
struct Data<'a> {
    ruling: Option<Ruling>,
    command: &'a str,
    totals: String,
    /// Where the page has a part of the recording.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<&'a str>,
    claims: Vec<Claim<'a>>,
    /// The end of the trace.
    span: u64,
    /// Each process before its connections and its children, each connection before its calls.
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

pub fn html(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    page(out, |out| data(summary, out))
}

/// The page's parts are put in one after the other, so that no data can name a place for another.
fn page(
    out: &mut dyn Write,
    data: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let csp = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; base-uri 'none'; form-action 'none'",
        digest(SCRIPT),
        digest(STYLE)
    );
    let mut rest = PAGE;
    let mut up_to = |place: &str, out: &mut dyn Write| {
        let (before, after) = rest.split_once(place).unwrap_or((rest, ""));
        rest = after;
        out.write_all(before.as_bytes())
    };
    up_to("{csp}", out)?;
    out.write_all(csp.as_bytes())?;
    up_to("{style}", out)?;
    out.write_all(STYLE.as_bytes())?;
    up_to("{data}", out)?;
    data(out)?;
    up_to("{script}", out)?;
    out.write_all(SCRIPT.as_bytes())?;
    out.write_all(rest.as_bytes())
}

/// As a content security policy names what it allows.
pub(crate) fn digest(text: &str) -> String {
    format!("sha256-{}", base64::prelude::BASE64_STANDARD.encode(Sha256::digest(text)))
}

fn data(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    Ok(serde_json::to_writer(Inert(out), &Data::of(summary))?)
}

/// Leaves no character of a JSON text that means anything to an HTML parser. All of them can only be in
/// strings, where an escape is as good. A character comes whole, as serde_json writes them.
struct Inert<'a>(&'a mut dyn Write);

impl Write for Inert<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        const ESCAPES: [(&str, &str); 5] = [
            ("<", "\\u003c"),
            (">", "\\u003e"),
            ("&", "\\u0026"),
            ("\u{2028}", "\\u2028"),
            ("\u{2029}", "\\u2029"),
        ];
        let mut done = 0;
        for at in 0..text.len() {
            let here = &text[at..];
            let Some((raw, escape)) =
                ESCAPES.iter().find(|(raw, _)| here.starts_with(raw.as_bytes()))
            else {
                continue;
            };
            self.0.write_all(&text[done..at])?;
            self.0.write_all(escape.as_bytes())?;
            done = at + raw.len();
        }
        self.0.write_all(&text[done..])?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
            left_out: summary.left_out.as_deref(),
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
    use crate::report::fixture::{self, written};

    #[test]
    fn data_cannot_end_its_element_nor_name_a_place() {
        for (name, mut summary) in fixture::all() {
            summary.command_line.push_str("{script}{style}</script>\u{2028}");
            let data = written(|out| data(&summary, out));
            for forbidden in ['<', '>', '&', '\u{2028}', '\u{2029}'] {
                assert!(!data.contains(forbidden), "{name}: {forbidden:?}");
            }
            assert_eq!(data.chars().find(|character| character.is_control()), None, "{name}");
            let page = written(|out| html(&summary, out));
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
        let page = written(|out| page(out, |out| out.write_all(b"{}")));
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
