//! Sends log records to a collector by OTLP over HTTP, from a thread of its own.
//!
//! Nothing waits for the collector: where it is slow or away, records wait in a queue of [`QUEUED`], and when
//! that is full the newest are given up and counted. A batch is tried for [`TRIES_FOR`], as the OTLP
//! specification says ("OTLP/HTTP Response"): again after 429, 502, 503, 504 and when there was no answer,
//! and not again after anything else.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{LogRecord, Logs, message::LogsData};

/// Records that wait.
const QUEUED: usize = 8192;
/// Records of a request, at most, and how long the first of them waits for others.
const BATCH: usize = 512;
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Of one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Of one batch, with pauses.
const TRIES_FOR: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// When tracing has ended, of all that is left.
const LAST_TRIES_FOR: Duration = Duration::from_secs(5);

/// Where log records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    url: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectorError {
    #[error(
        "the collector must be reached by http. For TLS and authentication send to a collector on this machine or \
         in this cluster, which passes it on"
    )]
    Tls,
    #[error(
        "it must be the address of an OpenTelemetry collector's OTLP/HTTP receiver, such as http://127.0.0.1:4318"
    )]
    NoUrl,
}

impl FromStr for Collector {
    type Err = CollectorError;

    /// A base, to which `/v1/logs` is added, or the whole address (OTLP exporter specification, "Endpoint
    /// URLs for OTLP/HTTP").
    fn from_str(text: &str) -> Result<Collector, CollectorError> {
        let (scheme, rest) = text.split_once("://").ok_or(CollectorError::NoUrl)?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => return Err(CollectorError::Tls),
            _ => return Err(CollectorError::NoUrl),
        }
        const LOGS: &str = "/v1/logs";
        let base = text.trim_end_matches('/');
        let url = if base.ends_with(LOGS) { base.to_owned() } else { format!("{base}{LOGS}") };
        let parsed = ureq::http::Uri::from_str(&url).map_err(|_| CollectorError::NoUrl)?;
        if rest.starts_with('/')
            || parsed.host().is_none_or(str::is_empty)
            || url.contains(['?', '#', '@'])
        {
            return Err(CollectorError::NoUrl);
        }
        Ok(Collector { url })
    }
}

impl std::fmt::Display for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

/// What became of log records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    pub url: String,
    pub made: u64,
    /// The collector said it has them.
    pub delivered: u64,
    /// Why one of the others was not delivered: what happened last.
    pub problem: Option<String>,
}

impl Delivery {
    /// Whether the collector has everything.
    pub fn is_whole(&self) -> bool {
        self.delivered == self.made
    }
}

impl std::fmt::Display for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Delivery { url, made, delivered, problem } = self;
        if self.is_whole() {
            return write!(f, "{delivered} log records went to {url}");
        }
        let why = problem.as_deref().unwrap_or("too many waited");
        write!(f, "{} of {made} log records did not get to {url}: {why}", made - delivered)
    }
}

/// Hands log records to the thread that sends them.
#[derive(Debug)]
pub struct Sender {
    collector: Collector,
    queue: SyncSender<LogRecord>,
    thread: JoinHandle<(u64, Option<String>)>,
    made: u64,
    /// When the thread has to end, in milliseconds since it began; 0 for not yet.
    ends_at: Arc<AtomicU64>,
    began: Instant,
}

impl Sender {
    pub fn start(collector: Collector, logs: &Logs) -> std::io::Result<Sender> {
        let (queue, waiting) = sync_channel(QUEUED);
        let ends_at = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let mut post = Post {
            agent: agent(),
            url: collector.url.clone(),
            message: logs.message(Vec::new()),
            ends_at: Arc::clone(&ends_at),
            began,
            delivered: 0,
            problem: None,
        };
        let work = move || {
            post.all(&waiting);
            (post.delivered, post.problem)
        };
        let thread = std::thread::Builder::new().name("otlp".into()).spawn(work)?;
        Ok(Sender { collector, queue, thread, made: 0, ends_at, began })
    }

    /// Never waits.
    pub fn send(&mut self, log: LogRecord) {
        self.made += 1;
        // What finds no room is missing among the delivered ones.
        let _ = self.queue.try_send(log);
    }

    /// As [`Sender::send`], but waits for room: for recordings, which are there anyway.
    pub fn send_patiently(&mut self, log: LogRecord) {
        self.made += 1;
        let _ = self.queue.send(log);
    }

