//! Failed execs, what reaches other processes, and killing: in each way this kernel has for it.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Finding,
    checks::ok,
    machine::{AWS, ODD},
    recording::Recording,
    traced::Traced,
};

/// Makes tracer take the next best way.
pub(super) const NO_FEXIT: &str = "--debug-forbid=fexit";

pub(super) fn hook(recording: &Recording, sensor: &str) -> Result<String> {
    let start = recording.of_type("start").next().context("there is no start record")?;
    let sensors = start["sensors"].as_array().context("sensors is no list")?;
    let row = sensors.iter().find(|row| row["sensor"] == sensor).context("no such sensor")?;
    Ok(row["hook"].as_str().unwrap_or_default().to_owned())
}

pub(super) fn failed_execs(traced: &mut Traced) -> Result<Finding> {
    let mut hooks = Vec::new();
    for options in [&["-p", "no-aws-cli"][..], &["-p", "no-aws-cli", NO_FEXIT]] {
        let script = "/nowhere/tool a b; /tmp/nowhere/aws c; exit 0";
        let recording = traced.run(options, 10, &["/bin/sh", "-c", script])?;
        for (argv, name) in [
            (["/nowhere/tool", "a", "b"].as_slice(), "/nowhere/tool"),
            (&["/tmp/nowhere/aws", "c"], "/tmp/nowhere/aws"),
        ] {
            let attempt = recording.one("attempt", "/filenames/0", name)?;
            ensure!(attempt["error"] == "ENOENT", "{attempt}");
            ensure!(attempt["argv"] == Value::from(argv.to_vec()), "{attempt}");
        }
        hooks.push(hook(recording, "attempts")?);
    }
    ensure!(hooks[0].starts_with("fexit") && hooks[1].starts_with("tracepoint"), "{hooks:?}");
    ok(format!("by {}", hooks.join(", and by ")))
}

pub(super) fn local_sends(traced: &mut Traced) -> Result<Finding> {
    const SOCKET: &str = "/tmp/service";
    let _listener = UnixListener::bind(SOCKET)?;
    let command = [ODD, "say", SOCKET];
    let recording = traced.run(&["-p", "no-aws-cli"], 11, &command)?;
    let send = recording.one("local-send", "/peer", SOCKET)?;
    ensure!(send["peer_pid"] == 1, "{send}");
    recording.one("hand-off", "/via", SOCKET)?;
    let mut hooks = vec![hook(recording, "local-sends")?];
    // Without fexit there is a tracepoint, or since it is not there on this kernel, a reason.
    let recording = traced.run(&["-p", "no-aws-cli", NO_FEXIT], 11, &command)?;
    let other = hook(recording, "local-sends")?;
    if other == "none" {
        let verdict = recording.end()?["verdict"].to_string();
        ensure!(verdict.contains("what was sent over unix sockets is unknown"), "{verdict}");
    } else {
        recording.one("hand-off", "/via", SOCKET)?;
    }
    hooks.push(other);
    fs::remove_file(SOCKET)?;
    ok(format!("by {}", hooks.join(", and by ")))
}

struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn intrusions(traced: &mut Traced) -> Result<Finding> {
    let mut hooks = Vec::new();
    for options in [&["-p", "no-aws-cli"][..], &["-p", "no-aws-cli", NO_FEXIT]] {
        let sleep = Command::new("/bin/sleep").arg("600").stdin(Stdio::null()).spawn()?;
        let victim = Victim(sleep);
        let pid = victim.0.id();
        let recording = traced.run(options, 11, &[ODD, "seize", &pid.to_string()])?;
        recording.one("intrusion", "/target", pid)?;
        recording.one("hand-off", "/name", "debugger")?;
        hooks.push(hook(recording, "intrusions")?);
    }
    ok(format!("by {}", hooks.join(", and by ")))
}

pub(super) fn enforced(traced: &mut Traced) -> Result<Finding> {
    const MARK: &str = "/tmp/ran";
    const TRIES: usize = 50;
    let script =
        format!("i=0; while [ $i -lt {TRIES} ]; do {AWS} touch {MARK}; i=$((i+1)); done; exit 0");
    let options = ["-p", "no-aws-cli", "--enforce"];
    let recording = traced.run(&options, 10, &["/bin/sh", "-c", &script])?;
    let killed = recording.of_type("exec").filter(|exec| exec["killed"] == true).count();
    ensure!(killed == TRIES, "{killed} of {TRIES} were killed");
    ensure!(!Path::new(MARK).exists(), "the program ran");
    // The control: what is not forbidden does make the file.
    traced.run(&options, 0, &[ODD, "touch", MARK])?;
    ensure!(Path::new(MARK).exists(), "the program did not run");
    fs::remove_file(MARK)?;
    ok(format!("{TRIES} of {TRIES} killed before they did anything"))
}
