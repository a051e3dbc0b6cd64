//! Where sockets without connections send to.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_get_socket_cookie, macros::map, maps::HashMap,
};
use tracer_ebpf::abi::{Asked, Flow, FlowTotals};

use super::{emit, field::KernelPtr, tree::Tracked};

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

/// Sockets that have a flow. As many as there are flows, so that there is room for each.
#[map]
static ASKED: HashMap<u64, Asked> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// With `unspecified`, [`Added::New`] also if nobody had asked for it like that.
#[inline(always)]
pub(crate) fn add(flow: &Flow, unspecified: bool, process: &Tracked) -> Added {
    if let Some(totals) = FLOWS.get_ptr_mut(flow) {
        return known(totals, unspecified);
    }
    // Before there is a flow, because who finds one takes it that its socket is known.
    if !add_socket(flow) {
        return Added::NoRoom;
    }
    let totals = FlowTotals {
        start_ns: process.member.start_ns,
        tgid: process.tgid,
        tid: process.tid,
        flags: process.member.flags,
        unspecified: u32::from(unspecified),
        ..FlowTotals::default()
    };
    match FLOWS.insert(flow, totals, BPF_NOEXIST) {
        Ok(()) => Added::New,
        // Another thread added it in between.
        Err(error) if error == -EEXIST => match FLOWS.get_ptr_mut(flow) {
            Some(totals) => known(totals, unspecified),
            None => Added::NoRoom,
        },
        Err(_) => Added::NoRoom,
    }
}

#[inline(always)]
fn known(totals: *mut FlowTotals, unspecified: bool) -> Added {
    // SAFETY: the value of a map, which lives as long as the map.
    let told = unsafe { &raw mut (*totals).unspecified };
    // SAFETY: as above; two threads that come here at once tell it twice.
    if !unspecified || unsafe { *told } != 0 {
        return Added::Known;
    }
    // SAFETY: as above.
    unsafe { *told = 1 };
    Added::New
}

#[inline(always)]
fn add_socket(flow: &Flow) -> bool {
    if has_others(flow) {
        return true;
    }
    let asked = Asked { first: *flow, ..Asked::default() };
    match ASKED.insert(flow.cookie, asked, BPF_NOEXIST) {
        Ok(()) => true,
        // Another thread added it in between.
        Err(error) if error == -EEXIST => has_others(flow),
        Err(_) => false,
    }
}

/// Notes in a socket that it has this flow beside its first one. `false` if the socket is not there.
#[inline(always)]
fn has_others(flow: &Flow) -> bool {
    let Some(asked) = ASKED.get_ptr_mut(flow.cookie) else { return false };
    // SAFETY: the value of a map, which lives as long as the map; nothing but this is written there without
    // an atomic instruction, and always the same.
    let asked = unsafe { &mut *asked };
    if asked.first != *flow {
        asked.several = 1;
    }
    true
}

/// A packet leaves that has the address of no flow. Returns the flow it was meant for, if the socket has one
/// only.
#[inline(always)]
pub(crate) fn elsewhere(cookie: u64, packets: u64) -> Option<Flow> {
    let asked = ASKED.get_ptr_mut(cookie)?;
    // SAFETY: the value of a map, which lives as long as the map, and the counter is only added to.
    let asked = unsafe { &mut *asked };
    emit::add(&raw mut asked.elsewhere_packets, packets);
    if asked.several == 0 { Some(asked.first) } else { None }
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

/// Whether it is `::` or `0.0.0.0`.
#[inline(always)]
pub(crate) fn is_unspecified(words: &[u32; 4]) -> bool {
    *words == [0; 4] || *words == mapped(0)
}

/// Whether it stands for an IPv4 address.
#[inline(always)]
pub(crate) fn is_mapped(words: &[u32; 4]) -> bool {
    words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be()
}

/// A pointer that the verifier knows as such, as a number: it allows no arithmetic on the former.
#[inline(always)]
pub(crate) fn address_of<T>(pointer: *mut T) -> Option<KernelPtr> {
    let slot = pointer;
    let address: u64 = KernelPtr((&raw const slot) as u64).load()?;
    (address != 0).then_some(KernelPtr(address))
}
