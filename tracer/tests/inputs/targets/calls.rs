//! Streams in which calls by HTTP are.

use tracer::{
    model::{EventHeader, PayloadEvent, ProcessKey},
    record::Record,
    session::calls::{
        Calls, Chunk,
        Direction::{self, Received, Sent},
    },
};

use super::pieces;

/// HTTP/1 and HTTP/2 in both directions of a session. Each piece begins with a byte that says which
/// direction it has (bit 0), whether it was lost (bit 1), and whether half of it was (bit 2).
pub(super) fn conversation(bytes: &[u8]) {
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
                direction: if received { Received } else { Sent },
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
pub(super) fn http_calls(bytes: &[u8]) {
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
                Sent => &mut sent,
                Received => &mut received,
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
pub(super) fn proxy(bytes: &[u8]) {
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
        let incoming = *direction == Received;
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
