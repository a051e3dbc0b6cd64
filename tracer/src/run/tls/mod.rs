//! Which TLS libraries the tree uses, and which of them are watched from when on.
//!
//! A library is a file. Those that most programs use get their breakpoints before the command starts;
//! any other when a process of the tree has executed or mapped it, which is seen some milliseconds
//! later. What the process may have called until then was not seen, and the recording says so.

mod elf;
mod prologue;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ffi::OsString,
    fs::{self, File},
    io,
    path::PathBuf,
};

use self::elf::Found;
use super::{broker, clock::boottime_ns, libraries::program, machine::is_overlay};
use crate::{
    catalogue::Catalogue,
    model::{Bytes, Event, FileId, FileVersion, ProcessKey},
    probe::{Attached, Identifier, TlsLibrary as Functions, TlsSessions},
    record::{
        Record,
        schema::{CallGap, TlsLibrary, TlsReading},
    },
    session::Story,
};

/// Where distributions have OpenSSL, and Node's code where it is a library.
const USUAL_FOLDERS: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib"];
const USUAL_NAMES: [&str; 2] = ["libssl.so.", "libnode.so."];
/// Programs that most commands come down to.
const USUAL_PROGRAMS: [&str; 1] = ["node"];

/// Where in a file the functions of a TLS library that can be read are.
pub(super) fn functions_in(file: File, is_program: bool, catalogue: &Catalogue) -> Vec<u64> {
    match elf::look(file, is_program, catalogue) {
        Found::Readable(library) => library.functions.iter().map(|(_, at)| *at).collect(),
        Found::Nothing | Found::Unreadable(_) => Vec::new(),
    }
}

#[derive(Debug)]
pub(super) struct Tls {
    catalogue: Catalogue,
    /// Every file that was looked at.
    files: HashMap<FileId, Known>,
    sightings: Vec<Sighting>,
    /// Of each process, those that are known to the kernel side: what names them, and where they are.
    sessions: HashMap<ProcessKey, HashMap<u64, u64>>,
    /// Processes that have ended; events of theirs can be in another ring still.
    ended: Vec<ProcessKey>,
    ending: Vec<ProcessKey>,
    /// What stands in the recording, and whether as executed.
    told: HashSet<(FileId, Option<ProcessKey>, bool)>,
}

/// What is known of a file.
#[derive(Debug)]
struct Known {
    state: State,
    /// When it was looked at.
    version: Option<FileVersion>,
}

impl Known {
    /// It had other content, as far as is known, or another file had its number.
    fn is_other(&self, version: Option<FileVersion>) -> bool {
        let both = self.version.zip(version).filter(|(own, other)| own.id == other.id);
        both.is_some_and(|(own, other)| own != other)
    }
}

#[derive(Debug)]
enum State {
    /// A program is searched for more than a library, so one that was mapped before its exec was read has to
    /// be looked at again.
    NoTls {
        as_program: bool,
    },
    /// Since then, at the latest.
    Watched {
        from_ns: u64,
        number: u32,
        library: Functions,
    },
    Unreadable {
        library: String,
    },
    Failed {
        why: String,
    },
    /// It was not found. Another process may have a path that leads to it.
    Missing {
        why: &'static str,
    },
}

impl State {
    /// Whether it stays so for a file that is executed, or only mapped.
    fn holds_for(&self, is_program: bool) -> bool {
        match self {
            State::NoTls { as_program } => *as_program || !is_program,
            State::Watched { .. } | State::Unreadable { .. } | State::Failed { .. } => true,
            State::Missing { .. } => false,
        }
    }

