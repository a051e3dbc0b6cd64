//! What watches a load: nothing, tracer, and the programs one would take instead.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{
    load::{self, Cost, TOOL_CPU},
    table::Cell,
};
use crate::{
    Skip,
    cgroup::Cgroup,
    evasions::{debian_tools, tools as installed},
    scratch::Scratch,
};

/// Programs to compare with, as xtask's set-up leaves them.
fn peers() -> PathBuf {
    installed().join("peers/bin")
}

/// A program that watches, and how it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Nothing,
    Tracer,
    /// With the watch of the C library's resolver.
    TracerResolver,
    /// With the watch of TLS libraries.
    TracerHttp,
    /// Counts of bytes by a uprobe and a uretprobe of bpftrace.
    TlsBpftrace,
    /// The same of `SSL_write` of the machine's libssl, at the call and at the return.
    WriteBpftrace,
    /// `strace -f` of everything.
    Strace,
    /// The same, with a filter in the kernel that leaves other calls alone.
    StraceFiltered,
    Execsnoop,
    ExecsnoopBpftrace,
    TcpBpftrace,
    PerfTrace,
}

impl Tool {
    pub const PEERS_OF_SPAWN: [Tool; 5] = [
        Tool::Execsnoop,
        Tool::ExecsnoopBpftrace,
        Tool::PerfTrace,
        Tool::StraceFiltered,
        Tool::Strace,
    ];
    pub const PEERS_OF_CONNECT: [Tool; 4] =
        [Tool::TcpBpftrace, Tool::PerfTrace, Tool::StraceFiltered, Tool::Strace];

    pub fn name(self) -> &'static str {
        match self {
            Tool::Nothing => "nothing",
            Tool::Tracer => "tracer run",
            Tool::TracerResolver => "tracer run --resolver",
            Tool::TracerHttp => "tracer run --http",
            Tool::TlsBpftrace => "bpftrace, SSL_write and SSL_read",
            Tool::WriteBpftrace => "bpftrace, SSL_write and its return",
            Tool::Strace => "strace -f",
            Tool::StraceFiltered => "strace -f --seccomp-bpf",
            Tool::Execsnoop => "execsnoop (libbpf-tools)",
            Tool::ExecsnoopBpftrace => "bpftrace, execve and its argv",
            Tool::TcpBpftrace => "bpftrace, inet_sock_set_state",
            Tool::PerfTrace => "perf trace",
        }
    }

    /// Tools that stop the load at each of its system calls are given less of it: what each costs does
    /// not depend on that.
    pub(super) fn takes(self) -> u64 {
        match self {
            Tool::Strace | Tool::StraceFiltered => 10,
            Tool::Nothing
            | Tool::Tracer
            | Tool::TracerResolver
            | Tool::TracerHttp
            | Tool::TlsBpftrace
            | Tool::WriteBpftrace
            | Tool::Execsnoop
            | Tool::ExecsnoopBpftrace
            | Tool::TcpBpftrace
            | Tool::PerfTrace => 1,
        }
    }

    /// How it is started, without what it watches.
    fn words(self, tracer: &Path, log: &Path) -> Vec<String> {
        let words: &[&str] = match self {
            Tool::Nothing => &[],
            Tool::Tracer => &["{tracer}", "run", "--quiet", "--output", "{log}", "--"],
            Tool::TracerResolver => {
                &["{tracer}", "run", "--quiet", "--resolver", "--output", "{log}", "--"]
            }
            Tool::TracerHttp => {
                &["{tracer}", "run", "--quiet", "--http", "--output", "{log}", "--"]
            }
            Tool::TlsBpftrace => &[
                "bpftrace",
                "-e",
                "uprobe:{node}:SSL_write { @sent[pid] = sum(arg2); } \
                 uretprobe:{node}:SSL_read { @received[pid] = sum(retval); } \
                 interval:s:1 { printf(\"ready\\n\"); }",
            ],
            Tool::WriteBpftrace => &[
                "bpftrace",
                "-e",
                "uprobe:{libssl}:SSL_write { @asked[pid] = sum(arg2); } \
                 uretprobe:{libssl}:SSL_write { @sent[pid] = sum(retval); } \
                 interval:s:1 { printf(\"ready\\n\"); }",
            ],
            Tool::Strace => &["strace", "-f", "-qq", "-o", "{log}"],
            Tool::StraceFiltered => &[
                "strace",
                "-f",
                "--seccomp-bpf",
                "-qq",
                "-e",
                "trace=execve,execveat,connect",
                "-o",
                "{log}",
            ],
            Tool::Execsnoop => &["execsnoop"],
            Tool::ExecsnoopBpftrace => &[
                "bpftrace",
                "-e",
                "BEGIN { printf(\"ready\\n\"); } \
                 tracepoint:syscalls:sys_enter_execve { printf(\"%d \", pid); join(args->argv); }",
            ],
            Tool::TcpBpftrace => &[
                "bpftrace",
                "-e",
                "BEGIN { printf(\"ready\\n\"); } \
                 tracepoint:sock:inet_sock_set_state { printf(\"%d %s %d %d\\n\", pid, comm, \
                 args->oldstate, args->newstate); }",
            ],
            Tool::PerfTrace => {
                &["perf", "trace", "-e", "execve,execveat,connect", "-f", "-o", "{log}", "--"]
            }
        };
        let node = crate::on_path("node").and_then(|node| Ok(node.canonicalize()?));
        let node = node.map_or_else(|_| String::new(), |node| node.display().to_string());
        let libssl = libssl();
        let fill = |word: &&str| {
            word.replace("{node}", &node)
                .replace("{libssl}", &libssl)
                .replace("{log}", &log.display().to_string())
                .replace("{tracer}", &tracer.display().to_string())
        };
        words.iter().map(fill).collect()
    }

    /// It is told what to watch by starting it. The others watch the machine, and say this when they
    /// have begun.
    fn says_when_ready(self) -> Option<&'static str> {
        match self {
            Tool::Nothing
            | Tool::Tracer
            | Tool::TracerResolver
            | Tool::TracerHttp
            | Tool::Strace
            | Tool::StraceFiltered
            | Tool::PerfTrace => None,
            Tool::Execsnoop => Some("PCOMM"),
            Tool::ExecsnoopBpftrace
            | Tool::TcpBpftrace
            | Tool::TlsBpftrace
            | Tool::WriteBpftrace => Some("ready"),
        }
    }
}

