//! Bytes sent over unix sockets to processes outside the tree.
//!
//! Whoever wants another process to do something has to send it something. So a connection is looked
//! at when it sends: in the sender's own task, on whatever way it got the socket.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_probe_read_kernel,
    macros::{fexit, raw_tracepoint},
    programs::{FExitContext, RawTracePointContext},
};
use tracer_ebpf::abi::{Kind, LocalSend, SOCKET_NAME_BYTES};

use crate::kernel::{
    emit, ended,
    field::{self, KernelPtr},
    outside::{self, Contact},
    regs::Regs,
    scratch,
    task::{Task, pid_number},
    tree,
};

const AF_UNIX: u16 = 1;
const SOCK_DGRAM: u16 = 2;
/// Where the name begins in `struct sockaddr_un`: behind the family.
const NAME_OFFSET: u64 = 2;
/// Tells contacts with a process that is gone from those with another one of its number, and those with whomever.
/// Above the name's length, and below the peer's user.
const REAPED: u64 = 1 << 16;
const ANY_PEER: u64 = 1 << 17;
const UID_SHIFT: u32 = 32;

/// `sock_send_length(sk, ret, flags)`.
#[raw_tracepoint(tracepoint = "sock_send_length")]
fn local_send(ctx: RawTracePointContext) -> i32 {
    on_send(&ctx, KernelPtr(ctx.arg(0)), ctx.arg::<i32>(1))
}

/// `unix_stream_sendmsg(sock, msg, len)`.
#[fexit(function = "unix_stream_sendmsg")]
fn local_send_stream(ctx: FExitContext) -> i32 {
    on_sendmsg(&ctx, KernelPtr(ctx.arg(0)), ctx.arg::<i32>(3))
}

/// `unix_stream_sendpage(sock, page, offset, size, flags)`, which sendfile and splice end in before
/// 6.5. Packets have no such way of their own: there it ends in `unix_dgram_sendmsg`.
#[fexit(function = "unix_stream_sendpage")]
fn local_send_page(ctx: FExitContext) -> i32 {
    on_sendmsg(&ctx, KernelPtr(ctx.arg(0)), ctx.arg::<i32>(5))
}

/// `unix_dgram_sendmsg(sock, msg, len)`, for datagrams and sequenced packets.
#[fexit(function = "unix_dgram_sendmsg")]
fn local_send_packet(ctx: FExitContext) -> i32 {
    on_sendmsg(&ctx, KernelPtr(ctx.arg(0)), ctx.arg::<i32>(3))
}

#[inline(always)]
fn on_sendmsg(ctx: &impl EbpfContext, socket: KernelPtr, sent: i32) -> i32 {
    match socket.follow(&field::SOCKET_SOCK) {
        Some(sock) => on_send(ctx, sock, sent),
        None => 0,
    }
}

