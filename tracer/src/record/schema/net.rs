//! Connections, datagrams, and what says which names they go to.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::abi::SOCK_RAW;

use crate::model::{Bytes, Endpoint, ProcessKey};

/// `process` asked the kernel for a TCP connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Connect {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub thread: u32,
    /// Names the connection within this recording.
    pub connection: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    pub destination: Option<Endpoint>,
    pub net_ns_inum: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// What became of the attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectResult {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub connection: u64,
    pub outcome: Outcome,
    /// From the attempt to the outcome.
    pub connect_ns: Option<u64>,
    pub source: Option<Endpoint>,
    /// Whether the kernel's route to the destination leads to the network namespace itself, whatever the address.
    /// Absent where that could not be read, and in recordings made before it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Established,
    /// `errno` as the socket has it; named where it has a name.
    Failed {
        errno: u32,
        name: String,
    },
    /// The program closed the socket before there was an outcome.
    Abandoned,
    /// It ended before anything was sent: the kernel had no port for it, or the program closed a
    /// socket whose first write was to open the connection (TCP Fast Open).
    Unsent,
    /// It ended without a connection, and the reason could not be read; or its first packet brought data
    /// (TCP Fast Open), which the other end may have taken, whatever the reason.
    Unknown,
}

/// An established connection is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Close {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub connection: u64,
    pub sent_bytes: Option<u64>,
    pub received_bytes: Option<u64>,
    /// Since it was established.
    pub duration_ns: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// A socket of `process` without connections (UDP, and QUIC above it) got a destination: by connect,
/// or by sending there. Once per socket and destination, and once more if it is asked for as `unspecified` later;
/// repeats are counted in an [`Exchange`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Datagram {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub thread: u32,
    /// The kernel's name of the socket.
    pub cookie: u64,
    /// As `socket(2)` numbers it: 17 is UDP.
    pub protocol: u16,
    pub destination: Option<Endpoint>,
    pub net_ns_inum: u32,
    pub via: DatagramVia,
    /// The address that was asked for is `0.0.0.0` or `::`, and the destination what the kernel takes for it: where the
    /// socket sends from, or loopback. Unless packets went elsewhere ([`Exchange`]): then it took another one of this
    /// machine's, that of the device which the socket is bound to for example.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unspecified: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DatagramVia {
    /// Nothing need have been sent.
    Connect,
    Send,
}

/// What a socket and a destination exchanged in datagrams, in all. Comes when tracing ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exchange {
    pub t_ns: u64,
    pub cookie: u64,
    pub destination: Endpoint,
    pub sent_packets: u64,
    /// Payload, without headers.
    pub sent_bytes: u64,
    pub received_packets: u64,
    pub received_bytes: u64,
    /// Packets that the socket sent to none of its destinations, because NAT or IPsec made another address of one, or
    /// the kernel took another one for the unspecified. The same number with each destination of the socket. Those of a
    /// socket with one destination are in `sent_packets` too, as far as they can be read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub elsewhere_packets: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// `process` has a socket whose traffic tracer does not follow (raw, packet, SCTP, vsock). Once per
/// process and kind of socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OddSocket {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub thread: u32,
    /// As `socket(2)` numbers them.
    pub family: u16,
    /// Without its flags.
    #[serde(rename = "socket-type")]
    pub socket_type: u16,
    pub protocol: u16,
}

/// `AF_NETLINK`
const NETLINK: u16 = 16;

/// `IPPROTO_MPTCP`
const MULTIPATH: u16 = 262;

/// `IPPROTO_ICMP` and `IPPROTO_ICMPV6`
const ICMP: [u16; 2] = [1, 58];

impl OddSocket {
    /// Of netlink, those that reach other processes and not the kernel are recorded.
    pub fn is_netlink(&self) -> bool {
        self.family == NETLINK
    }

    /// Whether any service of this machine can be reached by it, unseen. What is to be sent by a raw socket for
    /// ICMP is that, or could at least get no answer.
    pub fn reaches_services(&self) -> bool {
        const INET: [u16; 2] = [2, 10];
        // TIPC, packet, vsock and XDP.
        const OTHERS: [u16; 4] = [30, 17, 40, 44];
        let is_raw = INET.contains(&self.family) && self.socket_type == SOCK_RAW;
        is_raw && !ICMP.contains(&self.protocol) || OTHERS.contains(&self.family)
    }

