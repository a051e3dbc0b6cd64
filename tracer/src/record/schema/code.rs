//! Programs that run, or try to, in other ways than an exec, and what else leaves a tree.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Bytes, FileId, FileVersion, ProcessKey};

/// Files that a process has mapped as code, other than by being executed: by one image of it, from an
/// exec to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mapped {
    /// Of the first of them.
    pub t_ns: u64,
    pub process: ProcessKey,
    pub files: Vec<MappedFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MappedFile {
    pub path: Bytes,
    #[serde(flatten)]
    pub id: FileId,
    /// Of the version that was there when it was mapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctime_ns: Option<i64>,
    /// The file at that path, where it is another than the mapping's: on overlayfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<FileId>,
    /// Why the version is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

impl MappedFile {
    pub fn new(path: Bytes, id: FileId, found: Result<FileVersion, String>) -> MappedFile {
        let version = found.as_ref().ok();
        MappedFile {
            path,
            id,
            size_bytes: version.map(|version| version.size_bytes),
            ctime_ns: version.map(|version| version.ctime_ns),
            upper: version.map(|version| version.id).filter(|upper| *upper != id),
            unread: found.err(),
        }
    }

    pub fn version(&self) -> Option<FileVersion> {
        Some(FileVersion {
            id: self.upper.unwrap_or(self.id),
            size_bytes: self.size_bytes?,
            ctime_ns: self.ctime_ns?,
        })
    }
}

/// A file that is a program, or part of one, was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Opened {
    /// When that was read; it happened after `after_ns`.
    pub t_ns: u64,
    pub after_ns: u64,
    /// Absent when it may have been a process of the tree and that cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessKey>,
    /// As tracer's own pid namespace has it; 0 when the process is not in it.
    pub pid: u32,
    pub what: OpenedWhat,
    /// Programs it is, or is part of.
    pub programs: Vec<String>,
    /// To be executed, by the kernel itself; that need not have come about.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_execute: bool,
    /// The command found it open when it started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inherited: bool,
    pub file: Option<FileId>,
    pub path: Bytes,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum OpenedWhat {
    /// A known copy of the program.
    Copy,
    /// A file of its Python modules.
    Module,
}

/// Work was left, or may have been, for a process outside the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HandOff {
    pub t_ns: u64,
    /// Absent when the source names no process of the tree for certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessKey>,
    /// As the source has it; 0 when it has none.
    pub pid: u32,
    /// Of the catalogue, or [`UNKNOWN_SERVICE`](crate::catalogue::UNKNOWN_SERVICE).
    pub name: String,
    /// The file or socket it went through.
    pub via: Bytes,
    /// What was done there and why that hands work over, as the rest of a sentence.
    pub how: String,
}

/// `process` tried to execute a program and failed. Tries of one thread that differ in nothing but
/// the folder, as a search along `PATH` makes them, are one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Of the first try.
    pub t_ns: u64,
    /// Of the last one.
    pub last_t_ns: u64,
    pub process: ProcessKey,
    pub thread: u32,
    /// What was tried, as the caller spelled it; at most [`Attempt::FILENAMES_MAX`].
    pub filenames: Vec<Bytes>,
    /// Names that were longer than the kernel side carries and stand cut in `filenames`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub filename_cut: bool,
    pub argv: Vec<Bytes>,
    pub argv_complete: bool,
    pub tries: u64,
    /// Of the last try.
    pub errno: u32,
    pub error: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

impl Attempt {
    pub const FILENAMES_MAX: usize = 32;
}

/// `process` sent something over a unix socket to a process that is not tracked. Once per process
/// and peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalSend {
    pub t_ns: u64,
    pub process: ProcessKey,
    /// Who listened, or made the pair of sockets; absent where the kernel does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_pid: Option<u32>,
    /// That process had ended and was reaped, so that its pid can be another's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub peer_reaped: bool,
    /// The user, in the initial user namespace, as whom the peer listened or made its socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_uid: Option<u32>,
    /// The path of the peer's socket; an abstract name begins with a NUL; absent for a socket
    /// without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_inode: Option<u64>,
    /// A datagram that was sent by a call which can give it an address of its own (`sendto`, `sendmsg`, io_uring): it
    /// need not have gone to this peer, and whom else it reached is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_peer: bool,
}

/// `process` took control of a process that is not tracked. Once per process, target and means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Intrusion {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub means: IntrusionMeans,
    pub target: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IntrusionMeans {
    /// ptrace, `/proc/PID/mem`, `process_vm_writev` or `pidfd_getfd`; `target` is a process id in
    /// the initial pid namespace.
    DebuggerAccess,
    /// `target` is a process id in the caller's pid namespace.
    Ptrace,
    /// `process_vm_writev`; `target` likewise.
    WriteMemory,
    /// `pidfd_getfd`; `target` is the caller's descriptor.
    TakeDescriptor,
}
