//! One event per kind of record in the rings.
//!
//! A match over [`Event`] has no wildcard arm anywhere: a new kind fails to compile until every
//! stage handles it.

use std::net::IpAddr;

use tracer_ebpf::abi::{ExecFile, Kind, Means, Stdio, TLS_RANDOM_BYTES, Via, header_flag};

use super::{Bytes, Device, Endpoint, FileId, ProcessKey};

/// Common to all events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader {
    /// `CLOCK_BOOTTIME` nanoseconds.
    pub time_ns: u64,
    pub process: ProcessKey,
    /// Thread, in the initial pid namespace.
    pub tid: u32,
    pub cpu: u32,
    /// Bits of [`header_flag`].
    pub flags: u32,
    /// Bits of [`tracer_ebpf::abi::unread`].
    pub unread: u32,
}

impl EventHeader {
    /// Whether the event belongs to tracer's own check of the probes.
    pub fn is_canary(&self) -> bool {
        self.flags & header_flag::CANARY != 0
    }

    pub fn is_unread(&self, bit: u32) -> bool {
        self.unread & bit != 0
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Root(RootEvent),
    Fork(ForkEvent),
    Exec(Box<ExecEvent>),
    ArgvPiece(ArgvPiece),
    Exit(ExitEvent),
    Connect(ConnectEvent),
    ConnectResult(ConnectResultEvent),
    Close(CloseEvent),
    Attempt(Box<AttemptEvent>),
    LocalSend(LocalSendEvent),
    Intrusion(IntrusionEvent),
    Datagram(DatagramEvent),
    OddSocket(OddSocketEvent),
    ForeignSend(ForeignSendEvent),
    CgroupMove(CgroupMoveEvent),
    Payload(Box<PayloadEvent>),
    Resolve(ResolveEvent),
    TlsData(Box<TlsDataEvent>),
    TlsBegin(Box<TlsBeginEvent>),
    TlsEnd(TlsEndEvent),
}

#[derive(Clone, Debug, PartialEq)]
pub struct RootEvent {
    pub header: EventHeader,
    pub ns_pid: u32,
    pub parent_pid: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ForkEvent {
    pub header: EventHeader,
    pub child: ProcessKey,
    pub child_ns_pid: u32,
    pub child_parent_pid: u32,
    /// The kernel could not put the child into the tree.
    pub untracked: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ExecEvent {
    pub header: EventHeader,
    pub file: ExecFile,
    /// Bits of [`tracer_ebpf::abi::exec_flag`].
    pub flags: u32,
    pub old_tid: u32,
    pub ns_pid: u32,
    pub pid_ns_inum: u32,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
    pub cgroup_id: u64,
    pub argc: u32,
    /// argv with its NULs, as far as the record itself carries it.
    pub argv_inline: Vec<u8>,
    pub argv_len: u64,
    pub argv_chunks: u32,
    pub filename: Bytes,
    /// Empty unless the file is a script.
    pub interpreter: Bytes,
    pub path: Bytes,
    pub cwd: Bytes,
    /// Zeroes and empty unless the file is a script.
    pub script: ExecFile,
    pub script_path: Bytes,
    /// Environment variables that are set, by the numbers that they were asked about with.
    pub environment: u64,
    /// Standard input and output.
    pub stdio: [Stdio; 2],
}

impl ExecEvent {
    pub fn file_id(&self) -> FileId {
        FileId { device: Device(self.file.key.device), inode: self.file.key.inode }
    }
}

/// Part of the argv of the exec of the same process at the same time.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgvPiece {
    pub header: EventHeader,
    pub offset_bytes: u64,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ExitEvent {
    pub header: EventHeader,
    pub wait_status: u32,
    /// By the kernel's own count.
    pub execs: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConnectEvent {
    pub header: EventHeader,
    pub id: u64,
    /// 0 when the kernel had not given one.
    pub cookie: u64,
    /// `None` when the address could not be read.
    pub destination: Option<Endpoint>,
    pub net_ns_inum: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConnectResultEvent {
    pub header: EventHeader,
    pub id: u64,
    pub source: Option<Endpoint>,
    /// Whether the route leads to this machine itself, if that is known.
    pub local: Option<bool>,
    pub established: bool,
    pub errno: u32,
    /// It ended before anything was sent.
    pub unsent: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CloseEvent {
    pub header: EventHeader,
    pub id: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// An exec that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptEvent {
    pub header: EventHeader,
    pub errno: u32,
    pub filename: Bytes,
    pub filename_cut: bool,
    pub args: Vec<Bytes>,
    pub argv_complete: bool,
}

/// The first bytes a process sent over a unix socket to a process outside the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalSendEvent {
    pub header: EventHeader,
    /// Inode number of the sender's socket; 0 when it has none.
    pub socket_inode: u64,
    /// 0 when the kernel does not know.
    pub peer_pid: u32,
    /// The process had ended and was reaped: its pid can be another's.
    pub peer_reaped: bool,
    /// As whom the peer made its socket; `None` when the kernel does not know.
    pub peer_uid: Option<u32>,
    /// A path, a NUL and an abstract name, or nothing.
    pub peer_name: Bytes,
    /// It may have gone to an address of its own.
    pub any_peer: bool,
}

/// `getaddrinfo` returned.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolveEvent {
    pub header: EventHeader,
    pub name: Bytes,
    /// `name` is the beginning only.
    pub name_cut: bool,
    /// What it returned: 0, or one of its own error numbers.
    pub error: i32,
    pub addresses: Vec<IpAddr>,
    /// There were more.
    pub more: bool,
}

/// Bytes that a TLS library was given, or gave.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsDataEvent {
    pub header: EventHeader,
    /// A number that no other session of the process has.
    pub stream: u64,
    pub received: bool,
    /// When the library was called; the header has when it returned.
    pub began_ns: u64,
    /// Bytes of the session in that direction before these.
    pub offset_bytes: u64,
    /// How many there were; `bytes` can be the beginning of them, or nothing.
    pub length_bytes: u64,
    pub bytes: Vec<u8>,
}

/// A session of a TLS library has its first bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsBeginEvent {
    pub header: EventHeader,
    pub stream: u64,
    /// Where the process has it.
    pub session: u64,
    /// What may be the random bytes of its ClientHello, and may be something else.
    pub randoms: Vec<[u8; TLS_RANDOM_BYTES]>,
}

/// A session of a TLS library was given back.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsEndEvent {
    pub header: EventHeader,
    pub stream: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// Bytes that a socket of the tree sent or received: the beginning of a TCP stream in pieces, or a
/// datagram.
#[derive(Clone, Debug, PartialEq)]
pub struct PayloadEvent {
    pub header: EventHeader,
    /// The kernel's name of the socket.
    pub cookie: u64,
    /// As in its [`ConnectEvent`]; none for datagrams.
    pub connection: Option<u64>,
    /// The remote end, whichever the direction.
    pub destination: Option<Endpoint>,
    /// As `socket(2)` numbers it: 6 is TCP, 17 is UDP.
    pub protocol: u16,
    pub incoming: bool,
    /// In the TCP stream of that direction; 0 for datagrams.
    pub offset_bytes: u64,
    /// How long the piece was on the wire; `bytes` can be its beginning only.
    pub wire_bytes: u32,
    pub bytes: Vec<u8>,
}

/// A process outside the tree was taken control of.
#[derive(Clone, Debug, PartialEq)]
pub struct IntrusionEvent {
    pub header: EventHeader,
    pub means: Means,
    pub target: u32,
}

/// A socket without connections got a destination that it had not had before.
#[derive(Clone, Debug, PartialEq)]
pub struct DatagramEvent {
    pub header: EventHeader,
    pub cookie: u64,
    pub protocol: u16,
    pub destination: Endpoint,
    pub via: Via,
    pub net_ns_inum: u32,
    /// The address that was asked for is the unspecified one.
    pub unspecified: bool,
}

/// A process has a socket whose traffic is not followed. Numbers as in `socket(2)`.
#[derive(Clone, Debug, PartialEq)]
pub struct OddSocketEvent {
    pub header: EventHeader,
    pub family: u16,
    pub socket_type: u16,
    pub protocol: u16,
}

/// Bytes were sent over a socket of the internet that was made outside the command's cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignSendEvent {
    pub header: EventHeader,
    /// None for a socket that is not connected, and where it could not be read.
    pub destination: Option<Endpoint>,
    /// Whether the route leads to this machine itself, if that is known.
    pub local: Option<bool>,
    /// As `socket(2)` numbers it.
    pub protocol: u16,
    /// It is a raw socket.
    pub raw: bool,
    pub net_ns_inum: u32,
}

/// A process of the tree was moved out of the command's cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct CgroupMoveEvent {
    pub header: EventHeader,
    pub to_cgroup_id: u64,
    /// Empty when the kernel did not say.
    pub to_path: Bytes,
}

