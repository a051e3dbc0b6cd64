//! What conversations amount to; and no secrets of any.

mod begins;
mod ends;
mod missing;
mod properties;

use tracer_ebpf::abi::TLS_UNKNOWN_BYTES;

use super::{made::*, *};
use crate::record::schema::{FirstBytes, JoinedBy};

/// Talks and what they amount to.
#[track_caller]
fn check(talk: Talk, expected: &[&str]) {
    assert_eq!(calls(&talk), expected);
    for size in [1, 2, 3, 7, 100] {
        assert_eq!(calls(&chunked(&talk, &[size])), expected, "in pieces of {size}");
    }
}

const UNENDED: &str = "was answered, and its connection closed, before its request had ended";

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

#[test]
fn http1_keeps_alive_and_pipelines() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    check(
        vec![
            sent(format!(
                "{GET}POST /b?x=1 HTTP/1.0\r\nHost: b.example:8443\r\nContent-Length: 3\r\n\r\nabc{GET}"
            )),
            received(format!("{ok}HTTP/1.1 100 Continue\r\n\r\n{ok}")),
            received("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
            sent("\r\nHEAD /h HTTP/1.1\r\nHost: a.example:443\r\n\r\n"),
            received("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"),
            sent("DELETE /d HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            received("HTTP/1.1 204 No Content\r\n\r\n"),
        ],
        &[
            "GET https://a.example/ 200 0/2 complete",
            "POST https://b.example:8443/b?x=1 200 3/2 complete",
            "GET https://a.example/ 304 0/0 complete",
            "HEAD https://a.example/h 200 0/0 complete",
            "DELETE https://a.example/d 204 0/0 complete",
        ],
    );
}

#[test]
fn http1_bodies_end_where_they_end() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(
        vec![
            sent(GET),
            received(format!(
                "{chunked}5;a=\"b\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: y\r\nZ: z\r\n\r\n"
            )),
            sent(
                "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n",
            ),
            received("HTTP/1.1 200 OK\r\n\r\nuntil the end"),
        ],
        &["GET https://a.example/ 200 0/15 complete", "POST https://a.example/ 200 2/13 complete"],
    );
    check(
        vec![sent(GET), received("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")],
        &["GET https://a.example/ 200 0/5 aborted: was under way when its connection was closed"],
    );
    check(
        vec![
            sent("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\n1"),
            received("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
        ],
        &[&format!("POST https://a.example/ 413 1/0 partial: {UNENDED}")],
    );
}

#[test]
fn what_is_no_http_any_more_ends_a_call() {
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n";
    check(
        vec![
            sent(upgrade),
            received("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x01\x02"),
            sent("\x03GET / HTTP/1.1\r\n\r\n"),
        ],
        &["GET https://a.example/ws 101 0/0 upgraded to websocket"],
    );
    check(
        vec![
            sent("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n"),
            received("HTTP/1.1 200 OK\r\n\r\n"),
            sent("\x16\x03\x01"),
        ],
        &["CONNECT https://b.example 200 0/0 upgraded to a tunnel"],
    );
}

#[test]
fn what_cannot_be_told_is_said() {
    check(vec![sent("EHLO example\r\n")], &["gap: it ended within the head of a request"]);
    check(
        vec![received("* OK IMAP\r\n\r\n")],
        &["gap: a request head is not valid: invalid HTTP version"],
    );
    check(vec![sent("PRI")], &["gap: it ended before its bytes said what they are"]);
    check(vec![received(b"\x00\x00\x00\x08\x04\x00\x00\x00\x00")], &["gap: it is not HTTP"]);
    check(
        vec![sent(GET), received("HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n")],
        &[
            "GET https://a.example/ 200 0/0 partial: a body has two lengths",
            "gap: a body has two lengths",
        ],
    );
    check(
        vec![sent(GET), received("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")],
        &[
            "GET https://a.example/ 200 0/0 partial: a chunk has no valid size",
            "gap: a chunk has no valid size",
        ],
    );
    check(
        vec![received("HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n")],
        &["gap: a response came to no request"],
    );
}

#[test]
fn servers_are_told_from_clients() {
    check(
        vec![received(GET), sent("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")],
        &["served GET https://a.example/ 200 0/2 complete"],
    );
    // A server of HTTP/2 may speak first.
    let mut ends = Ends::new();
    let mut talk = preface();
    talk.swap(0, 1);
    talk.extend([ends.get(1, "/1"), ends.status(1, "200", END_STREAM)]);
    check(talk.clone(), &["GET https://a.example/1 200 0/0 complete"]);
    let turned = talk.into_iter().map(|(direction, bytes)| (direction.other(), bytes)).collect();
    check(turned, &["served GET https://a.example/1 200 0/0 complete"]);
}

#[test]
fn http2_streams_are_told_apart() {
    let mut ends = Ends::new();
    let mut talk = preface();
    talk.extend([ends.get(1, "/1"), ends.get(3, "/3"), ends.get(5, "/5"), ends.get(7, "/7")]);
    let promised = ends.fields(Direction::Received, &[(":path", "/pushed"), ("x-a", "b")]);
    talk.extend([
        // A ping, and a promise whose fields go into the table that the next ones refer to.
        received(frame(6, 0, 0, &[0; 8])),
        received(frame(5, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &promised].concat())),
        ends.status(3, "200", 0),
        ends.status(1, "103", 0),
        ends.status(1, "404", END_STREAM),
        received(frame(DATA, 0, 3, b"some")),
        sent(frame(3, 0, 3, &[0, 0, 0, 8])),
        received(frame(7, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 0])),
        ends.status(5, "200", 0),
        received(frame(DATA, PADDED | END_STREAM, 5, b"\x03data\0\0\0")),
    ]);
    check(
        talk,
        &[
            "GET https://a.example/1 404 0/0 complete",
            "GET https://a.example/3 200 0/4 aborted: was reset by the client (HTTP/2 error 8)",
            "GET https://a.example/7 - 0/0 aborted: was refused by the server, which is going away",
            "GET https://a.example/5 200 0/4 complete",
        ],
    );
}

