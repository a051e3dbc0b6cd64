//! Takes out of URLs and header values what could open a door.
//!
//! The value of a query parameter stays if it is plain (a number, some words) and its name does not say that it
//! is a secret, or if its name is one of a list. A part of a path stays unless it looks like a secret, or stands
//! behind one that announces it. All err on the side of taking out too much: a URL that lost a cursor still says
//! what was called.

mod form;

/// What stands in the place of what was taken out.
pub(super) const REDACTED: &str = "REDACTED";

/// Names of secrets, in lower case and of letters and digits only: those that contain one of these...
const NAMES_WITH: [&str; 26] = [
    "token",
    "secret",
    "signature",
    "passw",
    "passphrase",
    "cred",
    "sessid",
    "keyid",
    "totp",
    "cvv",
    "seed",
    "mnemonic",
    "authorization",
    "session",
    "jwt",
    "assertion",
    "cookie",
    "bearer",
    "apikey",
    "verifier",
    "saml",
    "ticket",
    "passcode",
    "verification",
    "licen",
    "invit",
];
/// ...end in one of these, whatever number is behind it, or whose last word is one of these.
const NAME_ENDS: [&str; 6] = ["key", "keys", "pass", "pwd", "pin", "code"];
const NAMES: [&str; 24] = [
    "sig", "sign", "code", "pwd", "pw", "pass", "auth", "sid", "otp", "pin", "sas", "hmac", "mac",
    "hash", "state", "nonce", "tok", "sk", "pat", "mfa", "2fa", "private", "refresh", "access",
];

/// What a part of a path announces by its name, beside the names of secrets.
const PLACES: [&str; 12] = [
    "sess",
    "unlock",
    "reset",
    "confirm",
    "verify",
    "activate",
    "activation",
    "unsubscribe",
    "magic",
    "keys",
    "share",
    "login",
];
/// Parts of a path that are what is done there, or to what.
const VERBS: [&str; 26] = [
    "authorize",
    "callback",
    "create",
    "current",
    "delete",
    "device",
    "events",
    "info",
    "introspect",
    "list",
    "login",
    "logout",
    "me",
    "messages",
    "new",
    "oauth",
    "oauth2",
    "register",
    "revoke",
    "rotate",
    "search",
    "start",
    "status",
    "stop",
    "userinfo",
    "validate",
];
/// What secrets are called there.
const SECRETS: [&str; 10] = [
    "credentials",
    "key",
    "keys",
    "password",
    "secret",
    "secrets",
    "session",
    "sessions",
    "token",
    "tokens",
];
/// What the parts of a path behind it are secrets of.
const HOOKS: [&str; 5] = ["hook", "hooks", "webhook", "webhooks", "webhookb2"];

/// Names of query parameters, in lower case, whose values stay although they are not plain: none is a secret
/// wherever it is known.
const KEPT: [&str; 15] = [
    "$alt",
    "action",
    "alt",
    "api-version",
    "beta",
    "content-type",
    "encoding",
    "format",
    "mime-type",
    "response-content-type",
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
];

/// What tokens of known kinds begin with, and how long one is at least.
const TOKENS: [(&str, usize); 52] = [
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
    ("xoxe", 12),
    ("gsk_", 16),
    ("r8_", 16),
    ("nvapi-", 16),
    ("pplx-", 16),
    ("tvly-", 16),
    ("shpat_", 16),
    ("dop_v1_", 16),
    ("dckr_pat_", 16),
    ("lin_api_", 16),
    ("ATATT", 16),
    ("ntn_", 16),
    ("figd_", 16),
    ("sntrys_", 16),
    ("IQoJ", 16),
    ("FwoG", 16),
    ("AQoDYXdz", 12),
    ("GOCSPX-", 16),
    ("EAAC", 14),
    ("pat-eu1-", 16),
    ("pat-na1-", 16),
    ("tskey-", 16),
];

