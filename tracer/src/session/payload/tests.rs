//! Pieces in, records out.

use std::net::IpAddr;

use super::*;
use crate::{model::ProcessKey, protocol::made};

const PROCESS: ProcessKey = ProcessKey { pid: 10, start_ns: 1 };

fn event(cookie: u64, port: u16, bytes: &[u8]) -> PayloadEvent {
    PayloadEvent {
        header: EventHeader {
            time_ns: 100 + cookie,
            process: PROCESS,
            tid: 10,
            cpu: 0,
            flags: 0,
            unread: 0,
        },
        cookie,
        connection: Some(cookie + 1000),
        destination: Some(Endpoint { address: IpAddr::from([10, 0, 0, 1]), port }),
        protocol: TCP,
        incoming: false,
        offset_bytes: 0,
        wire_bytes: u32::try_from(bytes.len()).unwrap(),
        bytes: bytes.to_vec(),
    }
}

fn datagram(cookie: u64, port: u16, bytes: &[u8]) -> PayloadEvent {
    PayloadEvent { protocol: UDP, connection: None, ..event(cookie, port, bytes) }
}

/// What the records say, in short.
fn said(records: &[Record]) -> Vec<String> {
    records.iter().map(short).collect()
}

fn short(record: &Record) -> String {
    if let Record::Opening(opening) = record {
        return match &opening.what {
            FirstBytes::Tls { sni, quic, .. } => {
                let over = if *quic { "quic" } else { "tls" };
                format!("{over} {}", sni.as_deref().unwrap_or("-"))
            }
            FirstBytes::Http { method, host } => {
                format!("{method} {}", host.as_deref().unwrap_or("-"))
            }
            FirstBytes::Other => "other".into(),
            FirstBytes::Unread { why } => format!("unread: {why}"),
        };
    }
    let Record::Dns(dns) = record else { panic!("{record:?}") };
    match &dns.message {
        DnsMessage::Question { name, of, .. } => format!("asks {name} {of}"),
        DnsMessage::Answer { name, records, truncated, .. } => {
            format!("answer {name} {} {truncated}", records.len())
        }
        DnsMessage::Malformed { why } => format!("malformed: {why}"),
    }
}

/// After the end of its connection, with the pieces that came before.
fn ended(payloads: &mut Payloads, cookie: u64) -> Vec<String> {
    payloads.closed(cookie + 1000);
    assert!(payloads.round().is_empty(), "late pieces have a round to come");
    said(&payloads.round())
}

fn pieces(bytes: &[u8], each: usize) -> Vec<PayloadEvent> {
    let piece = |(index, piece): (usize, &[u8])| PayloadEvent {
        offset_bytes: (index * each) as u64,
        ..event(1, 443, piece)
    };
    bytes.chunks(each).enumerate().map(piece).collect()
}

#[test]
fn a_hello_in_any_pieces_is_said_once() {
    let hello = made::records(&made::hello("a.example", &[made::key_share(1216)]), 4096);
    for each in [1, 7, 600, 4000] {
        let mut payloads = Payloads::default();
        let mut records = Vec::new();
        for piece in pieces(&hello, each) {
            records.extend(payloads.add(piece));
        }
        // The last segment again, and what comes behind the hello.
        for piece in pieces(&[&hello[..], &[23; 2000]].concat(), each) {
            records.extend(payloads.add(piece));
        }
        assert_eq!(said(&records), ["tls a.example"], "{each}");
        let Record::Opening(opening) = &records[0] else { panic!() };
        assert_eq!((opening.t_ns, opening.cookie, opening.connection), (101, 1, Some(1001)));
        assert_eq!(payloads.held_bytes, 0);
        assert_eq!(ended(&mut payloads, 1), [""; 0]);
    }
    let mut payloads = Payloads::default();
    let mut backwards = pieces(&hello, 100);
    backwards.reverse();
    let records: Vec<Record> =
        backwards.into_iter().flat_map(|piece| payloads.add(piece)).collect();
    assert_eq!(said(&records), ["tls a.example"]);
}

