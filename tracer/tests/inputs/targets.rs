//! Every reader of bytes that others wrote, as a function of bytes. One definition each, for the
//! property tests beside it and for the fuzzer (`tests/fuzz`, which includes this file).
//!
//! None may panic, whatever the bytes are, and each states here what else must hold.

use std::{
    fs::File,
    io::{self, Cursor, Write},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::MemfdFlags;
use tracer::{
    catalogue::Catalogue,
    evidence::{self, PrivateKey, PublicKey},
    ingest,
    model::{ExecEvent, ProcessKey},
    policy::{self, Ruling},
    protocol::{Reading, dns, hosts::Hosts, http, quic, tls},
    record::{Integrity, Reader, Record, Writer},
    report::{self, Detail, Paint},
    run::CodeFile,
    session::{
        Fold, Machine, Numbers, Story,
        calls::{Calls, Chunk, Direction},
    },
};

type Target = fn(&[u8]);

/// By name, which is also the name of the folder of its inputs (`tests/fuzz/corpus`).
pub(crate) const TARGETS: [(&str, Target); 15] = [
    ("ring", ring),
    ("dns", dns),
    ("client-hello", client_hello),
    ("quic-initial", quic_initial),
    ("http-head", http_head),
    ("conversation", conversation),
    ("http-calls", http_calls),
    ("hosts-file", hosts_file),
    ("recording", recording),
    ("records", records),
    ("policy-file", policy_file),
    ("catalogue-file", catalogue_file),
    ("code-file", code_file),
    ("key-file", key_file),
    ("envelope", envelope),
];

struct NoMachine;

impl Machine for NoMachine {
    fn executed(&mut self, _: &ExecEvent, _: Option<Numbers>) {}
}

/// Cuts pieces off: two bytes of length (little-endian), then as many bytes, or what there is.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        bytes = rest;
        Some(piece)
    })
}

/// Records of the rings, from decoding to what they amount to.
fn ring(bytes: &[u8]) {
    let mut fold = Fold::default();
    fold.read_calls(true);
    let mut records = Vec::new();
    let events = pieces(bytes).filter_map(|record| ingest::decode(record).ok());
    for event in events {
        records.extend(fold.apply(event, &mut NoMachine));
        records.extend(fold.take_said(false));
    }
    for event in fold.take_early(true) {
        records.extend(fold.record(event, &mut NoMachine));
    }
    records.extend(fold.take_attempts(true).into_iter().map(Record::Attempt));
    records.extend(fold.take_said(true));
    for record in &records {
        let line = serde_json::to_string(record).expect("any record can be written");
        let again: Record = serde_json::from_str(&line).expect("what is written can be read");
        assert_eq!(*record, again, "it is another one when it is read back: {line}");
    }
}

/// A DNS message, whole or cut, and a stream of them.
fn dns(bytes: &[u8]) {
    for whole in [true, false] {
        dns::message(bytes, whole);
    }
    let (messages, used) = dns::framed(bytes);
    assert!(used <= bytes.len(), "{used} of {} bytes", bytes.len());
    for message in messages {
        dns::message(message, true);
    }
}

/// A ClientHello in records of TLS, and as QUIC carries it.
fn client_hello(bytes: &[u8]) {
    let whole = tls::in_records(bytes);
    // What is done stays done when more follows.
    if let Reading::Done(hello) = &whole {
        let longer = [bytes, b"more"].concat();
        assert_eq!(tls::in_records(&longer), Reading::Done(hello.clone()));
    }
    tls::in_handshake(bytes);
}

/// Datagrams of QUIC, cut out of the bytes: what is kept of them has a limit.
fn quic_initial(bytes: &[u8]) {
    const HELD_MAX: usize = 1 << 20;
    let mut initials = quic::Initials::default();
    for datagram in bytes.chunks(1_200) {
        for whole in [true, false] {
            initials.add(datagram, whole);
            assert!(initials.held_bytes() <= HELD_MAX, "{} bytes are kept", initials.held_bytes());
        }
    }
    initials.rest();
}

/// The head of a request of HTTP/1.
fn http_head(bytes: &[u8]) {
    let _ = http::head(bytes);
    let _ = http::looks_like(bytes);
}

/// HTTP/1 and HTTP/2 in both directions of a session. Each piece begins with a byte that says which
/// direction it has (bit 0), whether it was lost (bit 1), and whether half of it was (bit 2).
fn conversation(bytes: &[u8]) {
    let process = ProcessKey { pid: 7, start_ns: 1 };
    let mut calls = Calls::new(true);
    let mut offsets = [0, 0];
    let (mut at_ns, mut sent) = (0, 0);
    for piece in pieces(bytes) {
        let Some((how, bytes)) = piece.split_first() else { continue };
        let (received, lost, cut) = (how & 1 != 0, how & 2 != 0, how & 4 != 0);
        let offset = &mut offsets[usize::from(received)];
        let length = bytes.len() as u64;
        at_ns += 1_000_000;
        sent += bytes.len();
        if !lost {
            calls.chunk(&Chunk {
                process,
                stream: 1,
                direction: if received { Direction::Received } else { Direction::Sent },
                at_ns,
                offset: *offset,
                length,
                bytes: if cut { &bytes[..bytes.len() / 2] } else { bytes },
            });
        }
        *offset += length;
    }
    let [out, back] = offsets;
    calls.closed(process, 1, (out, back), at_ns);
    // A request takes more bytes than this, also one that was compressed.
    let made = calls.round(true).len();
    assert!(made <= 2 + sent, "{made} calls and gaps of {sent} bytes");
}

