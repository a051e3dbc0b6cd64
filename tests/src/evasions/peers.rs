//! What a reader of other tools' output would conclude by name.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Program, Row, Stage, stage::debian_tools, tracer::run};
use crate::{Skip, scratch::Scratch};

/// How `aws` shows in a list of executed programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// As the executed file or as argv[0].
    AsProgram,
    /// Only as some other word of a command line.
    AsWord,
    No,
    /// The trick does not work under this tool.
    Prevented,
}

impl Seen {
    pub fn name(&self) -> &'static str {
        match self {
            Seen::AsProgram => "yes",
            Seen::AsWord => "as a word",
            Seen::No => "no",
            Seen::Prevented => "trick fails",
        }
    }

    fn of(executed: &[Executed]) -> Seen {
        let names = |word: &String| ["aws", "awscli"].contains(&base_name(word));
        if executed.iter().any(|exec| exec.program.iter().any(names)) {
            Seen::AsProgram
        } else if executed.iter().any(|exec| exec.words.iter().any(names)) {
            Seen::AsWord
        } else {
            Seen::No
        }
    }
}

/// One exec as a tool shows it.
#[derive(Debug, PartialEq, Eq)]
struct Executed {
    /// The file and argv[0].
    program: Vec<String>,
    words: Vec<String>,
}

fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// The program that the other tools are tried with.
fn program_of(row: &Row) -> Program {
    if row.stand_in.is_some() { Program::StandIn } else { Program::AwsCli }
}

/// The row under `strace -f -y -e trace=execve,execveat`.
pub fn strace(row: &Row) -> Result<Seen> {
    Stage::with(row, program_of(row), |stage, traced| {
        let log = stage.file("strace.log");
        let mut command = stage.command("strace");
        command.args(["-f", "-qq", "-y", "-s", "4096", "-e", "trace=execve,execveat"]);
        command.args(["-e", "signal=none", "-o"]).arg(&log).args(traced);
        let (_, printed, _) = run(stage, &mut command)?;
        if row.outside.is_empty() && !stage.did_run(&printed)? {
            return Ok(Seen::Prevented);
        }
        let log = fs::read(&log).context("strace wrote nothing")?;
        Ok(Seen::of(&of_strace(&String::from_utf8_lossy(&log))))
    })
}

/// The successful execs in strace's output.
fn of_strace(log: &str) -> Vec<Executed> {
    let mut unfinished: Vec<(&str, &str)> = Vec::new();
    let mut executed = Vec::new();
    for line in log.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let ended = call.ends_with("= 0");
        if call.starts_with("<... exec") || call.starts_with("+++ superseded") {
            // A thread that is not the first comes back under its process's id.
            let begun = unfinished.iter().position(|(other, _)| *other == pid);
            let begun = begun.or((!unfinished.is_empty()).then_some(0));
            if let Some(begun) = begun {
                let (_, call) = unfinished.remove(begun);
                executed.extend(ended.then(|| of_strace_call(call)));
            }
        } else if call.ends_with("<unfinished ...>") {
            unfinished.push((pid, call));
        } else if ended && call.starts_with("exec") {
            executed.push(of_strace_call(call));
        }
    }
    executed
}

/// `execve("FILE", ["ARGV0", ...], ...)` or `execveat(FD<FILE>, "", ["ARGV0", ...], ...)`.
fn of_strace_call(call: &str) -> Executed {
    let (file, rest) = call.split_once('[').unwrap_or((call, ""));
    let argv = quoted(rest.split(']').next().unwrap_or_default());
    let descriptor = file.split_once('<').and_then(|(_, rest)| rest.split('>').next());
    let mut program = quoted(file);
    program.extend(descriptor.map(str::to_owned));
    program.extend(argv.first().cloned());
    Executed { program, words: argv }
}

