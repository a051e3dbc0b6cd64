//! Writes a recording, line by line.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use super::{chain::Chain, schema::Record};

/// A recording being written. Each batch of lines reaches the file before the next is drained, so
/// a tracer that is killed leaves a recording that lacks its end and says so.
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
        Writer { sink: BufWriter::new(sink), chain: Chain::new(), line: Vec::with_capacity(1024) }
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

/// Opens the file a recording goes to: mode 0600, never through a symbolic link. An existing
/// regular file is replaced; a pipe or device is written to as it is.
pub fn create_output(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        if metadata.nlink() > 1 {
            return Err(io::Error::other("the file has further hard links; remove it first"));
        }
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.set_len(0)?;
    }
    Ok(file)
}
