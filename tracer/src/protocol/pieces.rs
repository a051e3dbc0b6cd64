//! A stream's beginning, from pieces in any order.

use std::collections::BTreeMap;

/// Pieces behind a hole; more of them at once are dropped.
const AHEAD_MAX: usize = 1024;

/// Keeps the first bytes of a stream, `limit_bytes` at most, and as many behind holes. Where pieces
/// overlap, the bytes that came first count.
#[derive(Debug)]
pub(crate) struct Pieces {
    limit_bytes: usize,
    beginning: Vec<u8>,
    ahead: BTreeMap<usize, Vec<u8>>,
    ahead_bytes: usize,
    /// Something was dropped: it would not fit.
    dropped: bool,
}

impl Pieces {
    pub(crate) fn new(limit_bytes: usize) -> Pieces {
        Pieces {
            limit_bytes,
            beginning: Vec::new(),
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            dropped: false,
        }
    }

    /// What there is without a hole.
    pub(crate) fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    /// Bytes kept, with those behind holes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.beginning.len() + self.ahead_bytes
    }

    /// There are bytes behind a hole.
    pub(crate) fn has_hole(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// The stream is longer than what is kept.
    pub(crate) fn is_full(&self) -> bool {
        self.dropped
    }

    /// Whether the beginning has grown.
    pub(crate) fn add(&mut self, offset_bytes: u64, bytes: &[u8]) -> bool {
        let before = self.beginning.len();
        let Ok(offset) = usize::try_from(offset_bytes) else {
            self.dropped = true;
            return false;
        };
        if offset > before {
            self.keep_ahead(offset, bytes);
            return false;
        }
        self.append(offset, bytes);
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > self.beginning.len() {
                break;
            }
            let (offset, bytes) = entry.remove_entry();
            self.ahead_bytes -= bytes.len();
            self.append(offset, &bytes);
        }
        self.beginning.len() > before
    }

    fn append(&mut self, offset: usize, bytes: &[u8]) {
        let new = bytes.get(self.beginning.len() - offset..).unwrap_or_default();
        let room = self.limit_bytes.saturating_sub(self.beginning.len());
        self.dropped |= new.len() > room;
        self.beginning.extend(&new[..new.len().min(room)]);
    }

    fn keep_ahead(&mut self, offset: usize, bytes: &[u8]) {
        let there = self.ahead.get(&offset).map_or(0, Vec::len);
        if bytes.len() <= there {
            return;
        }
        let held = self.ahead_bytes - there + bytes.len();
        let fits = offset.saturating_add(bytes.len()) <= self.limit_bytes
            && held <= self.limit_bytes
            && (there > 0 || self.ahead.len() < AHEAD_MAX);
        if !fits {
            self.dropped = true;
            return;
        }
        self.ahead_bytes = held;
        self.ahead.insert(offset, bytes.to_vec());
    }
}
