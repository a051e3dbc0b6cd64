//! Blocks of whole lines, checked and parsed by several threads.
//!
//! The digest of a line covers the one before it, which stands in that line. So a block can be
//! checked without its predecessors: if each block fits what stands at the end of the one before
//! it, and each line within a block its predecessor, then by induction all of them fit. Blocks are
//! handed on in order, and nothing behind the first misfit is used.

use std::{
    collections::VecDeque,
    io::{self, Read},
    num::NonZero,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use sha2::{Digest as _, Sha256};

use super::{chain::Chain, reader::LineError, schema::Record, versions};

/// Large enough that handing a block over costs nothing beside reading it.
const BLOCK_BYTES: usize = 512 * 1024;
/// An argv has 6 MiB at most, and a byte takes up to six characters.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The records of a block up to its first misfit.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) records: VecDeque<Record>,
    pub(super) broken: Option<LineError>,
}

/// A block on its way to be parsed.
struct Block {
    text: Vec<u8>,
    before: Chain,
}

impl Block {
    fn parse(mut self) -> Parsed {
        let mut records = VecDeque::with_capacity(self.text.len() / 256);
        let mut rest = self.text.as_slice();
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let line;
            (line, rest) = rest.split_at(end);
            match one(line, &mut self.before) {
                Ok(record) => records.push_back(record),
                Err(error) => return Parsed { records, broken: Some(error) },
            }
        }
        Parsed { records, broken: None }
    }
}

fn one(line: &[u8], chain: &mut Chain) -> Result<Record, LineError> {
    let text = line.strip_suffix(b"\n").ok_or(LineError::Unfinished)?;
    chain.check(text)?;
    versions::parse(text).map_err(LineError::NotARecord)
}

/// The bytes of a recording, cut into blocks.
struct Source {
    from: Box<dyn Read + Send>,
    hash: Option<Sha256>,
    /// The beginning of a line whose end was not read yet.
    rest: Vec<u8>,
    ended: bool,
}

impl Source {
    /// The next block of whole lines; at the end of the file, whatever is left.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut block = std::mem::take(&mut self.rest);
        while !self.ended {
            let old = block.len();
            block.reserve(BLOCK_BYTES);
            let read = self.from.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
            if let Some(hash) = &mut self.hash {
                hash.update(&block[old..]);
            }
            self.ended = read < BLOCK_BYTES;
            if self.ended {
                break;
            }
            if let Some(at) = block[old..].iter().rposition(|byte| *byte == b'\n') {
                self.rest = block.split_off(old + at + 1);
                break;
            }
            if block.len() > LINE_BYTES_MAX {
                break;
            }
        }
        Ok((!block.is_empty()).then_some(block))
    }
}

/// A block that some thread parses, or why there is none.
type Pending = io::Result<Receiver<Parsed>>;

/// The blocks of a recording, in order.
pub(super) struct Blocks {
    /// Not handed on yet.
    first: Option<Vec<u8>>,
    /// Until threads take it.
    source: Option<Source>,
    pending: Option<Receiver<Pending>>,
    /// Ends with the digest of the file, if it was asked for.
    reader: Option<thread::JoinHandle<Option<Sha256>>>,
    hash: Option<Sha256>,
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").finish_non_exhaustive()
    }
}

impl Blocks {
    pub(super) fn new(from: Box<dyn Read + Send>, hashed: bool) -> io::Result<Blocks> {
        let hash = hashed.then(Sha256::new);
        let mut source = Source { from, hash, rest: Vec::new(), ended: false };
        let first = source.next()?;
        Ok(Blocks { first, source: Some(source), pending: None, reader: None, hash: None })
    }

    /// Whether there is not a single byte. To be called before [`Blocks::next`].
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Without its line feed; empty if there is none. To be called before [`Blocks::next`].
    pub(super) fn first_line(&self) -> &[u8] {
        let block = self.first.as_deref().unwrap_or_default();
        block.split(|byte| *byte == b'\n').next().unwrap_or_default()
    }

    /// To be called before [`Blocks::next`]: whether the first line has its end.
    pub(super) fn has_whole_line(&self) -> bool {
        self.first.as_deref().is_some_and(|block| block.contains(&b'\n'))
    }

    /// The next block. After the last one there is none, again and again.
    pub(super) fn next(&mut self) -> io::Result<Option<Parsed>> {
        if let Some(source) = self.source.take() {
            let first = self.first.take().unwrap_or_default();
            if source.ended {
                self.hash = source.hash;
                return Ok(Some(Block { text: first, before: Chain::new() }.parse()));
            }
            let (pending, reader) = start_threads(source, first)?;
            (self.pending, self.reader) = (Some(pending), Some(reader));
        }
        match self.pending.as_ref().map(Receiver::recv) {
            Some(Ok(parsed)) => parsed?.recv().map(Some).map_err(|_| died()),
            Some(Err(_)) => {
                self.pending = None;
                let reader = self.reader.take().map(thread::JoinHandle::join);
                self.hash = reader.transpose().map_err(|_| died())?.flatten();
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Of the whole file; only after the last block.
    pub(super) fn sha256(&mut self) -> Option<[u8; 32]> {
        self.hash.take().map(|hash| hash.finalize().into())
    }
}

fn died() -> io::Error {
    io::Error::other("a thread that reads it has died")
}

/// One thread reads, some parse. All of them end when nobody wants their results any more.
fn start_threads(
    source: Source,
    first: Vec<u8>,
) -> io::Result<(Receiver<Pending>, thread::JoinHandle<Option<Sha256>>)> {
    const WORKERS_MAX: usize = 4;
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS_MAX);
    // What bounds memory: a block is parsed, or waits for that, only once it has a place here.
    let (to_taker, pending) = sync_channel(2 * workers);
    let (to_workers, work) = sync_channel::<(Block, SyncSender<Parsed>)>(2 * workers);
    let work = Arc::new(Mutex::new(work));
    for _ in 0..workers {
        let work = Arc::clone(&work);
        thread::Builder::new().name("parse".into()).spawn(move || {
            loop {
                let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((block, answer)) = next else { return };
                // A taker who has gone away needs no answer.
                let _ = answer.send(block.parse());
            }
        })?;
    }
    let reader = thread::Builder::new()
        .name("read".into())
        .spawn(move || read_blocks(source, first, &to_taker, &to_workers))?;
    Ok((pending, reader))
}

fn read_blocks(
    mut source: Source,
    first: Vec<u8>,
    to_taker: &SyncSender<Pending>,
    to_workers: &SyncSender<(Block, SyncSender<Parsed>)>,
) -> Option<Sha256> {
    let mut next = Ok(Some(first));
    let mut before = Chain::new();
    loop {
        match next {
            Ok(Some(text)) => {
                let after = Chain::claimed_at_the_end_of(&text);
                let (answer, parsed) = sync_channel(1);
                if to_taker.send(Ok(parsed)).is_err() {
                    return None;
                }
                let block = Block { text, before: std::mem::replace(&mut before, after) };
                if to_workers.send((block, answer)).is_err() {
                    return None;
                }
            }
            Ok(None) => return source.hash,
            Err(error) => {
                // A taker who has gone away needs no answer.
                let _ = to_taker.send(Err(error));
                return None;
            }
        }
        next = source.next();
    }
}
