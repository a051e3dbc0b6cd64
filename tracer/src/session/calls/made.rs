//! Conversations for tests.

use loona_hpack::Encoder;
use proptest::prelude::*;

use super::{Calls, Chunk, Direction, http2::PREFACE};
use crate::{
    model::ProcessKey,
    record::schema::{Call, CallOutcome, Record},
};

pub(super) const PROCESS: ProcessKey = ProcessKey { pid: 7, start_ns: 1 };

/// Bytes of both directions, in the order in which they pass.
pub(super) type Talk = Vec<(Direction, Vec<u8>)>;

pub(super) fn sent(bytes: impl AsRef<[u8]>) -> (Direction, Vec<u8>) {
    (Direction::Sent, bytes.as_ref().to_vec())
}

pub(super) fn received(bytes: impl AsRef<[u8]>) -> (Direction, Vec<u8>) {
    (Direction::Received, bytes.as_ref().to_vec())
}

/// One session, with the bytes that each direction had.
#[derive(Debug, Default)]
pub(super) struct Feed {
    pub(super) calls: Calls,
    offsets: [u64; 2],
    pub(super) at_ns: u64,
}

impl Feed {
    pub(super) fn new(extract: bool) -> Feed {
        Feed { calls: Calls::new(extract), ..Feed::default() }
    }

    /// A chunk of which only the first bytes were captured.
    pub(super) fn cut(&mut self, direction: Direction, bytes: &[u8], captured: usize) {
        let offset = &mut self.offsets[usize::from(direction == Direction::Received)];
        let length = bytes.len() as u64;
        self.calls.chunk(&Chunk {
            process: PROCESS,
            stream: 1,
            direction,
            at_ns: self.at_ns,
            offset: *offset,
            length,
            bytes: &bytes[..captured.min(bytes.len())],
        });
        *offset += length;
    }

    pub(super) fn add(&mut self, direction: Direction, bytes: &[u8]) {
        self.cut(direction, bytes, bytes.len());
    }

    /// Bytes that never came.
    pub(super) fn lose(&mut self, direction: Direction, bytes: u64) {
        self.offsets[usize::from(direction == Direction::Received)] += bytes;
    }

    pub(super) fn talk(&mut self, talk: &Talk) {
        for (direction, bytes) in talk {
            self.at_ns += 1_000_000;
            self.add(*direction, bytes);
        }
    }

    pub(super) fn close(mut self) -> Vec<Record> {
        let [sent, received] = self.offsets;
        self.calls.closed(PROCESS, 1, (sent, received), self.at_ns);
        self.calls.round(true)
    }
}

/// What became of a talk.
pub(super) fn calls(talk: &Talk) -> Vec<String> {
    let mut feed = Feed::new(false);
    feed.talk(talk);
    said(&feed.close())
}

pub(super) fn said(records: &[Record]) -> Vec<String> {
    records.iter().map(short).collect()
}

fn short(record: &Record) -> String {
    if let Record::CallGap(gap) = record {
        return format!("gap: {}", gap.why);
    }
    let call = call(record);
    let outcome = match &call.outcome {
        CallOutcome::Complete => "complete".into(),
        CallOutcome::Upgraded { to } => format!("upgraded to {to}"),
        CallOutcome::Aborted { why } => format!("aborted: {why}"),
        CallOutcome::Partial { why } => format!("partial: {why}"),
    };
    let status = call.status.map_or("-".into(), |status| status.to_string());
    format!(
        "{}{}{} {} {status} {}/{} {outcome}",
        if call.joined { "joined " } else { "" },
        if call.served { "served " } else { "" },
        call.method,
        call.url,
        call.request_bytes,
        call.response_bytes
    )
}

pub(super) fn call(record: &Record) -> &Call {
    let Record::Call(call) = record else { panic!("{record:?}") };
    call
}

/// A frame of HTTP/2.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// Both ends of HTTP/2.
pub(super) struct Ends {
    client: Encoder<'static>,
    server: Encoder<'static>,
}

impl Ends {
    pub(super) fn new() -> Ends {
        Ends { client: Encoder::new(), server: Encoder::new() }
    }

    pub(super) fn fields(&mut self, direction: Direction, fields: &[(&str, &str)]) -> Vec<u8> {
        let encoder = match direction {
            Direction::Sent => &mut self.client,
            Direction::Received => &mut self.server,
        };
        encoder.encode(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    pub(super) fn get(&mut self, stream: u32, path: &str) -> (Direction, Vec<u8>) {
        let block = self.request("GET", path);
        sent(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block))
    }

    pub(super) fn request(&mut self, method: &str, path: &str) -> Vec<u8> {
        let fields = [
            (":method", method),
            (":scheme", "https"),
            (":path", path),
            (":authority", "a.example"),
        ];
        self.fields(Direction::Sent, &fields)
    }

    pub(super) fn status(&mut self, stream: u32, status: &str, flags: u8) -> (Direction, Vec<u8>) {
        let block = self.fields(Direction::Received, &[(":status", status), ("request-id", "r1")]);
        received(frame(HEADERS, END_HEADERS | flags, stream, &block))
    }
}

pub(super) fn preface() -> Talk {
    vec![
        sent([PREFACE, &frame(4, 0, 0, &[])].concat()),
        received(frame(4, 0, 0, &[0, 3, 0, 0, 0, 9])),
    ]
}

/// Of one generated call.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    method: &'static str,
    path: u16,
    request: usize,
    response: usize,
    status: u16,
    chunked: bool,
    early: bool,
    padded: u8,
}

