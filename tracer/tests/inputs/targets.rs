//! Every reader of bytes that others wrote, as a function of bytes. One definition each, for the
//! property tests beside it and for the fuzzer (`tests/fuzz`, which includes this file).
//!
//! None may panic, whatever the bytes are, and each states here what else must hold.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, File},
    io::{self, Cursor, IoSlice, Write},
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::MemfdFlags,
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType, sendmsg, socketpair,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tracer::{
    catalogue::Catalogue,
    evidence::{self, PrivateKey, PublicKey},
    ingest,
    model::{EventHeader, ExecEvent, PayloadEvent, ProcessKey},
    policy::{self, Ruling},
    protocol::{Reading, dns, hosts::Hosts, http, quic, tls},
    record::{
        Existing, Integrity, Parts, Reader, Record, Writer, create_output, part, schema::DnsMessage,
    },
    report::{self, Detail, Paint},
    run::{CodeFile, wire},
    session::{
        Fold, Machine, Numbers, Story,
        calls::{Calls, Chunk, Direction},
    },
};

type Target = fn(&[u8]);

/// By name, which is also the name of the folder of its inputs (`tests/fuzz/corpus`).
pub(crate) const TARGETS: [(&str, Target); 18] = [
    ("ring", ring),
    ("dns", dns),
    ("client-hello", client_hello),
    ("quic-initial", quic_initial),
    ("http-head", http_head),
    ("conversation", conversation),
    ("http-calls", http_calls),
    ("proxy", proxy),
    ("hosts-file", hosts_file),
    ("recording", recording),
    ("parts", parts),
    ("records", records),
    ("policy-file", policy_file),
    ("catalogue-file", catalogue_file),
    ("code-file", code_file),
    ("key-file", key_file),
    ("envelope", envelope),
    ("broker-messages", broker_messages),
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

/// Some of the places where bytes can be cut: all of few bytes.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    (0..bytes.len()).step_by(1 + bytes.len() / 64)
}

/// A DNS message, whole or cut, and a stream of them.
fn dns(bytes: &[u8]) {
    dns_message(bytes, true);
    let answer = dns_message(bytes, false);
    // What is read of the beginning is the beginning of what is read.
    for at in cuts(bytes) {
        let DnsMessage::Answer { records: some, .. } = dns_message(&bytes[..at], false) else {
            continue;
        };
        let DnsMessage::Answer { records: all, .. } = &answer else {
            panic!("an answer until byte {at}, and then {answer:?}");
        };
        assert!(all.starts_with(&some), "until byte {at} other records: {some:?}");
    }
    let (messages, used) = dns::framed(bytes);
    assert!(used <= bytes.len(), "{used} of {} bytes", bytes.len());
    for at in cuts(bytes) {
        let (mut first, used_first) = dns::framed(&bytes[..at]);
        let (second, used_second) = dns::framed(&bytes[used_first..]);
        first.extend(second);
        assert_eq!((first, used_first + used_second), (messages.clone(), used), "cut at {at}");
    }
    for message in messages {
        dns_message(message, true);
    }
}

/// What is kept of a message has a limit, and so has what its records give.
fn dns_message(bytes: &[u8], whole: bool) -> DnsMessage {
    // The last record that is kept may be one with hints in all its bytes, and a name takes four characters
    // a byte at most.
    const TEXT_MAX: usize = 2 * dns::TEXT_MAX_BYTES + 2 * 4 * 255 + 40;
    let message = dns::message(bytes, whole);
    if let DnsMessage::Answer { name, records, .. } = &message {
        assert!(records.len() <= dns::RECORDS_MAX, "{} records are kept", records.len());
        let text: usize = records.iter().map(|record| record.name.len() + record.data.len()).sum();
        assert!(text <= TEXT_MAX, "{text} characters are kept");
        let aliases = dns::given(name, records).aliases.len();
        assert!(aliases <= records.len(), "{aliases} other names of {} records", records.len());
    }
    message
}

/// A ClientHello in records of TLS, and as QUIC carries it: what is known of its beginning stays as it is
/// when more follows, and it does not matter how it is cut into records.
fn client_hello(bytes: &[u8]) {
    let (recorded, bare) = (tls::in_records(bytes), tls::in_handshake(bytes));
    for at in cuts(bytes) {
        let (some_recorded, some_bare) =
            (tls::in_records(&bytes[..at]), tls::in_handshake(&bytes[..at]));
        for (some, all) in [(some_recorded, &recorded), (some_bare, &bare)] {
            assert!(some == Reading::Partial || some == *all, "until byte {at} it is {some:?}");
        }
    }
    if let Reading::Done(_) = &recorded {
        assert_eq!(tls::in_records(&[bytes, b"more"].concat()), recorded);
    }
    for each in [1, 100, 16_000] {
        let mut records = Vec::new();
        for fragment in bytes.chunks(each) {
            let length = u16::try_from(fragment.len()).expect("it is shorter");
            records.extend([&[22, 3, 1][..], &length.to_be_bytes(), fragment].concat());
        }
        assert_eq!(tls::in_records(&records), bare, "in records of {each} bytes");
    }
}

