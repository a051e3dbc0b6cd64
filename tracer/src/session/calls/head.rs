//! What is kept of the head of a message: fields of a list, and of those no secret.

use std::collections::BTreeMap;

use super::redact::{self, REDACTED};
use crate::protocol::printable;

/// How a field is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Without words that look like secrets.
    Value,
    /// An id that somebody gave: it may look random.
    Id,
    /// Its scheme only, and that only if it is a registered one.
    Scheme,
    /// That it was there.
    Presence,
    /// A host and a port.
    Host,
}

/// All that is kept of requests, and how.
const REQUEST: [(&str, Keep); 62] = [
    ("accept", Keep::Value),
    ("amz-sdk-invocation-id", Keep::Id),
    ("amz-sdk-request", Keep::Value),
    ("anthropic-beta", Keep::Value),
    ("anthropic-client-platform", Keep::Value),
    ("anthropic-dangerous-direct-browser-access", Keep::Value),
    ("anthropic-version", Keep::Value),
    ("api-key", Keep::Presence),
    ("authorization", Keep::Scheme),
    ("connection", Keep::Value),
    ("content-encoding", Keep::Value),
    ("content-length", Keep::Value),
    ("content-type", Keep::Value),
    ("cookie", Keep::Presence),
    ("dpop", Keep::Presence),
    ("expect", Keep::Value),
    ("host", Keep::Host),
    ("mcp-method", Keep::Value),
    ("mcp-name", Keep::Value),
    ("mcp-protocol-version", Keep::Value),
    ("mcp-session-id", Keep::Presence),
    ("openai-beta", Keep::Value),
    ("proxy-authorization", Keep::Scheme),
    ("te", Keep::Value),
    ("transfer-encoding", Keep::Value),
    ("upgrade", Keep::Value),
    ("user-agent", Keep::Value),
    ("x-amz-date", Keep::Value),
    ("x-amz-security-token", Keep::Presence),
    ("x-amz-target", Keep::Value),
    ("x-amz-user-agent", Keep::Value),
    ("x-amzn-bedrock-accept", Keep::Value),
    ("x-amzn-bedrock-content-type", Keep::Value),
    ("x-amzn-bedrock-guardrailidentifier", Keep::Value),
    ("x-amzn-bedrock-guardrailversion", Keep::Value),
    ("x-amzn-bedrock-performanceconfig-latency", Keep::Value),
    ("x-amzn-bedrock-service-tier", Keep::Value),
    ("x-amzn-bedrock-trace", Keep::Value),
    ("x-api-key", Keep::Presence),
    ("x-app", Keep::Value),
    ("x-client-request-id", Keep::Id),
    ("x-goog-api-client", Keep::Value),
    ("x-goog-api-key", Keep::Presence),
    ("x-http-method-override", Keep::Value),
    ("x-mcp-insiders", Keep::Value),
    ("x-mcp-lockdown", Keep::Value),
    ("x-mcp-readonly", Keep::Value),
    ("x-mcp-tools", Keep::Value),
    ("x-mcp-toolsets", Keep::Value),
    ("x-request-id", Keep::Id),
    ("x-stainless-arch", Keep::Value),
    ("x-stainless-async", Keep::Value),
    ("x-stainless-helper", Keep::Value),
    ("x-stainless-helper-method", Keep::Value),
    ("x-stainless-lang", Keep::Value),
    ("x-stainless-os", Keep::Value),
    ("x-stainless-package-version", Keep::Value),
    ("x-stainless-read-timeout", Keep::Value),
    ("x-stainless-retry-count", Keep::Value),
    ("x-stainless-runtime", Keep::Value),
    ("x-stainless-runtime-version", Keep::Value),
    ("x-stainless-timeout", Keep::Value),
];

/// The same of responses.
const RESPONSE: [(&str, Keep); 28] = [
    ("cf-ray", Keep::Id),
    ("content-encoding", Keep::Value),
    ("content-length", Keep::Value),
    ("content-type", Keep::Value),
    ("mcp-session-id", Keep::Presence),
    ("request-id", Keep::Id),
    ("retry-after", Keep::Value),
    ("server", Keep::Value),
    ("set-cookie", Keep::Presence),
    ("transfer-encoding", Keep::Value),
    ("upgrade", Keep::Value),
    ("via", Keep::Value),
    ("x-amz-apigw-id", Keep::Id),
    ("x-amz-cf-id", Keep::Id),
    ("x-amz-id-2", Keep::Id),
    ("x-amz-request-id", Keep::Id),
    ("x-amzn-bedrock-cache-read-input-token-count", Keep::Value),
    ("x-amzn-bedrock-cache-write-input-token-count", Keep::Value),
    ("x-amzn-bedrock-content-type", Keep::Value),
    ("x-amzn-bedrock-input-token-count", Keep::Value),
    ("x-amzn-bedrock-invocation-latency", Keep::Value),
    ("x-amzn-bedrock-output-token-count", Keep::Value),
    ("x-amzn-bedrock-performanceconfig-latency", Keep::Value),
    ("x-amzn-bedrock-service-tier", Keep::Value),
    ("x-amzn-errortype", Keep::Value),
    ("x-amzn-requestid", Keep::Id),
    ("x-github-request-id", Keep::Id),
    ("x-request-id", Keep::Id),
];

/// Fields of a response that are its request's id, the best first.
const REQUEST_IDS: [&str; 6] = [
    "x-amzn-requestid",
    "request-id",
    "x-amz-request-id",
    "x-request-id",
    "x-github-request-id",
    "cf-ray",
];

