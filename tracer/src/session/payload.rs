//! What the first bytes of streams and the datagrams of the tree say.
//!
//! Memory is bounded, whatever the tree sends: [`STREAM_BYTES`] for each stream that has not said
//! what it is, and [`HELD_BYTES`] for all of them; when there are more, the oldest are given up.

use std::collections::{HashMap, HashSet, VecDeque};

use tracer_ebpf::abi::{DNS_STREAM_BYTES, QUIC_INITIALS_MAX};

use crate::{
    model::{Endpoint, EventHeader, PayloadEvent},
    protocol::{Reading, dns, http, pieces::Pieces, quic::Initials, tls},
    record::{
        Record,
        schema::{Dns, DnsMessage, FirstBytes, Opening},
    },
};

/// What is kept of one direction of a stream: a ClientHello in as many TLS records as bytes is longer
/// still, and nobody sends one.
const STREAM_BYTES: usize = 24 * 1024;
/// What is kept of all streams together.
const HELD_BYTES: usize = 64 * 1024 * 1024;
/// Streams that have not said what they are, at most.
const OPEN_MAX: usize = 1 << 16;
/// Entries of streams that are over are cleared out when there are so many of them.
const ORDER_SLACK: usize = 1024;

const TCP: u16 = 6;
const UDP: u16 = 17;
const DNS_PORT: u16 = 53;

/// One direction of a socket. The direction is of use for DNS only.
type Key = (u64, bool);
/// A datagram socket and where it sends to.
type Flow = (u64, Option<Endpoint>);

/// Puts pieces together and reads them.
#[derive(Debug, Default)]
pub struct Payloads {
    streams: HashMap<Key, Stream>,
    /// Streams that have said what they are, or never will.
    said: HashSet<Key>,
    quic: HashMap<Flow, QuicFlow>,
    by_connection: HashMap<u64, u64>,
    /// Streams and flows in the order in which they began; some of them are over.
    order: VecDeque<Begun>,
    held_bytes: usize,
    /// Connections that are gone. Their pieces may come with the next round.
    closing: Vec<u64>,
    closed: Vec<u64>,
}

#[derive(Debug)]
enum Begun {
    Stream(Key),
    Flow(Flow),
}

/// What is known of a socket from its first piece.
#[derive(Clone, Copy, Debug)]
struct Socket {
    header: EventHeader,
    cookie: u64,
    connection: Option<u64>,
    destination: Option<Endpoint>,
}

#[derive(Debug)]
struct Stream {
    socket: Socket,
    is_dns: bool,
    incoming: bool,
    pieces: Pieces,
    /// Bytes at the beginning that have been read.
    read_bytes: usize,
    /// A piece was cut when it was taken.
    cut: bool,
}

#[derive(Debug)]
struct QuicFlow {
    socket: Socket,
    initials: Initials,
    /// How many of its packets came here.
    packets: u32,
}

