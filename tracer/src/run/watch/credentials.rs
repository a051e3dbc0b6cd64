//! Files that hold credentials: who opens and who changes them.
//!
//! They have queues of their own, so that whatever happens there costs the watch of programs nothing.
//! A file is marked by its inode, and its folder too: another file may take its place. Where not even
//! the folder is there, the nearest one that is tells when it comes into being. What is in such a file
//! is not read, with one exception: the commands that a configuration names as `credential_process`,
//! of which a digest is kept.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
};

use super::{
    super::broker::{self, Broker},
    fanotify::{self, Damage, Fanotify, Handle, RawEvent},
    marks::StatId,
    sightings::{Sighting, Sightings, Subject},
};
use crate::{
    catalogue::{Catalogue, CredentialSource},
    model::Bytes,
    probe::Identifier,
    record::{
        Record,
        schema::{
            CredentialAccess, CredentialEvents, CredentialGap, CredentialPlace, CredentialWatch,
            FileEvents,
        },
    },
    session::{self, Story},
};

/// The name of files that say `credential_process`.
const CONFIGURATION: &str = "config";
/// More than any configuration has.
const CONFIGURATION_BYTES_MAX: u64 = 1024 * 1024;

/// A file or folder of a source.
#[derive(Debug)]
struct Place {
    source: String,
    path: PathBuf,
    /// Without symbolic links, where it is there.
    real: Option<PathBuf>,
}

#[derive(Debug)]
pub(in crate::run) struct CredentialFiles {
    opens: io::Result<Fanotify>,
    names: io::Result<Fanotify>,
    places: Vec<Place>,
    by_file: HashMap<StatId, usize>,
    /// What is missing of the way to a place, by the folder in which it would come into being.
    awaited: HashMap<(Handle, Bytes), Vec<usize>>,
    /// Folders whose entries are files of places.
    folders: HashMap<Handle, PathBuf>,
    report: CredentialWatch,
    came: Vec<CredentialGap>,
    sightings: Sightings,
    emptied_ns: u64,
    events: FileEvents,
}

impl CredentialFiles {
    pub(super) fn new(
        catalogue: &Catalogue,
        home: Option<&Path>,
        identifier: &Identifier,
        global_pids: bool,
    ) -> CredentialFiles {
        let sources = catalogue.credential_sources.clone();
        let helpers = catalogue.credential_helpers.clone();
        let mut all = CredentialFiles {
            opens: Fanotify::of_files(),
            names: Fanotify::of_names(),
            places: places(&sources, home),
            by_file: HashMap::new(),
            awaited: HashMap::new(),
            folders: HashMap::new(),
            report: CredentialWatch { sources, helpers, ..CredentialWatch::default() },
            came: Vec::new(),
            sightings: Sightings::new(global_pids),
            emptied_ns: 0,
            events: FileEvents::default(),
        };
        for index in 0..all.places.len() {
            let marked = all.mark(index, identifier);
            let Place { source, path, .. } = &all.places[index];
            let (source, shown) = (source.clone(), Bytes::from(path.as_path()));
            if path.file_name().is_some_and(|name| name == CONFIGURATION) {
                all.report.processes.extend(credential_processes(path));
            }
            if let Err(why) = &marked {
                let why = format!("{} is not watched: {why}", shown.lossy());
                all.report.gaps.push(CredentialGap { source: source.clone(), why });
            }
            let present = marked.unwrap_or(false);
            all.report.places.push(CredentialPlace { source, path: shown, present });
        }
        all
    }

    pub(in crate::run) fn report(&self) -> CredentialWatch {
        self.report.clone()
    }

    pub(in crate::run) fn events(&self) -> CredentialEvents {
        let lost = self.events.lost + self.sightings.dropped;
        CredentialEvents {
            events: FileEvents { lost, ..self.events.clone() },
            gaps: self.came.clone(),
        }
    }

    pub(super) fn mark_through(&mut self, broker: &Broker) {
        for queue in self.opens.iter_mut().chain(&mut self.names) {
            queue.mark_through(broker);
        }
    }

    pub(super) fn queues(&self) -> io::Result<Vec<OwnedFd>> {
        self.opens.iter().chain(&self.names).map(fanotify::waiting_on).collect()
    }

