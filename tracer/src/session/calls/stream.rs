//! The two directions of one TLS session, from bytes to calls.

use tracer_ebpf::abi::TLS_UNKNOWN_BYTES;

use super::{
    Direction,
    exchange::{Exchange, Over},
    http1::{Http1, LOST, Stop},
    http2::{FRAME_HEADER_BYTES, Http2, PREFACE},
};

/// The longest method in use is half of this.
const METHOD_MAX_BYTES: usize = 32;
/// What a server's first SETTINGS of HTTP/2 can have: 32 of them.
const SETTINGS_MAX_BYTES: u32 = 32 * 6;

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
    /// It is read no further.
    Over,
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
    pub(super) fn new(extract: bool) -> Stream {
        let protocol =
            Protocol::Unknown { sent: Beginning::default(), received: Beginning::default() };
        Stream { protocol, sent: 0, received: 0, served: false, extract }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.protocol, Protocol::Over)
    }

    /// Nothing was read of it yet.
    pub(super) fn is_new(&self) -> bool {
        self.sent == 0 && self.received == 0
    }

    /// # Errors
    /// Why it is read no further, once. What was under way is among the calls that are over.
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
        if let Err(why) = &result {
            self.stop(why, over);
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
            Protocol::Http1(http) => {
                http.closed(seen).then_some("it ended within the head of a request")
            }
            Protocol::Unknown { sent, received }
                if !sent.bytes.is_empty() || !received.bytes.is_empty() =>
            {
                Some("it ended before its bytes said what they are")
            }
            Protocol::Unknown { .. } | Protocol::Http2(_) | Protocol::Over => None,
        };
        let under_way = self.take_under_way();
        over.extend(under_way.into_iter().map(|exchange| exchange.cut(why)));
        self.protocol = Protocol::Over;
        begun.map_or(Ok(()), |begun| Err(begun.into()))
    }

    pub(super) fn held_bytes(&self) -> usize {
        match &self.protocol {
            Protocol::Unknown { sent, received } => sent.bytes.len() + received.bytes.len(),
            Protocol::Http1(http) => http.held_bytes(),
            Protocol::Http2(http) => http.held_bytes(),
            Protocol::Over => 0,
        }
    }

    fn take_under_way(&mut self) -> Vec<Exchange> {
        match &mut self.protocol {
            Protocol::Http1(http) => http.take_under_way(),
            Protocol::Http2(http) => http.take_under_way(),
            Protocol::Unknown { .. } | Protocol::Over => Vec::new(),
        }
    }

    fn part(
        &mut self,
        direction: Direction,
        at_ns: u64,
        part: Part<'_>,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        if matches!(part, Part::Unread { bytes: 0, .. } | Part::Read([])) {
            return Ok(());
        }
        let of_client = (direction == Direction::Sent) != self.served;
        match (&mut self.protocol, part) {
            (Protocol::Over, _) => Ok(()),
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
                let says = says(&own.bytes);
                self.begin(direction, says, over)
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
