//! A workload under tracer, under strace, and under the kernel's counters, all at the same time.
//!
//! ```text
//!  tracer run -- strace -f -- perf stat -- WORKLOAD
//! ```
//!
//! strace is inside, so it stops nothing of tracer's, and the processes have the same numbers for both.
//! perf is inside strace, because its counters are of what it starts. What is compared begins below perf,
//! which is where all three see the same.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tracer::{
    policy::{self, Ruling},
    record,
    session::Story,
};

use super::{
    compare::Comparison,
    facts::{Fact, Protocol, Told},
    recorded,
    rules::Known,
    strace, traced,
    workloads::Workload,
};
use crate::{
    Skip, debian_tool,
    evasions::tools,
    lab::{self, Lab},
    on_path,
    scratch::{MARK, Scratch},
};

/// The longest of them takes a few minutes.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Demands everything that costs the machine nothing.
const POLICY: &str = r#"
name = "never"

[[claim]]
kind = "never-runs"
programs = ["/nowhere/program"]
"#;

/// What strace looks at: whatever makes, executes or connects, and what tells where and with what.
const CALLS: &str = "trace=execve,execveat,clone,clone3,fork,vfork,socket,connect,sendto,sendmsg,\
                     sendmmsg,getsockopt,chdir,fchdir";

const EVENTS: &str = "sched:sched_process_exec,sched:sched_process_fork";

/// Where a workload is prepared and run.
#[derive(Debug)]
pub struct Stage {
    scratch: Scratch,
    folder: PathBuf,
}

impl Stage {
    fn new() -> Result<Stage> {
        let scratch = Scratch::new()?;
        let folder = scratch.folder("work")?;
        Ok(Stage { scratch, folder })
    }

    /// A name in the folder where the workload runs.
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.scratch.file(name)
    }
}

/// What the kernel itself counted.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    pub execs: u64,
    /// Threads too.
    pub forks: u64,
    pub opens: u64,
}

/// How many facts there are of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub processes: u64,
    pub threads: u64,
    pub execs: u64,
    pub tcp: u64,
    pub udp: u64,
}

/// A workload that was run.
#[derive(Debug)]
pub struct Outcome {
    pub comparison: Comparison,
    /// By strace.
    pub counts: Counts,
    /// By tracer, which does not count threads.
    pub recorded: Counts,
    pub kernel: Kernel,
    /// TCP connections in the recording that were opened.
    pub opened: u64,
    pub lost: u64,
    pub ruling: Ruling,
    pub reasons: Vec<String>,
    pub seconds: f64,
}

/// Runs it. With `keep`, what was written about it is copied there.
pub fn run(tracer: &Path, workload: &Workload, keep: Option<&Path>) -> Result<Outcome> {
    let stage = Stage::new()?;
    let words = (workload.words)(&stage)?;
    let started = Instant::now();
    if workload.in_lab {
        let lab = Lab::start()?;
        watch(tracer, &stage, &words, |program| lab.command(program))?;
    } else {
        lab::in_private_namespaces(|| watch(tracer, &stage, &words, |name| Command::new(name)))?;
    }
    let seconds = started.elapsed().as_secs_f64();
    if let Some(folder) = keep {
        for name in LOGS {
            fs::copy(stage.log(name), folder.join(format!("{}.{name}", workload.name)))?;
        }
    }
    judge(&stage, seconds)
}

const LOGS: [&str; 5] = ["recording.jsonl", "strace", "perf", "before", "after"];

/// Runs all of it and leaves the logs in the stage.
fn watch(
    tracer: &Path,
    stage: &Stage,
    words: &[String],
    command: impl Fn(&str) -> Command,
) -> Result<()> {
    let policy = stage.scratch.write("never.toml", POLICY)?;
    let own = tools().join("conformance/bin/perf");
    let perf = if own.is_file() { own } else { on_path("perf")? };
    // Without a file of its own the counters of a setuid program could not be read, so as root. Tools
    // look for tracefs where not every machine mounts it.
    let around = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null\n\
                  cat /proc/net/snmp >\"$LOGS/before\"\n\"$@\"\ncode=$?\n\
                  cat /proc/net/snmp >\"$LOGS/after\"\nexit $code";
    let mut shell = command("unshare");
    shell.args(["--mount", "sh", "-c", around, "sh"]);
    shell.arg(tracer).args(["run", "--quiet", "--exit-code", "command", "--policy"]).arg(policy);
    shell.arg("--output").arg(stage.log("recording.jsonl")).arg("--");
    shell.arg(debian_tool("strace")?).args(["-f", "--seccomp-bpf", "-q", "-y", "-xx"]);
    // Longer strings than the kernel takes as arguments, and as many of them as there are.
    shell.args(["-s", "131072", "--decode-pids=pidns", "-e", CALLS, "-e", "signal=none"]);
    shell.arg("-o").arg(stage.log("strace")).arg("--");
    shell.arg(perf).args(["stat", "-x,", "-e", EVENTS, "-o"]).arg(stage.log("perf")).arg("--");
    // The libraries of tools that were unpacked are not the workload's.
    shell.args(["env", "-u", "LD_LIBRARY_PATH", "-u", "LOGS"]).args(words);
    shell.env("LOGS", stage.scratch.path()).env(MARK, stage.scratch.mark());
    for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
        shell.env_remove(name);
    }
    let said = stage.log("said");
    shell.stdin(Stdio::null()).stdout(File::create(stage.log("out"))?).stderr(File::create(&said)?);
    let mut child = shell.current_dir(&stage.folder).spawn().context("cannot start unshare")?;
    let deadline = Instant::now() + LONGEST;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            stage.scratch.sweep();
            bail!("it had not ended after {LONGEST:?}");
        }
        thread::sleep(Duration::from_millis(20));
    };
    let said = fs::read_to_string(said).unwrap_or_default();
    let last: Vec<&str> = said.lines().rev().take(10).collect();
    ensure!(status.success(), "it ended with {status}: {}", last.join(" | "));
    Ok(())
}

