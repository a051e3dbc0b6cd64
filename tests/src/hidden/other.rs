//! What is not TCP, and what goes on outside the cgroup that the command got.

use super::{Row, Ruling};

const DATAGRAM: Row = Row { shown: &["UDP 127.0.0.1:443 by sending, by dial-udp"], ..Row::PLAIN };

pub(super) const ROWS: &[Row] = &[
    // UDP.
    Row {
        name: "UDP, connected",
        traced: "$ODD/dial-udp connect 127.0.0.1 443",
        shown: &["UDP 127.0.0.1:443 by connecting, by dial-udp"],
        ..Row::PLAIN
    },
    Row {
        name: "UDP, connected and nothing sent",
        traced: "$ODD/dial-udp silent 127.0.0.1 443",
        shown: &["UDP 127.0.0.1:443 by connecting, by dial-udp"],
        claim: Ruling::Proven,
        ..Row::PLAIN
    },
    Row { name: "UDP by sendto", traced: "$ODD/dial-udp sendto 127.0.0.1 443", ..DATAGRAM },
    Row { name: "UDP by sendmsg", traced: "$ODD/dial-udp sendmsg 127.0.0.1 443", ..DATAGRAM },
    Row { name: "UDP by sendmmsg", traced: "$ODD/dial-udp sendmmsg 127.0.0.1 443", ..DATAGRAM },
    Row {
        name: "UDP, segmented by the kernel (UDP_SEGMENT)",
        traced: "$ODD/dial-udp segments 127.0.0.1 443",
        ..DATAGRAM
    },
    Row {
        name: "UDP without copying (MSG_ZEROCOPY)",
        traced: "$ODD/dial-udp zero-copy 127.0.0.1 443",
        ..DATAGRAM
    },
    Row { name: "UDP, 1000 times", traced: "$ODD/dial-udp again 127.0.0.1 443", ..DATAGRAM },
    Row {
        name: "UDP, IPv4-mapped IPv6 address",
        traced: "$ODD/dial-udp sendto ::ffff:127.0.0.1 443",
        ..DATAGRAM
    },
    Row {
        name: "UDP to 0.0.0.0, from an address of its own",
        traced: "$ODD/dial-unspecified sendto 127.0.0.2 443",
        shown: &["UDP 127.0.0.2:443 by sending, by dial-unspecified"],
        ..Row::PLAIN
    },
    Row {
        name: "UDP to 0.0.0.0, bound to a device",
        traced: "$ODD/dial-unspecified device 10.0.0.5 443",
        shown: &["UDP 127.0.0.1:443 by sending, by dial-unspecified"],
        claim: Ruling::Inconclusive,
        ..Row::PLAIN
    },
    Row {
        name: "UDP by io_uring",
        traced: "$ODD/dial-uring datagram 127.0.0.1 443",
        shown: &["UDP 127.0.0.1:443 by sending, by dial-uring"],
        ..Row::PLAIN
    },
    Row {
        name: "UDP by 32-bit system calls",
        traced: "$ODD/dial-int80 sendto 127.0.0.1 443",
        shown: &["UDP 127.0.0.1:443 by connecting, by dial-int80"],
        ..Row::PLAIN
    },
    Row {
        name: "UDP socket passed by a process outside (SCM_RIGHTS)",
        outside: "$ODD/give-socket 127.0.0.1 443 udp",
        traced: "$ODD/take-socket",
        shown: &["protocol 17 127.0.0.1:443 over a socket made elsewhere, by take-socket"],
        ..Row::PLAIN
    },
    // In another cgroup than the command's.
    Row {
        name: "TCP from another cgroup",
        before: "mkdir -p $CGROUP",
        traced: "echo 0 > $CGROUP/cgroup.procs; exec $ODD/dial 127.0.0.1 443 1 0 0",
        shown: &["TCP 127.0.0.1:443 established, by dial", "out of the cgroup, by dial"],
        ..Row::PLAIN
    },
    Row {
        name: "UDP from another cgroup",
        before: "mkdir -p $CGROUP",
        traced: "echo 0 > $CGROUP/cgroup.procs; exec $ODD/dial-udp sendto 127.0.0.1 443",
        shown: &[
            "out of the cgroup, by dial-udp",
            "protocol 17 anywhere over a socket made elsewhere, by dial-udp",
        ],
        not_covered: &[("datagrams", "of a process that left it")],
        claim: Ruling::Inconclusive,
        ..Row::PLAIN
    },
    Row {
        name: "UDP from another cgroup, by clone3",
        before: "mkdir -p $CGROUP",
        traced: "$ODD/clone3-exec $CGROUP $ODD/dial-udp sendto 127.0.0.1 443",
        shown: &[
            "out of the cgroup, by dial-udp",
            "protocol 17 anywhere over a socket made elsewhere, by dial-udp",
        ],
        not_covered: &[("datagrams", "of a process that left it")],
        claim: Ruling::Inconclusive,
        ..Row::PLAIN
    },
    // Neither.
    Row {
        name: "SCTP",
        traced: "$ODD/odd-socket sctp",
        shown: &["socket of family 2, type 1, protocol 132, by odd-socket"],
        claim: Ruling::Inconclusive,
        ..Row::PLAIN
    },
    Row {
        name: "UDP-Lite, connected",
        traced: "$ODD/odd-socket udplite send",
        shown: &["socket of family 2, type 2, protocol 136, by odd-socket"],
        claim: Ruling::Inconclusive,
        ..Row::PLAIN
    },
    Row {
        name: "raw socket",
        traced: "$ODD/odd-socket raw",
        shown: &["socket of family 2, type 3, protocol 1, by odd-socket"],
        claim: Ruling::Inconclusive,
        ..Row::PLAIN
    },
    Row {
        name: "raw socket, IPv6",
        traced: "$ODD/odd-socket raw6",
        shown: &["socket of family 10, type 3, protocol 58, by odd-socket"],
        claim: Ruling::Inconclusive,
        ..Row::PLAIN
    },
    Row {
        name: "ICMP without privileges",
        before: "echo 0 0 > /proc/sys/net/ipv4/ping_group_range || exit 77",
        traced: "$ODD/odd-socket ping",
        shown: &["socket of family 2, type 2, protocol 1, by odd-socket"],
        claim: Ruling::Inconclusive,
        ..Row::PLAIN
    },
    Row {
        name: "packet socket that sends",
        traced: "$ODD/odd-socket packet send",
        shown: &[
            "socket of family 17, type 3, protocol 0, by odd-socket",
            "to a process outside over socket, by odd-socket",
        ],
        claim: Ruling::Inconclusive,
        ..Row::PLAIN
    },
    Row {
        name: "vsock",
        traced: "$ODD/odd-socket vsock send",
        shown: &[
            "socket of family 40, type 1, protocol 0, by odd-socket",
            "to a process outside over socket, by odd-socket",
        ],
        claim: Ruling::Inconclusive,
        ..Row::PLAIN
    },
];