#[test]
fn http2_early_answers_and_tunnels() {
    let mut ends = Ends::new();
    let mut talk = preface();
    let block = ends.request("POST", "/big");
    talk.push(sent([frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, 0, 1, b"begin")].concat()));
    talk.extend([ends.status(1, "413", END_STREAM), received(frame(3, 0, 1, &[0; 4]))]);
    // Whoever has as much as was announced need not wait for the end of the stream.
    for stream in [5, 7, 9] {
        talk.push(ends.get(stream, &format!("/{stream}")));
        let fields = [(":status", "200"), ("content-length", if stream == 9 { "0" } else { "4" })];
        let block = ends.fields(Direction::Received, &fields);
        talk.push(received(frame(HEADERS, END_HEADERS, stream, &block)));
    }
    talk.extend([
        received(frame(DATA, 0, 5, b"some")),
        received(frame(DATA, 0, 7, b"som")),
        sent([frame(3, 0, 5, &[0, 0, 0, 5]), frame(3, 0, 7, &[0, 0, 0, 5])].concat()),
    ]);
    let connect = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":path", "/ws"),
        (":authority", "a.example"),
    ];
    let block = ends.fields(Direction::Sent, &connect);
    talk.extend([sent(frame(HEADERS, END_HEADERS, 11, &block)), ends.status(11, "200", 0)]);
    check(
        talk,
        &[
            "POST https://a.example/big 413 5/0 complete",
            "GET https://a.example/5 200 0/4 complete",
            "GET https://a.example/7 200 0/3 aborted: was reset by the client (HTTP/2 error 5)",
            "CONNECT https://a.example/ws 200 0/0 upgraded to websocket",
            "GET https://a.example/9 200 0/0 complete",
        ],
    );
    let mut talk = preface();
    talk.push(sent(frame(HEADERS, END_HEADERS, 1, &[0xff; 9])));
    let why = "a block of fields is cut short";
    check(talk, &[&format!("gap: {why}")]);
}

#[test]
fn times_are_those_of_the_first_and_last_bytes() {
    let mut feed = Feed::new(false);
    feed.talk(&vec![
        sent("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n"), // 1 ms
        sent("\r\n12"),
        received("HTTP/1.1 100 Continue\r\n\r\n"),
        received("HTTP/1.1 200 OK\r\nx-amzn-RequestId: abc\r\nConten"), // 4 ms
        received("t-Length: 2\r\n\r\n1"),
        received("2"), // 6 ms
        sent(GET),
        received("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"), // 8 ms
    ]);
    let records = feed.close();
    let first = call(&records[0]);
    assert_eq!((first.t_ns, first.ttfb_ms, first.total_ms), (1_000_000, Some(3.0), Some(5.0)));
    assert_eq!(first.request_id.as_deref(), Some("abc"));
    let second = call(&records[1]);
    assert_eq!((second.ttfb_ms, second.total_ms), (Some(1.0), None), "it did not end");
}

