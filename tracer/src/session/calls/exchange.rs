//! One call, while it is under way.

use std::collections::BTreeMap;

use super::{
    fields::{Fields, Scanner},
    head::{self, Kept},
    redact,
};
use crate::{
    protocol::printable,
    record::schema::{Call, CallOutcome},
};

/// A longer URL is cut.
const URL_MAX_BYTES: usize = 4096;
/// The longest method in use is half of this.
const METHOD_MAX_BYTES: usize = 32;

/// Fields of a head, as they come.
pub(super) type Field<'a> = (&'a [u8], &'a [u8]);

/// What a request line says, or the fields that stand for it in HTTP/2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    /// Of the `Host` field, or of `:authority`.
    pub(super) authority: Option<&'a [u8]>,
    pub(super) version: &'static str,
    pub(super) http2_stream: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) begun_ns: u64,
    /// The first one of its session.
    pub(super) is_first: bool,
    /// Reading began in the middle of its session.
    pub(super) joined: bool,
    pub(super) method: String,
    version: &'static str,
    pub(super) http2_stream: Option<u32>,
    /// None where the request does not name one.
    authority: Option<String>,
    /// Another scheme than the connection's, of a request to a proxy.
    scheme: Option<&'static str>,
    /// Without secrets.
    target: String,
    aws_query: bool,
    request: Kept,
    response: BTreeMap<String, String>,
    pub(super) status: Option<u16>,
    first_ns: Option<u64>,
    last_ns: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// How many the head of the response says there are.
    response_length: Option<u64>,
    pub(super) request_ended: bool,
    pub(super) response_ended: bool,
    /// Its answer can make something else of the connection.
    pub(super) upgrades: bool,
    /// What a CONNECT is for.
    pub(super) tunnel: Option<String>,
    /// Why not all of it was read.
    partial: Option<String>,
    scanner: Option<Scanner>,
}

/// How a call ended, and the call.
pub(super) type Over = (Exchange, CallOutcome);

