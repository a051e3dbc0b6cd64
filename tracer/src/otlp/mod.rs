//! Log records for OpenTelemetry collectors.
//!
//! ```text
//! record::Record ─► Logs ─► LogRecord ─┬─► Sender ─► run::SenderProcess: POST to a collector, while tracing runs
//!                                      └─► lines of OTLP/JSON, of a recording
//! ```
//!
//! A recording stays the evidence: what a collector has can be neither checked nor judged again. So nothing
//! of the recording waits for a collector, and what a collector did not take is counted and said.
//! docs/opentelemetry.md has the table of attributes.

mod attributes;
mod calls;
mod collector;
mod http;
mod logs;
mod message;
mod send;
#[cfg(test)]
mod tests;

pub use collector::{Collector, CollectorError};
pub use http::{Answer, Client, TIMEOUT};
pub use logs::Logs;
pub use message::{LogRecord, LogsData};
pub use send::{Delivery, Post, Sender};
