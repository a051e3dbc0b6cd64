//! HTTP calls, each with what the catalogue makes of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Builder, network::shown};
use crate::{
    catalogue::CallKind,
    record::schema::{Call, CallOutcome, JoinedBy},
    report::clean::clean,
};

/// Strings are fit to be shown.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CallSummary {
    /// Place in `processes`.
    pub process: usize,
    /// Place in `connections`, where it is known.
    pub connection: Option<usize>,
    /// What that rests on.
    pub connection_by: Option<JoinedBy>,
    pub at_ns: u64,
    /// The process answered it.
    pub served: bool,
    /// Reading began in the middle of its session: that this is a call is inferred from its form.
    pub joined: bool,
    pub method: String,
    pub url: String,
    pub http_version: String,
    pub status: Option<u16>,
    /// By the catalogue that it was recorded with.
    pub kind: CallKind,
    pub request_headers: BTreeMap<String, String>,
    pub response_headers: BTreeMap<String, String>,
    pub has_authorization: bool,
    pub has_aws_sig: bool,
    pub request_id: Option<String>,
    /// From the first byte of the request to that of the response's head.
    pub ttfb_ms: Option<f64>,
    /// To the last byte of the response.
    pub total_ms: Option<f64>,
    /// From the attempt to connect to the first byte of the request.
    pub setup_ms: Option<f64>,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub anthropic_version: Option<String>,
    pub anthropic_beta: Vec<String>,
    pub model: Option<String>,
    pub plaintext: bool,
    pub http2_stream: Option<u32>,
    pub outcome: CallOutcome,
}

/// Of a number of milliseconds.
pub(in crate::report) fn nanoseconds(ms: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, and no time is below zero"
    )]
    let ns = (ms * 1e6).round() as u64;
    ns
}

impl CallSummary {
    /// When the first byte of the response came, from the start of the trace.
    pub(in crate::report) fn first_byte_ns(&self) -> Option<u64> {
        self.ttfb_ms.map(|ms| self.at_ns.saturating_add(nanoseconds(ms)))
    }

    /// The same of the last.
    pub(in crate::report) fn last_byte_ns(&self) -> Option<u64> {
        self.total_ms.map(|ms| self.at_ns.saturating_add(nanoseconds(ms)))
    }

    /// `invoke, bedrock-runtime, us-east-1 (api)`, as far as it is known.
    pub(in crate::report) fn what(&self) -> String {
        let endpoint = self.kind.endpoint.as_ref();
        let parts = [
            self.kind.name.clone(),
            endpoint.map(|known| known.service.clone()),
            endpoint.and_then(|known| known.region.clone()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let class = self.kind.class.map(|class| format!("({})", class.name()));
        let parts = [(!parts.is_empty()).then(|| parts.join(", ")), class];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// The status, and what became of a call that did not end well.
    pub(in crate::report) fn outcome(&self) -> String {
        let status = self.status.map(|status| status.to_string());
        let became = match &self.outcome {
            CallOutcome::Complete => None,
            CallOutcome::Upgraded { to } => Some(format!("upgraded to {to}")),
            CallOutcome::Aborted { why } => Some(format!("aborted: {why}")),
            CallOutcome::Partial { why } => Some(format!("partial: {why}")),
        };
        let joined = self.joined.then(|| "joined midway".to_owned());
        status.into_iter().chain(became).chain(joined).collect::<Vec<_>>().join(", ")
    }

    /// How it proves who makes it.
    pub(in crate::report) fn signed(&self) -> String {
        let key = ["x-api-key", "api-key", "x-goog-api-key"];
        let marks = [
            self.has_aws_sig.then_some("AWS signature"),
            (self.has_authorization && !self.has_aws_sig).then_some("authorization"),
            key.iter().any(|name| self.request_headers.contains_key(*name)).then_some("API key"),
        ];
        marks.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl Builder<'_> {
    pub(super) fn calls(&self) -> Vec<CallSummary> {
        let connections: BTreeMap<u64, usize> = self
            .story
            .connections
            .iter()
            .enumerate()
            .map(|(place, connection)| (connection.id, place))
            .collect();
        let mut calls: Vec<&Call> = self.story.calls.iter().collect();
        calls.sort_by_key(|call| call.t_ns);
        calls.into_iter().filter_map(|call| self.call(call, &connections)).collect()
    }

    fn call(&self, call: &Call, connections: &BTreeMap<u64, usize>) -> Option<CallSummary> {
        let shown = |text: &str| clean(text.as_bytes());
        let all = |fields: &BTreeMap<String, String>| {
            fields.iter().map(|(name, value)| (shown(name), shown(value))).collect()
        };
        let joined = call.connection;
        let place = joined.and_then(|joined| connections.get(&joined.id).copied());
        Some(CallSummary {
            // Every record's process is in the story, introduced by its event if by nothing else.
            process: *self.places.get(&call.process)?,
            connection: place,
            connection_by: joined.filter(|_| place.is_some()).map(|joined| joined.by),
            at_ns: self.at(call.t_ns),
            served: call.served,
            joined: call.joined,
            method: shown(&call.method),
            url: shown(&call.url),
            http_version: shown(&call.http_version),
            status: call.status,
            kind: kind(self.story.call_kind(call)),
            request_headers: all(&call.request_headers),
            response_headers: all(&call.response_headers),
            has_authorization: call.has_authorization,
            has_aws_sig: call.has_aws_sig,
            request_id: call.request_id.as_deref().map(shown),
            ttfb_ms: call.ttfb_ms,
            total_ms: call.total_ms,
            setup_ms: call.setup_ms,
            request_bytes: call.request_bytes,
            response_bytes: call.response_bytes,
            anthropic_version: call.anthropic_version.as_deref().map(shown),
            anthropic_beta: call.anthropic_beta.iter().map(|beta| shown(beta)).collect(),
            model: call.model.as_deref().map(shown),
            plaintext: call.plaintext,
            http2_stream: call.http2_stream,
            outcome: match &call.outcome {
                CallOutcome::Complete => CallOutcome::Complete,
                CallOutcome::Upgraded { to } => CallOutcome::Upgraded { to: shown(to) },
                CallOutcome::Aborted { why } => CallOutcome::Aborted { why: shown(why) },
                CallOutcome::Partial { why } => CallOutcome::Partial { why: shown(why) },
            },
        })
    }
}

/// What the catalogue says, fit to be shown.
fn kind(kind: CallKind) -> CallKind {
    let name = kind.name.as_deref().map(|name| clean(name.as_bytes()));
    CallKind { name, endpoint: kind.endpoint.map(shown), ..kind }
}