/// Why no more of a stream or flow is looked at.
#[derive(Clone, Copy)]
enum End {
    /// There is no more of it.
    Over(&'static str),
    /// More may come, and is not read.
    TooMuch(&'static str),
}

/// What a look at a stream ends with.
enum Look {
    More,
    Over,
}

impl Payloads {
    /// The records that this piece completes: [`Record::Dns`] and [`Record::Opening`].
    pub fn add(&mut self, event: PayloadEvent) -> Vec<Record> {
        let socket = Socket {
            header: event.header,
            cookie: event.cookie,
            connection: event.connection,
            destination: event.destination,
        };
        let is_dns = event.destination.is_some_and(|end| end.port == DNS_PORT);
        let mut records = match event.protocol {
            TCP if is_dns || !event.incoming => self.stream(socket, is_dns, &event),
            UDP if is_dns => {
                let whole = event.bytes.len() as u64 >= u64::from(event.wire_bytes);
                let message = directed(dns::message(&event.bytes, whole), event.incoming);
                vec![socket.dns(event.header.time_ns, false, message)]
            }
            UDP if !event.incoming => self.datagram(socket, &event),
            _ => Vec::new(),
        };
        if self.order.len() > 2 * (self.streams.len() + self.quic.len()) + ORDER_SLACK {
            let Payloads { order, streams, quic, .. } = self;
            order.retain(|begun| match begun {
                Begun::Stream(key) => streams.contains_key(key),
                Begun::Flow(flow) => quic.contains_key(flow),
            });
        }
        while self.held_bytes > HELD_BYTES || self.streams.len() + self.quic.len() > OPEN_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            let why = "too many connections were beginning at once";
            records.extend(self.give_up(oldest, End::TooMuch(why)));
        }
        records
    }

    /// A connection is gone: what its pieces amount to, when they had not said it yet, comes with
    /// [`Payloads::round`].
    pub fn closed(&mut self, connection: u64) {
        self.closing.push(connection);
    }

    /// To be called after each round of the rings: pieces come in another ring than the end of their
    /// connection, so a connection is over in the round after its last one.
    pub fn round(&mut self) -> Vec<Record> {
        let over = std::mem::replace(&mut self.closed, std::mem::take(&mut self.closing));
        let mut records = Vec::new();
        for connection in over {
            let Some(cookie) = self.by_connection.remove(&connection) else { continue };
            for key in [(cookie, false), (cookie, true)] {
                records.extend(self.give_up(Begun::Stream(key), End::Over("the connection ended")));
                self.said.remove(&key);
            }
        }
        records
    }

    /// Tracing has ended: what is left.
    pub fn rest(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        while let Some(oldest) = self.order.pop_front() {
            records.extend(self.give_up(oldest, End::Over("tracing ended")));
        }
        records
    }

    fn stream(&mut self, socket: Socket, is_dns: bool, event: &PayloadEvent) -> Vec<Record> {
        let key = (event.cookie, event.incoming);
        if self.said.contains(&key) {
            return Vec::new();
        }
        if let Some(connection) = event.connection {
            self.by_connection.insert(connection, event.cookie);
        }
        let order = &mut self.order;
        let stream = self.streams.entry(key).or_insert_with(|| {
            order.push_back(Begun::Stream(key));
            let incoming = event.incoming;
            let pieces = Pieces::new(STREAM_BYTES);
            Stream { socket, is_dns, incoming, pieces, read_bytes: 0, cut: false }
        });
        let before = stream.pieces.held_bytes();
        stream.cut |= (event.bytes.len() as u64) < u64::from(event.wire_bytes);
        let mut records = Vec::new();
        let grown = stream.pieces.add(event.offset_bytes, &event.bytes);
        let look = if grown { stream.look(event.header.time_ns, &mut records) } else { Look::More };
        self.held_bytes = self.held_bytes - before + stream.pieces.held_bytes();
        if matches!(look, Look::Over) {
            self.forget(key);
        } else if stream.pieces.is_full() {
            let why = "it is longer than what tracer keeps";
            records.extend(self.give_up(Begun::Stream(key), End::TooMuch(why)));
        }
        records
    }

    fn datagram(&mut self, socket: Socket, event: &PayloadEvent) -> Vec<Record> {
        let flow = (event.cookie, event.destination);
        let order = &mut self.order;
        let known = self.quic.entry(flow).or_insert_with(|| {
            order.push_back(Begun::Flow(flow));
            QuicFlow { socket, initials: Initials::default(), packets: 0 }
        });
        let before = known.initials.held_bytes();
        let whole = event.bytes.len() as u64 >= u64::from(event.wire_bytes);
        let mut found = known.initials.add(&event.bytes, whole);
        known.packets += 1;
        if known.packets == QUIC_INITIALS_MAX {
            found.push(Err(format!(
                "what comes behind {QUIC_INITIALS_MAX} QUIC Initial packets of one socket to one \
                 destination is not read"
            )));
        }
        self.held_bytes = self.held_bytes - before + known.initials.held_bytes();
        found
            .into_iter()
            .map(|hello| {
                let what = match hello {
                    Ok(hello) => hello.first_bytes(true),
                    Err(why) => FirstBytes::Unread { why },
                };
                socket.opening(event.header.time_ns, what)
            })
            .collect()
    }

    /// Ends a stream or flow that is still open.
    fn give_up(&mut self, begun: Begun, end: End) -> Vec<Record> {
        match begun {
            Begun::Stream(key) => {
                let record = self.streams.get(&key).map(|stream| stream.unfinished(end));
                self.forget(key);
                record.flatten().into_iter().collect()
            }
            Begun::Flow(flow) => {
                let Some(QuicFlow { socket, initials, .. }) = self.quic.remove(&flow) else {
                    return Vec::new();
                };
                self.held_bytes -= initials.held_bytes();
                let mut missing = initials.rest();
                let why = match end {
                    End::Over(why) => why,
                    End::TooMuch(why) => {
                        missing.push("which QUIC connections follow was not kept".into());
                        why
                    }
                };
                let record = |missing: String| {
                    let why = format!("{missing}: {why}");
                    socket.opening(socket.header.time_ns, FirstBytes::Unread { why })
                };
                missing.into_iter().map(record).collect()
            }
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some(stream) = self.streams.remove(&key) {
            self.held_bytes -= stream.pieces.held_bytes();
            self.said.insert(key);
        }
    }
}

/// A message that goes the way that its kind goes: a client asks and a server answers. What claims to be an
/// answer and is sent could carry anything behind its question.
fn directed(message: DnsMessage, incoming: bool) -> DnsMessage {
    let why = match message {
        DnsMessage::Answer { .. } if !incoming => "an answer, where a client asks",
        DnsMessage::Question { .. } if incoming => "a question, where a server answers",
        DnsMessage::Answer { .. } | DnsMessage::Question { .. } | DnsMessage::Malformed { .. } => {
            return message;
        }
    };
    DnsMessage::Malformed { why: why.into() }
}

impl Stream {
    fn look(&mut self, t_ns: u64, records: &mut Vec<Record>) -> Look {
        let bytes = self.pieces.beginning().get(self.read_bytes..).unwrap_or_default();
        if self.is_dns {
            let (messages, read_bytes) = dns::framed(bytes);
            for message in messages {
                let message = directed(dns::message(message, true), self.incoming);
                records.push(self.socket.dns(t_ns, true, message));
            }
            self.read_bytes += read_bytes;
            return Look::More;
        }
        let what = match tls::in_records(bytes) {
            Reading::Done(hello) => hello.first_bytes(false),
            Reading::Bad(why) => FirstBytes::Unread { why },
            Reading::Partial => return Look::More,
            Reading::No => match http::head(bytes) {
                Reading::Done(http::Head { method, host, bytes }) => {
                    // Behind the request to a proxy comes what the tunnel is for.
                    let tunnel = method == "CONNECT" && self.read_bytes == 0;
                    let what = FirstBytes::Http { method, host };
                    records.push(self.socket.opening(self.socket.header.time_ns, what));
                    if !tunnel {
                        return Look::Over;
                    }
                    self.read_bytes += bytes;
                    let more = self.pieces.beginning().len() > self.read_bytes;
                    return if more { self.look(t_ns, records) } else { Look::More };
                }
                Reading::Bad(why) => FirstBytes::Unread { why },
                Reading::Partial => return Look::More,
                Reading::No => FirstBytes::Other,
            },
        };
        // In a tunnel, what is neither says nothing new.
        if self.read_bytes == 0 || what != FirstBytes::Other {
            records.push(self.socket.opening(self.socket.header.time_ns, what));
        }
        Look::Over
    }

    /// What a stream that is over amounts to, although it never was complete.
    fn unfinished(&self, end: End) -> Option<Record> {
        let (is_over, why) = match end {
            End::Over(why) => (true, why),
            End::TooMuch(why) => (false, why),
        };
        let t_ns = self.socket.header.time_ns;
        let bytes = self.pieces.beginning().get(self.read_bytes..).unwrap_or_default();
        let missing = if self.cut || self.pieces.has_hole() {
            "not all of its first bytes were seen"
        } else {
            "its first bytes were not complete"
        };
        let why = format!("{missing}: {why}");
        if self.is_dns {
            // What comes behind that can be anything.
            let taken = DNS_STREAM_BYTES as usize;
            let is_all = !self.cut && self.pieces.beginning().len() < taken;
            if bytes.is_empty() && !self.pieces.has_hole() && is_all && is_over {
                return None;
            }
            let why =
                if is_all { why } else { format!("what came behind {taken} bytes was not read") };
            return Some(self.socket.dns(t_ns, true, DnsMessage::Malformed { why }));
        }
        if bytes.is_empty() && !self.pieces.has_hole() && !self.pieces.is_full() {
            return None;
        }
        let other = !self.pieces.has_hole()
            && matches!(tls::in_records(bytes), Reading::No)
            && !http::looks_like(bytes);
        let what = if other { FirstBytes::Other } else { FirstBytes::Unread { why } };
        Some(self.socket.opening(t_ns, what))
    }
}

impl Socket {
    fn dns(&self, t_ns: u64, tcp: bool, message: DnsMessage) -> Record {
        Record::Dns(Dns {
            t_ns,
            process: self.header.process,
            cookie: self.cookie,
            server: self.destination,
            tcp,
            message,
        })
    }

    fn opening(&self, t_ns: u64, what: FirstBytes) -> Record {
        Record::Opening(Opening {
            t_ns,
            process: self.header.process,
            cookie: self.cookie,
            connection: self.connection,
            destination: self.destination,
            what,
        })
    }
}

#[cfg(test)]
mod tests;
