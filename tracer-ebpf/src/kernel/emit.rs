//! The rings and the counters. Nothing else touches them.
//!
//! Every record is counted as produced before its ring is asked for room, so that what the
//! collector did not read is known to the last record.

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use tracer_ebpf::abi::{FAIL_NEVER, Fault, Header, Kind, Stats};
use zerocopy::FromZeros;

use super::tree::Member;

/// fork, exec and exit: nothing a program can make cheaply by the million comes here. In 2.5 s two
/// saturated processors make less than this.
#[map]
static PROCESS_RING: RingBuf = RingBuf::with_byte_size(16 * 1024 * 1024, 0);

/// argv beyond what an exec record holds, apart from the records so that it cannot crowd them out.
#[map]
static ARGV_RING: RingBuf = RingBuf::with_byte_size(16 * 1024 * 1024, 0);

/// A connection over the loopback device takes 30 us and makes 340 bytes: a processor that does nothing
/// else makes 28 MB in 2.5 s.
#[map]
static NET_RING: RingBuf = RingBuf::with_byte_size(32 * 1024 * 1024, 0);

/// Failed execs: the cheapest events of all, so they can crowd out nothing but themselves.
#[map]
static ATTEMPT_RING: RingBuf = RingBuf::with_byte_size(16 * 1024 * 1024, 0);

/// Bytes that say names, apart from connections, which they must not crowd out.
#[map]
static NAMES_RING: RingBuf = RingBuf::with_byte_size(16 * 1024 * 1024, 0);

/// Calls of the C library's resolver: whoever makes many of them crowds out nothing else.
#[map]
static RESOLVER_RING: RingBuf = RingBuf::with_byte_size(16 * 1024 * 1024, 0);

/// What TLS libraries encrypt and decrypt: by far the most bytes.
#[map]
static TLS_RING: RingBuf = RingBuf::with_byte_size(16 * 1024 * 1024, 0);

#[map]
static STATS: PerCpuArray<Stats> = PerCpuArray::with_max_entries(1, 0);

/// A switch for tests: when not zero, every n-th reserve of this ring fails. Frozen at load, so
/// the verifier removes the branch in a normal run.
#[unsafe(no_mangle)]
static FAIL_PROCESS_EVERY: Global<u32> = Global::new(FAIL_NEVER);
#[unsafe(no_mangle)]
static FAIL_ARGV_EVERY: Global<u32> = Global::new(FAIL_NEVER);
#[unsafe(no_mangle)]
static FAIL_NET_EVERY: Global<u32> = Global::new(FAIL_NEVER);
#[unsafe(no_mangle)]
static FAIL_ATTEMPT_EVERY: Global<u32> = Global::new(FAIL_NEVER);
#[unsafe(no_mangle)]
static FAIL_NAMES_EVERY: Global<u32> = Global::new(FAIL_NEVER);
#[unsafe(no_mangle)]
static FAIL_RESOLVER_EVERY: Global<u32> = Global::new(FAIL_NEVER);
#[unsafe(no_mangle)]
static FAIL_TLS_EVERY: Global<u32> = Global::new(FAIL_NEVER);

/// Which ring a kind travels in.
#[derive(Clone, Copy)]
enum Ring {
    Process,
    Argv,
    Net,
    Attempt,
    Names,
    Resolver,
    Tls,
}

const fn ring_of(kind: Kind) -> Ring {
    match kind {
        Kind::Root | Kind::Fork | Kind::Exec | Kind::Exit => Ring::Process,
        Kind::ArgvChunk => Ring::Argv,
        // Local sends and intrusions come once per process and peer.
        // Datagrams once per socket and destination, of which a map holds a limited number; the
        // others once per process.
        Kind::Connect
        | Kind::ConnectResult
        | Kind::Close
        | Kind::LocalSend
        | Kind::Intrusion
        | Kind::Datagram
        | Kind::OddSocket
        | Kind::CgroupMove
        | Kind::ForeignSend => Ring::Net,
        Kind::Attempt => Ring::Attempt,
        Kind::Payload => Ring::Names,
        Kind::Resolve => Ring::Resolver,
        Kind::TlsData | Kind::TlsBegin | Kind::TlsEnd => Ring::Tls,
    }
}

impl Ring {
    #[inline(always)]
    fn map(self) -> &'static RingBuf {
        match self {
            Ring::Process => &PROCESS_RING,
            Ring::Argv => &ARGV_RING,
            Ring::Net => &NET_RING,
            Ring::Attempt => &ATTEMPT_RING,
            Ring::Names => &NAMES_RING,
            Ring::Resolver => &RESOLVER_RING,
            Ring::Tls => &TLS_RING,
        }
    }

    #[inline(always)]
    fn fail_every(self) -> u32 {
        match self {
            Ring::Process => FAIL_PROCESS_EVERY.load(),
            Ring::Argv => FAIL_ARGV_EVERY.load(),
            Ring::Net => FAIL_NET_EVERY.load(),
            Ring::Attempt => FAIL_ATTEMPT_EVERY.load(),
            Ring::Names => FAIL_NAMES_EVERY.load(),
            Ring::Resolver => FAIL_RESOLVER_EVERY.load(),
            Ring::Tls => FAIL_TLS_EVERY.load(),
        }
    }
}