pub(super) fn plan() -> impl Strategy<Value = Plan> {
    let method = prop::sample::select(vec!["GET", "POST", "HEAD", "DELETE"]);
    let status = prop::sample::select(vec![200u16, 201, 204, 304, 404, 500]);
    let size = || prop_oneof![Just(0usize), 1..50usize, 1000..3000usize];
    (method, any::<u16>(), size(), size(), status, any::<bool>(), any::<bool>(), any::<u8>())
        .prop_map(|(method, path, request, response, status, chunked, early, padded)| Plan {
            method,
            path,
            request: if method == "POST" { request } else { 0 },
            response: if method == "HEAD" || status == 204 || status == 304 { 0 } else { response },
            status,
            chunked,
            early,
            padded,
        })
}

impl Plan {
    pub(super) fn expected(&self) -> String {
        let Plan { method, path, request, response, status, .. } = self;
        format!("{method} https://a.example/{path} {status} {request}/{response} complete")
    }

    fn body(bytes: usize, chunked: bool) -> (String, Vec<u8>) {
        // Bytes that look like the end of a head or of a chunk.
        let body: Vec<u8> =
            b"\r\n\r\n0\r\n\r\nHTTP/1.1 ".iter().copied().cycle().take(bytes).collect();
        if !chunked {
            return (format!("Content-Length: {bytes}\r\n"), body);
        }
        let mut coded = Vec::new();
        for chunk in body.chunks(700) {
            coded.extend(format!("{:x};x=y\r\n", chunk.len()).as_bytes());
            coded.extend(chunk);
            coded.extend(b"\r\n");
        }
        coded.extend(b"0\r\nX-Trailer: 1\r\n\r\n");
        ("Transfer-Encoding: chunked\r\n".into(), coded)
    }

    /// The request, and the response to it.
    pub(super) fn http1(&self) -> [(Direction, Vec<u8>); 2] {
        let (line, body) = Plan::body(self.request, self.chunked);
        let line = if self.method == "POST" { line } else { String::new() };
        let body = if self.method == "POST" { body } else { Vec::new() };
        let head =
            format!("{} /{} HTTP/1.1\r\nHost: a.example\r\n{line}\r\n", self.method, self.path);
        let request = [head.as_bytes(), &body].concat();
        let none = self.method == "HEAD" || self.status == 204 || self.status == 304;
        let (line, body) = Plan::body(self.response, !self.chunked);
        let body = if none { Vec::new() } else { body };
        let early = if self.early { "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" } else { "" };
        let head = format!("{early}HTTP/1.1 {} X\r\n{line}\r\n", self.status);
        [sent(request), received([head.as_bytes(), &body].concat())]
    }

    /// The frames of the request and of the response.
    pub(super) fn http2(&self, stream: u32, ends: &mut Ends) -> [Talk; 2] {
        let block = ends.request(self.method, &format!("/{}", self.path));
        let (first, rest) = block.split_at(block.len() / 2);
        let no_body = self.request == 0;
        let end = if no_body { END_STREAM } else { 0 };
        let mut request = vec![sent(
            [frame(HEADERS, end, stream, first), frame(9, END_HEADERS, stream, rest)].concat(),
        )];
        request.extend(self.data(self.request, stream).into_iter().map(sent));
        let mut response = Vec::new();
        if self.early {
            response.push(ends.status(stream, "103", 0));
        }
        let end = if self.response == 0 && !self.chunked { END_STREAM } else { 0 };
        response.push(ends.status(stream, &self.status.to_string(), end));
        let mut data = self.data(self.response, stream);
        if self.chunked {
            // Trailers end it instead of the data.
            for frame in &mut data {
                frame[4] &= !END_STREAM;
            }
            let block = ends.fields(Direction::Received, &[("x-trailer", "1")]);
            data.push(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
        }
        response.extend(data.into_iter().map(received));
        [request, response]
    }

    fn data(&self, bytes: usize, stream: u32) -> Vec<Vec<u8>> {
        let mut frames: Vec<Vec<u8>> = vec![b'x'; bytes]
            .chunks(900)
            .map(|data| {
                if self.padded.is_multiple_of(2) {
                    return frame(DATA, 0, stream, data);
                }
                let padding = vec![0; self.padded.into()];
                frame(DATA, PADDED, stream, &[&[self.padded], data, &padding[..]].concat())
            })
            .collect();
        if let Some(last) = frames.last_mut() {
            last[4] |= END_STREAM;
        }
        frames
    }
}

/// The same bytes in pieces of these sizes, neighbours of one direction put together first.
pub(super) fn chunked(talk: &Talk, sizes: &[usize]) -> Talk {
    let mut joined: Talk = Vec::new();
    for (direction, bytes) in talk {
        match joined.last_mut() {
            Some((last, known)) if last == direction => known.extend(bytes),
            _ => joined.push((*direction, bytes.clone())),
        }
    }
    let mut sizes = sizes.iter().copied().cycle();
    let mut pieces = Vec::new();
    for (direction, bytes) in joined {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
            pieces.push((direction, piece.to_vec()));
            rest = after;
        }
    }
    pieces
}
