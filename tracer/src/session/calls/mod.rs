//! HTTP calls, from what programs hand to TLS and get from it.
//!
//! ```text
//! chunk ─► Stream ─► Http1 or Http2 ─► Exchange ─┐
//! ClientHello on the wire ─► Joins ──────────────┴─► Record::Call
//! ```
//!
//! No IO and no clock. What cannot be read for certain is not guessed: the calls of that stream are
//! partial, and a [`CallGap`] says that there may be more. Memory is bounded, whatever comes:
//! [`SESSIONS_MAX`] sessions and [`HELD_MAX_BYTES`] of unfinished heads and calls in all of them; when
//! there is more, those in which nothing happened for longest are given up, which is said too.

mod body;
mod exchange;
mod fields;
mod head;
mod hpack;
mod http1;
mod http2;
mod joins;
#[cfg(test)]
mod made;
mod plain;
mod proxy;
mod redact;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use crate::{
    model::{Endpoint, PayloadEvent, ProcessKey},
    record::schema::{Call, CallConnection, CallGap, CallOutcome, JoinedBy, Opening, Record},
};
use exchange::{Exchange, Over, ms};
use joins::{ClientRandom, Joins};
use plain::Plain;
use stream::Stream;

/// Sessions that are open at once.
const SESSIONS_MAX: usize = 16 * 1024;
/// What they hold in all, by their own estimate.
const HELD_MAX_BYTES: usize = 64 * 1024 * 1024;

/// As the process sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Sent,
    Received,
}

impl Direction {
    fn other(self) -> Direction {
        match self {
            Direction::Sent => Direction::Received,
            Direction::Received => Direction::Sent,
        }
    }
}

/// Bytes that one call of the TLS library took or gave.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    pub process: ProcessKey,
    /// Names the TLS session in the process.
    pub stream: u64,
    pub direction: Direction,
    pub at_ns: u64,
    /// Bytes of this direction before it, read or not.
    pub offset: u64,
    /// How many there were.
    pub length: u64,
    /// The first of them.
    pub bytes: &'a [u8],
}

/// What a stream of bytes is named by within its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Tls(u64),
    /// The cookie of the socket.
    Plain(u64),
}

type Key = (ProcessKey, Name);

#[derive(Debug)]
struct Session {
    stream: Stream,
    randoms: Vec<ClientRandom>,
    /// Of a socket without TLS, and whom it is with.
    connection: Option<u64>,
    server: Option<Endpoint>,
    /// Some of its calls are over.
    had_calls: bool,
    held_bytes: usize,
    /// Pieces of any session that were lost before it began.
    lost_before: u64,
    /// By the count of what came, and when.
    touched: u64,
    last_ns: u64,
}

/// A call or gap that waits for what names its connection.
#[derive(Debug)]
struct Done {
    key: Key,
    randoms: Vec<ClientRandom>,
    connection: Option<u64>,
    /// Whom the call is to, as far as the socket says it.
    server: Option<Endpoint>,
    served: bool,
    what: What,
}

#[derive(Debug)]
enum What {
    Call(Box<Exchange>, CallOutcome),
    Gap { t_ns: u64, why: String },
}

/// Puts calls together.
#[derive(Debug, Default)]
pub struct Calls {
    /// Read what is wanted of JSON bodies.
    extract: bool,
    sessions: BTreeMap<Key, Session>,
    held_bytes: usize,
    joins: Joins,
    /// Processes of whose calls some library was watched from a time on only.
    late: HashMap<ProcessKey, u64>,
    plain: Plain,
    /// Of this round, and of the one before it.
    done: Vec<Done>,
    waiting: Vec<Done>,
    /// Processes that have ended. Their last bytes may come with the next round.
    exiting: Vec<ProcessKey>,
    exited: Vec<ProcessKey>,
    /// Pieces of TLS sessions that never came.
    lost: u64,
    /// Counts what came, for what was touched last.
    clock: u64,
}

impl Calls {
    pub fn new(extract: bool) -> Calls {
        Calls { extract, ..Calls::default() }
    }

    /// What is kept of what is not over, about.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// So many pieces of TLS sessions were lost so far. To be said before each round's events.
    pub fn lost(&mut self, pieces: u64) {
        self.lost = pieces;
    }

