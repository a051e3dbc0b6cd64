//! TCP connections a tracked process opens.
//!
//! `id` names a connection within one recording: the kernel gives a socket its cookie only when
//! somebody asks for it, so `cookie` is 0 for most sockets, and a `sock` address is reused.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// Address families as `socket(2)` numbers them.
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

/// Where the kernel's route to the destination of a socket leads.
pub mod route {
    /// There was none yet, or it could not be read.
    pub const UNKNOWN: u16 = 0;
    pub const ELSEWHERE: u16 = 1;
    /// To the network namespace itself, by whatever of its addresses and routes.
    pub const LOCAL: u16 = 2;
}

/// Both ends of a socket. An IPv4 address of an `AF_INET6` socket is `::ffff:a.b.c.d`; of an
/// `AF_INET` socket, the first four bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SocketAddress {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// Host byte order. Zero until the kernel has chosen one.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    pub family: u16,
    /// One of [`route`].
    pub route: u16,
    /// Inode number of the network namespace.
    pub net_ns_inum: u32,
    pub padding_2: u32,
}

/// [`super::Kind::Connect`]: `CLOSE -> SYN_SENT`, which happens in the task that connects.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Connect {
    pub header: Header,
    pub id: u64,
    pub cookie: u64,
    pub address: SocketAddress,
}

/// [`super::Kind::ConnectResult`]: `SYN_SENT ->` anything else. Often in softirq context; the
/// header names the process that connected.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ConnectResult {
    pub header: Header,
    pub id: u64,
    pub cookie: u64,
    pub address: SocketAddress,
    /// 1 when the three-way handshake completed.
    pub established: u32,
    /// `sk->sk_err`; 0 with `established` 0 means the program itself gave up (closed the socket), or
    /// the kernel did before it sent anything.
    pub error: u32,
    /// 1 when it ended before anything was sent.
    pub unsent: u32,
    pub padding: u32,
}

/// [`super::Kind::Close`]: an established connection reached `CLOSE`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Close {
    pub header: Header,
    pub id: u64,
    /// Payload handed to the network at least once, retransmissions not counted.
    pub sent_bytes: u64,
    /// Payload received in order.
    pub received_bytes: u64,
}