/// <https://www.iana.org/assignments/http-authschemes>, with what AWS and others use beside those. A
/// first word that is none of these can be the secret itself.
const SCHEMES: [&str; 20] = [
    "AWS",
    "AWS4-ECDSA-P256-SHA256",
    "AWS4-HMAC-SHA256",
    "ApiKey",
    "Basic",
    "Bearer",
    "Concealed",
    "DPoP",
    "Digest",
    "GNAP",
    "HOBA",
    "Mutual",
    "NTLM",
    "Negotiate",
    "OAuth",
    "PrivateToken",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    "SharedKey",
    "Token",
];

/// A longer value is cut.
const VALUE_MAX_BYTES: usize = 512;
/// Fields kept of one head.
const KEPT_MAX: usize = 64;

/// What is kept of a head.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kept {
    pub(super) headers: BTreeMap<String, String>,
    pub(super) has_authorization: bool,
    /// Signed as AWS does, in a header.
    pub(super) has_aws_sig: bool,
}

pub(super) fn request<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Kept {
    let mut kept = Kept::default();
    for (name, value) in fields {
        if name.eq_ignore_ascii_case(b"authorization") {
            kept.has_authorization = true;
            let value = value.trim_ascii_start().to_ascii_uppercase();
            kept.has_aws_sig |= value.starts_with(b"AWS4-HMAC-SHA256")
                || value.starts_with(b"AWS4-ECDSA-P256-SHA256");
        }
        keep(&REQUEST, name, value, &mut kept.headers);
    }
    kept
}

pub(super) fn response<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    fields.for_each(|(name, value)| keep(&RESPONSE, name, value, &mut headers));
    headers
}

/// Of the kept fields of a response.
pub(super) fn request_id(headers: &BTreeMap<String, String>) -> Option<String> {
    REQUEST_IDS.iter().find_map(|name| headers.get(*name)).cloned()
}

fn keep(list: &[(&str, Keep)], name: &[u8], value: &[u8], to: &mut BTreeMap<String, String>) {
    let Ok(name) = std::str::from_utf8(name).map(str::to_ascii_lowercase) else { return };
    let Some((_, how)) = list.iter().find(|(known, _)| name == *known) else { return };
    let text = printable(&value[..value.len().min(VALUE_MAX_BYTES)]);
    let text = text.trim();
    let value = match how {
        Keep::Value => redact::words(text),
        Keep::Id => redact::id(text),
        // Some clients put there what stands before the host in a URL: a user and a password.
        Keep::Host => host(text.rsplit('@').next().unwrap_or_default()),
        Keep::Presence => REDACTED.into(),
        Keep::Scheme => scheme(text).into(),
    };
    if to.len() < KEPT_MAX || to.contains_key(&name) {
        // Fields of one name are one field with a list (RFC 9110, 5.3).
        let known = to.entry(printable(name.as_bytes())).or_default();
        if known.is_empty() {
            *known = value;
        } else if *how == Keep::Value && known.len() + value.len() < VALUE_MAX_BYTES {
            known.push_str(", ");
            known.push_str(&value);
        }
    }
}

/// A port is no secret, whatever the host is called.
fn host(place: &str) -> String {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match place.rsplit_once(':').filter(|(_, port)| is_port(port)) {
        Some((host, port)) => format!("{}:{port}", redact::words(host)),
        None => redact::words(place),
    }
}

fn scheme(value: &str) -> &'static str {
    let first = value.split(' ').next().unwrap_or_default();
    SCHEMES.into_iter().find(|known| known.eq_ignore_ascii_case(first)).unwrap_or(REDACTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_kept_and_no_secret_of_it() {
        let fields: [(&[u8], &[u8]); 10] = [
            (b"Authorization", b"Bearer sk-ant-1"),
            (b"Proxy-Authorization", b"hunter2hunter2"),
            (b"Cookie", b"a=b"),
            (b"X-Secret", b"x"),
            (b"User-Agent", b"claude/1.0 ghp_0123456789abcdef"),
            (b"anthropic-beta", b"one"),
            (b"Anthropic-Beta", b"two"),
            (b"x-stainless-lang", b"js\x1b[2J"),
            (b"x-api-key", b"key"),
            (b"Host", b"user:hunter2@example.com:8443"),
        ];
        let kept = request(fields.into_iter());
        let shown: Vec<String> =
            kept.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown,
            [
                "anthropic-beta=one, two",
                "authorization=Bearer",
                "cookie=REDACTED",
                "host=example.com:8443",
                "proxy-authorization=REDACTED",
                "user-agent=claude/1.0 REDACTED",
                "x-api-key=REDACTED",
                "x-stainless-lang=js\\027[2J",
            ]
        );
        assert!(kept.has_authorization && !kept.has_aws_sig);
        for scheme in ["AWS4-HMAC-SHA256 Credential=A", "AWS4-ECDSA-P256-SHA256 Credential=A"] {
            let signed = request([(&b"authorization"[..], scheme.as_bytes())].into_iter());
            assert!(signed.has_aws_sig);
            assert_eq!(signed.headers["authorization"], scheme.split(' ').next().unwrap());
        }
    }

    #[test]
    fn ids_are_found_in_order() {
        let fields: [(&[u8], &[u8]); 3] =
            [(b"x-request-id", b"2"), (b"x-amzn-RequestId", b"0a1b-2"), (b"set-cookie", b"secret")];
        let headers = response(fields.into_iter());
        assert_eq!(request_id(&headers).as_deref(), Some("0a1b-2"));
        assert_eq!(headers["set-cookie"], "REDACTED");
    }

    #[test]
    fn lists_are_sorted_and_each_name_is_there_once() {
        for list in [&REQUEST[..], &RESPONSE[..]] {
            assert!(list.windows(2).all(|pair| pair[0].0 < pair[1].0), "{list:?}");
        }
    }
}
