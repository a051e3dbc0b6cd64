//! `connect4`, `connect6`, `sendmsg4`, `sendmsg6` of the command's cgroup: a socket gets a
//! destination.
//!
//! In the task that asks for it, io_uring included. Asking for the socket's cookie gives it one, so
//! a TCP connection has its cookie from here on.

use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use tracer_ebpf::abi::{Datagram, Fault, Flow, Kind, Via, unread};

use crate::kernel::{
    emit,
    field::{self, KernelPtr},
    flow::{self, Added},
    tree,
};

const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;
/// What all of these programs return: go on.
const ALLOW: i32 = 1;

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    on_address(&ctx, v4(&ctx), || source_of_sock(&ctx), Via::Connect)
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    on_address(&ctx, v6(&ctx), || source_of_sock(&ctx), Via::Connect)
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    // That of the socket, or another one for this message (IP_PKTINFO).
    on_address(&ctx, v4(&ctx), || flow::whole(&fields(&ctx).msg_src_ip4), Via::Send)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    // What goes to an IPv4 address comes to the other hook.
    on_address(&ctx, v6(&ctx), || 0, Via::Send)
}

#[inline(always)]
fn fields(ctx: &SockAddrContext) -> &bpf_sock_addr {
    // SAFETY: the kernel hands the programs of these hooks such a context.
    unsafe { &*ctx.sock_addr }
}

/// The hooks for IPv4 give this field only.
#[inline(always)]
fn v4(ctx: &SockAddrContext) -> [u32; 4] {
    flow::mapped(flow::whole(&fields(ctx).user_ip4))
}

/// The hooks for IPv6 give this field only.
#[inline(always)]
fn v6(ctx: &SockAddrContext) -> [u32; 4] {
    let word = |at: usize| flow::whole(&fields(ctx).user_ip6[at]);
    [word(0), word(1), word(2), word(3)]
}

#[inline(always)]
fn sock(ctx: &SockAddrContext) -> Option<KernelPtr> {
    // SAFETY: the other fields of the union are its bits.
    flow::address_of(flow::whole(unsafe { &fields(ctx).__bindgen_anon_1.sk }))
}

/// The IPv4 address that a socket sends from, zero if it has none.
#[inline(always)]
fn source_of_sock(ctx: &SockAddrContext) -> u32 {
    sock(ctx).and_then(|sock| sock.read(&field::INET_SOURCE)).unwrap_or(0)
}

/// Where the kernel sends to when asked for the unspecified address: to where the socket sends from, else to
/// loopback (`ip_route_output_key`). With IPv6 always to loopback, which is IPv4's where the socket is bound to
/// an IPv4 address (`ip6_datagram_connect`; for a message the kernel replaces it before the hook). A device that the
/// socket is bound to has an address too, which is not looked for here: its packets show that they go elsewhere.
#[inline(always)]
fn instead_of_unspecified(
    ctx: &SockAddrContext,
    address: [u32; 4],
    source: impl FnOnce() -> u32,
) -> [u32; 4] {
    const LOOPBACK: u32 = u32::from_be_bytes([127, 0, 0, 1]).to_be();
    if flow::is_mapped(&address) {
        let source = source();
        return flow::mapped(if source == 0 { LOOPBACK } else { source });
    }
    let bound = sock(ctx).and_then(|sock| sock.read::<[u32; 4]>(&field::SOCK_V6_SOURCE));
    if bound.is_some_and(|bound| flow::is_mapped(&bound)) {
        flow::mapped(LOOPBACK)
    } else {
        [0, 0, 0, 1_u32.to_be()]
    }
}

#[inline(always)]
fn on_address(
    ctx: &SockAddrContext,
    address: [u32; 4],
    source: impl FnOnce() -> u32,
    via: Via,
) -> i32 {
    let Some(process) = tree::current(ctx) else { return ALLOW };
    let protocol = flow::whole(&fields(ctx).protocol) as u16;
    let port = flow::whole(&fields(ctx).user_port) as u16;
    let cookie = flow::cookie(ctx);
    if protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP {
        return ALLOW;
    }
    let unspecified = flow::is_unspecified(&address);
    // A message without an address, over a socket that is connected: the kernel asks about it where control
    // data comes with it. What is said to have no port it refuses to send.
    if matches!(via, Via::Send) && unspecified && port == 0 {
        return ALLOW;
    }
    let address = if unspecified { instead_of_unspecified(ctx, address, source) } else { address };
    let flow = Flow {
        cookie,
        address: zerocopy::transmute!(address),
        port: u16::from_be(port),
        protocol,
        padding: 0,
    };
    match flow::add(&flow, unspecified, &process) {
        Added::New => {}
        Added::Known => return ALLOW,
        Added::NoRoom => {
            emit::fault(Fault::FlowInsert);
            return ALLOW;
        }
    }
    let sock = sock(ctx);
    emit::record(Kind::Datagram, |datagram: &mut Datagram| {
        process.fill_header(&mut datagram.header, Kind::Datagram);
        datagram.flow = flow;
        datagram.via = via as u32;
        datagram.unspecified = u32::from(unspecified);
        let net = sock.and_then(|sock| sock.follow(&field::SOCK_NET));
        match net.and_then(|net| net.read(&field::NET_INUM)) {
            Some(inum) => datagram.net_ns_inum = inum,
            None => datagram.header.unread |= unread::NETWORK,
        }
    });
    ALLOW
}
