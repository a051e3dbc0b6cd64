//! Which of the variables that the collector asks about are in the environment of a new image.
//!
//! The kernel has just copied the environment to the new stack, and no thread is left that could
//! change it. It is looked through here, entry by entry, so that values never leave the process: only
//! one bit for each name does. Names are found in a trie of prefixes, as routes are, which takes no loop: the verifier
//! would walk one for every byte of a name.

use aya_ebpf::{
    cty::c_void,
    helpers::generated::{bpf_loop, bpf_probe_read_user_str},
    macros::map,
    maps::{LpmTrie, lpm_trie::Key},
};
use tracer_ebpf::abi::{VARIABLE_KEY_BYTES, VARIABLES_MAX, Variable, unread};

use super::{
    field::{self, KernelPtr},
    scratch::{self, Scratch},
    task::Task,
};

/// By name, and the `=` behind it.
#[map]
static VARIABLES: LpmTrie<[u8; VARIABLE_KEY_BYTES], Variable> =
    LpmTrie::with_max_entries(VARIABLES_MAX, 0);

/// So much of an entry is read at a time.
const PIECE_BYTES: usize = 256;
/// The kernel limits argv and environment together to 6 MiB (see
/// [`ARGV_CHUNKS_MAX`](tracer_ebpf::abi::ARGV_CHUNKS_MAX)): enough for a single value of that size.
/// Thousands of short entries can take more steps; then the rest counts as unread.
const STEPS_MAX: u32 = 32_768;

/// State of a running search.
#[repr(C)]
pub(crate) struct Search {
    at: u64,
    end: u64,
    found: u64,
    /// The piece at `at` is the rest of an entry.
    inside: u32,
    failed: u32,
    /// The bits of a [`Key`], whose bytes the piece begins with.
    key_bits: u32,
    piece: [u8; PIECE_BYTES],
}

const KEY_BITS: u32 = VARIABLE_KEY_BYTES as u32 * u8::BITS;
const _: () = assert!(VARIABLE_KEY_BYTES <= PIECE_BYTES);

/// Notes what there is in the record.
#[inline(always)]
pub(crate) fn read(task: Task) -> Option<()> {
    let (start, end) = bounds(task);
    let search = &mut scratch::get()?.environment;
    (search.at, search.end) = (start, end);
    (search.found, search.inside, search.failed) = (0, 0, 0);
    search.key_bits = KEY_BITS;
    // SAFETY: `step` has the signature bpf_loop calls; it takes no context.
    unsafe { bpf_loop(STEPS_MAX, step as *const () as *mut c_void, core::ptr::null_mut(), 0) };
    let scratch = scratch::get()?;
    let search = &scratch.environment;
    scratch.exec.environment = search.found;
    if start == 0 || search.failed != 0 || search.at < search.end {
        scratch.exec.header.unread |= unread::ENVIRONMENT;
    }
    Some(())
}

/// Begin and end; zeroes when they could not be read.
#[inline(always)]
fn bounds(task: Task) -> (u64, u64) {
    let mm = KernelPtr(task.0.read(&field::TASK_MM).unwrap_or(0));
    let start: u64 = mm.read(&field::MM_ENV_START).unwrap_or(0);
    let end: u64 = mm.read(&field::MM_ENV_END).unwrap_or(0);
    if end == 0 { (0, 0) } else { (start, end) }
}

/// One entry, or a piece of a long one. Returns 1 to stop.
unsafe extern "C" fn step(_: u64, _: *mut c_void) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    let Some(Scratch { environment: search, .. }) = scratch::get() else { return STOP };
    let (at, inside) = (search.at, search.inside);
    if at >= search.end {
        return STOP;
    }
    let room = search.piece.as_mut_ptr();
    // SAFETY: `room` has PIECE_BYTES bytes; the helper checks the source.
    let read = unsafe { bpf_probe_read_user_str(room.cast(), PIECE_BYTES as u32, at as *const _) };
    if read <= 0 {
        search.failed = 1;
        return STOP;
    }
    if inside == 0
        && let Some(number) = search.number()
    {
        search.found |= 1 << (number % VARIABLES_MAX);
    }
    // A piece that fills the room may have been cut, and its last byte is the helper's NUL.
    let cut = read.cast_unsigned() >= PIECE_BYTES as u64;
    search.inside = u32::from(cut);
    search.at = at + if cut { PIECE_BYTES as u64 - 1 } else { read.cast_unsigned() };
    GO_ON
}

impl Search {
    /// The number of the variable that the entry sets to something, if that was asked about.
    #[inline(always)]
    fn number(&self) -> Option<u32> {
        let key = (&raw const self.key_bits).cast::<Key<[u8; VARIABLE_KEY_BYTES]>>();
        // SAFETY: `piece` follows `key_bits` without a gap and is longer than a key, which is packed. What is left
        // behind a shorter entry follows its NUL, which is in no name.
        let variable = VARIABLES.get(unsafe { &*key })?;
        let at = u64::from(variable.value_at);
        if !scratch::in_bounds(at, 0, PIECE_BYTES as u64 - 1) {
            return None;
        }
        // SAFETY: the position was just checked to lie in the array.
        let first = unsafe { self.piece.as_ptr().add(at as usize) };
        // SAFETY: as above.
        let first = unsafe { *first };
        // Programs take an empty value for none.
        (first != 0).then_some(variable.number)
    }
}