/// What a client of HTTP/2 begins with, and its server.
const CLIENT_BEGINS: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const SERVER_BEGINS: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

/// What a client and a server of HTTP say behind a valid beginning, of both versions, and the fields of a
/// request of HTTP/2: in pieces of any size, with some of them lost.
fn http_calls(bytes: &[u8]) {
    use Direction::{Received, Sent};
    let length = u32::try_from(bytes.len().min(16_000)).unwrap_or(0).to_be_bytes();
    let fields =
        [&length[1..], b"\x01\x05\x00\x00\x00\x01", &bytes[..bytes.len().min(16_000)]].concat();
    for talk in [
        &[(Sent, bytes), (Received, bytes)][..],
        &[(Sent, REQUEST), (Received, bytes), (Sent, bytes)],
        &[(Sent, REQUEST), (Received, RESPONSE), (Received, bytes)],
        &[(Sent, CLIENT_BEGINS), (Received, SERVER_BEGINS), (Sent, bytes), (Received, bytes)],
        &[(Sent, CLIENT_BEGINS), (Received, SERVER_BEGINS), (Sent, &fields), (Received, &fields)],
    ] {
        for lost in [false, true] {
            http_session(talk, lost);
        }
    }
}

fn http_session(talk: &[(Direction, &[u8])], lost: bool) {
    const HELD_MAX: usize = 1 << 20;
    let process = ProcessKey { pid: 1, start_ns: 1 };
    let mut calls = Calls::new(true);
    let (mut sent, mut received) = (0, 0);
    for (direction, bytes) in talk {
        // Pieces whose sizes follow from the bytes, so that a failure can be repeated.
        let size = 1 + usize::from(bytes.first().copied().unwrap_or(0)) * 7;
        for (number, piece) in bytes.chunks(size).enumerate() {
            let offset = match direction {
                Direction::Sent => &mut sent,
                Direction::Received => &mut received,
            };
            let length = piece.len() as u64;
            if !lost || number % 5 != 4 {
                let captured = if lost { piece.len() - number % 2 } else { piece.len() };
                calls.chunk(&Chunk {
                    process,
                    stream: 1,
                    direction: *direction,
                    at_ns: 1,
                    offset: *offset,
                    length,
                    bytes: &piece[..captured],
                });
            }
            *offset += length;
            assert!(calls.held_bytes() <= HELD_MAX, "{} bytes are kept", calls.held_bytes());
        }
    }
    calls.closed(process, 1, (sent, received), 1);
    calls.round(true);
    assert_eq!(calls.held_bytes(), 0, "something is kept of nothing");
}

/// A file of hosts.
fn hosts_file(bytes: &[u8]) {
    let hosts = Hosts::parse(bytes);
    for address in ["127.0.0.1", "::1"] {
        if let Ok(address) = address.parse() {
            hosts.names(address);
        }
    }
}

/// A recording: what is not intact is never proven.
fn recording(bytes: &[u8]) {
    let Ok(reader) = Reader::new(Cursor::new(bytes.to_vec()), "bytes".into(), false) else {
        return;
    };
    let story = Story::new(reader.start().clone());
    let Ok((story, _)) = story.read(reader, &mut |_, _| ()) else { return };
    let verdict = policy::judge(&story, &story.start.policies);
    if story.integrity != Integrity::Intact {
        assert_ne!(verdict.map(|verdict| verdict.overall), Some(Ruling::Proven));
    }
}

/// A file in memory that can be read back.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Vec<u8> {
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
fn records(bytes: &[u8]) {
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
        serde_json::from_slice::<serde_json::Value>(&json).expect("a report is valid JSON");
    }
}

/// A policy file: one that is taken can be explained.
fn policy_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(policy) = policy::parse(text, "bytes") {
        assert!(!policy.claims.is_empty(), "a policy without claims was taken");
        let _ = policy::check_names(&policy, Catalogue::embedded());
        policy::explain(&policy, Catalogue::embedded());
    }
}

/// A catalogue file: what is taken can be asked.
fn catalogue_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(catalogue) = Catalogue::with_texts([("bytes", text)]) {
        assert!(catalogue.has_program("aws"), "the embedded entries are gone");
        catalogue.hand_off_names();
    }
}

fn in_a_file(bytes: &[u8]) -> OwnedFd {
    let memory = rustix::fs::memfd_create("bytes", MemfdFlags::CLOEXEC).expect("there is memory");
    let mut file = File::from(memory);
    file.write_all(bytes).expect("there is memory");
    file.into()
}

fn path_of(file: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

/// A program or a library (ELF).
fn code_file(bytes: &[u8]) {
    let file = in_a_file(bytes);
    for is_program in [true, false] {
        CodeFile::read(&path_of(&file), is_program, Catalogue::embedded());
    }
}

/// A file with a key of either kind.
fn key_file(bytes: &[u8]) {
    let file = in_a_file(bytes);
    let path = path_of(&file);
    if let Ok(key) = PrivateKey::load(&path) {
        key.public().id();
    }
    if let Ok(key) = PublicKey::load(&path) {
        key.id();
    }
}

/// A signed statement.
fn envelope(bytes: &[u8]) {
    const KEY: &str = include_str!("../golden/keys/spki.pem");
    let key = PublicKey::load(&path_of(&in_a_file(KEY.as_bytes()))).expect("the key is good");
    let file = in_a_file(bytes);
    let _ = evidence::open(&path_of(&file), &key);
}
