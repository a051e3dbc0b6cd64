//! Compares lines, and shows for each that is missing the one that comes closest.

use std::collections::HashMap;

use anyhow::bail;

/// How many missing lines a message shows, and among how many it looks for the closest.
const SHOWN: usize = 5;
const LOOKED_AT: usize = 60;

/// Both as multisets of lines; `expected` without its common indentation and blank lines.
pub(crate) fn same_lines(expected: &str, actual: &[String]) -> anyhow::Result<()> {
    let expected = unindented(expected);
    let missing = without(&expected, actual);
    let surplus = without(actual, &expected);
    if missing.is_empty() && surplus.is_empty() {
        return Ok(());
    }
    let mut message = String::new();
    for line in missing.iter().take(SHOWN) {
        message.push_str(&format!("expected  {line}\n"));
        if let Some(closest) =
            surplus.iter().take(LOOKED_AT).min_by_key(|other| distance(line, other))
        {
            message.push_str(&format!("closest   {closest}\n"));
            let same = line.chars().zip(closest.chars()).take_while(|(a, b)| a == b).count();
            message.push_str(&format!("          {}^ differs from here\n", " ".repeat(same)));
        } else {
            message.push_str("          nothing comes close\n");
        }
    }
    if missing.len() < surplus.len() {
        message.push_str(&format!("not expected:\n  {}\n", shortened(&surplus)));
    }
    bail!("{message}all there was:\n  {}", shortened(actual))
}

fn shortened(lines: &[String]) -> String {
    let mut text = lines[..lines.len().min(LOOKED_AT)].join("\n  ");
    if lines.len() > LOOKED_AT {
        text.push_str(&format!("\n  ... {} lines in all", lines.len()));
    }
    text
}

fn unindented(text: &str) -> Vec<String> {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let indent = |line: &str| line.len() - line.trim_start().len();
    let common = lines().map(indent).min().unwrap_or(0);
    lines().map(|line| line[common..].trim_end().to_owned()).collect()
}

/// The lines of `all` that `taken` does not account for.
fn without(all: &[String], taken: &[String]) -> Vec<String> {
    let mut left: HashMap<&String, usize> = HashMap::new();
    for line in taken {
        *left.entry(line).or_default() += 1;
    }
    let unaccounted = all.iter().filter(|line| match left.get_mut(line) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    });
    unaccounted.cloned().collect()
}

/// Edits that turn one line into the other, by characters (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 300;
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(LONGEST).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
