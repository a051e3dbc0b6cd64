//! As a document.

use super::{Comparison, tables::tables};
use crate::report::{cell, code};

pub fn markdown(comparison: &Comparison) -> String {
    let mut out = vec!["# Comparison of recordings".to_owned()];
    for part in tables(comparison) {
        out.extend([String::new(), format!("## {}", part.title), String::new()]);
        if part.rows.is_empty() {
            out.push(part.none.into());
            continue;
        }
        let titles = part.head.iter().map(|(title, _)| (*title).to_owned());
        out.push(row(titles));
        out.push(row(part
            .head
            .iter()
            .map(|(_, number)| if *number { "---:".to_owned() } else { "---".to_owned() })));
        for cells in &part.rows {
            out.push(row(cells.iter().map(|text| cell(&inert(text)))));
        }
        if !part.note.is_empty() {
            out.extend([String::new(), part.note.into()]);
        }
    }
    out.push(String::new());
    out.join("\n")
}

fn row(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
}

/// Numbers and words as they are; whatever could mean something to Markdown, as code.
fn inert(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || " ,.%-".contains(c);
    if text.chars().all(plain) && !text.contains("www.") { text.into() } else { code(text) }
}
