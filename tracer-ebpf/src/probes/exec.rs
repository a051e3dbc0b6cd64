//! `sched_process_exec(task, old_pid, bprm)`: a program was executed.
//!
//! Fires for successes only, whatever the syscall (execve, execveat, 32-bit, memfd), in the new
//! image before its first instruction. argv is read from the new stack, where the kernel has just
//! put it: resident, and no thread is left that could change it.

use aya_ebpf::{
    cty::c_void,
    helpers::generated::{bpf_get_current_cgroup_id, bpf_loop, bpf_probe_read_user},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use tracer_ebpf::abi::{
    ARGV_CHUNK_BYTES, ARGV_CHUNKS_MAX, ARGV_INLINE_MAX, ArgvChunk, Exec, Fault, Kind,
    NAME_MAX_BYTES, exec_flag, unread,
};

use crate::kernel::{
    emit,
    field::{self, KernelPtr},
    file::File,
    path,
    scratch::{self, ArgvCopy, Scratch},
    task::Task,
    tree::{self, Tracked},
};

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec(ctx: RawTracePointContext) -> i32 {
    if let Some(process) = tree::current(&ctx) {
        on_exec(&process, ctx.arg::<u32>(1), KernelPtr(ctx.arg(2)));
    }
    0
}

#[inline(always)]
fn on_exec(process: &Tracked, old_tid: u32, bprm: KernelPtr) {
    let Some(scratch) = scratch::get() else { return emit::fault(Fault::Scratch) };
    let task = Task::current();
    let file = bprm.follow(&field::BINPRM_FILE).map(File);
    let mut exec = Exec { header: process.header(Kind::Exec), old_tid, ..Exec::default() };
    // SAFETY: the helper has no precondition.
    exec.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    read_ids(&mut exec, task);
    read_file(&mut exec, file, process);
    scratch.begin();
    append_names(&mut exec, scratch, bprm);
    append_paths(&mut exec, scratch, task, file);
    append_argv(&mut exec, scratch, task, bprm);
    scratch.set_fixed(&exec);
    match scratch.record() {
        Some(record) => {
            emit::bytes(Kind::Exec, record);
        }
        None => emit::fault(Fault::Scratch),
    }
}

#[inline(always)]
fn read_ids(exec: &mut Exec, task: Task) {
    match task.namespace_pid() {
        Some(inner) => {
            exec.ns_pid = inner.pid;
            exec.pid_ns_inum = inner.ns_inum;
        }
        None => exec.header.unread |= unread::NS_PID,
    }
    let credentials = || {
        let cred = task.0.follow(&field::TASK_CRED)?;
        Some([
            cred.read(&field::CRED_UID)?,
            cred.read(&field::CRED_EUID)?,
            cred.read(&field::CRED_GID)?,
            cred.read(&field::CRED_EGID)?,
        ])
    };
    match credentials() {
        Some([uid, euid, gid, egid]) => {
            (exec.uid, exec.euid, exec.gid, exec.egid) = (uid, euid, gid, egid);
        }
        None => exec.header.unread |= unread::CREDENTIALS,
    }
}

#[inline(always)]
fn read_file(exec: &mut Exec, file: Option<File>, process: &Tracked) {
    let (Some(file), Some(described)) = (file, file.and_then(File::describe)) else {
        exec.header.unread |= unread::FILE;
        return;
    };
    exec.file = described;
    if !process.is_canary() {
        tree::count_exec(described.key);
    }
    if described.links == 0 {
        exec.exec_flags |= exec_flag::UNLINKED;
    }
    match file.is_memfd() {
        Some(true) => exec.exec_flags |= exec_flag::MEMFD,
        Some(false) => {}
        None => exec.header.unread |= unread::FILE,
    }
}

/// The caller's spelling, and the interpreter when that is another string.
#[inline(always)]
fn append_names(exec: &mut Exec, scratch: &mut Scratch, bprm: KernelPtr) {
    let filename = bprm.follow(&field::BINPRM_FILENAME);
    match filename.and_then(|name| scratch.append_str(name, NAME_MAX_BYTES as u32)) {
        Some(len) => exec.filename_len = len,
        None => exec.header.unread |= unread::FILENAME,
    }
    let interp = bprm.follow(&field::BINPRM_INTERP);
    match (filename, interp) {
        (Some(filename), Some(interp)) if filename.0 == interp.0 => {}
        (_, Some(interp)) => {
            exec.exec_flags |= exec_flag::SCRIPT;
            match scratch.append_str(interp, NAME_MAX_BYTES as u32) {
                Some(len) => exec.interp_len = len,
                None => exec.header.unread |= unread::INTERPRETER,
            }
        }
        (_, None) => exec.header.unread |= unread::INTERPRETER,
    }
}

#[inline(always)]
fn append_paths(exec: &mut Exec, scratch: &mut Scratch, task: Task, file: Option<File>) {
    let walk = |scratch: &mut Scratch, dentry: Option<KernelPtr>, mount: Option<KernelPtr>| {
        path::append(scratch, dentry?, mount?)
    };
    let (dentry, mount) = (file.and_then(File::dentry), file.and_then(File::mount));
    match walk(scratch, dentry, mount) {
        Some(walked) => {
            exec.path_len = walked.len;
            if !walked.complete {
                exec.exec_flags |= exec_flag::PATH_CUT;
            }
        }
        None => exec.header.unread |= unread::PATH,
    }
    let fs = task.0.follow(&field::TASK_FS);
    let dentry = fs.and_then(|fs| fs.follow(&field::FS_PWD_DENTRY));
    let mount = fs.and_then(|fs| fs.follow(&field::FS_PWD_MOUNT));
    match walk(scratch, dentry, mount) {
        Some(walked) => {
            exec.cwd_len = walked.len;
            if !walked.complete {
                exec.exec_flags |= exec_flag::CWD_CUT;
            }
        }
        None => exec.header.unread |= unread::CWD,
    }
}

#[inline(always)]
fn append_argv(exec: &mut Exec, scratch: &mut Scratch, task: Task, bprm: KernelPtr) {
    match bprm.read(&field::BINPRM_ARGC) {
        Some(argc) => exec.argc = argc,
        None => exec.header.unread |= unread::ARGV,
    }
    let Some(mm) = task.0.follow(&field::TASK_MM) else {
        exec.header.unread |= unread::ARGV | unread::DUMPABLE;
        return;
    };
    read_dumpable(exec, mm);
    let (Some(start), Some(end)) =
        (mm.read::<u64>(&field::MM_ARG_START), mm.read::<u64>(&field::MM_ARG_END))
    else {
        exec.header.unread |= unread::ARGV;
        return;
    };
    let total = end.saturating_sub(start);
    exec.argv_len = total;
    if total == 0 {
        return;
    }
    match scratch.append_user(start, total.min(ARGV_INLINE_MAX as u64)) {
        Some(len) => exec.argv_inline_len = len,
        None => {
            exec.header.unread |= unread::ARGV;
            return;
        }
    }
    if total > ARGV_INLINE_MAX as u64 {
        scratch.argv = ArgvCopy {
            address: start,
            offset_bytes: ARGV_INLINE_MAX as u64,
            end_bytes: total,
            failed: 0,
        };
        scratch.set_fixed(exec); // the chunks take their header from it
        // SAFETY: `argv_chunk` has the signature bpf_loop calls; it takes no context.
        let chunks = unsafe {
            bpf_loop(
                ARGV_CHUNKS_MAX,
                argv_chunk as *const () as *mut c_void,
                core::ptr::null_mut(),
                0,
            )
        };
        exec.argv_chunks = chunks as u32;
        if scratch.argv.failed != 0 || scratch.argv.offset_bytes < total {
            exec.header.unread |= unread::ARGV;
        }
    }
}

/// Emits the next chunk. Returns 1 after the last one.
unsafe extern "C" fn argv_chunk(_: u64, _: *mut c_void) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    let Some(scratch) = scratch::get() else { return STOP };
    let copy = scratch.argv;
    let left = copy.end_bytes.saturating_sub(copy.offset_bytes);
    let len = left.min(ARGV_CHUNK_BYTES as u64);
    let mut failed = 0;
    let mut header = scratch.fixed_header();
    header.kind = Kind::ArgvChunk as u32;
    emit::record_with(Kind::ArgvChunk, |slot: *mut ArgvChunk| {
        let len = if aya_ebpf::check_bounds_signed(len as i64, 0, ARGV_CHUNK_BYTES as i64) {
            len
        } else {
            0
        };
        // SAFETY: the ring handed out room for one ArgvChunk; all fields but the unused end of
        // `bytes` are written, and the collector reads `len` bytes of it only.
        unsafe {
            (*slot).header = header;
            (*slot).offset_bytes = copy.offset_bytes;
            (*slot).len = len as u32;
            (*slot).padding = 0;
            failed = bpf_probe_read_user(
                (&raw mut (*slot).bytes).cast(),
                len as u32,
                (copy.address + copy.offset_bytes) as *const c_void,
            );
        }
    });
    if failed != 0 {
        scratch.argv.failed = 1;
    }
    scratch.argv.offset_bytes = copy.offset_bytes + len;
    if left <= ARGV_CHUNK_BYTES as u64 { STOP } else { GO_ON }
}

/// `get_dumpable(mm) != SUID_DUMP_USER` is the condition under which `begin_new_exec` takes the
/// inherited perf counters away.
#[inline(always)]
fn read_dumpable(exec: &mut Exec, mm: KernelPtr) {
    const MMF_DUMPABLE_MASK: u64 = 3;
    const SUID_DUMP_USER: u64 = 1;
    match mm.read::<u64>(&field::MM_FLAGS) {
        Some(flags) if flags & MMF_DUMPABLE_MASK == SUID_DUMP_USER => {}
        Some(_) => exec.exec_flags |= exec_flag::WITNESS_DETACHED,
        None => exec.header.unread |= unread::DUMPABLE,
    }
}
