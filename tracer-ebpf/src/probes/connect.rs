//! `inet_sock_set_state(sk, oldstate, newstate)`: TCP connections a tracked process opens.
//!
//! `CLOSE -> SYN_SENT` happens in the connecting task (blocking or not, Fast Open, io_uring, 32-bit
//! callers), so that is where a connection gets its owner. Later transitions may run in softirq
//! context on any CPU: they are joined by the address of the sock and never ask who is current.

use aya_ebpf::{
    macros::{map, raw_tracepoint},
    maps::HashMap,
    programs::RawTracePointContext,
};
use tracer_ebpf::abi::{
    AF_INET, AF_INET6, Close, Connect, ConnectResult, Fault, Header, Kind, SocketAddress, route,
    unread,
};

use crate::kernel::{
    emit,
    field::{self, KernelPtr},
    tree::{self, Member},
};

const TCP_SYN_SENT: u32 = 2;
const TCP_CLOSE: u32 = 7;
const IPPROTO_TCP: u16 = 6;
/// Number of a bit of `sk_flags` (include/net/sock.h).
const SOCK_DONE: u32 = 1;

/// A connection in progress, by the address of its sock: unique while the sock lives, and the
/// entry goes when the sock reaches CLOSE. Where the kernel told nobody of that, it stays until another
/// socket at that address connects or closes, see [`Opened::is_of_another`].
#[map]
static SOCKETS: HashMap<u64, Opened> = HashMap::with_max_entries(65_536, 0);

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Opened {
    pub(super) id: u64,
    pub(super) owner: Member,
    pub(super) tgid: u32,
    pub(super) tid: u32,
    /// Of the other end, in network byte order.
    destination_port: u16,
    /// Of this end, once there was a result; zero before.
    source_port: u16,
    /// What was sent and what was received, as far as packets show it.
    pub(super) streams: [Stream; 2],
    /// Whether what is sent begins as a request of HTTP without TLS does.
    pub(super) plain: u32,
    /// Not zero once the result was told.
    told: u32,
}

/// One direction of a connection.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Stream {
    /// Sequence number of its first byte.
    pub(super) start: u32,
    pub(super) state: u32,
}

/// Of [`Stream`]: where it starts is known; its beginning is over.
pub(super) const STARTED: u32 = 1;
pub(super) const PASSED: u32 = 2;

/// Of [`Opened::plain`]: nothing was sent yet; it does; it does not.
pub(super) const UNDECIDED: u32 = 0;
pub(super) const PLAIN: u32 = 1;
pub(super) const NOT_PLAIN: u32 = 2;

/// What was last opened by a tracked process at a sock's address. Packets of one connection are handled
/// one after the other but for rare races, which at worst show a piece twice.
#[inline(always)]
pub(super) fn last_at(sock: u64) -> Option<&'static mut Opened> {
    let opened = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: the value of a map; an entry that goes meanwhile stays readable, and what is written to
    // one that is reused can only make a piece of a stream look like it was elsewhere.
    Some(unsafe { &mut *opened })
}

/// The connection of a sock that a tracked process opened.
#[inline(always)]
pub(super) fn of_sock(sock: KernelPtr) -> Option<&'static mut Opened> {
    last_at(sock.0).filter(|opened| !opened.is_of_another(sock))
}

/// Who connected where, and what became of it.
///
/// The kernel skips a program that is already running on the CPU, and a softirq can interrupt either
/// of these two. A softirq begins no connection, so none is missed; and what becomes of one is told
/// by the first of the two that runs, because only one of them can be the one that is interrupted.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn connect(ctx: RawTracePointContext) -> i32 {
    let (old, new): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    if old == TCP_CLOSE && new == TCP_SYN_SENT {
        on_connect(&ctx, KernelPtr(ctx.arg(0)));
    } else {
        on_transition(KernelPtr(ctx.arg(0)), old, new);
    }
    0
}

