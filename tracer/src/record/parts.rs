//! A recording in several files.
//!
//! `FILE`, `FILE.1`, `FILE.2`, ...: each begins with the line that follows the last one of the file before
//! it, and the chain goes on across them. So a file that is missing, moved or exchanged is found as a
//! missing line is. The first line says that there may be more, because `FILE.1` can be something else.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use serde::Deserialize;

use super::{Existing, OutputError};

/// The file with that number; number 0 has the name that the user gave.
pub fn part(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

/// The first file of the recording that this one would be a later file of, by its name.
pub(super) fn first_of(path: &Path) -> Option<PathBuf> {
    let (first, number) = path.to_str()?.rsplit_once('.')?;
    let is_number = !number.starts_with(['0', '+']) && number.parse::<u32>().is_ok();
    (is_number && !first.is_empty()).then(|| first.into())
}

/// Numbers of the files that are there beside the first, in order.
fn numbers(path: &Path) -> io::Result<Vec<u32>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?.file_name();
        let rest = entry.to_str().and_then(|entry| entry.strip_prefix(name)?.strip_prefix('.'));
        let rest = rest.filter(|rest| !rest.starts_with(['0', '+']));
        numbers.extend(rest.and_then(|rest| rest.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens the file with that number for writing.
type Open = Box<dyn FnMut(u32) -> io::Result<File> + Send>;

/// Goes on to the next file when one is full. Takes whole lines.
pub struct Parts {
    path: PathBuf,
    limit_bytes: u64,
    open: Open,
    number: u32,
    file: File,
    written_bytes: u64,
    /// The last byte that was written ended a line.
    between_lines: bool,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("path", &self.path)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Parts {
    /// `first` is open already. Files of an earlier recording would be taken for parts of this
    /// one, so they are removed, if that was asked for.
    pub fn new(
        path: &Path,
        limit_bytes: u64,
        existing: Existing,
        first: impl FnOnce() -> Result<File, OutputError>,
        open: Open,
    ) -> Result<Parts, OutputError> {
        let old = numbers(path)?;
        if !old.is_empty() && existing == Existing::Keep {
            return Err(OutputError::PartsExist);
        }
        let file = first()?;
        for number in old {
            fs::remove_file(part(path, number))?;
        }
        Ok(Parts {
            path: path.into(),
            limit_bytes,
            open,
            number: 0,
            file,
            written_bytes: 0,
            between_lines: true,
        })
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let full = self.written_bytes.saturating_add(bytes.len() as u64) > self.limit_bytes;
        if full && self.between_lines && self.written_bytes > 0 {
            let next = part(&self.path, self.number + 1);
            self.file = (self.open)(self.number + 1).map_err(|error| {
                io::Error::other(format!(
                    "the next file {} could not be opened: {error}",
                    next.display()
                ))
            })?;
            self.number += 1;
            self.written_bytes = 0;
        }
        let written = self.file.write(bytes)?;
        self.written_bytes += written as u64;
        if let Some(last) = bytes[..written].last() {
            self.between_lines = *last == b'\n';
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What the first line says about further files.
#[derive(Deserialize)]
struct First {
    part_bytes: Option<u64>,
}

/// A file after the first that could not be read, and why.
pub(super) type Unread = (PathBuf, io::Error);

/// All files of a recording, one after the other.
pub(super) struct Files {
    /// Ends where a file after the first cannot be read.
    pub(super) text: Box<dyn Read + Send>,
    /// The first that is missing between them.
    pub(super) missing: Option<PathBuf>,
    /// Known when `text` has ended.
    pub(super) unread: Arc<OnceLock<Unread>>,
}

pub(super) fn open(path: &Path) -> io::Result<Files> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut first = BufReader::new(file);
    let mut line = Vec::new();
    // A first line that is longer is none of tracer's, and neither are further files.
    const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
    first.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    let has_parts =
        serde_json::from_slice::<First>(&line).is_ok_and(|first| first.part_bytes.is_some());
    let whole = io::Cursor::new(line).chain(first);
    let unread = Arc::default();
    if !has_parts {
        return Ok(Files { text: Box::new(whole), missing: None, unread });
    }
    let there = numbers(path)?;
    let missing = (1..).zip(&there).find(|(expected, number)| *number != expected);
    let missing = missing.map(|(expected, _)| part(path, expected));
    let paths = there.into_iter().map(|number| part(path, number)).collect();
    let rest = Rest { paths, current: None, unread: Arc::clone(&unread) };
    Ok(Files { text: Box::new(whole.chain(rest)), missing, unread })
}

/// The files after the first, opened one by one.
struct Rest {
    paths: std::collections::VecDeque<PathBuf>,
    current: Option<(PathBuf, File)>,
    unread: Arc<OnceLock<Unread>>,
}

impl Rest {
    /// Nothing after it is read: what fits behind it is told by the chain only.
    fn stop(&mut self, path: PathBuf, error: io::Error) {
        self.paths.clear();
        // The first one counts.
        let _ = self.unread.set((path, error));
    }
}

/// A pipe would be waited for.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

impl Read for Rest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((path, mut file)) = self.current.take() {
                match file.read(buffer) {
                    Ok(0) => {}
                    Ok(read) => {
                        self.current = Some((path, file));
                        return Ok(read);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        self.current = Some((path, file));
                        return Err(error);
                    }
                    Err(error) => self.stop(path, error),
                }
            }
            let Some(next) = self.paths.pop_front() else { return Ok(0) };
            match open_regular(&next) {
                Ok(file) => self.current = Some((next, file)),
                Err(error) => self.stop(next, error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Integrity, Reader, Writer, create_output, schema::Record},
        *,
    };
    use crate::record::schema::{End, Exit};

    const LIMIT_BYTES: u64 = 64 * 1024;

    fn exit(number: u64) -> Record {
        let process = crate::model::ProcessKey { pid: 7, start_ns: number };
        Record::Exit(Exit {
            t_ns: number,
            process,
            code: Some(0),
            signal: None,
            duration_ns: 1,
            execs: Some(1),
            unread: Vec::new(),
        })
    }

    /// A recording of that many lines in `folder`.
    fn write(path: &Path, lines: u64) {
        let first = || create_output(path, Existing::Keep);
        let of_path = path.to_owned();
        let open: Open = Box::new(move |number| {
            create_output(&part(&of_path, number), Existing::Keep).map_err(io::Error::other)
        });
        let parts = Parts::new(path, LIMIT_BYTES, Existing::Keep, first, open).unwrap();
        let mut writer = Writer::new(Box::new(parts));
        let policy = crate::policy::load("no-aws-cli").unwrap();
        let mut start = crate::policy::test_start(&policy);
        start.part_bytes = Some(LIMIT_BYTES);
        writer.write(&Record::Start(Box::new(start))).unwrap();
        for number in 0..lines {
            writer.write(&exit(number)).unwrap();
            if number % 100 == 0 {
                writer.flush().unwrap();
            }
        }
        let end: End = crate::policy::test_end(&[]);
        writer.write(&Record::End(Box::new(end))).unwrap();
        writer.flush().unwrap();
    }

    fn read(path: &Path) -> (u64, Integrity) {
        let mut reader = Reader::open(path, false).unwrap();
        let mut lines = 0;
        while reader.next_event().unwrap().is_some() {
            lines += 1;
        }
        (lines, reader.finish().unwrap().integrity)
    }

    #[test]
    fn the_chain_goes_on_across_files() {
        const LINES: u64 = 5_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session.jsonl");
        write(&path, LINES);
        let parts = numbers(&path).unwrap();
        assert!(parts.len() > 5, "{parts:?}");
        for number in 0..=parts.len() as u32 {
            let file = fs::read(part(&path, number)).unwrap();
            assert!(
                file.len() as u64 <= LIMIT_BYTES && file.ends_with(b"\n"),
                "{number}: {}",
                file.len()
            );
        }
        assert_eq!(read(&path), (LINES, Integrity::Intact));

        let broken = |integrity: Integrity| match integrity {
            Integrity::Broken { reason, .. } => reason,
            Integrity::Intact | Integrity::CutShort => panic!("{integrity:?}"),
        };
        let (third, aside) = (part(&path, 3), folder.path().join("aside"));
        fs::rename(&third, &aside).unwrap();
        let reason = broken(read(&path).1);
        assert!(reason.ends_with("session.jsonl.3 is missing"), "{reason}");
        // Two have changed places.
        fs::rename(part(&path, 4), &third).unwrap();
        fs::rename(&aside, part(&path, 4)).unwrap();
        let reason = broken(read(&path).1);
        assert!(!reason.contains("missing"), "{reason}");
        fs::rename(&third, &aside).unwrap();
        fs::rename(part(&path, 4), &third).unwrap();
        fs::rename(&aside, part(&path, 4)).unwrap();
        assert_eq!(read(&path).1, Integrity::Intact);
        // One is there twice.
        fs::copy(&third, part(&path, 77)).unwrap();
        broken(read(&path).1);
        fs::remove_file(part(&path, 77)).unwrap();
        // The last one is missing.
        fs::remove_file(part(&path, parts.len() as u32)).unwrap();
        assert_eq!(read(&path).1, Integrity::CutShort);
    }

    #[test]
    fn what_is_unreadable_behind_the_end_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session.jsonl");
        write(&path, 10);
        assert_eq!(read(&path).1, Integrity::Intact);
        let beside = part(&path, 1);
        let check = |says: &str| {
            let (lines, integrity) = read(&path);
            let Integrity::Broken { reason, .. } = integrity else { panic!("{integrity:?}") };
            assert_eq!(lines, 10);
            assert!(reason.contains("session.jsonl.1") && reason.contains(says), "{reason}");
        };
        std::os::unix::fs::symlink("/nonexistent/file", &beside).unwrap();
        check("No such file");
        fs::remove_file(&beside).unwrap();
        fs::create_dir(&beside).unwrap();
        check("directory");
        fs::remove_dir(&beside).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &beside,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        check("not a regular file");
    }

    #[test]
    fn what_is_unreadable_before_the_end_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session.jsonl");
        write(&path, 5_000);
        let third = part(&path, 3);
        fs::remove_file(&third).unwrap();
        fs::create_dir(&third).unwrap();
        let mut reader = Reader::open(&path, false).unwrap();
        let error = loop {
            match reader.next_event() {
                Ok(event) => assert!(event.is_some(), "it ended"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("session.jsonl.3: "), "{error}");
    }

    #[test]
    fn files_of_another_recording_are_not_taken_for_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session.jsonl");
        fs::write(part(&path, 2), "old").unwrap();
        let first = || create_output(&path, Existing::Replace);
        let open = || -> Open { Box::new(|_| Err(io::ErrorKind::Unsupported.into())) };
        let refused = Parts::new(&path, LIMIT_BYTES, Existing::Keep, first, open());
        assert!(matches!(refused, Err(OutputError::PartsExist)));
        Parts::new(&path, LIMIT_BYTES, Existing::Replace, first, open()).unwrap();
        assert!(numbers(&path).unwrap().is_empty());
        for other in ["session.jsonl.x", "session.jsonl.01", "session.jsonl.", "session.jsonl.1.gz"]
        {
            fs::write(folder.path().join(other), "").unwrap();
        }
        assert!(numbers(&path).unwrap().is_empty());
    }
}
