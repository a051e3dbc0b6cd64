//! Log records on their way to a collector: a queue, and a thread that makes requests of what is in it.
//!
//! Nothing waits for the collector: where it is slow or away, records wait in a queue of [`QUEUED`], and when
//! that is full the newest are given up and counted. A batch is tried for [`TRIES_FOR`], as the OTLP
//! specification says ("OTLP/HTTP Response"): again after 429, 502, 503, 504 and when there was no answer,
//! and not again after anything else. The requests themselves are made elsewhere ([`Post`]).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Answer, LogRecord, Logs, message::LogsData};

/// Records that wait.
const QUEUED: usize = 8192;
/// Records of a request, at most, and how long the first of them waits for others.
const BATCH: usize = 512;
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Of one batch, with pauses.
const TRIES_FOR: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// When tracing has ended, of all that is left.
const LAST_TRIES_FOR: Duration = Duration::from_secs(5);

/// Makes requests.
pub trait Post: std::fmt::Debug + Send {
    /// To whom, for messages.
    fn url(&self) -> String;

    /// Waits for the answer.
    fn post(&mut self, body: &[u8]) -> Answer;
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
    url: String,
    made: u64,
    /// When the thread has to end, in milliseconds since it began; 0 for not yet.
    ends_at: Arc<AtomicU64>,
    began: Instant,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// There is no thread yet: what was made so far, which is not limited.
    Gathering(Vec<LogRecord>, Box<Batches>),
    Sending(SyncSender<LogRecord>, JoinHandle<Outcome>),
    Failed(String),
}

#[derive(Debug)]
struct Outcome {
    delivered: u64,
    problem: Option<String>,
}

impl Sender {
    /// Nothing is sent before [`Sender::start`].
    pub fn new(post: Box<dyn Post>, logs: &Logs) -> Sender {
        let (url, ends_at, began) = (post.url(), Arc::new(AtomicU64::new(0)), Instant::now());
        let batches = Batches {
            post,
            message: logs.message(Vec::new()),
            ends_at: Arc::clone(&ends_at),
            began,
            delivered: 0,
            problem: None,
            away: false,
            complained: false,
        };
        let way = Way::Gathering(Vec::new(), Box::new(batches));
        Sender { url, made: 0, ends_at, began, way }
    }

    /// Starts the thread, unless there is one.
    pub fn start(&mut self) -> std::io::Result<()> {
        let none = Way::Failed("there is no thread that sends them".into());
        let (gathered, mut batches) = match std::mem::replace(&mut self.way, none) {
            Way::Gathering(gathered, batches) => (gathered, batches),
            other @ (Way::Sending(..) | Way::Failed(_)) => {
                self.way = other;
                return Ok(());
            }
        };
        let (queue, waiting) = sync_channel(QUEUED);
        let work = move || {
            batches.all(gathered, &waiting);
            Outcome { delivered: batches.delivered, problem: batches.problem }
        };
        let thread = std::thread::Builder::new().name("otlp".into()).spawn(work)?;
        self.way = Way::Sending(queue, thread);
        Ok(())
    }

    /// Never waits.
    pub fn send(&mut self, log: LogRecord) {
        self.made += 1;
        match &mut self.way {
            Way::Gathering(gathered, _) => gathered.push(log),
            // What finds no room is missing among the delivered ones.
            Way::Sending(queue, _) => drop(queue.try_send(log)),
            Way::Failed(_) => {}
        }
    }

    /// As [`Sender::send`], but waits for room: for recordings, which are there anyway.
    pub fn send_patiently(&mut self, log: LogRecord) {
        if let Way::Sending(queue, _) = &self.way {
            self.made += 1;
            let _ = queue.send(log);
        } else {
            self.send(log);
        }
    }

    /// Waits for what is under way, for some seconds at most when the collector does not take it.
    pub fn finish(mut self) -> Delivery {
        let started = self.start();
        let end = self.began.elapsed() + LAST_TRIES_FOR;
        let end_ms = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
        self.ends_at.store(end_ms, Ordering::Relaxed);
        let lost = |problem: String| Outcome { delivered: 0, problem: Some(problem) };
        let outcome = match self.way {
            Way::Sending(queue, thread) => {
                drop(queue);
                thread.join().unwrap_or_else(|_| lost("the thread that sends has panicked".into()))
            }
            Way::Failed(why) => lost(started.err().map_or(why, |error| error.to_string())),
            Way::Gathering(..) => lost("nothing was sent".into()),
        };
        let Outcome { delivered, problem } = outcome;
        Delivery { url: self.url, made: self.made, delivered, problem }
    }
}

/// The thread's side.
#[derive(Debug)]
struct Batches {
    post: Box<dyn Post>,
    message: LogsData,
    ends_at: Arc<AtomicU64>,
    began: Instant,
    delivered: u64,
    problem: Option<String>,
    /// The last request had no answer, or one that asks for patience.
    away: bool,
    /// It was said that not everything is delivered.
    complained: bool,
}

impl Batches {
    fn all(&mut self, gathered: Vec<LogRecord>, waiting: &Receiver<LogRecord>) {
        let mut gathered = gathered.into_iter();
        loop {
            let batch: Vec<LogRecord> = gathered.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            self.batch(batch);
        }
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
        let before = self.delivered;
        self.message.resource_logs[0].scope_logs[0].log_records = logs;
        match serde_json::to_vec(&self.message) {
            Ok(body) => self.deliver(&body, count),
            Err(error) => self.problem = Some(error.to_string()),
        }
        if self.delivered < before + count {
            self.complain();
        }
    }

    /// Once, and while tracing runs: when it has ended, all is said together.
    fn complain(&mut self) {
        if self.ends_at.load(Ordering::Relaxed) == 0
            && !std::mem::replace(&mut self.complained, true)
        {
            let (url, why) = (self.post.url(), self.problem.as_deref().unwrap_or("unknown"));
            crate::notice(format_args!(
                "log records do not get to {url}: {why}. Tracing goes on; how many are missing there is said \
                 at its end"
            ));
        }
    }

    fn deliver(&mut self, body: &[u8], count: u64) {
        let begun = Instant::now();
        // Each batch that waits would have another request that nobody answers.
        if self.away && begun >= self.deadline(begun) {
            return;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let answer = self.post.post(body);
            self.away = matches!(answer, Answer::Again { .. });
            let (why, after) = match answer {
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
}
