//! The watch of files: who opens a known copy of a program or one of its modules, and who writes
//! where others pick up work.
//!
//! The kernel queues an event while the file is being opened or changed, so one reading after a
//! process's exit has everything that process did. Events name a process by its pid alone, which
//! the story resolves; what no process of the tree can have done is dropped.

mod credentials;
mod fanotify;
mod marks;
mod sightings;

pub(super) use fanotify::mark as fanotify_mark;

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use self::{
    credentials::CredentialFiles,
    fanotify::{Damage, Fanotify, RawEvent},
    marks::{Marks, StatId},
    sightings::{Sighting, Sightings, Subject},
};
use super::broker::{self, Broker};
use crate::{
    catalogue::Catalogue,
    model::Bytes,
    probe::Identifier,
    record::{
        Record,
        schema::{FileEvents, FileWatch, HandOff, KnownCopy, OpenedWhat},
    },
    session::Story,
};

/// What is to be watched.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// Of the programs that must not run.
    pub(super) copies: BTreeMap<String, Vec<KnownCopy>>,
    pub(super) packages: BTreeMap<String, Vec<Bytes>>,
    pub(super) catalogue: &'a Catalogue,
    pub(super) home: Option<&'a Path>,
}

#[derive(Debug)]
pub(super) struct Watch {
    /// Why one of the queues is not there.
    refused: Option<String>,
    /// Opened files.
    opens: Option<Fanotify>,
    /// Changed folders.
    changes: Option<Fanotify>,
    marks: Marks,
    sightings: Sightings,
    /// Files that hold credentials.
    pub(super) credentials: CredentialFiles,
    /// When the queues were empty for the last time.
    emptied_ns: u64,
    events: FileEvents,
}

impl Watch {
    /// Marks everything. What the kernel refuses is a gap of the report.
    pub(super) fn new(wanted: &Wanted<'_>, identifier: &Identifier, global_pids: bool) -> Watch {
        let (opens, changes) = (Fanotify::of_files(), Fanotify::of_names());
        let refused = opens.as_ref().err().or(changes.as_ref().err()).map(ToString::to_string);
        let mut marks = Marks::default();
        marks.programs(&opens, &wanted.copies, &wanted.packages, identifier);
        marks.hand_offs(&changes, wanted.catalogue, wanted.home, identifier);
        Watch {
            refused,
            opens: opens.ok(),
            changes: changes.ok(),
            marks,
            sightings: Sightings::new(global_pids),
            credentials: CredentialFiles::new(
                wanted.catalogue,
                wanted.home,
                identifier,
                global_pids,
            ),
            emptied_ns: 0,
            events: FileEvents::default(),
        }
    }

    /// Whether the kernel has what the watch needs.
    pub(super) fn probe() -> io::Result<()> {
        Fanotify::of_files()?;
        Fanotify::of_names()?;
        Ok(())
    }

    /// Why the kernel does not allow such a watch, or a part of it.
    pub(super) fn refused(&self) -> Option<String> {
        self.refused.clone()
    }

    pub(super) fn report(&self) -> FileWatch {
        self.marks.report.clone()
    }

    pub(super) fn events(&self) -> FileEvents {
        let full = self.sightings.dropped;
        FileEvents { lost: self.events.lost + full, ..self.events.clone() }
    }

    /// Descriptors to wait on.
    pub(super) fn queues(&self) -> io::Result<Vec<OwnedFd>> {
        let own = self.opens.iter().chain(&self.changes).map(fanotify::waiting_on);
        let mut queues = own.collect::<io::Result<Vec<OwnedFd>>>()?;
        queues.extend(self.credentials.queues()?);
        Ok(queues)
    }

