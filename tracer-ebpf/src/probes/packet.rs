//! Packets of sockets of the command's cgroup.
//!
//! They pass in whatever context the network stack runs in, so nobody asks here who is current: what
//! a packet belongs to is found by its socket.

use aya_ebpf::{
    macros::cgroup_skb,
    programs::{SkBuffContext, sk_buff::SkBuff},
};
use tracer_ebpf::abi::Flow;

use crate::kernel::{emit, flow};

const IPPROTO_UDP: u8 = 17;
const IPPROTO_UDP_LITE: u8 = 136;
const UDP_HEADER_BYTES: u32 = 8;
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
                Some(Network { remote: flow::mapped(header[at]), bytes, protocol })
            }
            6 => {
                let start = if direction == Direction::Out { 24 } else { 8 };
                let remote: [u32; 4] = skb.load(start).ok()?;
                let protocol: u8 = skb.load(6).ok()?;
                Some(Network { remote, bytes: 40, protocol })
            }
            _ => None,
        }
    }
}

#[inline(always)]
fn on_packet(ctx: &SkBuffContext, direction: Direction) -> Option<()> {
    let skb = &ctx.skb;
    let network = Network::of(skb, direction)?;
    if network.protocol == IPPROTO_UDP || network.protocol == IPPROTO_UDP_LITE {
        on_datagram(ctx, &network, direction)?;
    }
    Some(())
}

#[inline(always)]
fn on_datagram(ctx: &SkBuffContext, network: &Network, direction: Direction) -> Option<()> {
    let ports: [u16; 2] = ctx.skb.load(network.bytes as usize).ok()?;
    let port = if direction == Direction::Out { ports[1] } else { ports[0] };
    let flow = Flow {
        cookie: flow::cookie(ctx),
        address: zerocopy::transmute!(network.remote),
        port: u16::from_be(port),
        protocol: network.protocol.into(),
        padding: 0,
    };
    let totals = flow::find(&flow)?;
    let payload = ctx.skb.len().saturating_sub(network.bytes + UDP_HEADER_BYTES);
    // SAFETY: the kernel hands these programs such a context.
    let fields = unsafe { &*ctx.skb.skb };
    // Zero for one packet that is sent as it is.
    let segments = flow::whole(&fields.gso_segs).max(1);
    // SAFETY: the value of a map lives as long as the map, and its counters are only added to.
    let totals = unsafe { &mut *totals };
    let (packets, bytes) = match direction {
        Direction::Out => (&raw mut totals.sent_packets, &raw mut totals.sent_bytes),
        Direction::In => (&raw mut totals.received_packets, &raw mut totals.received_bytes),
    };
    emit::add(packets, segments.into());
    emit::add(bytes, payload.into());
    Some(())
}