impl Event {
    pub fn header(&self) -> &EventHeader {
        match self {
            Event::Root(event) => &event.header,
            Event::Fork(event) => &event.header,
            Event::Exec(event) => &event.header,
            Event::ArgvPiece(event) => &event.header,
            Event::Exit(event) => &event.header,
            Event::Connect(event) => &event.header,
            Event::ConnectResult(event) => &event.header,
            Event::Close(event) => &event.header,
            Event::Attempt(event) => &event.header,
            Event::LocalSend(event) => &event.header,
            Event::Intrusion(event) => &event.header,
            Event::Datagram(event) => &event.header,
            Event::OddSocket(event) => &event.header,
            Event::ForeignSend(event) => &event.header,
            Event::CgroupMove(event) => &event.header,
            Event::Payload(event) => &event.header,
            Event::Resolve(event) => &event.header,
            Event::TlsData(event) => &event.header,
            Event::TlsBegin(event) => &event.header,
            Event::TlsEnd(event) => &event.header,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Event::Root(_) => Kind::Root,
            Event::Fork(_) => Kind::Fork,
            Event::Exec(_) => Kind::Exec,
            Event::ArgvPiece(_) => Kind::ArgvChunk,
            Event::Exit(_) => Kind::Exit,
            Event::Connect(_) => Kind::Connect,
            Event::ConnectResult(_) => Kind::ConnectResult,
            Event::Close(_) => Kind::Close,
            Event::Attempt(_) => Kind::Attempt,
            Event::LocalSend(_) => Kind::LocalSend,
            Event::Intrusion(_) => Kind::Intrusion,
            Event::Datagram(_) => Kind::Datagram,
            Event::OddSocket(_) => Kind::OddSocket,
            Event::ForeignSend(_) => Kind::ForeignSend,
            Event::CgroupMove(_) => Kind::CgroupMove,
            Event::Payload(_) => Kind::Payload,
            Event::Resolve(_) => Kind::Resolve,
            Event::TlsData(_) => Kind::TlsData,
            Event::TlsBegin(_) => Kind::TlsBegin,
            Event::TlsEnd(_) => Kind::TlsEnd,
        }
    }
}