#[test]
fn sessions_are_joined_to_connections() {
    let opening = |connection: u64, random: u8, t_ns: u64| Opening {
        t_ns,
        process: PROCESS,
        cookie: connection,
        connection: Some(connection),
        destination: Some(Endpoint { address: [192, 0, 2, 1].into(), port: 8443 }),
        what: FirstBytes::Tls {
            sni: Some("a.example".into()),
            alpn: Vec::new(),
            encrypted_hello: false,
            client_random: format!("{random:02x}").repeat(32),
            quic: false,
        },
    };
    let talk = |host: &str| {
        let request = format!("GET / HTTP/1.1\r\n{host}\r\n");
        vec![
            sent(request),
            received("HTTP/1.1 204 OK\r\n\r\n"),
            sent(GET),
            received("HTTP/1.1 204 OK\r\n\r\n"),
        ]
    };
    // Of two connections to the same name, the number says which.
    let mut feed = Feed::new(false);
    feed.at_ns = 9_000_000;
    feed.calls.hello(PROCESS, 1, [2; 32]);
    feed.talk(&talk(""));
    feed.calls.opening(&opening(11, 1, 5), Some(3));
    feed.calls.opening(&opening(12, 2, 6), Some(4_000_000));
    let records = feed.close();
    let exact = Some(CallConnection { id: 12, by: JoinedBy::Exact });
    let first = call(&records[0]);
    assert_eq!((first.connection, first.setup_ms), (exact, Some(6.0)));
    assert_eq!(first.url, "https://a.example:8443/", "the server name stands for the authority");
    let second = call(&records[1]);
    assert_eq!((second.connection, second.setup_ms), (exact, None));

    // Where nothing names it, the address does, unless it is that of a proxy.
    let url = |tunnel: bool, port: u16, asked: &str| {
        let mut feed = Feed::new(false);
        feed.calls.hello(PROCESS, 1, [2; 32]);
        feed.talk(&vec![
            sent(format!("{asked} HTTP/1.0\r\n\r\n")),
            received("HTTP/1.1 204 OK\r\n\r\n"),
        ]);
        let mut own = opening(12, 2, 6);
        own.destination = Some(Endpoint { address: [192, 0, 2, 1].into(), port });
        let FirstBytes::Tls { sni, .. } = &mut own.what else { unreachable!() };
        *sni = None;
        let what = FirstBytes::Http { method: "CONNECT".into(), host: None };
        if tunnel {
            feed.calls.opening(&Opening { what, ..own.clone() }, None);
        }
        feed.calls.opening(&own, None);
        call(&feed.close()[0]).url.clone()
    };
    assert_eq!(url(false, 8443, "GET /a"), "https://192.0.2.1:8443/a");
    assert_eq!(url(false, 443, "GET /a"), "https://192.0.2.1/a");
    assert_eq!(url(true, 8443, "GET /a"), "https://unknown/a");
    assert_eq!(url(false, 8443, "OPTIONS *"), "https://192.0.2.1:8443");

    // Without the number, the only one that was open.
    let joined = |openings: &[Opening], closed: Option<u64>| {
        let mut feed = Feed::new(false);
        openings.iter().for_each(|opening| feed.calls.opening(opening, Some(1)));
        closed.into_iter().for_each(|id| feed.calls.connection_closed(id, 10, None));
        feed.talk(&talk("Host: A.example:443\r\n"));
        let records = feed.close();
        (call(&records[0]).connection, call(&records[0]).setup_ms)
    };
    let inferred = Some(CallConnection { id: 11, by: JoinedBy::Inferred });
    assert_eq!(joined(&[opening(11, 1, 5)], None), (inferred, None));
    assert_eq!(joined(&[opening(11, 1, 5), opening(12, 2, 6)], None), (None, None));
    assert_eq!(joined(&[opening(11, 1, 5), opening(12, 2, 6)], Some(12)), (inferred, None));
    assert_eq!(joined(&[opening(11, 1, 9_000_000)], None), (None, None), "not there yet");
}

