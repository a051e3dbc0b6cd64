//! One type per kind of line.
//!
//! Units are in the names: `_ns` nanoseconds (`t_ns` is `CLOCK_BOOTTIME`; add the first line's
//! `wall_offset_ns` for Unix time), `_bytes` bytes. A value the kernel could not read is absent and
//! named in `unread`; zero always means zero.

mod calls;
mod credentials;
mod found;
mod net;
mod tls;

use std::{borrow::Cow, collections::BTreeMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    catalogue::{self, Catalogue, EndpointRules, McpServer, Program},
    model::{Bytes, Device, FileId, FileVersion, ProcessKey},
    policy::{Policy, Verdict},
};

pub use calls::{Call, CallConnection, CallGap, CallOutcome, JoinedBy};
pub use credentials::{
    CredentialAccess, CredentialEvents, CredentialFile, CredentialGap, CredentialPlace,
    CredentialWatch, Descriptor, DescriptorKind, Stdio,
};
pub use found::{AttachedTo, Attachment, FoundSocket, Snapshot, SocketProtocol};
pub use net::{
    CgroupMove, Close, Connect, ConnectResult, Datagram, DatagramVia, Dns, DnsMessage, DnsRecord,
    Exchange, FirstBytes, ForeignSend, HostsEntry, OddSocket, Opening, Outcome, Resolved,
};

pub use tls::{TlsLibrary, TlsReading};

/// Version of the lines below. A reader refuses a newer one.
pub const SCHEMA: u32 = 4;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Record {
    Start(Box<Start>),
    Root(Root),
    Fork(Fork),
    Exec(Box<Exec>),
    Content(Content),
    Exit(Exit),
    Connect(Connect),
    ConnectResult(ConnectResult),
    Close(Close),
    Datagram(Datagram),
    Exchange(Exchange),
    OddSocket(OddSocket),
    ForeignSend(ForeignSend),
    CgroupMove(CgroupMove),
    Dns(Dns),
    Opening(Opening),
    Resolved(Resolved),
    TlsLibrary(TlsLibrary),
    Call(Box<Call>),
    CallGap(CallGap),
    CredentialFile(CredentialFile),
    Opened(Opened),
    HandOff(HandOff),
    Attempt(Attempt),
    Mapped(Mapped),
    LocalSend(LocalSend),
    Intrusion(Intrusion),
    Snapshot(Snapshot),
    FoundSocket(FoundSocket),
    End(Box<End>),
}

impl Record {
    /// The name in the line's `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Record::Start(_) => "start",
            Record::Root(_) => "root",
            Record::Fork(_) => "fork",
            Record::Exec(_) => "exec",
            Record::Content(_) => "content",
            Record::Exit(_) => "exit",
            Record::Connect(_) => "connect",
            Record::ConnectResult(_) => "connect-result",
            Record::Close(_) => "close",
            Record::Datagram(_) => "datagram",
            Record::Exchange(_) => "exchange",
            Record::OddSocket(_) => "odd-socket",
            Record::ForeignSend(_) => "foreign-send",
            Record::CgroupMove(_) => "cgroup-move",
            Record::Dns(_) => "dns",
            Record::Opening(_) => "opening",
            Record::Resolved(_) => "resolved",
            Record::TlsLibrary(_) => "tls-library",
            Record::Call(_) => "call",
            Record::CallGap(_) => "call-gap",
            Record::CredentialFile(_) => "credential-file",
            Record::Opened(_) => "opened",
            Record::HandOff(_) => "hand-off",
            Record::Attempt(_) => "attempt",
            Record::Mapped(_) => "mapped",
            Record::LocalSend(_) => "local-send",
            Record::Intrusion(_) => "intrusion",
            Record::Snapshot(_) => "snapshot",
            Record::FoundSocket(_) => "found-socket",
            Record::End(_) => "end",
        }
    }
}