    /// Reads what is queued. To be called before the rings are drained: then the processes of what
    /// was read are known afterwards, with the rarest exceptions, which wait.
    pub(super) fn collect(
        &mut self,
        identifier: &Identifier,
        clock: fn() -> io::Result<u64>,
    ) -> io::Result<()> {
        self.credentials.collect(identifier, clock)?;
        let before_ns = clock()?;
        let Watch { opens, changes, marks, events, .. } = self;
        let mut found: Vec<(u32, Subject)> = Vec::new();
        // An interpreter opens a file several times, and a loop thousands of times.
        let mut seen: HashSet<(u32, StatId, bool)> = HashSet::new();
        let mut damage = Damage::default();
        let mut unknown = 0;
        let mut take = |event: RawEvent| {
            events.read += 1;
            if broker::is_own(event.pid) {
                return;
            }
            let subject = match (&event.file, &event.entry) {
                (Some(file), _) => {
                    let Ok(metadata) = file.metadata() else {
                        unknown += 1;
                        return;
                    };
                    let stat = StatId::from(&metadata);
                    let to_execute = event.mask & libc::FAN_OPEN_EXEC != 0;
                    if !seen.insert((event.pid, stat, to_execute)) {
                        return;
                    }
                    Some(opened(file, stat, to_execute, marks, identifier))
                }
                (None, Some((folder, name))) => {
                    marks.point_of(folder, name).map(|(point, via)| Subject::Change { point, via })
                }
                (None, None) => None,
            };
            match subject {
                Some(subject) => found.push((event.pid, subject)),
                None => unknown += 1,
            }
        };
        for queue in fanotify::ready(opens.iter_mut().chain(changes)) {
            let one = queue.read(&mut take);
            damage.overflows += one.overflows;
            damage.lost += one.lost;
        }
        events.overflows += damage.overflows;
        events.lost += damage.lost + unknown;
        // An event can come while the queue is read, by a process that began only then.
        let (after_ns, until_ns) = (self.emptied_ns, clock()?);
        for (pid, subject) in found {
            self.sightings.add(Sighting { pid, after_ns, until_ns, subject });
        }
        self.emptied_ns = before_ns;
        Ok(())
    }

    /// From now on files are marked by the broker.
    pub(super) fn mark_through(&mut self, broker: &Broker) {
        for queue in self.opens.iter_mut().chain(&mut self.changes) {
            queue.mark_through(broker);
        }
        self.credentials.mark_through(broker);
    }

    /// What the command finds open when it starts.
    pub(super) fn inherited(&mut self, pid: u32, now_ns: u64) {
        for file in inheritable_files() {
            let Ok(metadata) = file.metadata() else { continue };
            let Some(copy) = self.marks.copies.get(&StatId::from(&metadata)) else { continue };
            self.sightings.add(Sighting {
                pid,
                after_ns: 0,
                until_ns: now_ns,
                subject: Subject::Open {
                    what: OpenedWhat::Copy,
                    programs: copy.programs.clone(),
                    to_execute: false,
                    inherited: true,
                    stat: StatId::from(&metadata),
                    file: Some(copy.file),
                    path: copy.path.clone(),
                },
            });
        }
    }

    /// Records of what processes of the story did. When `last`, nothing more will be known of the
    /// others, which are dropped.
    pub(super) fn attribute(&mut self, story: &Story, last: bool) -> Vec<Record> {
        let mut records = self.sightings.attribute(story, &self.marks.points, last);
        records.extend(self.credentials.attribute(story, last));
        records
    }

    /// Hand-offs of which no event tells: what came into being or was replaced as a whole.
    pub(super) fn replaced(&self, identifier: &Identifier, now_ns: u64) -> Vec<Record> {
        let new = self.marks.points.iter().filter(|point| point.is_new(identifier));
        new.map(|point| {
            Record::HandOff(HandOff {
                t_ns: now_ns,
                process: None,
                pid: 0,
                name: point.name.clone(),
                via: Bytes::from(point.path.as_path()),
                how: format!("it came into being or was replaced; {} {}", point.name, point.why),
            })
        })
        .collect()
    }
}

/// What an opened file is.
fn opened(
    file: &File,
    stat: StatId,
    to_execute: bool,
    marks: &Marks,
    identifier: &Identifier,
) -> Subject {
    if let Some(copy) = marks.copies.get(&stat) {
        return Subject::Open {
            what: OpenedWhat::Copy,
            programs: copy.programs.clone(),
            to_execute,
            inherited: false,
            stat,
            file: Some(copy.file),
            path: copy.path.clone(),
        };
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok();
    let folder = path.as_deref().and_then(Path::parent);
    Subject::Open {
        what: OpenedWhat::Module,
        programs: marks.programs_of(folder),
        to_execute,
        inherited: false,
        stat,
        file: identifier.version_of(file).map(|version| version.id),
        path: path.as_deref().map(Bytes::from).unwrap_or_default(),
    }
}

/// Files behind descriptors of this process that a child keeps.
fn inheritable_files() -> Vec<File> {
    let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let descriptors = listed.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse::<libc::c_int>().ok()?;
        // SAFETY: no memory is involved.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        (flags >= 0 && flags & libc::FD_CLOEXEC == 0).then_some(entry.path())
    });
    descriptors.filter_map(|path: PathBuf| Identifier::open_here(&path).ok()).collect()
}
