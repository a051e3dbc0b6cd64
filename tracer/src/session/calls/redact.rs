//! Takes out of URLs and header values what could open a door.
//!
//! A value goes when its name says that it is a secret, or when it looks like one. Both err on the side
//! of taking out too much: a URL that lost a cursor still says what was called.

/// What stands in the place of what was taken out.
pub(super) const REDACTED: &str = "REDACTED";

/// Names of query parameters, in lower case and of letters and digits only, whose values go: those that
/// contain one of these...
const NAMES_WITH: [&str; 14] = [
    "token",
    "secret",
    "signature",
    "password",
    "passwd",
    "credential",
    "authorization",
    "session",
    "jwt",
    "assertion",
    "cookie",
    "bearer",
    "apikey",
    "verifier",
];
/// ...end in this, or are one of these.
const NAME_END: &str = "key";
const NAMES: [&str; 14] = [
    "sig", "sign", "code", "pwd", "pass", "auth", "sid", "otp", "pin", "sas", "hmac", "hash",
    "state", "nonce",
];

/// What tokens of known kinds begin with, and how long one is at least.
const TOKENS: [(&str, usize); 30] = [
    ("sk-", 16),
    ("sk_", 16),
    ("rk_", 16),
    ("pk_", 16),
    ("whsec_", 16),
    ("ghp_", 16),
    ("gho_", 16),
    ("ghu_", 16),
    ("ghs_", 16),
    ("ghr_", 16),
    ("github_pat_", 16),
    ("glpat-", 16),
    ("xoxa-", 12),
    ("xoxb-", 12),
    ("xoxp-", 12),
    ("xoxr-", 12),
    ("xoxs-", 12),
    ("xapp-", 12),
    ("AKIA", 16),
    ("ASIA", 16),
    ("ABIA", 16),
    ("ACCA", 16),
    ("AIza", 20),
    ("ya29.", 16),
    ("eyJ", 16),
    ("npm_", 16),
    ("hf_", 16),
    ("SG.", 16),
    ("pypi-", 16),
    ("glsa_", 16),
];

/// A path and query without the values of secrets.
pub(super) fn target(target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) =
        target.split_once('?').map_or((target, None), |(path, rest)| (path, Some(rest)));
    let mut text: String = path.split('/').map(segment).collect::<Vec<_>>().join("/");
    if let Some(query) = query {
        text.push('?');
        text.push_str(&query.split('&').map(parameter).collect::<Vec<_>>().join("&"));
    }
    text
}

/// A header value without the words that look like secrets.
pub(super) fn words(value: &str) -> String {
    let shown =
        |word: &str| if is_token(word) || is_random(word, 32) { REDACTED } else { word }.to_owned();
    value.split(' ').map(shown).collect::<Vec<_>>().join(" ")
}

/// A value that is an id of somebody's own making, so it may be random: without tokens of known kinds.
pub(super) fn id(value: &str) -> String {
    if value.split([' ', ',', '=', ':']).any(is_token) { REDACTED.into() } else { value.into() }
}

/// Whether the query is signed as AWS signs it.
pub(super) fn has_aws_signature(target: &str) -> bool {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        decoded(name).eq_ignore_ascii_case("x-amz-algorithm") && value.starts_with("AWS4-")
    })
}

fn segment(segment: &str) -> String {
    let plain = decoded(segment);
    let hides = plain.split([':', ';', '=', '@']).any(is_token)
        || is_token(&plain)
        || is_random(&plain, 24) && !plain.contains('.');
    if hides { REDACTED.into() } else { segment.into() }
}

fn parameter(pair: &str) -> String {
    let Some((name, value)) = pair.split_once('=') else {
        // A query that is one word can be a token too.
        return segment(pair);
    };
    let plain = decoded(value);
    let hides = is_secret_name(&decoded(name))
        || plain.split([' ', ',', ':']).any(is_token)
        || is_random(&plain, 32);
    let value = if hides && !value.is_empty() { REDACTED } else { value };
    format!("{}={value}", segment(name))
}

fn is_secret_name(name: &str) -> bool {
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    NAMES_WITH.iter().any(|part| name.contains(part))
        || name.ends_with(NAME_END)
        || NAMES.contains(&name.as_str())
}

fn is_token(word: &str) -> bool {
    let bot = word.strip_prefix("bot").is_some_and(|rest| {
        rest.split_once(':')
            .is_some_and(|(id, _)| id.len() >= 6 && id.bytes().all(|b| b.is_ascii_digit()))
    });
    bot || TOKENS.iter().any(|(start, least)| word.len() >= *least && word.starts_with(start))
}

/// So long, and of the letters that random bytes are written in.
fn is_random(word: &str, least: usize) -> bool {
    let is_written = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_.~-".contains(&byte);
    let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    word.len() >= least
        && word.bytes().all(is_written)
        && has(u8::is_ascii_digit)
        && (has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase)
            || word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// With percent escapes resolved, those of other bytes than ASCII left as they are.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let escape = (*byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .filter(u8::is_ascii);
        match escape {
            Some(plain) => {
                out.push(plain.into());
                at += 3;
            }
            None => {
                let rest = text.get(at..).and_then(|rest| rest.chars().next());
                out.extend(rest);
                at += rest.map_or(1, char::len_utf8);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_urls_go_and_the_rest_stays() {
        let check = |text: &str, expected: &str| assert_eq!(target(text), expected);
        for plain in [
            "/v1/messages?beta=true",
            "/model/us.anthropic.claude-sonnet-4-20250514-v1%3A0/invoke-with-response-stream",
            "/.well-known/oauth-protected-resource/mcp/readonly",
            "/api/event_logging/batch",
            "/guardrail/abc123/version/1?x=&y",
            "*",
            "/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-SignedHeaders=host&X-Amz-Date=20260101T000000Z",
        ] {
            check(plain, plain);
        }
        check(
            "/b?X-Amz-Signature=abc&X-Amz-Security-Token=x%2F&x-amz-credential=AKIA1/2&n=1#f",
            "/b?X-Amz-Signature=REDACTED&X-Amz-Security-Token=REDACTED&x-amz-credential=REDACTED&n=1",
        );
        check("/cb?code=abc&state=1&%6bey=v", "/cb?code=REDACTED&state=REDACTED&%6bey=REDACTED");
        check("/bot123456789:AAE-xyz/send", "/REDACTED/send");
        check("/x/sk-ant-api03-abcdefgh/y", "/x/REDACTED/y");
        check("/x/%73k-ant-api03-abcdefgh/y", "/x/REDACTED/y");
        check("/services/T0/B0/aB3dEfGhIjKlMnOpQrStUvWx", "/services/T0/B0/REDACTED");
        check("/?q=ghp_abcdefghijklmnop", "/?q=REDACTED");
        check("/?q=0123456789abcdef0123456789abcdef", "/?q=REDACTED");
        check("/?eyJhbGciOiJIUzI1NiJ9.e30.x", "/?REDACTED");
        check("/\u{fc}%\u{fc}%zz%f", "/\u{fc}%\u{fc}%zz%f");
    }

    #[test]
    fn signed_queries_are_known() {
        assert!(has_aws_signature("/a?x=1&X-Amz-Algorithm=AWS4-HMAC-SHA256"));
        assert!(has_aws_signature("/a?X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256"));
        assert!(!has_aws_signature("/X-Amz-Algorithm=AWS4-HMAC-SHA256"));
    }
}
