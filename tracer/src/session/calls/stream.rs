//! The two directions of one TLS session, from bytes to calls.

use tracer_ebpf::abi::TLS_UNKNOWN_BYTES;

use super::{
    Direction,
    exchange::{Exchange, Over},
    http1::{Became, Http1, LOST, Next, Stop, UNREAD},
    http2::{FRAME_HEADER_BYTES, Http2, PREFACE},
    proxy::{self, Found},
};

/// The longest method in use is half of this.
const METHOD_MAX_BYTES: usize = 32;
/// What a server's first SETTINGS of HTTP/2 can have: 32 of them.
const SETTINGS_MAX_BYTES: u32 = 32 * 6;
/// A longer first line within a tunnel is not that of a request.
const LINE_MAX_BYTES: usize = 8 * 1024;

pub(super) const TOO_LONG: &str = "of a single SSL_write or SSL_read only the first 256 KiB are read, and what follows the \
                        rest of this one cannot be told without it";

/// What has been read of a session, and where.
#[derive(Debug)]
pub(super) struct Stream {
    protocol: Protocol,
    /// Bytes that each direction had, read or not.
    sent: u64,
    received: u64,
    /// The client of HTTP is at the other end.
    pub(super) served: bool,
    extract: bool,
    /// One that was joined in the middle is read from a later call on.
    joinable: bool,
    /// It may have begun before its first bytes here.
    late: bool,
    /// What comes is behind a proxy, and can be anything.
    tunnel: bool,
    /// First bytes were those of HTTP, whether or not it could be read.
    is_http: bool,
    /// Which direction bytes came in last.
    last: Option<Direction>,
}

#[derive(Debug)]
enum Protocol {
    /// Neither direction has said it yet.
    Unknown {
        sent: Beginning,
        received: Beginning,
    },
    Http1(Http1),
    Http2(Box<Http2>),
    /// What came first is no call. It may be the rest of one: the next one is waited for.
    Joining(Option<Box<Maybe>>),
    /// It is read no further.
    Over,
}

/// What looks like a request.
#[derive(Debug)]
struct Maybe {
    client: Direction,
    http: Http1,
    /// The other end had spoken before it.
    after_other: bool,
}

/// First bytes, and when the first of them came.
#[derive(Debug, Default)]
struct Beginning {
    bytes: Vec<u8>,
    at_ns: u64,
}

/// Bytes of one direction, or that there were some.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Read(&'a [u8]),
    Unread { bytes: u64, lost: bool },
}

/// What first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    More,
    Request,
    Response,
    Http2Client,
    Http2Server,
    Other,
}

impl Stream {
    pub(super) fn new(extract: bool, joinable: bool) -> Stream {
        let protocol =
            Protocol::Unknown { sent: Beginning::default(), received: Beginning::default() };
        let (served, last) = (false, None);
        let (sent, received, is_http) = (0, 0, false);
        let (late, tunnel) = (false, false);
        Stream { protocol, sent, received, served, extract, joinable, late, tunnel, is_http, last }
    }

    /// It may have begun before its first bytes here. Whether it is read from its middle for that: HTTP/2 says
    /// itself where it begins.
    pub(super) fn join_late(&mut self, bytes: &[u8]) -> bool {
        if matches!(says(bytes), Says::Http2Client | Says::Http2Server) {
            return false;
        }
        self.late = true;
        self.protocol = Protocol::Joining(None);
        true
    }

    /// Calls that are not read would be missing.
    pub(super) fn is_http(&self) -> bool {
        self.is_http
    }

