//! Every reader of bytes that others wrote, as a function of bytes. One definition each.
//!
//! None may panic, whatever the bytes are, and each states here what else must hold.

use std::io::Cursor;

use tracer::{
    catalogue::Catalogue,
    ingest,
    policy::{self, Ruling},
    protocol::{Reading, dns, hosts::Hosts, http, quic, tls},
    record::{Integrity, Reader},
    session::Story,
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
    let Ok((story, _)) = story.read(reader, |_| ()) else { return };
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