    /// A TLS library of the process is watched from then on: sessions that had begun are read from their middle.
    pub fn watched_from(&mut self, process: ProcessKey, t_ns: u64) {
        let from_ns = self.late.entry(process).or_default();
        *from_ns = t_ns.max(*from_ns);
    }

    /// A child goes on with the sessions of its parent.
    pub fn forked(&mut self, parent: ProcessKey, child: ProcessKey) {
        if let Some(from_ns) = self.late.get(&parent).copied() {
            self.late.insert(child, from_ns);
        }
    }

    /// What the process executes has no session yet.
    pub fn executed(&mut self, process: ProcessKey) {
        self.late.remove(&process);
    }

    /// What the first bytes of a connection said, before [`Calls::opening`].
    pub fn heard(&mut self, opening: &Opening) {
        self.joins.heard(opening);
    }

    /// Whether the session can have begun before its library was watched: it did not if its ClientHello was on
    /// the wire later than that.
    fn may_be_late(&self, key: Key) -> bool {
        let Some(from_ns) = self.late.get(&key.0) else { return false };
        let randoms = self.sessions.get(&key).map_or(&[][..], |session| &session.randoms);
        self.joins.began_ns(randoms).is_none_or(|began_ns| began_ns < *from_ns)
    }

    pub fn chunk(&mut self, chunk: &Chunk<'_>) {
        let key = (chunk.process, Name::Tls(chunk.stream));
        let may_be_late = self.may_be_late(key);
        self.session(
            key,
            None,
            |stream, over| {
                if stream.is_new() && chunk.offset > 0 {
                    const WHY: &str = "tracer began to read it in the middle";
                    stream.stop(WHY, over);
                    return Err(WHY.into());
                }
                let Chunk { direction, at_ns, offset, length, bytes, .. } = *chunk;
                let is_late = may_be_late && stream.is_new() && stream.join_late(bytes);
                stream.add(direction, at_ns, offset, length, bytes, over)?;
                if is_late { Err(LATE.into()) } else { Ok(()) }
            },
            chunk.at_ns,
        );
    }

    /// The TLS session ended, in which so many bytes were sent and received.
    pub fn closed(&mut self, process: ProcessKey, stream: u64, bytes: (u64, u64), t_ns: u64) {
        let key = (process, Name::Tls(stream));
        if self.sessions.contains_key(&key) {
            self.session(key, None, |stream, over| stream.ended(bytes, t_ns, over), t_ns);
        }
        self.close(key, CLOSED, true);
    }

