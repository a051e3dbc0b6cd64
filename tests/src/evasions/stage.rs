//! The folder a row works in, and everything it finds there.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Program, Row};
use crate::{
    cgroup, copy_program, lab, on_path, program,
    scratch::{MARK, Scratch},
    skip,
};

/// How long the process outside may take to be ready, or to finish what it was handed.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// With that a row's set-up says that this kernel cannot do the trick.
pub(crate) const UNSUPPORTED: i32 = 77;

/// A row's folder with one program in it. Dropping it removes the folder and what still runs.
#[derive(Debug)]
pub struct Stage {
    // Its processes go before the cgroups that they are in: fields are dropped in this order.
    scratch: Scratch,
    _cgroups: Cgroups,
    program: Program,
    variables: Vec<(&'static str, OsString)>,
}

/// Cgroups of one name, in every hierarchy. They go with this.
#[derive(Debug)]
pub(crate) struct Cgroups(String);

impl Cgroups {
    /// None is made yet.
    pub(crate) fn named(name: String) -> Cgroups {
        Cgroups(name)
    }

    /// Of the one in the second version's hierarchy.
    pub(crate) fn folder(&self) -> PathBuf {
        cgroup::root().join(&self.0)
    }
}

/// The process outside the tree, which ends with this.
#[derive(Debug)]
struct Outside(Option<Child>);

impl Stage {
    /// Sets everything up and lets `work` trace it: what it gets is the command to be traced. With
    /// namespaces of its own, `work` runs on another thread, which has them.
    pub fn with<T: Send>(
        row: &Row,
        program: Program,
        work: impl FnOnce(&Stage, &[OsString]) -> Result<T> + Send,
    ) -> Result<T> {
        if row.private {
            lab::in_private_namespaces(|| Self::set_up(row, program, work))
        } else {
            Self::set_up(row, program, work)
        }
    }

    fn set_up<T>(
        row: &Row,
        program: Program,
        work: impl FnOnce(&Stage, &[OsString]) -> Result<T>,
    ) -> Result<T> {
        for need in row.needs {
            ensure_there(need)?;
        }
        let stage = Stage::new(program)?;
        for name in odd_programs(&[row.before, row.outside, row.traced]) {
            crate::program(&stage.scratch, &name)?;
        }
        let text = |name: &str, text: &str| {
            stage.scratch.write(name, &format!("set -eu\n{}\n", text.trim()))
        };
        if !row.before.is_empty() {
            let output = stage.command("sh").arg(text("before", row.before)?).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            if output.status.code() == Some(UNSUPPORTED) {
                return skip(format!("this kernel does not offer it: {}", said.trim()));
            }
            ensure!(output.status.success(), "the set-up failed: {said}");
        }
        let outside = match row.outside {
            "" => Outside(None),
            lines => stage.start_outside(&text("outside", lines)?)?,
        };
        // A file, because a shell's command line may not name what it runs.
        let traced = ["sh".into(), text("trick", row.traced)?.into_os_string()];
        let result = work(&stage, &traced)?;
        if !row.outside.is_empty() {
            stage.wait_for(&stage.ran_file())?;
        }
        drop(outside);
        Ok(result)
    }

    fn new(kind: Program) -> Result<Stage> {
        let scratch = Scratch::new()?;
        let folder = scratch.folder("bin")?;
        let stand_in = program(&scratch, "stand-in")?;
        // The forbidden program is there in any case.
        let aws = folder.join("aws");
        match kind {
            Program::StandIn | Program::Harmless => copy_program(&stand_in, &aws)?,
            Program::AwsCli => copy_program(aws_cli()?.join("bin/aws"), &aws)?,
        }
        if kind == Program::Harmless {
            copy_program(program(&scratch, "harmless")?, folder.join(kind.name()))?;
        }
        let mut path = folder.clone().into_os_string();
        for more in [Some(debian_tools().into_os_string()), std::env::var_os("PATH")] {
            path.push(":");
            path.push(more.unwrap_or_default());
        }
        let cgroups = Cgroups::named(format!("tracer-evasion-{}", scratch.mark()));
        let variables = vec![
            ("PATH", path),
            ("PROGRAM", folder.join(kind.name()).into_os_string()),
            ("NAME", kind.name().into()),
            ("ODD", scratch.file("programs").into_os_string()),
            ("PYTHON", aws_cli()?.join("bin/python3").into_os_string()),
            ("RAN", scratch.file("ran").into_os_string()),
            ("NODE", crate::fixtures().join("node").into_os_string()),
            ("CGROUP", cgroups.folder().into_os_string()),
            ("CGROUP_NAME", cgroups.0.clone().into()),
            (MARK, scratch.mark().into()),
        ];
        Ok(Stage { scratch, _cgroups: cgroups, program: kind, variables })
    }

    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.file(name)
    }

    /// A command with the row's variables, in its folder.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        // The caller behind sudo would be the user that the command runs as.
        for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "TMUX"] {
            command.env_remove(name);
        }
        command.current_dir(self.folder()).stdin(Stdio::null());
        command
    }

    fn start_outside(&self, file: &Path) -> Result<Outside> {
        let mut command = self.command("sh");
        command.arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let outside = Outside(Some(command.spawn()?));
        self.wait_for(&self.file("ready"))?;
        Ok(outside)
    }

    fn ran_file(&self) -> PathBuf {
        self.file("ran")
    }

    fn wait_for(&self, file: &Path) -> Result<()> {
        let deadline = Instant::now() + LONGEST_WAIT;
        while !file.exists() {
            if Instant::now() > deadline {
                bail!("{} does not appear", file.display());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Process ids that the stand-in left. The AWS CLI leaves none.
    pub fn ran(&self) -> Result<Vec<u32>> {
        match fs::read_to_string(self.ran_file()) {
            Ok(text) => text.lines().map(|line| Ok(line.parse()?)).collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).context("cannot read what the stand-in left"),
        }
    }

    /// Whether the program did run, given what the traced command printed. A child may end later than
    /// the command.
    pub fn did_run(&self, printed: &[u8]) -> Result<bool> {
        if self.program == Program::AwsCli {
            return Ok(String::from_utf8_lossy(printed).contains("aws-cli/"));
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.ran()?.is_empty() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let roots = hierarchies.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
        for root in roots {
            // Most hierarchies have no such cgroup.
            let _ = fs::remove_dir(root.join(&self.0));
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Names of the compiled programs in a row's texts.
pub(crate) fn odd_programs(texts: &[&str]) -> BTreeSet<String> {
    let found = texts.iter().flat_map(|text| text.split("$ODD/").skip(1));
    found
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect())
        .collect()
}

pub fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools")
}

/// Programs of Debian's that the machine may lack, as xtask's set-up leaves them.
pub(crate) fn debian_tools() -> PathBuf {
    tools().join("debian/bin")
}

fn aws_cli() -> Result<PathBuf> {
    let folder = tools().join("awscli");
    let folder = folder.canonicalize().unwrap_or(folder);
    if folder.join("bin/aws").is_file() {
        Ok(folder)
    } else {
        skip("the AWS CLI is not installed; `cargo xtask setup` does it")
    }
}

/// A program of the machine's or of [`debian_tools`], or the row is skipped.
fn ensure_there(need: &str) -> Result<()> {
    if need.starts_with('/') {
        return if Path::new(need).exists() { Ok(()) } else { skip(format!("there is no {need}")) };
    }
    let here = debian_tools().join(need);
    let is_executable =
        here.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if is_executable { Ok(()) } else { on_path(need).map(drop) }
}
