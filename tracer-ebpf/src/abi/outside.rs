//! Ways in which a tracked process reaches a process outside the tree.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// `sun_path` of `struct sockaddr_un` (unix(7)), and padding.
pub const SOCKET_NAME_BYTES: usize = 112;

/// [`super::Kind::LocalSend`]: the first bytes a process sent over a unix socket to a given peer.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LocalSend {
    pub header: Header,
    /// Inode number of the sender's socket on sockfs; 0 when it has none.
    pub socket_inode: u64,
    /// The process that listened, or that made the pair which the peer is one of; 0 when the kernel does not know
    /// it, as of other sockets for datagrams.
    pub peer_tgid: u32,
    /// Bytes of `peer_name`: a path with or without its NUL, or a NUL and an abstract name; 0 for a
    /// socket without a name.
    pub peer_name_len: u32,
    pub peer_name: [u8; SOCKET_NAME_BYTES],
    /// Not 0: that process had ended and was reaped, and its number can be another's.
    pub peer_reaped: u32,
    /// The user, in the initial user namespace, as whom the peer listened, made the pair or, of datagrams, the socket;
    /// `u32::MAX` when the kernel does not know it.
    pub peer_uid: u32,
    /// Not 0: a datagram, of which it is not certain that it went to the peer and not to an address of its own.
    pub any_peer: u32,
    pub padding: u32,
}

/// What an [`Intrusion`] was done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Means {
    /// Anything that needs the rights of a debugger: ptrace, `/proc/PID/mem`, `process_vm_writev`,
    /// `pidfd_getfd`. `target` is a process id in the initial pid namespace.
    DebuggerAccess = 0,
    /// `ptrace`. `target` is what the caller passed, so an id in the caller's pid namespace.
    Ptrace = 1,
    /// `process_vm_writev`; `target` likewise.
    WriteMemory = 2,
    /// `pidfd_getfd`. `target` is the caller's descriptor of the process.
    TakeDescriptor = 3,
}

impl TryFrom<u32> for Means {
    type Error = u32;
    fn try_from(value: u32) -> Result<Means, u32> {
        [Means::DebuggerAccess, Means::Ptrace, Means::WriteMemory, Means::TakeDescriptor]
            .into_iter()
            .find(|means| *means as u32 == value)
            .ok_or(value)
    }
}

/// [`super::Kind::Intrusion`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Intrusion {
    pub header: Header,
    /// A [`Means`].
    pub means: u32,
    pub target: u32,
}