/// A path and query without the values of secrets.
pub(super) fn target(target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) =
        target.split_once('?').map_or((target, None), |(path, rest)| (path, Some(rest)));
    let (mut text, mut before, mut behind_hook) = (String::new(), "", false);
    for (at, part) in path.split('/').enumerate() {
        if at > 0 {
            text.push('/');
        }
        behind_hook |= HOOKS.contains(&before.to_ascii_lowercase().as_str());
        let before_it = decoded(before.split(';').next().unwrap_or_default()).to_ascii_lowercase();
        let announced = if behind_hook || is_named_for_secret(&before_it) {
            Announced::Secret
        } else if PLACES.contains(&before_it.as_str())
            || is_secret_name(&before_it) && !is_program(&before_it)
        {
            Announced::Unless(is_plain)
        } else {
            Announced::Nothing
        };
        // RFC 3986, 3.3: a part can have parameters, too.
        let mut pieces = part.split(';');
        text.push_str(&segment(pieces.next().unwrap_or_default(), announced));
        for piece in pieces {
            text.push(';');
            text.push_str(&parameter(piece));
        }
        before = part;
    }
    if let Some(query) = query {
        text.push('?');
        for piece in query.split_inclusive(['&', ';']) {
            let pair = piece.trim_end_matches(['&', ';']);
            text.push_str(&parameter(pair));
            text.push_str(&piece[pair.len()..]);
        }
    }
    text
}

/// A header value without what looks like a secret, or stands behind the name of one.
pub(super) fn words(value: &str) -> String {
    let mut text = String::new();
    for word in value.split_inclusive([' ', '\t']) {
        let bare = word.trim_end_matches([' ', '\t']);
        let plain = decoded(bare);
        // A URL with a user and a password is all of it taken out.
        let hides = is_token(&plain)
            || is_random(&plain, 32)
            || form::is_made_with_signs(&plain)
            || plain.contains("://") && plain.contains('@')
            || plain != bare && pieces(&plain) != plain;
        text.push_str(if hides { REDACTED } else { bare });
        text.push_str(&word[bare.len()..]);
    }
    pieces(&text)
}

/// What a piece of a header value says of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    /// A secret has this name: its value follows behind `=` or `:`, or also behind a blank.
    Name {
        also_blank: bool,
    },
    /// A secret follows, in these quotes.
    Value(Option<char>),
}

