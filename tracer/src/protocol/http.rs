//! The head of an HTTP/1 request.

use super::{Reading, host_name, printable};

/// Header fields of a head that is read. Servers allow about a hundred.
const FIELDS_MAX: usize = 128;
/// The longest method in use is a third of this.
const METHOD_MAX_BYTES: usize = 48;
/// What HTTP/2 without TLS begins with.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that begin like one of these and go on differently are worth a word.
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub method: String,
    /// Without its port. Of a request to a proxy, whom the proxy is to ask.
    pub host: Option<String>,
    pub bytes: usize,
}

/// The request head at the beginning of `bytes`.
pub fn head(bytes: &[u8]) -> Reading<Head> {
    if bytes.len() >= 4 && HTTP2_PREFACE.starts_with(&bytes[..bytes.len().min(HTTP2_PREFACE.len())])
    {
        return Reading::Bad("HTTP/2 without TLS".into());
    }
    let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if method.is_empty() || method.len() > METHOD_MAX_BYTES || !method.iter().all(is_token) {
        return Reading::No;
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => match host(&request) {
            Ok(host) => Reading::Done(Head { method: printable(method), host, bytes: len }),
            Err(why) => Reading::Bad(why.into()),
        },
        Ok(httparse::Status::Partial) => Reading::Partial,
        Err(error) if is_known(method) => {
            Reading::Bad(format!("it begins like an HTTP request: {error}"))
        }
        Err(_) => Reading::No,
    }
}

/// Whether bytes that are not a whole head were meant to become one.
pub fn looks_like(bytes: &[u8]) -> bool {
    let mut words = bytes.split(|byte| *byte == b' ');
    words.next().is_some_and(is_known) && words.next().is_some()
}

fn is_known(method: &[u8]) -> bool {
    METHODS.iter().any(|known| known.as_bytes() == method)
}

fn host(request: &httparse::Request<'_, '_>) -> Result<Option<String>, &'static str> {
    let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    let field = hosts.next().map(|field| field.value);
    // RFC 9112, 3.2: servers must refuse such a request, and not all do.
    if hosts.next().is_some() {
        return Err("an HTTP request with two Host fields");
    }
    let target = request.path.unwrap_or_default();
    // RFC 9112, 3.2.2: a request's own target counts more than its Host.
    let authority = if request.method == Some("CONNECT") {
        Some(target.as_bytes())
    } else if let Some((_, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) {
        Some(rest.split(['/', '?', '#']).next().unwrap_or_default().as_bytes())
    } else {
        field
    };
    Ok(authority.map(without_port).filter(|host| !host.is_empty()))
}

/// The host of an authority, that may have a user before and a port behind it.
fn without_port(authority: &[u8]) -> String {
    let host = authority.trim_ascii();
    let host = host.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    if host.first() == Some(&b'[') {
        let end = host.iter().position(|byte| *byte == b']').map_or(host.len(), |at| at + 1);
        return printable(&host[..end]).to_ascii_lowercase();
    }
    host_name(host.split(|byte| *byte == b':').next().unwrap_or_default())
}
