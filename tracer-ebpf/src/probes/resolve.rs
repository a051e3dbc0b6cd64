//! `getaddrinfo` of the C library: which name a process asked for, and what it was given.
//!
//! The breakpoints are in the library's file, so every process that has it mapped comes here; those
//! outside the tree pay the breakpoint and one look-up. What is read is user memory, and the process
//! could write anything there; so names from it are a weak source.

use aya_ebpf::{
    Global,
    cty::c_void,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_loop, bpf_probe_read_user, bpf_probe_read_user_str},
    },
    macros::{map, uprobe, uretprobe},
    maps::{Array, HashMap},
    programs::{ProbeContext, RetProbeContext},
};
use tracer_ebpf::abi::{AF_INET, AF_INET6, HOST_NAME_BYTES, Kind, RESOLVED_MAX, Resolve, unread};

use crate::kernel::{emit, scratch, tree};

/// Entries of a list that are looked at: an address comes once for each type of socket.
const ENTRIES_MAX: u32 = 3 * RESOLVED_MAX as u32;

/// Whether the programs below are attached. Frozen at load.
#[unsafe(no_mangle)]
static WATCH_RESOLVER: Global<u32> = Global::new(0);

/// A call that has not returned.
#[repr(C)]
struct Call {
    /// Where the caller wants the list; then the list's next entry. 0: it asked for no name.
    next: u64,
    /// Where the name is.
    node: u64,
    name_len: u32,
    count: u32,
    /// Not all addresses could be read, or found room.
    more: u32,
    last_family: u16,
    padding: u16,
    last: [u8; 16],
    families: [u16; RESOLVED_MAX],
    addresses: [[u8; 16]; RESOLVED_MAX],
    name: [u8; HOST_NAME_BYTES],
}

/// By thread: a program at a breakpoint in user space can be preempted, so a work area per CPU would
/// not do. The collector sizes it. A call that finds no room is lost, which its return tells.
#[map]
static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(1, 0);

/// What a call begins as; it would fill the stack.
#[map]
static EMPTY: Array<Call> = Array::with_max_entries(1, 0);

/// `struct addrinfo` (getaddrinfo(3)) of 64-bit C libraries, glibc's and musl's.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct AddrInfo {
    flags: i32,
    family: i32,
    socket_type: i32,
    protocol: i32,
    address_len: u32,
    padding: u32,
    address: u64,
    canonical_name: u64,
    next: u64,
}

/// `struct sockaddr_in` and `sockaddr_in6`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct SocketAddress {
    family: u16,
    port: u16,
    /// The address of IPv4, flow information of IPv6.
    v4: [u8; 4],
}

/// Reads a value from the process.
#[inline(always)]
fn read<T: Copy>(from: u64, into: &mut T) -> bool {
    // SAFETY: `into` has the size asked for, and any bytes are a value of these plain types; the
    // helper checks the source.
    unsafe {
        bpf_probe_read_user((&raw mut *into).cast(), size_of::<T>() as u32, from as *const _) == 0
    }
}

#[inline(always)]
fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}

/// A thread of the tree ends; it may do so in the middle of a call.
#[inline(always)]
pub(super) fn forget_call() {
    if WATCH_RESOLVER.load() != 0 {
        let _ = CALLS.remove(thread());
    }
}

/// `getaddrinfo(node, service, hints, result)`.
#[uprobe]
fn resolve_call(ctx: ProbeContext) -> u32 {
    if tree::current(&ctx).is_none() {
        return 0;
    }
    let (Some(node), Some(result)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(3)) else { return 0 };
    let Some(empty) = EMPTY.get(0) else { return 0 };
    let thread = thread();
    if CALLS.insert(thread, empty, 0).is_err() {
        return 0;
    }
    // Without a name it is a server that looks for its own addresses.
    if node == 0 {
        return 0;
    }
    let Some(call) = CALLS.get_ptr_mut(thread) else { return 0 };
    // SAFETY: the entry of this thread, which is here and nowhere else.
    let call = unsafe { &mut *call };
    (call.next, call.node) = (result, node);
    read_name(call);
    0
}