    /// How much is read of a process's calls that has had the file since then. None where there is nothing to be
    /// read.
    fn reading(&self, since_ns: u64, is_program: bool) -> Option<TlsReading> {
        let failed = |why: &str| {
            // Most files that are gone have no TLS library: programs that tests make and delete.
            (!is_program).then(|| TlsReading::Failed { why: why.to_owned() })
        };
        match self {
            State::NoTls { .. } => None,
            State::Watched { from_ns, .. } if *from_ns <= since_ns => Some(TlsReading::Complete),
            State::Watched { from_ns, .. } => Some(TlsReading::From { t_ns: *from_ns }),
            State::Unreadable { library } => {
                Some(TlsReading::Unreadable { library: library.clone() })
            }
            State::Failed { why } => failed(why),
            State::Missing { why } => failed(why),
        }
    }
}

/// Who executed or mapped a file.
#[derive(Clone, Copy, Debug)]
enum Who {
    Process(ProcessKey),
    /// By its number in tracer's pid namespace.
    Pid(u32),
}

#[derive(Debug)]
struct Sighting {
    t_ns: u64,
    who: Who,
    id: FileId,
    path: Bytes,
    is_program: bool,
    version: Option<FileVersion>,
    /// Not needed where the file is known.
    file: Option<Result<File, &'static str>>,
}

/// What a process executed or mapped.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) t_ns: u64,
    pub(super) id: FileId,
    /// None where it is not known which content it had then.
    pub(super) version: Option<FileVersion>,
    pub(super) path: &'a Bytes,
}

/// A file that a process, which was found running, has mapped as code.
#[derive(Debug)]
pub(super) struct FoundCode {
    pub(super) process: ProcessKey,
    pub(super) pid: u32,
    /// When the process was a member already.
    pub(super) t_ns: u64,
    pub(super) id: FileId,
    pub(super) path: Bytes,
    /// Its path leads to another file now, if to any.
    pub(super) is_deleted: bool,
    /// What the process executed.
    pub(super) is_program: bool,
}

impl Tls {
    pub(super) fn new(catalogue: Catalogue) -> Tls {
        Tls {
            catalogue,
            files: HashMap::new(),
            sightings: Vec::new(),
            sessions: HashMap::new(),
            ended: Vec::new(),
            ending: Vec::new(),
            told: HashSet::new(),
        }
    }

    /// Watches what the command and most others use, before any of them runs.
    pub(super) fn prepare(
        &mut self,
        command: &[OsString],
        attached: &mut Attached,
        identifier: &Identifier,
    ) -> io::Result<()> {
        let of_command = command.first().and_then(|name| program(name));
        let usual = USUAL_PROGRAMS.iter().filter_map(|name| program(name.as_ref()));
        for path in of_command.into_iter().chain(usual).chain(usual_libraries()) {
            let Ok(file) = File::open(&path) else { continue };
            let Some(version) = identifier.version_of(&file) else { continue };
            if !self.files.contains_key(&version.id) {
                self.look(version.id, Ok(file), Some(version), true, attached)?;
            }
        }
        Ok(())
    }

    pub(super) fn executed(
        &mut self,
        process: ProcessKey,
        seen: &Seen<'_>,
        paths: &[PathBuf],
        identifier: &Identifier,
    ) {
        self.saw(Who::Process(process), seen, true, paths, identifier);
    }

    pub(super) fn mapped(
        &mut self,
        pid: u32,
        seen: &Seen<'_>,
        paths: &[PathBuf],
        identifier: &Identifier,
    ) {
        self.saw(Who::Pid(pid), seen, false, paths, identifier);
    }

    fn saw(
        &mut self,
        who: Who,
        seen: &Seen<'_>,
        is_program: bool,
        paths: &[PathBuf],
        identifier: &Identifier,
    ) {
        let is_known = self.is_known(seen.id, seen.version, is_program);
        let state = self.files.get(&seen.id).map(|known| &known.state);
        if is_known && matches!(state, Some(State::NoTls { .. })) {
            return;
        }
        // At once: a moment later the process may be gone, and its view of the files too. A file that was changed
        // just now has no version yet.
        let may_be_other = seen.version.is_none() && matches!(state, Some(State::Watched { .. }));
        let file = (!is_known || may_be_other).then(|| open(seen.id, paths, identifier));
        let opened = file.as_ref().and_then(|file| identifier.version_of(file.as_ref().ok()?));
        let version = opened.or(seen.version);
        let (t_ns, id, path) = (seen.t_ns, seen.id, seen.path.clone());
        self.sightings.push(Sighting { t_ns, who, id, path, is_program, version, file });
    }

