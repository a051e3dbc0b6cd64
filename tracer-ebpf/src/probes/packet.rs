//! Packets of sockets of the command's cgroup.
//!
//! They pass in whatever context the network stack runs in, so nobody asks here who is current: what
//! a packet belongs to is found by its socket.

use aya_ebpf::{
    bindings::__sk_buff,
    cty::c_void,
    helpers::generated::{bpf_loop, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::{SkBuffContext, sk_buff::SkBuff},
};
use tracer_ebpf::abi::{
    DNS_STREAM_BYTES, Fault, Flow, Kind, PAYLOAD_BYTES, PAYLOAD_SMALL_BYTES, Payload,
    QUIC_INITIALS_MAX,
};

use super::{
    connect::{NOT_PLAIN, PASSED, PLAIN, STARTED, UNDECIDED},
    tls,
};
use crate::kernel::{emit, flow, scratch, tree::Member};

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_UDP_LITE: u8 = 136;
/// Headers that can come between that of IPv6 and the transport's, with a routing header behind them.
const IPV6_HOP_BY_HOP: u8 = 0;
const IPV6_ROUTING: u8 = 43;
const IPV6_FRAGMENT: u8 = 44;
const IPV6_DESTINATION: u8 = 60;
/// The header of IPv4 without options.
const IPV4_BYTES: u32 = 20;
const UDP_HEADER_BYTES: u32 = 8;
const TCP_SYN: u8 = 2;
const DNS_PORT: u16 = 53;
/// How much of the beginning of a stream is taken: several times a ClientHello with post-quantum
/// keys, or the head of a request.
const OPENING_BYTES: u32 = 8 * 1024;
/// The same, each way, of HTTP without TLS where calls are read.
const PLAIN_BYTES: u32 = 64 * 1024;
/// Behind the beginning of a stream, how far until no part of it is expected any more.
const RETRANSMISSION_BYTES: u32 = 4 * 1024 * 1024;
/// What both programs return: let it pass.
const PASS: i32 = 1;

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Out,
    In,
}

#[cgroup_skb(egress)]
fn packet_out(ctx: SkBuffContext) -> i32 {
    on_packet(&ctx, Direction::Out);
    PASS
}

#[cgroup_skb(ingress)]
fn packet_in(ctx: SkBuffContext) -> i32 {
    on_packet(&ctx, Direction::In);
    PASS
}

/// The network layer's header.
struct Network {
    /// The other end.
    remote: [u32; 4],
    /// Where the transport layer's header begins.
    bytes: u32,
    protocol: u8,
    /// Whether it may have a route of its own: the address in the header is that of the next hop only.
    may_be_routed: bool,
}

impl Network {
    #[inline(always)]
    fn of(skb: &SkBuff, direction: Direction) -> Option<Network> {
        let first: u8 = skb.load(0).ok()?;
        match first >> 4 {
            4 => {
                let header: [u32; 5] = skb.load(0).ok()?;
                let at = if direction == Direction::Out { 4 } else { 3 };
                let protocol = header[2].to_ne_bytes()[1];
                let bytes = u32::from(first & 0xf) * 4;
                let may_be_routed = bytes > IPV4_BYTES;
                Some(Network { remote: flow::mapped(header[at]), bytes, protocol, may_be_routed })
            }
            6 => {
                let start = if direction == Direction::Out { 24 } else { 8 };
                let remote: [u32; 4] = skb.load(start).ok()?;
                let protocol: u8 = skb.load(6).ok()?;
                let may_be_routed = matches!(
                    protocol,
                    IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_FRAGMENT | IPV6_DESTINATION
                );
                Some(Network { remote, bytes: 40, protocol, may_be_routed })
            }
            _ => None,
        }
    }
}

#[inline(always)]
fn on_packet(ctx: &SkBuffContext, direction: Direction) -> Option<()> {
    let network = Network::of(&ctx.skb, direction)?;
    if direction == Direction::Out && network.may_be_routed {
        emit::fault(Fault::PacketRoute);
    }
    if direction == Direction::Out
        && !matches!(network.protocol, IPPROTO_TCP | IPPROTO_UDP | IPPROTO_UDP_LITE)
    {
        // A datagram in IPsec, or behind further headers of IPv6, also comes here.
        flow::elsewhere(flow::cookie(ctx), 1);
        return None;
    }
    let ports: [u16; 2] = ctx.skb.load(network.bytes as usize).ok()?;
    let port = u16::from_be(if direction == Direction::Out { ports[1] } else { ports[0] });
    match network.protocol {
        IPPROTO_TCP => on_segment(ctx, &network, port, direction),
        IPPROTO_UDP | IPPROTO_UDP_LITE => on_datagram(ctx, &network, port, direction),
        _ => None,
    }
}

impl Network {
    #[inline(always)]
    fn flow(&self, ctx: &SkBuffContext, port: u16) -> Flow {
        Flow {
            cookie: flow::cookie(ctx),
            address: zerocopy::transmute!(self.remote),
            port,
            protocol: self.protocol.into(),
            padding: 0,
        }
    }
}

