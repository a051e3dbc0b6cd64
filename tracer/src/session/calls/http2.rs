//! Calls of HTTP/2 (RFC 9113): streams of two directions, in frames.

use std::collections::BTreeMap;

use super::{
    exchange::{Asked, Exchange, Field, Over},
    hpack::{Hpack, List},
    http1::{HEAD_MAX_BYTES, LOST, Stop, UNREAD},
};
use crate::{protocol::printable, record::schema::CallOutcome};

/// What a client begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams that are open at once. Servers allow about a hundred.
const UNDER_WAY_MAX: usize = 1024;
pub(super) const FRAME_HEADER_BYTES: usize = 9;

/// RFC 9113, 6.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const PUSH_PROMISE: u8 = 5;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const CONTINUATION: u8 = 9;
    const PRIORITY: u8 = 2;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    pub(super) const OF_STREAM: [u8; 6] =
        [DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION];
    pub(super) const OF_CONNECTION: [u8; 3] = [SETTINGS, PING, GOAWAY];
}

mod flag {
    pub(super) const END_STREAM: u8 = 0x1;
    pub(super) const END_HEADERS: u8 = 0x4;
    pub(super) const PADDED: u8 = 0x8;
    pub(super) const PRIORITY: u8 = 0x20;
}

const NO_ERROR: u32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

#[derive(Debug)]
pub(super) struct Http2 {
    client: Frames,
    server: Frames,
    streams: Streams,
}

/// One direction.
#[derive(Debug)]
struct Frames {
    /// Bytes of the preface that are to come.
    preface_left: usize,
    /// Of a frame whose header is not complete.
    header: Vec<u8>,
    header_ns: u64,
    frame: Option<Frame>,
    /// Fields that go on in the next frame.
    block: Option<Block>,
    hpack: Hpack,
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Bytes of the payload that are to come.
    left: u64,
    begun_ns: u64,
    /// The payload, of a kind that is read as a whole.
    payload: Vec<u8>,
    /// Of data: how much padding there is, once that is known.
    padding: Option<u64>,
}

#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    /// Of a request that the server promises: only the table counts.
    promised: bool,
    bytes: Vec<u8>,
    begun_ns: u64,
}

/// Calls by the number of their stream.
#[derive(Debug)]
struct Streams {
    under_way: BTreeMap<u32, Exchange>,
    /// The highest number of a request.
    last: u32,
    extract: bool,
}

impl Http2 {
    pub(super) fn new(extract: bool) -> Http2 {
        Http2 {
            client: Frames::new(PREFACE.len()),
            server: Frames::new(0),
            streams: Streams { under_way: BTreeMap::new(), last: 0, extract },
        }
    }

    /// Behind `Upgrade: h2c`: the request that asked for it is the first stream (RFC 7540, 3.2).
    pub(super) fn after(extract: bool, mut first: Exchange) -> Http2 {
        let mut http = Http2::new(extract);
        first.becomes_http2();
        http.streams.under_way.insert(1, first);
        http.streams.last = 1;
        http
    }

    /// The client has begun something that may be a request.
    pub(super) fn is_within_request(&self) -> bool {
        let Frames { preface_left, header, frame, block, .. } = &self.client;
        let is_fields = |frame: &Frame| matches!(frame.kind, kind::HEADERS | kind::CONTINUATION);
        (1..PREFACE.len()).contains(preface_left)
            || !header.is_empty()
            || block.is_some()
            || frame.as_ref().is_some_and(is_fields)
    }

    /// Bytes of the client.
    pub(super) fn requests(
        &mut self,
        input: &[u8],
        at_ns: u64,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        self.client.read(Side::Client, input, at_ns, &mut self.streams, over)
    }

    /// Bytes of the server.
    pub(super) fn responses(
        &mut self,
        input: &[u8],
        at_ns: u64,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        self.server.read(Side::Server, input, at_ns, &mut self.streams, over)
    }

    /// So many bytes were not read; `lost` if they should have been.
    pub(super) fn skip_requests(
        &mut self,
        bytes: u64,
        lost: bool,
        at_ns: u64,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        self.client.skip(Side::Client, bytes, lost, at_ns, &mut self.streams, over)
    }

    /// The same of the server.
    pub(super) fn skip_responses(
        &mut self,
        bytes: u64,
        lost: bool,
        at_ns: u64,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        self.server.skip(Side::Server, bytes, lost, at_ns, &mut self.streams, over)
    }

    pub(super) fn has_under_way(&self) -> bool {
        !self.streams.under_way.is_empty()
    }

