//! Collectors of all kinds, played by a listener on loopback.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Answer, Client, Collector, CollectorError, Delivery, LogRecord, Logs, Post, Sender};
use crate::{
    policy::{load, test_start},
    record::{
        Record,
        schema::{HandOff, Start},
    },
};

fn start() -> Start {
    test_start(&load("no-aws-cli").unwrap())
}

fn some_log(logs: &mut Logs) -> LogRecord {
    let hand_off = HandOff {
        t_ns: 1,
        process: None,
        pid: 7,
        name: "cron".into(),
        via: "/etc/cron.d".into(),
        how: "a file was written".into(),
    };
    logs.of(&Record::HandOff(hand_off)).remove(0)
}

/// Answers one request after the other with these, and gives the bodies that came.
fn server(answers: &'static [&'static str]) -> (Collector, JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let thread = std::thread::spawn(move || {
        let mut bodies = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.trim().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            bodies.push(serde_json::from_slice(&body).unwrap());
            write!(stream, "HTTP/1.1 {answer}").unwrap();
        }
        bodies
    });
    (collector, thread)
}

/// Without a process of its own.
#[derive(Debug)]
struct Here(Client, Collector);

impl Post for Here {
    fn url(&self) -> String {
        self.1.to_string()
    }

    fn post(&mut self, body: &[u8]) -> Answer {
        self.0.post(body)
    }
}

fn deliver(collector: Collector) -> Delivery {
    let mut logs = Logs::new(&start());
    let here = Here(Client::new(&collector), collector);
    let mut sender = Sender::new(Box::new(here), &logs);
    sender.send(some_log(&mut logs));
    sender.finish()
}

const TAKEN: &str = "200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";

#[test]
fn what_was_not_answered_well_is_sent_again() {
    let (collector, server) = server(&[
        "503 Busy\r\nretry-after: 0\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        "429 Slow\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        TAKEN,
    ]);
    let delivery = deliver(collector);
    assert!(delivery.is_whole(), "{delivery}");
    let bodies = server.join().unwrap();
    assert!(bodies[0] == bodies[1] && bodies[1] == bodies[2]);
    let log = &bodies[0]["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!(log["eventName"], "tracer.hand_off");
    assert_eq!(log["severityNumber"], 13);
    assert!(log["timeUnixNano"].is_string(), "64 bits are a string: {log}");
}

#[test]
fn what_was_refused_is_not_sent_again() {
    let (collector, server) =
        server(&["400 Bad\r\nconnection: close\r\ncontent-length: 7\r\n\r\nno\x1bgood"]);
    let delivery = deliver(collector);
    assert_eq!((delivery.made, delivery.delivered), (1, 0));
    assert_eq!(
        delivery.problem.as_deref(),
        Some("it answered 400 nogood"),
        "without control bytes"
    );
    assert_eq!(server.join().unwrap().len(), 1);
}

#[test]
fn a_part_that_was_refused_is_counted() {
    const PARTIAL: &str = "200 OK\r\nconnection: close\r\ncontent-length: 70\r\n\r\n\
        {\"partialSuccess\":{\"rejectedLogRecords\":\"1\",\"errorMessage\":\"too old\"}} ";
    let (collector, server) = server(&[PARTIAL]);
    let delivery = deliver(collector);
    assert!(!delivery.is_whole() && delivery.to_string().contains("too old"), "{delivery}");
    server.join().unwrap();
}

#[test]
fn nobody_there_takes_no_more_than_some_seconds() {
    let unused = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let began = Instant::now();
    let delivery = deliver(format!("http://{unused}").parse().unwrap());
    assert!(delivery.delivered == 0 && delivery.problem.is_some(), "{delivery}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

/// Never answers, and takes a while for that.
#[derive(Debug)]
struct Silence(Arc<AtomicU64>);

impl Post for Silence {
    fn url(&self) -> String {
        "http://127.0.0.1:4318/v1/logs".into()
    }

    fn post(&mut self, _body: &[u8]) -> Answer {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(3));
        Answer::Again { why: "it does not answer".into(), after: None }
    }
}

#[test]
fn silence_costs_the_end_no_request_for_each_batch() {
    let mut logs = Logs::new(&start());
    let requests = Arc::default();
    let mut sender = Sender::new(Box::new(Silence(Arc::clone(&requests))), &logs);
    for _ in 0..8000 {
        sender.send(some_log(&mut logs));
    }
    let delivery = sender.finish();
    assert_eq!((delivery.made, delivery.delivered), (8000, 0));
    assert_eq!(delivery.problem.as_deref(), Some("it does not answer"));
    // One before the end, and what goes into the five seconds behind it.
    let requests = requests.load(Ordering::Relaxed);
    assert!((1..=4).contains(&requests), "{requests} requests for 16 batches");
}

#[test]
fn addresses_of_collectors() {
    let check = |text: &str, expected: Result<&str, CollectorError>| {
        let parsed: Result<Collector, _> = text.parse();
        assert_eq!(
            parsed.map(|collector| collector.to_string()),
            expected.map(str::to_owned),
            "{text}"
        );
    };
    check("http://127.0.0.1:4318", Ok("http://127.0.0.1:4318/v1/logs"));
    check("http://collector:4318/", Ok("http://collector:4318/v1/logs"));
    check("http://[::1]:4318/v1/logs", Ok("http://[::1]:4318/v1/logs"));
    check("http://gateway/otlp", Ok("http://gateway/otlp/v1/logs"));
    for (text, named, port) in [
        ("http://collector", true, 80),
        ("http://localhost:4318", true, 4318),
        ("http://127.0.0.1:9", false, 9),
        ("http://[::1]:4318/v1/logs", false, 4318),
    ] {
        let collector: Collector = text.parse().unwrap();
        assert_eq!((collector.has_name(), collector.port()), (named, port), "{text}");
    }
    check("https://collector:4318", Err(CollectorError::Tls));
    for wrong in [
        "collector:4318",
        "ftp://x",
        "http://",
        "http:///v1/logs",
        "http://a@b",
        "http://x?y",
        "http://x:99999",
        "http://[::1]:",
        "",
    ] {
        check(wrong, Err(CollectorError::NoUrl));
    }
}
