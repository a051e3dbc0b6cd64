//! Reads a recording back and says how far it can be trusted.
//!
//! Memory does not depend on the length of the recording: it is read in blocks, and only a few of
//! them are there at a time.

use std::{
    collections::VecDeque,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use serde::Deserialize;

use super::{
    blocks::{Blocks, Parsed},
    chain::ChainError,
    parts,
    schema::{End, Record, SCHEMA, Start},
    versions,
};

/// A recording that cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read {path}: {source}")]
    Io { path: String, source: io::Error },
    #[error(
        "{path} is not a tracer recording: its first line is not a start record ({detail}); \
         give a file that `tracer run -o` wrote"
    )]
    NotARecording { path: String, detail: String },
    #[error(
        "{path} is a later part of a recording in several files (it begins with a line of type `{kind}`); \
         give the first one, {first}{}, and tracer reads all of them",
        if *is_there { "" } else { ", which is not there any more" }
    )]
    LaterPart { path: String, kind: String, first: String, is_there: bool },
    #[error(
        "{path} is empty: if it is a recording, it was cut short before its first line, as when tracer is killed or \
         the disk is full, and nothing is known of what ran"
    )]
    Empty { path: String },
    #[error(
        "{path} ends within its first line: the recording was cut short there, as when tracer is killed or the disk \
         is full, and nothing is known of what ran"
    )]
    FirstLineCut { path: String },
    #[error(
        "{path} is compressed; decompress it first, or into a pipe: `-` stands for standard input"
    )]
    Compressed { path: String },
    #[error("{path} has schema {found}, and this tracer reads up to {SCHEMA}; use a newer tracer")]
    NewerSchema { path: String, found: u32 },
}

impl ReadError {
    /// It may be what a tracer leaves that did not get to its first event.
    pub fn is_cut_short(&self) -> bool {
        matches!(self, ReadError::Empty { .. } | ReadError::FirstLineCut { .. })
    }
}

/// Whether the lines are those that were written, all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Integrity {
    Intact,
    /// No end record: tracer was killed, the disk was full, or the file was cut.
    CutShort,
    /// The first line that does not fit, and why. Nothing from there on is used.
    Broken {
        line: usize,
        reason: String,
    },
}

/// Why a line is not used, nor any after it.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("the line does not end: the recording was cut")]
    Unfinished,
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("not a record: {0}")]
    NotARecord(serde_json::Error),
    #[error("a second start record")]
    SecondStart,
    #[error("there is a line after the end record")]
    AfterEnd,
}

/// A recording, as far as it could be read.
#[derive(Debug)]
pub struct Recording {
    pub start: Start,
    /// Between the first and the last line, in order.
    pub events: Vec<Record>,
    pub end: Option<End>,
    pub integrity: Integrity,
}

/// What is known once the last line was read.
#[derive(Debug)]
pub struct Finish {
    pub end: Option<End>,
    pub integrity: Integrity,
    /// SHA-256 of the whole file, if it was asked for.
    pub sha256: Option<[u8; 32]>,
}

/// A recording being read, event by event.
#[derive(Debug)]
pub struct Reader {
    name: String,
    start: Start,
    blocks: Blocks,
    /// Of the current block, not handed out yet.
    records: VecDeque<Record>,
    /// What follows `records` in the current block.
    broken: Option<LineError>,
    /// Lines handed out.
    lines: usize,
    end: Option<End>,
    integrity: Integrity,
    /// Nothing more is to be handed out.
    over: bool,
    hashed: bool,
    /// A file between those of the recording that is not there.
    missing: Option<PathBuf>,
    /// A file that could not be read.
    unread: Arc<OnceLock<parts::Unread>>,
}

/// Only what every schema version must have.
#[derive(Deserialize)]
struct AnyStart {
    #[serde(rename = "type")]
    kind: String,
    /// Of a start record.
    schema: Option<u32>,
    /// Of each line.
    chain: Option<String>,
}

/// Reads all of a file, or of standard input for `-`.
pub fn read(path: &Path) -> Result<Recording, ReadError> {
    let mut reader = Reader::open(path, false)?;
    let mut events = Vec::new();
    while let Some(event) = reader.next_event()? {
        events.push(event);
    }
    let start = reader.start.clone();
    let Finish { end, integrity, sha256: _ } = reader.finish()?;
    Ok(Recording { start, events, end, integrity })
}

impl Reader {
    /// Opens a file and those that follow it, or standard input for `-`. With `hashed`, the digest of the whole file will be
    /// known at the end.
    pub fn open(path: &Path, hashed: bool) -> Result<Reader, ReadError> {
        if path == Path::new("-") {
            return Reader::new(io::stdin(), "standard input".into(), hashed);
        }
        let name = path.display().to_string();
        let io = |source| ReadError::Io { path: name.clone(), source };
        let parts::Files { text, missing, unread } = parts::open(path).map_err(io)?;
        Ok(Reader { missing, unread, ..Reader::new(text, name, hashed)? })
    }

    /// Of anything that can be read; `name` is what errors call it.
    pub fn new(
        source: impl Read + Send + 'static,
        name: String,
        hashed: bool,
    ) -> Result<Reader, ReadError> {
        let io = |source| ReadError::Io { path: name.clone(), source };
        let blocks = Blocks::new(Box::new(source), hashed).map_err(io)?;
        if blocks.is_empty() {
            return Err(ReadError::Empty { path: name });
        }
        let line = blocks.first_line();
        if !blocks.has_whole_line() && is_beginning(line) {
            return Err(ReadError::FirstLineCut { path: name });
        }
        let start = first_line(line, &name)?;
        Ok(Reader {
            name,
            start,
            blocks,
            records: VecDeque::new(),
            broken: None,
            lines: 0,
            end: None,
            integrity: Integrity::CutShort,
            over: false,
            hashed,
            missing: None,
            unread: Arc::default(),
        })
    }