#[test]
fn wanted_values_of_bodies_are_found() {
    let body = r#"{"anthropic_version":"bedrock-2023-05-31","messages":[{"content":"secret"}],"model":"m-1"}"#;
    let post = |kind: &str| {
        format!(
            "POST /model/x/invoke HTTP/1.1\r\nHost: a.example\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let read = |extract: bool, kind: &str| {
        let mut feed = Feed::new(extract);
        feed.talk(&vec![sent(post(kind)), received("HTTP/1.1 204 OK\r\n\r\n")]);
        let records = feed.close();
        let call = call(&records[0]);
        (call.anthropic_version.clone(), call.model.clone())
    };
    let both = (Some("bedrock-2023-05-31".to_owned()), Some("m-1".to_owned()));
    assert_eq!(read(true, "application/json; charset=utf-8"), both);
    assert_eq!(read(true, "text/plain"), (None, None));
    assert_eq!(read(false, "application/json"), (None, None));
}

/// Secrets in every place that a client has for them.
#[test]
fn no_secret_is_in_any_record() {
    const SECRETS: usize = 29;
    let secret = |number: usize| format!("canary{number:02}Qx7");
    let query = [
        "X-Amz-Signature",
        "X-Amz-Security-Token",
        "X-Amz-Credential",
        "access_token",
        "api_key",
        "password",
        "code",
        "SAMLResponse",
        "tok",
        "sk",
        "anything",
        "redirect_uri=https%3A%2F%2Fx%2F%3Ftoken%3D",
        "next=%2Fa%3Fx",
    ];
    let fields = [
        "Authorization: Bearer ",
        "Proxy-Authorization: ",
        "Cookie: sid=",
        "x-api-key: ",
        "X-Amz-Security-Token: ",
        "X-Other: ",
        "api-key: ",
    ];
    let mut numbers = 0..;
    let mut next = || secret(numbers.next().unwrap());
    let query: Vec<String> = query.iter().map(|name| format!("{name}={}", next())).collect();
    let fields: Vec<String> = fields.iter().map(|name| format!("{name}{}\r\n", next())).collect();
    let body = format!(r#"{{"model":"m","key":"{}","messages":["{}"]}}"#, next(), next());
    let head = format!(
        "POST https://user:{}@a.example/sk-ant-api03-{}/bot123456:{}/a;x={}/webhooks/{}?{} HTTP/1.1\r\nHost: a.example\r\n\
         Content-Type: application/json\r\n{}Content-Length: {}\r\n\r\n",
        next(),
        next(),
        next(),
        next(),
        next(),
        query.join("&"),
        fields.concat(),
        body.len()
    );
    let answer = format!(
        "HTTP/1.1 200 OK\r\nSet-Cookie: {}\r\nContent-Length: 11\r\n\r\n{}",
        next(),
        next()
    );
    assert_eq!(numbers.next(), Some(SECRETS));
    let http1 = vec![sent(format!("{head}{body}")), received(answer)];
    let mut ends = Ends::new();
    let mut http2 = preface();
    let path = format!("/?{}", query.join("&"));
    let mut list = vec![(":method", "POST"), (":path", path.as_str()), (":authority", "a.example")];
    let fields: Vec<(String, &str)> = fields
        .iter()
        .filter_map(|field| field.trim_end().split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    list.extend(fields.iter().map(|(name, value)| (name.as_str(), *value)));
    let block = ends.fields(Direction::Sent, &list);
    http2.extend([
        sent(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)),
        ends.status(1, "200", 0),
        received(frame(DATA, END_STREAM, 1, secret(19).as_bytes())),
    ]);
    for talk in [http1, http2] {
        // As a whole, and cut off in the middle.
        for cut in [0, 1, 2] {
            let mut feed = Feed::new(true);
            feed.talk(&talk[..talk.len() - cut].to_vec());
            let text = serde_json::to_string(&feed.close()).unwrap();
            assert!(cut > 0 || text.contains("REDACTED"), "{text}");
            let found: Vec<usize> =
                (0..SECRETS).filter(|number| text.contains(&secret(*number))).collect();
            assert!(found.is_empty(), "{found:?} in {text}");
        }
    }
}

#[test]
fn memory_is_bounded() {
    let mut calls = Calls::new(false);
    let chunk = |stream: u64, bytes: &[u8], calls: &mut Calls| {
        let process = PROCESS;
        let (direction, length) = (Direction::Sent, bytes.len() as u64);
        calls.chunk(&Chunk { process, stream, direction, at_ns: 1, offset: 0, length, bytes });
    };
    let head = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {}", "x".repeat(60_000));
    let mut gaps = 0;
    for stream in 0..3000 {
        chunk(stream, head.as_bytes(), &mut calls);
        assert!(calls.held_bytes <= HELD_MAX_BYTES + 2 * head.len());
        gaps += calls.round(false).len();
    }
    assert!(gaps > 500, "{gaps}");
    let held: usize = calls.sessions.values().map(|session| session.held_bytes).sum();
    assert_eq!(held, calls.held_bytes);
    for stream in 0..SESSIONS_MAX as u64 * 2 {
        chunk(10_000 + stream, GET.as_bytes(), &mut calls);
        assert!(calls.sessions.len() <= SESSIONS_MAX);
        calls.round(false);
    }
    calls.round(true);
    assert_eq!((calls.held_bytes, calls.sessions.len()), (0, 0));
    // One stream cannot hold much either.
    let mut feed = Feed::new(false);
    for _ in 0..2000 {
        feed.add(Direction::Sent, GET.as_bytes());
    }
    let said = said(&feed.close());
    assert!(said.last().unwrap().contains("1024 requests wait"), "{:?}", said.last());
}
