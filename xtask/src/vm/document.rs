//! `docs/kernel-support.md`: what was seen on each kernel, in tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};

use super::outcome::{Outcome, Profile};
use crate::{
    command::{self, IfFails},
    layout::Layout,
};

const INTRODUCTION: &str = "# Kernels

`cargo xtask test --vm` boots Debian's kernels under QEMU and runs the integration tests in them, and
`cargo xtask vm --write` makes this page of what they found. A test that is skipped there has failed,
unless `tests/src/vm/profile.rs` says before which kernel it may be, and so has a run that finds another
way to attach than this page has. The same file lists which tests run:
the processor is emulated, so storms and what needs Node, the AWS CLI, a browser or runc run on
the machine itself only. That machine's own kernel is the last column of the tables of ways and of
instructions.

Needed are Linux 6.1 or newer, x86_64, and the kernel's type information (`/sys/kernel/btf/vmlinux`).
";

const WAYS: &str = "
## Ways to attach

A sensor takes its first way that the kernel has. `seen`: it was attached that way on that kernel, in
one profile or more, and saw what a command did for it. `from` and `until`: the kernel is too old, or too
new. `refused by the kernel`: it takes no programs on its functions (fentry, fexit), whatever they do.
`not tried`: no profile of that kernel forbids the ways before it.

";

const PROFILES: &str = "
## Profiles

Each is a state of the machine in which tests run, in this order, in one boot. A dash: not a profile of
that kernel. `full` has one test or more of each thing that probes read from a kernel; the others have those
that what they change can matter to.

";

const INSTRUCTIONS: &str = "
## Instructions

How many the kernel's verifier walked in each program, of a million that it allows. The budget
(`tests/budgets.toml`) has a test fail before that is near. Programs of every way are loaded, also of those that
the kernel has a better one for. A dash: it has not the way that the program is for.

";

const IF_NO_DATE: IfFails<'static> =
    IfFails { it_means: "the page cannot say when it was made", remedy: "put `date` on PATH" };

/// No profile came to it.
const NOT_TRIED: &str = "not tried";
/// There is nothing to say.
const NONE: &str = "-";

/// What there is of one kernel.
#[derive(Debug)]
struct Column {
    title: String,
    /// What the tests reported, without the profile.
    reports: Vec<String>,
}

pub(super) fn write(layout: &Layout, outcomes: &[Outcome]) -> Result<()> {
    let (release, reports) = super::of_this_machine(layout)?;
    let mut columns = columns_of(outcomes);
    columns.push(Column { title: format!("{release}, this machine"), reports });
    let mut page = INTRODUCTION.to_owned();
    let date = command::stdout(Command::new("date").args(["-u", "+%F"]), IF_NO_DATE)?;
    writeln!(
        page,
        "\nOn {}, under QEMU without KVM.\n\n| kernel | release |\n|---|---|",
        date.trim()
    )?;
    for outcome in outcomes {
        writeln!(page, "| {} | {} |", outcome.name, outcome.release)?;
    }
    page.push_str(WAYS);
    page.push_str(&ways(&columns));
    page.push_str(PROFILES);
    page.push_str(&profiles(outcomes));
    page.push_str(INSTRUCTIONS);
    page.push_str(&instructions(&columns, &budgets(layout)?));
    let file = page_of(layout);
    fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    println!("written: {}", file.display());
    Ok(())
}

fn page_of(layout: &Layout) -> PathBuf {
    layout.root().join("docs/kernel-support.md")
}

fn columns_of(outcomes: &[Outcome]) -> Vec<Column> {
    let column = |outcome: &Outcome| Column {
        title: outcome.name.clone(),
        reports: outcome.reports.iter().map(|(_, report)| report.clone()).collect(),
    };
    outcomes.iter().map(column).collect()
}

/// What the page says of ways to attach and is not so, as sentences.
pub(super) fn differences(layout: &Layout, outcomes: &[Outcome]) -> Result<Vec<String>> {
    let file = page_of(layout);
    let page = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(differences_from(&page, &columns_of(outcomes)))
}

fn differences_from(page: &str, columns: &[Column]) -> Vec<String> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = page.lines().skip_while(|line| !line.starts_with("| sensor | way |"));
    let head = lines.next().map(cells).unwrap_or_default();
    let written: Vec<Vec<String>> =
        lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect();
    let mut differences = Vec::new();
    for row in rows_of_ways(columns) {
        let [sensor, way, found @ ..] = row.as_slice() else { continue };
        let known = written.iter().find(|known| known.starts_with(&row[..2]));
        for (Column { title, .. }, found) in columns.iter().zip(found) {
            // A kernel of the user's own is in no column.
            let Some(at) = head.iter().position(|known| known == title) else { continue };
            let known = known.and_then(|known| known.get(at)).map_or("nothing", String::as_str);
            if known != found {
                differences.push(format!(
                    "{sensor} by {way} on {title}: `{found}`, and the page has `{known}`"
                ));
            }
        }
    }
    differences
}

fn table(head: &[&str], columns: impl Iterator<Item = String>, rows: &[Vec<String>]) -> String {
    let titles: Vec<String> = head.iter().map(|title| (*title).to_owned()).chain(columns).collect();
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(titles.len()));
    let rows: String = rows.iter().map(|row| line(row)).collect();
    line(&titles) + &rule + &rows
}

fn titles(columns: &[Column]) -> impl Iterator<Item = String> {
    columns.iter().map(|column| column.title.clone())
}

