//! Empties the rings in an order that respects cause and effect.
//!
//! A fork record is reserved before the child can run, an exec's argv pieces are submitted before
//! the exec record, and both before any connect they lead to. So whoever drains the net ring
//! *first*, then the process ring, and hands the net events on last, has usually met the process of
//! an event. Failed execs, payloads and calls of the
//! resolver have rings of their own and are handled like net events. Usually: a ring stops at a record that another CPU has reserved and not yet submitted,
//! which can hide later ones for a moment. For argv the drain waits that moment out; net events of
//! processes not met yet wait in the fold.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use tracer_ebpf::abi::Kind;

use super::decode;
use crate::{
    model::{Event, ProcessKey},
    probe::Rings,
};

/// Records read, by CPU and kind.
pub type ReadCounts = BTreeMap<(u32, Kind), u64>;

/// How long a submitted argv piece can be hidden behind another CPU's open reservation. That CPU
/// has preemption off; only its hypervisor can take it away for this long.
const ARGV_WAIT: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub struct Drain {
    pub read: ReadCounts,
    /// Records that no decoder understands.
    pub damaged: u64,
    /// Events of the other rings in this round, reused.
    net: Vec<Event>,
    /// Argv pieces handed on whose exec has not come yet.
    pieces: HashMap<(ProcessKey, u64), u32>,
}

impl Drain {
    /// Hands everything that is in the rings to `sink`. Returns how many records there were.
    pub fn round(&mut self, rings: &mut Rings, sink: &mut dyn FnMut(Event)) -> usize {
        let mut count = 0;
        let mut net = std::mem::take(&mut self.net);
        // What TLS libraries handle comes last: the ClientHello of its connection is in another ring.
        let Rings { net: sockets, names, attempt, resolver, tls, .. } = rings;
        for ring in [sockets, names, attempt, resolver, tls] {
            while let Some(record) = ring.next() {
                count += 1;
                net.extend(self.take(&record));
            }
        }
        loop {
            // Decoded in a statement of its own: the ring is free again when an exec waits below.
            let next = rings.process.next().map(|record| self.take(&record));
            let Some(event) = next else { break };
            count += 1;
            let Some(event) = event else { continue };
            if let Event::Exec(exec) = &event
                && exec.argv_chunks > 0
            {
                let key = (exec.header.process, exec.header.time_ns);
                count += self.await_argv(rings, key, exec.argv_chunks, sink);
            }
            sink(event);
        }
        for event in net.drain(..) {
            sink(event);
        }
        self.net = net;
        count
    }

    /// Drains argv pieces until the exec named by `key` has its `wanted` ones.
    fn await_argv(
        &mut self,
        rings: &mut Rings,
        key: (ProcessKey, u64),
        wanted: u32,
        sink: &mut dyn FnMut(Event),
    ) -> usize {
        let mut count = 0;
        let deadline = Instant::now() + ARGV_WAIT;
        loop {
            while let Some(record) = rings.argv.next() {
                count += 1;
                if let Some(event) = self.take(&record) {
                    let header = event.header();
                    *self.pieces.entry((header.process, header.time_ns)).or_default() += 1;
                    sink(event);
                }
            }
            let have = self.pieces.get(&key).copied().unwrap_or(0);
            if have >= wanted || Instant::now() >= deadline {
                self.pieces.remove(&key);
                return count;
            }
            std::thread::yield_now();
        }
    }

    fn take(&mut self, record: &[u8]) -> Option<Event> {
        match decode(record) {
            Ok(event) => {
                *self.read.entry((event.header().cpu, event.kind())).or_default() += 1;
                Some(event)
            }
            Err(_) => {
                self.damaged += 1;
                None
            }
        }
    }
}
