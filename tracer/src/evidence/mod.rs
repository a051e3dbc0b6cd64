//! Evidence that somebody else can check: an in-toto statement about a recording, signed.
//!
//! ```text
//! recording ──SHA-256──► statement ──PAE, ed25519──► DSSE envelope, RECORDING.intoto.json
//! ```
//!
//! The hash chain finds damage. Who can rewrite the whole file can recompute the chain, but not the
//! signature. What is signed is the digest of the bytes that tracer wrote, not of the file as it is
//! found later: the traced command may run as the owner of that file.

mod dsse;
mod keys;
mod statement;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

pub use dsse::EnvelopeError;
pub use keys::{KeyError, PrivateKey, PublicKey};
pub use statement::{PREDICATE_TYPE, STATEMENT_TYPE, Statement, StatementError};

/// The media type of a statement, which the signature covers too.
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Where the signed statement about a recording is.
pub fn beside(recording: &Path) -> PathBuf {
    let mut name = OsString::from(recording);
    name.push(".intoto.json");
    name.into()
}

/// The envelope around a statement, as it stands in its file.
pub fn sign(statement: &Statement, key: &PrivateKey) -> String {
    dsse::seal(PAYLOAD_TYPE, statement.to_json().as_bytes(), key)
}

/// Why a recording is not what somebody signed.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error("cannot read the signed statement {path}: {source}; `tracer sign` makes one")]
    Io { path: String, source: io::Error },
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error(transparent)]
    Statement(#[from] StatementError),
}

/// The statement in a file, if its signature is this key's. What it says is not checked yet.
pub fn open(path: &Path, key: &PublicKey) -> Result<Statement, EvidenceError> {
    // A statement has a row for each file and endpoint. A device may have no end.
    const LONGEST: u64 = 256 * 1024 * 1024;
    let mut envelope = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut envelope));
    read.map_err(|source| EvidenceError::Io { path: path.display().to_string(), source })?;
    let payload = dsse::open(PAYLOAD_TYPE, &envelope, key)?;
    Ok(Statement::from_json(&payload)?)
}