/// By sensor and way, in the order in which they were reported first.
fn ways(columns: &[Column]) -> String {
    table(&["sensor", "way"], titles(columns), &rows_of_ways(columns))
}

/// Sensor, way, and what came of it in each column.
fn rows_of_ways(columns: &[Column]) -> Vec<Vec<String>> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    let mut findings: BTreeMap<(&str, &str, usize), BTreeSet<&str>> = BTreeMap::new();
    for (number, column) in columns.iter().enumerate() {
        for report in &column.reports {
            let mut fields = report.split('\t');
            let (Some("hook"), Some(sensor), Some(way), Some(finding)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if !order.contains(&(sensor, way)) {
                order.push((sensor, way));
            }
            findings.entry((sensor, way, number)).or_default().insert(finding);
        }
    }
    // Ways of one sensor stand together.
    let mut sensors: Vec<&str> = order.iter().map(|(sensor, _)| *sensor).collect();
    sensors.dedup();
    let place = |sensor: &str| sensors.iter().position(|known| *known == sensor);
    order.sort_by_key(|(sensor, _)| place(sensor));
    order
        .into_iter()
        .map(|(sensor, way)| {
            let cells = (0..columns.len()).map(|number| {
                let found = findings.get(&(sensor, way, number));
                found.map_or(NOT_TRIED, |found| finding(found)).to_owned()
            });
            [sensor.to_owned(), way.to_owned()].into_iter().chain(cells).collect()
        })
        .collect()
}

/// Of all profiles: what was seen once is there; what a profile forbids says nothing of the kernel.
fn finding<'a>(found: &BTreeSet<&'a str>) -> &'a str {
    if found.contains("seen") {
        return "seen";
    }
    found.iter().find(|finding| **finding != "forbidden").copied().unwrap_or(NOT_TRIED)
}

/// In the order in which the kernels had them.
fn profiles(outcomes: &[Outcome]) -> String {
    let mut all: Vec<&Profile> = Vec::new();
    for profile in outcomes.iter().flat_map(|outcome| &outcome.profiles) {
        if !all.iter().any(|known| known.name == profile.name) {
            all.push(profile);
        }
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|Profile { name, what, .. }| {
            let cells = outcomes.iter().map(|outcome| {
                let ran = outcome.profiles.iter().any(|known| known.name == *name);
                if ran { outcome.tally_of(name).to_string() } else { NONE.to_owned() }
            });
            [name.clone(), what.clone()].into_iter().chain(cells).collect()
        })
        .collect();
    let titles = outcomes.iter().map(|outcome| outcome.name.clone());
    table(&["profile", "what it is"], titles, &rows)
}

fn budgets(layout: &Layout) -> Result<BTreeMap<String, u64>> {
    let file = layout.tests().join("budgets.toml");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let entries = text.lines().filter_map(|line| line.split_once(" = "));
    Ok(entries
        .filter_map(|(name, count)| Some((name.to_owned(), count.trim().parse().ok()?)))
        .collect())
}

fn instructions(columns: &[Column], budgets: &BTreeMap<String, u64>) -> String {
    let count = |column: &Column, program: &str| {
        let mut counts = column.reports.iter().filter_map(|report| {
            let rest = report.strip_prefix("instructions\t")?;
            let (name, count) = rest.split_once('\t')?;
            (name == program).then(|| count.to_owned())
        });
        counts.next_back().unwrap_or_else(|| NONE.to_owned())
    };
    let rows: Vec<Vec<String>> = budgets
        .iter()
        .map(|(program, budget)| {
            let counts = columns.iter().map(|column| count(column, program));
            [program.clone(), budget.to_string()].into_iter().chain(counts).collect()
        })
        .collect();
    table(&["program", "budget"], titles(columns), &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_once_is_there() {
        let column = |title: &str, reports: &[&str]| Column {
            title: title.to_owned(),
            reports: reports.iter().map(|report| (*report).to_owned()).collect(),
        };
        let columns = [
            column("a", &["hook\ts\tx\tforbidden", "hook\ts\ty\tseen", "hook\ts\tx\tseen"]),
            column(
                "b",
                &["hook\ts\tx\tfrom 6.4 on", "instructions\tp\t7", "hook\tt\tz\tforbidden"],
            ),
        ];
        assert_eq!(
            ways(&columns),
            "| sensor | way | a | b |\n|---|---|---|---|\n| s | x | seen | from 6.4 on |\n\
             | s | y | seen | not tried |\n| t | z | not tried | not tried |\n"
        );
        let same = differences_from(&ways(&columns), &columns);
        assert!(same.is_empty(), "{same:?}");
        let other = ways(&columns).replace("| from 6.4 on |", "| seen |");
        assert_eq!(
            differences_from(&other, &columns),
            ["s by x on b: `from 6.4 on`, and the page has `seen`"]
        );
        let budgets = BTreeMap::from([("p".to_owned(), 10)]);
        assert_eq!(
            instructions(&columns, &budgets),
            "| program | budget | a | b |\n|---|---|---|---|\n| p | 10 | - | 7 |\n"
        );
    }

    /// Out of date in shape when a kernel that is tested has no column. That each way to attach has a
    /// row, an integration test checks.
    #[test]
    fn the_page_has_every_kernel() {
        let file = Layout::of_workspace().root().join("docs/kernel-support.md");
        let page = fs::read_to_string(file).unwrap();
        let head = page.lines().find(|line| line.starts_with("| sensor | way |")).unwrap();
        for series in super::super::kernels::SERIES {
            assert!(head.contains(&format!(" {} |", series.name)), "{} in {head}", series.name);
        }
    }
}
