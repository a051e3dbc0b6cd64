//! Bytes that were not seen: lost, not captured, or before tracer came.

use super::*;

#[test]
fn bytes_that_were_not_captured_matter_where_they_frame_something() {
    use Direction::{Received, Sent};
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{}", "x".repeat(5000));
    let mut feed = Feed::new(false);
    feed.add(Sent, GET.as_bytes());
    feed.cut(Received, long.as_bytes(), 100);
    feed.add(Sent, GET.as_bytes());
    feed.cut(Received, long.as_bytes(), 20);
    assert_eq!(
        said(&feed.close()),
        [
            "GET https://a.example/ 200 0/5000 complete".to_owned(),
            format!("GET https://a.example/ - 0/0 partial: {}", stream::TOO_LONG),
            format!("gap: {}", stream::TOO_LONG),
        ]
    );
    // Nothing of a piece could be read.
    let mut feed = Feed::new(false);
    feed.add(Sent, GET.as_bytes());
    feed.cut(Received, long.as_bytes(), 0);
    assert_eq!(said(&feed.close())[1], format!("gap: {}", http1::UNREAD));
    // Lost bytes are known to be lost, whether or not one can go on behind them.
    let mut feed = Feed::new(false);
    feed.add(Sent, GET.as_bytes());
    feed.add(Received, &long.as_bytes()[..100]);
    feed.lose(Received, 100);
    feed.add(Received, &long.as_bytes()[200..]);
    feed.add(Sent, GET.as_bytes());
    feed.lose(Received, 10);
    feed.add(Received, b"x");
    assert_eq!(
        said(&feed.close()),
        [
            format!("GET https://a.example/ 200 0/5000 partial: {}", http1::LOST),
            format!("GET https://a.example/ - 0/0 partial: {}", http1::UNREAD),
            format!("gap: {}", http1::UNREAD),
        ]
    );
    let mut ends = Ends::new();
    let mut feed = Feed::new(false);
    feed.talk(&preface());
    feed.talk(&vec![
        ends.get(1, "/1"),
        ends.get(3, "/3"),
        ends.status(1, "200", 0),
        ends.status(3, "200", 0),
    ]);
    feed.cut(Received, &frame(DATA, END_STREAM, 1, &[0; 9000]), 500);
    let (_, data) = received(frame(DATA, END_STREAM, 3, &[0; 9000]));
    feed.cut(Received, &[&data[..], &data].concat(), 9500);
    assert_eq!(
        said(&feed.close()),
        [
            "GET https://a.example/1 200 0/9000 complete",
            "GET https://a.example/3 200 0/9000 complete",
        ]
    );
    let mut feed = Feed::new(false);
    feed.lose(Sent, 5);
    feed.add(Sent, GET.as_bytes());
    assert_eq!(said(&feed.close()), ["gap: tracer began to read it in the middle"]);
}

#[test]
fn a_session_joined_within_a_call_is_read_from_the_next_one_on() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let get = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let joined = |path: &str| format!("joined GET https://a.example/{path} 200 0/2 complete");
    let check = |talk: &Talk, gap: &str, expected: &[&str]| {
        let mut all = vec![format!("gap: {gap}")];
        all.extend(expected.iter().map(|path| joined(path)));
        assert_eq!(calls(talk), all);
        let turned: Talk =
            talk.iter().map(|(direction, bytes)| (direction.other(), bytes.clone())).collect();
        let served = |line: &String| line.replacen("joined ", "joined served ", 1);
        assert_eq!(calls(&turned), all.iter().map(served).collect::<Vec<_>>());
    };
    let after = || vec![sent(get("1")), received(OK), sent(get("2")), received(OK)];
    let talk = |before: Talk| before.into_iter().chain(after()).collect::<Talk>();
    // Within an answer, whatever it looks like.
    check(&talk(vec![received("{}"), received("more")]), "it is not HTTP", &["1", "2"]);
    let why = "a response head is not valid: invalid HTTP version";
    check(&talk(vec![received("like a request")]), why, &["1", "2"]);
    check(&talk(vec![sent("{}"), received(OK)]), "it is not HTTP", &["1", "2"]);
    // What looks like a request in the middle of what one end says is none,
    check(&talk(vec![sent("{}"), sent(get("no")), received(OK)]), "it is not HTTP", &["1", "2"]);
    // nor is one whose answer does not begin like one: answers to others come first.
    let before = vec![received("{}"), sent(get("no")), received("..."), received(OK)];
    check(&talk(before), "it is not HTTP", &["1", "2"]);
    let half = "GET / HTTP/1.1".to_owned();
    for no in ["GET /a b HTTP/1.1\r\n\r\n", "get / HTTP/1.1\r\n\r\n", "GET / HTTP/2\r\n\r\n", &half]
    {
        let before = vec![received("{}"), sent(no), received(OK)];
        check(&talk(before), "it is not HTTP", &["1", "2"]);
    }
    // One that is not answered is not told.
    assert_eq!(calls(&vec![received("{}"), sent(get("1"))]), ["gap: it is not HTTP"]);
    // Bytes that were lost can hide a beginning.
    let mut feed = Feed::new(false);
    feed.talk(&vec![received("{}")]);
    feed.lose(Direction::Sent, 10);
    feed.talk(&after());
    assert_eq!(said(&feed.close()), ["gap: it is not HTTP", &joined("2")]);
    // A session of which calls were read stays unread.
    let talk =
        vec![sent(GET), received(OK), sent(get("1")), received("no"), sent(get("2")), received(OK)];
    let said = calls(&talk);
    assert!(said.len() == 4 && said[3].starts_with("gap: "), "{said:?}");
}