fn pieces(value: &str) -> String {
    /// Values of secrets can have the other separators in them.
    const ENDS: [char; 12] = [' ', '\t', ';', ',', '"', '\'', ')', ']', '}', '>', '&', '|'];
    let (mut text, mut rest, mut said) = (String::new(), value, Said::Nothing);
    while let Some(first) = rest.chars().next() {
        if is_separator(first) {
            said = said.behind(first);
            text.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let piece = &rest[..rest.find(is_separator).unwrap_or(rest.len())];
        let mut length = piece.len();
        match said {
            // The scheme of `authorization: Bearer x` is no secret.
            Said::Value(_) if is_scheme(piece) => text.push_str(piece),
            Said::Value(quote) => {
                let end = match quote {
                    Some(quote) => rest.find(quote),
                    None => rest.find(ENDS),
                };
                length = end.unwrap_or(rest.len());
                text.push_str(REDACTED);
                said = Said::Nothing;
            }
            Said::Nothing | Said::Name { .. } => {
                let hides = is_random(piece, 32) || hides_token(piece);
                text.push_str(if hides { REDACTED } else { piece });
                said = if is_scheme(piece) || is_secret_name(piece) {
                    Said::Name { also_blank: is_scheme(piece) || is_announcement(piece) }
                } else {
                    Said::Nothing
                };
            }
        }
        rest = &rest[length..];
    }
    text
}

impl Said {
    fn behind(self, separator: char) -> Said {
        match (self, separator) {
            (Said::Name { also_blank: true }, ' ' | '\t') | (Said::Name { .. }, '=' | ':') => {
                Said::Value(None)
            }
            // `"name": "value"`, and `name[]=value`.
            (Said::Name { .. }, '"' | '\'' | ' ' | '\t' | '[' | ']') => self,
            (Said::Value(None), '"' | '\'') => Said::Value(Some(separator)),
            (Said::Value(_), ';' | ',' | '&' | '|' | ')' | ']' | '}' | '>')
            | (Said::Name { .. }, _) => Said::Nothing,
            (Said::Value(_) | Said::Nothing, _) => self,
        }
    }
}

/// What stands before a secret in `authorization`, and by mistake elsewhere.
fn is_scheme(word: &str) -> bool {
    const SCHEMES: [&str; 10] = [
        "apikey",
        "basic",
        "bearer",
        "digest",
        "dpop",
        "negotiate",
        "ntlm",
        "privatetoken",
        "sharedkey",
        "token",
    ];
    SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// Names of which not only a sign tells that a value follows: `password x`.
fn is_announcement(name: &str) -> bool {
    const ENDS: [&str; 10] = [
        "accesskey",
        "apikey",
        "passcode",
        "passphrase",
        "passwd",
        "password",
        "privatekey",
        "secret",
        "secretkey",
        "token",
    ];
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    ENDS.iter().any(|end| name.to_ascii_lowercase().ends_with(end))
}

/// A value that is an id of somebody's own making, so it may be random: without tokens of known kinds.
pub(super) fn id(value: &str) -> String {
    let plain = decoded(value);
    let hides = plain.contains("://") || plain.split(is_separator).any(is_token);
    if hides { REDACTED.into() } else { value.into() }
}

/// The name of a model or a version.
pub(super) fn name(value: &str) -> String {
    let plain = decoded(value);
    let hides = plain.contains("://") || plain.split(is_separator).any(|part| is_random(part, 32));
    if hides || hides_token(&plain) { REDACTED.into() } else { value.into() }
}

fn is_separator(c: char) -> bool {
    " \t/:;,=@|&()[]{}<>\"'?#+".contains(c)
}

/// Whether the query is signed as AWS signs it.
pub(super) fn has_aws_signature(target: &str) -> bool {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        decoded(name).eq_ignore_ascii_case("x-amz-algorithm")
            && decoded(value).to_ascii_uppercase().starts_with("AWS4-")
    })
}

/// What the part of a path before another one says of it.
#[derive(Clone, Copy)]
enum Announced {
    Nothing,
    /// It may be a secret, if it is not like this.
    Unless(fn(&str) -> bool),
    Secret,
}

/// A part of a path.
fn segment(segment: &str, announced: Announced) -> String {
    // Twice, as some have it.
    let plain = decoded(&decoded(segment));
    // What stands before the host, where a whole URL is asked for.
    let user = plain.split_once('@').is_some_and(|(user, _)| user.contains(':'));
    let hides = match announced {
        Announced::Nothing => false,
        Announced::Unless(harmless) => !plain.is_empty() && !harmless(&plain),
        Announced::Secret => !is_of_path(&plain),
    };
    let hides = hides || user || hides_token(&plain);
    if hides { REDACTED.into() } else { segment.into() }
}

/// `claude_code` is no code.
fn is_program(part: &str) -> bool {
    part.ends_with("_code") || part.ends_with("-code")
}

/// Whether what follows in a path is a secret, and no folder of it.
fn is_named_for_secret(part: &str) -> bool {
    const WITH: [&str; 10] = [
        "token", "secret", "passw", "passcode", "session", "verif", "reset", "magic", "unlock",
        "invit",
    ];
    const WHOLE: [&str; 9] =
        ["apikey", "code", "key", "keys", "otp", "pass", "pin", "sess", "signature"];
    WITH.iter().any(|with| part.contains(with)) || WHOLE.contains(&part)
}