fn judge(stage: &Stage, seconds: f64) -> Result<Outcome> {
    let read = |name: &str| {
        let file = stage.log(name);
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let steps = strace::parse(&read("strace")?).context("strace's log")?;
    let told = traced::facts(&steps, &stage.folder).context("strace's log")?;
    let starter = strace::first(&steps).context("strace saw nothing")?;
    let recording = record::read(&stage.log("recording.jsonl"))?;
    let recorded = recorded::facts(&recording, starter)?;
    let known = Known { scripts: recorded.scripts, unsure: told.unsure.clone() };
    let comparison = Comparison::of(&told.facts, &recorded.told.facts, &known);
    let story = Story::of(recording);
    let verdict = policy::judge(&story, &story.start.policies).context("there is no verdict")?;
    let end = story.end.as_ref().context("the recording has no end")?;
    let opens = lab::active_opens_of(&read("after")?)? - lab::active_opens_of(&read("before")?)?;
    let perf = read("perf")?;
    let kernel = Kernel {
        execs: counted(&perf, "sched_process_exec")?,
        forks: counted(&perf, "sched_process_fork")?,
        opens,
    };
    Ok(Outcome {
        counts: counts(&told),
        recorded: counts(&recorded.told),
        comparison,
        kernel,
        opened: recorded.opened,
        lost: end.counters.iter().map(|row| row.lost).sum(),
        ruling: verdict.overall,
        reasons: verdict.claims.into_iter().flat_map(|claim| claim.reasons).collect(),
        seconds,
    })
}

fn counts(told: &Told) -> Counts {
    let mut counts = Counts { threads: told.threads, ..Counts::default() };
    for fact in &told.facts {
        match fact {
            Fact::Birth { .. } => counts.processes += 1,
            Fact::Exec(_) => counts.execs += 1,
            Fact::Contact(contact) if contact.protocol == Protocol::Tcp => counts.tcp += 1,
            Fact::Contact(_) => counts.udp += 1,
        }
    }
    counts
}

/// A line of `perf stat -x,`.
fn counted(perf: &str, event: &str) -> Result<u64> {
    let line = perf.lines().find(|line| line.contains(event));
    let line = line.with_context(|| format!("perf did not count {event}: {perf}"))?;
    let number = line.split(',').next().unwrap_or_default();
    number.parse().map_err(|_| Skip(format!("perf cannot count here: {line}")).into())
}

impl Outcome {
    /// What is wrong: differences that no rule explains, and counts of the kernel's that are others.
    pub fn failures(&self, workload: &Workload) -> Vec<String> {
        let mut failures = Vec::new();
        let all = [
            ("strace alone", &self.comparison.missed),
            ("tracer alone", &self.comparison.invented),
        ];
        for (who, facts) in all {
            failures.extend(facts.iter().map(|fact| format!("{who}: {fact}")));
        }
        let Counts { processes, execs, .. } = self.recorded;
        let threads = self.counts.threads;
        let mut equal = |what: &str, ours: u64, kernel: u64| {
            if ours != kernel {
                failures.push(format!("{what}: {ours}, and {kernel} by the kernel's own count"));
            }
        };
        equal("execs", execs, self.kernel.execs);
        // perf's counters begin with the exec of the first process, so its own birth is not counted.
        equal("processes and threads", (processes + threads).saturating_sub(1), self.kernel.forks);
        equal("opened TCP connections", self.opened, self.kernel.opens);
        if self.lost > 0 {
            failures.push(format!("{} events were lost", self.lost));
        }
        let is_known =
            |reason: &&String| workload.reasons.iter().any(|known| reason.contains(known));
        let expected =
            if workload.reasons.is_empty() { Ruling::Proven } else { Ruling::Inconclusive };
        if self.ruling != expected || !self.reasons.iter().all(|reason| is_known(&reason)) {
            failures.push(format!("{}: {}", self.ruling.name(), self.reasons.join("; ")));
        }
        failures
    }
}
