//! What a start waits for the kernel to do, each by itself.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use tracer::probe::{CgroupTarget, Loaded, Options};

use super::{
    Effort,
    stats::median,
    table::{Cell, Section},
};
use crate::cgroup::{self, Cgroup};

type Step = fn() -> Result<Duration>;

pub(super) fn section(effort: Effort) -> Result<Section> {
    let mut section = Section::new(
        "What a start waits for the kernel to do",
        "none: this is what a start cannot do without",
        1,
        effort.pairs,
    );
    section.columns = &["takes"];
    let cases: [(&str, Step); 4] = [
        ("rings and other maps are made, programs checked", || load(None)),
        ("the same with rings of 4 KiB", || load(Some(4096))),
        ("all that is given back", give_back),
        ("a process joins another cgroup, after none did for a while", join),
    ];
    for (name, step) in cases {
        let taken = (0..effort.pairs).map(|_| step()).collect::<Result<Vec<_>>>();
        section.add(name, taken, |taken| {
            let ns: Vec<f64> = taken.iter().map(|taken| taken.as_nanos() as f64).collect();
            vec![Cell::nanoseconds(median(&ns))]
        })?;
    }
    Ok(section)
}

fn loaded(ring_bytes: Option<u32>) -> Result<Loaded> {
    // Nothing is attached to it.
    let directory = File::open(cgroup::root())?;
    let target =
        CgroupTarget { id: directory.metadata()?.ino(), directory: OwnedFd::from(directory) };
    Ok(Loaded::new(&Options { ring_bytes, ..Options::default() }, Ok(target))?)
}

fn load(ring_bytes: Option<u32>) -> Result<Duration> {
    let begun = Instant::now();
    let loaded = loaded(ring_bytes)?;
    let taken = begun.elapsed();
    drop(loaded);
    Ok(taken)
}

fn give_back() -> Result<Duration> {
    let loaded = loaded(None)?;
    let begun = Instant::now();
    drop(loaded);
    Ok(begun.elapsed())
}

/// Ended when dropped.
struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kernel lets nobody fork, exec or exit meanwhile, and waits until all processors know.
fn join() -> Result<Duration> {
    const A_WHILE: Duration = Duration::from_millis(300);
    let cgroup = Cgroup::new("tracer-bench")?;
    let idle = Idle(Command::new("sleep").arg("60").spawn()?);
    thread::sleep(A_WHILE);
    let begun = Instant::now();
    std::fs::write(cgroup.path().join("cgroup.procs"), idle.0.id().to_string())?;
    let taken = begun.elapsed();
    drop(idle);
    Ok(taken)
}
