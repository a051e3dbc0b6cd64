//! What is marked, and what a marked file means.

use std::{
    collections::{BTreeMap, HashMap},
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::fanotify::{self, Fanotify, Handle};
use crate::{
    catalogue::{Catalogue, HandOffKind, expand},
    model::{Bytes, FileId},
    probe::Identifier,
    record::schema::{FileWatch, KnownCopy, WatchGap, Watched},
};

/// Files of a package that are marked one by one; the rest is seen through their folder.
const FILES_MAX: usize = 1_024;

/// A file as `stat(2)` names it. Only compared with its like: not the kernel's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StatId {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for StatId {
    fn from(metadata: &Metadata) -> StatId {
        StatId { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A known copy of one or more programs.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) programs: Vec<String>,
    pub(super) file: FileId,
    pub(super) path: Bytes,
}

/// A place where work can be left for others.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) why: String,
    /// At the start; none when it was not there.
    was: Option<StatId>,
}

impl Point {
    /// Whether something else is there now than at the start.
    pub(super) fn is_new(&self, identifier: &Identifier) -> bool {
        let is = stat(&self.path, identifier);
        is.is_some() && is != self.was
    }
}

/// Everything that is marked.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) copies: HashMap<StatId, Copy>,
    /// Folders of Python modules, and the programs these are.
    pub(super) packages: HashMap<PathBuf, Vec<String>>,
    pub(super) points: Vec<Point>,
    /// Indexes of `points`, by the folder and, of a file in it, the name.
    by_entry: HashMap<(Handle, Option<Bytes>), usize>,
    pub(super) report: FileWatch,
}

impl Marks {
    fn gap(&mut self, of: Watched, why: String) {
        self.report.gaps.push(WatchGap { of, why });
    }

    /// Marks copies and packages of programs.
    pub(super) fn programs(
        &mut self,
        queue: &io::Result<Fanotify>,
        copies: &BTreeMap<String, Vec<KnownCopy>>,
        packages: &BTreeMap<String, Vec<Bytes>>,
        identifier: &Identifier,
    ) {
        for (program, copies) in copies {
            for copy in copies {
                if let Err(why) = self.copy(queue, program, copy, identifier) {
                    let why = format!("{} is not watched: {why}", copy.path.lossy());
                    self.gap(Watched::Program(program.clone()), why);
                }
            }
        }
        for (program, folders) in packages {
            for folder in folders.iter().map(Bytes::as_path) {
                for folder in [folder.to_owned(), folder.join("__pycache__")] {
                    if let Err(why) = self.package(queue, program, &folder) {
                        let why = format!("{} is not watched: {why}", folder.display());
                        self.gap(Watched::Program(program.clone()), why);
                    }
                }
            }
        }
    }

    fn copy(
        &mut self,
        queue: &io::Result<Fanotify>,
        program: &str,
        copy: &KnownCopy,
        identifier: &Identifier,
    ) -> Result<(), String> {
        let queue = queue.as_ref().map_err(ToString::to_string)?;
        let file = Identifier::open_here(copy.path.as_path()).map_err(|error| error.to_string())?;
        if identifier.version_of(&file).is_none_or(|version| version.id != copy.file) {
            return Err("it was replaced while tracing was prepared".into());
        }
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        let known = self.copies.entry(StatId::from(&metadata)).or_insert_with(|| Copy {
            programs: Vec::new(),
            file: copy.file,
            path: copy.path.clone(),
        });
        known.programs.push(program.into());
        queue.mark(&file, fanotify::OPEN).map_err(|error| error.to_string())?;
        self.report.marks += 1;
        Ok(())
    }

