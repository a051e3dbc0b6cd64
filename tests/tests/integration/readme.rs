//! The README's example is what tracer prints, but for what differs from run to run.

use anyhow::{Context as _, Result, ensure};

use crate::{
    Test,
    harness::{Scratch, fixtures},
    session::session,
};

pub(crate) const TESTS: &[Test] = &[("example", example)];

fn example(scratch: &Scratch) -> Result<()> {
    let readme = std::fs::read_to_string(fixtures().join("../../README.md"))?;
    let (_, rest) = readme.split_once("<!-- example: cargo xtask run -->").context("no example")?;
    let (_, rest) = rest.split_once("```text\n").context("no block")?;
    let (block, _) = rest.split_once("```").context("the block does not end")?;
    let run = session(scratch, &["--mode", "bedrock"], &[])?;
    let (shown, printed) = (alike(block), alike(&run.output.stderr));
    // The block ends before the sections that list blind spots and requirements.
    for (number, line) in shown.iter().enumerate() {
        let other = printed.get(number).map_or("(nothing)", String::as_str);
        ensure!(
            line == other,
            "line {number} of the example is\n  {line}\nand tracer prints\n  {other}"
        );
    }
    ensure!(shown.len() > 10, "the example has only {} lines", shown.len());
    Ok(())
}

/// Lines from the verdict on, with process ids, times, temporary names and paths made equal. How
/// many connections fetch opens to a host varies, so of their lines only the destinations stay.
fn alike(text: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| !line.starts_with("PROVEN"));
    let mut section = "";
    lines
        .map(|line| {
            if !line.starts_with(' ') {
                section = line;
            }
            let words: Vec<&str> = line.split(' ').collect();
            if let Some((before, destination)) = line.split_once("→ ") {
                return format!("{before}→ {}", destination.split(' ').next().unwrap_or_default());
            }
            // Columns are as wide as what is in them.
            let mut columns = line.split_whitespace();
            match section {
                "Endpoints" if line.starts_with("  endpoint ") => {
                    return columns.collect::<Vec<_>>().join(" ");
                }
                "Endpoints" => return columns.next().unwrap_or_default().to_owned(),
                "Credentials" | "MCP servers" => {
                    let without_numbers = columns.filter(|word| {
                        !word.starts_with("connection")
                            && word.trim_end_matches(')').parse::<u32>().is_err()
                    });
                    return without_numbers.collect::<Vec<_>>().join(" ");
                }
                _ => {}
            }
            let mut alike: Vec<String> = Vec::new();
            for (at, word) in words.iter().enumerate() {
                let next = words.get(at + 1).copied().unwrap_or_default();
                let is_number = word.parse::<f64>().is_ok();
                alike.push(if word.starts_with('[') && word.ends_with(']') {
                    "[PID]".into()
                } else if is_number && ["us", "ms", "s", "TCP", "datagram"].contains(&next) {
                    "N".into()
                } else if ["us", "ms", "s"].contains(word) {
                    "T".into()
                } else if let Some((before, _)) = word.split_once("agent-") {
                    format!("{before}agent-*")
                } else if word.ends_with("/agent.mjs") {
                    "agent.mjs".into()
                } else {
                    (*word).to_owned()
                });
            }
            alike.join(" ")
        })
        .collect()
}