    /// The connection's other end is who calls are to.
    pub(super) fn is_to_server(&self) -> bool {
        !self.tunnel && !self.served
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.protocol, Protocol::Over)
    }

    /// Nothing was read of it yet.
    pub(super) fn is_new(&self) -> bool {
        self.sent == 0 && self.received == 0 && !self.is_over()
    }

    /// Calls are under way.
    pub(super) fn has_calls(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(http) => http.has_under_way(),
            Protocol::Http2(http) => http.has_under_way(),
            Protocol::Unknown { .. } | Protocol::Joining(_) | Protocol::Over => false,
        }
    }

    /// # Errors
    /// Why it is read no further, or from a later call on only. What was under way is among the calls that are
    /// over.
    pub(super) fn add(
        &mut self,
        direction: Direction,
        at_ns: u64,
        offset: u64,
        length: u64,
        bytes: &[u8],
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        if self.is_over() {
            return Ok(());
        }
        let expected = match direction {
            Direction::Sent => &mut self.sent,
            Direction::Received => &mut self.received,
        };
        let missing = offset.checked_sub(*expected);
        *expected = offset.saturating_add(length);
        if missing.is_some_and(|bytes| bytes >= TLS_UNKNOWN_BYTES) {
            self.stop(LOST, over);
            return Err(LOST.into());
        }
        let bytes = &bytes[..bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
        let parts = [
            Part::Unread { bytes: missing.unwrap_or(0), lost: true },
            Part::Read(bytes),
            Part::Unread { bytes: length - bytes.len() as u64, lost: false },
        ];
        let mut result = match missing {
            Some(_) => Ok(()),
            None => Err("its bytes came twice".to_owned()),
        };
        for part in parts {
            result = result.and_then(|()| self.part(direction, at_ns, part, over));
        }
        // Of memory that cannot be read nothing comes.
        if parts[2].is_some() && missing == Some(0) && !bytes.is_empty() {
            result = result.map_err(|why| if why == UNREAD { TOO_LONG.into() } else { why });
        }
        if let Err(why) = &result {
            let joins = self.joinable && missing == Some(0) && self.is_before_calls();
            self.stop(why, over);
            if joins {
                self.protocol = Protocol::Joining(None);
                self.part(direction, at_ns, Part::Read(bytes), over)?;
                self.part(direction, at_ns, parts[2], over)?;
            }
        }
        if length > 0 {
            self.last = Some(direction);
        }
        result
    }

    /// So many bytes were sent and received in all: the last ones may have been lost.
    ///
    /// # Errors
    /// As of [`Stream::add`].
    pub(super) fn ended(
        &mut self,
        (sent, received): (u64, u64),
        at_ns: u64,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        self.add(Direction::Sent, at_ns, sent.max(self.sent), 0, &[], over)?;
        self.add(Direction::Received, at_ns, received.max(self.received), 0, &[], over)
    }

    /// Reads it no further.
    pub(super) fn stop(&mut self, why: &str, over: &mut Vec<Over>) {
        let under_way = self.take_under_way();
        over.extend(under_way.into_iter().map(|exchange| exchange.unread(why)));
        self.protocol = Protocol::Over;
    }

    /// The connection has ended, in the way that `why` says of its calls; `seen` when all of it was.
    ///
    /// # Errors
    /// What had begun and was no call yet.
    pub(super) fn closed(
        &mut self,
        why: &str,
        seen: bool,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        let begun = match &mut self.protocol {
            Protocol::Http1(http) => http.closed(seen),
            Protocol::Http2(http) => {
                http.is_within_request().then_some("it ended within the frames of a request")
            }
            Protocol::Unknown { sent, received } => {
                let tunnel = self.tunnel;
                let says_nothing = |own: &Beginning| match tunnel {
                    true => is_http(&own.bytes),
                    false => !own.bytes.is_empty(),
                };
                let begun = says_nothing(sent) || says_nothing(received);
                begun.then_some("it ended before its bytes said what they are")
            }
            Protocol::Joining(_) | Protocol::Over => None,
        };
        let under_way = self.take_under_way();
        over.extend(under_way.into_iter().map(|exchange| exchange.cut_off(why)));
        self.protocol = Protocol::Over;
        begun.map_or(Ok(()), |begun| Err(begun.into()))
    }

    pub(super) fn held_bytes(&self) -> usize {
        match &self.protocol {
            Protocol::Unknown { sent, received } => sent.bytes.len() + received.bytes.len(),
            Protocol::Http1(http) => http.held_bytes(),
            Protocol::Http2(http) => http.held_bytes(),
            Protocol::Joining(maybe) => maybe.as_ref().map_or(0, |maybe| maybe.http.held_bytes()),
            Protocol::Over => 0,
        }
    }

    fn take_under_way(&mut self) -> Vec<Exchange> {
        match &mut self.protocol {
            Protocol::Http1(http) => http.take_under_way(),
            Protocol::Http2(http) => http.take_under_way(),
            Protocol::Unknown { .. } | Protocol::Joining(_) | Protocol::Over => Vec::new(),
        }
    }

    /// What was read so far can be the rest of something, and no answer is to come to it.
    fn is_before_calls(&self) -> bool {
        match &self.protocol {
            // What is in a tunnel is not for whom TLS is spoken with.
            Protocol::Unknown { .. } => !self.tunnel,
            Protocol::Http1(http) => !http.was_answered() && !http.has_under_way(),
            Protocol::Http2(_) | Protocol::Joining(_) | Protocol::Over => false,
        }
    }

    /// Waits for a call: a request line at the beginning of what one end says after the other, and then a status
    /// line at the beginning of the answer. In the middle of a body, one end says nothing.
    fn join(
        &mut self,
        direction: Direction,
        at_ns: u64,
        part: Part<'_>,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        let Protocol::Joining(maybe) = &mut self.protocol else {
            return self.part(direction, at_ns, part, over);
        };
        match (maybe.take(), part) {
            (Some(mut known), part) if known.client == direction => {
                let read = match part {
                    Part::Read(bytes) => known.http.requests(bytes, at_ns, over),
                    Part::Unread { bytes, lost } => known.http.skip_requests(bytes, lost, over),
                };
                let goes_on = known.after_other || known.http.is_one_request();
                *maybe = (read.is_ok() && goes_on).then_some(known);
                Ok(())
            }
            (Some(known), Part::Read(bytes)) if is_response(bytes) => {
                self.served = known.client == Direction::Received;
                self.protocol = Protocol::Http1(known.http);
                self.part(direction, at_ns, part, over)
            }
            (Some(known), _) if known.http.may_become_other() => Err(
                "it may have become something else: the answer to a request for that was not read"
                    .into(),
            ),
            (_, Part::Read(bytes)) if is_switch(bytes) => {
                self.protocol = Protocol::Over;
                Ok(())
            }
            (_, Part::Read(bytes)) => {
                let after_other = self.last == Some(direction.other());
                // The first bytes of all may be those of a call, or the middle of a body: then more come.
                let is_first = self.late && self.last.is_none();
                if (after_other || is_first) && is_request(bytes) {
                    let mut http = Http1::new(self.extract);
                    http.joined = true;
                    // Nothing can be over before there is an answer.
                    let read = http.requests(bytes, at_ns, over);
                    if read.is_ok() && (after_other || http.is_one_request()) {
                        *maybe = Some(Box::new(Maybe { client: direction, http, after_other }));
                    }
                }
                Ok(())
            }
            (_, Part::Unread { lost, .. }) => {
                // What follows lost bytes may not be the beginning of anything.
                self.last = if lost { Some(direction) } else { self.last };
                Ok(())
            }
        }
    }

    fn part(
        &mut self,
        direction: Direction,
        at_ns: u64,
        part: Part<'_>,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        if !part.is_some() {
            return Ok(());
        }
        self.read(direction, at_ns, part, over)?;
        self.follow(at_ns, over)
    }

    fn read(
        &mut self,
        direction: Direction,
        at_ns: u64,
        part: Part<'_>,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        let of_client = (direction == Direction::Sent) != self.served;
        match (&mut self.protocol, part) {
            (Protocol::Over, _) => Ok(()),
            (Protocol::Joining(_), part) => self.join(direction, at_ns, part, over),
            (Protocol::Unknown { .. }, Part::Unread { lost: true, .. }) => Err(LOST.into()),
            (Protocol::Unknown { .. }, Part::Unread { .. }) => {
                Err("its first bytes were not read".into())
            }
            (Protocol::Unknown { sent, received }, Part::Read(bytes)) => {
                let own = match direction {
                    Direction::Sent => sent,
                    Direction::Received => received,
                };
                if own.bytes.is_empty() {
                    own.at_ns = at_ns;
                }
                own.bytes.extend(bytes);
                self.first(direction, over)
            }
            (Protocol::Http1(http), Part::Read(bytes)) if of_client => {
                http.requests(bytes, at_ns, over)
            }
            (Protocol::Http1(http), Part::Read(bytes)) => http.responses(bytes, at_ns, over),
            (Protocol::Http1(http), Part::Unread { bytes, lost }) if of_client => {
                http.skip_requests(bytes, lost, over)
            }
            (Protocol::Http1(http), Part::Unread { bytes, lost }) => {
                http.skip_responses(bytes, lost, at_ns, over)
            }
            (Protocol::Http2(http), Part::Read(bytes)) if of_client => {
                http.requests(bytes, at_ns, over)
            }
            (Protocol::Http2(http), Part::Read(bytes)) => http.responses(bytes, at_ns, over),
            (Protocol::Http2(http), Part::Unread { bytes, lost }) if of_client => {
                http.skip_requests(bytes, lost, at_ns, over)
            }
            (Protocol::Http2(http), Part::Unread { bytes, lost }) => {
                http.skip_responses(bytes, lost, at_ns, over)
            }
        }
    }

    /// Goes on with what an answer of HTTP/1 has made of the connection.
    fn follow(&mut self, at_ns: u64, over: &mut Vec<Over>) -> Result<(), Stop> {
        let Protocol::Http1(http) = &mut self.protocol else { return Ok(()) };
        let Some(Became { next, client, server }) = http.take_became() else { return Ok(()) };
        self.protocol = match next {
            Next::Tunnel => {
                self.tunnel = true;
                Protocol::Unknown { sent: Beginning::default(), received: Beginning::default() }
            }
            Next::Http2(first) => Protocol::Http2(Box::new(Http2::after(self.extract, *first))),
            Next::Other => Protocol::Over,
        };
        let of_client = if self.served { Direction::Received } else { Direction::Sent };
        self.part(of_client, at_ns, Part::Read(&client), over)?;
        self.part(of_client.other(), at_ns, Part::Read(&server), over)
    }

    /// Looks at what came first, behind what is for proxies.
    fn first(&mut self, direction: Direction, over: &mut Vec<Over>) -> Result<(), Stop> {
        let Protocol::Unknown { sent, received } = &mut self.protocol else { return Ok(()) };
        if !self.tunnel && !self.joinable {
            match proxy::socks(&sent.bytes, &received.bytes) {
                Found::Nothing => {}
                Found::More => return Ok(()),
                Found::Bytes(of_client, of_server) => {
                    sent.bytes.drain(..of_client);
                    received.bytes.drain(..of_server);
                    self.tunnel = true;
                }
                Found::Unread => {
                    self.is_http = true;
                    return Err("it goes through a SOCKS proxy in a way that is not read".into());
                }
            }
        }
        if self.tunnel {
            return self.begin_in_tunnel(over);
        }
        let own = match direction {
            Direction::Sent => sent,
            Direction::Received => received,
        };
        match proxy::header(&own.bytes) {
            Found::More => return Ok(()),
            Found::Bytes(header, _) => drop(own.bytes.drain(..header)),
            Found::Nothing | Found::Unread => {}
        }
        let says = says(&own.bytes);
        self.is_http |= is_http(&own.bytes);
        self.begin(direction, says, over)
    }

    /// Goes on with what is in a tunnel, where that is HTTP. TLS is read elsewhere, and anything else is no call.
    fn begin_in_tunnel(&mut self, over: &mut Vec<Over>) -> Result<(), Stop> {
        let Protocol::Unknown { sent, received } = &self.protocol else { return Ok(()) };
        let (direction, client, server) = match self.served {
            true => (Direction::Received, &received.bytes, &sent.bytes),
            false => (Direction::Sent, &sent.bytes, &received.bytes),
        };
        // Only what is in it however the bytes were cut decides: their first one, then a line of some length.
        let may_be_method = client.first().is_none_or(u8::is_ascii_alphabetic);
        let client = &client[..client.len().min(LINE_MAX_BYTES)];
        let short = client.len().max(server.len()) < LINE_MAX_BYTES;
        if memchr::memchr(b'\n', client).is_none() && may_be_method && short {
            return Ok(());
        }
        let line = PREFACE.len() - b"\r\nSM\r\n\r\n".len();
        if !may_be_method || !is_request(client) && !is_http(client) {
            self.protocol = Protocol::Over;
            return Ok(());
        }
        let is_http2 = client.starts_with(&PREFACE[..line]);
        let says = if is_http2 { Says::Http2Client } else { Says::Request };
        self.is_http = true;
        if self.joinable {
            return Err(
                "calls without TLS in a tunnel that is itself within TLS are not read".into()
            );
        }
        self.begin(direction, says, over)
    }

    /// Goes on with what first bytes say it is.
    fn begin(
        &mut self,
        direction: Direction,
        says: Says,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        let (client, next) = match says {
            Says::More => return Ok(()),
            Says::Other => return Err("it is not HTTP".into()),
            Says::Request => (direction, Protocol::Http1(Http1::new(self.extract))),
            Says::Response => (direction.other(), Protocol::Http1(Http1::new(self.extract))),
            Says::Http2Client => (direction, Protocol::Http2(Box::new(Http2::new(self.extract)))),
            Says::Http2Server => {
                (direction.other(), Protocol::Http2(Box::new(Http2::new(self.extract))))
            }
        };
        self.served = client == Direction::Received;
        let before = std::mem::replace(&mut self.protocol, next);
        let Protocol::Unknown { sent, received } = before else { return Ok(()) };
        let sent = (Direction::Sent, sent);
        let received = (Direction::Received, received);
        let in_order = if self.served { [received, sent] } else { [sent, received] };
        for (direction, Beginning { bytes, at_ns }) in in_order {
            self.part(direction, at_ns, Part::Read(&bytes), over)?;
        }
        Ok(())
    }
}