    pub(super) fn take_under_way(&mut self) -> Vec<Exchange> {
        std::mem::take(&mut self.streams.under_way).into_values().collect()
    }

    pub(super) fn held_bytes(&self) -> usize {
        let of = |frames: &Frames| {
            let block = frames.block.as_ref().map_or(0, |block| block.bytes.capacity());
            let payload = frames.frame.as_ref().map_or(0, |frame| frame.payload.capacity());
            // A dynamic table of the usual size.
            block + payload + 4096
        };
        let exchanges: usize = self.streams.under_way.values().map(Exchange::held_bytes).sum();
        of(&self.client) + of(&self.server) + exchanges
    }
}

impl Frames {
    fn new(preface: usize) -> Frames {
        Frames {
            preface_left: preface,
            header: Vec::new(),
            header_ns: 0,
            frame: None,
            block: None,
            hpack: Hpack::new(),
        }
    }

    fn read(
        &mut self,
        side: Side,
        mut input: &[u8],
        at_ns: u64,
        streams: &mut Streams,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        let preface = self.preface_left.min(input.len());
        if PREFACE[PREFACE.len() - self.preface_left..][..preface] != input[..preface] {
            return Err("HTTP/2 does not begin as it must".into());
        }
        self.preface_left -= preface;
        input = &input[preface..];
        while !input.is_empty() {
            let Some(frame) = &mut self.frame else {
                if self.header.is_empty() {
                    self.header_ns = at_ns;
                }
                let missing = FRAME_HEADER_BYTES - self.header.len();
                let (own, rest) = input.split_at(missing.min(input.len()));
                self.header.extend(own);
                input = rest;
                if self.header.len() == FRAME_HEADER_BYTES {
                    self.begin()?;
                    self.end_if_complete(side, at_ns, streams, over)?;
                }
                continue;
            };
            let there = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len());
            let (mut own, rest) = input.split_at(there);
            input = rest;
            if frame.kind == kind::DATA {
                if frame.padding.is_none()
                    && let Some((length, data)) = own.split_first()
                {
                    frame.left -= 1;
                    frame.padding = Some(u64::from(*length));
                    own = data;
                }
                // What is left when the data have ended is padding.
                let data = frame.left.saturating_sub(frame.padding.unwrap_or(0));
                let data = usize::try_from(data).unwrap_or(usize::MAX).min(own.len());
                streams.data(side, frame.stream, &own[..data], at_ns);
            } else if frame.is_read() {
                frame.payload.extend(own);
            }
            frame.left -= own.len() as u64;
            self.end_if_complete(side, at_ns, streams, over)?;
        }
        Ok(())
    }

    fn skip(
        &mut self,
        side: Side,
        bytes: u64,
        lost: bool,
        at_ns: u64,
        streams: &mut Streams,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        let Some(frame) = &mut self.frame else { return Err(UNREAD.into()) };
        if bytes > frame.left || frame.is_read() || frame.padding.is_none() {
            return Err(UNREAD.into());
        }
        let data = frame.left.saturating_sub(frame.padding.unwrap_or(0)).min(bytes);
        if frame.kind == kind::DATA {
            streams.skip_data(side, frame.stream, data, lost, at_ns);
        }
        frame.left -= bytes;
        self.end_if_complete(side, at_ns, streams, over)
    }

    /// Begins a frame whose header is there.
    fn begin(&mut self) -> Result<(), Stop> {
        let header = std::mem::take(&mut self.header);
        let &[a, b, c, kind, flags, e, f, g, h] = &header[..] else { return Ok(()) };
        let stream = u32::from_be_bytes([e & 0x7f, f, g, h]);
        // RFC 9113, 6.10: nothing comes between the parts of a block.
        let continues = self.block.as_ref().is_some_and(|block| block.stream == stream);
        if (kind == kind::CONTINUATION) != continues || self.block.is_some() != continues {
            return Err("frames of HTTP/2 are not in a valid order".into());
        }
        // RFC 9113, 6: whether a kind of frame is of a stream or of the connection.
        let (is_of_stream, is_of_connection) = (kind::OF_STREAM, kind::OF_CONNECTION);
        if is_of_stream.contains(&kind) && stream == 0
            || is_of_connection.contains(&kind) && stream != 0
        {
            return Err("a frame of HTTP/2 is not valid".into());
        }
        let frame = Frame {
            kind,
            flags,
            stream,
            left: u64::from(u32::from_be_bytes([0, a, b, c])),
            begun_ns: self.header_ns,
            payload: Vec::new(),
            padding: (kind != kind::DATA || flags & flag::PADDED == 0).then_some(0),
        };
        let held = self.block.as_ref().map_or(0, |block| block.bytes.len() as u64);
        if frame.is_read() && frame.left + held > HEAD_MAX_BYTES as u64 {
            return Err(format!("the fields of a message have more than {HEAD_MAX_BYTES} bytes"));
        }
        self.frame = Some(frame);
        Ok(())
    }

    fn end_if_complete(
        &mut self,
        side: Side,
        at_ns: u64,
        streams: &mut Streams,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        let Some(frame) = self.frame.take_if(|frame| frame.left == 0) else { return Ok(()) };
        let end_stream = frame.flags & flag::END_STREAM != 0;
        match frame.kind {
            kind::DATA if end_stream => streams.end(side, frame.stream, at_ns, over),
            kind::HEADERS | kind::PUSH_PROMISE => {
                let promised = frame.kind == kind::PUSH_PROMISE;
                let bytes = fragment(&frame).ok_or("a frame of HTTP/2 is not valid")?.to_vec();
                let (stream, begun_ns) = (frame.stream, frame.begun_ns);
                self.block = Some(Block { stream, end_stream, promised, bytes, begun_ns });
                self.fields(side, frame.flags, at_ns, streams, over)?;
            }
            kind::CONTINUATION => {
                if let Some(block) = &mut self.block {
                    block.bytes.extend(&frame.payload);
                }
                self.fields(side, frame.flags, at_ns, streams, over)?;
            }
            kind::RST_STREAM => {
                let code = number(&frame.payload, 0).ok_or("a frame of HTTP/2 is not valid")?;
                streams.reset(side, frame.stream, code, over);
            }
            kind::GOAWAY => {
                let last = number(&frame.payload, 0).ok_or("a frame of HTTP/2 is not valid")?;
                streams.goaway(side, last & 0x7fff_ffff, over);
            }
            _ => {}
        }
        Ok(())
    }

    /// Decodes the block when it is complete.
    fn fields(
        &mut self,
        side: Side,
        flags: u8,
        at_ns: u64,
        streams: &mut Streams,
        over: &mut Vec<Over>,
    ) -> Result<(), Stop> {
        if flags & flag::END_HEADERS == 0 {
            return Ok(());
        }
        let Some(block) = self.block.take() else { return Ok(()) };
        let fields = self.hpack.decode(&block.bytes)?;
        if !block.promised {
            streams.fields(side, &block, &fields, at_ns)?;
            if block.end_stream {
                streams.end(side, block.stream, at_ns, over);
            }
            streams.become_tunnel(block.stream, &fields, over);
        }
        Ok(())
    }
}