#[test]
fn what_never_ends_says_why() {
    let hello = made::records(&made::hello("a.example", &[made::key_share(1216)]), 4096);
    let mut payloads = Payloads::default();
    payloads.add(event(1, 443, &hello[..500]));
    assert_eq!(
        ended(&mut payloads, 1),
        ["unread: its first bytes were not complete: the connection ended"]
    );

    payloads.add(PayloadEvent { offset_bytes: 9, ..event(2, 443, &hello[9..]) });
    assert_eq!(
        ended(&mut payloads, 2),
        ["unread: not all of its first bytes were seen: the connection ended"]
    );

    let cut = PayloadEvent { wire_bytes: 1500, ..event(3, 443, &hello[..200]) };
    payloads.add(cut);
    payloads.add(event(4, 80, b"GET / HTTP/1.1\r\nHo"));
    payloads.add(event(5, 6379, b"PING"));
    assert_eq!(
        said(&payloads.rest()),
        [
            "unread: not all of its first bytes were seen: tracing ended",
            "unread: its first bytes were not complete: tracing ended",
            "other"
        ]
    );
    assert!(payloads.rest().is_empty());
    let endless =
        payloads.add(event(6, 80, &[b"GET / HTTP/1.1\r\nA: ", &[b'b'; STREAM_BYTES][..]].concat()));
    assert!(said(&endless)[0].contains("longer than what tracer keeps"), "{endless:?}");
}

