//! Where credentials came from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FileEvents;
use crate::{
    catalogue::{CredentialHelper, CredentialSource},
    model::{Bytes, Device, FileId, ProcessKey},
};

/// Which sources of credentials were watched, in the first line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialWatch {
    /// Of the catalogue. Execs say which of their environment variables were set.
    pub sources: Vec<CredentialSource>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub helpers: Vec<CredentialHelper>,
    /// Files and folders that are watched.
    pub places: Vec<CredentialPlace>,
    /// What is not, although it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<CredentialGap>,
    /// Commands that the configuration files name as `credential_process` when tracing starts: of
    /// each, the SHA-256 of its words, which a NUL separates. Hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialPlace {
    /// The name of the source.
    pub source: String,
    pub path: Bytes,
    /// It was there when tracing started.
    pub present: bool,
}

/// A place that should be watched and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialGap {
    pub source: String,
    pub why: String,
}

/// What became of that watch, in the last line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialEvents {
    #[serde(flatten)]
    pub events: FileEvents,
    /// What came into being while tracing ran, so that not everything that was done there was seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<CredentialGap>,
}

/// Standard input and output of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stdio {
    pub input: Descriptor,
    pub output: Descriptor,
}

/// What a descriptor is open on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Descriptor {
    pub kind: DescriptorKind,
    /// Names the pipe, socket or file together with its device; absent for a closed descriptor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DescriptorKind {
    Closed,
    /// A pipe or FIFO.
    Pipe,
    Socket,
    Terminal,
    /// `/dev/null`
    Null,
    File,
    Device,
    /// An inode of another kind, or of none.
    Other,
}

/// A file that can hold credentials was opened or changed.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialAccess {
    Opened,
    /// Written, created, or moved there.
    Changed,
}