    /// What may be the random number of the ClientHello that the TLS session sent. What is not on the
    /// wire is not.
    pub fn hello(&mut self, process: ProcessKey, stream: u64, client_random: ClientRandom) {
        let key = (process, Name::Tls(stream));
        self.session(key, None, |_, _| Ok(()), 0);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.randoms.push(client_random);
        }
    }

    /// Bytes of a TCP connection, with TLS or without.
    pub fn payload(&mut self, event: &PayloadEvent) {
        let Some(read) = self.plain.add(event) else { return };
        let key = (read.process, Name::Plain(event.cookie));
        self.session(
            key,
            Some(event),
            |stream, over| {
                let length = read.bytes.len() as u64;
                stream.add(
                    read.direction,
                    event.header.time_ns,
                    read.offset,
                    length,
                    &read.bytes,
                    over,
                )?;
                let Some(why) = read.ends.filter(|_| !stream.is_over()) else { return Ok(()) };
                stream.stop(why, over);
                Err(why.into())
            },
            event.header.time_ns,
        );
        if self.sessions.get(&key).is_some_and(|session| session.stream.is_over()) {
            // Nothing is held by one that is over.
            self.sessions.remove(&key);
            self.plain.stop(event.cookie);
        }
    }

    /// What the first bytes of a connection said, and when it was asked for.
    pub fn opening(&mut self, opening: &Opening, attempted_ns: Option<u64>) {
        self.joins.opening(opening, attempted_ns);
    }

    /// A connection is gone, which received so many bytes in all if that is known.
    pub fn connection_closed(&mut self, connection: u64, t_ns: u64, received_bytes: Option<u64>) {
        self.joins.closed(connection, t_ns);
        self.plain.closed(connection, received_bytes);
    }

    /// A process is gone, and its sessions with it.
    pub fn exited(&mut self, process: ProcessKey) {
        self.exiting.push(process);
    }

    /// What is over since the last round: to be called after each, when the ClientHellos of the round
    /// are known. With `all`, tracing has ended.
    pub fn round(&mut self, all: bool) -> Vec<Record> {
        for (cookie, process, unread) in self.plain.round(all) {
            let key = (process, Name::Plain(cookie));
            let session = unread.and_then(|why| Some((self.sessions.remove(&key)?, why)));
            if let Some((session, why)) = session {
                if session.may_miss_calls(key) || session.stream.has_calls() {
                    self.done.push(session.gap(key, why.into()));
                }
                self.give_up(key, session, why);
            } else {
                self.close(key, CLOSED, true);
            }
        }
        let mut exited = std::mem::replace(&mut self.exited, std::mem::take(&mut self.exiting));
        if all {
            exited.append(&mut self.exited);
        }
        self.joins.forget_heard();
        for process in exited {
            self.late.remove(&process);
            let of = (process, Name::Tls(0))..=(process, Name::Plain(u64::MAX));
            let keys: Vec<Key> = self.sessions.range(of).map(|(key, _)| *key).collect();
            for key in keys {
                self.ended_with_process(key);
            }
        }
        let mut done = std::mem::replace(&mut self.waiting, std::mem::take(&mut self.done));
        if all {
            for (key, session) in std::mem::take(&mut self.sessions) {
                self.give_up(key, session, "tracing ended before it did");
            }
            done.append(&mut self.waiting);
            done.append(&mut self.done);
        }
        done.into_iter().map(|done| self.record(done)).collect()
    }

    /// Does something with a session, which begins with that if it is new.
    fn session(
        &mut self,
        key: Key,
        plain: Option<&PayloadEvent>,
        work: impl FnOnce(&mut Stream, &mut Vec<Over>) -> Result<(), String>,
        t_ns: u64,
    ) {
        self.clock += 1;
        let extract = self.extract;
        let session = self.sessions.entry(key).or_insert_with(|| Session {
            stream: Stream::new(extract, matches!(key.1, Name::Tls(_))),
            randoms: Vec::new(),
            connection: plain.and_then(|event| event.connection),
            server: plain.and_then(|event| event.destination),
            had_calls: false,
            held_bytes: 0,
            lost_before: self.lost,
            touched: 0,
            last_ns: 0,
        });
        session.touched = self.clock;
        session.last_ns = session.last_ns.max(t_ns);
        let mut over = Vec::new();
        let result = work(&mut session.stream, &mut over);
        let held_bytes = session.stream.held_bytes();
        self.held_bytes = self.held_bytes - session.held_bytes + held_bytes;
        session.held_bytes = held_bytes;
        session.tell(key, over, &mut self.done);
        if let Err(why) = result
            && session.may_miss_calls(key)
        {
            self.done.push(session.gap(key, why));
        }
        self.make_room();
    }

    fn close(&mut self, key: Key, why: &str, seen: bool) {
        let Some(mut session) = self.sessions.remove(&key) else { return };
        self.held_bytes -= session.held_bytes;
        let mut over = Vec::new();
        let result = session.stream.closed(why, seen, &mut over);
        session.tell(key, over, &mut self.done);
        if let Err(why) = result
            && session.may_miss_calls(key)
        {
            self.done.push(session.gap(key, why));
        }
    }

    /// Its process is gone, and nothing said how many bytes it had in all.
    fn ended_with_process(&mut self, key: Key) {
        let is_whole = |session: &Session| session.lost_before == self.lost;
        if self.sessions.get(&key).is_none_or(is_whole) {
            return self.close(key, "was under way when its process ended", false);
        }
        let Some(session) = self.sessions.remove(&key) else { return };
        if session.may_miss_calls(key) && !session.stream.is_over() {
            self.done.push(session.gap(key, LAST_LOST.into()));
        }
        self.give_up(key, session, LAST_LOST);
    }

    /// Ends a session that goes on.
    fn give_up(&mut self, key: Key, mut session: Session, why: &str) {
        self.held_bytes -= session.held_bytes;
        let mut over = Vec::new();
        session.stream.stop(why, &mut over);
        session.tell(key, over, &mut self.done);
    }

    fn make_room(&mut self) {
        /// Of the sessions, this part goes at once, so that going through all of them is rare.
        const PART: usize = 16;
        const WHY: &str = "too many sessions were open at once";
        if self.sessions.len() <= SESSIONS_MAX && self.held_bytes <= HELD_MAX_BYTES {
            return;
        }
        let mut by_age: Vec<(u64, Key)> =
            self.sessions.iter().map(|(key, session)| (session.touched, *key)).collect();
        by_age.sort_unstable();
        let least = by_age.len() / PART + 1;
        for (at, (_, key)) in by_age.into_iter().enumerate() {
            if at >= least && self.held_bytes <= HELD_MAX_BYTES / 2 {
                break;
            }
            let Some(session) = self.sessions.remove(&key) else { continue };
            if !session.stream.is_over() {
                self.done.push(session.gap(key, WHY.into()));
            }
            self.give_up(key, session, WHY);
        }
    }

    fn record(&mut self, done: Done) -> Record {
        let (process, name) = done.key;
        let (session, plaintext) = match name {
            Name::Tls(stream) => (stream, false),
            Name::Plain(cookie) => (cookie, true),
        };
        let own = done.connection.map(|id| CallConnection { id, by: JoinedBy::Exact });
        match done.what {
            What::Gap { t_ns, why } => {
                let joined = self.joins.of(process, &done.randoms, None, t_ns);
                let connection = own.or(joined.map(|joined| joined.connection));
                let inode = None;
                Record::CallGap(CallGap {
                    t_ns,
                    process,
                    session,
                    plaintext,
                    connection,
                    inode,
                    why,
                })
            }
            What::Call(exchange, outcome) => {
                let host = exchange.host();
                let t_ns = exchange.begun_ns;
                let joined = match name {
                    Name::Tls(_) if !done.served => {
                        self.joins.of(process, &done.randoms, host.as_deref(), t_ns)
                    }
                    Name::Tls(_) | Name::Plain(_) => None,
                };
                let sni = joined.as_ref().and_then(|joined| joined.sni.clone());
                let of_joined = joined.as_ref().and_then(|joined| joined.server);
                let unnamed = unnamed(sni, done.server.or(of_joined));
                let connection = own.or(joined.as_ref().map(|joined| joined.connection));
                let attempted_ns = joined
                    .filter(|joined| exchange.is_first && joined.connection.by == JoinedBy::Exact)
                    .and_then(|joined| joined.attempted_ns);
                let call = exchange.call(outcome, &unnamed, plaintext);
                Record::Call(Box::new(Call {
                    process,
                    served: done.served,
                    session,
                    setup_ms: attempted_ns.map(|attempted_ns| ms(attempted_ns, t_ns)),
                    connection,
                    ..call
                }))
            }
        }
    }
}

