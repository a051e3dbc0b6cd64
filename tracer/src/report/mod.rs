//! Renderings of a story. Pure: a story and a verdict in, text out.
//!
//! All but the process tree of `text` is made from a [`Summary`] of it. Strings of
//! the traced programs pass through `clean` before they reach anything a person looks at; only
//! JSON has their bytes.

mod clean;
mod columns;
mod diagnosis;
#[cfg(test)]
mod fixture;
mod html;
mod json;
mod markdown;
mod observed;
mod paint;
mod perfetto;
mod summary;
mod tables;
mod text;
mod tree;
mod words;

pub use clean::{clean, command_line};
pub(crate) use columns::{Column, table};
pub use diagnosis::{
    CapabilityFinding, DIAGNOSIS, Diagnosis, Finding, SandboxFinding, SensorFinding,
};
pub(crate) use html::digest;
pub use html::html;
pub use json::{diagnosis_schema, json, recording_schema, summary_schema};
pub use markdown::markdown;
pub(crate) use markdown::{cell, code};
pub use observed::ObservedKind;
pub use paint::Paint;
pub use perfetto::perfetto;
pub use summary::{
    CallSummary, ClaimSummary, ConnectionSummary, CredentialStep, CredentialSummary,
    DatagramSummary, DnsSummary, EndpointSummary, ExecSummary, FindingSummary, McpSummary,
    McpTransportKind, ObservedSummary, OriginKind, ProcessSummary, ProgramSummary, SUMMARY,
    Summary, Totals,
};
pub(crate) use summary::{Protocols, endpoint_label};
pub(crate) use tables::service;
pub use text::{Detail, text};
pub(crate) use words::{duration, integrity, rfc3339, subject};
