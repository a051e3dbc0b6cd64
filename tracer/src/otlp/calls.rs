//! Log records of HTTP calls, and of where some may be missing.

use super::{
    logs::{Logs, milliseconds},
    message::{LogRecord, Severity},
};
use crate::record::schema::{Call, CallGap, CallOutcome, TlsLibrary, TlsReading};

impl Logs {
    pub(super) fn call(&self, call: &Call) -> LogRecord {
        let mut attributes = self.process(call.process);
        let status = call.status.map_or("no response".to_owned(), |status| status.to_string());
        let (outcome, why) = match &call.outcome {
            CallOutcome::Complete => ("complete", None),
            CallOutcome::Upgraded { to } => ("upgraded", Some(to)),
            CallOutcome::Aborted { why } => ("aborted", Some(why)),
            CallOutcome::Partial { why } => ("partial", Some(why)),
        };
        let mut body = format!("{} {}: {status}", call.method, call.url);
        if let Some(why) = why {
            body = format!("{body}, {outcome}: {why}");
            attributes.text("tracer.call.outcome_reason", &**why);
        }
        attributes.text("tracer.call.outcome", outcome);
        if call.joined {
            attributes.flag("tracer.call.joined", true);
        }
        attributes
            .text("http.request.method", &*call.method)
            .text("url.full", &*call.url)
            .text("network.protocol.name", "http")
            .text("network.protocol.version", &*call.http_version)
            .number("http.request.body.size", call.request_bytes)
            .number("http.response.body.size", call.response_bytes)
            .text("tracer.call.role", if call.served { "server" } else { "client" })
            .flag("tracer.call.has_authorization", call.has_authorization)
            .flag("tracer.call.has_aws_sig", call.has_aws_sig);
        if let Some((scheme, rest)) = call.url.split_once("://") {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
            let (host, port) = host_and_port(authority, scheme);
            attributes.text("url.scheme", scheme).text("server.address", host);
            if let Some(port) = port {
                attributes.number("server.port", port);
            }
        }
        if let Some(status) = call.status {
            attributes.number("http.response.status_code", status);
        }
        for (name, value) in &call.request_headers {
            attributes.texts(&format!("http.request.header.{name}"), std::slice::from_ref(value));
        }
        for (name, value) in &call.response_headers {
            attributes.texts(&format!("http.response.header.{name}"), std::slice::from_ref(value));
        }
        if let Some(id) = &call.request_id {
            attributes.text("tracer.call.request_id", &**id);
        }
        for (key, ms) in
            [("tracer.call.ttfb_ms", call.ttfb_ms), ("tracer.call.total_ms", call.total_ms)]
        {
            if let Some(ms) = ms {
                attributes.double(key, ms);
            }
        }
        if let Some(model) = &call.model {
            attributes.text("gen_ai.request.model", &**model);
        }
        let failed = call.status.is_some_and(|status| status >= 400);
        let error = match &call.outcome {
            CallOutcome::Aborted { .. } => Some("aborted".to_owned()),
            // The conventions: the status code as text, where it is one of an error.
            _ if failed => Some(status),
            CallOutcome::Complete | CallOutcome::Upgraded { .. } | CallOutcome::Partial { .. } => {
                None
            }
        };
        let severity = if error.is_some() { Severity::Warn } else { Severity::Info };
        if let Some(error) = error {
            attributes.text("error.type", error);
        }
        self.log(call.t_ns, "tracer.call", severity, body, attributes)
    }

    pub(super) fn call_gap(&self, gap: &CallGap) -> LogRecord {
        let mut attributes = self.process(gap.process);
        let open = gap.connection.and_then(|joined| self.open.get(&joined.id));
        let destination = open.and_then(|open| open.destination);
        let name = open.and_then(|open| open.name.as_deref());
        let body = format!("{}: calls may be missing: {}", Self::name(&attributes), gap.why);
        attributes.server(name, destination);
        if let Some(to) = destination {
            attributes.peer(to);
        }
        attributes
            .text("tracer.call_gap.reason", &*gap.why)
            .flag("tracer.call_gap.plaintext", gap.plaintext);
        self.log(gap.t_ns, "tracer.call_gap", Severity::Warn, body, attributes)
    }

    /// None for one that is read from its beginning.
    pub(super) fn tls_library(&mut self, library: &TlsLibrary) -> Option<LogRecord> {
        let mut attributes = self.process(library.process);
        let path = library.path.lossy();
        let who = Self::name(&attributes).to_owned();
        let (reading, said) = match &library.reading {
            TlsReading::Complete => return None,
            TlsReading::From { t_ns } => {
                attributes.double(
                    "tracer.tls_library.unread_ms",
                    milliseconds(t_ns.saturating_sub(library.t_ns)),
                );
                ("from", "calls by it before then may be missing".to_owned())
            }
            TlsReading::Unreadable { library: name } => {
                if !self.unreadable.insert(library.file) && !library.executed {
                    return None;
                }
                attributes.text("tracer.tls_library.name", &**name);
                let whose = if library.executed {
                    "its calls are"
                } else {
                    "calls through it, of any process, are"
                };
                ("unreadable", format!("{whose} not seen ({name})"))
            }
            TlsReading::Failed { why } => {
                attributes.text("tracer.tls_library.reason", &**why);
                ("failed", format!("its calls are not recorded: {why}"))
            }
        };
        attributes
            .text("tracer.tls_library.path", &*path)
            .text("tracer.tls_library.reading", reading)
            .flag("tracer.tls_library.executed", library.executed);
        let body = format!("{who}: TLS library {path}: {said}");
        Some(self.log(library.t_ns, "tracer.tls_library", Severity::Warn, body, attributes))
    }
}

/// Of the authority of a URL.
fn host_and_port<'a>(authority: &'a str, scheme: &str) -> (&'a str, Option<u16>) {
    let usual = match scheme {
        "https" | "wss" => Some(443),
        "http" | "ws" => Some(80),
        _ => None,
    };
    // The colons of an IPv6 address are in brackets.
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        Some(_) | None => (authority, usual),
    }
}
