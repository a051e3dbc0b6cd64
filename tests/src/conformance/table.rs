//! What was compared, as Markdown, as `docs/conformance.md` holds it.

use std::fmt::Write as _;

use super::{Counts, Outcome, Workload, rules::RULES};

/// A workload, and what came of it or why it was not run.
pub type Line = (&'static Workload, Result<Outcome, String>);

pub fn render(lines: &[Line]) -> String {
    format!("{}\n{}\n{}\n{}", workloads(lines), numbers(lines), explained(lines), rules())
}

fn workloads(lines: &[Line]) -> String {
    let mut text = String::from("| workload | what it is |\n|---|---|\n");
    for (workload, _) in lines {
        let _ = writeln!(text, "| {} | {} |", workload.name, workload.what);
    }
    text
}

fn numbers(lines: &[Line]) -> String {
    let mut text = String::from(
        "| workload | processes | threads | execs | TCP | UDP | the kernel's execs | its forks | its \
         opened connections | in the same words | explained | recall | precision | lost | verdict | \
         took |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (workload, outcome) in lines {
        let name = workload.name;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(why) => {
                let _ = writeln!(text, "| {name} | not run: {why} |");
                continue;
            }
        };
        let Counts { processes, threads, execs, tcp, udp } = outcome.counts;
        let (kernel, compared) = (outcome.kernel, &outcome.comparison);
        let explained: usize = compared.explained.iter().map(|each| each.facts.len()).sum();
        let _ = writeln!(
            text,
            "| {name} | {processes} | {threads} | {execs} | {tcp} | {udp} | {} | {} | {} | {} | \
             {explained} | {:.3} | {:.3} | {} | {} | {:.0} s |",
            kernel.execs,
            kernel.forks,
            kernel.opens,
            compared.same,
            compared.recall(),
            compared.precision(),
            outcome.lost,
            outcome.ruling.name(),
            outcome.seconds,
        );
    }
    text
}

fn explained(lines: &[Line]) -> String {
    let mut counts = String::from("| workload | rule | facts |\n|---|---|---|\n");
    let mut all = String::from("| workload | rule | fact |\n|---|---|---|\n");
    for (workload, outcome) in lines {
        let explained = outcome.iter().flat_map(|outcome| &outcome.comparison.explained);
        for each in explained {
            let (name, rule) = (workload.name, each.rule.name);
            let _ = writeln!(counts, "| {name} | {rule} | {} |", each.facts.len());
            for fact in &each.facts {
                let _ = writeln!(all, "| {name} | {rule} | `` {} `` |", one_line(fact));
            }
        }
    }
    if lines.iter().flat_map(|(_, outcome)| outcome).all(|of| of.comparison.explained.is_empty()) {
        return "No difference needs a rule.\n".into();
    }
    format!("{counts}\n<details>\n<summary>Each of them</summary>\n\n{all}\n</details>\n")
}

fn rules() -> String {
    let mut text = String::from("| rule | why |\n|---|---|\n");
    for rule in RULES {
        let _ = writeln!(text, "| {} | {} |", rule.name, rule.why);
    }
    text
}

/// What is in a cell: no line ends, no columns, no folder of this run, and not too long.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let short: String = plain.chars().take(LONGEST).collect();
    let short = if short.len() < plain.len() { short + "..." } else { short };
    hide_folders(&short).replace('|', "\\|").replace("``", "' '")
}

/// Folders differ from run to run and from machine to machine.
fn hide_folders(text: &str) -> String {
    let fixtures = crate::fixtures().display().to_string();
    let root = fixtures.trim_end_matches("/tests/fixtures");
    let text = text.replace(&fixtures, "$FIXTURES").replace(root, "$ROOT");
    let mut words = text.split("/tmp/tracer-test-");
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        let rest = word.find('/').map_or("", |at| &word[at..]);
        text + "$SCRATCH" + rest
    })
}