    pub fn is_multipath(&self) -> bool {
        // Numbers of protocols are the internet's; other families count theirs from zero, by the dozen.
        self.protocol == MULTIPATH
    }
}

/// `process` sent something over a TCP or UDP socket (or another of the internet protocols) that was
/// made outside the command's cgroup: inherited, received from another process, or made by a process
/// that had left it. What goes over it is not seen. Once per process, socket and destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForeignSend {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub thread: u32,
    /// As `socket(2)` numbers it: 6 is TCP, 17 is UDP.
    pub protocol: u16,
    /// It is a raw socket, whose packets the process makes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raw: bool,
    /// What the socket is connected to; one for datagrams can send elsewhere all the same. Absent for a
    /// socket that is not connected, and where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Endpoint>,
    /// As in a [`ConnectResult`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    pub net_ns_inum: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

impl ForeignSend {
    /// Whether all that is sent goes to the destination.
    pub fn is_stream(&self) -> bool {
        const TCP: u16 = 6;
        self.protocol == TCP && !self.raw
    }

    /// As with an [`OddSocket`].
    pub fn reaches_services(&self) -> bool {
        self.raw && !ICMP.contains(&self.protocol)
    }

    pub fn is_multipath(&self) -> bool {
        self.protocol == MULTIPATH
    }
}

/// A process of the tree left the cgroup that the command got, so what sockets it makes from then on
/// send is not seen by the hooks of that cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CgroupMove {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub to_cgroup_id: u64,
    /// Where the kernel gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_path: Option<Bytes>,
}

/// A DNS message of a socket of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dns {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub cookie: u64,
    pub server: Option<Endpoint>,
    /// Over TCP instead of UDP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tcp: bool,
    pub message: DnsMessage,
}

/// Names are as they are shown: without the last dot, bytes that are no letter, digit, `-` or `_`
/// escaped as in RFC 4343.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DnsMessage {
    Question {
        id: u16,
        name: String,
        /// `A`, `AAAA`, `HTTPS`, ..., or `TYPE123`.
        of: String,
    },
    Answer {
        id: u16,
        name: String,
        of: String,
        /// `NOERROR`, `NXDOMAIN`, ..., or a number.
        code: String,
        records: Vec<DnsRecord>,
        /// The server said that there is more, or tracer kept only the beginning.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    },
    /// Bytes on port 53 that are no DNS message.
    Malformed { why: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsRecord {
    pub name: String,
    pub of: String,
    pub ttl_s: u32,
    /// An address, or the name a CNAME stands for; of an HTTPS record the target and its address
    /// hints, separated by blanks; empty for types that tracer does not read.
    pub data: String,
}

/// What the first bytes that `process` sent over a connection say. QUIC's come from a datagram
/// socket, with `connection` absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Opening {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub cookie: u64,
    /// As in its [`Connect`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<u64>,
    pub destination: Option<Endpoint>,
    pub what: FirstBytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FirstBytes {
    /// A TLS ClientHello.
    Tls {
        /// Server name indication.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sni: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        alpn: Vec<String>,
        /// It has an Encrypted ClientHello, so `sni` may be a public name that stands for another.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        encrypted_hello: bool,
        /// Hexadecimal; names the connection to whoever reads its plaintext elsewhere.
        client_random: String,
        /// In a QUIC Initial packet.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        quic: bool,
    },
    /// An HTTP/1 request head.
    Http {
        method: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    },
    /// Something else.
    Other,
    /// It begins like TLS or HTTP, and the rest could not be read.
    Unread { why: String },
}

/// `process` asked its C library for the addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resolved {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub thread: u32,
    pub name: String,
    pub addresses: Vec<IpAddr>,
    /// There were more addresses, or `name` is only the beginning of the name, and then there are
    /// none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// `getaddrinfo`'s own error number; absent when it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<i32>,
}

/// An address in the file of hosts, as it was when the command started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostsEntry {
    pub address: IpAddr,
    /// In the order of the file; the first 64.
    pub names: Vec<String>,
}