#[inline(always)]
fn fields(ctx: &SkBuffContext) -> &__sk_buff {
    // SAFETY: the kernel hands these programs such a context.
    unsafe { &*ctx.skb.skb }
}

/// A piece of a connection that a tracked process opened.
#[inline(always)]
fn on_segment(
    ctx: &SkBuffContext,
    network: &Network,
    port: u16,
    direction: Direction,
) -> Option<()> {
    if direction == Direction::In && port != DNS_PORT && !tls::is_watched() {
        return None;
    }
    // SAFETY: the other fields of the union are its bits.
    let sock = flow::whole(unsafe { &fields(ctx).__bindgen_anon_2.sk });
    // Ports are not compared: on their way packets can have got others.
    let opened = super::connect::last_at(sock as u64)?;
    let stream = &mut opened.streams[if direction == Direction::Out { 0 } else { 1 }];
    if stream.state == PASSED {
        return None;
    }
    // struct tcphdr: ports, sequence, acknowledgment, then length (in words), flags and window.
    let header: [u32; 4] = ctx.skb.load(network.bytes as usize).ok()?;
    let mut sequence = u32::from_be(header[1]);
    let [length, flags, ..] = header[3].to_ne_bytes();
    if flags & TCP_SYN != 0 {
        // It takes a sequence number itself, and with Fast Open bytes follow.
        sequence = sequence.wrapping_add(1);
        stream.start = sequence;
        stream.state = STARTED;
    }
    let at = network.bytes + u32::from(length >> 4) * 4;
    let wire_bytes = ctx.skb.len().saturating_sub(at);
    if wire_bytes == 0 || stream.state != STARTED {
        return None;
    }
    let offset = sequence.wrapping_sub(stream.start);
    if tls::is_watched() && direction == Direction::Out && offset == 0 {
        let first: u8 = ctx.skb.load(at as usize).ok()?;
        // A method, which some write small, or an empty line before it. A hello of TLS begins with 22.
        let plain = first.is_ascii_alphabetic() || first == b'\r' || first == b'\n';
        opened.plain = if plain { PLAIN } else { NOT_PLAIN };
    }
    let limit = if port == DNS_PORT {
        DNS_STREAM_BYTES
    } else if opened.plain == PLAIN {
        PLAIN_BYTES
    } else if direction == Direction::Out || opened.plain == UNDECIDED {
        // A server of HTTP/2 may speak before its client does.
        OPENING_BYTES
    } else {
        0
    };
    if offset >= limit {
        if offset >= limit + RETRANSMISSION_BYTES {
            stream.state = PASSED;
        }
        return None;
    }
    let taken = wire_bytes.min(limit - offset);
    let pieces = Pieces {
        skb: ctx.skb.skb,
        owner: opened.owner,
        tgid: opened.tgid,
        tid: opened.tid,
        incoming: u32::from(direction == Direction::In),
        flow: network.flow(ctx, port),
        connection: opened.id,
        offset_bytes: offset.into(),
        at,
        each: PAYLOAD_BYTES as u32,
        taken,
        wire_bytes,
        initials: core::ptr::null_mut(),
    };
    pieces.emit(taken.div_ceil(PAYLOAD_BYTES as u32));
    Some(())
}

#[inline(always)]
fn on_datagram(
    ctx: &SkBuffContext,
    network: &Network,
    port: u16,
    direction: Direction,
) -> Option<()> {
    // Zero for one packet that is sent as it is.
    let segments = flow::whole(&fields(ctx).gso_segs).max(1);
    let mut flow = network.flow(ctx, port);
    let totals = match flow::find(&flow) {
        Some(totals) => totals,
        // What comes in without a flow is somebody's first packet.
        None if direction == Direction::In => return None,
        None => {
            // Behind NAT: it counts as what the program asked for.
            flow = flow::elsewhere(flow.cookie, segments.into())?;
            flow::find(&flow)?
        }
    };
    let port = flow.port;
    let at = network.bytes + UDP_HEADER_BYTES;
    let payload = ctx.skb.len().saturating_sub(at);
    // SAFETY: the value of a map lives as long as the map, and its counters are only added to.
    let totals = unsafe { &mut *totals };
    let (packets, bytes) = match direction {
        Direction::Out => (&raw mut totals.sent_packets, &raw mut totals.sent_bytes),
        Direction::In => (&raw mut totals.received_packets, &raw mut totals.received_bytes),
    };
    emit::add(packets, segments.into());
    emit::add(bytes, payload.into());
    if payload == 0 {
        return None;
    }
    let mut pieces = Pieces {
        skb: ctx.skb.skb,
        owner: Member { start_ns: totals.start_ns, flags: totals.flags, exec_id: 0 },
        tgid: totals.tgid,
        tid: totals.tid,
        incoming: u32::from(direction == Direction::In),
        flow,
        connection: 0,
        offset_bytes: 0,
        at,
        each: payload,
        taken: payload,
        wire_bytes: payload,
        initials: core::ptr::null_mut(),
    };
    // Several datagrams can be sent as one, which the kernel or the device takes apart later.
    if segments > 1 {
        pieces.each = flow::whole(&fields(ctx).gso_size);
    }
    if port == DNS_PORT {
        pieces.emit(segments);
    } else if direction == Direction::Out && totals.initials < QUIC_INITIALS_MAX {
        pieces.initials = &raw mut totals.initials;
        pieces.emit(segments.min(QUIC_INITIALS_MAX - totals.initials));
    }
    Some(())
}

