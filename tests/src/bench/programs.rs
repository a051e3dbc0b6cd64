//! What each program of the kernel side takes, by the kernel's own clock: where the time of a load goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;

use super::{
    Effort,
    load::{Deed, LOAD_CPU, Loads},
    table::{Cell, Finding, Section},
    tools::{Bench, Tool},
};

/// Whether the kernel measures programs, as long as this lives.
struct Measuring {
    before: String,
}

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Measuring {
    fn new() -> Result<Measuring> {
        let before = fs::read_to_string(SWITCH)?;
        fs::write(SWITCH, "1")?;
        Ok(Measuring { before })
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        // What it was before can be set again.
        let _ = fs::write(SWITCH, &self.before);
    }
}

/// What the kernel says of a program.
struct Ran {
    name: String,
    times: u64,
    ns: u64,
}

/// Programs that are loaded now, by their numbers.
fn programs() -> Result<BTreeMap<u64, Ran>> {
    let mut programs = BTreeMap::new();
    for program in loaded_programs() {
        // One that is gone meanwhile ran for somebody else.
        let Ok(program) = program else { continue };
        let fd = program.fd()?;
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
        let number = |name: &str| -> Option<u64> {
            about.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        let id = number("prog_id:").context("a program without a number")?;
        let name = program.name_as_str().unwrap_or("?").to_owned();
        let (times, ns) = (number("run_cnt:"), number("run_time_ns:"));
        let (times, ns) = times.zip(ns).context("a program without counts")?;
        programs.insert(id, Ran { name, times, ns });
    }
    Ok(programs)
}

pub(super) fn section(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    let mut section = Section::new(
        "Programs of the kernel side, while static programs are started and connections made",
        "none: this is where the time goes that is added to both. The kernel's own way to a program is not in it",
        1,
        1,
    );
    section.columns = &["runs for a spawn", "for a connection", "takes each"];
    let _measuring = Measuring::new()?;
    let others: BTreeSet<u64> = programs()?.into_keys().collect();
    let mut rows: BTreeMap<String, [Ran; 2]> = BTreeMap::new();
    let deeds = [(Deed::Spawn, 2_000 / effort.divisor), (Deed::Connect, 10_000 / effort.divisor)];
    for (at, (deed, count)) in deeds.iter().enumerate() {
        let script = format!(
            "{} >/dev/null && echo ready; exec sleep 600",
            loads.command(*deed, *count, LOAD_CPU).join(" ")
        );
        let words = bench.words(Tool::Tracer, &["sh".into(), "-c".into(), script])?;
        let _tracer = bench.start(Tool::Tracer, &words, "ready")?;
        for (id, ran) in programs()? {
            if !others.contains(&id) {
                let none = || Ran { name: String::new(), times: 0, ns: 0 };
                let row = rows.entry(ran.name.clone()).or_insert_with(|| [none(), none()]);
                row[at] = ran;
            }
        }
    }
    for (name, ran) in rows {
        let of = |at: usize| ran[at].times as f64 / deeds[at].1 as f64;
        let (times, ns) = (ran[0].times + ran[1].times, ran[0].ns + ran[1].ns);
        // What runs now and then is of no load.
        if of(0) < 0.5 && of(1) < 0.5 {
            continue;
        }
        let cells = vec![
            Cell::Words(format!("{:.1}", of(0))),
            Cell::Words(format!("{:.1}", of(1))),
            Cell::nanoseconds(Some(ns as f64 / times as f64)),
        ];
        section.rows.push((name, Finding::Measured(cells)));
    }
    Ok(section)
}
