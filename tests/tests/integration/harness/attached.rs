//! A tracer that joins what runs already.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal};
use tracer::{
    model::ProcessKey,
    policy::{self, Ruling, Verdict},
    record::{self, Integrity},
    session::Story,
};
use tracer_tests::scratch::MARK;

use super::{Scratch, until, wait_for};

/// Something that runs before tracer comes.
pub(crate) struct Workload(Child);

impl Workload {
    pub(crate) fn start(scratch: &Scratch, command: &mut Command) -> Result<Workload> {
        command.env(MARK, scratch.mark()).current_dir(scratch.path());
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Workload(child.with_context(|| format!("cannot start {command:?}"))?))
    }

    pub(crate) fn shell(scratch: &Scratch, script: &str) -> Result<Workload> {
        Workload::start(scratch, Command::new("/bin/sh").args(["-c", script]))
    }

    pub(crate) fn pid(&self) -> String {
        self.id().to_string()
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A tracer that is attached.
pub(crate) struct Attached {
    tracer: Child,
    pub(crate) recording: PathBuf,
}

/// What it recorded.
pub(crate) struct Seen {
    pub(crate) code: i32,
    pub(crate) story: Story,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) recording: PathBuf,
}

impl Attached {
    /// Returns when it has found everybody.
    pub(crate) fn to(scratch: &Scratch, target: &[&str], options: &[&str]) -> Result<Attached> {
        let number = scratch.path().read_dir()?.count();
        let recording = scratch.file(format!("attached-{number}.jsonl"));
        let mut tracer = scratch.tracer(&["attach"]).option("-q").option("-o").option(&recording);
        for option in target.iter().chain(options) {
            tracer = tracer.option(option);
        }
        let attached = Attached { tracer: tracer.spawn()?, recording };
        until("the snapshot", || attached.has("\"type\":\"snapshot\""))?;
        Ok(attached)
    }

    pub(crate) fn has(&self, text: &str) -> bool {
        fs::read_to_string(&self.recording).is_ok_and(|recording| recording.contains(text))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.tracer.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.tracer.id()).ok().and_then(Pid::from_raw).context("a pid")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    pub(crate) fn stop(self) -> Result<Seen> {
        self.signal(Signal::TERM)?;
        self.end()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Result<Seen> {
        let code = wait_for(&mut self.tracer)?.code().context("a signal ended tracer")?;
        let story = Story::of(record::read(&self.recording)?);
        ensure!(story.integrity == Integrity::Intact, "{:?}", story.integrity);
        let verdict = policy::judge(&story, &story.start.policies);
        let end = story.end.as_ref().context("no end")?;
        ensure!(end.verdict == verdict, "{:?}\n{verdict:?}", end.verdict);
        for row in &end.counters {
            ensure!(row.produced == row.read + row.lost, "events unaccounted for: {row:?}");
        }
        ensure!(story.orphans == 0, "{} events of unknown processes", story.orphans);
        Ok(Seen { code, story, verdict, recording: self.recording })
    }
}

impl Seen {
    pub(crate) fn rules(&self, ruling: Ruling) -> Result<&Seen> {
        let verdict = self.verdict.as_ref().context("no verdict")?;
        ensure!(verdict.overall == ruling, "{:?}: {verdict:#?}", verdict.overall);
        let code = match ruling {
            Ruling::Proven => 0,
            Ruling::Violated => 10,
            Ruling::Inconclusive => 11,
        };
        ensure!(self.code == code, "exit code {}", self.code);
        Ok(self)
    }

    pub(crate) fn because(&self, part: &str) -> Result<&Seen> {
        let claims = self.verdict.iter().flat_map(|verdict| &verdict.claims);
        let reasons: Vec<&String> = claims.flat_map(|claim| &claim.reasons).collect();
        ensure!(reasons.iter().any(|reason| reason.contains(part)), "no `{part}` in {reasons:#?}");
        Ok(self)
    }

    /// Processes that executed a file of that name, not counting those that ran it when they were found.
    pub(crate) fn executed(&self, name: &str) -> Vec<ProcessKey> {
        let execs = self.story.execs_in_order().filter(|exec| !exec.found);
        let of = execs.filter(|exec| {
            exec.filename.as_ref().is_some_and(|file| file.base_name() == name.as_bytes())
        });
        of.map(|exec| exec.process).collect()
    }

    pub(crate) fn doubts(&self) -> Result<&[String]> {
        Ok(&self.story.snapshot.as_ref().context("no snapshot")?.doubts)
    }
}

pub(crate) fn v2_mount() -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().map(|line| line.split(' ')).find_map(|mut fields| {
        let point = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(point))
    });
    Ok(mount)
}
