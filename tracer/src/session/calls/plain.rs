//! First bytes of connections without TLS, put in order.
//!
//! The kernel side takes the beginning of a stream only, in pieces. So a call that does not end within
//! it is partial.

use std::collections::{HashMap, VecDeque};

use super::Direction;
use crate::{
    model::{PayloadEvent, ProcessKey},
    protocol::pieces::Pieces,
};

/// What is kept of one direction, at most: as much as the kernel side takes.
const DIRECTION_BYTES: usize = 64 * 1024;
/// Sockets that are being read. Each keeps two directions and as much behind holes.
const READ_MAX: usize = 256;
/// Sockets of which only is known that they are read no further.
const OVER_MAX: usize = 64 * 1024;

const TCP: u16 = 6;
const DNS_PORT: u16 = 53;

/// Why a call that has not ended is partial: as much was read as there is of any connection...
pub(super) const ENDS: &str = "without TLS only the first 64 KiB each way of a connection are read";
/// ...or less than that.
pub(super) const UNSEEN: &str =
    "not all bytes of its connection were seen on their way, or may not have been";

#[derive(Debug, Default)]
pub(super) struct Plain {
    /// By cookie.
    sockets: HashMap<u64, Socket>,
    over: HashMap<u64, ()>,
    by_connection: HashMap<u64, u64>,
    /// In the order in which they began to be read.
    order: VecDeque<u64>,
    over_order: VecDeque<u64>,
    /// Connections that are gone, and how much they received. Their pieces may come with the next round.
    closing: Vec<(u64, Option<u64>)>,
    closed: Vec<(u64, Option<u64>)>,
}

#[derive(Debug)]
struct Socket {
    process: ProcessKey,
    sent: Pieces,
    received: Pieces,
}

/// Bytes that are next in their direction.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) process: ProcessKey,
    pub(super) direction: Direction,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
    /// Why no more will come of this direction.
    pub(super) ends: Option<&'static str>,
}

impl Plain {
    pub(super) fn add(&mut self, event: &PayloadEvent) -> Option<Read> {
        let is_dns = event.destination.is_some_and(|to| to.port == DNS_PORT);
        if event.protocol != TCP || is_dns || self.over.contains_key(&event.cookie) {
            return None;
        }
        if !self.sockets.contains_key(&event.cookie) {
            self.begin(event);
        }
        let socket = self.sockets.get_mut(&event.cookie)?;
        let (direction, pieces) = match event.incoming {
            false => (Direction::Sent, &mut socket.sent),
            true => (Direction::Received, &mut socket.received),
        };
        let before = pieces.beginning().len();
        pieces.add(event.offset_bytes, &event.bytes);
        let all = pieces.beginning();
        let cut = (event.bytes.len() as u64) < u64::from(event.wire_bytes);
        let ends = if pieces.is_full() || all.len() >= DIRECTION_BYTES {
            Some(ENDS)
        } else {
            (cut && !pieces.has_hole()).then_some(UNSEEN)
        };
        let bytes = all.get(before..).unwrap_or_default().to_vec();
        let process = socket.process;
        (ends.is_some() || !bytes.is_empty()).then_some(Read {
            process,
            direction,
            offset: before as u64,
            bytes,
            ends,
        })
    }

    /// It is read no further.
    pub(super) fn stop(&mut self, cookie: u64) {
        if self.sockets.remove(&cookie).is_some() {
            self.over.insert(cookie, ());
            self.over_order.push_back(cookie);
        }
        while self.over_order.len() > OVER_MAX {
            let oldest = self.over_order.pop_front();
            oldest.map(|cookie| self.over.remove(&cookie));
        }
    }

    pub(super) fn closed(&mut self, connection: u64, received_bytes: Option<u64>) {
        self.closing.push((connection, received_bytes));
    }

    /// Sockets whose connection is gone, whose they are, and why not all that came was read. To be called
    /// after each round; after `all` of them, nothing more will come.
    pub(super) fn round(&mut self, all: bool) -> Vec<(u64, ProcessKey, Option<&'static str>)> {
        let mut over = std::mem::replace(&mut self.closed, std::mem::take(&mut self.closing));
        if all {
            over.append(&mut self.closed);
        }
        let mut gone = Vec::new();
        for (connection, received_bytes) in over {
            let Some(cookie) = self.by_connection.remove(&connection) else { continue };
            self.over.remove(&cookie);
            gone.extend(self.sockets.remove(&cookie).map(|socket| {
                // The kernel may count the end of the stream as a byte.
                let read_bytes = socket.received.beginning().len() as u64 + 1;
                let to_the_end = received_bytes.is_some_and(|all| read_bytes >= all);
                let whole = !socket.sent.has_hole() && !socket.received.has_hole() && to_the_end;
                (cookie, socket.process, (!whole).then_some(UNSEEN))
            }));
        }
        gone
    }

    fn begin(&mut self, event: &PayloadEvent) {
        let pieces = || Pieces::new(DIRECTION_BYTES);
        let process = event.header.process;
        self.sockets.insert(event.cookie, Socket { process, sent: pieces(), received: pieces() });
        self.order.push_back(event.cookie);
        if let Some(connection) = event.connection {
            if self.by_connection.len() >= OVER_MAX {
                self.by_connection.clear();
            }
            self.by_connection.insert(connection, event.cookie);
        }
        if self.order.len() > 2 * READ_MAX {
            self.order.retain(|cookie| self.sockets.contains_key(cookie));
        }
        while self.sockets.len() > READ_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.stop(oldest);
        }
    }
}