/// What became of it, in case that [`connect`] was skipped.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn sock_state(ctx: RawTracePointContext) -> i32 {
    on_transition(KernelPtr(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn on_transition(sock: KernelPtr, old: u32, new: u32) {
    if old == TCP_SYN_SENT {
        on_result(sock, new);
    } else if new == TCP_CLOSE && old != TCP_CLOSE {
        on_close(sock);
    }
}

#[inline(always)]
fn on_connect(ctx: &RawTracePointContext, sock: KernelPtr) {
    let Some(process) = tree::current(ctx) else { return };
    // An MPTCP socket changes state together with its first TCP subflow, and only the subflow has
    // the real address. A failed read counts as TCP: better one row too many.
    if sock.read::<u16>(&field::SOCK_PROTOCOL).is_some_and(|protocol| protocol != IPPROTO_TCP) {
        return;
    }
    let id = emit::connection_id();
    let opened = Opened {
        id,
        owner: process.member,
        tgid: process.tgid,
        tid: process.tid,
        destination_port: sock.read(&field::SOCK_DPORT).unwrap_or(0),
        source_port: 0,
        streams: Default::default(),
        plain: UNDECIDED,
        told: 0,
    };
    if SOCKETS.insert(sock.0, opened, 0).is_err() {
        emit::fault(Fault::SocketInsert);
    }
    emit::record(Kind::Connect, |connect: &mut Connect| {
        process.fill_header(&mut connect.header, Kind::Connect);
        connect.id = id;
        match sock.read(&field::SOCK_COOKIE) {
            Some(cookie) => connect.cookie = cookie,
            None => connect.header.unread |= unread::COOKIE,
        }
        if fill_address(&mut connect.address, sock).is_none() {
            connect.header.unread |= unread::ADDRESS;
        }
    });
}

impl Opened {
    /// Whether another sock is at its address now.
    ///
    /// A kernel may have tasks of which tracepoints tell nothing, and then they tell nothing either of
    /// what a softirq handles while one of these is on the CPU: an entry can be of a connection that ended
    /// unseen. Another sock has other ports. The kernel takes a sock's own port from it before it tells of
    /// its end.
    #[inline(always)]
    fn is_of_another(&self, sock: KernelPtr) -> bool {
        let differs =
            |field, port| sock.read::<u16>(field).is_some_and(|its| its != 0 && its != port);
        differs(&field::SOCK_DPORT, self.destination_port)
            || self.source_port != 0 && differs(&field::SOCK_SPORT, self.source_port)
    }

    #[inline(always)]
    fn fill_header(&self, header: &mut Header, kind: Kind) {
        emit::fill_header(header, kind, self.tgid, self.tid, &self.owner);
    }
}

#[inline(always)]
fn on_result(sock: KernelPtr, new: u32) {
    let Some(entry) = last_at(sock.0) else { return };
    // The second of the two programs asks no more than that.
    if entry.told != 0 || entry.is_of_another(sock) {
        return;
    }
    let opened = *entry;
    // The kernel holds the sock's lock, so nothing else tells of it meanwhile.
    entry.told = 1;
    entry.source_port = sock.read(&field::SOCK_SPORT).unwrap_or(0);
    if new == TCP_CLOSE {
        // Nobody else removes the entry of a live sock: the result cannot matter.
        let _ = SOCKETS.remove(sock.0);
    }
    emit::record(Kind::ConnectResult, |result: &mut ConnectResult| {
        opened.fill_header(&mut result.header, Kind::ConnectResult);
        result.id = opened.id;
        // SYN_RECV is a simultaneous open, which can still complete; every other state but CLOSE
        // follows a completed handshake.
        result.established = u32::from(new != TCP_CLOSE);
        if fill_address(&mut result.address, sock).is_none() {
            result.header.unread |= unread::ADDRESS;
        }
        let _ = fill_route(&mut result.address, sock);
        if new == TCP_CLOSE {
            let sent = sock.read::<u32>(&field::TCP_SEGMENTS_SENT);
            result.unsent = u32::from(sent == Some(0));
            // With Fast Open the first packet brings data, and the other end may have taken it although no
            // answer came back.
            let is_silent = sock.read::<u64>(&field::TCP_BYTES_SENT) == Some(0);
            match sock.read::<u32>(&field::SOCK_ERROR).filter(|_| is_silent) {
                Some(error) => result.error = error,
                None => result.header.unread |= unread::STATUS,
            }
        }
    });
}

#[inline(always)]
fn on_close(sock: KernelPtr) {
    let opened = of_sock(sock).copied();
    // Also an entry that is of another one.
    let _ = SOCKETS.remove(sock.0);
    let Some(opened) = opened else { return };
    emit::record(Kind::Close, |close: &mut Close| {
        opened.fill_header(&mut close.header, Kind::Close);
        close.id = opened.id;
        if fill_bytes(close, sock).is_none() {
            close.header.unread |= unread::BYTES;
        }
    });
}

#[inline(always)]
fn fill_bytes(close: &mut Close, sock: KernelPtr) -> Option<()> {
    let sent: u64 = sock.read(&field::TCP_BYTES_SENT)?;
    let again: u64 = sock.read(&field::TCP_BYTES_RETRANSMITTED)?;
    close.sent_bytes = sent.saturating_sub(again);
    let received: u64 = sock.read(&field::TCP_BYTES_RECEIVED)?;
    // The kernel adds up sequence numbers, and the other side's FIN takes one, so what was received
    // in full is one too many. tcp_fin (net/ipv4/tcp_input.c) sets SOCK_DONE for every such FIN.
    let fin = sock.read::<u64>(&field::SOCK_FLAGS)? >> SOCK_DONE & 1;
    close.received_bytes = received.saturating_sub(fin);
    Some(())
}

#[inline(always)]
pub(super) fn fill_address(address: &mut SocketAddress, sock: KernelPtr) -> Option<()> {
    address.source_port = sock.read(&field::SOCK_SPORT)?;
    address.destination_port = sock.read::<u16>(&field::SOCK_DPORT)?.swap_bytes();
    address.net_ns_inum = sock.follow(&field::SOCK_NET)?.read(&field::NET_INUM)?;
    address.family = sock.read(&field::SOCK_FAMILY)?;
    match address.family {
        AF_INET => {
            let source: u32 = sock.read(&field::SOCK_V4_SOURCE)?;
            let destination: u32 = sock.read(&field::SOCK_V4_DESTINATION)?;
            address.source = words([source, 0, 0, 0]);
            address.destination = words([destination, 0, 0, 0]);
        }
        AF_INET6 => {
            address.source = words(sock.read(&field::SOCK_V6_SOURCE)?);
            address.destination = words(sock.read(&field::SOCK_V6_DESTINATION)?);
        }
        _ => return None,
    }
    Some(())
}

/// Where the route of a sock leads, that has one: after `SYN_SENT`.
#[inline(always)]
pub(super) fn fill_route(address: &mut SocketAddress, sock: KernelPtr) -> Option<()> {
    // RTCF_LOCAL (include/uapi/linux/in_route.h) and RTF_LOCAL (include/uapi/linux/ipv6_route.h).
    const LOCAL: u32 = 1 << 31;
    let route = sock.follow(&field::SOCK_ROUTE)?;
    // A socket for IPv6 has a route for IPv4 if it goes to an address of that.
    let family: u16 = route.follow(&field::ROUTE_OPERATIONS)?.read(&field::ROUTE_FAMILY)?;
    let flags: u32 = match family {
        AF_INET => route.read(&field::ROUTE_V4_FLAGS)?,
        AF_INET6 => route.read(&field::ROUTE_V6_FLAGS)?,
        _ => return None,
    };
    address.route = if flags & LOCAL != 0 { route::LOCAL } else { route::ELSEWHERE };
    Some(())
}

/// Bytes of an address as they lie in memory. Read in words: the structs hold it as `__be32`.
#[inline(always)]
fn words(words: [u32; 4]) -> [u8; 16] {
    zerocopy::transmute!(words)
}
