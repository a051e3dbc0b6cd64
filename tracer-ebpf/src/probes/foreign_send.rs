//! Bytes sent over sockets of the internet that were made outside the command's cgroup: inherited,
//! received from another process, or made by a process that had left it.
//!
//! The programs of the cgroup do not see such sockets, so they are looked at when they send: in the
//! sender's own task, on whatever way it got the socket.

use aya_ebpf::{
    EbpfContext,
    macros::{fexit, raw_tracepoint},
    programs::{FExitContext, RawTracePointContext},
};
use tracer_ebpf::abi::{
    AF_INET, AF_INET6, ForeignSend, Kind, SOCKET_NAME_BYTES, SocketAddress, unread,
};

use super::connect;
use crate::kernel::{
    cgroup::{self, Cgroup},
    emit,
    field::{self, KernelPtr},
    outside::{self, Contact},
    tree,
};

/// `sock_send_length(sk, ret, flags)`.
#[raw_tracepoint(tracepoint = "sock_send_length")]
fn foreign_send(ctx: RawTracePointContext) -> i32 {
    on_send(&ctx, KernelPtr(ctx.arg(0)), ctx.arg::<i32>(1));
    0
}

/// `inet_sendmsg(sock, msg, size)`.
#[fexit(function = "inet_sendmsg")]
fn foreign_send_v4(ctx: FExitContext) -> i32 {
    on_sendmsg(&ctx, ctx.arg::<i32>(3))
}

/// `inet6_sendmsg(sock, msg, size)`.
#[fexit(function = "inet6_sendmsg")]
fn foreign_send_v6(ctx: FExitContext) -> i32 {
    on_sendmsg(&ctx, ctx.arg::<i32>(3))
}

/// `inet_sendpage(sock, page, offset, size, flags)`, which sendfile ends in before 6.5.
#[fexit(function = "inet_sendpage")]
fn foreign_send_page(ctx: FExitContext) -> i32 {
    on_sendmsg(&ctx, ctx.arg::<i32>(5))
}

#[inline(always)]
fn on_sendmsg(ctx: &FExitContext, sent: i32) -> i32 {
    if let Some(sock) = KernelPtr(ctx.arg(0)).follow(&field::SOCKET_SOCK) {
        on_send(ctx, sock, sent);
    }
    0
}

#[inline(always)]
fn on_send(ctx: &impl EbpfContext, sock: KernelPtr, sent: i32) -> Option<()> {
    if !outside::was_sent(sock, sent) {
        return None;
    }
    let process = tree::current(ctx)?;
    if !matches!(sock.read(&field::SOCK_FAMILY), Some(AF_INET | AF_INET6))
        || !cgroup::is_there()
        || sock.follow(&field::SOCK_CGROUP).is_some_and(|of| !Cgroup(of).is_outside())
        // The tree opened it itself, which is recorded.
        || connect::of_sock(sock).is_some()
    {
        return None;
    }
    let mut address = SocketAddress::default();
    let is_read = connect::fill_address(&mut address, sock).is_some();
    let mut contact = Contact {
        tgid: process.tgid,
        peer: 0,
        what: sock.0,
        inode: 0,
        name: [0; SOCKET_NAME_BYTES],
    };
    let _ = connect::fill_route(&mut address, sock);
    // The address of a sock is used again, and a socket can be connected to somebody else.
    contact.name[..16].copy_from_slice(&address.destination);
    contact.name[16..18].copy_from_slice(&address.destination_port.to_ne_bytes());
    if !outside::is_new(&process, &contact) {
        return None;
    }
    emit::record(Kind::ForeignSend, |send: &mut ForeignSend| {
        process.fill_header(&mut send.header, Kind::ForeignSend);
        send.address = address;
        if !is_read {
            send.header.unread |= unread::ADDRESS;
        }
        send.protocol = sock.read(&field::SOCK_PROTOCOL).unwrap_or(0);
        send.socket_type = sock.read(&field::SOCK_TYPE).unwrap_or(0);
    });
    Some(())
}
