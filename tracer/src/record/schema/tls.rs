//! TLS libraries that processes use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Bytes, FileId, ProcessKey};

/// A process executed or mapped a file with a TLS library. One that is read from the beginning is told
/// of once, any other once for each process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsLibrary {
    /// When it was executed or mapped.
    pub t_ns: u64,
    pub process: ProcessKey,
    pub path: Bytes,
    pub file: FileId,
    /// It executed the file. Otherwise it has mapped it, as programs do with what their libraries need, whether
    /// or not they call it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executed: bool,
    pub reading: TlsReading,
}

/// How much of what goes through a TLS library is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsReading {
    /// It had been watched before the process had it.
    Complete,
    /// It is watched from then on; calls before that may have been missed.
    From { t_ns: u64 },
    /// Nothing: tracer cannot read this library, so what goes through it is not seen. Its name.
    Unreadable { library: String },
    /// Nothing, although it could be read, or nobody could look.
    Failed { why: String },
}
