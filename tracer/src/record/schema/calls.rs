//! HTTP calls, read where a program hands them to TLS.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::ProcessKey;

/// A request and its response, as `process` saw them. Comes when the call is over. Times end in `_ms`,
/// milliseconds with nanoseconds behind the point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Call {
    /// When the first byte of the request was written; when it was read, if `served`.
    pub t_ns: u64,
    pub process: ProcessKey,
    /// `process` answered the request. Otherwise it made it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub served: bool,
    /// Reading began in the middle of the session, which left a `call-gap`, and went on at a call. That this
    /// is one is inferred: from its first line, at the beginning of what one end said after the other,
    /// and from that of the answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joined: bool,
    pub method: String,
    /// Without the values of secrets, in whose place stands `REDACTED`. The authority is that of the
    /// request; without one, the server name of the TLS handshake; without that, `unknown`.
    pub url: String,
    /// `url` is the beginning only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub url_cut: bool,
    /// `1.0`, `1.1` or `2`.
    pub http_version: String,
    /// Of the final response; absent when none was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Fields of a list, by their names in lower case. `REDACTED` stands for a value that is a secret;
    /// of `authorization` the scheme is kept.
    pub request_headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub response_headers: BTreeMap<String, String>,
    /// The request has an `authorization` field.
    pub has_authorization: bool,
    /// It is signed with AWS Signature Version 4 or 4a, in a field or in the query.
    pub has_aws_sig: bool,
    /// The id that the response gives the request: `x-amzn-requestid`, `request-id`, or another field
    /// like these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// From `t_ns` to the first byte of the final response's head. Responses of the kind 1xx do not
    /// count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttfb_ms: Option<f64>,
    /// From `t_ns` to the last byte of the response, its trailers included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<f64>,
    /// From the attempt to connect to `t_ns`, for the first call of a connection that is known for
    /// certain: TCP and TLS handshakes are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_ms: Option<f64>,
    /// Of the bodies, without what frames them; what was transferred of them, when they did not end.
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// From the request's body, where extraction was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anthropic_version: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anthropic_beta: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Names the TLS session, or without TLS the socket, within the process.
    pub session: u64,
    /// There was no TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plaintext: bool,
    /// HTTP/2's number of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2_stream: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<CallConnection>,
    pub outcome: CallOutcome,
}

/// The TCP connection that a call went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallConnection {
    /// As in its [`Connect`](super::Connect).
    pub id: u64,
    pub by: JoinedBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JoinedBy {
    /// The random number of the ClientHello, seen on the wire and in the program; without TLS, the
    /// bytes are the connection's own.
    Exact,
    /// The only connection that the process had open then under the server name that is the call's.
    Inferred,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CallOutcome {
    /// Request and response ended.
    Complete,
    /// The connection became something else, such as `websocket` or a tunnel.
    Upgraded { to: String },
    /// It ended before its response did, as the rest of a sentence that starts with the call.
    Aborted { why: String },
    /// Not all of it was read; likewise.
    Partial { why: String },
}

/// Up to then a TLS session of `process` was not read, or from then on it is not, so calls over it may be
/// missing. Calls that are read behind it all the same are `joined`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallGap {
    pub t_ns: u64,
    pub process: ProcessKey,
    /// As in [`Call`]; 0 where there is an `inode`.
    pub session: u64,
    /// What is not read are calls without TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plaintext: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<CallConnection>,
    /// Of a connection that was open before tracer came: that of its [`FoundSocket`](super::FoundSocket).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    pub why: String,
}
