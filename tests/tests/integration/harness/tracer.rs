//! Starts the tracer under test.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use tracer_tests::{scratch::MARK, vm};

use super::{Run, Scratch};

/// No test takes nearly that long; a hang shall not hang the suite.
const LONGEST: Duration = Duration::from_secs(90);

pub(crate) fn tracer_program() -> PathBuf {
    std::env::var_os("TRACER_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/tracer"),
        PathBuf::from,
    )
}

/// A process of tracer's own, by its name.
pub(crate) fn child_of(tracer: u32, name: &str) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).ok()?;
    let has_it = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|found| found.trim() == name)
    };
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(has_it)
}

/// A call of tracer, in the making.
#[derive(Debug)]
pub(crate) struct Tracer<'a> {
    scratch: &'a Scratch,
    command: Command,
    /// Of `run`: what stands between `run` and `--`.
    options: Vec<OsString>,
    traced: Vec<OsString>,
    recording: Option<PathBuf>,
}

/// What a call of tracer gave.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl<'a> Tracer<'a> {
    pub(super) fn new(scratch: &'a Scratch, arguments: &[&str]) -> Tracer<'a> {
        let mut tracer = Self::with(scratch, Command::new(tracer_program()));
        tracer.command.args(arguments);
        tracer
    }

    pub(super) fn run<S: AsRef<OsStr>>(
        scratch: &'a Scratch,
        command: impl IntoIterator<Item = S>,
    ) -> Tracer<'a> {
        let mut tracer = Self::new(scratch, &["run"]);
        tracer.traced = command.into_iter().map(|word| word.as_ref().to_owned()).collect();
        tracer.options.extend(vm::tracer_options().into_iter().map(OsString::from));
        tracer
    }

    fn with(scratch: &'a Scratch, mut command: Command) -> Tracer<'a> {
        command.env(MARK, scratch.mark()).current_dir(scratch.path()).stdin(Stdio::null());
        // The caller behind sudo is a matter of the tests that set one.
        command.env_remove("SUDO_UID").env_remove("SUDO_GID").env_remove("SUDO_USER");
        Tracer { scratch, command, options: Vec::new(), traced: Vec::new(), recording: None }
    }

    /// Starts tracer by another [`Command`] than the plain one, such as one inside a lab.
    pub(crate) fn by(mut self, start: impl FnOnce(&Path) -> Command) -> Tracer<'a> {
        let arguments: Vec<OsString> = self.command.get_args().map(OsStr::to_owned).collect();
        let command = start(&tracer_program());
        let Tracer { scratch, options, traced, recording, .. } = self;
        self = Self::with(scratch, command);
        self.command.args(arguments);
        Tracer { options, traced, recording, ..self }
    }

    pub(crate) fn option(mut self, option: impl AsRef<OsStr>) -> Tracer<'a> {
        self.options.push(option.as_ref().to_owned());
        self
    }

    pub(crate) fn policy(self, policy: impl AsRef<OsStr>) -> Tracer<'a> {
        self.option("--policy").option(policy)
    }

    /// Changes the command that starts tracer: environment, directory, standard input, user.
    pub(crate) fn set(mut self, change: impl FnOnce(&mut Command)) -> Tracer<'a> {
        change(&mut self.command);
        self
    }

    pub(crate) fn env(self, name: &str, value: impl AsRef<OsStr>) -> Tracer<'a> {
        self.set(|command| {
            command.env(name, value);
        })
    }

    fn assemble(&mut self) {
        if let Some(recording) = &self.recording {
            self.command.arg("--output").arg(recording);
        }
        self.command.args(&self.options);
        if !self.traced.is_empty() {
            self.command.arg("--").args(&self.traced);
        }
    }

    /// Runs it to its end.
    pub(crate) fn output(mut self) -> Result<Output> {
        self.assemble();
        let folder = tempfile::tempdir_in(self.scratch.path())?;
        let [out, err] = ["out", "err"].map(|name| folder.path().join(name));
        self.command.stdout(File::create(&out)?).stderr(File::create(&err)?);
        let mut child = self.spawn_as_it_is()?;
        let Some(status) = wait_until(&mut child, Instant::now() + vm::patience(LONGEST))? else {
            let _ = child.kill();
            let _ = child.wait();
            self.scratch.sweep();
            bail!("tracer had not ended after {LONGEST:?}: {:?}", self.command);
        };
        let stderr = String::from_utf8_lossy(&fs::read(err)?).into_owned();
        Ok(Output { status, stdout: fs::read(out)?, stderr })
    }

    /// Runs it to its end and reads the recording it made.
    pub(crate) fn record(mut self) -> Result<Run> {
        let number = self.scratch.path().read_dir()?.count();
        let recording = self.scratch.file(format!("recording-{number}.jsonl"));
        self.recording = Some(recording.clone());
        let output = self.output()?;
        ensure!(recording.exists(), "there is no recording; tracer said: {}", output.stderr);
        Run::read(output, recording)
    }

    /// Starts it, with standard output and error thrown away unless set.
    pub(crate) fn spawn(mut self) -> Result<Child> {
        self.assemble();
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        self.spawn_as_it_is()
    }

    /// Starts it with the standard streams that [`Tracer::set`] gave.
    pub(crate) fn spawn_on_own_streams(mut self) -> Result<Child> {
        self.assemble();
        self.spawn_as_it_is()
    }

    fn spawn_as_it_is(&mut self) -> Result<Child> {
        self.command.spawn().with_context(|| format!("cannot start {:?}", self.command))
    }
}

fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(8));
    }
}

/// Waits for a child that is known to end; one that does not is killed.
pub(crate) fn wait_for(child: &mut Child) -> Result<ExitStatus> {
    if let Some(status) = wait_until(child, Instant::now() + vm::patience(LONGEST))? {
        return Ok(status);
    }
    child.kill()?;
    child.wait()?;
    bail!("it had not ended after {LONGEST:?}")
}

impl Output {
    /// As a shell has it: 128 + N for signal N.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }

    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> Result<&Self> {
        ensure!(
            self.code() == code,
            "tracer exited with {}, not with {code}. It said:\n{}{}",
            self.code(),
            self.stderr,
            String::from_utf8_lossy(&self.stdout)
        );
        Ok(self)
    }

    pub(crate) fn says(&self, text: &str) -> Result<&Self> {
        ensure!(self.stderr.contains(text), "no `{text}` in what tracer said:\n{}", self.stderr);
        Ok(self)
    }

    pub(crate) fn prints(&self, text: &str) -> Result<&Self> {
        let stdout = String::from_utf8_lossy(&self.stdout);
        ensure!(stdout.contains(text), "no `{text}` in what it printed:\n{stdout}");
        Ok(self)
    }
}