/// A long header of type Initial (RFC 9000, section 17.2; RFC 9369 gave the types other numbers).
#[inline(always)]
fn is_quic_initial(skb: &SkBuff, at: u32) -> bool {
    const VERSION_2: u32 = 0x6b33_43cf;
    let (Ok(first), Ok(version)) =
        (skb.load::<u8>(at as usize), skb.load::<[u8; 4]>(at as usize + 1))
    else {
        return false;
    };
    let version = u32::from_be_bytes(version);
    let initial = if version == VERSION_2 { 1 } else { 0 };
    first & 0xc0 == 0xc0 && version != 0 && first >> 4 & 3 == initial
}

/// Bytes on their way in pieces of one size, and whose they are. Nothing in it changes while they are
/// emitted: what is asked of a piece follows from its number, so the verifier walks one of them.
struct Pieces {
    skb: *mut __sk_buff,
    owner: Member,
    tgid: u32,
    tid: u32,
    incoming: u32,
    flow: Flow,
    connection: u64,
    /// Where the first piece belongs in the stream.
    offset_bytes: u64,
    /// Where the first piece begins in the packet.
    at: u32,
    each: u32,
    /// Bytes of the packet that are taken.
    taken: u32,
    /// Bytes of the packet; the last piece stands for those that are not taken, too.
    wire_bytes: u32,
    /// Unless null, only QUIC Initial packets are taken, and counted here.
    initials: *mut u32,
}

/// A record with room for bytes.
#[repr(C)]
struct Room<const BYTES: usize> {
    payload: Payload,
    bytes: [u8; BYTES],
}

impl Pieces {
    #[inline(always)]
    fn emit(&self, count: u32) {
        let pieces = (&raw const *self).cast_mut().cast();
        // SAFETY: `piece` has the signature bpf_loop calls and reads its context as what it is.
        unsafe { bpf_loop(count, piece as *const () as *mut c_void, pieces, 0) };
    }

    #[inline(always)]
    fn emit_one(&self, done: u32, len: u32) {
        if len <= PAYLOAD_SMALL_BYTES as u32 {
            self.emit_in::<PAYLOAD_SMALL_BYTES>(done, len);
        } else {
            self.emit_in::<PAYLOAD_BYTES>(done, len);
        }
    }

    #[inline(always)]
    fn emit_in<const BYTES: usize>(&self, done: u32, len: u32) {
        emit::record_with(Kind::Payload, |slot: *mut Room<BYTES>| {
            // SAFETY: the ring handed out room for one record, aligned to eight bytes; each field is
            // written here, of the bytes as many as `len` says.
            let room = unsafe { &mut *slot };
            let payload = &mut room.payload;
            payload.header.unread = 0;
            let header = &mut payload.header;
            emit::fill_header(header, Kind::Payload, self.tgid, self.tid, &self.owner);
            payload.flow = self.flow;
            payload.connection = self.connection;
            payload.offset_bytes = self.offset_bytes + u64::from(done);
            payload.wire_bytes =
                if done + len < self.taken { len } else { self.wire_bytes.saturating_sub(done) };
            payload.incoming = self.incoming;
            payload.padding = 0;
            payload.len = 0;
            let to = room.bytes.as_mut_ptr();
            // Hidden from LLVM, which would check one register and pass on another one.
            let len = core::hint::black_box(u64::from(len.min(BYTES as u32)));
            if !scratch::in_bounds(len, 1, BYTES as u64) {
                return;
            }
            let from = self.at + done;
            // SAFETY: there is room for BYTES bytes and `len` is no more; the helper checks the source.
            if unsafe { bpf_skb_load_bytes(self.skb.cast(), from, to.cast(), len as u32) } == 0 {
                payload.len = len as u32;
            }
        });
    }
}

/// Emits one of [`Pieces`]. Returns 1 when it was the last.
unsafe extern "C" fn piece(number: u64, pieces: *mut c_void) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    // SAFETY: what `Pieces::emit` gave bpf_loop, which calls this before it returns.
    let pieces = unsafe { &*pieces.cast::<Pieces>() };
    let done = number as u32 * pieces.each;
    let len = pieces.taken.saturating_sub(done).min(pieces.each);
    if len == 0 {
        return STOP;
    }
    if !pieces.initials.is_null() {
        if !is_quic_initial(&SkBuff::new(pieces.skb), pieces.at + done) {
            return STOP;
        }
        // SAFETY: a field of a map's value, which lives as long as the map.
        unsafe { *pieces.initials += 1 };
    }
    pieces.emit_one(done, len);
    GO_ON
}