    /// Marks a place, or what is there of the way to it. Returns whether it is there.
    fn mark(&mut self, index: usize, identifier: &Identifier) -> Result<bool, String> {
        let text = |error: io::Error| error.to_string();
        let opens = self.opens.as_ref().map_err(ToString::to_string)?;
        let names = self.names.as_ref().map_err(ToString::to_string)?;
        let Some(place) = self.places.get_mut(index) else { return Ok(false) };
        let (nearest, file) = nearest(&place.path, identifier).map_err(text)?;
        let present = nearest == place.path;
        let metadata = file.metadata().map_err(text)?;
        if present {
            place.real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok();
        }
        let folder = if metadata.is_dir() {
            Some((nearest.clone(), file))
        } else {
            self.by_file.insert(StatId::from(&metadata), index);
            opens.mark(&file, fanotify::USE).map_err(text)?;
            let folder = nearest.parent().unwrap_or(Path::new("/")).to_owned();
            identifier.open(&folder).ok().map(|open| (folder, open))
        };
        let Some((path, folder)) = folder else { return Ok(present) };
        // Where nothing but the file itself is missing, its opening is seen through the folder.
        if present || place.path.parent() == Some(&path) {
            opens.mark(&folder, fanotify::USE_CHILD).map_err(text)?;
        }
        names.mark(&folder, fanotify::APPEAR_IN).map_err(text)?;
        let handle = Handle::of(&folder).map_err(text)?;
        if let Ok(rest) = place.path.strip_prefix(&path)
            && let Some(next) = rest.components().next()
            && rest.components().nth(1).is_some()
        {
            let name = Bytes::from(Path::new(next.as_os_str()));
            self.awaited.entry((handle, name)).or_default().push(index);
        } else {
            self.folders.insert(handle, path);
        }
        Ok(present)
    }

    pub(super) fn collect(
        &mut self,
        identifier: &Identifier,
        clock: fn() -> io::Result<u64>,
    ) -> io::Result<()> {
        let before_ns = clock()?;
        let mut raw = Vec::new();
        let mut damage = Damage::default();
        for queue in fanotify::ready(self.opens.iter_mut().chain(&mut self.names)) {
            let one = queue.read(&mut |event| raw.push(event));
            damage.overflows += one.overflows;
            damage.lost += one.lost;
        }
        self.events.overflows += damage.overflows;
        self.events.lost += damage.lost;
        let (after_ns, until_ns) = (self.emptied_ns, clock()?);
        let mut seen = HashSet::new();
        for event in raw {
            self.events.read += 1;
            let pid = event.pid;
            if broker::is_own(pid) {
                continue;
            }
            for subject in self.subjects(event, identifier) {
                if seen.insert((pid, subject.same())) {
                    self.sightings.add(Sighting { pid, after_ns, until_ns, subject });
                }
            }
        }
        self.emptied_ns = before_ns;
        Ok(())
    }

    /// What an event says about a place; nothing when it is about another file of its folder.
    fn subjects(&mut self, event: RawEvent, identifier: &Identifier) -> Vec<Subject> {
        match &event.file {
            Some(file) => self.used(file, event.mask, identifier),
            None => {
                let entry = event.entry;
                entry.and_then(|entry| self.appeared(entry, identifier)).into_iter().collect()
            }
        }
    }

    /// What was done with a file. The kernel merges what one process did with it before the queue was
    /// read, so one event can be both.
    fn used(&mut self, file: &File, mask: u64, identifier: &Identifier) -> Vec<Subject> {
        let Ok(metadata) = file.metadata() else {
            self.events.lost += 1;
            return Vec::new();
        };
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok();
        let index = self.by_file.get(&StatId::from(&metadata)).copied();
        let index = index.or_else(|| self.place_of(path.as_deref()?));
        let Some(place) = index.and_then(|index| self.places.get(index)) else { return Vec::new() };
        [
            (libc::FAN_OPEN, CredentialAccess::Opened),
            (libc::FAN_CLOSE_WRITE, CredentialAccess::Changed),
        ]
        .into_iter()
        .filter(|(bit, _)| mask & bit != 0)
        .map(|(_, access)| Subject::Credential {
            source: place.source.clone(),
            access,
            file: identifier.version_of(file).map(|version| version.id),
            path: path.as_deref().map(Bytes::from).unwrap_or_default(),
        })
        .collect()
    }

