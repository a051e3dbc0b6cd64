//! Recordings: whole, in several files, and their lines alone.

use std::{
    fs,
    io::{self, Cursor, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tracer::{
    policy::{self, Ruling},
    record::{Existing, Integrity, Parts, Reader, Record, Writer, create_output, part},
    report::{self, Detail, Paint},
    session::Story,
};

use super::pieces;

/// A recording: what is not intact is never proven, and what does not fit its digests is not intact.
pub(super) fn recording(bytes: &[u8]) {
    let Ok(reader) = Reader::new(Cursor::new(bytes.to_vec()), "bytes".into(), false) else {
        return;
    };
    let story = Story::new(reader.start().clone());
    let Ok((story, _)) = story.read(reader, &mut |_, _| ()) else { return };
    if story.integrity == Integrity::Intact {
        assert!(fits_its_digests(bytes), "it is intact, and its digests are others");
        return;
    }
    let verdict = policy::judge(&story, &story.start.policies);
    assert_ne!(verdict.map(|verdict| verdict.overall), Some(Ruling::Proven));
}

/// The chain over the lines once more, by its description, so that the reader's check is checked.
fn fits_its_digests(bytes: &[u8]) -> bool {
    const TAIL_BYTES: usize = b",\"chain\":\"\"}\n".len() + 64;
    let mut last = Sha256::digest(b"tracer recording 1\n");
    bytes.split_inclusive(|byte| *byte == b'\n').all(|line| {
        let Some(body) = line.len().checked_sub(TAIL_BYTES) else { return false };
        let (body, tail) = line.split_at(body);
        last = Sha256::new().chain_update(last).chain_update(body).finalize();
        let digits: String = last.iter().map(|byte| format!("{byte:02x}")).collect();
        tail == format!(",\"chain\":\"{digits}\"}}\n").as_bytes()
    })
}

/// Events of a recording, and whether it is whole: without the reason why not, which can name files.
fn read_all(mut reader: Reader) -> Option<(Vec<Record>, Integrity)> {
    let mut events = Vec::new();
    while let Some(event) = reader.next_event().ok()? {
        events.push(event);
    }
    let mut integrity = reader.finish().ok()?.integrity;
    if let Integrity::Broken { reason, .. } = &mut integrity {
        reason.clear();
    }
    Some((events, integrity))
}

/// Files of a recording, one after the other; an empty one is missing. They are what they are in one file,
/// wherever lines go on to the next one, and not intact without one of them.
pub(super) fn parts(bytes: &[u8]) {
    const FILES_MAX: usize = 64;
    let folder = tempfile::tempdir().expect("there is room for files");
    let path = folder.path().join("session.jsonl");
    let files: Vec<&[u8]> = pieces(bytes).take(FILES_MAX).collect();
    for (number, file) in (0..).zip(&files) {
        if !file.is_empty() {
            fs::write(part(&path, number), file).expect("there is room for files");
        }
    }
    let Ok(reader) = Reader::open(&path, false) else { return };
    let has_parts = reader.start().part_bytes.is_some();
    let whole = if has_parts { files.concat() } else { files[0].to_vec() };
    let in_one = |bytes: &[u8]| {
        read_all(Reader::new(Cursor::new(bytes.to_vec()), "bytes".into(), false).ok()?)
    };
    let read = read_all(reader);
    assert_eq!(read, in_one(&whole), "in one file it is another recording");
    if !has_parts || !matches!(read, Some((_, Integrity::Intact))) {
        return;
    }

    let limit_bytes = 1 + bytes.len() as u64 * 7 % 5_000;
    let create = |number| create_output(&part(&path, number), Existing::Replace);
    let open = {
        let path = path.clone();
        move |number| {
            create_output(&part(&path, number), Existing::Replace).map_err(io::Error::other)
        }
    };
    let mut writer =
        Parts::new(&path, limit_bytes, Existing::Replace, || create(0), Box::new(open))
            .expect("there is room for files");
    for line in whole.split_inclusive(|byte| *byte == b'\n') {
        writer.write_all(line).expect("there is room for files");
    }
    writer.flush().expect("there is room for files");
    let there = (0..).take_while(|number| part(&path, *number).exists());
    let there: Vec<PathBuf> = there.map(|number| part(&path, number)).collect();
    for file in &there {
        let file = fs::read(file).expect("it was written");
        let lines = file.iter().filter(|byte| **byte == b'\n').count();
        assert!(file.ends_with(b"\n"), "a line goes on in the next file");
        assert!(lines == 1 || file.len() as u64 <= limit_bytes, "{lines} lines in {}", file.len());
    }
    let again = |path| read_all(Reader::open(path, false).expect("its first line is there"));
    assert_eq!(again(&path), read, "written anew it is another recording");
    if let [_, .., last] = &there[..] {
        let one = &there[1 + bytes.len() % (there.len() - 1)];
        for missing in [one, last] {
            let file = fs::read(missing).expect("it was written");
            fs::remove_file(missing).expect("it is there");
            let integrity = again(&path).map(|(_, integrity)| integrity);
            assert_ne!(
                integrity,
                Some(Integrity::Intact),
                "it is intact without {}",
                missing.display()
            );
            fs::write(missing, file).expect("there is room for files");
        }
    }
}

/// A file in memory that can be read back.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines of a recording without their digests, so that every change is read: whatever they say, they
/// are written and read back as they are, judged, and shown in every form.
pub(super) fn records(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n');
    let mut records = lines.filter_map(|line| serde_json::from_slice::<Record>(line).ok());
    let Some(start @ Record::Start(_)) = records.next() else { return };
    let (mut events, mut ends): (Vec<Record>, Vec<Record>) = records
        .filter(|record| !matches!(record, Record::Start(_)))
        .partition(|record| !matches!(record, Record::End(_)));
    let file = Shared::default();
    let mut writer = Writer::new(Box::new(file.clone()));
    let last = ends.pop();
    for record in [&start].into_iter().chain(&events).chain(&last) {
        writer.write(record).expect("any record can be written");
    }
    writer.flush().expect("it is memory");
    drop(writer);
    let Ok(mut reader) = Reader::new(Cursor::new(file.take()), "bytes".into(), false) else {
        return; // of a schema that is too new
    };
    let mut story = Story::new(reader.start().clone());
    let mut expected = events.drain(..);
    while let Some(record) = reader.next_event().expect("it is memory") {
        assert_eq!(
            Some(&record),
            expected.next().as_ref(),
            "it is another one when it is read back"
        );
        story.add(record);
    }
    assert!(expected.next().is_none(), "records are missing when they are read back");
    let finish = reader.finish().expect("it is memory");
    let whole = last.map_or(Integrity::CutShort, |_| Integrity::Intact);
    assert_eq!(finish.integrity, whole, "what was written is not intact when it is read back");
    story.end = finish.end;
    story.integrity = finish.integrity;
    let verdict = policy::judge(&story, &story.start.policies);
    let verdict = verdict.as_ref();
    report::text(&story, verdict, Detail::Full, Paint::OFF);
    report::markdown(&story, verdict, Path::new("bytes"));
    let summary = report::Summary::of(&story, verdict);
    report::html(&summary, &mut io::sink()).expect("nothing is written");
    let (mut json, mut perfetto) = (Vec::new(), Vec::new());
    report::json(&summary, &mut json).expect("it is memory");
    report::perfetto(&summary, &mut perfetto).expect("it is memory");
    for json in [json, perfetto] {
        serde_json::from_slice::<Value>(&json).expect("a report is valid JSON");
    }
}
