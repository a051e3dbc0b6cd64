//! A row under tracer.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Peers, Row, facts::Recording};
use crate::{
    evasions::{Cgroups, UNSUPPORTED, odd_programs},
    lab, program,
    scratch::{MARK, Scratch},
    skip,
};

/// No row takes nearly that long; a hang shall not hang the suite.
const LONGEST: Duration = Duration::from_secs(60);

/// A policy by which the tree may connect to an address that no row has.
const NOBODY: &str = "connects-to-nobody";
const NOBODY_TEXT: &str = r#"
name = "connects-to-nobody"

[[claim]]
kind = "connects-only-to"
endpoints = ["192.0.2.99"]
"#;

/// Descriptors of whoever runs this are none of the row's business. 255 is the script that bash reads.
const CLOSE_OTHERS: &str = r#"
for file in /proc/$$/fd/*; do
    number=${file##*/}
    if [ "$number" -gt 2 ] && [ "$number" -ne 255 ]; then eval "exec $number>&-"; fi
done
"#;

/// What a row came down to.
#[derive(Clone, Debug)]
pub struct Trial {
    pub shown: Vec<String>,
    /// TCP connections in the recording.
    pub recorded: u64,
    /// TCP connections opened in the row's namespace meanwhile, as the kernel counts them.
    pub opened: u64,
    /// What the sensors of the row's `not_covered` cannot see; none where there is no such sensor.
    pub cannot_see: Vec<Option<String>>,
    /// What the claim that the tree connects to nobody ended as, with its violations and reasons.
    pub claim: Option<Value>,
    pub lost: u64,
    pub exit: Option<i32>,
}

/// Its processes go before the cgroup that they are in: fields are dropped in this order.
#[derive(Debug)]
struct Stage {
    outside: Option<Child>,
    scratch: Scratch,
    cgroups: Cgroups,
}

/// Traces the row, with policies that need every sensor that costs the machine nothing.
pub fn trial(tracer: &Path, row: &Row) -> Result<Trial> {
    lab::in_private_namespaces(|| {
        // Before the peers: processes that end with the stage have connections to them.
        let peers = Peers::start()?;
        let mut stage = Stage::new(row)?;
        if !row.before.is_empty() {
            stage.before(row.before)?;
        }
        if !row.outside.is_empty() {
            stage.start_outside(row.outside)?;
        }
        let opens = active_opens()?;
        let (exit, said) = stage.trace(tracer, row)?;
        if exit == Some(UNSUPPORTED) {
            return skip(format!("this kernel does not have it: {}", first_line(&said)));
        }
        stage.outside_ends()?;
        let opened = active_opens()? - opens;
        let text = fs::read_to_string(stage.scratch.file("recording.jsonl"));
        let text = text.with_context(|| format!("there is no recording; tracer said: {said}"))?;
        let recording = Recording::parse(&text)?;
        let cannot_see = row.not_covered.iter().map(|(sensor, _)| recording.cannot_see(sensor));
        drop(peers);
        Ok(Trial {
            shown: recording.facts(),
            recorded: recording.connects() as u64,
            opened,
            cannot_see: cannot_see.map(|words| words.map(str::to_owned)).collect(),
            claim: recording.claim(NOBODY).cloned(),
            lost: recording.lost(),
            exit,
        })
    })
}

