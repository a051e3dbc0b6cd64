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
    emit, enforce, environment,
    field::{self, KernelPtr},
    file::File,
    path::{self, Walked},
    scratch::{self, ArgvCopy, Scratch},
    script,
    task::Task,
    tree::{self, Tracked},
};

#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn exec(ctx: RawTracePointContext) -> i32 {
    if let Some(process) = tree::current(&ctx) {
        on_exec(&process, ctx.arg::<u32>(1), KernelPtr(ctx.arg(2)));
        #[cfg(feature = "debug-log")]
        aya_log_ebpf::debug!(&ctx, "exec: tgid {} tid {}", process.tgid, process.tid);
    }
    0
}

#[inline(always)]
fn on_exec(process: &Tracked, old_tid: u32, bprm: KernelPtr) {
    let task = Task::current();
    // Null where it cannot be read, which LLVM is not to know: it would make two copies of everything below,
    // one of them for this, and the verifier walks both.
    let file = bprm.read(&field::BINPRM_FILE).unwrap_or(0);
    let file = File(KernelPtr(core::hint::black_box(file)));
    let emitted = put_together(process, old_tid, bprm, task, file);
    if emitted.is_none() {
        emit::fault(Fault::Scratch);
    }
}

/// `None` when this CPU's work area is not there, which costs the whole event.
#[inline(always)]
fn put_together(
    process: &Tracked,
    old_tid: u32,
    bprm: KernelPtr,
    task: Task,
    file: File,
) -> Option<()> {
    let scratch = scratch::get()?;
    scratch.begin();
    process.fill_header(&mut scratch.exec.header, Kind::Exec);
    scratch.exec.old_tid = old_tid;
    // SAFETY: the helper has no precondition.
    scratch.exec.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    let is_canary = process.is_canary();
    let is_done = exec_identity(task.0.0) == DONE
        && exec_file(file.0.0, is_canary.into()) == DONE
        && exec_names(bprm.0) == DONE
        && exec_file_path(file.0.0) == DONE
        && exec_cwd(task.0.0) == DONE
        && exec_script(task.0.0, bprm.0) == DONE
        && exec_argv(task.0.0, bprm.0) == DONE
        && exec_environment(task.0.0) == DONE;
    if !is_done {
        return None;
    }
    if !is_canary {
        enforce::judge()?;
    }
    emit::bytes(Kind::Exec, scratch::get()?.record()?);
    Some(())
}

/// What a stage returns unless the work area is not there.
const DONE: u32 = 0;

/// Each stage is a function that can be called from elsewhere, as far as the kernel can tell: so its verifier walks it
/// once and for all arguments, and not once for each way in which the stages before it can end.
macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) $body:block)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name($($argument: $kind),*) -> u32 {
            let stage = || -> Option<()> { $body };
            match stage() {
                Some(()) => DONE,
                None => !DONE,
            }
        }
    )*};
}

stages! {
    exec_identity(task: u64) {
        let task = Task(KernelPtr(task));
        let exec = &mut scratch::get()?.exec;
        read_ids(exec, task);
        read_stdio(exec, task);
        Some(())
    }
    exec_file(file: u64, is_canary: u32) {
        read_file(&mut scratch::get()?.exec, File(KernelPtr(file)), is_canary != 0);
        Some(())
    }
    exec_names(bprm: u64) {
        append_names(scratch::get()?, KernelPtr(bprm));
        Some(())
    }
    exec_file_path(file: u64) { append_file_path(File(KernelPtr(file))) }
    exec_cwd(task: u64) { append_cwd(Task(KernelPtr(task))) }
    exec_script(task: u64, bprm: u64) { append_script(Task(KernelPtr(task)), KernelPtr(bprm)) }
    exec_argv(task: u64, bprm: u64) { append_argv(Task(KernelPtr(task)), KernelPtr(bprm)) }
    exec_environment(task: u64) { environment::read(Task(KernelPtr(task))) }
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
    if read_credentials(exec, task).is_none() {
        exec.header.unread |= unread::CREDENTIALS;
    }
}

