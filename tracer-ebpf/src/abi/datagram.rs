//! Sockets without connections (UDP, and QUIC above it), by destination.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// A socket and where it sends to; key of the map that counts what they exchange.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
)]
#[repr(C)]
pub struct Flow {
    /// The kernel's name of the socket.
    pub cookie: u64,
    /// An IPv4 address is `::ffff:a.b.c.d`, also of an `AF_INET` socket: the packets are the same.
    pub address: [u8; 16],
    /// Host byte order.
    pub port: u16,
    /// As `socket(2)` numbers it.
    pub protocol: u16,
    pub padding: u32,
}

/// What was exchanged, and by whom. Packets are counted as the socket hands them to the network.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FlowTotals {
    /// Start of the process that sent there first.
    pub start_ns: u64,
    pub tgid: u32,
    pub tid: u32,
    /// Bits of [`super::header_flag`].
    pub flags: u32,
    /// QUIC Initial packets that were looked at.
    pub initials: u32,
    /// Not zero if it was asked for as [`Datagram::unspecified`], which was told.
    pub unspecified: u32,
    pub padding: u32,
    pub sent_packets: u64,
    /// Payload, without headers.
    pub sent_bytes: u64,
    pub received_packets: u64,
    pub received_bytes: u64,
}

/// What is remembered of a socket, by its cookie.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Asked {
    /// Its first destination.
    pub first: Flow,
    /// Not zero if it has others.
    pub several: u32,
    pub padding: u32,
    /// Packets that it sent to none of its destinations. Something below it made another address of one (NAT,
    /// IPsec, a program of another cgroup), or the kernel took another one for the unspecified.
    pub elsewhere_packets: u64,
}

/// How a socket got a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Via {
    /// Nothing need have been sent.
    Connect = 0,
    Send = 1,
}

impl TryFrom<u32> for Via {
    type Error = u32;
    fn try_from(value: u32) -> Result<Via, u32> {
        [Via::Connect, Via::Send].into_iter().find(|via| *via as u32 == value).ok_or(value)
    }
}

/// [`super::Kind::Datagram`]: once per [`Flow`], and once more if the unspecified address turns out to be it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Datagram {
    pub header: Header,
    pub flow: Flow,
    /// A [`Via`].
    pub via: u32,
    /// Inode number of the network namespace.
    pub net_ns_inum: u32,
    /// Not zero if the address that was asked for is the unspecified one (`0.0.0.0`, `::`): that of the flow is what
    /// the kernel should take for it.
    pub unspecified: u32,
    pub padding: u32,
}