impl Record {
    /// Whose it is; the creator's, of a fork. None where no process of the tree is known for certain.
    pub fn process(&self) -> Option<ProcessKey> {
        match self {
            Record::Start(_)
            | Record::Content(_)
            | Record::Exchange(_)
            | Record::Snapshot(_)
            | Record::End(_) => None,
            Record::Root(root) => Some(root.process),
            Record::Fork(fork) => Some(fork.process),
            Record::Exec(exec) => Some(exec.process),
            Record::Exit(exit) => Some(exit.process),
            Record::Connect(connect) => Some(connect.process),
            Record::ConnectResult(result) => Some(result.process),
            Record::Close(close) => Some(close.process),
            Record::Datagram(datagram) => Some(datagram.process),
            Record::OddSocket(socket) => Some(socket.process),
            Record::ForeignSend(send) => Some(send.process),
            Record::CgroupMove(moved) => Some(moved.process),
            Record::Dns(dns) => Some(dns.process),
            Record::Opening(opening) => Some(opening.process),
            Record::Resolved(resolved) => Some(resolved.process),
            Record::TlsLibrary(library) => Some(library.process),
            Record::Call(call) => Some(call.process),
            Record::CallGap(gap) => Some(gap.process),
            Record::CredentialFile(file) => file.process,
            Record::Opened(opened) => opened.process,
            Record::HandOff(hand_off) => hand_off.process,
            Record::Attempt(attempt) => Some(attempt.process),
            Record::Mapped(mapped) => Some(mapped.process),
            Record::LocalSend(send) => Some(send.process),
            Record::Intrusion(intrusion) => Some(intrusion.process),
            Record::FoundSocket(socket) => Some(socket.process),
        }
    }
}

/// First line: what was traced, on what, with which hooks, against which policies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    pub schema: u32,
    pub tracer: String,
    pub t_ns: u64,
    /// Unix time minus `CLOCK_BOOTTIME`, taken once.
    pub wall_offset_ns: i64,
    pub host: Host,
    pub command: Vec<Bytes>,
    pub cwd: Bytes,
    /// Who the command runs as.
    pub uid: u32,
    pub gid: u32,
    /// The probes fired before the first instruction of the command could run.
    pub armed_before_first_instruction: bool,
    pub sensors: Vec<SensorState>,
    pub policies: Vec<Policy>,
    /// Entries of the catalogue for the programs the policies name. Recordings that have none were
    /// made with the embedded ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<Vec<Program>>,
    /// The catalogue's endpoints. Recordings that have none are judged by the embedded ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointRules>,
    /// Inode numbers of the sockets that the command inherits from whoever called tracer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherited_sockets: Vec<u64>,
    /// Those of them that are not unix sockets: TCP, UDP, raw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherited_network_sockets: Vec<u64>,
    /// Forbidden programs are killed before their first instruction.
    #[serde(default, skip_serializing_if = "is_false")]
    pub enforced: bool,
    /// Copies of the programs the policies name, as found on this machine at the start.
    pub known_programs: BTreeMap<String, Vec<KnownCopy>>,
    /// Folders of Python modules that are one of these programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub known_packages: BTreeMap<String, Vec<Bytes>>,
    /// Interpreters, dynamic loaders and multi-call shells of this machine: a copy under another name
    /// takes the same arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interpreters: Vec<KnownInterpreter>,
    /// Absent in recordings from before there was such a watch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FileWatch>,
    /// Absent in recordings from before the command got one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<CommandCgroup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialWatch>,
    /// How servers of the Model Context Protocol are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    /// The recording goes on in further files when one is as large as that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_bytes: Option<u64>,
    /// What was joined, where nothing was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Attachment>,
}

/// The cgroup (v2) that the command got for itself, or that what was joined is in. Programs attached to it see what the sockets do
/// that are made in it or below it, and cost processes elsewhere nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CommandCgroup {
    Own {
        id: u64,
        path: Bytes,
    },
    /// It is others' too.
    Shared {
        id: u64,
        path: Bytes,
        /// Processes in it that were not joined: each of their packets and new sockets is looked at, and
        /// left alone.
        others: u64,
    },
    /// Why there is none.
    Absent(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    pub name: String,
    pub kernel: String,
    pub machine: String,
    pub boot_id: String,
    pub cpus: usize,
}

impl Start {
    /// The catalogue's entry of a program, as this recording has it.
    pub fn program(&self, name: &str) -> Cow<'_, Program> {
        let own = self.catalogue.as_deref().and_then(|entries| catalogue::find(entries, name));
        own.map_or_else(|| Catalogue::embedded().program(name), Cow::Borrowed)
    }
}