#[inline(always)]
fn on_send(ctx: &impl EbpfContext, sock: KernelPtr, sent: i32) -> i32 {
    if !outside::was_sent(sock, sent) {
        return 0;
    }
    let Some(process) = tree::current(ctx) else { return 0 };
    if sock.read::<u16>(&field::SOCK_FAMILY) != Some(AF_UNIX) {
        return 0;
    }
    // Who listened, or made the pair. For datagrams a socket can be connected elsewhere afterwards, and still has its
    // pair's maker: what the other end has is that end's own.
    let is_datagram = sock.read::<u16>(&field::SOCK_TYPE) == Some(SOCK_DGRAM);
    // Null where there is none: verifiers refuse an `Option` of it, whose value they see read where it is not set.
    let other = sock.follow(&field::UNIX_PEER).unwrap_or(KernelPtr(0));
    let peer = if is_datagram { other } else { sock }.follow(&field::SOCK_PEER_PID);
    let peer_tgid = peer.and_then(pid_number).unwrap_or(0);
    let is_in_tree = tree::find(peer_tgid).is_some();
    // Once it is reaped, its number may be another process's. Asked after the look-up, so that the number
    // was still its own then.
    let is_reaped = peer.is_some_and(|peer| Task::of_pid(peer).is_none());
    // A message can go to another address than the one that its socket is connected to, and nothing tells whose.
    let is_any_peer = is_datagram && !Regs::current().gives_no_address();
    if !is_any_peer && (is_in_tree && !is_reaped || peer.is_some_and(ended::has)) {
        return 0;
    }
    let inode = socket_inode(sock).unwrap_or(0);
    let (tgid, name) = (process.tgid, [0; SOCKET_NAME_BYTES]);
    let mut contact = Contact { tgid, peer: peer_tgid, what: 0, inode, name };
    read_peer_name(&mut contact, other);
    let name_len = contact.what as u32;
    if is_reaped {
        contact.what |= REAPED;
    }
    if is_any_peer {
        contact.what |= ANY_PEER;
    }
    // Of a connection nobody has accepted, the other end is nobody's yet.
    let uid = if is_datagram {
        other.read::<u32>(&field::SOCK_UID).unwrap_or(u32::MAX)
    } else {
        let cred = sock.follow(&field::SOCK_PEER_CRED).unwrap_or(KernelPtr(0));
        cred.read::<u32>(&field::CRED_EUID).unwrap_or(u32::MAX)
    };
    contact.what |= u64::from(uid) << UID_SHIFT;
    if !outside::is_new(&process, &contact) {
        return 0;
    }
    emit::record_with(Kind::LocalSend, |slot: *mut LocalSend| {
        // SAFETY: the ring handed out room for one LocalSend, aligned to eight bytes; each field is
        // written here.
        let send = unsafe { &mut *slot };
        send.header = Default::default();
        process.fill_header(&mut send.header, Kind::LocalSend);
        send.socket_inode = contact.inode;
        send.peer_tgid = contact.peer;
        send.peer_name_len = name_len;
        // Copied by the helper: LLVM would load all of it first, for which the stack has no room.
        let (from, to) = (contact.name.as_ptr(), send.peer_name.as_mut_ptr());
        // SAFETY: both have SOCKET_NAME_BYTES bytes.
        unsafe { bpf_probe_read_kernel(to.cast(), SOCKET_NAME_BYTES as u32, from.cast()) };
        send.peer_reaped = is_reaped.into();
        send.peer_uid = uid;
        send.any_peer = is_any_peer.into();
        send.padding = 0;
    });
    0
}

#[inline(always)]
fn read_peer_name(contact: &mut Contact, peer: KernelPtr) -> Option<()> {
    let address = peer.follow(&field::UNIX_ADDRESS)?;
    let len = u64::from(address.read::<u32>(&field::UNIX_ADDRESS_LEN)?).wrapping_sub(NAME_OFFSET);
    if !scratch::in_bounds(len, 1, SOCKET_NAME_BYTES as u64) {
        return None;
    }
    // LLVM may keep the number on the stack from before the check, and the verifier of 6.1 does not see that it is the same.
    let len = len & (SOCKET_NAME_BYTES.next_power_of_two() as u64 - 1);
    let name = address.at(&field::UNIX_ADDRESS_NAME)?.0 + NAME_OFFSET;
    let room = contact.name.as_mut_ptr();
    // SAFETY: `room` has SOCKET_NAME_BYTES bytes and `len` is no more; the helper checks the source.
    if unsafe { bpf_probe_read_kernel(room.cast(), len as u32, name as *const _) } == 0 {
        contact.what = len;
    }
    Some(())
}

#[inline(always)]
fn socket_inode(sock: KernelPtr) -> Option<u64> {
    let file = sock.follow(&field::SOCK_SOCKET)?.follow(&field::SOCKET_FILE)?;
    file.follow(&field::FILE_INODE)?.read(&field::INODE_NUMBER)
}
