//! How sessions end, and what may have been lost then.

use super::*;

#[test]
fn last_bytes_that_were_lost_are_missed_at_the_end() {
    let answer = |lost| {
        let mut feed = Feed::new(false);
        feed.talk(&vec![sent(GET), received("HTTP/1.1 200 OK\r\n\r\nuntil the end")]);
        feed.lose(Direction::Received, lost);
        said(&feed.close())
    };
    assert_eq!(answer(0), ["GET https://a.example/ 200 0/13 complete"]);
    assert_eq!(answer(5), [format!("GET https://a.example/ 200 0/18 partial: {}", http1::LOST)]);
}

#[test]
fn bytes_of_an_unknown_number_end_a_stream() {
    let mut feed = Feed::new(false);
    feed.talk(&vec![sent(GET), received("HTTP/1.1 200 OK\r\n\r\nuntil")]);
    feed.lose(Direction::Received, TLS_UNKNOWN_BYTES);
    feed.add(Direction::Received, b"the end");
    let lost = http1::LOST;
    let expected =
        [format!("GET https://a.example/ 200 0/5 partial: {lost}"), format!("gap: {lost}")];
    assert_eq!(said(&feed.close()), expected);
}

#[test]
fn a_process_takes_its_sessions_with_it() {
    let mut feed = Feed::new(false);
    feed.talk(&vec![sent(GET)]);
    feed.calls.exited(PROCESS);
    assert!(feed.calls.round(false).is_empty(), "its last bytes may be on their way");
    feed.talk(&vec![received("HTTP/1.1 200 OK\r\n\r\nuntil the end")]);
    feed.calls.round(false);
    // Whether more was to come is not known.
    assert_eq!(
        said(&feed.calls.round(false)),
        [format!("GET https://a.example/ 200 0/13 partial: {}", http1::END_UNSEEN)]
    );
    assert!(feed.calls.sessions.is_empty() && feed.calls.held_bytes == 0);
}

#[test]
fn bytes_lost_at_the_end_may_be_those_of_a_session_whose_end_is_not_seen() {
    let said_of = |before: u64, after: u64, talk: &Talk| {
        let mut feed = Feed::new(false);
        feed.calls.lost(before);
        feed.talk(talk);
        feed.calls.lost(after);
        feed.calls.exited(PROCESS);
        feed.calls.round(false);
        said(&feed.calls.round(true))
    };
    let post = sent("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\n1234");
    let answered = vec![post, received("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")];
    assert_eq!(
        said_of(3, 3, &answered),
        [format!("POST https://a.example/ 200 4/0 partial: {UNENDED}")]
    );
    let lost = format!("POST https://a.example/ 200 4/0 partial: {LAST_LOST}");
    assert_eq!(said_of(3, 4, &answered), [format!("gap: {LAST_LOST}"), lost]);
    // A request may be among them.
    let idle = vec![sent(GET), received("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")];
    let call = "GET https://a.example/ 200 0/0 complete";
    assert_eq!(said_of(0, 0, &idle), [call]);
    assert_eq!(said_of(0, 1, &idle), [call, &format!("gap: {LAST_LOST}")]);
}

/// What came when a piece was lost, and what became of it.
#[track_caller]
fn with_a_loss(before: &Talk, lost: Direction, after: &Talk, expected: &[String]) {
    let mut feed = Feed::new(false);
    feed.talk(before);
    feed.lose(lost, 90);
    feed.talk(after);
    assert_eq!(said(&feed.close()), expected);
}

#[test]
fn an_answer_whose_head_is_not_valid_leaves_no_answer_to_others() {
    let get = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let why = "a response head is not valid: invalid header value";
    let partial = |path: &str| format!("GET https://a.example/{path} - 0/0 partial: {why}");
    let talk = |requests: &str, bad: &str| {
        vec![sent(requests), received(bad), received(ok), sent(get("3")), received(ok)]
    };
    let told = calls(&talk(&(get("1") + &get("2")), "HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n"));
    assert_eq!(told, [partial("1"), partial("2"), format!("gap: {why}")]);
    let told = calls(&talk(&get("1"), "HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n"));
    assert_eq!(told, [partial("1"), format!("gap: {why}")]);
    // A line that is folded is valid for a client.
    let folded = "HTTP/1.1 200 OK\r\nX-Request-Id: one\r\n\ttwo\r\nContent-Length: 0\r\n \r\n\r\n";
    let told = calls(&talk(&(get("1") + &get("2")), folded));
    let call = |path: &str, bytes| format!("GET https://a.example/{path} 200 0/{bytes} complete");
    assert_eq!(told, [call("1", 0), call("2", 2), call("3", 2)]);
}

#[test]
fn nothing_behind_an_upgrade_is_a_call_even_when_its_answer_is_lost() {
    const FAKE: &str = "GET /fake HTTP/1.1\r\nHost: a\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let ask = "GET /ws HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n";
    let tunnel = "CONNECT b.example:80 HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let unread = http1::UNREAD;
    let partial = |call: &str| format!("{call} - 0/0 partial: {unread}");
    let after = vec![sent(FAKE), sent(FAKE), received(OK), sent(FAKE), received(OK)];
    for (asked, call) in
        [(ask, "GET https://a.example/ws"), (tunnel, "CONNECT https://b.example:80")]
    {
        let expected = [partial(call), format!("gap: {unread}")];
        with_a_loss(&vec![sent(asked)], Direction::Received, &after, &expected);
    }
    // The request that asked for it was not seen.
    let gap = "gap: a response came to no request".to_owned();
    let switch = received("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    with_a_loss(&vec![switch], Direction::Sent, &after, &[gap]);
    // A session that is read from its middle.
    let begin = vec![received("{}"), sent(ask)];
    let why = "it may have become something else: the answer to a request for that was not read";
    let gaps = ["gap: it is not HTTP".to_owned(), format!("gap: {why}")];
    with_a_loss(&begin, Direction::Received, &after, &gaps);
}

#[test]
fn what_comes_behind_a_request_to_upgrade_waits_for_its_answer() {
    let ask = "GET /1 HTTP/1.1\r\nHost: a.example\r\nUpgrade: h2c\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let call = |path: &str| format!("GET https://a.example/{path} 200 0/2 complete");
    // It was refused.
    let pipelined =
        vec![sent(format!("{ask}{ask}{GET}")), received(ok), received(ok), received(ok)];
    check(pipelined, &[&call("1"), &call("1"), &call("")]);
    let aborted =
        "GET https://a.example/1 - 0/0 aborted: was under way when its connection was closed";
    let gap = "gap: it ended before an answer said what came behind a request to upgrade";
    check(vec![sent(format!("{ask}{GET}"))], &[aborted, gap]);
    let why = "more than 65536 bytes came behind a request to upgrade that is not answered";
    let many = vec![sent(ask), sent("x".repeat(70_000))];
    let expected = [format!("GET https://a.example/1 - 0/0 partial: {why}"), format!("gap: {why}")];
    assert_eq!(calls(&many), expected);
}
