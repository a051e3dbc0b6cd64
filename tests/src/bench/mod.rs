//! How much tracer costs, beside what one would use instead.
//!
//! Every number is of pairs: the load alone, the load with the tool, and again, so that a machine that
//! gets slower meanwhile does so for both. The load and the tool have a processor each. What two runs
//! without any tool differ by is measured the same way, and nothing smaller is called a difference.

mod growth;
mod http;
pub mod load;
pub mod long;
pub mod losses;
mod memory;
mod pairs;
mod programs;
mod reading;
mod start;
pub mod stats;
mod steps;
pub mod table;
pub mod tools;
mod work;

use anyhow::Result;

use self::{
    load::{Deed, LOAD_CPU, Loads},
    pairs::Pairs,
    stats::median,
    table::{Cell, Finding, Section},
    tools::{Bench, Tool},
};
use crate::Skip;

/// How long one wants to wait.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub pairs: usize,
    /// What counts of deeds are divided by.
    pub divisor: u64,
    /// How long machines are saturated.
    pub seconds: u64,
    /// Whether other tools are measured too.
    pub peers: bool,
}

impl Effort {
    pub const FULL: Effort = Effort { pairs: 11, divisor: 1, seconds: 60, peers: true };
    /// Enough to see that everything still works, and for nothing else.
    pub const QUICK: Effort = Effort { pairs: 2, divisor: 20, seconds: 2, peers: false };
}

/// A part of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Spawn,
    Connect,
    Programs,
    Untraced,
    Resolver,
    Http,
    Node,
    Work,
    Start,
    Losses,
    Memory,
    Reading,
    Growth,
}

impl Part {
    pub const ALL: [Part; 13] = [
        Part::Spawn,
        Part::Connect,
        Part::Programs,
        Part::Untraced,
        Part::Resolver,
        Part::Http,
        Part::Node,
        Part::Work,
        Part::Start,
        Part::Losses,
        Part::Memory,
        Part::Reading,
        Part::Growth,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Part::Spawn => "spawn",
            Part::Connect => "connect",
            Part::Programs => "programs",
            Part::Untraced => "untraced",
            Part::Resolver => "resolver",
            Part::Http => "http",
            Part::Node => "node",
            Part::Work => "work",
            Part::Start => "start",
            Part::Losses => "losses",
            Part::Memory => "memory",
            Part::Reading => "reading",
            Part::Growth => "growth",
        }
    }
}

/// Measures a part.
pub fn sections(part: Part, bench: &Bench, effort: Effort) -> Result<Vec<Section>> {
    let loads = Loads::compile(&bench.scratch)?;
    let section = match part {
        Part::Spawn => traced(bench, &loads, effort, &SPAWN),
        Part::Connect => traced(bench, &loads, effort, &CONNECT),
        Part::Programs => programs::section(bench, &loads, effort),
        Part::Untraced => untraced(bench, &loads, effort),
        Part::Resolver => resolver(bench, &loads, effort),
        Part::Http => {
            let calls = http::section(bench, effort)?;
            return Ok(vec![calls, http::stops(bench, &loads, effort)?]);
        }
        Part::Node => node(bench, &loads, effort),
        Part::Work => work::section(bench, &loads, effort),
        Part::Start => {
            let whole = start::section(bench, &loads, effort)?;
            return Ok(vec![whole, steps::section(effort)?]);
        }
        Part::Losses => {
            let own = losses::section(bench, &loads, effort)?;
            return Ok(vec![own, losses::beside_others(bench, &loads, effort)?]);
        }
        Part::Memory => memory::section(bench, &loads, effort),
        Part::Reading => reading::section(bench, effort),
        Part::Growth => return growth::sections(bench, &loads, effort),
    };
    Ok(vec![section?])
}

/// A load that is traced.
struct Traced {
    title: &'static str,
    deed: Deed,
    count: u64,
    goal: &'static str,
    peers: &'static [Tool],
}

const SPAWN: Traced = Traced {
    title: "Start a static program and wait for it",
    deed: Deed::Spawn,
    count: 2_000,
    goal: "wall and CPU of the load <= 1.01; CPU of the collector <= 5 us each",
    peers: &Tool::PEERS_OF_SPAWN,
};

const CONNECT: Traced = Traced {
    title: "Connect over the loopback device, accept, close",
    deed: Deed::Connect,
    count: 10_000,
    goal: "wall of the load <= 1.03; CPU of the collector <= 2 us each",
    peers: &Tool::PEERS_OF_CONNECT,
};

fn tools(effort: Effort, peers: &'static [Tool]) -> Vec<Tool> {
    let mut tools = vec![Tool::Nothing, Tool::Tracer];
    tools.extend(peers.iter().filter(|_| effort.peers));
    tools
}

