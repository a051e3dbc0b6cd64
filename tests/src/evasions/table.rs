//! The table as Markdown, as `docs/evasions.md` holds it.

use std::fmt::Write as _;

use super::{List, Program, Row, rows};
use crate::document;

/// What makes the document's table.
pub const COMMAND: &str = "cargo xtask evasions --write";
/// What a cell begins with whose row this machine cannot do.
pub const NOT_TRIED: &str = "not tried";

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
    fn own_columns(&self) -> [&str; 4] {
        let [stand_in, aws_cli, harmless] =
            [Program::StandIn, Program::AwsCli, Program::Harmless].map(|of| self.ruling(of));
        [self.row.name, stand_in, aws_cli, harmless]
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
            let own = line.own_columns().join(" | ");
            let _ = writeln!(text, "| {own} | {strace} | {execsnoop} | `` {how} `` |");
        }
    }
    text
}

/// How the document's table differs from what the rows demand, columns about tracer only.
pub fn differences(document: &str) -> Vec<String> {
    let lines = document::shown(document, COMMAND).unwrap_or_default().lines();
    let shown: Vec<Vec<&str>> = lines
        .filter(|line| line.starts_with("| ") && !line.starts_with("| | "))
        .map(|line| line.trim_start_matches("| ").split(" | ").take(4).collect())
        .collect();
    let demanded: Vec<Line> = rows().map(Line::demanded).collect();
    let is = |line: &Line, shown: &Vec<&str>| {
        let own = line.own_columns();
        own.len() == shown.len()
            && own.iter().zip(shown).all(|(own, shown)| {
                // The machine that made the table may have lacked something, as this one may.
                own == shown || (shown.starts_with(NOT_TRIED) && *own != line.row.name)
            })
    };
    let missing = demanded.iter().filter(|line| !shown.iter().any(|shown| is(line, shown)));
    let surplus = shown.iter().filter(|shown| !demanded.iter().any(|line| is(line, shown)));
    missing
        .map(|line| format!("missing: {}", line.own_columns().join(" | ")))
        .chain(surplus.map(|shown| format!("not so: {}", shown.join(" | "))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_says_otherwise_differs() {
        let lines: Vec<Line> = rows().map(Line::demanded).collect();
        let document = |table: &str| document::of(COMMAND, table);
        assert!(differences(&document(&render(&lines))).is_empty());
        assert_eq!(differences(&document(&render(&lines[1..]))).len(), 1);
        let mut other = lines.clone();
        other[0].rulings[0].1 = "proven".into();
        assert_eq!(differences(&document(&render(&other))).len(), 2);
        other[0].rulings[0].1 = format!("{NOT_TRIED}: there is no aws");
        assert!(differences(&document(&render(&other))).is_empty());
    }
}
