//! How much memory a tool has after it has seen much.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};

use super::{
    Effort,
    load::{self, Deed, LOAD_CPU, Loads},
    table::{Cell, Section},
    tools::{Bench, Tool},
};

/// Processes with three events each, and connections with three each: 100,000 events.
const PROCESSES: u64 = 10_000;
const CONNECTIONS: u64 = 23_400;

pub(super) fn section(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    let mut section = Section::new(
        "Resident memory after 10,000 processes and 23,400 connections",
        "16 MB and the rings, and 1.2 of execsnoop's; of what is shared, a part",
        1,
        1,
    );
    section.columns = &["resident", "of that rings", "without them"];
    let spawn = loads.command(Deed::Spawn, PROCESSES / effort.divisor, LOAD_CPU);
    let connect = loads.command(Deed::Connect, CONNECTIONS / effort.divisor, LOAD_CPU);
    let mut cases = vec![
        (Tool::Tracer, "tracer run, before that", true),
        (Tool::Tracer, Tool::Tracer.name(), false),
    ];
    if effort.peers {
        let others = [Tool::Execsnoop, Tool::ExecsnoopBpftrace];
        cases.extend(others.map(|tool| (tool, tool.name(), false)));
    }
    for (tool, name, idle) in cases {
        let measured = (|| {
            let watcher = if idle {
                bench.watching(tool)?
            } else if tool == Tool::Tracer {
                let script = format!(
                    "{} >/dev/null && {} >/dev/null && echo ready; exec sleep 600",
                    spawn.join(" "),
                    connect.join(" ")
                );
                let words = bench.words(tool, &["sh".into(), "-c".into(), script])?;
                bench.start(tool, &words, "ready")?
            } else {
                let watcher = bench.watching(tool)?;
                for words in [&spawn, &connect] {
                    load::cost(&bench.prepared(words)?.output()?)?;
                }
                watcher
            };
            // What it has not read yet.
            thread::sleep(Duration::from_secs(2));
            let memory = watcher.memory()?;
            ensure!(memory.bytes > 0, "no process of {} was found", tool.name());
            Ok(memory)
        })();
        section.add(name, measured, |memory| {
            vec![
                Cell::Bytes(memory.bytes),
                Cell::Bytes(memory.ring_bytes),
                Cell::Bytes(memory.bytes - memory.ring_bytes),
            ]
        })?;
    }
    Ok(section)
}