    fn is_known(&self, id: FileId, version: Option<FileVersion>, is_program: bool) -> bool {
        let known = self.files.get(&id);
        known.is_some_and(|known| known.state.holds_for(is_program) && !known.is_other(version))
    }

    /// Looks at a file, and watches the TLS library in it. Whether it was watched, and has other content now.
    fn look(
        &mut self,
        id: FileId,
        file: Result<File, &'static str>,
        version: Option<FileVersion>,
        is_program: bool,
        attached: &mut Attached,
    ) -> io::Result<bool> {
        let found = match &file {
            Ok(file) => Some(elf::look(file.try_clone()?, is_program, &self.catalogue)),
            Err(_) => None,
        };
        let mut was_watched = false;
        if let Some(known) = self.files.get_mut(&id)
            && let State::Watched { number, library, .. } = &known.state
        {
            // Its owner, or its names, can have been changed, and nothing else.
            if matches!(&found, Some(Found::Readable(now)) if now == library) {
                known.version = version;
                return Ok(false);
            }
            attached.leave_tls(*number);
            was_watched = true;
        }
        let state = match (file, found) {
            (Ok(file), Some(Found::Readable(library))) => match attached.watch_tls(&file, &library)
            {
                Ok(number) => State::Watched { from_ns: boottime_ns()?, number, library },
                Err(error) => State::Failed { why: error.to_string() },
            },
            (Ok(_), Some(Found::Unreadable(library))) => State::Unreadable { library },
            (Ok(_), Some(Found::Nothing) | None) => State::NoTls { as_program: is_program },
            (Err(why), _) => State::Missing { why },
        };
        self.files.insert(id, Known { state, version });
        Ok(was_watched)
    }

    /// A file that was mapped before tracer came.
    pub(super) fn found(
        &mut self,
        found: FoundCode,
        paths: &[PathBuf],
        attached: &mut Attached,
        identifier: &Identifier,
    ) -> io::Result<Option<Record>> {
        let FoundCode { process, t_ns, id, path, is_deleted, is_program, .. } = found;
        let paths = if is_deleted { &[] } else { paths };
        if !self.is_known(id, None, is_program) {
            let file = open(id, paths, identifier);
            let version = file.as_ref().ok().and_then(|file| identifier.version_of(file));
            self.look(id, file, version, is_program, attached)?;
        }
        let reading = self.files.get(&id).and_then(|known| known.state.reading(t_ns, is_program));
        // However long the library had been watched, what the process called before was not seen.
        let reading = match reading {
            Some(TlsReading::Complete) => TlsReading::From { t_ns },
            Some(other) => other,
            None => return Ok(None),
        };
        let library = TlsLibrary { t_ns, process, path, file: id, executed: is_program, reading };
        Ok(self.is_news(id, Some(process), is_program).then_some(Record::TlsLibrary(library)))
    }

    /// Keeps account of sessions.
    pub(super) fn notice(&mut self, event: &Event) {
        if let Event::TlsBegin(begin) = event {
            let sessions = self.sessions.entry(begin.header.process).or_default();
            sessions.insert(begin.stream, begin.session);
        } else if let Event::TlsEnd(end) = event {
            if let Some(sessions) = self.sessions.get_mut(&end.header.process) {
                sessions.remove(&end.stream);
            }
        } else if let Event::Exit(exit) = event {
            self.ending.push(exit.header.process);
        }
    }