#[test]
fn first_bytes_of_other_kinds() {
    let mut payloads = Payloads::default();
    let mut say = |cookie, bytes: &[u8]| said(&payloads.add(event(cookie, 80, bytes)));
    assert_eq!(say(1, b"SSH-2.0-x\r\n"), ["other"]);
    assert_eq!(say(2, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), ["GET a.example"]);
    assert_eq!(say(3, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ["unread: HTTP/2 without TLS"]);
    let incoming = PayloadEvent { incoming: true, ..event(4, 80, b"HTTP/1.1 200 OK\r\n\r\n") };
    assert!(payloads.add(incoming).is_empty());
}

#[test]
fn a_tunnel_says_what_it_is_for() {
    let request = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
    let hello = made::records(&made::hello("a.example", &[]), 4096);
    let mut payloads = Payloads::default();
    assert_eq!(said(&payloads.add(event(1, 8080, request))), ["CONNECT a.example"]);
    let second = PayloadEvent { offset_bytes: request.len() as u64, ..event(1, 8080, &hello) };
    assert_eq!(said(&payloads.add(second)), ["tls a.example"]);

    let nothing = event(2, 8080, request);
    payloads.add(nothing);
    assert_eq!(ended(&mut payloads, 2), [""; 0]);

    // A tunnel in a tunnel in a tunnel is not followed.
    let many = request.repeat(300);
    assert_eq!(said(&payloads.add(event(3, 8080, &many))).len(), 2);
}

#[test]
fn dns_both_ways() {
    let mut payloads = Payloads::default();
    let question = made::question(1, "a.example", made::A);
    let answer = made::answer(1, "a.example", made::A, &[made::record(None, made::A, &[1; 4])]);
    assert_eq!(said(&payloads.add(datagram(1, 53, &question))), ["asks a.example A"]);
    let back = PayloadEvent { incoming: true, ..datagram(1, 53, &answer) };
    assert_eq!(said(&payloads.add(back.clone())), ["answer a.example 1 false"]);
    let cut = PayloadEvent {
        wire_bytes: back.wire_bytes,
        bytes: answer[..answer.len() - 2].to_vec(),
        ..back
    };
    assert_eq!(said(&payloads.add(cut)), ["answer a.example 0 true"]);

    let framed = |message: &[u8]| {
        [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    };
    let twice = [framed(&question), framed(&question)].concat();
    let (first, second) = twice.split_at(framed(&question).len() + 5);
    assert_eq!(said(&payloads.add(event(2, 53, first))), ["asks a.example A"]);
    let second = PayloadEvent { offset_bytes: first.len() as u64, ..event(2, 53, second) };
    assert_eq!(said(&payloads.add(second)), ["asks a.example A"]);
    let back = PayloadEvent { incoming: true, ..event(2, 53, &framed(&answer)) };
    assert_eq!(said(&payloads.add(back)), ["answer a.example 1 false"]);
    let late = PayloadEvent { offset_bytes: twice.len() as u64, ..event(2, 53, b"\x01") };
    payloads.add(late);
    let end = ended(&mut payloads, 2);
    assert_eq!(end, ["malformed: its first bytes were not complete: the connection ended"]);

    // No more than that is taken, and what comes behind it need not be DNS.
    let all = usize::try_from(DNS_STREAM_BYTES).unwrap();
    for (bytes, expected) in [(all - 1, 0), (all, 1)] {
        let mut payloads = Payloads::default();
        let mut whole = framed(&question).repeat(bytes / framed(&question).len() - 1);
        // The last message has something behind its question, which nobody reads.
        let mut last = question.clone();
        last.resize(bytes - whole.len() - 2, 0);
        whole.extend(framed(&last));
        assert_eq!(whole.len(), bytes);
        let mut said_all = Vec::new();
        for (at, piece) in whole.chunks(4096).enumerate() {
            let offset_bytes = at as u64 * 4096;
            said_all
                .extend(said(&payloads.add(PayloadEvent { offset_bytes, ..event(3, 53, piece) })));
        }
        let malformed =
            |said: &[String]| said.iter().filter(|text| text.contains("not read")).count();
        assert_eq!(malformed(&said_all), 0);
        assert_eq!(malformed(&ended(&mut payloads, 3)), expected, "{bytes} bytes");
    }
}

#[test]
fn quic_is_told_by_its_datagrams() {
    let mut payloads = Payloads::default();
    assert_eq!(said(&payloads.add(datagram(1, 443, made::QUIC_V1))), ["quic quic.example"]);
    assert!(payloads.add(datagram(1, 443, made::QUIC_V1)).is_empty());
    assert_eq!(said(&payloads.add(datagram(2, 443, made::QUIC_V2))), ["quic quic.example"]);
    assert!(payloads.add(datagram(3, 443, b"anything else")).is_empty());
    assert!(payloads.rest().is_empty());
}

/// What comes behind them may begin another connection, and that is said.
#[test]
fn what_is_not_read_of_quic_is_said() {
    let mut payloads = Payloads::default();
    let mut all = Vec::new();
    for _ in 0..QUIC_INITIALS_MAX {
        all.extend(said(&payloads.add(datagram(1, 443, made::QUIC_V1))));
    }
    let [first, last] = &all[..] else { panic!("{all:?}") };
    assert_eq!(first, "quic quic.example");
    assert!(last.starts_with("unread: ") && last.contains("is not read"), "{last}");
}

/// One that has room made for others may go on with anything.
#[test]
fn a_dns_stream_that_is_given_up_is_none() {
    let mut payloads = Payloads::default();
    let question = made::question(1, "a.example", made::A);
    let framed = [&u16::try_from(question.len()).unwrap().to_be_bytes()[..], &question].concat();
    assert_eq!(said(&payloads.add(event(1, 53, &framed))), ["asks a.example A"]);
    let mut given_up = Vec::new();
    for cookie in 2..=u64::try_from(OPEN_MAX).unwrap() + 1 {
        given_up.extend(said(&payloads.add(event(cookie, 443, &[22, 3]))));
    }
    let [malformed] = &given_up[..] else { panic!("{given_up:?}") };
    assert!(malformed.starts_with("malformed: "), "{malformed}");
}

#[test]
fn nothing_is_hidden_behind_a_question() {
    let question = made::question(1, "a.example", made::A);
    let more = [&question[..], b"and more"].concat();
    let mut payloads = Payloads::default();
    let mut asks = |bytes: &[u8], wire_bytes: usize| {
        let wire_bytes = u32::try_from(wire_bytes).unwrap();
        said(&payloads.add(PayloadEvent { wire_bytes, ..datagram(1, 53, bytes) }))
    };
    assert_eq!(asks(&question, question.len()), ["asks a.example A"]);
    assert_eq!(asks(&more, more.len()), ["malformed: it goes on behind the question"]);
    let cut = asks(&question, question.len() + 9);
    assert_eq!(cut, ["malformed: longer than what tracer reads of a question"]);
}

#[test]
fn memory_is_bounded() {
    let mut payloads = Payloads::default();
    let mut given_up = 0;
    let streams = u64::try_from(OPEN_MAX).unwrap() + 100;
    for cookie in 0..streams {
        given_up += payloads.add(event(cookie, 443, &[22, 3])).len();
    }
    assert_eq!((given_up, payloads.streams.len()), (100, OPEN_MAX));
    assert_eq!(payloads.rest().len(), OPEN_MAX);

    let large = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xff][..], &[0; 12_000]].concat();
    let mut payloads = Payloads::default();
    for cookie in 0..6000 {
        let unread = payloads.add(event(cookie, 443, &large));
        assert!(payloads.held_bytes <= HELD_BYTES);
        assert!(unread.is_empty() || said(&unread)[0].contains("too many"), "{unread:?}");
    }
    assert!(payloads.held_bytes > HELD_BYTES / 2);

    // Streams that have said what they are leave next to nothing behind.
    let mut payloads = Payloads::default();
    for cookie in 0..10_000 {
        payloads.add(event(cookie, 22, b"SSH-2.0-x\r\n"));
        payloads.closed(cookie + 1000);
        payloads.round();
    }
    payloads.round();
    assert!(payloads.streams.is_empty() && payloads.said.is_empty());
    assert!(payloads.by_connection.is_empty() && payloads.order.len() <= 2 * ORDER_SLACK);
}