#[inline(always)]
fn read_credentials(exec: &mut Exec, task: Task) -> Option<()> {
    let cred = task.0.follow(&field::TASK_CRED)?;
    exec.uid = cred.read(&field::CRED_UID)?;
    exec.euid = cred.read(&field::CRED_EUID)?;
    exec.gid = cred.read(&field::CRED_GID)?;
    exec.egid = cred.read(&field::CRED_EGID)?;
    Some(())
}

#[inline(always)]
fn read_stdio(exec: &mut Exec, task: Task) {
    if read_descriptors(exec, task).is_none() {
        exec.header.unread |= unread::STDIO;
    }
}

#[inline(always)]
fn read_descriptors(exec: &mut Exec, task: Task) -> Option<()> {
    let [input, output] = &mut exec.stdio;
    for (descriptor, stdio) in [(0, input), (1, output)] {
        let file = task.open_file(descriptor)?;
        if !file.is_null() {
            File(file).describe_stdio(stdio)?;
        }
    }
    Some(())
}

#[inline(always)]
fn read_file(exec: &mut Exec, file: File, is_canary: bool) {
    let described = file.describe(&mut exec.file);
    let Some(memfd) = described.and_then(|()| file.is_memfd()) else {
        exec.header.unread |= unread::FILE;
        return;
    };
    if !is_canary {
        tree::count_exec(&exec.file.key);
    }
    if exec.file.links == 0 {
        exec.exec_flags |= exec_flag::UNLINKED;
    }
    if memfd {
        exec.exec_flags |= exec_flag::MEMFD;
    }
}

/// The caller's spelling, and the interpreter when that is another string.
#[inline(always)]
fn append_names(scratch: &mut Scratch, bprm: KernelPtr) {
    let filename = bprm.read::<u64>(&field::BINPRM_FILENAME).unwrap_or(0);
    let interp = bprm.read::<u64>(&field::BINPRM_INTERP).unwrap_or(0);
    let len = scratch.append_str(KernelPtr(filename), NAME_MAX_BYTES as u32);
    scratch.exec.filename_len = len;
    if len == 0 {
        scratch.exec.header.unread |= unread::FILENAME;
    }
    if interp == filename {
        return;
    }
    scratch.exec.exec_flags |= exec_flag::SCRIPT;
    let len = scratch.append_str(KernelPtr(interp), NAME_MAX_BYTES as u32);
    scratch.exec.interp_len = len;
    if len == 0 {
        scratch.exec.header.unread |= unread::INTERPRETER;
    }
}

// Functions, not closures: a closure that LLVM does not inline leaves its `Option` in the object's
// BTF as a union that the kernel refuses ("Invalid member bits_offset"), and with the BTF go the
// callbacks of bpf_loop ("missing btf func_info").
#[inline(always)]
fn walk_file(file: File) -> Option<Walked> {
    path::append(file.dentry()?, file.mount()?)
}

#[inline(always)]
fn walk_cwd(task: Task) -> Option<Walked> {
    let fs = task.0.follow(&field::TASK_FS)?;
    path::append(fs.follow(&field::FS_PWD_DENTRY)?, fs.follow(&field::FS_PWD_MOUNT)?)
}

#[inline(always)]
fn append_file_path(file: File) -> Option<()> {
    let walked = walk_file(file);
    let exec = &mut scratch::get()?.exec;
    match walked {
        Some(walked) => {
            exec.path_len = walked.len;
            if !walked.complete {
                exec.exec_flags |= exec_flag::PATH_CUT;
            }
        }
        None => exec.header.unread |= unread::PATH,
    }
    Some(())
}

#[inline(always)]
fn append_cwd(task: Task) -> Option<()> {
    let walked = walk_cwd(task);
    let exec = &mut scratch::get()?.exec;
    match walked {
        Some(walked) => {
            exec.cwd_len = walked.len;
            if !walked.complete {
                exec.exec_flags |= exec_flag::CWD_CUT;
            }
        }
        None => exec.header.unread |= unread::CWD,
    }
    Some(())
}

