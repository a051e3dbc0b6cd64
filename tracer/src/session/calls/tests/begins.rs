//! Sessions that began before they were watched, and what connections without TLS begin with.

use super::*;
use crate::model::EventHeader;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn get(path: &str) -> String {
    format!("GET /{path} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

/// What becomes of a talk of a process whose library was watched from 50 on.
fn late(talk: &Talk, hello_ns: Option<u64>) -> Vec<String> {
    let mut feed = Feed::new(false);
    feed.calls.watched_from(PROCESS, 50);
    feed.calls.hello(PROCESS, 1, [7; 32]);
    if let Some(t_ns) = hello_ns {
        feed.calls.heard(&Opening {
            t_ns,
            process: PROCESS,
            cookie: 1,
            connection: None,
            destination: None,
            what: FirstBytes::Tls {
                sni: None,
                alpn: Vec::new(),
                encrypted_hello: false,
                client_random: "07".repeat(32),
                quic: false,
            },
        });
    }
    feed.talk(talk);
    said(&feed.close())
}

#[test]
fn a_body_that_looks_like_calls_is_none_where_the_beginning_was_not_seen() {
    let gap = format!("gap: {LATE}");
    let joined = |path: &str| format!("joined GET https://a.example/{path} 200 0/2 complete");
    let body = || sent(get("fakecall?i=1"));
    let after = || [received(OK), sent(get("next")), received(OK)];
    let upload: Talk = [body(), body(), body()].into_iter().chain(after()).collect();
    assert_eq!(late(&upload, None), [gap.clone(), joined("next")]);
    assert_eq!(late(&upload, Some(49)), [gap.clone(), joined("next")]);
    let one_write: Talk = [sent(get("no").repeat(3))].into_iter().chain(after()).collect();
    assert_eq!(late(&one_write, None), [gap.clone(), joined("next")]);
    let half: Talk = [sent(get("no") + "and more")].into_iter().chain(after()).collect();
    assert_eq!(late(&half, None), [gap.clone(), joined("next")]);
    // A download, whose client goes on.
    let download =
        vec![received(get("no")), sent(get("next")), received(OK), sent(get("2")), received(OK)];
    assert_eq!(late(&download, None), [gap.clone(), joined("next"), joined("2")]);
    // One that had nothing under way.
    let idle = vec![sent(get("1")), received(OK), sent(get("2")), received(OK)];
    assert_eq!(late(&idle, None), [gap.clone(), joined("1"), joined("2")]);
    assert_eq!(late(&vec![sent(get("1"))], None), [gap]);
}

#[test]
fn a_session_that_began_under_watch_is_read_from_its_beginning() {
    let call = |path: &str| format!("GET https://a.example/{path} 200 0/2 complete");
    let pipelined = vec![sent(get("1") + &get("2")), received(OK.repeat(2))];
    assert_eq!(late(&pipelined, Some(50)), [call("1"), call("2")]);
    // Both versions say where they begin; that of HTTP/2 cannot be in the middle.
    let mut ends = Ends::new();
    let mut talk = preface();
    talk.extend([ends.get(1, "1"), ends.status(1, "200", END_STREAM)]);
    assert_eq!(late(&talk, None), ["GET https://a.example/1 200 0/0 complete"]);
    talk.swap(0, 1);
    assert_eq!(late(&talk, None), ["GET https://a.example/1 200 0/0 complete"]);
    // What a child goes on with may be older; what it executes is not.
    let child = ProcessKey { pid: 8, start_ns: 2 };
    let mut calls = Calls::new(false);
    calls.watched_from(PROCESS, 50);
    calls.forked(PROCESS, child);
    let is_late = |calls: &Calls| calls.may_be_late((child, Name::Tls(1)));
    assert!(is_late(&calls));
    calls.executed(child);
    assert!(!is_late(&calls));
}

/// What becomes of a talk without TLS, in pieces of any size.
#[track_caller]
fn plain(talk: &Talk, expected: &[&str]) {
    for size in [usize::MAX, 1, 2, 3, 7, 100] {
        let mut calls = Calls::new(false);
        let mut offsets = [0; 2];
        for (direction, bytes) in chunked(talk, &[size]) {
            let incoming = direction == Direction::Received;
            let offset = &mut offsets[usize::from(incoming)];
            let (process, length) = (PROCESS, bytes.len());
            calls.payload(&PayloadEvent {
                header: EventHeader { time_ns: 1, process, tid: 7, cpu: 0, flags: 0, unread: 0 },
                cookie: 5,
                connection: Some(9),
                destination: None,
                protocol: 6,
                incoming,
                offset_bytes: *offset,
                wire_bytes: u32::try_from(length).unwrap(),
                bytes,
            });
            *offset += length as u64;
        }
        calls.connection_closed(9, 2, Some(offsets[1]));
        assert_eq!(said(&calls.round(true)), expected, "in pieces of {size}");
        assert_eq!(calls.held_bytes(), 0);
    }
}

#[test]
fn calls_behind_a_proxy_are_read() {
    let call = "GET http://a.example/1 200 0/2 complete";
    let behind = |before: Talk| {
        plain(&before.into_iter().chain([sent(get("1")), received(OK)]).collect(), &[call]);
    };
    behind(vec![sent("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")]);
    behind(vec![sent("PROXY UNKNOWN\r\n")]);
    behind(vec![sent(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0cabcdefghijkl")]);
    let reply = || received(b"\x05\0\0\x01\0\0\0\0\0\0");
    behind(vec![
        sent(b"\x05\x02\0\x02"),
        received(b"\x05\0"),
        sent(b"\x05\x01\0\x03\x09a.example\0\x50"),
        reply(),
    ]);
    behind(vec![
        sent(b"\x05\x01\x02"),
        received(b"\x05\x02"),
        sent(b"\x01\x01u\x02pw"),
        received(b"\x01\0"),
        sent(b"\x05\x01\0\x01\x01\x02\x03\x04\0\x50"),
        reply(),
    ]);
    behind(vec![sent(b"\x04\x01\0\x50\x01\x02\x03\x04u\0"), received(b"\0\x5a\0\0\0\0\0\0")]);
    behind(vec![sent(b"\x04\x01\0\x50\0\0\0\x01\0a.example\0"), received(b"\0\x5a\0\0\0\0\0\0")]);
    // In a way that is not read, and what is not asked for HTTP.
    let why = "gap: it goes through a SOCKS proxy in a way that is not read";
    plain(&vec![sent(b"\x05\x01\x01"), received(b"\x05\x01")], &[why]);
    plain(&vec![sent(b"\x05\x01\0"), received(b"\x05\xff")], &[]);
    plain(&vec![sent(b"\x05\x00\x00\x00binary"), received("other")], &[]);
    let tls = vec![
        sent(b"\x05\x01\0"),
        received(b"\x05\0"),
        sent(b"\x05\x01\0\x01\x01\x02\x03\x04\x01\xbb"),
        reply(),
        sent("\x16\x03\x01"),
    ];
    plain(&tls, &[]);
}

#[test]
fn what_is_in_a_tunnel_is_read_where_it_is_http() {
    let tunnel = "CONNECT http://b.example 200 0/0 upgraded to a tunnel";
    let within = |talk: Talk, expected: &[&str]| {
        let before = vec![
            sent("CONNECT b.example:80 HTTP/1.1\r\nHost: b.example:80\r\n\r\n"),
            received("HTTP/1.1 200 OK\r\n\r\n"),
        ];
        let all: Vec<&str> = [tunnel].into_iter().chain(expected.iter().copied()).collect();
        plain(&before.into_iter().chain(talk).collect(), &all);
    };
    within(vec![sent(get("1")), received(OK)], &["GET http://a.example/1 200 0/2 complete"]);
    let mut ends = Ends::new();
    let mut talk = preface();
    talk.extend([ends.get(1, "/1"), ends.status(1, "200", END_STREAM)]);
    within(talk, &["GET http://a.example/1 200 0/0 complete"]);
    within(vec![sent("\x16\x03\x01 and more"), received("\x16\x03\x03")], &[]);
    within(vec![received("SSH-2.0-a b\r\n"), sent("SSH-2.0-c d\r\n\r\n")], &[]);
    within(vec![received("220 mail\r\n"), sent("EHLO a\r\n")], &[]);
    within(vec![sent("GET / HT")], &["gap: it ended before its bytes said what they are"]);
    within(
        vec![sent("GET /a b HTTP/1.1\r\n\r\n")],
        &["gap: a request head is not valid: invalid HTTP version"],
    );
    // Within TLS, whose URLs would not be those. Nothing behind it is read either.
    check(
        vec![
            sent("CONNECT b.example:80 HTTP/1.1\r\nHost: b.example:80\r\n\r\n"),
            received("HTTP/1.1 200 OK\r\n\r\n"),
            sent(get("1")),
            received(OK),
            sent(get("2")),
            received(OK),
        ],
        &[
            "CONNECT https://b.example:80 200 0/0 upgraded to a tunnel",
            "gap: calls without TLS in a tunnel that is itself within TLS are not read",
        ],
    );
}

#[test]
fn http2_goes_on_where_http1_was_upgraded() {
    let ask = |head: &str| {
        format!("{head} HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n")
    };
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n";
    let mut ends = Ends::new();
    let first = ends.status(1, "200", 0);
    let mut talk = vec![sent(ask("GET /1") + "\r\n"), received(switch)];
    let [client, server] = &preface()[..] else { panic!("two ends") };
    talk.extend([server.clone(), client.clone(), first]);
    talk.push(received(frame(DATA, END_STREAM, 1, b"ok")));
    talk.extend([ends.get(3, "/3"), ends.status(3, "204", END_STREAM)]);
    plain(
        &talk,
        &["GET http://a.example/1 200 0/2 complete", "GET http://a.example/3 204 0/0 complete"],
    );
    let why = "it became HTTP/2 before a request had ended";
    plain(
        &vec![sent(ask("POST /1") + "Content-Length: 9\r\n\r\n1"), received(switch)],
        &[&format!("POST http://a.example/1 - 1/0 partial: {why}"), &format!("gap: {why}")],
    );
}

#[test]
fn codings_that_are_none_leave_the_length() {
    let coded = |coding: &str| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\nContent-Length: 2\r\n\r\nok")
    };
    let call = "GET https://a.example/ 200 0/2 complete";
    check(
        vec![sent(GET), received(coded("Identity")), sent(GET), received(coded("identity"))],
        &[call, call],
    );
    let why = "a response body of a transfer coding that is not known";
    check(
        vec![sent(GET), received(coded("gzip")), sent(GET), received(OK)],
        &[&format!("GET https://a.example/ 200 0/0 partial: {why}"), &format!("gap: {why}")],
    );
}

#[test]
fn http2_that_ends_or_begins_within_a_frame_is_said() {
    let gap = "gap: it ended within the frames of a request";
    let with = |bytes: Vec<u8>| preface().into_iter().chain([sent(bytes)]).collect::<Talk>();
    let block = Ends::new().request("GET", "/1");
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    for end in [3, 9, whole.len() - 1] {
        check(with(whole[..end].to_vec()), &[gap]);
    }
    check(with(frame(HEADERS, END_STREAM, 1, &block)), &[gap]);
    check(with([vec![0; 50], whole].concat()), &["gap: a frame of HTTP/2 is not valid"]);
    check(with(frame(4, 0, 1, &[])), &["gap: a frame of HTTP/2 is not valid"]);
}
