//! A long session: every processor makes processes and connections all the time, and tracer must neither
//! lose an event nor need more memory the longer it lasts.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    bench::{load::Loads, losses},
    lab,
    scratch::{MARK, Scratch},
};

const POLICY: &str =
    "name = \"never\"\n[[claim]]\nkind = \"never-runs\"\nprograms = [\"/nowhere/program\"]\n";

/// The recording goes on in a new file at this size, and those that are full are counted and removed.
const PART: &str = "16M";

/// What came of it.
#[derive(Debug)]
pub struct Soak {
    pub seconds: f64,
    pub read: u64,
    pub lost: u64,
    /// Lines of the recording that are events.
    pub lines: u64,
    pub ruling: String,
    pub reasons: Vec<String>,
    /// Resident memory of tracer in bytes, one sample a second.
    pub memory: Vec<u64>,
    pub recording_bytes: u64,
}

/// Runs it for so long.
pub fn run(tracer: &Path, seconds: u64) -> Result<Soak> {
    let scratch = Scratch::new()?;
    let loads = Loads::compile(&scratch)?;
    lab::in_private_namespaces(|| watch(tracer, &scratch, &losses::busy(&loads, seconds), seconds))
}

fn watch(tracer: &Path, scratch: &Scratch, script: &str, seconds: u64) -> Result<Soak> {
    let policy = scratch.write("never.toml", POLICY)?;
    let mut parts = Parts { first: scratch.file("recording"), number: 0, lines: 0, bytes: 0 };
    let mut command = Command::new(tracer);
    command.args(["run", "--quiet", "--rotate", PART, "--policy"]).arg(policy);
    command.arg("--output").arg(&parts.first).args(["--", "bash", "-c", script]);
    command.env(MARK, scratch.mark()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let started = Instant::now();
    let mut child = command.spawn().context("cannot start tracer")?;
    let longest = Duration::from_secs(seconds + 300);
    let mut memory = Vec::new();
    while child.try_wait()?.is_none() {
        if started.elapsed() > longest {
            child.kill()?;
            child.wait()?;
        }
        thread::sleep(Duration::from_secs(1));
        // Not while it starts and ends.
        let is_under_load = (2..seconds).contains(&started.elapsed().as_secs());
        memory.extend(resident(&child).filter(|_| is_under_load));
        parts.remove_full()?;
    }
    let end = parts.last()?;
    ensure!(end["type"] == "end", "the recording has no end");
    let counters = end["counters"].as_array().context("no counters")?;
    let sum = |field: &str| counters.iter().filter_map(|row| row[field].as_u64()).sum();
    let claims = end["verdict"]["claims"].as_array().context("no verdict")?;
    let reasons = claims.iter().filter_map(|claim| claim["reasons"].as_array()).flatten();
    Ok(Soak {
        seconds: started.elapsed().as_secs_f64(),
        read: sum("read"),
        lost: sum("lost"),
        lines: parts.lines,
        ruling: end["verdict"]["overall"].as_str().context("no verdict")?.to_owned(),
        reasons: reasons.filter_map(|reason| reason.as_str().map(str::to_owned)).collect(),
        memory,
        recording_bytes: parts.bytes,
    })
}

fn resident(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// The files of the recording.
struct Parts {
    first: PathBuf,
    /// Of the oldest that is still there.
    number: u32,
    lines: u64,
    bytes: u64,
}

impl Parts {
    fn file(&self, number: u32) -> PathBuf {
        match number {
            0 => self.first.clone(),
            more => PathBuf::from(format!("{}.{more}", self.first.display())),
        }
    }

    /// Those that another follows are not written any more.
    fn remove_full(&mut self) -> Result<()> {
        while self.file(self.number + 1).exists() {
            let file = self.file(self.number);
            self.count(&file)?;
            fs::remove_file(file)?;
            self.number += 1;
        }
        Ok(())
    }

    fn count(&mut self, file: &Path) -> Result<String> {
        let mut last = String::new();
        for line in BufReader::new(fs::File::open(file)?).lines() {
            let line = line?;
            self.lines += 1;
            self.bytes += line.len() as u64 + 1;
            last = line;
        }
        Ok(last)
    }

    fn last(&mut self) -> Result<Value> {
        self.remove_full()?;
        let line = self.count(&self.file(self.number))?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Soak {
    /// The most memory in one third of the time.
    fn most(&self, third: usize) -> u64 {
        let each = self.memory.len() / 3;
        self.memory.iter().skip(third * each).take(each).copied().max().unwrap_or(0)
    }

    /// What is wrong.
    pub fn failures(&self) -> Vec<String> {
        // Rings are memory that is touched as they go round, so the first third is not compared.
        const GROWTH: f64 = 1.05;
        let mut failures = Vec::new();
        if self.lost > 0 {
            failures.push(format!("{} events were lost", self.lost));
        }
        if self.ruling != "proven" {
            failures.push(format!("{}: {}", self.ruling, self.reasons.join("; ")));
        }
        let (middle, last) = (self.most(1), self.most(2));
        if last as f64 > middle as f64 * GROWTH {
            failures.push(format!("memory grew from {middle} to {last} bytes"));
        }
        failures
    }

    /// In one sentence, for the document.
    pub fn sentence(&self) -> String {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        format!(
            "{:.0} s with every processor saturated: {} events read ({:.0} a second, as many as in one hour \
             at {:.0} a second), {} lost, verdict {}; resident memory at most {:.1} MB in the first third of \
             the time, {:.1} MB in the second, {:.1} MB in the last; the recording had {:.0} MB.",
            self.seconds,
            self.read,
            self.read as f64 / self.seconds,
            self.read as f64 / 3600.0,
            self.lost,
            self.ruling,
            megabytes(self.most(0)),
            megabytes(self.most(1)),
            megabytes(self.most(2)),
            megabytes(self.recording_bytes),
        )
    }
}
