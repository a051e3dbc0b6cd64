//! Failed execs, put together to what a caller would call one attempt.
//!
//! `execvp` and its kin try every folder of `PATH`, so one attempt to run a program is a row of failed
//! execs that differ in nothing but the folder.

use std::collections::HashMap;

use super::{errno, fold::names};
use crate::{
    model::{AttemptEvent, ProcessKey},
    record::schema::Attempt,
};

/// A row of tries that nothing was added to for so long, in nanoseconds of event time, is complete.
const PAUSE_NS: u64 = 100_000_000;

/// Attempts that may not be complete yet, by thread.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    open: HashMap<(ProcessKey, u32), Attempt>,
    newest_ns: u64,
}

impl Attempts {
    /// Adds a try. Returns the thread's attempt before it, if this one is another.
    pub(super) fn add(&mut self, event: AttemptEvent) -> Option<Attempt> {
        self.newest_ns = self.newest_ns.max(event.header.time_ns);
        let key = (event.header.process, event.header.tid);
        match self.open.get_mut(&key) {
            Some(open) if continues(open, &event) => {
                open.tries += 1;
                open.last_t_ns = event.header.time_ns;
                open.errno = event.errno;
                open.error = errno::name(event.errno);
                open.filename_cut |= event.filename_cut;
                if !open.filenames.contains(&event.filename) {
                    open.filenames.push(event.filename);
                }
                None
            }
            _ => self.open.insert(key, attempt(event)),
        }
    }

    /// Takes those that are complete, or all.
    pub(super) fn take(&mut self, all: bool) -> Vec<Attempt> {
        let newest_ns = self.newest_ns;
        let mut taken: Vec<Attempt> = self
            .open
            .extract_if(|_, open| all || open.last_t_ns + PAUSE_NS < newest_ns)
            .map(|(_, attempt)| attempt)
            .collect();
        taken.sort_by_key(|attempt| attempt.t_ns);
        taken
    }

    /// Whatever happens now, attempts of before are complete after a pause.
    pub(super) fn time_is(&mut self, time_ns: u64) {
        self.newest_ns = self.newest_ns.max(time_ns);
    }
}

fn continues(open: &Attempt, event: &AttemptEvent) -> bool {
    let last = open.filenames.last().map(|name| name.base_name());
    let unread = event.header.unread != 0 || !open.unread.is_empty();
    // Each name counts.
    let has_room =
        open.filenames.len() < Attempt::FILENAMES_MAX || open.filenames.contains(&event.filename);
    !unread
        && has_room
        && last == Some(event.filename.base_name())
        && open.argv == event.args
        && open.argv_complete == event.argv_complete
}

fn attempt(event: AttemptEvent) -> Attempt {
    let header = event.header;
    Attempt {
        t_ns: header.time_ns,
        last_t_ns: header.time_ns,
        process: header.process,
        thread: header.tid,
        filenames: if event.filename.is_empty() { Vec::new() } else { vec![event.filename] },
        filename_cut: event.filename_cut,
        argv: event.args,
        argv_complete: event.argv_complete,
        tries: 1,
        errno: event.errno,
        error: errno::name(event.errno),
        unread: names(&header),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, EventHeader};

    /// A claim may name the last one.
    #[test]
    fn every_folder_of_a_long_path_is_there() {
        const FOLDERS: usize = 3 * Attempt::FILENAMES_MAX + 1;
        let mut attempts = Attempts::default();
        let mut all = Vec::new();
        for folder in 0..FOLDERS {
            all.extend(attempts.add(AttemptEvent {
                header: EventHeader {
                    time_ns: 1,
                    process: ProcessKey { pid: 10, start_ns: 1 },
                    tid: 10,
                    cpu: 0,
                    flags: 0,
                    unread: 0,
                },
                errno: 2,
                filename: Bytes::from(format!("/{folder}/rg").as_str()),
                filename_cut: false,
                args: vec!["rg".into()],
                argv_complete: true,
            }));
        }
        all.extend(attempts.take(true));
        let names = all.iter().map(|attempt| attempt.filenames.len()).sum::<usize>();
        let tries = all.iter().map(|attempt| attempt.tries).sum::<u64>();
        assert_eq!((names, tries), (FOLDERS, FOLDERS as u64));
    }
}
