//! Where credentials came from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Bytes, FileId, ProcessKey};

/// A file that can hold credentials was opened. What is in it is never read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialFile {
    /// When that was read; it happened after `after_ns`.
    pub t_ns: u64,
    pub after_ns: u64,
    /// Absent when it may have been a process of the tree and that cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessKey>,
    /// As tracer's own pid namespace has it; 0 when the process is not in it.
    pub pid: u32,
    /// The catalogue's name of this kind of source.
    pub source: String,
    pub access: CredentialAccess,
    pub file: Option<FileId>,
    pub path: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialAccess {
    Opened,
    /// Written, created, or moved there.
    Changed,
}