impl Exchange {
    pub(super) fn new<'a>(
        asked: &Asked<'_>,
        fields: impl Iterator<Item = Field<'a>> + Clone,
        begun_ns: u64,
        extract: bool,
    ) -> Exchange {
        let method = printable(&asked.method[..asked.method.len().min(METHOD_MAX_BYTES)]);
        let target = String::from_utf8_lossy(asked.target);
        let (scheme, authority, path) = split_target(&method, &target);
        // RFC 9112, 3.3: it asks for the server itself.
        let path = if method == "OPTIONS" && path == "*" { "" } else { path };
        let authority =
            authority.or(asked.authority).map(host_and_port).filter(|text| !text.is_empty());
        let kept = head::request(fields.clone());
        let is = |name: &str, wanted: fn(&str) -> bool| {
            fields.clone().any(|(own, value)| {
                own.eq_ignore_ascii_case(name.as_bytes())
                    && std::str::from_utf8(value).is_ok_and(wanted)
            })
        };
        let is_json = is("content-type", |value| value.to_ascii_lowercase().contains("json"))
            && !is("content-encoding", |value| !value.trim().eq_ignore_ascii_case("identity"));
        Exchange {
            begun_ns,
            is_first: false,
            joined: false,
            version: asked.version,
            http2_stream: asked.http2_stream,
            authority,
            scheme,
            target: redact::target(path),
            aws_query: redact::has_aws_signature(path),
            method,
            request: kept,
            response: BTreeMap::new(),
            status: None,
            first_ns: None,
            last_ns: begun_ns,
            request_bytes: 0,
            response_bytes: 0,
            response_length: None,
            request_ended: false,
            response_ended: false,
            upgrades: false,
            tunnel: None,
            partial: None,
            scanner: (extract && is_json).then(Scanner::new),
        }
    }

    /// The head of the final response, of which the first byte came at that time.
    pub(super) fn respond<'a>(
        &mut self,
        status: u16,
        fields: impl Iterator<Item = Field<'a>>,
        first_ns: u64,
    ) {
        self.status = Some(status);
        self.response = head::response(fields);
        self.first_ns = Some(first_ns);
    }

    /// A response of HTTP/2 that says its length: all of it can be there before the stream is ended, and a client
    /// that has it need not wait for that.
    pub(super) fn is_of_length(&mut self, length: u64) {
        self.response_length = Some(length);
        self.response_data(0);
    }

    /// So many bytes of the response came, read or not.
    pub(super) fn response_data(&mut self, bytes: u64) {
        self.response_bytes += bytes;
        self.response_ended |= self.response_length.is_some_and(|all| self.response_bytes >= all);
    }

    pub(super) fn request_data(&mut self, bytes: &[u8]) {
        self.request_bytes += bytes.len() as u64;
        if let Some(scanner) = &mut self.scanner {
            scanner.add(bytes);
        }
    }

    pub(super) fn unread_request_data(&mut self, bytes: u64) {
        self.request_bytes += bytes;
        if let Some(scanner) = &mut self.scanner {
            scanner.stop();
        }
    }

    /// It is answered by HTTP/2, as its first stream (RFC 7540, 3.2).
    pub(super) fn becomes_http2(&mut self) {
        (self.version, self.http2_stream) = ("2", Some(1));
    }

    /// Something of the response came.
    pub(super) fn at(&mut self, at_ns: u64) {
        self.last_ns = self.last_ns.max(at_ns);
    }

    /// Not all of it was read; the first reason counts.
    pub(super) fn is_partial(&mut self, why: &str) {
        self.partial.get_or_insert_with(|| why.to_owned());
    }

    /// Ends it. What was not read counts more than how it ended.
    pub(super) fn over(mut self, outcome: CallOutcome) -> Over {
        let outcome = match self.partial.take() {
            Some(why) => CallOutcome::Partial { why },
            None => outcome,
        };
        (self, outcome)
    }

    /// Ends it early: complete if its response is.
    pub(super) fn cut(self, why: &str) -> Over {
        let complete = self.response_ended;
        let aborted = CallOutcome::Aborted { why: why.to_owned() };
        self.over(if complete { CallOutcome::Complete } else { aborted })
    }

    /// Ends it with its connection. One that was answered before its request ended has not ended by itself.
    pub(super) fn cut_off(mut self, why: &str) -> Over {
        if self.response_ended && !self.request_ended {
            self.is_partial(
                "was answered, and its connection closed, before its request had ended",
            );
        }
        self.cut(why)
    }

    /// Ends it as far as it was read.
    pub(super) fn unread(mut self, why: &str) -> Over {
        self.is_partial(why);
        self.over(CallOutcome::Complete)
    }

    /// Whom the request is for, without a port.
    pub(super) fn host(&self) -> Option<String> {
        let authority = self.authority.as_deref()?;
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next(),
            None => authority.split(':').next(),
        };
        host.map(|host| host.strip_suffix('.').unwrap_or(host).to_owned())
    }

    /// What is kept in memory for it, about.
    pub(super) fn held_bytes(&self) -> usize {
        let fields = self.request.headers.iter().chain(&self.response);
        let fields: usize = fields.map(|(name, value)| name.len() + value.len() + 96).sum();
        size_of::<Exchange>() + self.target.len() + fields + 2048
    }

    /// The record; what only the session knows is to be filled in. `unnamed` stands for an authority
    /// that the request does not have.
    pub(super) fn call(self, outcome: CallOutcome, unnamed: &str, plaintext: bool) -> Call {
        let scheme = self.scheme.unwrap_or(if plaintext { "http" } else { "https" });
        let authority = self.authority.as_deref().unwrap_or(unnamed);
        let (url, url_cut) = url(scheme, authority, &self.target);
        let Fields { anthropic_version, anthropic_beta, model } =
            self.scanner.map(Scanner::found).unwrap_or_default();
        let complete = matches!(outcome, CallOutcome::Complete) && self.response_ended;
        Call {
            t_ns: self.begun_ns,
            process: crate::model::ProcessKey { pid: 0, start_ns: 0 },
            served: false,
            joined: self.joined,
            method: self.method,
            url,
            url_cut,
            http_version: self.version.into(),
            status: self.status,
            request_id: head::request_id(&self.response),
            has_authorization: self.request.has_authorization,
            has_aws_sig: self.request.has_aws_sig || self.aws_query,
            request_headers: self.request.headers,
            response_headers: self.response,
            ttfb_ms: self.first_ns.map(|first_ns| ms(self.begun_ns, first_ns)),
            total_ms: complete.then(|| ms(self.begun_ns, self.last_ns)),
            setup_ms: None,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            anthropic_version,
            anthropic_beta,
            model,
            session: 0,
            plaintext,
            http2_stream: self.http2_stream,
            connection: None,
            outcome,
        }
    }
}

/// Milliseconds between two times.
pub(super) fn ms(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e6
}

/// RFC 9112, 3.2: scheme and authority, where the target has them, and the path.
fn split_target<'a>(
    method: &str,
    target: &'a str,
) -> (Option<&'static str>, Option<&'a [u8]>, &'a str) {
    // With a path it is for a websocket (RFC 8441).
    if method == "CONNECT" && !target.starts_with('/') {
        return (None, (!target.is_empty()).then_some(target.as_bytes()), "");
    }
    let absolute = target.split_once("://").filter(|_| !target.starts_with('/'));
    let Some((scheme, rest)) = absolute else { return (None, None, target) };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => "http",
        _ => "https",
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    (Some(scheme), Some(&rest.as_bytes()[..end]), &rest[end..])
}

/// Without user and password.
fn host_and_port(authority: &[u8]) -> String {
    let place = authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    printable(place.trim_ascii()).to_ascii_lowercase()
}

fn url(scheme: &str, authority: &str, target: &str) -> (String, bool) {
    let port = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(port).unwrap_or(authority);
    let slash = if target.starts_with(['/', '?']) || target.is_empty() { "" } else { "/" };
    let mut url = printable(format!("{scheme}://{authority}{slash}{target}").as_bytes());
    let cut = url.len() > URL_MAX_BYTES;
    url.truncate(URL_MAX_BYTES);
    (url, cut)
}
