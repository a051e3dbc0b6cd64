//! Counters the kernel side keeps, one copy per CPU. Read after detaching, never through a ring.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Kind;

/// Number of event kinds.
pub const KIND_COUNT: usize = Kind::ALL.len();

/// What became of the records of one kind. `produced = read by the collector + lost`, exactly.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct KindStats {
    /// Counted before the ring is asked for room.
    pub produced: u64,
    /// The ring had no room.
    pub lost: u64,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Failures inside the kernel side that lose more than one record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Fault { $($(#[$doc])* $name = $value,)* }

        impl Fault {
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)*];

            /// The name used in recordings, counters and messages.
            pub const fn name(self) -> &'static str {
                match self { $(Fault::$name => $text,)* }
            }
        }
    };
}

faults! {
    /// A child could not be put into the tree: it and its descendants are invisible.
    TreeInsert = 0, "tree-insert";
    /// A connection could not be remembered: its outcome and bytes are unknown.
    SocketInsert = 1, "socket-insert";
    /// An executed inode could not be put into the ledger.
    LedgerInsert = 2, "ledger-insert";
    /// A per-CPU work area was not there, so an event was not produced at all.
    Scratch = 3, "scratch";
    /// The process of an event could not be told (a failed read of its own ids).
    Identity = 4, "identity";
    /// A socket's destination could not be remembered: it was not reported.
    FlowInsert = 5, "flow-insert";
    /// A packet left with options of IPv4 or extension headers of IPv6, which can send it elsewhere than its
    /// socket says: where it went is unknown.
    PacketRoute = 6, "packet-route";
}

/// Number of fault counters.
pub const FAULT_COUNT: usize = Fault::ALL.len();

/// One CPU's counters.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Stats {
    /// Indexed by [`Kind`].
    pub kinds: [KindStats; KIND_COUNT],
    /// Indexed by [`Fault`].
    pub faults: [u64; FAULT_COUNT],
}

/// A file, as the kernel names it: `s_dev` in the kernel's own encoding (major << 20 | minor) and
/// inode number. Key of the exec ledger, whose values count execs of that file by the tree.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
)]
#[repr(C)]
pub struct FileKey {
    pub inode: u64,
    pub device: u32,
    pub padding: u32,
}
