//! Killing a forbidden program before its first instruction.
//!
//! The exec hook runs before the new image does. A signal that is sent there is delivered on the way
//! to user space, so SIGKILL comes first on every kernel; no LSM is needed for that.

use aya_ebpf::{
    Global,
    cty::c_void,
    helpers::generated::{bpf_loop, bpf_send_signal},
    macros::map,
    maps::HashMap,
};
use tracer_ebpf::abi::{
    FileKey, NAME_BYTES_MAX, NAME_HASH_START, RULES_MAX, exec_flag, name_hash_step, unread,
};

use super::scratch;

/// Not zero when there are rules. Frozen at load, so that a run without rules does not look.
#[unsafe(no_mangle)]
static ENFORCE: Global<u32> = Global::new(0);

#[map]
static FORBIDDEN_FILES: HashMap<FileKey, u32> = HashMap::with_max_entries(RULES_MAX, 0);

/// By [`tracer_ebpf::abi::name_hash`].
#[map]
static FORBIDDEN_NAMES: HashMap<u64, u32> = HashMap::with_max_entries(RULES_MAX, 0);

/// State of a running hash.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Naming {
    /// Position in the appended bytes.
    at: u64,
    hash: u64,
}

/// Kills the process if a rule forbids what it has just executed. The record in the scratch area
/// must be complete.
#[inline(always)]
pub(crate) fn judge() -> Option<()> {
    if ENFORCE.load() == 0 || !is_forbidden()? {
        return Some(());
    }
    const SIGKILL: u32 = 9;
    // SAFETY: the helper has no precondition.
    if unsafe { bpf_send_signal(SIGKILL) } == 0 {
        scratch::get()?.exec.exec_flags |= exec_flag::KILLED;
    }
    Some(())
}

#[inline(always)]
fn is_forbidden() -> Option<bool> {
    let exec = &scratch::get()?.exec;
    if exec.header.unread & unread::FILE == 0 && is_forbidden_file(&exec.file.key) {
        return Some(true);
    }
    if exec.exec_flags & exec_flag::SCRIPT != 0 && is_forbidden_file(&exec.script.key) {
        return Some(true);
    }
    let (filename, interp, path) =
        (u64::from(exec.filename_len), u64::from(exec.interp_len), u64::from(exec.path_len));
    let (cwd, script) = (u64::from(exec.cwd_len), u64::from(exec.script_path_len));
    // The last component of the filename; the paths are written leaf first.
    let tail = filename.saturating_sub(u64::from(NAME_BYTES_MAX) + 1);
    let file_leaf = filename + interp;
    let script_leaf = file_leaf + path + cwd;
    let argv = script_leaf + script;
    Some(
        is_forbidden_name(tail)?
            || (path > 0 && is_forbidden_name(file_leaf)?)
            || (script > 0 && is_forbidden_name(script_leaf)?)
            || is_forbidden_name(argv)?,
    )
}

/// The value is read, not only its presence: LLVM would combine the addresses of two look-ups, which
/// the verifier refuses ("pointer |= pointer prohibited").
#[inline(always)]
fn is_forbidden_file(file: &FileKey) -> bool {
    // SAFETY: copied at once, and entries never change.
    unsafe { FORBIDDEN_FILES.get(file) }.copied().unwrap_or(0) != 0
}

/// Whether the string at this position of the appended bytes ends with a forbidden name.
#[inline(always)]
fn is_forbidden_name(at: u64) -> Option<bool> {
    scratch::get()?.naming = Naming { at, hash: NAME_HASH_START };
    // SAFETY: `step` has the signature bpf_loop calls; it takes no context.
    unsafe {
        bpf_loop(NAME_BYTES_MAX + 1, step as *const () as *mut c_void, core::ptr::null_mut(), 0)
    };
    let hash = scratch::get()?.naming.hash;
    // SAFETY: copied at once, and entries never change.
    Some(unsafe { FORBIDDEN_NAMES.get(hash) }.copied().unwrap_or(0) != 0)
}

/// One byte. Returns 1 to stop.
unsafe extern "C" fn step(_: u64, _: *mut c_void) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    let Some(scratch) = scratch::get() else { return STOP };
    let Naming { at, hash } = scratch.naming;
    let byte = scratch.byte(at);
    if byte == 0 {
        return STOP;
    }
    let hash = if byte == b'/' { NAME_HASH_START } else { name_hash_step(hash, byte) };
    scratch.naming = Naming { at: at + 1, hash };
    GO_ON
}
