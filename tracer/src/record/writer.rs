//! Writes a recording, line by line.

use std::io::{self, BufWriter, Write};

use super::{chain::Chain, schema::Record};

/// Lines for about as many events as there are between two flushes under load.
const BUFFER_BYTES: usize = 64 << 10;

/// A recording being written. A tracer that is killed leaves a recording that lacks its end and says so.
pub struct Writer {
    sink: BufWriter<Box<dyn Write + Send>>,
    chain: Chain,
    line: Vec<u8>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Writer {
    pub fn new(sink: Box<dyn Write + Send>) -> Writer {
        Writer {
            sink: BufWriter::with_capacity(BUFFER_BYTES, sink),
            chain: Chain::new(),
            line: Vec::with_capacity(1024),
        }
    }

    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.chain.seal(&mut self.line);
        self.sink.write_all(&self.line)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
