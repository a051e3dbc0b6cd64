//! Reads a recording back and says how far it can be trusted.

use std::{
    io::{self, BufRead, Read as _},
    path::Path,
};

use serde::Deserialize;

use super::{
    chain::Chain,
    schema::{End, Record, SCHEMA, Start},
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
    #[error("{path} has schema {found}, and this tracer reads up to {SCHEMA}; use a newer tracer")]
    NewerSchema { path: String, found: u32 },
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

/// A recording, as far as it could be read.
#[derive(Debug)]
pub struct Recording {
    pub start: Start,
    /// Between the first and the last line, in order.
    pub events: Vec<Record>,
    pub end: Option<End>,
    pub integrity: Integrity,
}

/// Only what every schema version must have.
#[derive(Deserialize)]
struct AnyStart {
    #[serde(rename = "type")]
    kind: String,
    schema: u32,
}

/// Reads a file, or standard input for `-`.
pub fn read(path: &Path) -> Result<Recording, ReadError> {
    let name = path.display().to_string();
    let io = |source| ReadError::Io { path: name.clone(), source };
    if path == Path::new("-") {
        return read_from(io::stdin().lock(), &name);
    }
    let file = std::fs::File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(io(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    read_from(io::BufReader::new(file), &name)
}

fn read_from(mut source: impl BufRead, name: &str) -> Result<Recording, ReadError> {
    let mut chain = Chain::new();
    let mut line = Vec::new();
    let io = |source| ReadError::Io { path: name.into(), source };
    read_line(&mut source, &mut line).map_err(io)?;
    let start = first_line(line.strip_suffix(b"\n").unwrap_or(&line), name)?;
    let mut recording =
        Recording { start, events: Vec::new(), end: None, integrity: Integrity::CutShort };
    let mut number = 1;
    loop {
        let broken = |reason: String| Integrity::Broken { line: number, reason };
        if line.is_empty() {
            return Ok(recording);
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            recording.integrity = broken("the line does not end: the recording was cut".into());
            return Ok(recording);
        };
        if let Err(error) = chain.check(text) {
            recording.integrity = broken(error.to_string());
            return Ok(recording);
        }
        if recording.end.is_some() {
            recording.integrity = broken("there is a line after the end record".into());
            return Ok(recording);
        }
        if number > 1 {
            match serde_json::from_slice::<Record>(text) {
                Ok(Record::Start(_)) => {
                    recording.integrity = broken("a second start record".into());
                    return Ok(recording);
                }
                Ok(Record::End(end)) => {
                    recording.end = Some(*end);
                    recording.integrity = Integrity::Intact;
                }
                Ok(event) => recording.events.push(event),
                Err(error) => {
                    recording.integrity = broken(format!("not a record: {error}"));
                    return Ok(recording);
                }
            }
        }
        line.clear();
        read_line(&mut source, &mut line).map_err(io)?;
        number += 1;
    }
}

/// Appends the next line, as far as a line can be long: an argv has 6 MiB at most, and a byte takes
/// up to six characters.
fn read_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;
    source.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)
}

fn first_line(line: &[u8], name: &str) -> Result<Start, ReadError> {
    let not_a_recording = |detail: String| ReadError::NotARecording { path: name.into(), detail };
    let any: AnyStart =
        serde_json::from_slice(line).map_err(|error| not_a_recording(error.to_string()))?;
    if any.kind != "start" {
        return Err(not_a_recording(format!("its type is `{}`", any.kind)));
    }
    if any.schema > SCHEMA {
        return Err(ReadError::NewerSchema { path: name.into(), found: any.schema });
    }
    match serde_json::from_slice::<Record>(line) {
        Ok(Record::Start(start)) => Ok(*start),
        Ok(other) => Err(not_a_recording(format!("its type is `{}`", other.name()))),
        Err(error) => Err(not_a_recording(error.to_string())),
    }
}
