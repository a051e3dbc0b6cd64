//! Execs, counted in ways that do not depend on each other.

use super::{Concern, Requirement};
use crate::{
    record::{
        self,
        schema::{End, Witness},
    },
    session::Story,
};

pub(super) fn witness(story: &Story, end: &End) -> Requirement {
    let recorded = story.execs;
    let expected = story.witnessed_execs;
    let (failure, good) = match &end.witness {
        Witness::Absent(why) => {
            (Some(format!("there is no independent count of execs: {why}")), String::new())
        }
        Witness::NotAsked => (
            Some(
                "the inherited counter of execs was not opened, because no policy asked for a verdict"
                    .into(),
            ),
            String::new(),
        ),
        Witness::Counted(counted) if *counted != expected => (
            Some(format!(
                "the kernel's own counter saw {counted} execs, the recording has {expected} that it could see"
            )),
            String::new(),
        ),
        Witness::Counted(counted) if expected < recorded => (
            Some(format!(
                "the kernel's own counter agrees on {counted} execs but could not see the other {}: \
                 the kernel takes inherited counters away at a setuid, setgid or unreadable program{}",
                recorded - expected,
                story
                    .left_witness
                    .as_ref()
                    .map_or_else(String::new, |first| format!(", first at {first}"))
            )),
            String::new(),
        ),
        Witness::Counted(counted) => {
            (None, format!("the kernel's own inherited counter saw {counted} execs, as recorded"))
        }
    };
    Requirement::new("witness", Concern::Programs, failure, good)
}

/// The kernel numbers the images of a process; the number at its exit says how often it executed
/// something, whatever the exec probe saw.
pub(super) fn exec_counts(story: &Story) -> Option<Requirement> {
    if !record::version(story.start.schema).tells_endpoints {
        return None;
    }
    const NAMED: usize = 5;
    let mut wrong: Vec<String> = story
        .miscounted
        .iter()
        .take(NAMED)
        .map(|(process, counted, recorded)| {
            format!("{} by {}, recorded {recorded}", execs(*counted), story.label(*process))
        })
        .collect();
    if let Some(more) = story.miscounted.len().checked_sub(NAMED).filter(|more| *more > 0) {
        wrong.push(format!("and {more} more"));
    }
    let known = story.processes.values().filter(|process| process.exit.is_some()).count() as u64;
    let exited = known + story.forgotten.processes;
    let failure = if !wrong.is_empty() {
        Some(format!("the kernel's own numbers of images differ: {}", wrong.join(", ")))
    } else if story.counted_processes != exited {
        Some(format!(
            "the kernel's own number of images was read of {} of {exited} processes",
            story.counted_processes
        ))
    } else {
        None
    };
    let good = format!(
        "the kernel's own numbers of images agree with the recording in {exited} processes"
    );
    Some(Requirement::new("exec-counts", Concern::Programs, failure, good))
}

pub(super) fn execs(count: u64) -> String {
    if count == 1 { "1 exec".into() } else { format!("{count} execs") }
}

/// Every file the kernel counted as executed is in the recording as often as it was counted.
pub(super) fn ledger(story: &Story, end: &End) -> Requirement {
    let missing: Vec<String> = end
        .ledger
        .iter()
        .filter_map(|row| {
            let recorded = story.execs_of(row.file);
            (recorded != row.execs).then(|| {
                format!(
                    "file {} inode {} was executed {} times and recorded {} times",
                    row.file.device, row.file.inode, row.execs, recorded
                )
            })
        })
        .collect();
    let counted: u64 = end.ledger.iter().map(|row| row.execs).sum();
    let failure = if !missing.is_empty() {
        Some(missing.join("; "))
    } else if counted != story.execs {
        Some(format!("the kernel's ledger has {counted} execs, the recording {}", story.execs))
    } else {
        None
    };
    let good = format!(
        "{counted} execs of {} files in the kernel's ledger, all recorded",
        end.ledger.len()
    );
    Requirement::new("ledger", Concern::Programs, failure, good)
}
