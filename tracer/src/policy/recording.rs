//! Judging a recording that is in a file.

use std::path::Path;

use super::{Verdict, judge};
use crate::{
    record::{Integrity, ReadError, Reader, Record, schema::Start},
    session::{Story, Window},
};

/// A recording, and what it amounts to.
#[derive(Debug)]
pub struct Judged {
    pub story: Story,
    /// None when there are no policies.
    pub verdict: Option<Verdict>,
    /// Of the file, if the reader makes a digest.
    pub sha256: Option<[u8; 32]>,
}

impl Judged {
    /// Whether the recording's own verdict is this one.
    pub fn is_as_written(&self) -> bool {
        let written = self.story.end.as_ref().and_then(|end| end.verdict.as_ref());
        match (written, &self.verdict) {
            (Some(written), Some(verdict)) => written.says_the_same_as(verdict),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// Reads a recording to its end and judges it by the policies of `start`. Each record is shown to `seen`, with
/// the story before it.
///
/// Of a long one, what no claim needs is forgotten on the way. Where that gives another verdict than the
/// one that was written, the file is read again and nothing is forgotten, so that the difference is the
/// recording's.
///
/// # Errors
/// What cannot be read.
pub fn judge_recording(
    path: &Path,
    reader: Reader,
    start: Start,
    seen: &mut dyn FnMut(&Record, &Story),
) -> Result<Judged, ReadError> {
    let (story, sha256) = Story::for_verdict(start).read(reader, seen)?;
    let judged = Judged { verdict: judge(&story, &story.start.policies), story, sha256 };
    let story = &judged.story;
    let is_final = judged.is_as_written() || story.integrity != Integrity::Intact;
    if is_final || !story.forgotten.is_any() || path == Path::new("-") {
        return Ok(judged);
    }
    let whole = Story::for_verdict_in(story.start.clone(), Window::ENDLESS);
    let (story, _) = whole.read(Reader::open(path, false)?, &mut |_, _| ())?;
    Ok(Judged { verdict: judge(&story, &story.start.policies), story, sha256 })
}