/// Adds one to a counter. Atomic although each CPU has its own, because a softirq on the same CPU
/// can run the same code in between.
#[inline(always)]
pub(crate) fn add_one(counter: *mut u64) {
    add(counter, 1);
}

/// Adds to a counter, atomically.
#[inline(always)]
pub(crate) fn add(counter: *mut u64, amount: u64) {
    // SAFETY: the pointer comes from a map lookup, so it is aligned and lives as long as the map.
    // Written as an instruction because core has no fetch_add for a target without compare-and-swap.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {amount}",
            counter = in(reg) counter,
            amount = in(reg) amount,
        );
    }
}

#[inline(always)]
fn stats() -> Option<*mut Stats> {
    STATS.get_ptr_mut(0)
}

#[inline(always)]
pub(crate) fn fault(fault: Fault) {
    if let Some(stats) = stats() {
        // SAFETY: in bounds of the map value, whose address was just looked up.
        add_one(unsafe { &raw mut (*stats).faults[fault as usize] });
    }
}

/// Counts a record as produced; `None` when a test asked for this one to be lost.
#[inline(always)]
fn produce(kind: Kind) -> Option<()> {
    let stats = stats()?;
    // SAFETY: in bounds of the map value, whose address was just looked up.
    let produced = unsafe { &raw mut (*stats).kinds[kind as usize].produced };
    add_one(produced);
    let fail_every = ring_of(kind).fail_every();
    if fail_every != FAIL_NEVER {
        // SAFETY: as above; a torn read cannot happen, the counter is an aligned u64.
        let count = unsafe { *produced };
        if count % u64::from(fail_every) == 0 {
            lost(kind);
            return None;
        }
    }
    Some(())
}

#[inline(always)]
fn lost(kind: Kind) {
    if let Some(stats) = stats() {
        // SAFETY: in bounds of the map value, whose address was just looked up.
        add_one(unsafe { &raw mut (*stats).kinds[kind as usize].lost });
    }
}

/// Counts an event of which too little is known for a record.
#[inline(always)]
pub(crate) fn missed(kind: Kind) {
    if produce(kind).is_some() {
        lost(kind);
    }
}

#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
pub(crate) fn cpu() -> u32 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_smp_processor_id() }
}

/// Fills a zeroed header.
#[inline(always)]
pub(crate) fn fill_header(header: &mut Header, kind: Kind, tgid: u32, tid: u32, member: &Member) {
    header.kind = kind as u32;
    header.flags = member.flags;
    header.cpu = cpu();
    header.time_ns = now_ns();
    header.start_ns = member.start_ns;
    header.tgid = tgid;
    header.tid = tid;
}

/// Emits a record of fixed size, filled in place: a copy on the 512-byte stack would not fit.
/// `fill` gets it zeroed.
#[inline(always)]
pub(crate) fn record<T: FromZeros + 'static>(kind: Kind, fill: impl FnOnce(&mut T)) {
    if produce(kind).is_none() {
        return;
    }
    let Some(mut entry) = ring_of(kind).map().reserve::<T>(0) else {
        lost(kind);
        return;
    };
    let slot = entry.as_mut_ptr();
    // SAFETY: the ring handed out room for one `T`, aligned to eight bytes.
    unsafe { core::ptr::write_bytes(slot, 0, 1) };
    // SAFETY: as above, and all zeroes is a valid `T: FromZeros`.
    fill(unsafe { &mut *slot });
    entry.submit(0);
}

/// Emits a record of fixed size that `fill` writes itself, for one too large to zero first.
/// `false` when it was lost.
#[inline(always)]
pub(crate) fn record_with<T: 'static>(kind: Kind, fill: impl FnOnce(*mut T)) -> bool {
    if produce(kind).is_none() {
        return false;
    }
    let Some(mut entry) = ring_of(kind).map().reserve::<T>(0) else {
        lost(kind);
        return false;
    };
    fill(entry.as_mut_ptr());
    entry.submit(0);
    true
}

/// Emits a record of variable size.
#[inline(always)]
pub(crate) fn bytes(kind: Kind, data: &[u8]) {
    if produce(kind).is_some() && ring_of(kind).map().output::<[u8]>(data, 0).is_err() {
        lost(kind);
    }
}

/// A number no other connection of this load has: this CPU's count of connects, and the CPU.
#[inline(always)]
pub(crate) fn connection_id() -> u64 {
    const CPU_BITS: u32 = 16;
    let Some(stats) = stats() else { return 0 };
    // SAFETY: in bounds of the map value, whose address was just looked up; aligned u64.
    let produced = unsafe { (*stats).kinds[Kind::Connect as usize].produced };
    ((produced + 1) << CPU_BITS) | u64::from(cpu())
}