/// Datagrams of QUIC, cut out of the bytes: what is kept of them has a limit, and is not more than they have.
fn quic_initial(bytes: &[u8]) {
    const HELD_MAX: usize = 1 << 20;
    let mut initials = quic::Initials::default();
    let mut added_bytes = 0;
    for datagram in bytes.chunks(1_200) {
        for whole in [true, false] {
            initials.add(datagram, whole);
            added_bytes += datagram.len();
            let held_bytes = initials.held_bytes();
            assert!(
                held_bytes <= added_bytes.min(HELD_MAX),
                "{held_bytes} bytes are kept of {added_bytes}"
            );
        }
    }
    initials.rest();
}

/// The head of a request of HTTP/1: it ends at the same place whatever follows, and not before it.
fn http_head(bytes: &[u8]) {
    http::looks_like(bytes);
    let whole = http::head(bytes);
    let Reading::Done(head) = &whole else { return };
    assert!(head.bytes <= bytes.len(), "{} of {} bytes", head.bytes, bytes.len());
    assert_eq!(http::head(&bytes[..head.bytes]), whole, "without what follows");
    assert_eq!(http::head(&[bytes, b"more"].concat()), whole, "with more behind it");
    for at in cuts(&bytes[..head.bytes]) {
        let some = http::head(&bytes[..at]);
        assert!(!matches!(some, Reading::Done(_)), "it ends before byte {at} already: {some:?}");
    }
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

/// What precedes a request of HTTP on its way through a proxy, without TLS. Each piece begins with a byte
/// whose bit 0 says which direction it has.
fn proxy(bytes: &[u8]) {
    use Direction::{Received, Sent};
    let talk: Vec<(Direction, &[u8])> = pieces(bytes)
        .filter_map(|piece| piece.split_first())
        .map(|(how, bytes)| (if how & 1 == 0 { Sent } else { Received }, bytes))
        .collect();
    // Not gaps: whether bytes that cannot be read are worth a word is told by what was there when they could not.
    let read = |size| {
        let mut records = without_tls(&talk, size);
        records.retain(|record| matches!(record, Record::Call(_)));
        records
    };
    let once = read(usize::MAX);
    for size in [1, 2 + bytes.len() % 61] {
        assert_eq!(read(size), once, "it depends on how it is cut: in pieces of {size}");
    }

    // Whatever is in what a proxy is told, the call behind it is the same.
    let short = &bytes[..bytes.len().min(255)];
    let length = |length: usize| u16::try_from(length).expect("it is shorter").to_be_bytes();
    let long = &bytes[..bytes.len().min(16_000)];
    let text: Vec<u8> = short.iter().copied().filter(|byte| *byte != b'\n').take(90).collect();
    let name: Vec<u8> = short.iter().copied().filter(|byte| *byte != 0).collect();
    let one = [short.len() as u8];
    let binary = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length(long.len())[..], long].concat();
    let line = [b"PROXY TCP4 ", &text[..], b"\r\n"].concat();
    let asks = [&b"\x05\x01\x00\x03"[..], &one, short, b"\x01\xbb"].concat();
    let password = [&b"\x01"[..], &one, short, &one, short].concat();
    let reached = b"\x05\x00\x00\x01\x7f\0\0\x01\x01\xbb";
    let socks4 = [&b"\x04\x01\x01\xbb\0\0\0\x01"[..], &name, b"\0", &name, b"\0"].concat();
    let answer: &[(Direction, &[u8])] =
        &[(Sent, REQUEST), (Received, RESPONSE), (Received, b"0\r\n\r\n")];
    let alone = without_tls(answer, usize::MAX);
    assert!(matches!(alone[..], [Record::Call(_)]), "{alone:?}");
    for before in [
        &[(Sent, &binary[..])][..],
        &[(Sent, &line)],
        &[(Sent, b"\x05\x01\x00"), (Received, b"\x05\x00"), (Sent, &asks), (Received, reached)],
        &[
            (Sent, b"\x05\x02\x00\x02"),
            (Received, b"\x05\x02"),
            (Sent, &password),
            (Received, b"\x01\x00"),
            (Sent, &asks),
            (Received, reached),
        ],
        &[(Sent, &socks4), (Received, b"\x00\x5a\x01\xbb\0\0\0\0")],
    ] {
        let talk = [before, answer].concat();
        for size in [usize::MAX, 1 + bytes.len() % 61] {
            assert_eq!(without_tls(&talk, size), alone, "behind {before:?} in pieces of {size}");
        }
    }
}