impl Trial {
    /// Fails unless it came down to what the row demands.
    pub fn check(&self, row: &Row) -> Result<()> {
        ensure!(self.exit == Some(row.exit), "it exited with {:?}, not {}", self.exit, row.exit);
        ensure!(self.lost == 0, "{} events were lost", self.lost);
        ensure!(
            self.shown == row.shown,
            "the recording shows\n  {}\nand not\n  {}",
            self.shown.join("\n  "),
            row.shown.join("\n  ")
        );
        for ((sensor, words), said) in row.not_covered.iter().zip(&self.cannot_see) {
            let said = said.as_deref().with_context(|| format!("there is no sensor {sensor}"))?;
            ensure!(said.contains(words), "{sensor} cannot see: {said}; and not: {words}");
        }
        let (beyond, why) = row.beyond_opens.unwrap_or((0, ""));
        ensure!(
            self.recorded.cast_signed() - self.opened.cast_signed() == beyond,
            "{} TCP connections recorded and {} opened according to the kernel; expected {beyond} \
             more recorded than opened {why}",
            self.recorded,
            self.opened
        );
        let claim = self.claim.as_ref().context("there is no verdict")?;
        ensure!(claim["ruling"] == row.claim.name(), "not {}: {claim}", row.claim.name());
        Ok(())
    }
}

impl Stage {
    fn new(row: &Row) -> Result<Stage> {
        let scratch = Scratch::new()?;
        for name in odd_programs(&[row.before, row.outside, row.caller, row.traced]) {
            program(&scratch, &name)?;
        }
        let cgroups = Cgroups::named(format!("tracer-hidden-{}", scratch.mark()));
        Ok(Stage { outside: None, scratch, cgroups })
    }

    /// A shell that runs the text with the row's variables, in its folder.
    fn shell(&self, name: &str, text: &str) -> Result<Command> {
        let file = self.scratch.write(name, &format!("set -eu\n{}\n", text.trim()))?;
        let mut command = Command::new("bash");
        command.arg(file);
        command.env("ODD", self.scratch.file("programs"));
        command.env("CGROUP", self.cgroups.folder());
        command.env(MARK, self.scratch.mark());
        for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
            command.env_remove(name);
        }
        command.current_dir(self.scratch.path()).stdin(Stdio::null());
        Ok(command)
    }

    fn before(&self, text: &str) -> Result<()> {
        let output = self.shell("before", text)?.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(UNSUPPORTED) {
            return skip(format!("this machine does not offer it: {}", said.trim()));
        }
        ensure!(output.status.success(), "the set-up failed: {said}");
        Ok(())
    }

    fn start_outside(&mut self, text: &str) -> Result<()> {
        let mut command = self.shell("outside", text)?;
        self.outside = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let (ready, deadline) = (self.scratch.file("ready"), Instant::now() + LONGEST);
        while !ready.exists() {
            ensure!(Instant::now() < deadline, "what runs outside does not get ready");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What it was asked to do is done then.
    fn outside_ends(&mut self) -> Result<()> {
        if let Some(child) = &mut self.outside {
            let deadline = Instant::now() + LONGEST;
            while child.try_wait()?.is_none() {
                ensure!(Instant::now() < deadline, "what runs outside does not end");
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// The command's exit code, and what was said on standard error.
    fn trace(&self, tracer: &Path, row: &Row) -> Result<(Option<i32>, String)> {
        // As its own program, so that no shell is in the tree unless the row has one.
        let traced = self.scratch.write("trick", &format!("set -eu\n{}\n", row.traced.trim()))?;
        let mut command = self.shell("caller", &format!("{CLOSE_OTHERS}\n{}", row.caller))?;
        let nobody = self.scratch.write("nobody.toml", NOBODY_TEXT)?;
        command.arg(tracer).args(["run", "--policy", "no-aws-cli", "--policy"]).arg(nobody);
        command.args(["--exit-code", "command"]);
        command.args(["--linger=2", "--output", "recording.jsonl", "--", "sh"]).arg(traced);
        let said = self.scratch.file("said");
        command.stdout(Stdio::null()).stderr(File::create(&said)?);
        let mut child = command.spawn().context("cannot start bash")?;
        let deadline = Instant::now() + LONGEST;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("it had not ended after {LONGEST:?}: {}", fs::read_to_string(&said)?);
            }
            thread::sleep(Duration::from_millis(5));
        };
        Ok((status.code(), fs::read_to_string(&said)?))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(child) = &mut self.outside {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Connections opened in the calling thread's network namespace.
fn active_opens() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
    lab::active_opens_of(&text)
}