#[inline(always)]
fn append_script(task: Task, bprm: KernelPtr) -> Option<()> {
    let exec = &mut scratch::get()?.exec;
    if exec.exec_flags & exec_flag::SCRIPT == 0 {
        return Some(());
    }
    let file = script::find(task, bprm);
    if file.0.is_null() || file.describe(&mut exec.script).is_none() {
        exec.header.unread |= unread::SCRIPT;
        return Some(());
    }
    let walked = walk_file(file);
    let exec = &mut scratch::get()?.exec;
    match walked {
        Some(walked) => {
            exec.script_path_len = walked.len;
            if !walked.complete {
                exec.exec_flags |= exec_flag::SCRIPT_PATH_CUT;
            }
        }
        None => exec.header.unread |= unread::PATH,
    }
    Some(())
}

#[inline(always)]
fn append_argv(task: Task, bprm: KernelPtr) -> Option<()> {
    let scratch = scratch::get()?;
    let exec = &mut scratch.exec;
    match bprm.read(&field::BINPRM_ARGC) {
        Some(argc) => exec.argc = argc,
        None => exec.header.unread |= unread::ARGV,
    }
    let Some(mm) = task.0.follow(&field::TASK_MM) else {
        exec.header.unread |= unread::ARGV | unread::DUMPABLE;
        return Some(());
    };
    read_dumpable(exec, mm);
    let (Some(start), Some(end)) =
        (mm.read::<u64>(&field::MM_ARG_START), mm.read::<u64>(&field::MM_ARG_END))
    else {
        exec.header.unread |= unread::ARGV;
        return Some(());
    };
    let total = end.saturating_sub(start);
    exec.argv_len = total;
    if total == 0 {
        return Some(());
    }
    let len = scratch.append_user(start, total.min(ARGV_INLINE_MAX as u64));
    scratch.exec.argv_inline_len = len;
    if len == 0 {
        scratch.exec.header.unread |= unread::ARGV;
        return Some(());
    }
    if total > ARGV_INLINE_MAX as u64 {
        scratch.argv = ArgvCopy {
            address: start,
            offset_bytes: ARGV_INLINE_MAX as u64,
            end_bytes: total,
            emitted: 0,
            failed: 0,
        };
        emit_chunks()?;
    }
    Some(())
}

/// Streams the rest of argv. No reference to the scratch area lives across the loop, see
/// [`crate::kernel::path`].
#[inline(always)]
fn emit_chunks() -> Option<()> {
    // SAFETY: `argv_chunk` has the signature bpf_loop calls; it takes no context.
    unsafe {
        bpf_loop(ARGV_CHUNKS_MAX, argv_chunk as *const () as *mut c_void, core::ptr::null_mut(), 0)
    };
    let scratch = scratch::get()?;
    let copy = scratch.argv;
    scratch.exec.argv_chunks = copy.emitted;
    if copy.failed != 0 || copy.offset_bytes < copy.end_bytes {
        scratch.exec.header.unread |= unread::ARGV;
    }
    Some(())
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
    let mut header = scratch.exec.header;
    header.kind = Kind::ArgvChunk as u32;
    let emitted = emit::record_with(Kind::ArgvChunk, |slot: *mut ArgvChunk| {
        // SAFETY: the ring handed out room for one ArgvChunk, aligned to eight bytes. Its fixed
        // part is written here, of `bytes` as much as `len` says, and the collector reads no more.
        let chunk = unsafe { &mut *slot };
        let len = if scratch::in_bounds(len, 0, ARGV_CHUNK_BYTES as u64) { len as u32 } else { 0 };
        chunk.header = header;
        chunk.offset_bytes = copy.offset_bytes;
        chunk.len = len;
        chunk.padding = 0;
        let from = (copy.address + copy.offset_bytes) as *const c_void;
        // SAFETY: `bytes` has ARGV_CHUNK_BYTES bytes and `len` is no more; the helper checks `from`.
        failed = unsafe { bpf_probe_read_user(chunk.bytes.as_mut_ptr().cast(), len, from) };
    });
    scratch.argv.emitted = copy.emitted + u32::from(emitted);
    if failed != 0 || !emitted {
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