/// What stands for the authority that a request does not have.
fn unnamed(sni: Option<String>, server: Option<Endpoint>) -> String {
    match (sni, server) {
        (Some(name), Some(Endpoint { port, .. })) => format!("{name}:{port}"),
        (Some(name), None) => name,
        (None, Some(Endpoint { address, port })) => {
            Endpoint { address: address.to_canonical(), port }.to_string()
        }
        (None, None) => "unknown".into(),
    }
}

const LATE: &str = "it may have begun before its library was watched: what came before is missing";

const CLOSED: &str = "was under way when its connection was closed";

const LAST_LOST: &str = "its last bytes may be among those that were lost on the way to tracer";

impl Session {
    /// Most sockets without TLS have nothing to do with HTTP.
    fn may_miss_calls(&self, (_, name): Key) -> bool {
        self.had_calls || self.stream.is_http() || matches!(name, Name::Tls(_))
    }

    /// Hands on calls that are over.
    fn tell(&mut self, key: Key, over: Vec<Over>, done: &mut Vec<Done>) {
        for (exchange, outcome) in over {
            self.had_calls = true;
            done.push(Done {
                key,
                randoms: self.randoms.clone(),
                connection: self.connection,
                server: self.server.filter(|_| self.stream.is_to_server()),
                served: self.stream.served,
                what: What::Call(Box::new(exchange), outcome),
            });
        }
    }

    fn gap(&self, key: Key, why: String) -> Done {
        Done {
            key,
            randoms: self.randoms.clone(),
            connection: self.connection,
            server: None,
            served: self.stream.served,
            what: What::Gap { t_ns: self.last_ns, why },
        }
    }
}
