//! The table as Markdown, as `docs/hidden-connections.md` holds it.

use std::fmt::Write as _;

use super::{Row, rows};
use crate::document;

/// What makes the document's table.
pub const COMMAND: &str = "cargo xtask hidden --write";
/// What the cell of a row begins with that this machine cannot do.
pub const NOT_TRIED: &str = "not tried";

/// A row, and why it was not tried.
#[derive(Clone, Debug)]
pub struct Line {
    pub row: &'static Row,
    pub not_tried: Option<String>,
}

impl Line {
    fn columns(&self) -> [String; 4] {
        let row = self.row;
        if let Some(why) = &self.not_tried {
            return [row.name.into(), format!("{NOT_TRIED}: {why}"), String::new(), String::new()];
        }
        let not_covered = row.not_covered.iter().map(|(sensor, words)| {
            format!("*not covered*: \"{words}\" (what `{sensor}` cannot see)")
        });
        let shown = row.shown.iter().map(|line| (*line).to_owned());
        let shown: Vec<String> = shown.chain(not_covered).collect();
        let opens = match row.beyond_opens {
            None => "the same".into(),
            Some((1.., why)) => format!("less: {why}"),
            Some((_, why)) => format!("more: {why}"),
        };
        [row.name.into(), shown.join("<br>"), opens, row.claim.name().into()]
    }
}

pub fn render(lines: &[Line]) -> String {
    let mut text = String::from(
        "\n| | the recording shows | `TcpActiveOpens` | claim | how |\n|---|---|---|---|---|\n",
    );
    for line in lines {
        let how = line.row.text().replace('|', "\\|");
        let _ = writeln!(text, "| {} | `` {how} `` |", line.columns().join(" | "));
    }
    text
}

/// How the document's table differs from what the rows demand.
pub fn differences(document: &str) -> Vec<String> {
    let lines = document::shown(document, COMMAND).unwrap_or_default().lines();
    let mut shown: Vec<&str> =
        lines.filter(|line| line.starts_with("| ") && !line.starts_with("| |")).collect();
    let mut differences = Vec::new();
    for row in rows() {
        let demanded = render(&[Line { row, not_tried: None }]);
        let demanded = demanded.lines().last().unwrap_or_default();
        // The machine that made the table may have lacked something, as this one may.
        let untried = format!("| {} | {NOT_TRIED}", row.name);
        match shown.iter().position(|line| *line == demanded || line.starts_with(&untried)) {
            Some(at) => drop(shown.remove(at)),
            None => differences.push(format!("missing: {demanded}")),
        }
    }
    differences.extend(shown.into_iter().map(|line| format!("not so: {line}")));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_says_otherwise_differs() {
        let line = |row| Line { row, not_tried: None };
        let mut lines: Vec<Line> = rows().map(line).collect();
        let document = |lines: &[Line]| document::of(COMMAND, &render(lines));
        assert!(differences(&document(&lines)).is_empty());
        assert_eq!(differences(&document(&lines[1..])).len(), 1);
        let other = document(&lines).replacen("established", "refused", 1);
        assert_eq!(differences(&other).len(), 2);
        lines[0].not_tried = Some("there is no ring".into());
        assert!(differences(&document(&lines)).is_empty());
    }
}
