//! TCP.

use super::{Row, Ruling};

const NEVER_SENT: &str =
    "the kernel counts a connection when its SYN is sent, and this one's never is";

const RING: Row = Row { shown: &["TCP 127.0.0.1:443 established, by dial-uring"], ..Row::PLAIN };
const OTHER_TABLE: Row =
    Row { shown: &["TCP 127.0.0.1:443 established, by dial-int80"], ..Row::PLAIN };

pub(super) const ROWS: &[Row] = &[
    // TCP, by another way into the kernel.
    Row { name: "io_uring", traced: "$ODD/dial-uring plain 127.0.0.1 443", ..RING },
    Row {
        name: "io_uring, by the kernel's own thread (SQPOLL)",
        traced: "$ODD/dial-uring sqpoll 127.0.0.1 443",
        ..RING
    },
    Row {
        name: "io_uring, registered file without a descriptor",
        traced: "$ODD/dial-uring registered 127.0.0.1 443",
        ..RING
    },
    Row {
        name: "io_uring, socket made by the ring",
        traced: "$ODD/dial-uring direct 127.0.0.1 443",
        ..RING
    },
    Row {
        name: "32-bit system call (int 0x80)",
        traced: "$ODD/dial-int80 connect 127.0.0.1 443",
        ..OTHER_TABLE
    },
    Row {
        name: "32-bit socketcall",
        traced: "$ODD/dial-int80 socketcall 127.0.0.1 443",
        ..OTHER_TABLE
    },
    // TCP, with more or less of a handshake.
    Row {
        name: "TCP Fast Open without a cookie",
        traced: "$ODD/dial-fast-open 127.0.0.1 443 1 20",
        shown: &["TCP 127.0.0.1:443 established, by dial-fast-open"],
        ..Row::PLAIN
    },
    Row {
        name: "TCP Fast Open with a cookie, data in the SYN",
        before: "$ODD/dial-fast-open 127.0.0.1 443 1 20",
        traced: "$ODD/dial-fast-open 127.0.0.1 443 2 20",
        shown: &["2 x TCP 127.0.0.1:443 established, by dial-fast-open"],
        ..Row::PLAIN
    },
    Row {
        name: "TCP Fast Open by connect (TCP_FASTOPEN_CONNECT)",
        traced: "$ODD/dial-deferred 127.0.0.1 443",
        shown: &["2 x TCP 127.0.0.1:443 established, by dial-deferred"],
        ..Row::PLAIN
    },
    Row {
        name: "TCP Fast Open by connect, closed before the first write",
        traced: "$ODD/dial-deferred 127.0.0.1 443 abandon",
        shown: &[
            "TCP 127.0.0.1:443 established, by dial-deferred",
            "TCP 127.0.0.1:443 unsent, by dial-deferred",
        ],
        beyond_opens: Some((1, NEVER_SENT)),
        ..Row::PLAIN
    },
    Row {
        name: "MPTCP, the peer speaks it",
        traced: "$ODD/dial 127.0.0.1 444 1 0 0 262",
        shown: &[
            "TCP 127.0.0.1:444 established, by dial",
            "socket of family 2, type 1, protocol 262, by dial",
        ],
        ..Row::PLAIN
    },
    Row {
        name: "MPTCP, the peer does not",
        traced: "$ODD/dial 127.0.0.1 443 1 0 0 262",
        shown: &[
            "TCP 127.0.0.1:443 established, by dial",
            "socket of family 2, type 1, protocol 262, by dial",
        ],
        ..Row::PLAIN
    },
    Row {
        name: "IPv4-mapped IPv6 address",
        traced: "$ODD/dial ::ffff:127.0.0.1 443 1 0 0",
        shown: &["TCP [::ffff:127.0.0.1]:443 established, by dial"],
        ..Row::PLAIN
    },
    Row {
        name: "IPv6",
        traced: "$ODD/dial ::1 443 1 0 0",
        shown: &["TCP [::1]:443 established, by dial"],
        ..Row::PLAIN
    },
    Row {
        name: "both ends are one socket",
        traced: "$ODD/dial-itself 127.0.0.1 4000",
        shown: &["TCP 127.0.0.1:4000 established, by dial-itself"],
        ..Row::PLAIN
    },
    Row {
        name: "declared connected without a handshake (TCP_REPAIR)",
        traced: "$ODD/dial-repair 127.0.0.1 443",
        shown: &["TCP 127.0.0.1:443 established, by dial-repair"],
        beyond_opens: Some((1, NEVER_SENT)),
        ..Row::PLAIN
    },
    // TCP that comes to nothing, late, or to an end at once.
    Row {
        name: "refused",
        traced: "$ODD/dial 127.0.0.1 81 1 0 0",
        shown: &["TCP 127.0.0.1:81 ECONNREFUSED, by dial"],
        exit: libc::ECONNREFUSED,
        ..Row::PLAIN
    },
    Row {
        name: "timed out",
        traced: "$ODD/dial-timeout 127.0.0.1 82",
        shown: &["TCP 127.0.0.1:82 ETIMEDOUT, by dial-timeout"],
        exit: libc::ETIMEDOUT,
        ..Row::PLAIN
    },
    Row {
        name: "failed: the local port is in use for the same peer",
        traced: "$ODD/dial-taken 127.0.0.1 443",
        shown: &[
            "TCP 127.0.0.1:443 established, by dial-taken",
            "TCP 127.0.0.1:443 unsent, by dial-taken",
        ],
        beyond_opens: Some((1, NEVER_SENT)),
        exit: libc::EADDRNOTAVAIL,
        ..Row::PLAIN
    },
    Row {
        name: "failed: no route",
        traced: "$ODD/dial 192.0.2.1 443 1 0 0",
        not_covered: &[("connect", "connections that have no route")],
        exit: libc::ENETUNREACH,
        claim: Ruling::Proven,
        ..Row::PLAIN
    },
    Row {
        name: "non-blocking",
        traced: "$ODD/dial-nonblocking 127.0.0.1 443",
        shown: &["TCP 127.0.0.1:443 established, by dial-nonblocking"],
        ..Row::PLAIN
    },
    Row {
        name: "non-blocking, refused",
        traced: "$ODD/dial-nonblocking 127.0.0.1 81",
        shown: &["TCP 127.0.0.1:81 ECONNREFUSED, by dial-nonblocking"],
        exit: libc::ECONNREFUSED,
        ..Row::PLAIN
    },
    Row {
        name: "non-blocking, closed before an answer",
        traced: "$ODD/dial-abandon 127.0.0.1 82",
        shown: &["TCP 127.0.0.1:82 abandoned, by dial-abandon"],
        ..Row::PLAIN
    },
    Row {
        name: "closed before the reader ran, by the end of the process",
        traced: "$ODD/dial-child 127.0.0.1 443",
        shown: &["TCP 127.0.0.1:443 established, by child of dial-child"],
        ..Row::PLAIN
    },
    // Sockets that go from hand to hand.
    Row {
        name: "by a thread",
        traced: "$ODD/dial-thread 127.0.0.1 443",
        shown: &["TCP 127.0.0.1:443 established, by dial-thread"],
        ..Row::PLAIN
    },
    Row {
        name: "a child connects its parent's socket",
        traced: "$ODD/dial-given 127.0.0.1 443",
        shown: &["TCP 127.0.0.1:443 established, by child of dial-given"],
        ..Row::PLAIN
    },
    Row {
        name: "connected socket inherited from the caller of tracer",
        caller: "exec 3<>/dev/tcp/127.0.0.1/443; exec \"$@\"",
        traced: "$ODD/use-socket 3",
        shown: &["protocol 6 127.0.0.1:443 over a socket made elsewhere, by use-socket"],
        // The caller's own, which the namespace counts too.
        beyond_opens: Some((-1, "the caller connected it before tracing began")),
        ..Row::PLAIN
    },
    Row {
        name: "connected socket passed by a process outside (SCM_RIGHTS)",
        outside: "$ODD/give-socket 127.0.0.1 443",
        traced: "$ODD/take-socket",
        shown: &["protocol 6 127.0.0.1:443 over a socket made elsewhere, by take-socket"],
        ..Row::PLAIN
    },
    Row {
        name: "proxy outside, over a unix socket",
        outside: "$ODD/serve-work proxy",
        traced: "$ODD/hand-work proxy '$ODD/dial 127.0.0.1 443 1 0 0'",
        shown: &["to a process outside over proxy, by hand-work"],
        beyond_opens: Some((-1, "the proxy's own connection is not the tree's")),
        claim: Ruling::Inconclusive,
        ..Row::PLAIN
    },
    Row {
        name: "connection that comes in",
        traced: "$ODD/accept-one 127.0.0.1 4000 & \
                 while [ ! -e listening ]; do sleep 0.01; done; $ODD/dial 127.0.0.1 4000 1 0 0; wait",
        shown: &["TCP 127.0.0.1:4000 established, by dial"],
        not_covered: &[("connect", "those accepted")],
        ..Row::PLAIN
    },
    Row {
        name: "socket taken to another network namespace (setns)",
        traced: "$ODD/dial-setns 127.0.0.1 443",
        shown: &["TCP 127.0.0.1:443 established, by dial-setns"],
        ..Row::PLAIN
    },
];