    fn package(
        &mut self,
        queue: &io::Result<Fanotify>,
        program: &str,
        path: &Path,
    ) -> Result<(), String> {
        let folder = match Identifier::open_here(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| error.to_string())?,
        };
        let queue = queue.as_ref().map_err(ToString::to_string)?;
        queue.mark(&folder, fanotify::OPEN_CHILD).map_err(|error| error.to_string())?;
        self.packages.entry(path.to_owned()).or_default().push(program.into());
        self.report.marks += 1;
        // The files too: a link to one, or one that is moved, has another folder.
        let entries = std::fs::read_dir(path).map_err(|error| error.to_string())?;
        for entry in entries.take(FILES_MAX) {
            let entry = entry.map_err(|error| error.to_string())?;
            let Ok(file) = Identifier::open_here(&entry.path()) else { continue };
            if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                queue.mark(&file, fanotify::OPEN).map_err(|error| error.to_string())?;
                self.report.marks += 1;
            }
        }
        Ok(())
    }

    /// Marks the folders and files through which work can be handed over.
    pub(super) fn hand_offs(
        &mut self,
        queue: &io::Result<Fanotify>,
        catalogue: &Catalogue,
        home: Option<&Path>,
        identifier: &Identifier,
    ) {
        for entry in &catalogue.hand_offs {
            match entry.kind {
                HandOffKind::Socket | HandOffKind::HarmlessSocket | HandOffKind::Port => continue,
                HandOffKind::Directory => {}
            }
            for path in entry.paths.iter().flat_map(|pattern| paths(pattern, home)) {
                let index = self.points.len();
                let was = stat(&path, identifier);
                if let Err(why) = self.point(queue, &path, index)
                    && !entry.optional
                {
                    let why = format!("{} is not watched: {why}", path.display());
                    self.gap(Watched::HandOff(entry.name.clone()), why);
                }
                self.points.push(Point {
                    name: entry.name.clone(),
                    path,
                    why: entry.why.clone(),
                    was,
                });
            }
        }
    }

    fn point(
        &mut self,
        queue: &io::Result<Fanotify>,
        path: &Path,
        index: usize,
    ) -> Result<(), String> {
        let file = match Identifier::open_here(path) {
            Err(error) if is_absent(&error) => return Ok(()),
            other => other.map_err(|error| error.to_string())?,
        };
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        let queue = queue.as_ref().map_err(ToString::to_string)?;
        let (mask, folder, name) = if metadata.is_dir() {
            (fanotify::CHANGE_IN, Some(path), None)
        } else {
            (
                fanotify::CHANGE,
                path.parent(),
                path.file_name().map(|name| Bytes::from(Path::new(name))),
            )
        };
        queue.mark(&file, mask).map_err(|error| error.to_string())?;
        let folder = Identifier::open_here(folder.unwrap_or(path));
        let handle =
            folder.and_then(|folder| Handle::of(&folder)).map_err(|error| error.to_string())?;
        self.by_entry.entry((handle, name)).or_insert(index);
        self.report.marks += 1;
        Ok(())
    }

    /// The point that an entry of a folder belongs to.
    pub(super) fn point_of(&self, folder: &Handle, name: &Bytes) -> Option<(usize, Bytes)> {
        let own = self.by_entry.get(&(folder.clone(), Some(name.clone())));
        if let Some(index) = own {
            return Some((*index, Bytes::from(self.points.get(*index)?.path.as_path())));
        }
        let index = *self.by_entry.get(&(folder.clone(), None))?;
        let path = Bytes::from(self.points.get(index)?.path.as_path());
        Some((index, Bytes([&path.0, &b"/"[..], &name.0].concat())))
    }

    /// Programs whose modules are in this folder; when it is none that is known under this name,
    /// those of all of them.
    pub(super) fn programs_of(&self, folder: Option<&Path>) -> Vec<String> {
        if let Some(programs) = folder.and_then(|folder| self.packages.get(folder)) {
            return programs.clone();
        }
        let mut all: Vec<String> = self.packages.values().flatten().cloned().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn stat(path: &Path, identifier: &Identifier) -> Option<StatId> {
    let metadata = identifier.open(path).and_then(|file| file.metadata());
    metadata.ok().map(|metadata| StatId::from(&metadata))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The path itself when the pattern has no wildcard: it may come into being.
fn paths(pattern: &str, home: Option<&Path>) -> Vec<PathBuf> {
    if pattern.contains(['*', '?', '[']) {
        return expand(pattern, home);
    }
    match pattern.strip_prefix("~/") {
        Some(rest) => home.map(|home| home.join(rest)).into_iter().collect(),
        None => vec![PathBuf::from(pattern)],
    }
}