fn quoted(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// libbpf-tools' execsnoop, which sees the whole machine. Ends with this.
#[derive(Debug)]
pub struct Execsnoop {
    child: Child,
    output: PathBuf,
    /// Bytes of the output that belong to earlier rows.
    read: usize,
    sentinels: u32,
    /// Where the output goes.
    _scratch: Scratch,
}

impl Execsnoop {
    /// Starts it; the error says why it cannot trace here.
    pub fn start() -> Result<Execsnoop> {
        let here = debian_tools().join("execsnoop");
        ensure!(here.is_file(), Skip("it is not installed".into()));
        let scratch = Scratch::new()?;
        let output = scratch.file("execsnoop.out");
        let errors = scratch.file("execsnoop.err");
        // It looks for tracefs where not every machine mounts it.
        let lines = "mount -t tracefs tracefs /sys/kernel/tracing; exec stdbuf -oL \"$0\"";
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", lines])
            .arg(&here)
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?)
            .spawn()
            .context("cannot start unshare")?;
        let mut it = Execsnoop { child, output, read: 0, sentinels: 0, _scratch: scratch };
        it.wait_for("PCOMM").with_context(|| {
            let said = fs::read_to_string(&errors).unwrap_or_default();
            format!("execsnoop said: {}", said.lines().collect::<Vec<_>>().join(" | "))
        })?;
        Ok(it)
    }

    /// Waits until its output has these words, and gives what is new.
    fn wait_for(&mut self, words: &str) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let ended = self.child.try_wait()?.is_some();
            let all = fs::read(&self.output)?;
            let new =
                String::from_utf8_lossy(all.get(self.read..).unwrap_or_default()).into_owned();
            if new.contains(words) {
                self.read = all.len();
                return Ok(new);
            }
            if ended || Instant::now() > deadline {
                bail!("it does not show `{words}`");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a program that nobody else runs, waits until it is shown, and gives what is new.
    fn catch_up(&mut self) -> Result<String> {
        // Buffers of other CPUs may come a little later than the sentinel's.
        thread::sleep(Duration::from_millis(300));
        self.sentinels += 1;
        let sentinel = format!("sentinel-{}-{}", std::process::id(), self.sentinels);
        Command::new("/bin/true").arg(&sentinel).status()?;
        self.wait_for(&sentinel)
    }

    /// The row while it watches, from when a tracer would have been started.
    pub fn watch(&mut self, row: &Row) -> Result<Seen> {
        Stage::with(row, program_of(row), |stage, traced| {
            self.catch_up()?;
            let mut command = stage.command(&traced[0]);
            let (_, printed, said) = run(stage, command.args(&traced[1..]))?;
            if row.outside.is_empty() {
                ensure!(stage.did_run(&printed)?, "the program did not run: {said}");
            }
            let new = self.catch_up()?;
            Ok(Seen::of(&of_execsnoop(&new, stage.folder(), &stage.ran()?)))
        })
    }
}

impl Drop for Execsnoop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The row's execs among those of the whole machine: by process id, or by a word with its folder.
fn of_execsnoop(output: &str, folder: &Path, pids: &[u32]) -> Vec<Executed> {
    let folder = folder.to_string_lossy();
    let of_line = |line: &str| {
        let mut columns = line.split_whitespace();
        let comm = columns.next()?;
        let pid: u32 = columns.next()?.parse().ok()?;
        let status = columns.nth(1)?;
        let words: Vec<String> = columns.map(str::to_owned).collect();
        let ours = pids.contains(&pid)
            || words.iter().any(|word| word.contains(&*folder) || word.contains("awscli"));
        let program = words.first().cloned().into_iter().chain([comm.to_owned()]).collect();
        (ours && status == "0").then_some(Executed { program, words })
    };
    output.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_strace() {
        let log = "\
10 execve(\"/x/bin/aws\", [\"innocent\", \"--version\"], 0x7ff /* 3 vars */) = 0
11 execve(\"/usr/bin/none\", [\"aws\"], 0x7ff /* 3 vars */) = -1 ENOENT (No such file or directory)
12 execveat(3</memfd:aws (deleted)>, \"\", [\"./other\"], 0x7ff /* 3 vars */, AT_EMPTY_PATH) = 0
13 execve(\"./one\", [\"one\"], 0x7ff /* 3 vars */ <unfinished ...>
12 <... execve resumed>) = 0
14 execve(\"./two\", [\"/opt/aws\"], 0x7ff /* 3 vars */ <unfinished ...>
14 <... execve resumed>) = -1 EACCES (Permission denied)
";
        let programs: Vec<String> =
            of_strace(log).iter().map(|exec| exec.program.join(" ")).collect();
        let expected = ["/x/bin/aws innocent", " /memfd:aws (deleted) ./other", "./one one"];
        assert_eq!(programs, expected);
        assert_eq!(Seen::of(&of_strace(log)), Seen::AsProgram);
    }

    #[test]
    fn lines_of_execsnoop() {
        let output = "\
PCOMM            PID     PPID    RET ARGS
python3          77      5         0 /t/x/python3 /t/x/bin/aws --version
aws              78      5         0 ./other
aws              79      5         0 /elsewhere/aws
aws              78      5        -2 /nowhere/aws
";
        let found = of_execsnoop(output, Path::new("/t/x"), &[78]);
        assert_eq!(found.len(), 2);
        assert_eq!(Seen::of(&found[..1]), Seen::AsWord);
        assert_eq!(Seen::of(&found), Seen::AsProgram);
    }
}
