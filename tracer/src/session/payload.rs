//! What the first bytes of streams and the datagrams of the tree say.

use crate::{model::PayloadEvent, record::Record};

/// Puts pieces together and reads them.
#[derive(Debug, Default)]
pub struct Payloads;

impl Payloads {
    /// The records that this piece completes: [`Record::Dns`] and [`Record::Opening`].
    pub fn add(&mut self, _event: PayloadEvent) -> Vec<Record> {
        Vec::new()
    }

    /// A connection is gone: what its pieces amount to, when they had not said it yet.
    pub fn closed(&mut self, _connection: u64) -> Vec<Record> {
        Vec::new()
    }

    /// Tracing has ended: the same for all that is left.
    pub fn rest(&mut self) -> Vec<Record> {
        Vec::new()
    }
}
