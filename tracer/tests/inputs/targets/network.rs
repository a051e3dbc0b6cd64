//! What arrives from the network, and the file of hosts beside it.

use std::collections::BTreeSet;

use tracer::{
    protocol::{Reading, dns, hosts::Hosts, http, quic, tls},
    record::schema::DnsMessage,
};

use super::cuts;

/// A DNS message, whole or cut, and a stream of them.
pub(super) fn dns(bytes: &[u8]) {
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
pub(super) fn client_hello(bytes: &[u8]) {
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
pub(super) fn quic_initial(bytes: &[u8]) {
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
pub(super) fn http_head(bytes: &[u8]) {
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

/// A file of hosts: each address has some names, and each of them once.
pub(super) fn hosts_file(bytes: &[u8]) {
    const NAMES_MAX: usize = 64;
    let hosts = Hosts::parse(bytes);
    for address in ["127.0.0.1", "::1"] {
        let names = hosts.names(address.parse().expect("it is an address"));
        assert!(names.len() <= NAMES_MAX, "{} names of {address}", names.len());
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "a name of {address} is there twice");
    }
}