    /// What was made or moved into a folder.
    fn appeared(&mut self, entry: (Handle, Bytes), identifier: &Identifier) -> Option<Subject> {
        if let Some(indexes) = self.awaited.remove(&entry) {
            return self.came_into_being(&indexes, identifier);
        }
        let (folder, name) = entry;
        let path = self.folders.get(&folder)?.join(name.as_path());
        let source = self.places.get(self.place_of(&path)?)?.source.clone();
        let access = CredentialAccess::Changed;
        Some(Subject::Credential { source, access, file: None, path: Bytes::from(path.as_path()) })
    }

    /// Part of the way to places came into being. They are marked now, and what was opened there in
    /// between is unknown.
    fn came_into_being(&mut self, indexes: &[usize], identifier: &Identifier) -> Option<Subject> {
        let mut first = None;
        for index in indexes {
            let failed = self.mark(*index, identifier).err();
            let Place { source, path, .. } = self.places.get(*index)?;
            let shown = Bytes::from(path.as_path());
            let why = format!(
                "the folder of {} came into being while tracing ran; what was opened there at once \
                 was not seen{}",
                shown.lossy(),
                failed
                    .map(|why| format!(", and it could not be watched: {why}"))
                    .unwrap_or_default()
            );
            self.came.push(CredentialGap { source: source.clone(), why });
            first.get_or_insert(Subject::Credential {
                source: source.clone(),
                access: CredentialAccess::Changed,
                file: None,
                path: shown,
            });
        }
        first
    }

    /// The place that a path is, or in whose folder it is.
    fn place_of(&self, path: &Path) -> Option<usize> {
        let folder = path.parent();
        let is = |place: &Place| {
            let own = [Some(place.path.as_path()), place.real.as_deref()];
            own.contains(&Some(path)) || own.iter().flatten().any(|own| Some(*own) == folder)
        };
        self.places.iter().position(is)
    }

    pub(super) fn attribute(&mut self, story: &Story, last: bool) -> Vec<Record> {
        self.sightings.attribute(story, &[], last)
    }
}

/// The longest part of a path that is there, opened.
fn nearest(path: &Path, identifier: &Identifier) -> io::Result<(PathBuf, File)> {
    let mut error = None;
    for part in path.ancestors() {
        match identifier.open(part) {
            Ok(file) => return Ok((part.to_owned(), file)),
            Err(why)
                if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                error = Some(why);
            }
            Err(why) => return Err(why),
        }
    }
    Err(error.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// The files of all sources, and those that the environment names, which is the command's too.
fn places(sources: &[CredentialSource], home: Option<&Path>) -> Vec<Place> {
    let cwd = std::env::current_dir().unwrap_or_default();
    let absolute = |path: &Path| match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => Some(home.join(rest)),
        (Ok(_), None) => None,
        (Err(_), _) => Some(cwd.join(path)),
    };
    let mut places: Vec<Place> = Vec::new();
    for source in sources {
        let named = source.redirect.as_ref().and_then(std::env::var_os);
        let named = named.filter(|value| !value.is_empty()).map(PathBuf::from);
        let paths = source.files.iter().map(PathBuf::from).chain(named);
        for path in paths.filter_map(|path| absolute(&path)) {
            if !places.iter().any(|place| place.path == path) {
                places.push(Place { source: source.name.clone(), path, real: None });
            }
        }
    }
    places
}

/// Digests of the commands that a configuration file names.
fn credential_processes(path: &Path) -> Vec<String> {
    let open = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path);
    let Ok(file) = open else { return Vec::new() };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Vec::new();
    }
    let mut text = Vec::new();
    if file.take(CONFIGURATION_BYTES_MAX).read_to_end(&mut text).is_err() {
        return Vec::new();
    }
    let digests = session::credential_process_digests(&text);
    // It may have held keys.
    text.fill(0);
    std::hint::black_box(&text);
    digests
}
