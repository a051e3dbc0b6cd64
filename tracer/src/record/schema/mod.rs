//! One type per kind of line.
//!
//! Units are in the names: `_ns` nanoseconds (`t_ns` is `CLOCK_BOOTTIME`; add the first line's
//! `wall_offset_ns` for Unix time), `_bytes` bytes. A value the kernel could not read is absent and
//! named in `unread`; zero always means zero.

mod calls;
mod code;
mod credentials;
mod end;
mod found;
mod net;
mod process;
mod start;
mod tls;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::ProcessKey;

pub use calls::{Call, CallConnection, CallGap, CallOutcome, JoinedBy};
pub use code::{
    Attempt, HandOff, Intrusion, IntrusionMeans, LocalSend, Mapped, MappedFile, Opened, OpenedWhat,
};
pub use credentials::{
    CredentialAccess, CredentialEvents, CredentialFile, CredentialGap, CredentialPlace,
    CredentialWatch, Descriptor, DescriptorKind, Stdio,
};
pub use end::{
    Canary, CanaryPhase, Checks, CommandStatus, CounterRow, End, FileEvents, LedgerRow,
    MapsWatched, Witness,
};
pub use found::{AttachedTo, Attachment, FoundSocket, Snapshot, SocketProtocol};
pub use net::{
    CgroupMove, Close, Connect, ConnectResult, Datagram, DatagramVia, Dns, DnsMessage, DnsRecord,
    Exchange, FirstBytes, ForeignSend, HostsEntry, OddSocket, Opening, Outcome, Resolved,
};
pub use process::{
    Argv, Content, Credentials, Exec, ExecutedFile, Exit, Fork, Root, Script, ScriptFile,
};
pub use start::{
    CommandCgroup, FileWatch, Host, KnownCopy, KnownFolder, KnownInterpreter, SensorState, Start,
    WatchGap, Watched,
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