fn traced(bench: &Bench, loads: &Loads, effort: Effort, of: &Traced) -> Result<Section> {
    // What a tool costs without a load is no cost of the load.
    let idle = loads.command(of.deed, 1, LOAD_CPU);
    let most = of.count / effort.divisor;
    let mut section = Section::new(of.title, of.goal, most, effort.pairs);
    section.columns =
        &["wall", "CPU of the load", "added", "CPU of the tool", "memory of the tool"];
    for tool in tools(effort, of.peers) {
        let count = most / tool.takes();
        let command = loads.command(of.deed, count, LOAD_CPU);
        let measured = (|| {
            let pairs = Pairs::measure(
                effort.pairs,
                || bench.trial(Tool::Nothing, &command),
                || bench.trial(tool, &command),
            )?;
            let idle = bench.trial(tool, &idle)?;
            Ok((pairs, idle))
        })();
        section.add(tool.name(), measured, |(pairs, idle)| {
            let wall = pairs.ratio(|trial| trial.load.wall_ns);
            let each = |ns: f64| ns / count as f64;
            let tool_cpu: Vec<f64> = pairs
                .with
                .iter()
                .map(|trial| each((trial.tool_cpu_ns - idle.tool_cpu_ns).max(0.0)))
                .collect();
            let bytes = pairs.with.iter().map(|trial| trial.tool_bytes).max().unwrap_or(0);
            let own = tool != Tool::Nothing;
            vec![
                Cell::ratio(wall),
                Cell::ratio(pairs.ratio(|trial| trial.load.cpu_ns)),
                Cell::nanoseconds(pairs.difference(|trial| each(trial.load.wall_ns))),
                if own { Cell::nanoseconds(median(&tool_cpu)) } else { Cell::Nothing },
                if own { Cell::Bytes(bytes) } else { Cell::Nothing },
            ]
        })?;
    }
    Ok(section)
}

/// A system call of a process that nobody asked to trace.
fn untraced(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    let count = 5_000_000 / effort.divisor;
    let command = loads.command(Deed::NullCall, count, LOAD_CPU);
    let mut section = Section::new(
        "A system call of a process that is not traced",
        "<= 1.01",
        count,
        effort.pairs,
    );
    section.columns = &["wall", "each"];
    for tool in tools(effort, &Tool::PEERS_OF_SPAWN) {
        let measured = Pairs::measure(
            effort.pairs,
            || bench.trial(Tool::Nothing, &command),
            || {
                let _watching =
                    if tool == Tool::Nothing { None } else { Some(bench.watching(tool)?) };
                bench.trial(Tool::Nothing, &command)
            },
        );
        section.add(tool.name(), measured, |pairs| {
            let each: Vec<f64> =
                pairs.with.iter().map(|trial| trial.load.wall_ns / count as f64).collect();
            vec![
                Cell::ratio(pairs.ratio(|trial| trial.load.wall_ns)),
                Cell::nanoseconds(median(&each)),
            ]
        })?;
    }
    Ok(section)
}

/// A call of the C library's resolver, the shortest there is: of an address.
fn resolver(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    let mut section = Section::new(
        "`getaddrinfo` while tracer watches it, which it does only when asked",
        "a few microseconds; a call that asks anybody takes 100 us and more",
        50_000 / effort.divisor,
        effort.pairs,
    );
    section.columns = &["wall", "added each"];
    let count = section.count;
    let command = loads.command(Deed::Resolve, count, LOAD_CPU);
    let outside = |tool| bench.watching(tool).map(Some);
    for (name, tool, is_inside) in [
        ("nothing", Tool::Nothing, true),
        ("in the tree, tracer run", Tool::Tracer, true),
        ("in the tree, tracer run --resolver", Tool::TracerResolver, true),
        ("in another process, tracer run", Tool::Tracer, false),
        ("in another process, tracer run --resolver", Tool::TracerResolver, false),
    ] {
        let measured = Pairs::measure(
            effort.pairs,
            || bench.trial(Tool::Nothing, &command),
            || {
                let _watching = if is_inside { None } else { outside(tool)? };
                bench.trial(if is_inside { tool } else { Tool::Nothing }, &command)
            },
        );
        section.add(name, measured, |pairs| {
            let each = pairs.difference(|trial| trial.load.wall_ns / count as f64);
            vec![Cell::ratio(pairs.ratio(|trial| trial.load.wall_ns)), Cell::nanoseconds(each)]
        })?;
    }
    Ok(section)
}

/// What a Node process does all day.
fn node(bench: &Bench, loads: &Loads, effort: Effort) -> Result<Section> {
    let mut section = Section::new(
        "Node: `spawnSync` and `net.connect`",
        "wall <= 1.01 and <= 1.02",
        2_000 / effort.divisor,
        effort.pairs,
    );
    section.columns = &["wall", "added each"];
    let count = section.count;
    for (name, deed, tool) in [
        ("spawnSync, nothing", Deed::Spawn, Tool::Nothing),
        ("spawnSync, tracer run", Deed::Spawn, Tool::Tracer),
        ("net.connect, nothing", Deed::Connect, Tool::Nothing),
        ("net.connect, tracer run", Deed::Connect, Tool::Tracer),
    ] {
        let command = loads.in_node(deed, count)?;
        let measured = Pairs::measure(
            effort.pairs,
            || bench.trial(Tool::Nothing, &command),
            || bench.trial(tool, &command),
        );
        section.add(name, measured, |pairs| {
            let each = pairs.difference(|trial| trial.load.wall_ns / count as f64);
            vec![Cell::ratio(pairs.ratio(|trial| trial.load.wall_ns)), Cell::nanoseconds(each)]
        })?;
    }
    Ok(section)
}

impl Section {
    /// A row; one that could not be measured here says why.
    fn add<T>(
        &mut self,
        name: &str,
        measured: Result<T>,
        cells: impl FnOnce(T) -> Vec<Cell>,
    ) -> Result<()> {
        let finding = match measured {
            Ok(measured) => Finding::Measured(cells(measured)),
            Err(error) => Finding::NotHere(error.downcast::<Skip>().map(|skip| skip.to_string())?),
        };
        self.rows.push((name.to_owned(), finding));
        Ok(())
    }
}
