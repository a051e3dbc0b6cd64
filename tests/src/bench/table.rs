//! What was measured, for readers and for programs.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::stats::Estimate;

/// A table of one question.
#[derive(Debug, Serialize)]
pub struct Section {
    pub title: String,
    pub goal: String,
    /// How often the deed was done in each run.
    pub count: u64,
    pub runs: usize,
    pub columns: &'static [&'static str],
    pub rows: Vec<(String, Finding)>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    Measured(Vec<Cell>),
    /// And why.
    NotHere(String),
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    Ratio(Estimate),
    Nanoseconds(f64),
    Bytes(u64),
    Count(u64),
    Words(String),
    Nothing,
}

impl Cell {
    pub(super) fn ratio(estimate: Option<Estimate>) -> Cell {
        estimate.map_or(Cell::Nothing, Cell::Ratio)
    }

    pub(super) fn nanoseconds(value: Option<f64>) -> Cell {
        value.map_or(Cell::Nothing, Cell::Nanoseconds)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Ratio(Estimate { median, low, high }) => {
                write!(f, "{median:.3} ({low:.3} to {high:.3})")
            }
            Cell::Nanoseconds(ns) if ns.abs() < 1e4 => write!(f, "{ns:.0} ns"),
            Cell::Nanoseconds(ns) if ns.abs() < 1e6 => write!(f, "{:.1} us", ns / 1e3),
            Cell::Nanoseconds(ns) => write!(f, "{:.1} ms", ns / 1e6),
            Cell::Bytes(bytes) => write!(f, "{:.1} MB", *bytes as f64 / 1e6),
            Cell::Count(count) => write!(f, "{count}"),
            Cell::Words(words) => f.write_str(words),
            Cell::Nothing => f.write_str("-"),
        }
    }
}

impl Section {
    pub(super) fn new(title: &str, goal: &str, count: u64, runs: usize) -> Section {
        Section {
            title: title.into(),
            goal: goal.into(),
            count,
            runs,
            columns: &[],
            rows: Vec::new(),
        }
    }

    /// Sentences about ratios that are as near to one as those of two runs without a tool.
    fn within_noise(&self) -> Vec<&str> {
        let first = |finding: &Finding| match finding {
            Finding::Measured(cells) => cells.iter().find_map(|cell| match cell {
                Cell::Ratio(estimate) => Some(*estimate),
                Cell::Nanoseconds(_)
                | Cell::Bytes(_)
                | Cell::Count(_)
                | Cell::Words(_)
                | Cell::Nothing => None,
            }),
            Finding::NotHere(_) => None,
        };
        let Some((_, floor)) = self.rows.first() else { return Vec::new() };
        let Some(floor) = first(floor) else { return Vec::new() };
        let rest = self.rows.iter().skip(1);
        rest.filter(|(_, finding)| first(finding).is_some_and(|ratio| !ratio.stands_out(&floor)))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.title);
        let _ = writeln!(text, "Goal: {}. {} each, {} runs.\n", self.goal, self.count, self.runs);
        let _ = writeln!(text, "| | {} |", self.columns.join(" | "));
        let _ = writeln!(text, "|---{}|", "|---".repeat(self.columns.len()));
        for (name, finding) in &self.rows {
            let cells = match finding {
                Finding::Measured(cells) => {
                    cells.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
                }
                Finding::NotHere(why) => format!("not here: {}", why.replace('|', "/")),
            };
            let _ = writeln!(text, "| {name} | {cells} |");
        }
        text + &self.noise()
    }

    /// In columns, for a terminal.
    pub fn text(&self) -> String {
        const GAP: usize = 2;
        let mut text = format!("{}\n", self.title);
        let _ = writeln!(text, "goal: {}; {} each, {} runs", self.goal, self.count, self.runs);
        let titles = self.columns.iter().map(ToString::to_string).collect();
        let mut rows: Vec<(&str, Vec<String>)> = vec![("", titles)];
        for (name, finding) in &self.rows {
            let cells = match finding {
                Finding::Measured(cells) => cells.iter().map(ToString::to_string).collect(),
                Finding::NotHere(why) => vec![format!("not here: {why}")],
            };
            rows.push((name, cells));
        }
        let names = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let width = |column: usize| {
            let whole = rows.iter().filter(|(_, cells)| cells.len() == self.columns.len());
            let widths = whole.filter_map(|(_, cells)| Some(cells.get(column)?.chars().count()));
            widths.max().unwrap_or(0) + GAP
        };
        for (name, cells) in &rows {
            let mut line = format!("  {name:<width$}", width = names + GAP);
            for (column, cell) in cells.iter().enumerate() {
                let _ = write!(line, "{cell:<width$}", width = width(column));
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text + &self.noise()
    }

    fn noise(&self) -> String {
        let within = self.within_noise();
        if within.is_empty() {
            return String::new();
        }
        format!("\nNot told apart from no tool at all (wall): {}.\n", within.join(", "))
    }
}