/// Where the machine's linker finds libssl, or just its name.
fn libssl() -> String {
    let asked = Command::new("cc").arg("-print-file-name=libssl.so.3").output();
    asked.map_or_else(|_| String::new(), |said| String::from_utf8_lossy(&said.stdout).trim().into())
}

/// A load under a tool.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub load: Cost,
    /// Processor time of the tool alone, by the account of its cgroup.
    pub tool_cpu_ns: f64,
    /// Largest resident memory of the tool.
    pub tool_bytes: u64,
}

/// Where tools print to.
const SAID: &str = "said";
const ERRORS: &str = "errors";

/// Where tools are started.
#[derive(Debug)]
pub struct Bench {
    pub tracer: PathBuf,
    /// Before the cgroup, so that what still runs in there is killed before it is removed.
    pub scratch: Scratch,
    /// Tools run in there, with their loads if they start those.
    cgroup: Cgroup,
}

impl Bench {
    pub fn new(tracer: PathBuf) -> Result<Bench> {
        Ok(Bench { tracer, scratch: Scratch::new()?, cgroup: Cgroup::new("tracer-bench")? })
    }

    pub fn log(&self) -> PathBuf {
        self.scratch.file("log")
    }

    /// The first line that a program says when it is asked for its version.
    pub fn version_of(&self, program: &str) -> String {
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
        let asked = self.anywhere(&[program.to_owned(), "--version".to_owned()]);
        let Some(said) = asked.ok().and_then(|mut command| command.output().ok()) else {
            return format!("no {name}");
        };
        let said = String::from_utf8_lossy(&said.stdout);
        let line = said.lines().next().unwrap_or_default().trim();
        if line.contains(&*name) { line.to_owned() } else { format!("{name} {line}") }
    }

    /// The tool watches this command.
    pub fn trial(&self, tool: Tool, command: &[String]) -> Result<Trial> {
        match tool.says_when_ready() {
            Some(words) => self.beside(tool, words, command),
            None => self.around(tool, command),
        }
    }

    /// What starts the command under a tool that starts it, with a new log.
    pub(super) fn words(&self, tool: Tool, command: &[String]) -> Result<Vec<String>> {
        let log = self.log();
        if let Err(error) = fs::remove_file(&log) {
            ensure!(error.kind() == io::ErrorKind::NotFound, "{}: {error}", log.display());
        }
        let mut words = tool.words(&self.tracer, &log);
        words.extend_from_slice(command);
        Ok(words)
    }

