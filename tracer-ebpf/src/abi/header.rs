//! What every record starts with.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Every kind of record a ring can carry. The discriminant is the index of its counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Kind { $($(#[$doc])* $name = $value,)* }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The name used in recordings, counters and messages.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$name => $text,)* }
            }
        }

        impl TryFrom<u32> for Kind {
            type Error = UnknownKind;
            fn try_from(value: u32) -> Result<Self, UnknownKind> {
                match value { $($value => Ok(Kind::$name),)* other => Err(UnknownKind(other)) }
            }
        }
    };
}

kinds! {
    /// A process the collector put at the root of a tracked tree.
    Root = 0, "root";
    Fork = 1, "fork";
    Exec = 2, "exec";
    /// A piece of an argv that did not fit the exec record.
    ArgvChunk = 3, "argv-chunk";
    Exit = 4, "exit";
    /// A TCP connect was attempted, in the task that asked for it.
    Connect = 5, "connect";
    /// The attempt succeeded or failed.
    ConnectResult = 6, "connect-result";
    /// A connection that had been established is gone.
    Close = 7, "close";
    /// An exec failed.
    Attempt = 8, "attempt";
    /// Bytes were sent over a unix socket to a process outside the tree.
    LocalSend = 9, "local-send";
    /// A process outside the tree was taken control of.
    Intrusion = 10, "intrusion";
    /// A socket without connections got a destination, in the task that asked for it.
    Datagram = 11, "datagram";
    /// A socket whose traffic is not followed was made or used.
    OddSocket = 12, "odd-socket";
    /// A process of the tree left the command's cgroup.
    CgroupMove = 13, "cgroup-move";
    /// Bytes that say which name a socket is about, on their way.
    Payload = 14, "payload";
    /// Bytes were sent over a socket of the internet that was made outside the command's cgroup.
    ForeignSend = 15, "foreign-send";
    /// The C library's resolver returned.
    Resolve = 16, "resolved";
    /// Bytes that a TLS library was given or gave.
    TlsData = 17, "tls-data";
    /// The first of them of a session.
    TlsBegin = 18, "tls-begin";
    /// A session was given back.
    TlsEnd = 19, "tls-end";
}

/// A kind this build does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKind(pub u32);

/// Bits of [`Header::flags`].
pub mod header_flag {
    /// The process belongs to tracer's own canary, not to the traced tree.
    pub const CANARY: u32 = 1 << 0;
    /// The tree map had no room: this child and its descendants are not tracked.
    pub const UNTRACKED: u32 = 1 << 1;
}

/// Bits of [`Header::unread`]: which kernel reads failed.
pub mod unread {
    pub const START_TIME: u32 = 1 << 0;
    pub const NS_PID: u32 = 1 << 1;
    pub const CREDENTIALS: u32 = 1 << 2;
    pub const FILE: u32 = 1 << 3;
    pub const FILENAME: u32 = 1 << 4;
    pub const INTERPRETER: u32 = 1 << 5;
    pub const PATH: u32 = 1 << 6;
    pub const CWD: u32 = 1 << 7;
    pub const ARGV: u32 = 1 << 8;
    pub const PARENT: u32 = 1 << 9;
    pub const STATUS: u32 = 1 << 10;
    pub const ADDRESS: u32 = 1 << 11;
    pub const COOKIE: u32 = 1 << 12;
    pub const BYTES: u32 = 1 << 13;
    pub const DUMPABLE: u32 = 1 << 14;
    /// The file of the script that was executed through an interpreter.
    pub const SCRIPT: u32 = 1 << 15;
    /// The kernel's own count of a process's execs.
    pub const EXEC_COUNT: u32 = 1 << 16;
    /// The network namespace.
    pub const NETWORK: u32 = 1 << 17;
    /// The names of environment variables: some may be missing.
    pub const ENVIRONMENT: u32 = 1 << 18;
    /// Standard input and output.
    pub const STDIO: u32 = 1 << 19;

    /// The name of each bit, as recordings spell it.
    pub const NAMES: &[(u32, &str)] = &[
        (START_TIME, "start-time"),
        (NS_PID, "namespace-pid"),
        (CREDENTIALS, "credentials"),
        (FILE, "file"),
        (FILENAME, "filename"),
        (INTERPRETER, "interpreter"),
        (PATH, "path"),
        (CWD, "cwd"),
        (ARGV, "argv"),
        (PARENT, "parent"),
        (STATUS, "status"),
        (ADDRESS, "address"),
        (COOKIE, "cookie"),
        (BYTES, "bytes"),
        (DUMPABLE, "dumpable"),
        (SCRIPT, "script"),
        (EXEC_COUNT, "exec-count"),
        (NETWORK, "network"),
        (ENVIRONMENT, "environment"),
        (STDIO, "stdio"),
    ];
}

/// The first bytes of every record.
///
/// `tgid` and `start_ns` together name a process: a pid alone is reused.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u32,
    /// Bits of [`header_flag`].
    pub flags: u32,
    /// Bits of [`unread`].
    pub unread: u32,
    pub cpu: u32,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub time_ns: u64,
    /// When the process started (`task_struct.start_boottime` of its leader), nanoseconds.
    pub start_ns: u64,
    /// Process id as the initial pid namespace sees it.
    pub tgid: u32,
    /// Thread id, likewise.
    pub tid: u32,
}