/// A sensor and the hook it used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SensorState {
    pub sensor: String,
    pub hook: String,
    /// What this hook cannot see, in one sentence; empty when nothing is known.
    pub cannot_see: String,
    /// What it costs processes that are not traced, in one sentence; empty when it costs them nothing
    /// or next to nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tax: String,
    /// Why it is not attached, although it was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KnownCopy {
    pub path: Bytes,
    pub file: FileId,
    /// Other names lead to the same file or content (a multi-call program or a version manager's
    /// shim), so only the name it is called by tells which program it is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub multi_call: bool,
    /// It was found where anybody may have put it: it counts as the program where a claim forbids
    /// that, and not where one allows it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub only_forbids: bool,
    /// When tracing started. Another file of another size is no copy of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

impl KnownCopy {
    /// Whether a file of this size can have its content.
    pub fn may_have_size(&self, size_bytes: u64) -> bool {
        self.size_bytes.is_none_or(|own| own == size_bytes)
    }
}

/// An interpreter, dynamic loader or multi-call shell, as found at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KnownInterpreter {
    /// The name of its file; `ld.so` for every dynamic loader.
    pub name: String,
    pub path: Bytes,
    pub file: FileId,
    pub size_bytes: u64,
}

/// Which files were to be watched beside the probes, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileWatch {
    /// Files and folders that are watched.
    pub marks: u64,
    /// What is not, although it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<WatchGap>,
}

/// Something that should be watched and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WatchGap {
    pub of: Watched,
    pub why: String,
}

/// What a watch is for: the name of a program, or of a hand-off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Watched {
    Program(String),
    HandOff(String),
}

/// Events of the file watch, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileEvents {
    pub read: u64,
    /// How often the kernel's queue was full, each time for an unknown number of events.
    pub overflows: u64,
    /// Read, and of no use: the file could not be opened, or there was no room to keep them.
    pub lost: u64,
}

/// What a version of an executed or known file contains. Comes once per version, some time after
/// the exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Content {
    #[serde(flatten)]
    pub file: FileId,
    pub size_bytes: u64,
    pub ctime_ns: i64,
    /// Hexadecimal.
    pub sha256: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

impl Content {
    pub fn version(&self) -> FileVersion {
        FileVersion { id: self.file, size_bytes: self.size_bytes, ctime_ns: self.ctime_ns }
    }
}