#[inline(always)]
fn read_name(call: &mut Call) {
    let room = call.name.as_mut_ptr();
    let from = call.node as *const _;
    // SAFETY: `room` has HOST_NAME_BYTES bytes; the helper checks the source.
    let len = unsafe { bpf_probe_read_user_str(room.cast(), HOST_NAME_BYTES as u32, from) };
    call.name_len = u32::try_from(len).unwrap_or(0);
}

#[uretprobe]
fn resolve_return(ctx: RetProbeContext) -> u32 {
    let Some(process) = tree::current(&ctx) else { return 0 };
    let thread = thread();
    let error = ctx.ret::<i32>();
    let Some(call) = CALLS.get_ptr_mut(thread) else {
        emit::missed(Kind::Resolve);
        return 0;
    };
    // SAFETY: the entry of this thread, which is here and nowhere else.
    let call = unsafe { &mut *call };
    let asked = call.next != 0;
    // At the call its page may not have been in memory yet: a program cannot wait for that.
    if asked && call.name_len == 0 {
        read_name(call);
    }
    if asked && error == 0 {
        read_list(thread);
    }
    let Some(call) = CALLS.get_ptr(thread) else { return 0 };
    // SAFETY: as above.
    let call = unsafe { &*call };
    if asked {
        emit::record(Kind::Resolve, |resolve: &mut Resolve| {
            process.fill_header(&mut resolve.header, Kind::Resolve);
            resolve.error = error;
            resolve.name_len = call.name_len;
            resolve.count = call.count;
            resolve.more = call.more;
            resolve.families = call.families;
            resolve.addresses = call.addresses;
            resolve.name = call.name;
            if call.name_len == 0 {
                resolve.header.unread |= unread::FILENAME;
            }
        });
    }
    let _ = CALLS.remove(thread);
    0
}

/// Copies the addresses of the list into the thread's call.
#[inline(always)]
fn read_list(thread: u64) {
    if let Some(call) = CALLS.get_ptr_mut(thread) {
        // SAFETY: as above.
        let call = unsafe { &mut *call };
        let mut first = 0u64;
        if !read(call.next, &mut first) {
            call.more = 1;
        }
        call.next = first;
    }
    // SAFETY: `step` has the signature bpf_loop calls; it takes no context.
    unsafe { bpf_loop(ENTRIES_MAX, step as *const () as *mut c_void, core::ptr::null_mut(), 0) };
    if let Some(call) = CALLS.get_ptr_mut(thread) {
        // SAFETY: as above.
        let call = unsafe { &mut *call };
        if call.next != 0 {
            call.more = 1;
        }
    }
}

/// One entry of the list. Returns 1 to stop.
unsafe extern "C" fn step(_: u64, _: *mut c_void) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    let Some(call) = CALLS.get_ptr_mut(thread()) else { return STOP };
    // SAFETY: the entry of this thread, which is here and nowhere else.
    let call = unsafe { &mut *call };
    if call.next == 0 {
        return STOP;
    }
    let mut entry = AddrInfo::default();
    let mut address = SocketAddress::default();
    if !read(call.next, &mut entry) || !read(entry.address, &mut address) {
        call.more = 1;
        return STOP;
    }
    let mut bytes = [0u8; 16];
    if address.family == AF_INET {
        let [a, b, c, d] = address.v4;
        bytes = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    } else if address.family != AF_INET6 {
        call.next = entry.next;
        return GO_ON;
    } else if !read(entry.address + size_of::<SocketAddress>() as u64, &mut bytes) {
        call.more = 1;
        return STOP;
    }
    if address.family == call.last_family
        && u128::from_ne_bytes(bytes) == u128::from_ne_bytes(call.last)
    {
        call.next = entry.next;
        return GO_ON;
    }
    let at = u64::from(call.count);
    if !scratch::in_bounds(at, 0, RESOLVED_MAX as u64 - 1) {
        return STOP;
    }
    (call.last_family, call.last) = (address.family, bytes);
    // SAFETY: the position was just checked.
    let family = unsafe { call.families.as_mut_ptr().add(at as usize) };
    // SAFETY: as above; the element is there and nobody else has it.
    unsafe { *family = address.family };
    // SAFETY: the position was just checked.
    let room = unsafe { call.addresses.as_mut_ptr().add(at as usize) };
    // SAFETY: as above; the element is there and nobody else has it.
    unsafe { *room = bytes };
    call.count = at as u32 + 1;
    call.next = entry.next;
    GO_ON
}