impl Part<'_> {
    fn is_some(&self) -> bool {
        !matches!(self, Part::Unread { bytes: 0, .. } | Part::Read([]))
    }
}

fn says(bytes: &[u8]) -> Says {
    const RESPONSE: &[u8] = b"HTTP/1.";
    let begins = |whole: &[u8]| whole.starts_with(&bytes[..bytes.len().min(whole.len())]);
    if begins(PREFACE) {
        return if bytes.len() >= PREFACE.len() { Says::Http2Client } else { Says::More };
    }
    if begins(RESPONSE) {
        return if bytes.len() >= RESPONSE.len() { Says::Response } else { Says::More };
    }
    if bytes.first() == Some(&0) {
        // The header of a SETTINGS frame: a length, its type, no flags, no stream.
        let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else { return Says::More };
        let [a, b, c, kind, rest @ ..] = *header;
        let length = u32::from_be_bytes([0, a, b, c]);
        let is =
            length <= SETTINGS_MAX_BYTES && length.is_multiple_of(6) && kind == 4 && rest == [0; 5];
        return if is { Says::Http2Server } else { Says::Other };
    }
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let rest = &bytes[blank..];
    let is_token = |byte: &&u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let method = rest.iter().take_while(is_token).count();
    match rest.get(method) {
        _ if blank > METHOD_MAX_BYTES || method > METHOD_MAX_BYTES => Says::Other,
        None => Says::More,
        Some(b' ') if method > 0 => Says::Request,
        Some(_) => Says::Other,
    }
}

