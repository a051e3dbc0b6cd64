//! Recordings that unit tests of the formats share: real ones, from `tests/golden`.

use std::path::Path;

use super::Summary;
use crate::{policy, record, session::Story};

/// Every golden recording, by name.
pub(super) fn all() -> Vec<(String, Summary)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reports");
    let mut recordings: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    recordings.sort();
    assert!(!recordings.is_empty(), "there are no recordings in {}", folder.display());
    recordings
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, summary(&path))
        })
        .collect()
}

/// A process tree whose names and arguments attack whoever shows them.
pub(super) fn hostile() -> Summary {
    let found = all().into_iter().find(|(name, _)| name == "hostile");
    found.expect("the hostile recording").1
}

/// What a format writes, as text.
pub(super) fn written(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn summary(recording: &Path) -> Summary {
    let story = Story::of(record::read(recording).unwrap());
    let verdict = policy::judge(&story, &story.start.policies);
    Summary::of(&story, verdict.as_ref())
}
