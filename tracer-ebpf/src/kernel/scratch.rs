//! A work area per CPU in which an exec record is put together.
//!
//! The append position lives in the map value, not in a register: what the verifier reads back
//! from map memory is an unknown number that one bounds check tames, so each append costs it the
//! same however many came before, and a `bpf_loop` callback converges at once.

use aya_ebpf::{
    check_bounds_signed,
    helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user},
    macros::map,
    maps::PerCpuArray,
};
use tracer_ebpf::abi::{ARGV_INLINE_MAX, Exec, NAME_MAX_BYTES};

use super::field::KernelPtr;

/// The longest single append, in bytes.
const APPEND_MAX: u64 = 4096;
const _: () = assert!(NAME_MAX_BYTES as u64 <= APPEND_MAX && ARGV_INLINE_MAX as u64 <= APPEND_MAX);

/// filename, interpreter, three paths and argv, and slack so that one check per append suffices.
const CAPACITY: u64 = 7 * APPEND_MAX;

#[repr(C)]
pub(crate) struct Scratch {
    /// State of a running path walk.
    pub(crate) walk: super::path::Walk,
    /// State of a running search for a script.
    pub(crate) search: super::script::Search,
    /// State of a running name hash.
    pub(crate) naming: super::enforce::Naming,
    /// State of a running argv copy.
    pub(crate) argv: ArgvCopy,
    /// State of a running search of the environment.
    pub(crate) environment: super::environment::Search,
    /// Bytes appended.
    len: u64,
    /// The record: its fixed part, then, right behind it, what was appended.
    pub(crate) exec: Exec,
    bytes: [u8; CAPACITY as usize],
}

/// What the chunk loop has left to do.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct ArgvCopy {
    pub(crate) address: u64,
    pub(crate) offset_bytes: u64,
    pub(crate) end_bytes: u64,
    pub(crate) emitted: u32,
    /// A piece could not be read or was lost.
    pub(crate) failed: u32,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Whether `lower <= value <= upper`, checked where the verifier sees it: LLVM drops a comparison
/// that it can prove itself. A negative number in a u64 is out of bounds.
#[inline(always)]
pub(crate) fn in_bounds(value: u64, lower: u64, upper: u64) -> bool {
    check_bounds_signed(value.cast_signed(), lower.cast_signed(), upper.cast_signed())
}

/// This CPU's work area. Only the exec probe uses it: it cannot be interrupted by itself.
#[inline(always)]
pub(crate) fn get() -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a value of a per-CPU map lives as long as the program; tracepoint handlers run with
    // preemption off and the exec probe does not nest, so nothing else on this CPU touches it.
    Some(unsafe { &mut *scratch })
}

impl Scratch {
    /// Starts a record.
    #[inline(always)]
    pub(crate) fn begin(&mut self) {
        self.len = 0;
        // SAFETY: all zeroes is a valid Exec (`zerocopy::FromZeros`).
        unsafe { core::ptr::write_bytes(&raw mut self.exec, 0, 1) };
    }

    /// Room for one append, if there is any.
    #[inline(always)]
    fn room(&mut self) -> Option<*mut u8> {
        let len = self.len;
        if !in_bounds(len, 0, CAPACITY - APPEND_MAX) {
            return None;
        }
        // SAFETY: the position was just checked to lie APPEND_MAX before the end.
        Some(unsafe { self.bytes.as_mut_ptr().add(len as usize) })
    }

    /// Appends a NUL-terminated kernel string of at most `max` bytes; the NUL is kept. Returns the
    /// bytes written, 0 when it failed: LLVM copies the payload of a `None` around, and the
    /// verifier refuses such a register ("!read_ok").
    #[inline(always)]
    pub(crate) fn append_str(&mut self, source: KernelPtr, max: u32) -> u32 {
        let Some(room) = self.room() else { return 0 };
        // SAFETY: `room` has APPEND_MAX bytes and `max` is no more; the helper checks the source.
        let written = unsafe { bpf_probe_read_kernel_str(room.cast(), max, source.0 as *const _) };
        let written = written.cast_unsigned();
        if !in_bounds(written, 1, APPEND_MAX) {
            return 0;
        }
        self.len += written;
        written as u32
    }

    /// Appends `len` (at most [`APPEND_MAX`]) bytes of the current process's memory. Returns `len`,
    /// or 0 when it failed.
    #[inline(always)]
    pub(crate) fn append_user(&mut self, source: u64, len: u64) -> u32 {
        let Some(room) = self.room() else { return 0 };
        if !in_bounds(len, 1, APPEND_MAX) {
            return 0;
        }
        // SAFETY: `room` has APPEND_MAX bytes and `len` is no more; the helper checks the source.
        if unsafe { bpf_probe_read_user(room.cast(), len as u32, source as *const _) } != 0 {
            return 0;
        }
        self.len += len;
        len as u32
    }

    /// An appended byte; 0 behind the last one.
    #[inline(always)]
    pub(crate) fn byte(&self, at: u64) -> u8 {
        if at >= self.len || !in_bounds(at, 0, CAPACITY - 1) {
            return 0;
        }
        // SAFETY: the position was just checked to lie in the array.
        let byte = unsafe { self.bytes.as_ptr().add(at as usize) };
        // SAFETY: as above.
        unsafe { *byte }
    }

    /// The whole record.
    #[inline(always)]
    pub(crate) fn record(&self) -> Option<&[u8]> {
        let len = self.len;
        if !in_bounds(len, 0, CAPACITY) {
            return None;
        }
        // SAFETY: `Scratch` is repr(C), so `bytes` follows `exec` (whose size is a multiple of its
        // alignment) without a gap, and the length was just checked against the array.
        Some(unsafe {
            core::slice::from_raw_parts(
                (&raw const self.exec).cast::<u8>(),
                size_of::<Exec>() + len as usize,
            )
        })
    }
}