impl Frame {
    /// Whether its payload is read as a whole.
    fn is_read(&self) -> bool {
        matches!(
            self.kind,
            kind::HEADERS
                | kind::PUSH_PROMISE
                | kind::CONTINUATION
                | kind::RST_STREAM
                | kind::GOAWAY
        )
    }
}

/// The part of a frame that is fields.
fn fragment(frame: &Frame) -> Option<&[u8]> {
    let mut bytes = &frame.payload[..];
    if frame.flags & flag::PADDED != 0 {
        let (padding, rest) = bytes.split_first()?;
        bytes = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    }
    if frame.kind == kind::PUSH_PROMISE {
        bytes = bytes.get(4..)?;
    } else if frame.flags & flag::PRIORITY != 0 {
        bytes = bytes.get(5..)?;
    }
    Some(bytes)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl Streams {
    fn data(&mut self, side: Side, stream: u32, bytes: &[u8], at_ns: u64) {
        let Some(exchange) = self.under_way.get_mut(&stream) else { return };
        match side {
            Side::Client => exchange.request_data(bytes),
            Side::Server => {
                exchange.at(at_ns);
                exchange.response_data(bytes.len() as u64);
            }
        }
    }

    fn skip_data(&mut self, side: Side, stream: u32, bytes: u64, lost: bool, at_ns: u64) {
        let Some(exchange) = self.under_way.get_mut(&stream) else { return };
        match side {
            Side::Client => exchange.unread_request_data(bytes),
            Side::Server => {
                exchange.at(at_ns);
                exchange.response_data(bytes);
            }
        }
        if lost {
            exchange.is_partial(LOST);
        }
    }

    fn fields(&mut self, side: Side, block: &Block, fields: &List, at_ns: u64) -> Result<(), Stop> {
        let known = self.under_way.get_mut(&block.stream);
        match (side, known) {
            (Side::Server, Some(exchange)) => {
                exchange.at(at_ns);
                let status = pseudo(fields, b":status");
                let status = status.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
                let informational = |status: &u16| (100..200).contains(status);
                if let Some(status) = status.filter(|status| !informational(status))
                    && exchange.status.is_none()
                {
                    exchange.respond(status, plain(fields), block.begun_ns);
                    // RFC 9110, 8.6: what the body of a GET would have.
                    if exchange.method != "HEAD"
                        && let Some(length) = content_length(fields)
                    {
                        exchange.is_of_length(length);
                    }
                }
            }
            // Trailers of a request say nothing that is kept; a stream that is over has been told.
            (Side::Client, Some(_)) | (Side::Server, None) => {}
            (Side::Client, None) if block.stream <= self.last => {}
            (Side::Client, None) => {
                let is_first = std::mem::replace(&mut self.last, block.stream) == 0;
                let method = pseudo(fields, b":method").ok_or("a request has no method")?;
                let host = || {
                    let host = plain(fields).find(|(name, _)| name.eq_ignore_ascii_case(b"host"));
                    host.map(|(_, value)| value)
                };
                let asked = Asked {
                    method,
                    target: pseudo(fields, b":path").unwrap_or_default(),
                    authority: pseudo(fields, b":authority").or_else(host),
                    version: "2",
                    http2_stream: Some(block.stream),
                };
                if self.under_way.len() >= UNDER_WAY_MAX {
                    return Err(format!(
                        "more than {UNDER_WAY_MAX} requests are under way at once"
                    ));
                }
                let mut exchange =
                    Exchange::new(&asked, plain(fields), block.begun_ns, self.extract);
                exchange.is_first = is_first;
                self.under_way.insert(block.stream, exchange);
            }
        }
        Ok(())
    }

    fn end(&mut self, side: Side, stream: u32, at_ns: u64, over: &mut Vec<Over>) {
        let Some(exchange) = self.under_way.get_mut(&stream) else { return };
        match side {
            Side::Client => exchange.request_ended = true,
            Side::Server => {
                exchange.at(at_ns);
                exchange.response_ended = true;
            }
        }
        if exchange.request_ended && exchange.response_ended {
            self.take(stream, over, |exchange| exchange.over(CallOutcome::Complete));
        }
    }

    /// A CONNECT that was answered well: a tunnel, or what RFC 8441 puts in its place.
    fn become_tunnel(&mut self, stream: u32, fields: &List, over: &mut Vec<Over>) {
        const SHOWN_MAX: usize = 64;
        let Some(exchange) = self.under_way.get_mut(&stream) else { return };
        if exchange.method == "CONNECT" {
            if let Some(to) = pseudo(fields, b":protocol") {
                exchange.tunnel = Some(printable(&to[..to.len().min(SHOWN_MAX)]));
            }
            if exchange.status.is_some_and(|status| (200..300).contains(&status)) {
                let to = exchange.tunnel.take().unwrap_or_else(|| "a tunnel".into());
                self.take(stream, over, |exchange| exchange.over(CallOutcome::Upgraded { to }));
            }
        }
    }

    fn reset(&mut self, side: Side, stream: u32, code: u32, over: &mut Vec<Over>) {
        let who = match side {
            Side::Client => "client",
            Side::Server => "server",
        };
        let why = match code {
            NO_ERROR => format!("was ended by the {who} before its response did"),
            code => format!("was reset by the {who} (HTTP/2 error {code})"),
        };
        self.take(stream, over, |exchange| exchange.cut(&why));
    }

    fn goaway(&mut self, side: Side, last: u32, over: &mut Vec<Over>) {
        if side == Side::Server {
            for stream in self.under_way.split_off(&last.saturating_add(1)).into_values() {
                over.push(stream.cut("was refused by the server, which is going away"));
            }
        }
    }

    fn take(&mut self, stream: u32, over: &mut Vec<Over>, end: impl FnOnce(Exchange) -> Over) {
        over.extend(self.under_way.remove(&stream).map(end));
    }
}

fn pseudo<'a>(fields: &'a List, name: &[u8]) -> Option<&'a [u8]> {
    fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice())
}

fn content_length(fields: &List) -> Option<u64> {
    let (_, length) = plain(fields).find(|(name, _)| *name == b"content-length")?;
    std::str::from_utf8(length).ok()?.parse().ok()
}

/// Fields that are no pseudo fields.
fn plain(fields: &List) -> impl Iterator<Item = Field<'_>> + Clone {
    let fields = fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    fields.filter(|(name, _)| !name.starts_with(b":"))
}