/// The calls of a connection without TLS, whose bytes come in pieces of that size.
fn without_tls(talk: &[(Direction, &[u8])], size: usize) -> Vec<Record> {
    let mut calls = Calls::new(true);
    let (mut sent, mut received) = (0, 0);
    for (direction, bytes) in talk {
        let incoming = *direction == Direction::Received;
        let offset = if incoming { &mut received } else { &mut sent };
        for piece in bytes.chunks(size) {
            calls.payload(&PayloadEvent {
                header: EventHeader {
                    time_ns: 1,
                    process: ProcessKey { pid: 7, start_ns: 1 },
                    tid: 7,
                    cpu: 0,
                    flags: 0,
                    unread: 0,
                },
                cookie: 5,
                connection: Some(3),
                destination: None,
                protocol: 6,
                incoming,
                offset_bytes: *offset,
                wire_bytes: u32::try_from(piece.len()).expect("it is shorter"),
                bytes: piece.to_vec(),
            });
            *offset += piece.len() as u64;
        }
    }
    calls.connection_closed(3, 1, Some(received));
    calls.round(true)
}

/// A file of hosts: each address has some names, and each of them once.
fn hosts_file(bytes: &[u8]) {
    const NAMES_MAX: usize = 64;
    let hosts = Hosts::parse(bytes);
    for address in ["127.0.0.1", "::1"] {
        let names = hosts.names(address.parse().expect("it is an address"));
        assert!(names.len() <= NAMES_MAX, "{} names of {address}", names.len());
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "a name of {address} is there twice");
    }
}

/// A recording: what is not intact is never proven, and what does not fit its digests is not intact.
fn recording(bytes: &[u8]) {
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
fn parts(bytes: &[u8]) {
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
        serde_json::from_slice::<Value>(&json).expect("a report is valid JSON");
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

/// A signed statement: nothing else is taken for one than what was signed, since nobody who changes it has
/// the key.
fn envelope(bytes: &[u8]) {
    const KEY: &str = include_str!("../golden/keys/spki.pem");
    const SIGNED: &[u8] = include_bytes!("../../../tests/fuzz/corpus/envelope/signed");
    let key = PublicKey::load(&path_of(&in_a_file(KEY.as_bytes()))).expect("the key is good");
    let open = |bytes| evidence::open(&path_of(&in_a_file(bytes)), &key);
    if let Ok(statement) = open(bytes) {
        assert_eq!(statement, open(SIGNED).expect("it was signed"), "this was never signed");
    }
}

/// Packets between tracer and its broker. Each begins with a byte that says how many descriptors are beside it.
fn broker_messages(bytes: &[u8]) {
    received::<wire::Request>(bytes);
    received::<wire::Reply>(bytes);
}

fn connected() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("there is a socket")
}

/// Each message comes with all descriptors it says it has. What comes out can be sent, and is then the same.
fn received<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    // Few, because this process has other files, and short, so that they can be sent also if all their
    // bytes have to be escaped.
    const PACKETS_MAX: usize = 16;
    const DESCRIPTORS_MAX: usize = 8;
    const PACKET_BYTES_MAX: usize = 16_000;
    let (here, there) = connected();
    let (back, forth) = connected();
    let file = in_a_file(b"");
    let mut sent = VecDeque::new();
    for piece in pieces(bytes).take(PACKETS_MAX) {
        let Some((descriptors, packet)) = piece.split_first() else { continue };
        let descriptors = usize::from(*descriptors) % DESCRIPTORS_MAX;
        let many = vec![file.as_fd(); descriptors];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut room);
        if !many.is_empty() {
            beside.push(SendAncillaryMessage::ScmRights(&many));
        }
        let packet = &packet[..packet.len().min(PACKET_BYTES_MAX)];
        // Nobody reads yet, so it would wait for ever when there is no more room.
        let flags = SendFlags::DONTWAIT;
        if sendmsg(&here, &[IoSlice::new(packet)], &mut beside, flags).is_err() {
            break;
        }
        let said: Option<Value> = serde_json::from_slice(packet).ok();
        sent.push_back((said.and_then(|said| said["descriptors"].as_u64()), descriptors));
    }
    drop(here);
    while let Ok(Some((message, descriptors))) = wire::receive::<T>(&there) {
        let (announced, mut beside) = sent.pop_front().expect("it was sent");
        while (beside as u64) < announced.expect("it says how many there are") {
            beside += sent.pop_front().expect("it was sent").1;
        }
        assert_eq!(descriptors.len(), beside, "not all descriptors are there, or others");
        let said = serde_json::to_value(&message).expect("any message can be written");
        let beside: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        wire::send(&back, message, &beside).expect("what was received can be sent");
        let (again, and_beside) = wire::receive::<T>(&forth)
            .expect("what is sent can be received")
            .expect("the other side is there");
        let again = serde_json::to_value(&again).expect("any message can be written");
        assert_eq!((again, and_beside.len()), (said, beside.len()), "it is another one");
    }
}
