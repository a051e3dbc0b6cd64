//! Calls of HTTP/1: requests in one direction, responses in the same order in the other.

use std::{borrow::Cow, collections::VecDeque};

use super::{
    body::Body,
    exchange::{Asked, Exchange, Field, Over},
};
use crate::record::schema::CallOutcome;

/// A longer head is not read. Servers allow 8 to 64 KiB.
pub(super) const HEAD_MAX_BYTES: usize = 64 * 1024;
/// Fields of a head. Servers allow about a hundred, Node two thousand.
const FIELDS_MAX: usize = 256;
/// Requests without a response yet.
const UNDER_WAY_MAX: usize = 1024;

/// Why a stream is read no further.
pub(super) type Stop = String;

#[derive(Debug)]
pub(super) struct Http1 {
    requests: Half,
    responses: Half,
    /// Those that are answered next first.
    under_way: VecDeque<Exchange>,
    had_any: bool,
    /// An answer has begun as it must.
    answered: bool,
    extract: bool,
    /// Reading began in the middle of the session.
    pub(super) joined: bool,
    became: Option<Became>,
}

/// What an answer has made of the connection, and what each end had said behind it already.
#[derive(Debug)]
pub(super) struct Became {
    pub(super) next: Next,
    pub(super) client: Vec<u8>,
    pub(super) server: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum Next {
    Tunnel,
    /// The request is answered there.
    Http2(Box<Exchange>),
    Other,
}

/// One direction.
#[derive(Debug)]
enum Half {
    /// In a head, or before one, of which the first byte came at this time.
    Head {
        bytes: Vec<u8>,
        begun_ns: u64,
    },
    Body(Body),
    /// Behind a request to become something else: what these bytes are is told by its answer. Pieces, and when
    /// they came.
    Held(Vec<(u64, Vec<u8>)>),
    /// It became something else.
    Over,
}

const BEFORE_HEAD: Half = Half::Head { bytes: Vec::new(), begun_ns: 0 };

impl Http1 {
    pub(super) fn new(extract: bool) -> Http1 {
        Http1 {
            requests: BEFORE_HEAD,
            responses: BEFORE_HEAD,
            under_way: VecDeque::new(),
            had_any: false,
            answered: false,
            extract,
            joined: false,
            became: None,
        }
    }