    /// The tool starts the command.
    fn around(&self, tool: Tool, command: &[String]) -> Result<Trial> {
        let words = self.words(tool, command)?;
        let before_ns = self.cgroup.cpu_ns()?;
        let (output, used) = run(&mut self.accounted(&words)?)?;
        let all_ns = self.cgroup.cpu_ns()? - before_ns;
        let load = load::cost(&output).with_context(|| tool.name())?;
        Ok(Trial {
            load,
            tool_cpu_ns: (all_ns - load.cpu_ns).max(0.0),
            tool_bytes: used.largest_bytes,
        })
    }

    /// The command runs while the tool watches the machine.
    fn beside(&self, tool: Tool, ready: &str, command: &[String]) -> Result<Trial> {
        let watcher = self.watcher(tool, ready)?;
        let before_ns = self.cgroup.cpu_ns()?;
        let output = self.prepared(command)?.output()?;
        let load = load::cost(&output)?;
        let tool_cpu_ns = self.cgroup.cpu_ns()? - before_ns;
        Ok(Trial { load, tool_cpu_ns, tool_bytes: watcher.peak_bytes()? })
    }

    /// The tool has begun to watch the machine, or an idle process of its own.
    pub fn watching(&self, tool: Tool) -> Result<Watcher> {
        if let Some(ready) = tool.says_when_ready() {
            return self.watcher(tool, ready);
        }
        let idle = ["sh", "-c", "echo ready; exec sleep 600"].map(String::from);
        self.start(tool, &self.words(tool, &idle)?, "ready")
    }

    fn watcher(&self, tool: Tool, ready: &str) -> Result<Watcher> {
        self.start(tool, &tool.words(&self.tracer, &self.log()), ready)
    }

    /// What a tool that was started last has printed, and its errors.
    pub(super) fn said(&self) -> Result<String> {
        let mut all = String::new();
        for file in [SAID, ERRORS].map(|name| self.scratch.file(name)) {
            all += &String::from_utf8_lossy(&fs::read(file)?);
        }
        Ok(all)
    }

