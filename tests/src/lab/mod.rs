//! A network of its own for one test: the real host names of the services an AI agent calls, each
//! on a loopback address, behind a name server and HTTPS endpoints that answer as they do.
//!
//! Everything lives in a private network and a private mount namespace; only `lo` exists there, so
//! nothing can leave the machine, and nothing outside changes. The pid and cgroup namespaces,
//! /proc, /sys and cgroupfs are the caller's own: a tracer can be run inside.
//!
//! ```text
//!  caller's namespaces              | the lab's network and mount namespaces
//!                                   |
//!  Lab (this process) ---stdin----->| server.mjs   127.0.0.1:53      name server
//!   |    |  <-----------stdout------|              127.10.0.N:443    one address a host
//!   |    log (an open descriptor) - | - log.jsonl  on a tmpfs that only exists here
//!   command() --fork, setns, exec-->| COMMAND      HOME, CA bundle, dummy keys
//! ```
//!
//! Invariants:
//! - The server ends when its stdin does, and ends first whatever else is left in its network
//!   namespace. So dropping the [`Lab`] and killing its process outright both leave nothing.
//! - No file is made outside the namespaces, so there is nothing to remove.
//! - The keys are dummies and the certificate authority is made afresh at each start.

mod authority;
mod home;
mod log;
mod namespaces;
mod run;
mod server;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{env, fs, thread};

use anyhow::{Context as _, Result, bail};

pub use log::{Connection, Entry, Question, Request, TlsError};
pub use run::run;

use namespaces::Namespaces;
use server::Server;

/// A running lab. Dropping it ends its server and every process left in its namespaces.
#[derive(Debug)]
pub struct Lab {
    namespaces: Arc<Namespaces>,
    server: Server,
    log: File,
    home: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

/// One mocked host, as listed in `fixtures/lab/hosts.json`.
#[derive(Debug, serde::Deserialize)]
struct Host {
    name: String,
    address: Ipv4Addr,
    /// Only the file of hosts has it, and not the name server.
    #[serde(default)]
    file: bool,
    // `plain` is the server's business: it answers HTTP without TLS, too.
}

impl Lab {
    /// Starts a lab and returns when its servers listen. Needs root.
    pub fn start() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("the lab makes network and mount namespaces, which needs root: run it with sudo");
        }
        let workspace = workspace_root()?;
        let root = namespaces::mount_point()?;
        // Namespaces are a property of the thread: one that unshares and ends leaves this process
        // where it was, while the server it spawned and the descriptors keep the new ones alive.
        let setup = thread::Builder::new().name("lab-setup".into()).spawn({
            let root = root.clone();
            let workspace = workspace.clone();
            move || set_up(&root, &workspace)
        });
        let (namespaces, server, log) = match setup.context("cannot start a thread")?.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let environment = home::environment(&root, &workspace);
        let namespaces = Arc::new(namespaces);
        Ok(Self { namespaces, server, log, home: home::path(&root), environment })
    }

    /// A command that will run inside the lab's namespaces, in this process's directory unless
    /// another one is set, with the lab's home, certificate authority and dummy keys in its
    /// environment and everything else as it is here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            if home::is_foreign(&name) {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let namespaces = Arc::clone(&self.namespaces);
        let lab = rustix::process::getpid();
        // SAFETY: between fork and exec `enter` makes system calls only: it takes no lock and
        // allocates nothing, and the descriptors it uses live as long as the closure.
        unsafe { command.pre_exec(move || namespaces.enter(lab)) };
        command
    }

    /// The home directory that commands get; it exists only inside the lab.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Every HTTP request that was answered or given up so far, in the order of their ends.
    pub fn requests(&self) -> Result<Vec<Request>> {
        Ok(self.entries()?.into_iter().filter_map(Entry::into_request).collect())
    }

    /// Every question that the name server was asked so far, in order.
    pub fn dns_questions(&self) -> Result<Vec<Question>> {
        Ok(self.entries()?.into_iter().filter_map(Entry::into_question).collect())
    }

    /// The whole log so far, in the order it was written.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        log::parse(&self.log_text()?)
    }

    /// The log as it is written, JSON lines, once no request is open any more.
    pub fn log_text(&self) -> Result<Vec<u8>> {
        self.server.flush()?;
        log::read_all(&self.log).context("cannot read the lab's log")
    }
}

/// Runs `work` on a thread that has a network namespace with nothing but loopback and a mount
/// namespace of its own; the processes it starts are in them too. They end with the last of these.
pub fn in_private_namespaces<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            Namespaces::unshare()?;
            namespaces::bring_up_loopback()?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// TCP connections opened in a network namespace so far, from the text of its `/proc/net/snmp`.
pub fn active_opens_of(snmp: &str) -> Result<u64> {
    let mut rows = snmp.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (names, values) = rows.next().zip(rows.next()).context("no Tcp rows")?;
    let (_, value) =
        names.zip(values).find(|(name, _)| *name == "ActiveOpens").context("no ActiveOpens")?;
    Ok(value.parse()?)
}

/// What runs on the thread that moves into the new namespaces.
fn set_up(root: &Path, workspace: &Path) -> Result<(Namespaces, Server, File)> {
    let outer = fs::read_link("/proc/thread-self/ns/net").context("cannot read /proc")?;
    let namespaces = Namespaces::unshare()?;
    namespaces::bring_up_loopback()?;
    namespaces::mount_private_tmpfs(root)?;
    let fixture = workspace.join("tests/fixtures/lab");
    let hosts = fixture.join("hosts.json");
    let hosts: Vec<Host> = fs::read(&hosts)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_slice(&text)?))
        .with_context(|| format!("cannot read {}", hosts.display()))?;
    home::write(root)?;
    namespaces::bind_over_etc(root, &hosts)?;
    let names = hosts.into_iter().map(|host| host.name).collect();
    authority::write(root, names)?;
    let (server, log) = Server::start(&fixture, root, &outer)?;
    Ok((namespaces, server, log))
}

/// The folder that holds `tests/fixtures`: where this was built, else above the executable.
fn workspace_root() -> Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf);
    let executable = env::current_exe().unwrap_or_default();
    built
        .into_iter()
        .chain(executable.ancestors().map(Path::to_path_buf))
        .find(|folder| folder.join("tests/fixtures/lab/server.mjs").is_file())
        .context("tests/fixtures/lab is neither where the lab was built nor above its executable")
}