    pub fn start(&self) -> &Start {
        &self.start
    }

    /// The next event. None after the last one that can be used.
    pub fn next_event(&mut self) -> Result<Option<Record>, ReadError> {
        while !self.over {
            match self.records.pop_front() {
                Some(record) => {
                    self.lines += 1;
                    if let Some(event) = self.take(record) {
                        return Ok(Some(event));
                    }
                }
                None => match self.broken.take() {
                    Some(error) => {
                        self.lines += 1;
                        if matches!(error, LineError::Unfinished) {
                            self.check_all_was_read()?;
                        }
                        self.stop(&error);
                    }
                    None => match self.next_block()? {
                        Some(Parsed { records, broken }) => {
                            self.records = records;
                            self.broken = broken;
                        }
                        None => {
                            self.over = true;
                            self.check_all_was_read()?;
                        }
                    },
                },
            }
        }
        Ok(None)
    }

    /// Beside a recording that has its end there can be anything, and it is none of it.
    fn check_all_was_read(&mut self) -> Result<(), ReadError> {
        let Some((path, error)) = self.unread.get() else { return Ok(()) };
        let path = path.display().to_string();
        if self.end.is_none() {
            // One that fails again has nothing more to say than its kind and words.
            let source = io::Error::new(error.kind(), error.to_string());
            return Err(ReadError::Io { path, source });
        }
        let reason = format!("behind the end record is {path}, which cannot be read ({error})");
        self.integrity = Integrity::Broken { line: self.lines + 1, reason };
        Ok(())
    }

    fn take(&mut self, record: Record) -> Option<Record> {
        if self.end.is_some() {
            self.stop(&LineError::AfterEnd);
        } else if matches!(record, Record::Start(_)) {
            if self.lines > 1 {
                self.stop(&LineError::SecondStart);
            }
        } else {
            let Record::End(end) = record else { return Some(record) };
            self.end = Some(*end);
            self.integrity = Integrity::Intact;
        }
        None
    }

    fn stop(&mut self, error: &LineError) {
        // What a tracer that is killed while it writes leaves, as a full disk does.
        let is_cut = self.end.is_none() && matches!(error, LineError::Unfinished);
        self.integrity = if is_cut {
            Integrity::CutShort
        } else {
            let mut reason = error.to_string();
            if let Some(missing) = &self.missing {
                reason += &format!(": {} is missing", missing.display());
            }
            Integrity::Broken { line: self.lines, reason }
        };
        self.over = true;
    }

    fn next_block(&mut self) -> Result<Option<Parsed>, ReadError> {
        self.blocks.next().map_err(|source| ReadError::Io { path: self.name.clone(), source })
    }

    /// Reads what is left and says what became of it all.
    pub fn finish(mut self) -> Result<Finish, ReadError> {
        while self.next_event()?.is_some() {}
        // Behind a broken line there is nothing of use, but a digest is of all.
        while self.hashed && self.next_block()?.is_some() {}
        let sha256 = self.blocks.sha256();
        Ok(Finish { end: self.end, integrity: self.integrity, sha256 })
    }
}

/// What a tracer that is killed while it writes the first line leaves of it.
fn is_beginning(line: &[u8]) -> bool {
    const ALWAYS: &[u8] = b"{\"type\":\"start\"";
    let is_tracers = line.starts_with(ALWAYS) || ALWAYS.starts_with(line);
    let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(line);
    is_tracers && parsed.is_err_and(|error| error.is_eof())
}

fn first_line(line: &[u8], name: &str) -> Result<Start, ReadError> {
    let not_a_recording = |detail: String| ReadError::NotARecording { path: name.into(), detail };
    const MAGIC_NUMBERS: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"];
    if MAGIC_NUMBERS.iter().any(|magic| line.starts_with(magic)) {
        return Err(ReadError::Compressed { path: name.into() });
    }
    let any: AnyStart =
        serde_json::from_slice(line).map_err(|error| not_a_recording(error.to_string()))?;
    if any.kind != "start" {
        if any.chain.is_some()
            && let Some(first) = parts::first_of(Path::new(name))
        {
            let (is_there, first) = (first.exists(), first.display().to_string());
            return Err(ReadError::LaterPart {
                path: name.into(),
                kind: any.kind,
                first,
                is_there,
            });
        }
        let detail =
            format!("its type is `{}`; of a recording in several files, name the first", any.kind);
        return Err(not_a_recording(detail));
    }
    match any.schema {
        None => return Err(not_a_recording("it does not say which schema it has".into())),
        Some(0) => return Err(not_a_recording("there is no schema 0".into())),
        Some(found) if found > SCHEMA => {
            return Err(ReadError::NewerSchema { path: name.into(), found });
        }
        Some(_) => {}
    }
    match versions::parse(line) {
        Ok(Record::Start(start)) => Ok(*start),
        Ok(other) => Err(not_a_recording(format!("its type is `{}`", other.name()))),
        Err(error) => Err(not_a_recording(error.to_string())),
    }
}
