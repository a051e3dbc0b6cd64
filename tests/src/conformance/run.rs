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
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tracer::{
    policy::{self, Ruling},
    record,
    session::Story,
};

use super::{
    compare::Comparison,
    facts::{Fact, Protocol, Status, Told, Who},
    recorded,
    rules::Known,
    strace, traced,
    workloads::Workload,
};
use crate::{
    debian_tool,
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

/// The programs that say what really happened.
#[derive(Debug)]
pub struct GroundTruth {
    strace: PathBuf,
    perf: PathBuf,
}

impl GroundTruth {
    /// Without them nothing can be compared, which is an error and no reason to skip anything.
    pub fn find() -> Result<GroundTruth> {
        let own = tools().join("conformance/bin/perf");
        let strace = debian_tool("strace");
        let perf = if own.is_file() { Ok(own) } else { on_path("perf") };
        // Not as a `Skip`, which the cause would be.
        let or_fail = |found: Result<PathBuf>| {
            found.map_err(|error| {
                anyhow!(
                    "{error:#}: nothing says what really happened, so nothing can be compared; install \
                     strace and perf (Debian's linux-perf), or run `cargo xtask conformance`, which \
                     unpacks them where apt can"
                )
            })
        };
        Ok(GroundTruth { strace: or_fail(strace)?, perf: or_fail(perf)? })
    }
}

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

    /// A folder there in which every user may write.
    pub fn folder_of_all(&self, name: &str) -> Result<String> {
        let path = self.folder.join(name);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777))?;
        Ok(path.display().to_string())
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
    /// Of the workload itself, by strace.
    pub status: Status,
    pub seconds: f64,
}

/// Runs it. With `keep`, what was written about it is copied there, and what rules explain.
pub fn run(
    tracer: &Path,
    workload: &Workload,
    truth: &GroundTruth,
    keep: Option<&Path>,
) -> Result<Outcome> {
    let stage = Stage::new()?;
    let words = (workload.words)(&stage)?;
    let started = Instant::now();
    if workload.in_lab {
        let lab = Lab::start()?;
        watch(tracer, truth, &stage, &words, |program| lab.command(program))?;
    } else {
        lab::in_private_namespaces(|| {
            watch(tracer, truth, &stage, &words, |name| Command::new(name))
        })?;
    }
    let seconds = started.elapsed().as_secs_f64();
    if let Some(folder) = keep {
        for name in LOGS {
            fs::copy(stage.log(name), folder.join(format!("{}.{name}", workload.name)))?;
        }
    }
    let outcome = judge(&stage, seconds)?;
    if let Some(folder) = keep {
        let file = folder.join(format!("{}.explained", workload.name));
        fs::write(&file, explained(&outcome.comparison))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(outcome)
}

/// All that rules explain, in full length.
fn explained(comparison: &Comparison) -> String {
    let lines = comparison.explained.iter().flat_map(|each| {
        each.facts.iter().map(|fact| format!("{}: {}\n", each.rule.name, fact.escape_debug()))
    });
    lines.collect()
}

const LOGS: [&str; 5] = ["recording.jsonl", "strace", "perf", "before", "after"];

/// Runs all of it and leaves the logs in the stage.
fn watch(
    tracer: &Path,
    truth: &GroundTruth,
    stage: &Stage,
    words: &[String],
    command: impl Fn(&str) -> Command,
) -> Result<()> {
    let policy = stage.scratch.write("never.toml", POLICY)?;
    // Without a file of its own the counters of a setuid program could not be read, so as root. Tools
    // look for tracefs where not every machine mounts it.
    let around = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null\n\
                  cat /proc/net/snmp >\"$LOGS/before\"\n\"$@\"\ncode=$?\n\
                  cat /proc/net/snmp >\"$LOGS/after\"\nexit $code";
    let mut shell = command("unshare");
    shell.args(["--mount", "sh", "-c", around, "sh"]);
    shell.arg(tracer).args(["run", "--quiet", "--exit-code", "command", "--policy"]).arg(policy);
    shell.arg("--output").arg(stage.log("recording.jsonl")).arg("--");
    shell.arg(&truth.strace).args(["-f", "--seccomp-bpf", "-q", "-y", "-xx"]);
    // Longer strings than the kernel takes as arguments, and as many of them as there are.
    shell.args(["-s", "131072", "--decode-pids=pidns", "-e", CALLS]);
    // Of signals it says which one killed a process, except of those that are left out here.
    shell.args(["-e", "signal=!SIGCHLD"]);
    shell.arg("-o").arg(stage.log("strace")).arg("--");
    shell
        .arg(&truth.perf)
        .args(["stat", "-x,", "-e", EVENTS, "-o"])
        .arg(stage.log("perf"))
        .arg("--");
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
    let known = Known { unsure: told.unsure.clone(), untraced: told.untraced.clone() };
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
        status: status_of_workload(&told, starter),
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
            Fact::End { .. } => {}
        }
    }
    counts
}

