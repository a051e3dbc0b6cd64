//! Calls over TLS, of a process that does nothing else.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::{
    Effort,
    load::{Deed, LOAD_CPU, Loads},
    pairs::Pairs,
    table::{Cell, Section},
    tools::{Bench, Tool},
};
use crate::{fixtures, on_path};

/// A server that answers over TLS, by Node too, so the breakpoints are in its file as well.
struct Server {
    child: Child,
    port: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already has nothing left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn script() -> PathBuf {
    fixtures().join("node/bench-https.mjs")
}

fn serve(bench: &Bench) -> Result<Server> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = bench.scratch.write("certificate.pem", &made.cert.pem())?;
    let key = bench.scratch.write("key.pem", &made.signing_key.serialize_pem())?;
    let mut node = Command::new(on_path("node")?);
    node.arg(script()).arg("serve").arg(certificate).arg(key).stdout(Stdio::piped());
    let mut child = node.spawn().context("cannot start node")?;
    let mut port = String::new();
    let said = child.stdout.take().context("no standard output")?;
    BufReader::new(said).read_line(&mut port)?;
    Ok(Server { child, port: port.trim().to_owned() })
}

pub(super) fn section(bench: &Bench, effort: Effort) -> Result<Section> {
    let section = Section::new(
        "Node: GET over one HTTPS connection, while TLS is read, which is only when asked",
        "wall <= 1.02",
        10_000 / effort.divisor,
        effort.pairs,
    );
    let count = section.count;
    let server = serve(bench)?;
    let words = [
        on_path("taskset")?.display().to_string(),
        "-c".to_owned(),
        LOAD_CPU.to_string(),
        on_path("node")?.display().to_string(),
        script().display().to_string(),
        "get".to_owned(),
        server.port.clone(),
        count.to_string(),
    ];
    let mut tools = vec![Tool::Nothing, Tool::Tracer, Tool::TracerHttp];
    if effort.peers {
        tools.push(Tool::TlsBpftrace);
    }
    compared(bench, section, &tools, &words)
}

/// What stops at the two ends of one call, whatever that does.
pub(super) fn stops(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    let section = Section::new(
        "One call of libssl's `SSL_write`, which begins with `sub`, and its return",
        "what is added <= 0.15 of what bpftrace adds",
        100_000 / effort.divisor,
        effort.pairs,
    );
    let words = loads.command(Deed::TlsWrite, section.count, LOAD_CPU);
    let mut tools = vec![Tool::Nothing, Tool::TracerHttp];
    if effort.peers {
        tools.push(Tool::WriteBpftrace);
    }
    compared(bench, section, &tools, &words)
}

/// The load under each tool.
fn compared(
    bench: &Bench,
    mut section: Section,
    tools: &[Tool],
    words: &[String],
) -> Result<Section> {
    section.columns = &["wall", "added each"];
    let count = section.count;
    for tool in tools {
        let measured = Pairs::measure(
            section.runs,
            || bench.trial(Tool::Nothing, words),
            || bench.trial(*tool, words),
        );
        section.add(tool.name(), measured, |pairs| {
            let each = pairs.difference(|trial| trial.load.wall_ns / count as f64);
            vec![Cell::ratio(pairs.ratio(|trial| trial.load.wall_ns)), Cell::nanoseconds(each)]
        })?;
    }
    Ok(section)
}
