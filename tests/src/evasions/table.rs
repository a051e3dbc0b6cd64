//! The table as Markdown, as `docs/evasions.md` holds it.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::{List, Program, Row, rows};

const BEGIN: &str = "<!-- table: cargo xtask evasions -->\n";
const END: &str = "<!-- end of table -->\n";

/// The rulings of one row, and what other tools show.
#[derive(Clone, Debug)]
pub struct Line {
    pub row: &'static Row,
    pub rulings: Vec<(Program, String)>,
    pub peers: [String; 2],
}

impl Line {
    /// What the row demands.
    pub fn demanded(row: &'static Row) -> Line {
        let rulings = row.cases().map(|(program, expected)| (program, expected.name()));
        Line { row, rulings: rulings.collect(), peers: [String::new(), String::new()] }
    }

    fn ruling(&self, program: Program) -> &str {
        let found = self.rulings.iter().find(|(of, _)| *of == program);
        found.map_or("-", |(_, ruling)| ruling)
    }

    /// The columns about tracer alone.
    fn own_columns(&self) -> String {
        let [stand_in, aws_cli, harmless] =
            [Program::StandIn, Program::AwsCli, Program::Harmless].map(|of| self.ruling(of));
        format!("| {} | {stand_in} | {aws_cli} | {harmless} |", self.row.name)
    }
}

/// Both lists.
pub fn render(lines: &[Line]) -> String {
    let mut text = String::new();
    let lists = [
        (List::Disguise, "The program looks like another one"),
        (List::Escape, "Another process runs it"),
    ];
    for (list, title) in lists {
        let _ = writeln!(
            text,
            "\n### {title}\n\n| | stand-in | AWS CLI | harmless program | strace | execsnoop | \
             how |\n|---|---|---|---|---|---|---|"
        );
        for line in lines.iter().filter(|line| line.row.list == list) {
            let [strace, execsnoop] = &line.peers;
            let how = line.row.text().replace('|', "\\|");
            let _ = writeln!(text, "{} {strace} | {execsnoop} | `` {how} `` |", line.own_columns());
        }
    }
    text
}

/// The document with another table.
pub fn replaced(document: &str, table: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).context("the document has no table")?;
    let (_, after) = rest.split_once(END).context("the document's table has no end")?;
    Ok(format!("{before}{BEGIN}{table}\n{END}{after}"))
}

/// How the document's table differs from what the rows demand, columns about tracer only.
pub fn differences(document: &str) -> Vec<String> {
    let demanded: Vec<String> = rows().map(|row| Line::demanded(row).own_columns()).collect();
    let shown: Vec<&str> = document
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END))
        .map(|(table, _)| table.lines().filter(|line| line.starts_with("| ")).collect())
        .unwrap_or_default();
    let shown: Vec<&str> = shown.into_iter().filter(|line| !line.starts_with("| | ")).collect();
    let missing = demanded.iter().filter(|line| !shown.iter().any(|own| own.starts_with(&***line)));
    let surplus = shown.iter().filter(|own| !demanded.iter().any(|line| own.starts_with(&**line)));
    missing
        .map(|line| format!("missing: {line}"))
        .chain(surplus.map(|own| format!("not so: {own}")))
        .collect()
}