/// The process that perf made has executed the workload.
fn status_of_workload(told: &Told, starter: u32) -> Status {
    let perf = Who { pid: starter, life: 0 };
    let made = told.facts.iter().find_map(|fact| match fact {
        Fact::Birth { who, child } if *who == perf => Some(*child),
        Fact::Birth { .. } | Fact::Exec(_) | Fact::Contact(_) | Fact::End { .. } => None,
    });
    let status = told.facts.iter().find_map(|fact| match fact {
        Fact::End { who, status } if Some(*who) == made => Some(status.clone()),
        Fact::Birth { .. } | Fact::Exec(_) | Fact::Contact(_) | Fact::End { .. } => None,
    });
    status.unwrap_or(Status::Unknown)
}

/// A line of `perf stat -x,`.
fn counted(perf: &str, event: &str) -> Result<u64> {
    let line = perf.lines().find(|line| line.contains(event));
    let line = line.with_context(|| format!("perf did not count {event}: {perf}"))?;
    let number = line.split(',').next().unwrap_or_default();
    number.parse().ok().with_context(|| {
        format!("perf cannot count here, so there is no count of the kernel's to compare: {line}")
    })
}

impl Outcome {
    /// What is wrong: differences that no rule explains, counts of the kernel's that are others, and a
    /// workload that did not do what it is for.
    pub fn failures(&self, workload: &Workload) -> Vec<String> {
        let mut failures = Vec::new();
        let all = [
            ("strace alone", &self.comparison.missed),
            ("tracer alone", &self.comparison.invented),
        ];
        for (who, facts) in all {
            failures.extend(facts.iter().map(|fact| format!("{who}: {fact}")));
        }
        if self.status != Status::Code(0) {
            failures.push(format!("the workload itself failed: it ended with {:?}", self.status));
        }
        let (seen, least) = (&self.counts, &workload.at_least);
        for (what, seen, least) in [
            ("processes", seen.processes, least.processes),
            ("execs", seen.execs, least.execs),
            ("TCP connections", seen.tcp, least.tcp),
            ("destinations of UDP sockets", seen.udp, least.udp),
        ] {
            if seen < least {
                failures.push(format!(
                    "the workload did not do its work: strace saw {seen} {what}, and it makes at least \
                     {least}"
                ));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::WORKLOADS;

    /// What came of a workload that did just enough, and was recorded without a difference.
    fn outcome(workload: &Workload) -> Outcome {
        let counts = workload.at_least;
        Outcome {
            comparison: Comparison::default(),
            counts,
            recorded: counts,
            kernel: Kernel { execs: counts.execs, forks: counts.processes - 1, opens: counts.tcp },
            opened: counts.tcp,
            lost: 0,
            ruling: Ruling::Proven,
            reasons: Vec::new(),
            status: Status::Code(0),
            seconds: 1.0,
        }
    }

    fn fails(workload: &Workload, outcome: &Outcome, words: &str) {
        let failures = outcome.failures(workload);
        assert!(failures.iter().any(|failure| failure.contains(words)), "{failures:?}");
    }

    #[test]
    fn a_workload_that_does_nothing_fails() {
        for workload in WORKLOADS.iter().filter(|workload| workload.reasons.is_empty()) {
            assert_eq!(outcome(workload).failures(workload), <[String; 0]>::default());
            // A shell or an `env`, and nothing else.
            let counts = Counts { processes: 1, execs: 2, ..Counts::default() };
            let kernel = Kernel { execs: 2, forks: 0, opens: 0 };
            let idle = Outcome { counts, recorded: counts, kernel, opened: 0, ..outcome(workload) };
            fails(workload, &idle, "did not do its work");
        }
    }

    #[test]
    fn a_workload_that_fails_fails() {
        let workload = &WORKLOADS[0];
        for status in [Status::Code(1), Status::Signal("SIGSEGV".into()), Status::Unknown] {
            fails(workload, &Outcome { status, ..outcome(workload) }, "the workload itself failed");
        }
    }

    #[test]
    fn uncounted_is_an_error_and_no_reason_to_skip() {
        let error = counted("<not counted>,,sched:sched_process_exec,0,100.00,,", "process_exec");
        assert!(error.unwrap_err().downcast_ref::<crate::Skip>().is_none());
    }
}