    /// Bytes of the client.
    pub(super) fn requests(
        &mut self,
        mut input: &[u8],
        at_ns: u64,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        while !input.is_empty() {
            match &mut self.requests {
                Half::Over => return Ok(()),
                Half::Held(pieces) => {
                    let held: usize = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
                    if held + input.len() > HEAD_MAX_BYTES {
                        return Err(format!(
                            "more than {HEAD_MAX_BYTES} bytes came behind a request to upgrade that is not answered"
                        ));
                    }
                    pieces.push((at_ns, input.to_vec()));
                    return Ok(());
                }
                Half::Head { bytes, begun_ns } => {
                    if !head(bytes, begun_ns, &mut input, at_ns)? {
                        return Ok(());
                    }
                    let (bytes, begun_ns) = (std::mem::take(bytes), *begun_ns);
                    let (mut exchange, body) = request(&bytes, begun_ns, self.extract)?;
                    if self.under_way.len() >= UNDER_WAY_MAX {
                        return Err(format!(
                            "more than {UNDER_WAY_MAX} requests wait for responses"
                        ));
                    }
                    exchange.is_first = !std::mem::replace(&mut self.had_any, true) && !self.joined;
                    exchange.joined = self.joined;
                    self.under_way.push_back(exchange);
                    match body {
                        Some(body) => self.requests = Half::Body(body),
                        None => self.request_ended(over),
                    }
                }
                Half::Body(body) => {
                    let Some(exchange) = self.under_way.back_mut() else {
                        return Err("a request body has no request".into());
                    };
                    let ended = body.read(&mut input, &mut |data| exchange.request_data(data))?;
                    if ended {
                        self.request_ended(over);
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes of the server.
    pub(super) fn responses(
        &mut self,
        mut input: &[u8],
        at_ns: u64,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        while !input.is_empty() {
            match &mut self.responses {
                Half::Over => {
                    if let Some(became) = &mut self.became {
                        became.server.extend(input);
                    }
                    return Ok(());
                }
                // Only what a client says is held.
                Half::Held(_) => return Ok(()),
                Half::Head { bytes, begun_ns } => {
                    if !head(bytes, begun_ns, &mut input, at_ns)? {
                        return Ok(());
                    }
                    let (bytes, begun_ns) = (std::mem::take(bytes), *begun_ns);
                    self.response(&bytes, begun_ns, at_ns, over)?;
                }
                Half::Body(body) => {
                    let Some(exchange) = self.under_way.front_mut() else {
                        return Err("a response has no request".into());
                    };
                    exchange.at(at_ns);
                    let read = &mut exchange.response_bytes;
                    if body.read(&mut input, &mut |data| *read += data.len() as u64)? {
                        self.response_ended(over);
                    }
                }
            }
        }
        Ok(())
    }

    /// So many bytes of the client were not read; `lost` if they should have been.
    pub(super) fn skip_requests(
        &mut self,
        bytes: u64,
        lost: bool,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        let ended = skip(&mut self.requests, bytes)?;
        if let (Half::Body(_), Some(exchange)) = (&self.requests, self.under_way.back_mut()) {
            exchange.unread_request_data(bytes);
            if lost {
                exchange.is_partial(LOST);
            }
        }
        if ended {
            self.request_ended(over);
        }
        Ok(())
    }

    /// The same of the server.
    pub(super) fn skip_responses(
        &mut self,
        bytes: u64,
        lost: bool,
        at_ns: u64,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        let ended = skip(&mut self.responses, bytes)?;
        if let (Half::Body(_), Some(exchange)) = (&self.responses, self.under_way.front_mut()) {
            exchange.at(at_ns);
            exchange.response_bytes += bytes;
            if lost {
                exchange.is_partial(LOST);
            }
        }
        if ended {
            self.response_ended(over);
        }
        Ok(())
    }

    /// The connection has ended: so has a body that ends with it, if the end was `seen`. Whether something had
    /// begun that is no call yet.
    pub(super) fn closed(&mut self, seen: bool) -> Option<&'static str> {
        if let (Half::Body(Body::UntilClose), Some(exchange)) =
            (&self.responses, self.under_way.front_mut())
        {
            if seen {
                exchange.response_ended = true;
            } else {
                exchange.is_partial(END_UNSEEN);
            }
        }
        match &self.requests {
            Half::Head { bytes, .. } if !bytes.is_empty() => {
                Some("it ended within the head of a request")
            }
            Half::Held(pieces) if !pieces.is_empty() => {
                Some("it ended before an answer said what came behind a request to upgrade")
            }
            Half::Head { .. } | Half::Body(_) | Half::Held(_) | Half::Over => None,
        }
    }

    pub(super) fn has_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    pub(super) fn was_answered(&self) -> bool {
        self.answered
    }

    /// No second request has begun.
    pub(super) fn is_one_request(&self) -> bool {
        let begins = match &self.requests {
            Half::Head { bytes, .. } => !bytes.is_empty(),
            Half::Held(pieces) => !pieces.is_empty(),
            Half::Body(_) | Half::Over => false,
        };
        self.under_way.len() + usize::from(begins) <= 1
    }

    /// A request waits for an answer that can make something else of the connection.
    pub(super) fn may_become_other(&self) -> bool {
        self.under_way.iter().any(|exchange| exchange.upgrades)
    }

    pub(super) fn take_became(&mut self) -> Option<Became> {
        self.became.take()
    }

    pub(super) fn take_under_way(&mut self) -> Vec<Exchange> {
        std::mem::take(&mut self.under_way).into()
    }

    pub(super) fn held_bytes(&self) -> usize {
        let of = |half: &Half| match half {
            Half::Head { bytes, .. } => bytes.capacity(),
            Half::Held(pieces) => pieces.iter().map(|(_, bytes)| bytes.capacity() + 32).sum(),
            // A line of a chunked body, at most.
            Half::Body(_) => 8 * 1024,
            Half::Over => 0,
        };
        let exchanges: usize = self.under_way.iter().map(Exchange::held_bytes).sum();
        of(&self.requests) + of(&self.responses) + exchanges
    }

    fn request_ended(&mut self, over: &mut Vec<Over>) {
        if !matches!(self.requests, Half::Over) {
            self.requests = BEFORE_HEAD;
        }
        if let Some(exchange) = self.under_way.back_mut() {
            exchange.request_ended = true;
            if exchange.upgrades && exchange.status.is_none() {
                self.requests = Half::Held(Vec::new());
            }
        }
        self.settle(over);
    }

    fn response_ended(&mut self, over: &mut Vec<Over>) {
        self.responses = BEFORE_HEAD;
        if let Some(exchange) = self.under_way.front_mut() {
            exchange.response_ended = true;
        }
        self.settle(over);
    }

    /// Hands on the call at the front when it is over.
    fn settle(&mut self, over: &mut Vec<Over>) {
        let ended = |exchange: &mut Exchange| exchange.request_ended && exchange.response_ended;
        if let Some(exchange) = self.under_way.pop_front_if(ended) {
            over.push(exchange.over(CallOutcome::Complete));
        }
    }

    fn response(
        &mut self,
        bytes: &[u8],
        begun_ns: u64,
        at_ns: u64,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        let bytes = &unfolded(bytes)[..];
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err("a response head is not valid".into()),
            Err(error) => return Err(format!("a response head is not valid: {error}")),
        }
        let status = response.code.unwrap_or_default();
        let Some(exchange) = self.under_way.front_mut().filter(|first| !first.response_ended)
        else {
            return Err("a response came to no request".into());
        };
        self.answered = true;
        let fields = || response.headers.iter().map(|field| (field.name.as_bytes(), field.value));
        if (100..200).contains(&status) && status != 101 {
            self.responses = BEFORE_HEAD;
            return Ok(());
        }
        let to_h2c = |(name, value): Field<'_>| {
            name.eq_ignore_ascii_case(b"upgrade") && value.eq_ignore_ascii_case(b"h2c")
        };
        let is_h2c = status == 101 && fields().any(to_h2c);
        if is_h2c && !exchange.request_ended {
            return Err("it became HTTP/2 before a request had ended".into());
        }
        if !is_h2c {
            exchange.respond(status, fields(), begun_ns);
        }
        exchange.at(at_ns);
        let tunnel = exchange.method == "CONNECT" && (200..300).contains(&status);
        if status == 101 || tunnel {
            let to = if tunnel { "a tunnel".into() } else { upgrade(fields()) };
            let asked = self.under_way.pop_front();
            let next = match asked {
                Some(exchange) if is_h2c => Next::Http2(Box::new(exchange)),
                asked => {
                    over.extend(asked.map(|asked| asked.over(CallOutcome::Upgraded { to })));
                    if tunnel { Next::Tunnel } else { Next::Other }
                }
            };
            let client = match std::mem::replace(&mut self.requests, Half::Over) {
                Half::Head { bytes, .. } => bytes,
                Half::Held(pieces) => pieces.into_iter().flat_map(|(_, bytes)| bytes).collect(),
                Half::Body(_) | Half::Over => Vec::new(),
            };
            self.responses = Half::Over;
            self.became = Some(Became { next, client, server: Vec::new() });
            for exchange in self.take_under_way() {
                over.push(
                    exchange.unread("the connection became something else before its response"),
                );
            }
            return Ok(());
        }
        let none = exchange.method == "HEAD" || status == 204 || status == 304;
        let body = match (none, framing(fields())?) {
            (true, _) | (false, Some(Body::Length(0))) => None,
            (false, Some(Body::UntilClose)) => {
                return Err("a response body of a transfer coding that is not known".into());
            }
            (false, Some(body)) => Some(body),
            (false, None) => Some(Body::UntilClose),
        };
        match body {
            Some(body) => self.responses = Half::Body(body),
            None => self.response_ended(over),
        }
        self.release(over)
    }
}

impl Http1 {
    /// The connection stays what it was: reads what was held.
    fn release(&mut self, over: &mut Vec<Over>) -> Result<(), Stop> {
        let waits =
            self.under_way.back().is_some_and(|last| last.upgrades && last.status.is_none());
        let pieces = match &mut self.requests {
            Half::Held(pieces) if !waits => std::mem::take(pieces),
            Half::Head { .. } | Half::Body(_) | Half::Held(_) | Half::Over => return Ok(()),
        };
        self.requests = BEFORE_HEAD;
        pieces.iter().try_for_each(|(at_ns, bytes)| self.requests(bytes, *at_ns, over))
    }
}

/// With lines that are folded made one (RFC 9112, 5.2), except behind the first line, where none may be.
fn unfolded(bytes: &[u8]) -> Cow<'_, [u8]> {
    let first = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
    let folds = |at: &usize| matches!(bytes.get(at + 1), Some(b' ' | b'\t'));
    let mut text = Cow::Borrowed(bytes);
    for at in memchr::memchr_iter(b'\n', &bytes[first..]).map(|at| first + at).filter(folds) {
        let text = text.to_mut();
        text[at] = b' ';
        if text[at - 1] == b'\r' {
            text[at - 1] = b' ';
        }
    }
    text
}

pub(super) const END_UNSEEN: &str = "its response ends with its connection, whose end was not seen";

pub(super) const LOST: &str = "some of its bytes were lost on the way to tracer";

/// Collects a head. Whether it is there as a whole.
fn head(
    bytes: &mut Vec<u8>,
    begun_ns: &mut u64,
    input: &mut &[u8],
    at_ns: u64,
) -> Result<bool, Stop> {
    if bytes.is_empty() {
        // RFC 9112, 2.2: empty lines before a request are to be ignored.
        let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        *input = &input[blank..];
        *begun_ns = at_ns;
    }
    let before = bytes.len();
    let room = HEAD_MAX_BYTES - before;
    bytes.extend(&input[..input.len().min(room)]);
    // The end can have begun in what was there.
    let from = before.saturating_sub(3);
    let Some(end) = end_of_head(&bytes[from..]).map(|end| from + end) else {
        if bytes.len() >= HEAD_MAX_BYTES {
            return Err(format!("a head has more than {HEAD_MAX_BYTES} bytes"));
        }
        *input = &[];
        return Ok(false);
    };
    *input = &input[end - before..];
    bytes.truncate(end);
    Ok(true)
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    ends.into_iter().find(|end| {
        let line = &bytes[..end - 1];
        line.ends_with(b"\n") || line.ends_with(b"\n\r")
    })
}

fn request(bytes: &[u8], begun_ns: u64, extract: bool) -> Result<(Exchange, Option<Body>), Stop> {
    let bytes = &unfolded(bytes)[..];
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err("a request head is not valid".into()),
        Err(error) => return Err(format!("a request head is not valid: {error}")),
    }
    let fields = request.headers.iter().map(|field| (field.name.as_bytes(), field.value));
    let authority = fields.clone().find(|(name, _)| name.eq_ignore_ascii_case(b"host"));
    let asked = Asked {
        method: request.method.unwrap_or_default().as_bytes(),
        target: request.path.unwrap_or_default().as_bytes(),
        authority: authority.map(|(_, host)| host),
        version: if request.version == Some(0) { "1.0" } else { "1.1" },
        http2_stream: None,
    };
    let body = match framing(fields.clone())? {
        // RFC 9112, 6.3: a request without a length has no body.
        None | Some(Body::Length(0)) => None,
        Some(Body::UntilClose) => {
            return Err("a request body of a transfer coding that is not known".into());
        }
        Some(body) => Some(body),
    };
    let has_upgrade = fields.clone().any(|(name, _)| name.eq_ignore_ascii_case(b"upgrade"));
    let mut exchange = Exchange::new(&asked, fields, begun_ns, extract);
    exchange.upgrades = has_upgrade || asked.method == b"CONNECT";
    Ok((exchange, body))
}

/// What the fields say of the body (RFC 9112, 6.3); none when they say nothing.
fn framing<'a>(fields: impl Iterator<Item = Field<'a>>) -> Result<Option<Body>, Stop> {
    let (mut coded, mut length) = (None, None);
    for (name, value) in fields {
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // `identity` was no coding before it went out of use (RFC 2616, 3.6).
            let codings = value.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            let last = codings.into_iter().find(|coding| !coding.eq_ignore_ascii_case(b"identity"));
            coded = last.map(|last| last.eq_ignore_ascii_case(b"chunked")).or(coded);
        } else if name.eq_ignore_ascii_case(b"content-length") {
            for value in value.split(|byte| *byte == b',') {
                let text = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let value = text.parse::<u64>().ok().filter(|_| digits);
                let value = value.ok_or("a length of a body is not valid")?;
                if length.replace(value).is_some_and(|before| before != value) {
                    return Err("a body has two lengths".into());
                }
            }
        }
    }
    Ok(match (coded, length) {
        (Some(true), _) => Some(Body::chunked()),
        (Some(false), _) => Some(Body::UntilClose),
        (None, length) => length.map(Body::Length),
    })
}

fn upgrade<'a>(mut fields: impl Iterator<Item = Field<'a>>) -> String {
    /// <https://www.iana.org/assignments/http-upgrade-tokens>: anything else can be anything.
    const KNOWN: [&str; 6] = ["websocket", "h2c", "tls/1.0", "connect-udp", "connect-ip", "tcp"];
    let to = fields.find(|(name, _)| name.eq_ignore_ascii_case(b"upgrade"));
    let value = to.map_or(&b""[..], |(_, value)| value.trim_ascii());
    let known = KNOWN.into_iter().find(|known| value.eq_ignore_ascii_case(known.as_bytes()));
    known.unwrap_or("another protocol").into()
}

/// Whether what was in the way has ended.
fn skip(half: &mut Half, bytes: u64) -> Result<bool, Stop> {
    let ended = match half {
        Half::Over => Some(false),
        Half::Body(body) => body.skip(bytes),
        Half::Head { .. } | Half::Held(_) => None,
    };
    ended.ok_or_else(|| UNREAD.into())
}

pub(super) const UNREAD: &str =
    "bytes were not read, and what follows them cannot be told without them";
