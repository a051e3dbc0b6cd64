//! The client side of OTLP over HTTP: one request, and what it came to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Collector;

/// Of one request.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// What one request came to.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
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

/// Of what others say, which goes into messages.
const SAID_CHARS: usize = 200;

#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    pub fn new(collector: &Collector) -> Client {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            // Where it goes is what was asked for, whatever the environment says.
            .proxy(None)
            .max_redirects(0)
            .user_agent("tracer");
        Client { agent: config.build().into(), url: collector.to_string() }
    }

    pub fn post(&self, body: &[u8]) -> Answer {
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
            _ => Answer::Refused(
                format!("it answered {status} {}", plain(&said)).trim_end().to_owned(),
            ),
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
    Answer::Taken { refused, why: format!("it refused some: {}", plain(&partial.error_message)) }
}

fn plain(said: &str) -> String {
    said.chars().filter(|c| !c.is_control()).take(SAID_CHARS).collect()
}