/// A process at the root of the traced tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Root {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub ns_pid: Option<u32>,
    pub parent_pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// `process` created `child`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fork {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub child: ProcessKey,
    pub child_ns_pid: Option<u32>,
    /// What `getppid` gives the child, when that is not `process` (`CLONE_PARENT`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_parent_pid: Option<u32>,
    /// The kernel had no room to track the child.
    #[serde(default, skip_serializing_if = "is_false")]
    pub untracked: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// `process` executed a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exec {
    pub t_ns: u64,
    pub process: ProcessKey,
    /// Thread that called exec, when it was not the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<u32>,
    /// As the caller spelled it.
    pub filename: Option<Bytes>,
    pub argv: Argv,
    pub cwd: Option<Bytes>,
    /// The file the kernel executed: the interpreter, when `script` is there.
    pub file: Option<ExecutedFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub memfd: bool,
    /// The file had no name in any directory when it was executed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unlinked: bool,
    /// The kernel stops counting this process for the witness here (setuid or unreadable program).
    #[serde(default, skip_serializing_if = "is_false")]
    pub witness_detached: bool,
    /// The process ran this already when it was found. `argv` is what its memory says now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub found: bool,
    /// A rule forbids it: it was killed before its first instruction.
    #[serde(default, skip_serializing_if = "is_false")]
    pub killed: bool,
    pub credentials: Option<Credentials>,
    /// Environment variables that are set to something, of those that the first line names as
    /// sources of credentials. Their values are never read. Absent when they were not looked for;
    /// with `environment` in `unread`, more may have been set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdio: Option<Stdio>,
    pub cgroup_id: u64,
    pub ns_pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_ns_inum: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Argv {
    pub args: Vec<Bytes>,
    /// Bytes the kernel had, NULs included.
    pub total_bytes: u64,
    /// False when `args` is only the beginning.
    pub complete: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecutedFile {
    /// From the kernel's own directory entries at the moment of exec.
    pub path: Option<Bytes>,
    /// `path` lacks its beginning.
    #[serde(default, skip_serializing_if = "is_false")]
    pub path_cut: bool,
    pub device: Device,
    pub inode: u64,
    pub size_bytes: u64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub mode: u32,
}

impl ExecutedFile {
    pub fn id(&self) -> FileId {
        FileId { device: self.device, inode: self.inode }
    }

    pub fn version(&self) -> FileVersion {
        FileVersion { id: self.id(), size_bytes: self.size_bytes, ctime_ns: self.ctime_ns }
    }
}

/// The `#!` file that was executed through an interpreter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Script {
    /// The interpreter as the script names it.
    pub interpreter: Option<Bytes>,
    /// The script's own file, from the kernel.
    pub file: Option<ScriptFile>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScriptFile {
    #[serde(flatten)]
    pub id: FileId,
    pub size_bytes: u64,
    pub ctime_ns: i64,
    pub path: Bytes,
}

impl ScriptFile {
    pub fn version(&self) -> FileVersion {
        FileVersion { id: self.id, size_bytes: self.size_bytes, ctime_ns: self.ctime_ns }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
}

/// The last thread of `process` ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    pub t_ns: u64,
    pub process: ProcessKey,
    /// Exit code, when the process ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// Signal number, when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// Since the process started.
    pub duration_ns: u64,
    /// How often it executed something, by the kernel's own count. Absent before schema 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execs: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

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

/// What became of the stream of executable mappings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MapsWatched {
    /// How many records were lost.
    Lost(u64),
    /// It could not be opened or read.
    Absent(String),
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
    #[serde(default, skip_serializing_if = "is_false")]
    pub to_execute: bool,
    /// The command found it open when it started.
    #[serde(default, skip_serializing_if = "is_false")]
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
    #[serde(default, skip_serializing_if = "is_false")]
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
    /// The path of the peer's socket; an abstract name begins with a NUL; absent for a socket
    /// without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_inode: Option<u64>,
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

/// Last line: everything a verdict needs besides the events, and the verdict itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    pub t_ns: u64,
    pub command_status: CommandStatus,
    /// A signal told tracer to stop before the tree had ended.
    pub interrupted: bool,
    /// Per CPU and kind; rows of zeros are left out.
    pub counters: Vec<CounterRow>,
    /// How many of the events read were the canaries', by kind: they are counted but not recorded.
    pub canary_events: BTreeMap<String, u64>,
    /// Failures inside the kernel side, by name; zeros are left out.
    pub faults: BTreeMap<String, u64>,
    /// How often the kernel skipped a probe because it was already running on that CPU.
    pub skipped_runs: BTreeMap<String, u64>,
    /// Ring records that could not be decoded or joined.
    pub damaged_records: u64,
    pub witness: Witness,
    pub canaries: Vec<Canary>,
    /// What the kernel counted as executed by the tree, file by file.
    pub ledger: Vec<LedgerRow>,
    /// Still running when tracing ended.
    pub survivors: Vec<ProcessKey>,
    /// Of the watch of files, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FileEvents>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialEvents>,
    /// Absent where executable mappings were not to be watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maps: Option<MapsWatched>,
    /// What the file of hosts said about addresses that the tree contacted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostsEntry>,
    /// What the checks of the probes came to, one a second. Absent in recordings from before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Checks>,
    /// As computed at the time; `verify` computes it again.
    pub verdict: Option<Verdict>,
}

/// Whether the probes were attached all the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checks {
    pub made: u64,
    /// What the first one found that was not in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CommandStatus {
    Exited(u8),
    Killed(u8),
    /// tracing ended first
    Running,
    /// What ran already was joined, so there is none.
    NoCommand,
    NotStarted(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CounterRow {
    pub cpu: u32,
    pub kind: String,
    /// Counted by the kernel before it asked the ring for room.
    pub produced: u64,
    /// The ring had no room.
    pub lost: u64,
    /// Read by the collector.
    pub read: u64,
}

/// The kernel's own inherited perf counter of `sched:sched_process_exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Witness {
    Counted(u64),
    /// It could not be opened or read.
    Absent(String),
    /// No policy asked for a verdict, and inheriting the counter costs each new process.
    NotAsked,
}

/// One check that the probes fire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Canary {
    pub phase: CanaryPhase,
    /// Kinds of event a complete canary makes, and whether each arrived.
    pub seen: BTreeMap<String, bool>,
    /// Why it could not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CanaryPhase {
    Start,
    End,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerRow {
    #[serde(flatten)]
    pub file: FileId,
    pub execs: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants this")]
fn is_false(value: &bool) -> bool {
    !value
}
