//! Runs `tracer`, and keeps every recording for the checks over all of them.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::recording::Recording;

/// An emulated processor takes about a second for what a real one does in 50 ms.
const LONGEST_COMMAND: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Traced {
    pub(super) runs: Vec<Run>,
}

/// One `tracer run`.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) command: String,
    pub(super) file: PathBuf,
    pub(super) code: i32,
    /// Events were lost on purpose.
    pub(super) lossy: bool,
    pub(super) recording: Recording,
}

/// Code and standard output of a command.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Traced {
    /// Traces a command under policy `no-aws-cli` and expects this verdict.
    pub(super) fn judged(&mut self, code: i32, command: &[&str]) -> Result<&Recording> {
        self.run(&["-p", "no-aws-cli"], code, command)
    }

    /// Traces a command with these options; fails if tracer ends with another code.
    pub(super) fn run(
        &mut self,
        options: &[&str],
        code: i32,
        command: &[&str],
    ) -> Result<&Recording> {
        let file = PathBuf::from(format!("/tmp/recording-{}", self.runs.len()));
        let name = file.display().to_string();
        let mut arguments = vec!["run", "-o", &name];
        arguments.extend(options);
        arguments.push("--");
        arguments.extend(command);
        let ended = tracer(&arguments)?;
        ensure!(
            ended.code == code,
            "tracer {} ended with {}, not {code}: {}",
            arguments.join(" "),
            ended.code,
            ended.err
        );
        let recording = Recording::read(&file)?;
        let lossy = options.contains(&"--debug-lose");
        self.runs.push(Run { command: command.join(" "), file, code, lossy, recording });
        let last = self.runs.last().context("the run that was just added")?;
        Ok(&last.recording)
    }
}

pub(super) fn tracer(arguments: &[&str]) -> Result<Ended> {
    let (out, err) = ("/tmp/stdout", "/tmp/stderr");
    let mut child = Command::new("/bin/tracer")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(File::create(out)?)
        .stderr(File::create(err)?)
        .spawn()
        .context("/bin/tracer")?;
    let deadline = Instant::now() + LONGEST_COMMAND;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!(
                "tracer {} did not end in {} s: {}",
                arguments.join(" "),
                LONGEST_COMMAND.as_secs(),
                fs::read_to_string(err)?
            );
        }
        thread::sleep(Duration::from_millis(10));
    };
    Ok(Ended {
        code: code_of(status),
        out: fs::read_to_string(out)?,
        err: fs::read_to_string(err)?,
    })
}

/// As shells have it; -1 cannot be the code of a program.
fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}
