//! Which processes are tracked.
//!
//! A process enters in the fork hook of its parent, before it can run, and leaves when its last
//! thread exits. The map never evicts: an insert that finds no room is a counted fault.

use aya_ebpf::{EbpfContext, helpers::bpf_get_current_pid_tgid, macros::map, maps::HashMap};
use tracer_ebpf::abi::{Fault, FileKey, Header, Kind, header_flag};

use super::emit;

/// What is remembered of a tracked process.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Member {
    pub(crate) start_ns: u64,
    /// Bits of [`header_flag`] that its records and its descendants inherit.
    pub(crate) flags: u32,
    /// [`Task::exec_id`](super::task::Task::exec_id) when it entered. One that could not be read is 0,
    /// which makes the count of its execs a wrong one and not a right one.
    pub(crate) exec_id: u32,
}

/// Entries here are the collector's default; it sizes the map by the machine's `pid_max`.
#[map]
static TREE: HashMap<u32, Member> = HashMap::with_max_entries(32_768, 0);

/// How often the tracked tree executed each file.
#[map]
static LEDGER: HashMap<FileKey, u64> = HashMap::with_max_entries(16_384, 0);

/// A tracked process, as the hook of one of its threads sees it.
#[derive(Clone, Copy)]
pub(crate) struct Tracked {
    pub(crate) tgid: u32,
    pub(crate) tid: u32,
    pub(crate) member: Member,
}

#[inline(always)]
pub(crate) fn find(tgid: u32) -> Option<Member> {
    // SAFETY: the entry is copied at once; a racing delete can at worst hand out the bytes of a
    // process that is just exiting, which is the one asked for.
    unsafe { TREE.get(tgid) }.copied()
}

/// The calling process, if it is tracked. First thing in every hook that runs in a task's own
/// context, so that an untracked process pays one lookup.
#[inline(always)]
pub(crate) fn current(_: &impl EbpfContext) -> Option<Tracked> {
    let ids = bpf_get_current_pid_tgid();
    let tgid = (ids >> 32) as u32;
    let member = find(tgid)?;
    Some(Tracked { tgid, tid: ids as u32, member })
}

/// Puts a process into the tree; a failure is counted.
#[inline(always)]
pub(crate) fn insert(tgid: u32, member: &Member) -> bool {
    let inserted = TREE.insert(tgid, member, 0).is_ok();
    if !inserted {
        emit::fault(Fault::TreeInsert);
    }
    inserted
}

/// Takes a process out. `true` for exactly one caller per process.
#[inline(always)]
pub(crate) fn remove(tgid: u32) -> bool {
    TREE.remove(tgid).is_ok()
}

/// Counts an exec of `file`, whether or not its record finds room in the ring.
#[inline(always)]
pub(crate) fn count_exec(file: &FileKey) {
    if let Some(count) = LEDGER.get_ptr_mut(file) {
        emit::add_one(count);
        return;
    }
    const BPF_NOEXIST: u64 = 1;
    if LEDGER.insert(file, 1u64, BPF_NOEXIST).is_ok() {
        return;
    }
    // Another CPU inserted it in between, or the ledger is full.
    match LEDGER.get_ptr_mut(file) {
        Some(count) => emit::add_one(count),
        None => emit::fault(Fault::LedgerInsert),
    }
}

impl Member {
    pub(crate) fn is_canary(&self) -> bool {
        self.flags & header_flag::CANARY != 0
    }
}

impl Tracked {
    pub(crate) fn is_canary(&self) -> bool {
        self.member.is_canary()
    }

    /// Fills a zeroed header.
    #[inline(always)]
    pub(crate) fn fill_header(&self, header: &mut Header, kind: Kind) {
        emit::fill_header(header, kind, self.tgid, self.tid, &self.member);
    }
}
