//! Every reader of bytes that others wrote, as a function of bytes. One definition each.
//!
//! None may panic, whatever the bytes are, and each states here what else must hold.

use std::io::{Cursor, Write as _};

use tracer::{
    catalogue::Catalogue,
    ingest,
    model::ProcessKey,
    policy::{self, Ruling},
    protocol::{Reading, dns, hosts::Hosts, http, quic, tls},
    record::{Integrity, Reader},
    run,
    session::{
        Story,
        calls::{Calls, Chunk, Direction},
    },
};

/// A record of a ring: an event or an error.
pub(crate) fn ring_record(bytes: &[u8]) {
    let _ = ingest::decode(bytes);
}

/// A DNS message, whole or cut, and a stream of them.
pub(crate) fn dns(bytes: &[u8]) {
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
pub(crate) fn client_hello(bytes: &[u8]) {
    let whole = tls::in_records(bytes);
    // What is done stays done when more follows.
    if let Reading::Done(hello) = &whole {
        let longer = [bytes, b"more"].concat();
        assert_eq!(tls::in_records(&longer), Reading::Done(hello.clone()));
    }
    tls::in_handshake(bytes);
}

/// Datagrams of QUIC, cut out of the bytes: what is kept of them has a limit.
pub(crate) fn quic_initial(bytes: &[u8]) {
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
pub(crate) fn http_head(bytes: &[u8]) {
    let _ = http::head(bytes);
    let _ = http::looks_like(bytes);
}

/// What a client of HTTP/2 begins with, and its server.
const CLIENT_BEGINS: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const SERVER_BEGINS: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

/// What a client and a server of HTTP say behind a valid beginning, of both versions, and the fields of a
/// request of HTTP/2: in pieces of any size, with some of them lost.
pub(crate) fn http_calls(bytes: &[u8]) {
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

/// A file that may have a TLS library in it, executed or mapped.
pub(crate) fn tls_library(bytes: &[u8]) -> Option<bool> {
    let mut file = tempfile::tempfile().ok()?;
    file.write_all(bytes).ok()?;
    run::tls_library_in(file, Catalogue::embedded())
}

/// The same, whatever is found.
pub(crate) fn mapped_file(bytes: &[u8]) {
    let _ = tls_library(bytes);
}

/// A file of hosts.
pub(crate) fn hosts_file(bytes: &[u8]) {
    let hosts = Hosts::parse(bytes);
    for address in ["127.0.0.1", "::1"] {
        if let Ok(address) = address.parse() {
            hosts.names(address);
        }
    }
}

/// A recording: what is not intact is never proven.
pub(crate) fn recording(bytes: &[u8]) {
    let Ok(reader) = Reader::new(Cursor::new(bytes.to_vec()), "bytes".into(), false) else {
        return;
    };
    let story = Story::new(reader.start().clone());
    let Ok((story, _)) = story.read(reader, |_, _| ()) else { return };
    let verdict = policy::judge(&story, &story.start.policies);
    if story.integrity != Integrity::Intact {
        assert_ne!(verdict.map(|verdict| verdict.overall), Some(Ruling::Proven));
    }
}

/// A policy file: one that is taken can be explained.
pub(crate) fn policy_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(policy) = policy::parse(text, "bytes") {
        assert!(!policy.claims.is_empty(), "a policy without claims was taken");
        let _ = policy::check_names(&policy, Catalogue::embedded());
        policy::explain(&policy, Catalogue::embedded());
    }
}

/// A catalogue file: what is taken can be asked.
pub(crate) fn catalogue_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(catalogue) = Catalogue::with_texts([("bytes", text)]) {
        assert!(catalogue.has_program("aws"), "the embedded entries are gone");
        catalogue.hand_off_names();
    }
}
