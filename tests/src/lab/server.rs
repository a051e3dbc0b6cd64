//! The lab's server process, `fixtures/lab/server.mjs`: its start, its two words, its end.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::authority::{server_certificate, server_key, write_file};
use super::namespaces::NAMESERVER;

/// A cold start of Node on a loaded machine takes about a second; past this it hangs.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The server itself waits at most two seconds for open requests.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
/// The server itself takes at most four seconds to end what is left.
const END_LIMIT: Duration = Duration::from_secs(10);

/// What the server is told, in a file that is its only argument.
#[derive(Debug, Serialize)]
struct Config<'a> {
    /// The network namespace it must not find itself in.
    outer_netns: &'a Path,
    nameserver: &'a str,
    key: PathBuf,
    certificate: PathBuf,
    log: PathBuf,
}

#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    talk: Mutex<Talk>,
}

#[derive(Debug)]
struct Talk {
    /// Gone once the server is to end.
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Server {
    /// Starts the server in the calling thread's namespaces and waits until it listens.
    pub(super) fn start(fixture: &Path, root: &Path, outer: &Path) -> Result<(Self, File)> {
        if !fixture.join("node_modules").is_dir() {
            bail!("the lab's packages are missing: run `npm ci` in {}", fixture.display());
        }
        let config = Config {
            outer_netns: outer,
            nameserver: NAMESERVER,
            key: server_key(root),
            certificate: server_certificate(root),
            log: root.join("log.jsonl"),
        };
        let file = root.join("server.json");
        write_file(&file, &serde_json::to_string(&config)?, 0o600)?;
        // Kept open here: the path means nothing outside the lab's mount namespace.
        let mut options = OpenOptions::new();
        let log = options.read(true).append(true).create_new(true).mode(0o600).open(&config.log);
        let log = log.context("cannot make the lab's log")?;

        let mut child = Command::new("node")
            .arg(fixture.join("server.mjs"))
            .arg(&file)
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .current_dir("/")
            // Ctrl-C is for the command; the server lives until the command has ended.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the lab's server: is `node` (20 or newer) on PATH?")?;
        let commands = child.stdin.take();
        let answers = lines_of(child.stdout.take());
        let server = Self { child, talk: Mutex::new(Talk { commands, answers }) };
        server.expect("ready", START_LIMIT).context("the lab's server did not start")?;
        Ok((server, log))
    }

    /// Returns when no request is open and all of them are logged.
    pub(super) fn flush(&self) -> Result<()> {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(commands) = &mut talk.commands {
            commands.write_all(b"flush\n").context("the lab's server has died")?;
        }
        drop(talk);
        self.expect("flushed", FLUSH_LIMIT).context("the lab's server does not answer")
    }

    fn expect(&self, word: &str, limit: Duration) -> Result<()> {
        let talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        match talk.answers.recv_timeout(limit) {
            Ok(line) if line == word => Ok(()),
            Ok(line) => bail!("expected {word:?} from it, got {line:?}"),
            Err(RecvTimeoutError::Timeout) => bail!("no {word:?} from it in {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("it ended; its own message is above"),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let talk = self.talk.get_mut().unwrap_or_else(PoisonError::into_inner);
        talk.commands = None;
        // Its stdout closes when it ends, so this is a wait with a limit.
        while let Err(limit) = match talk.answers.recv_timeout(END_LIMIT) {
            Ok(_) => Err(false),
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(true),
        } {
            if limit {
                self.child.kill()?;
            }
        }
        self.child.wait().map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("lab: cannot end the server (process {}): {error}", self.child.id());
        }
    }
}

/// The lines of a pipe, from a thread of their own so that waiting for one can have a limit.
fn lines_of(pipe: Option<impl io::Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()) {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
