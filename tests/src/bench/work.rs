//! What people do all day, timed as a whole.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{
    Effort,
    load::{self, LOAD_CPU, Loads},
    pairs::Pairs,
    stats::median,
    table::{Cell, Section},
    tools::{Bench, Tool, Trial},
};
use crate::{Skip, fixtures, lab::Lab, on_path};

/// A piece of work: the program and its arguments.
type Words = Vec<String>;

pub(super) fn section(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    let pairs = effort.pairs.min(7);
    let mut section = Section::new(
        "`npm ci` without a network, and the bundled session of an agent",
        "wall <= 1.01",
        1,
        pairs,
    );
    section.columns = &["wall", "takes", "added"];
    let lab = Lab::start()?;
    let mut works = vec![("session", session())];
    if effort.peers {
        // It takes seconds.
        works.push(("npm ci", install(bench)));
    }
    for (name, words) in works {
        let words = match words {
            Ok(words) => words,
            Err(error) => {
                section.add(name, Err::<(), _>(error), |()| Vec::new())?;
                continue;
            }
        };
        for tool in [Tool::Nothing, Tool::Tracer] {
            let measured = Pairs::measure(
                pairs,
                || once(bench, loads, &lab, Tool::Nothing, &words),
                || once(bench, loads, &lab, tool, &words),
            );
            section.add(&format!("{name}, {}", tool.name()), measured, |pairs| {
                let walls: Vec<f64> = pairs.with.iter().map(|trial| trial.load.wall_ns).collect();
                vec![
                    Cell::ratio(pairs.ratio(|trial| trial.load.wall_ns)),
                    Cell::nanoseconds(median(&walls)),
                    Cell::nanoseconds(pairs.difference(|trial| trial.load.wall_ns)),
                ]
            })?;
        }
    }
    Ok(section)
}

/// Packages that the set-up has installed already, so npm has them.
fn install(bench: &Bench) -> Result<Words> {
    let folder = bench.scratch.folder("npm")?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(fixtures().join("agent").join(file), folder.join(file))?;
    }
    let npm = on_path("npm")?.display().to_string();
    // The lab has a home of its own.
    let cache = Command::new(&npm).args(["config", "get", "cache"]).output()?.stdout;
    let cache = String::from_utf8(cache)?.trim().to_owned();
    let folder = folder.display().to_string();
    let words = [
        &npm,
        "ci",
        "--offline",
        "--no-audit",
        "--no-fund",
        "--cache",
        &cache,
        "--prefix",
        &folder,
    ];
    let words: Words = words.map(str::to_owned).into();
    let output = Command::new(&words[0]).args(&words[1..]).output().context("cannot start npm")?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), Skip(format!("npm: {}", why.lines().next().unwrap_or(""))));
    Ok(words)
}

fn session() -> Result<Words> {
    let agent = fixtures().join("agent");
    ensure!(agent.join("node_modules").is_dir(), Skip("no packages of the agent".into()));
    let script = agent.join("agent.mjs").display().to_string();
    let node = on_path("node")?.display().to_string();
    Ok([&node, &script, "--mode", "bedrock"].map(str::to_owned).into())
}

fn once(bench: &Bench, loads: &Loads, lab: &Lab, tool: Tool, words: &[String]) -> Result<Trial> {
    let all = bench.words(tool, &loads.whole(words, LOAD_CPU))?;
    let (program, arguments) = all.split_first().context("no words")?;
    let output = lab.command(program).args(arguments).output()?;
    let load = load::cost(&output).with_context(|| format!("{words:?}"))?;
    Ok(Trial { load, tool_cpu_ns: 0.0, tool_bytes: 0 })
}
