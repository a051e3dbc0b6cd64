//! Where sockets without connections send to.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_get_socket_cookie, macros::map, maps::HashMap,
};
use tracer_ebpf::abi::{Flow, FlowTotals};

use super::{field::KernelPtr, tree::Tracked};

const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_NOEXIST: u64 = 1;
const EEXIST: i32 = 17;

/// Never evicts: an insert that finds no room is a counted fault. Memory is taken as it fills.
#[map]
static FLOWS: HashMap<Flow, FlowTotals> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// What came of adding a flow.
pub(crate) enum Added {
    New,
    Known,
    NoRoom,
}

#[inline(always)]
pub(crate) fn add(flow: &Flow, process: &Tracked) -> Added {
    if FLOWS.get_ptr(flow).is_some() {
        return Added::Known;
    }
    let totals = FlowTotals {
        start_ns: process.member.start_ns,
        tgid: process.tgid,
        tid: process.tid,
        flags: process.member.flags,
        ..FlowTotals::default()
    };
    match FLOWS.insert(flow, totals, BPF_NOEXIST) {
        Ok(()) => Added::New,
        // Another thread added it in between.
        Err(error) if error == -EEXIST => Added::Known,
        Err(_) => Added::NoRoom,
    }
}

/// Lives as long as the map: flows are never removed.
#[inline(always)]
pub(crate) fn find(flow: &Flow) -> Option<*mut FlowTotals> {
    FLOWS.get_ptr_mut(flow)
}

/// The kernel's name of the socket of a hook; it is given one if it has none.
#[inline(always)]
pub(crate) fn cookie(ctx: &impl EbpfContext) -> u64 {
    // SAFETY: the helper takes the context of the hooks of sockets, and of no others.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// Reads a field of a hook's context as a whole: the verifier refuses an access of another size,
/// which LLVM would make of a value that is cut short later.
#[inline(always)]
pub(crate) fn whole<T: Copy>(field: &T) -> T {
    // SAFETY: a reference can be read through.
    unsafe { core::ptr::read_volatile(field) }
}

/// An IPv4 address, given as it lies in memory, as [`Flow`] has it.
#[inline(always)]
pub(crate) fn mapped(address: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), address]
}

/// The kernel takes the address "any" for this machine.
#[inline(always)]
pub(crate) fn destination(words: [u32; 4]) -> [u8; 16] {
    const LOOPBACK: u32 = u32::from_be_bytes([127, 0, 0, 1]);
    let words = match words {
        [0, 0, 0, 0] => [0, 0, 0, 1_u32.to_be()],
        [0, 0, prefix, 0] if prefix == 0xffff_u32.to_be() => mapped(LOOPBACK.to_be()),
        words => words,
    };
    zerocopy::transmute!(words)
}

/// A pointer that the verifier knows as such, as a number: it allows no arithmetic on the former.
#[inline(always)]
pub(crate) fn address_of<T>(pointer: *mut T) -> Option<KernelPtr> {
    let slot = pointer;
    let address: u64 = KernelPtr((&raw const slot) as u64).load()?;
    (address != 0).then_some(KernelPtr(address))
}
