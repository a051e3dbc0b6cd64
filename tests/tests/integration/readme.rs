//! The README's example is what tracer prints, but for what differs from run to run.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use tracer_tests::debian_tool;

use crate::{
    Test,
    harness::{Scratch, fixtures, in_private_network},
    session::session,
    tls::certificate,
};

pub(crate) const TESTS: &[Test] = &[("example", example), ("calls", calls)];

/// What the README's lines for calls print, of a session whose calls are recorded at both ends.
fn calls(scratch: &Scratch) -> Result<()> {
    let jq = debian_tool("jq")?;
    let readme = std::fs::read_to_string(fixtures().join("../../README.md"))?;
    let (_, rest) = readme
        .split_once("$ sudo tracer run --http -o session.jsonl -- node agent.mjs\n")
        .context("no lines for calls")?;
    let (block, _) = rest.split_once("```").context("the block does not end")?;
    let lines: Vec<&str> =
        block.lines().map(|line| line.strip_prefix("$ ").unwrap_or(line)).collect();
    ensure!(lines.len() == 6 && lines.iter().all(|line| line.starts_with("jq ")), "{lines:#?}");
    let run = in_private_network(|_| {
        let [certificate, key] = certificate(scratch)?;
        let script = fixtures().join("http/local.py");
        let command = ["/usr/bin/python3".into(), script, "both".into(), certificate, key];
        scratch.run(command).option("--http").record()
    })?;
    run.exits(0)?;
    let asked = String::from_utf8(run.output.stdout.clone())?;
    let calls = &run.story.calls;
    let served = calls.iter().filter(|call| call.served).count();
    ensure!(served > 0 && calls.len() == 2 * served, "{served} of {} calls", calls.len());
    ensure!(asked.lines().count() == served, "{served} calls, not\n{asked}");
    std::fs::copy(&run.recording, scratch.file("session.jsonl"))?;
    let printed = |line: &str| -> Result<String> {
        let line = format!("PATH='{}':$PATH; {line}", jq.parent().unwrap_or(&jq).display());
        let output =
            Command::new("/bin/sh").args(["-ec", &line]).current_dir(scratch.path()).output()?;
        ensure!(output.status.success(), "{line}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let printed = lines.iter().map(|line| printed(line)).collect::<Result<Vec<String>>>()?;
    let [_, table, unique, _, gaps, _] = &printed[..] else { bail!("{printed:?}") };
    let first = |line: &str| line.split(['\t', ' ']).take(2).collect::<Vec<_>>().join(" ");
    let (of_client, of_jq): (Vec<_>, Vec<_>) =
        (asked.lines().map(first).collect(), table.lines().map(first).collect());
    ensure!(of_client == of_jq, "{of_client:#?} {of_jq:#?}");
    let counted = unique.lines().all(|line| line.trim_start().starts_with("1 "));
    ensure!(counted && unique.lines().count() == served, "{unique}");
    ensure!(gaps.is_empty() == run.story.call_gaps.is_empty(), "{gaps}");
    Ok(())
}

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