    /// Waits for what is under way, for some seconds at most when the collector does not take it.
    pub fn finish(self) -> Delivery {
        let Sender { collector, queue, thread, made, ends_at, began } = self;
        let end = began.elapsed() + LAST_TRIES_FOR;
        ends_at.store(u64::try_from(end.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        drop(queue);
        let (delivered, problem) = thread
            .join()
            .unwrap_or_else(|_| (0, Some("the thread that sends has panicked".into())));
        Delivery { url: collector.url, made, delivered, problem }
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // Where it goes is what was asked for, whatever the environment says.
        .proxy(None)
        .max_redirects(0)
        .user_agent("tracer");
    config.build().into()
}

/// The thread's side.
struct Post {
    agent: ureq::Agent,
    url: String,
    message: LogsData,
    ends_at: Arc<AtomicU64>,
    began: Instant,
    delivered: u64,
    problem: Option<String>,
}

/// What one request came to.
enum Answer {
    /// So many were refused, and why.
    Taken {
        refused: u64,
        why: String,
    },
    /// Sending it again is of no use.
    Refused(String),
    Again {
        why: String,
        after: Option<Duration>,
    },
}

impl Post {
    fn all(&mut self, waiting: &Receiver<LogRecord>) {
        while let Ok(first) = waiting.recv() {
            let mut batch = vec![first];
            let full_by = Instant::now() + BATCH_WAIT;
            while batch.len() < BATCH {
                match waiting.recv_timeout(full_by.saturating_duration_since(Instant::now())) {
                    Ok(log) => batch.push(log),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            self.batch(batch);
        }
    }

    /// When trying ends, for a batch that was begun then.
    fn deadline(&self, begun: Instant) -> Instant {
        let usual = begun + TRIES_FOR;
        match self.ends_at.load(Ordering::Relaxed) {
            0 => usual,
            at => usual.min(self.began + Duration::from_millis(at)),
        }
    }

    fn batch(&mut self, logs: Vec<LogRecord>) {
        let count = logs.len() as u64;
        self.message.resource_logs[0].scope_logs[0].log_records = logs;
        let body = match serde_json::to_vec(&self.message) {
            Ok(body) => body,
            Err(error) => return self.problem = Some(error.to_string()),
        };
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let (why, after) = match self.once(&body) {
                Answer::Taken { refused, why } => {
                    self.delivered += count.saturating_sub(refused);
                    if refused > 0 {
                        self.problem = Some(why);
                    }
                    return;
                }
                Answer::Refused(why) => return self.problem = Some(why),
                Answer::Again { why, after } => (why, after),
            };
            self.problem = Some(why);
            let until = Instant::now() + after.unwrap_or(pause);
            // The end of tracing can come while this waits.
            while Instant::now() < until {
                if until > self.deadline(begun) && Instant::now() >= self.deadline(begun) {
                    return;
                }
                std::thread::sleep(
                    FIRST_PAUSE.min(until.saturating_duration_since(Instant::now())),
                );
            }
            if Instant::now() >= self.deadline(begun) {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn once(&self, body: &[u8]) -> Answer {
        let request = self.agent.post(&self.url).header("content-type", "application/json");
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return Answer::Again { why: error.to_string(), after: None },
        };
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        /// Of an answer, which is a line.
        const ANSWER_BYTES: u64 = 64 << 10;
        let said = response.body_mut().with_config().limit(ANSWER_BYTES).read_to_string();
        let said = said.unwrap_or_default();
        match status {
            200..=299 => taken(&said),
            429 | 502 | 503 | 504 => Answer::Again { why: format!("it answered {status}"), after },
            _ => {
                let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
                Answer::Refused(format!("it answered {status} {said}").trim_end().to_owned())
            }
        }
    }
}

/// `ExportLogsServiceResponse`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    partial_success: Option<PartialSuccess>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartialSuccess {
    /// A string in protobuf's mapping, a number with some.
    rejected_log_records: serde_json::Value,
    error_message: String,
}

fn taken(said: &str) -> Answer {
    let response: Response = serde_json::from_str(said).unwrap_or_default();
    let partial = response.partial_success.unwrap_or_default();
    let rejected = &partial.rejected_log_records;
    let text = rejected.as_str().and_then(|text| text.parse().ok());
    let refused = text.or_else(|| rejected.as_u64()).unwrap_or(0);
    Answer::Taken { refused, why: format!("it refused some: {}", partial.error_message) }
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").field("url", &self.url).finish_non_exhaustive()
    }
}
