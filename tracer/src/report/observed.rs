//! What a recording has besides programs and connections: one kind after the other, in rows that
//! every format shows alike. A new kind of record needs an entry here and nowhere else.

use schemars::JsonSchema;
use serde::Serialize;

use super::clean::clean;
use crate::{model::ProcessKey, session::Story};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ObservedKind {
    /// Work was left, or may have been, for a process outside the tree.
    HandOff,
    /// Execs that failed, without searches along `PATH` that found the program.
    Attempt,
}

impl ObservedKind {
    pub(super) const ALL: [ObservedKind; 2] = [ObservedKind::HandOff, ObservedKind::Attempt];

    pub(super) fn title(self) -> &'static str {
        match self {
            ObservedKind::HandOff => "Hand-offs",
            ObservedKind::Attempt => "Failed execs",
        }
    }
}

/// One event. The strings are fit to be shown.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) t_ns: u64,
    /// None when it is not known for certain.
    pub(super) process: Option<ProcessKey>,
    pub(super) what: String,
    pub(super) detail: String,
}

pub(super) fn observed(story: &Story, kind: ObservedKind) -> Vec<Observed> {
    match kind {
        ObservedKind::HandOff => story
            .hand_offs
            .iter()
            .map(|hand_off| Observed {
                t_ns: hand_off.t_ns,
                process: hand_off.process,
                what: clean(hand_off.name.as_bytes()),
                detail: format!("{}: {}", clean(&hand_off.via.0), clean(hand_off.how.as_bytes())),
            })
            .collect(),
        ObservedKind::Attempt => story
            .attempts
            .iter()
            .filter(|attempt| !story.found_later(attempt))
            .map(|attempt| {
                let first = attempt
                    .filenames
                    .first()
                    .map_or("unreadable name".into(), |name| clean(&name.0));
                Observed {
                    t_ns: attempt.t_ns,
                    process: Some(attempt.process),
                    what: first,
                    detail: match attempt.tries {
                        1 => clean(attempt.error.as_bytes()),
                        tries => format!("{} ({tries} tries)", clean(attempt.error.as_bytes())),
                    },
                }
            })
            .collect(),
    }
}