    /// Returns when its output has these words.
    pub(super) fn start(&self, tool: Tool, words: &[String], ready: &str) -> Result<Watcher> {
        let (said, errors) = (self.scratch.file(SAID), self.scratch.file(ERRORS));
        // Tools look for tracefs where not every machine mounts it.
        let mount = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec \"$@\"";
        let mut wrapped: Vec<String> =
            ["unshare", "--mount", "sh", "-c", mount, "sh", "stdbuf", "-oL"]
                .map(String::from)
                .into();
        wrapped.extend_from_slice(words);
        let mut command = self.accounted(&wrapped)?;
        command.stdout(File::create(&said)?).stderr(File::create(&errors)?);
        let child = command.process_group(0).spawn().context("cannot start unshare")?;
        let mut watcher = Watcher { child };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if fs::read_to_string(&said).is_ok_and(|said| said.contains(ready)) {
                return Ok(watcher);
            }
            if watcher.child.try_wait()?.is_some() || Instant::now() > deadline {
                let errors = fs::read_to_string(&errors).unwrap_or_default();
                let errors: Vec<&str> = errors.lines().take(3).collect();
                bail!(Skip(format!("{} cannot watch here: {}", tool.name(), errors.join(" | "))));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Likewise, and in the cgroup that counts its processor time.
    fn accounted(&self, words: &[String]) -> Result<Command> {
        let plain = self.prepared(words)?;
        let mut entering = self.cgroup.entering().into_iter();
        let mut command = Command::new(entering.next().context("a shell")?);
        command.args(entering).arg(plain.get_program()).args(plain.get_args());
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// On the processor for tools, with the mark by which it is found when something goes wrong.
    pub fn prepared(&self, words: &[String]) -> Result<Command> {
        let anywhere = self.anywhere(words)?;
        let mut command = Command::new("taskset");
        command.args(["-c", &TOOL_CPU.to_string()]).arg(anywhere.get_program());
        command.args(anywhere.get_args()).stdin(Stdio::null());
        command.envs(anywhere.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ok(command)
    }

    /// On any processor.
    pub(super) fn anywhere(&self, words: &[String]) -> Result<Command> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [debian_tools(), peers()].into_iter().chain(std::env::split_paths(&path));
        let joined = std::env::join_paths(folders)?;
        let found = std::env::split_paths(&joined).any(|folder| folder.join(&words[0]).is_file());
        ensure!(found, Skip(format!("there is no {} here", words[0])));
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env("PATH", joined)
            .env(crate::scratch::MARK, self.scratch.mark());
        command.stdin(Stdio::null());
        Ok(command)
    }
}

/// Resident memory of a tool. What several mappings share is divided among them (`Pss`): each page of a ring is
/// mapped twice in a row, and tracer's two processes have one program.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    pub(super) bytes: u64,
    /// Of that, what it shares with the kernel.
    pub(super) ring_bytes: u64,
}

/// A tool that runs. Dropping it ends it and everything it started.
#[derive(Debug)]
pub struct Watcher {
    child: Child,
}

impl Watcher {
    /// Its processes, found as its process group.
    fn processes(&self) -> Vec<PathBuf> {
        let group = self.child.id().to_string();
        let of_group = |folder: &PathBuf| {
            let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            rest.split(' ').nth(2) == Some(group.as_str())
        };
        let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
        all.filter_map(|entry| Some(entry.ok()?.path())).filter(of_group).collect()
    }

    /// What the tool has now, without what it watches.
    pub(super) fn memory(&self) -> Result<Memory> {
        let program = |process: &Path| fs::read_link(process.join("exe")).ok();
        let own = program(Path::new(&format!("/proc/{}", self.child.id())));
        let mut memory = Memory::default();
        for process in self.processes().iter().filter(|process| program(process) == own) {
            let mut is_ring = false;
            for line in fs::read_to_string(process.join("smaps"))?.lines() {
                let mut words = line.split_whitespace();
                match (words.next(), words.next()) {
                    (Some("Pss:"), Some(kib)) => {
                        let bytes = kib.parse::<u64>()? * 1024;
                        memory.bytes += bytes;
                        memory.ring_bytes += if is_ring { bytes } else { 0 };
                    }
                    (Some(range), _) if !range.ends_with(':') => {
                        is_ring = line.ends_with("anon_inode:bpf-map")
                            || line.ends_with("anon_inode:[perf_event]");
                    }
                    _ => {}
                }
            }
        }
        Ok(memory)
    }

    /// It gets no processor for so long.
    pub(super) fn stop_for(&self, time: Duration) -> Result<()> {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process_group(group, Signal::STOP)?;
        thread::sleep(time);
        Ok(kill_process_group(group, Signal::CONT)?)
    }

    fn peak_bytes(&self) -> Result<u64> {
        let mut largest = 0;
        for process in self.processes() {
            largest = largest.max(peak_of(&process)?);
        }
        Ok(largest)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// What a process used, and the children it waited for.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    pub cpu_ns: f64,
    /// Of the largest of them, or of this process if that is larger: exec hands the peak on.
    pub largest_bytes: u64,
    /// This process's own share of that.
    pub own_bytes: u64,
}

impl Use {
    pub fn memory(&self) -> Cell {
        if self.largest_bytes > self.own_bytes {
            Cell::Bytes(self.largest_bytes)
        } else {
            Cell::Words(format!("at most {}", Cell::Bytes(self.largest_bytes)))
        }
    }
}

/// The most memory this process had since now.
fn own_peak() -> Result<u64> {
    // proc(5): 5 sets the peak to what there is.
    fs::write("/proc/self/clear_refs", "5").context("cannot set the peak back")?;
    peak_of(Path::new("/proc/self"))
}

fn peak_of(process: &Path) -> Result<u64> {
    let status = fs::read_to_string(process.join("status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}

/// Runs it to its end.
pub fn run(command: &mut Command) -> Result<(Output, Use)> {
    let own_bytes = own_peak()?;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start taskset")?;
    let (out, err) = child.stdout.take().zip(child.stderr.take()).context("both are piped")?;
    let read = |mut from: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut all = Vec::new();
            from.read_to_end(&mut all).map(|_| all)
        })
    };
    let (out, err) = (read(Box::new(out)), read(Box::new(err)));
    let joined = |reader: thread::JoinHandle<io::Result<Vec<u8>>>| -> Result<Vec<u8>> {
        Ok(reader.join().map_err(|_| anyhow!("reading its output panicked"))??)
    };
    let (stdout, stderr) = (joined(out)?, joined(err)?);
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: all zeroes is a valid rusage.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are writable; the child was not waited for yet, so the pid is its own.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut used) };
    ensure!(waited == pid, "wait4: {}", io::Error::last_os_error());
    let ns = |time: libc::timeval| time.tv_sec as f64 * 1e9 + time.tv_usec as f64 * 1e3;
    let used = Use {
        cpu_ns: ns(used.ru_utime) + ns(used.ru_stime),
        largest_bytes: u64::try_from(used.ru_maxrss)? * 1024,
        own_bytes,
    };
    Ok((Output { status: ExitStatus::from_raw(status), stdout, stderr }, used))
}
