//! Sockets whose traffic is not followed: everything but TCP, UDP (without UDP-Lite), unix sockets and those of netlink
//! to the kernel; and those of Multipath TCP, which the kernel connects to further addresses that the other side names.

use aya_ebpf::{
    macros::{cgroup_sock, fexit, map, raw_tracepoint},
    maps::HashMap,
    programs::{FExitContext, RawTracePointContext, SockContext},
};
use tracer_ebpf::abi::{AF_INET, AF_INET6, Kind, OddSocket, SOCK_RAW};

use crate::kernel::{
    emit,
    field::{self, KernelPtr},
    flow,
    tree::{self, Tracked},
};

const AF_UNIX: u16 = 1;
const AF_NETLINK: u16 = 16;
/// The one of netlink's that is for processes among themselves.
const NETLINK_USERSOCK: u16 = 2;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;

/// What was already said of a process.
#[derive(Clone, Copy)]
#[repr(C)]
struct Said {
    start_ns: u64,
    tgid: u32,
    family: u16,
    socket_type: u16,
    protocol: u16,
    padding: [u16; 3],
}

/// When it is full, everything is new: better said twice than never.
#[map]
static ODD_SOCKETS: HashMap<Said, u32> = HashMap::with_max_entries(8_192, 0);

/// A socket of the internet protocols is made, in the command's cgroup.
#[cgroup_sock(sock_create)]
fn inet_socket(ctx: SockContext) -> i32 {
    const ALLOW: i32 = 1;
    let Some(process) = tree::current(&ctx) else { return ALLOW };
    // SAFETY: the kernel hands the programs of this hook such a context.
    let sock = unsafe { &*ctx.sock };
    let family = flow::whole(&sock.family);
    let (socket_type, protocol) = (flow::whole(&sock.type_), flow::whole(&sock.protocol));
    on_socket(&process, family as u16, socket_type as u16, protocol as u16);
    ALLOW
}

/// `__sock_create(net, family, type, protocol, result, kern)`.
#[fexit(function = "__sock_create")]
fn other_socket(ctx: FExitContext) -> i32 {
    const TYPE_MASK: u16 = 0xf;
    let (kern, failed): (i32, i32) = (ctx.arg(5), ctx.arg(6));
    let (family, socket_type, protocol): (u32, u32, u32) = (ctx.arg(1), ctx.arg(2), ctx.arg(3));
    if kern != 0 || failed != 0 || is_inet(family as u16) {
        return 0;
    }
    let Some(process) = tree::current(&ctx) else { return 0 };
    on_socket(&process, family as u16, socket_type as u16 & TYPE_MASK, protocol as u16);
    0
}

/// `sock_send_length(sk, ret, flags)`: such a socket is used.
#[raw_tracepoint(tracepoint = "sock_send_length")]
fn other_socket_send(ctx: RawTracePointContext) -> i32 {
    let Some(process) = tree::current(&ctx) else { return 0 };
    on_send(&process, KernelPtr(ctx.arg(0)));
    0
}

#[inline(always)]
fn on_send(process: &Tracked, sock: KernelPtr) -> Option<()> {
    let family: u16 = sock.read(&field::SOCK_FAMILY)?;
    if is_inet(family) {
        return None;
    }
    let (socket_type, protocol) =
        (sock.read(&field::SOCK_TYPE)?, sock.read(&field::SOCK_PROTOCOL)?);
    on_socket(process, family, socket_type, protocol);
    Some(())
}

#[inline(always)]
fn is_inet(family: u16) -> bool {
    family == AF_INET || family == AF_INET6
}

#[inline(always)]
fn on_socket(process: &Tracked, family: u16, socket_type: u16, protocol: u16) {
    let followed = match family {
        AF_UNIX => true,
        AF_NETLINK => protocol != NETLINK_USERSOCK,
        AF_INET | AF_INET6 => {
            // Of UDP-Lite the kernel shows no hook where a socket is connected.
            socket_type != SOCK_RAW && matches!(protocol, IPPROTO_TCP | IPPROTO_UDP)
        }
        _ => false,
    };
    if followed {
        return;
    }
    let said = Said {
        start_ns: process.member.start_ns,
        tgid: process.tgid,
        family,
        socket_type,
        protocol,
        padding: [0; 3],
    };
    if ODD_SOCKETS.get_ptr(said).is_some() {
        return;
    }
    let _ = ODD_SOCKETS.insert(said, 1u32, 0);
    emit::record(Kind::OddSocket, |socket: &mut OddSocket| {
        process.fill_header(&mut socket.header, Kind::OddSocket);
        socket.family = family;
        socket.socket_type = socket_type;
        socket.protocol = protocol;
    });
}
