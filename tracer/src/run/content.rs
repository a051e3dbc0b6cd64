//! What the executed files contain, as SHA-256.
//!
//! A file is opened when its exec is drained and only if the kernel says that it is the version that
//! was executed; hashing happens in a thread, so that the rings never wait for it. Each version is
//! read once. What could not be read is a record that says why.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

use crate::{
    model::FileVersion,
    probe::Identifier,
    record::{hex, schema::Content},
};

struct Job {
    version: FileVersion,
    file: File,
    /// When the file was that version.
    stamp: Stamp,
}

/// What changes with a file's content, as stat(2) has it. Only compared with its like: file systems that
/// lie over others have numbers of their own there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size_bytes: u64,
    ctime: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Stamp> {
        let metadata = file.metadata()?;
        let ctime = (metadata.ctime(), metadata.ctime_nsec());
        Ok(Stamp { size_bytes: metadata.size(), ctime })
    }
}

/// Reads files, each version once.
#[derive(Debug)]
pub(super) struct Contents {
    jobs: Option<mpsc::Sender<Job>>,
    /// What the thread works with, before it is started.
    idle: Option<(mpsc::Receiver<Job>, mpsc::Sender<Content>)>,
    results: mpsc::Receiver<Content>,
    /// Versions that were queued or given up.
    asked: HashSet<FileVersion>,
    /// Queued and not finished.
    pending: HashSet<FileVersion>,
    /// Given up without the thread.
    failed: Vec<Content>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Contents {
    pub(super) fn new() -> Contents {
        let (jobs, queue) = mpsc::channel();
        let (report, results) = mpsc::channel();
        Contents {
            jobs: Some(jobs),
            idle: Some((queue, report)),
            results,
            asked: HashSet::new(),
            pending: HashSet::new(),
            failed: Vec::new(),
        }
    }

    /// Starts the thread, with the rights that this one has now.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let Some((queue, report)) = self.idle.take() else { return Ok(()) };
        thread::Builder::new().name("hasher".into()).spawn(move || {
            for job in queue {
                let result = hash(job.file, job.stamp);
                if report.send(content(job.version, result)).is_err() {
                    return;
                }
            }
        })?;
        Ok(())
    }

    /// Has `version` read, from the first of `paths` that leads to it.
    pub(super) fn ask(
        &mut self,
        version: FileVersion,
        paths: impl Iterator<Item = PathBuf>,
        identifier: &Identifier,
    ) {
        if !self.asked.insert(version) {
            return;
        }
        match open(version, paths, identifier) {
            Ok((file, stamp)) => {
                let job = Job { version, file, stamp };
                if self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok()) {
                    self.pending.insert(version);
                }
            }
            Err(why) => self.failed.push(content(version, Err(why))),
        }
    }

    /// What has been finished since the last call.
    pub(super) fn finished(&mut self) -> Vec<Content> {
        let mut done = std::mem::take(&mut self.failed);
        done.extend(self.results.try_iter().inspect(|content| {
            self.pending.remove(&content.version());
        }));
        done
    }

    /// Waits for the rest, but not for ever.
    pub(super) fn rest(&mut self) -> Vec<Content> {
        const WAIT_MAX: Duration = Duration::from_secs(60);
        let mut done = self.finished();
        self.jobs = None;
        let deadline = Instant::now() + WAIT_MAX;
        while !self.pending.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(content) = self.results.recv_timeout(left) else { break };
            self.pending.remove(&content.version());
            done.push(content);
        }
        let late = self.pending.drain();
        done.extend(late.map(|version| content(version, Err("reading it took too long".into()))));
        done
    }
}

fn content(version: FileVersion, result: Result<String, String>) -> Content {
    let (sha256, unread) = match result {
        Ok(sha256) => (Some(sha256), None),
        Err(why) => (None, Some(why)),
    };
    Content {
        file: version.id,
        size_bytes: version.size_bytes,
        ctime_ns: version.ctime_ns,
        sha256,
        unread,
    }
}

fn open(
    version: FileVersion,
    paths: impl Iterator<Item = PathBuf>,
    identifier: &Identifier,
) -> Result<(File, Stamp), String> {
    let mut why = "no path leads to it any more".to_owned();
    for path in paths {
        // Opened without reading rights first: opening a device or a pipe can have effects.
        let Ok(handle) = identifier.open(&path) else { continue };
        // Before the version: what changes it afterwards changes this too.
        let Ok(stamp) = Stamp::of(&handle) else { continue };
        let Some(found) = identifier.version_of(&handle) else { continue };
        if found != version {
            why = if found.id == version.id {
                "it was changed between its execution and its reading".into()
            } else {
                "another file has its path now".into()
            };
            continue;
        }
        match identifier.read(&handle) {
            Ok(file) => return Ok((file, stamp)),
            Err(error) => why = format!("it cannot be read: {error}"),
        }
    }
    Err(why)
}

/// The digest of the version that had this stamp. The file may have waited for its turn, and anybody may
/// have written to it meanwhile.
fn hash(mut file: File, stamp: Stamp) -> Result<String, String> {
    const BLOCK_BYTES: usize = 256 * 1024;
    let mut attempt = || -> io::Result<Option<String>> {
        if Stamp::of(&file)? != stamp {
            return Ok(None);
        }
        let mut hasher = Sha256::new();
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            match file.read(&mut block)? {
                0 => break,
                len => hasher.update(&block[..len]),
            }
        }
        Ok((Stamp::of(&file)? == stamp).then(|| hex(&hasher.finalize())))
    };
    match attempt() {
        Ok(Some(sha256)) => Ok(sha256),
        Ok(None) => Err("it was changed between its execution and the end of its reading".into()),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}
