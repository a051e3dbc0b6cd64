//! The file of a script.
//!
//! When a `#!` file is executed, the kernel opens the interpreter, puts it in the script's place in
//! `bprm->file` and lets the script's file go before the exec hook runs (`exec_binprm`, fs/exec.c).
//! Looking it up by name afterwards is a race that the script can win by replacing itself. But a file
//! that is let go is closed only on the way back to user space: until then it waits in the task's
//! list of deferred work, linked through a field of its own (`fput`, fs/file_table.c). The list is
//! last in, first out, and empty when a system call begins, so the script is the last file in it
//! that was opened for execution; before it can come the previous program of the process.

use aya_ebpf::{cty::c_void, helpers::generated::bpf_loop};

use super::{
    field::{self, KernelPtr},
    file::File,
    scratch,
    task::Task,
};

/// `__FMODE_EXEC`, include/linux/fs.h: set in `f_flags` of files that exec opens, and of no other.
const OPENED_FOR_EXEC: u32 = 0x20;
/// The previous program's mapped files wait in the list too: hundreds, for a large program.
const WORKS_MAX: u32 = 16_384;

/// State of a search.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Search {
    /// The next `callback_head`; null at the end of the list.
    work: u64,
    found: u64,
}

/// The script, or a null file when it is not to be found.
#[inline(always)]
pub(crate) fn find(task: Task, bprm: KernelPtr) -> File {
    // binfmt_misc with the flag `O` or `C` keeps the file, for the interpreter.
    let kept: u64 = bprm.read(&field::BINPRM_EXECUTABLE).unwrap_or(0);
    if kept != 0 {
        return File(KernelPtr(kept));
    }
    let work: u64 = task.0.read(&field::TASK_WORKS).unwrap_or(0);
    if let Some(scratch) = scratch::get() {
        scratch.search = Search { work, found: 0 };
    }
    // SAFETY: `step` has the signature bpf_loop calls; it takes no context.
    unsafe { bpf_loop(WORKS_MAX, step as *const () as *mut c_void, core::ptr::null_mut(), 0) };
    match scratch::get() {
        Some(scratch) if scratch.search.work == 0 => File(KernelPtr(scratch.search.found)),
        // What lies beyond the limit could be the one.
        _ => File(KernelPtr(0)),
    }
}

/// One entry of the list. Returns 1 to stop.
unsafe extern "C" fn step(_: u64, _: *mut c_void) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    let Some(scratch) = scratch::get() else { return STOP };
    let work = scratch.search.work;
    if work == 0 {
        return STOP;
    }
    let file = KernelPtr(work.wrapping_sub(u64::from(field::FILE_TASK_WORK.load())));
    if is_executed_file(file) {
        scratch.search.found = file.0;
    }
    // `next` is the first field of callback_head.
    scratch.search.work = KernelPtr(work).load().unwrap_or(0);
    GO_ON
}

/// Other deferred work is no file: its bytes must not be taken for one.
#[inline(always)]
fn is_executed_file(file: KernelPtr) -> bool {
    let flags: u32 = file.read(&field::FILE_FLAGS).unwrap_or(0);
    if flags & OPENED_FOR_EXEC == 0 {
        return false;
    }
    let inode: u64 = file.read(&field::FILE_INODE).unwrap_or(0);
    let dentry: u64 = file.read(&field::FILE_DENTRY).unwrap_or(0);
    let named: u64 = KernelPtr(dentry).read(&field::DENTRY_INODE).unwrap_or(1);
    inode != 0 && inode == named
}