/// Whether first bytes are meant as HTTP, however wrong they are: a method's name and a blank, or a version in the
/// first line.
fn is_http(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] =
        [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];
    let bytes = bytes.trim_ascii_start();
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    let is_method = words.next().is_some_and(|word| METHODS.contains(&word));
    is_method && words.next().is_some()
        || memchr::memmem::find(line, b"HTTP/1.").is_some()
        || line.starts_with(b"PRI * HTTP/2.0")
}

/// Whether they begin with a whole request line of HTTP/1 (RFC 9112, 3).
fn is_request(bytes: &[u8]) -> bool {
    let Some(end) = memchr::memchr(b'\n', bytes) else { return false };
    let mut words = bytes[..end].split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_version = |word: &[u8]| matches!(word, b"HTTP/1.1\r" | b"HTTP/1.0\r");
    (1..=METHOD_MAX_BYTES).contains(&method.len())
        && method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-')
        && !target.is_empty()
        && target.iter().all(u8::is_ascii_graphic)
        && words.next().is_some_and(is_version)
        && words.next().is_none()
}

/// Whether they say that what follows is something else.
fn is_switch(bytes: &[u8]) -> bool {
    is_response(bytes) && bytes[b"HTTP/1.1 ".len()..].starts_with(b"101")
}

/// Whether they begin with a version and a status of HTTP/1 (RFC 9112, 4).
fn is_response(bytes: &[u8]) -> bool {
    let version = bytes.strip_prefix(b"HTTP/1.1 ").or_else(|| bytes.strip_prefix(b"HTTP/1.0 "));
    version
        .and_then(|rest| rest.first_chunk::<3>())
        .is_some_and(|status| status[0] != b'0' && status.iter().all(u8::is_ascii_digit))
}
