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