    /// To be called after each round of the rings: watches what was seen, and says so.
    pub(super) fn round(
        &mut self,
        attached: &mut Attached,
        kernel: &mut TlsSessions,
        story: &Story,
        global_pids: bool,
    ) -> io::Result<Vec<Record>> {
        for process in std::mem::replace(&mut self.ended, std::mem::take(&mut self.ending)) {
            for session in self.sessions.remove(&process).unwrap_or_default().into_values() {
                kernel.forget(process, session);
            }
        }
        let mut records = Vec::new();
        for mut sighting in std::mem::take(&mut self.sightings) {
            let (file, is_program) = (sighting.file.take(), sighting.is_program);
            let (id, version) = (sighting.id, sighting.version);
            let mut was_rewritten = false;
            if let Some(file) = file.filter(|_| !self.is_known(id, version, is_program)) {
                was_rewritten = self.look(id, file, version, is_program, attached)?;
            }
            let process = process_of(&sighting, story, global_pids);
            if let Some(process) = process {
                records.extend(was_rewritten.then(|| rewritten(&sighting, process)));
                records.extend(self.tell(sighting, process));
            }
        }
        Ok(records)
    }

    /// That a process has mapped a file is told before it is told that it executes it, or not at all: the two come
    /// by different rings, in any order.
    fn is_news(&mut self, id: FileId, whose: Option<ProcessKey>, executed: bool) -> bool {
        !self.told.contains(&(id, whose, true)) && self.told.insert((id, whose, executed))
    }

    fn tell(&mut self, sighting: Sighting, process: ProcessKey) -> Option<Record> {
        let Sighting { t_ns, id, path, is_program, .. } = sighting;
        let reading = self.files.get(&id)?.state.reading(t_ns, is_program)?;
        // That all is well needs to be said once.
        let whose = (reading != TlsReading::Complete).then_some(process);
        self.is_news(id, whose, is_program).then_some(Record::TlsLibrary(TlsLibrary {
            t_ns,
            process,
            path,
            file: id,
            executed: is_program,
            reading,
        }))
    }
}

/// Who executed or mapped a file; none if that was tracer's own.
fn process_of(sighting: &Sighting, story: &Story, global_pids: bool) -> Option<ProcessKey> {
    let t_ns = sighting.t_ns;
    let process = match sighting.who {
        Who::Process(process) => Some(process),
        Who::Pid(pid) if broker::is_own(pid) => return None,
        Who::Pid(pid) if global_pids => story.by_pid(pid, Some(t_ns)).latest(),
        Who::Pid(pid) => story.by_namespace_pid(pid, t_ns),
    };
    process.or_else(|| story.root())
}

fn rewritten(sighting: &Sighting, process: ProcessKey) -> Record {
    let path = sighting.path.as_path().display();
    Record::CallGap(CallGap {
        t_ns: sighting.t_ns,
        process,
        session: 0,
        plaintext: false,
        connection: None,
        inode: None,
        why: format!(
            "{path} was rewritten in place while its TLS library was watched: calls of this process through it may not \
             be read, and breakpoints at the places of its old content may have got into its new code"
        ),
    })
}

fn usual_libraries() -> Vec<PathBuf> {
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        USUAL_NAMES.iter().any(|usual| name.starts_with(usual))
    };
    let folders = USUAL_FOLDERS.iter().filter_map(|folder| fs::read_dir(folder).ok());
    let paths: BTreeSet<PathBuf> =
        folders.flatten().filter_map(|entry| Some(entry.ok()?.path())).filter(is_library).collect();
    paths.into_iter().collect()
}

fn open(id: FileId, paths: &[PathBuf], identifier: &Identifier) -> Result<File, &'static str> {
    let mut why = "no path leads to it any more";
    for path in paths {
        let Ok(file) = identifier.open(path).and_then(|handle| identifier.read(&handle)) else {
            continue;
        };
        if identifier.version_of(&file).is_some_and(|version| version.id == id) || is_overlay(&file)
        {
            return Ok(file);
        }
        why = "another file has its path now";
    }
    Err(why)
}