/// Whether a part of a path that a secret's name announces is one that says what is done: a word of these lists, or a
/// version.
fn is_of_path(part: &str) -> bool {
    let word = part.to_ascii_lowercase();
    let version = word.strip_prefix('v').unwrap_or("-");
    word.is_empty()
        || VERBS.contains(&&*word)
        || PLACES.contains(&&*word)
        || word.split(['_', '-']).all(|word| NAMES.contains(&word) || SECRETS.contains(&word))
        || version.len() <= 2 && version.bytes().all(|byte| byte.is_ascii_digit())
}

fn parameter(pair: &str) -> String {
    let Some((name, value)) = pair.split_once('=') else {
        // A query that is one word can be a token too.
        let stays = pair.is_empty() || is_plain(&decoded(pair));
        return if stays { pair.into() } else { REDACTED.into() };
    };
    let (name, plain) = (segment(name, Announced::Nothing), decoded(&value.replace('+', " ")));
    // Twice, as some have it.
    let known = decoded(&decoded(&name)).to_ascii_lowercase();
    let stays = if is_secret_name(&known) {
        false
    } else if KEPT.contains(&known.as_str()) {
        !hides_token(&plain)
    } else {
        is_plain(&plain)
    };
    let value = if stays || value.is_empty() { value } else { REDACTED };
    format!("{name}={value}")
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let whole: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let last = name.rsplit(|c: char| !c.is_ascii_alphanumeric()).find(|word| !word.is_empty());
    let unnumbered = whole.trim_end_matches(|c: char| c.is_ascii_digit());
    NAMES_WITH.iter().any(|part| whole.contains(part))
        || NAME_ENDS.iter().any(|end| unnumbered.ends_with(end))
        || name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "pass")
        || NAMES.contains(&unnumbered)
        || NAMES.contains(&whole.as_str())
        || last.is_some_and(|last| NAMES.contains(&last))
}

/// Some words, numbers, a date, a version: too little for a secret that nobody could guess.
fn is_plain(text: &str) -> bool {
    const BYTES_MAX: usize = 32;
    const WORDS_MAX: usize = 6;
    /// A date with the time has as many.
    const DIGITS_MAX: usize = 14;
    const LETTERS_MAX: usize = 12;
    /// Of both: `v1`, `h264`, `01T00`.
    const MIXED_MAX: usize = 5;
    /// So many of those.
    const OF_BOTH_MAX: usize = 1;
    let is_word = |word: &str| {
        let word = word.as_bytes();
        let (first, rest) = word.split_at(word.len().min(1));
        let all = |text: &[u8], is: fn(&u8) -> bool| text.iter().all(is);
        let letters = all(rest, u8::is_ascii_lowercase) && all(first, u8::is_ascii_alphabetic)
            || all(word, u8::is_ascii_uppercase);
        word.is_empty()
            || all(word, u8::is_ascii_digit)
            || letters && word.len() <= LETTERS_MAX
            || all(word, u8::is_ascii_alphanumeric) && word.len() <= MIXED_MAX
    };
    let is_between = |c: char| "-_.,: ".contains(c);
    // `01T00` is in a date; codes have several.
    let of_both = text.split(is_between).filter(|word| form::is_of_both(word)).count();
    text.len() <= BYTES_MAX
        && of_both <= OF_BOTH_MAX
        && text.bytes().filter(u8::is_ascii_digit).count() <= DIGITS_MAX
        && text.split(is_between).count() <= WORDS_MAX
        && text.split(is_between).all(is_word)
}

/// Whether a token of a known kind or something random is in it.
fn hides_token(text: &str) -> bool {
    let parts = || text.split(is_separator);
    let is_marked = |part: &str| is_token(part.trim_start_matches(['-', '_', '.']));
    is_token(text)
        || parts().any(|part| is_marked(part) || part.split(['.', '~']).any(is_marked))
        || parts()
            .flat_map(|part| part.split(['.', '~']))
            .any(|part| !form::is_uuid(part) && form::is_made(part))
        || form::is_made_with_signs(text)
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
        && (has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && !form::is_of_words(word)
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
mod tests;