#[test]
fn without_tls_what_was_not_seen_is_told_from_what_is_too_long() {
    use crate::model::EventHeader;
    let piece = |incoming: bool, offset_bytes: u64, bytes: &[u8]| PayloadEvent {
        header: EventHeader { time_ns: 1, process: PROCESS, tid: 7, cpu: 0, flags: 0, unread: 0 },
        cookie: 5,
        connection: Some(9),
        destination: None,
        protocol: 6,
        incoming,
        offset_bytes,
        wire_bytes: u32::try_from(bytes.len()).unwrap(),
        bytes: bytes.to_vec(),
    };
    let talk = |pieces: &[PayloadEvent], received_bytes| {
        let mut calls = Calls::new(false);
        pieces.iter().for_each(|piece| calls.payload(piece));
        calls.connection_closed(9, 2, received_bytes);
        said(&calls.round(true))
    };
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let all = Some(ok.len() as u64);
    let get = piece(false, 0, GET.as_bytes());
    let url = "GET http://a.example/";
    let whole = [get.clone(), piece(true, 0, ok)];
    assert_eq!(talk(&whole, all), [format!("{url} 200 0/2 complete")]);
    let mut nameless = piece(false, 0, b"GET /1 HTTP/1.0\r\n\r\n");
    nameless.destination = Some(Endpoint { address: [192, 0, 2, 1].into(), port: 8080 });
    let to_address = talk(&[nameless, piece(true, 0, ok)], all);
    assert_eq!(to_address, ["GET http://192.0.2.1:8080/1 200 0/2 complete"]);
    let gap = |why: &str| [format!("gap: {why}"), format!("{url} - 0/0 partial: {why}")];
    for wrong in
        ["GET /\thttp\r\n\r\n", "GET\t/ HTTP/1.1\r\n\r\n", "get / HTTP/1.1\r\na\u{0}: b\r\n\r\n"]
    {
        let told = talk(&[piece(false, 0, wrong.as_bytes()), piece(true, 0, ok)], all);
        assert!(told.len() == 1 && told[0].starts_with("gap: "), "{wrong:?}: {told:?}");
    }
    for other in
        ["EHLO mail.example\r\n", "SSH-2.0-OpenSSH_9.2p1 Debian\r\n", "*1\r\n$4\r\nPING\r\n"]
    {
        let told = talk(&[piece(false, 0, other.as_bytes())], Some(0));
        assert!(told.is_empty(), "{other:?}: {told:?}");
    }
    let hole = [get.clone(), piece(true, 9, &ok[9..])];
    assert_eq!(talk(&hole, all), gap(plain::UNSEEN));
    assert_eq!(talk(std::slice::from_ref(&get), all), gap(plain::UNSEEN));
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n";
    let mut long = vec![get, piece(true, 0, head)];
    let mut at = head.len() as u64;
    while at < 70_000 {
        long.push(piece(true, at, &[b'x'; 2000]));
        at += 2000;
    }
    let told = talk(&long, Some(at));
    assert!(
        told.len() == 2 && told[0].ends_with(plain::ENDS) && told[1].ends_with(plain::ENDS),
        "{told:?}"
    );
}
