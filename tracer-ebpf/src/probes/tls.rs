//! The TLS library of a process: what it is given to send, and what it received.
//!
//! The breakpoints are in the library's file, so every process that has it mapped comes here; those
//! outside the tree pay the breakpoint and one look-up. Bytes are taken when a call has returned and
//! says how many it took or gave: a call that is repeated with the same bytes, as during a handshake,
//! says so once. They are user memory, and another thread could change them meanwhile.

use aya_ebpf::{
    EbpfContext, Global,
    cty::c_void,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_attach_cookie, bpf_loop, bpf_probe_read_user},
    },
    macros::{map, uprobe, uretprobe},
    maps::{Array, HashMap},
    programs::{ProbeContext, RetProbeContext},
};
use tracer_ebpf::abi::{
    Kind, NO_POINTER, TLS_CALL_BYTES_MAX, TLS_FILES_MAX, TLS_PIECE_BYTES, TLS_RANDOM_BYTES,
    TLS_SMALL_BYTES, TLS_UNKNOWN_BYTES, TlsBegin, TlsData, TlsEnd, TlsKey, TlsPlaces, TlsSession,
};

use crate::kernel::{
    emit,
    field::{self, KernelPtr},
    scratch,
    task::Task,
    tree::{self, Tracked},
};

/// Whether the programs below may be attached. Frozen at load.
#[unsafe(no_mangle)]
static WATCH_TLS: Global<u32> = Global::new(0);

/// Calls of one thread that are inside each other: a proxy spoken to by TLS has two sessions.
const DEPTH_MAX: usize = 4;

/// A call that has not returned.
#[derive(Clone, Copy)]
#[repr(C)]
struct Call {
    session: u64,
    buffer: u64,
    /// Where the library writes how many bytes there were; 0 where it returns that.
    count_at: u64,
    /// The stack pointer at the call: what is still below it never returned.
    stack: u64,
    began_ns: u64,
    received: u32,
    /// A call of the same session and direction inside another one: that one tells.
    inner: u32,
    /// Whose breakpoint it came to.
    file: u32,
    padding: u32,
}

#[repr(C)]
struct Calls {
    depth: u64,
    calls: [Call; DEPTH_MAX],
}

/// By thread. The collector sizes it. A call that finds no room is lost, and counted.
#[map]
static TLS_CALLS: HashMap<u64, Calls> = HashMap::with_max_entries(1, 0);

/// What a thread begins with; it would fill the stack.
#[map]
static NO_CALLS: Array<Calls> = Array::with_max_entries(1, 0);

/// Sessions that have not ended. The collector sizes it, and takes out those of processes that are
/// gone.
#[map]
static TLS_SESSIONS: HashMap<TlsKey, TlsSession> = HashMap::with_max_entries(1, 0);

/// By the number that the collector gave a file.
#[map]
static TLS_PLACES: Array<TlsPlaces> = Array::with_max_entries(TLS_FILES_MAX, 0);

#[inline(always)]
fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}

/// Whether calls by HTTP are read.
#[inline(always)]
pub(super) fn is_watched() -> bool {
    WATCH_TLS.load() != 0
}

/// The stack pointer at a breakpoint.
#[inline(always)]
fn stack(ctx: &impl EbpfContext) -> u64 {
    KernelPtr(ctx.as_ptr() as u64).read(&field::REGS_STACK).unwrap_or(0)
}

/// A thread of the tree ends; it may do so in the middle of a call.
#[inline(always)]
pub(super) fn forget_calls() {
    if is_watched() {
        let _ = TLS_CALLS.remove(thread());
    }
}

/// `SSL_write(session, buffer, length)`.
#[uprobe]
fn tls_write(ctx: ProbeContext) -> u32 {
    enter(&ctx, false, false);
    0
}

/// `SSL_write_ex(session, buffer, length, count)`.
#[uprobe]
fn tls_write_ex(ctx: ProbeContext) -> u32 {
    enter(&ctx, false, true);
    0
}

/// `SSL_read(session, buffer, length)`.
#[uprobe]
fn tls_read(ctx: ProbeContext) -> u32 {
    enter(&ctx, true, false);
    0
}

/// `SSL_read_ex(session, buffer, length, count)`.
#[uprobe]
fn tls_read_ex(ctx: ProbeContext) -> u32 {
    enter(&ctx, true, true);
    0
}

#[uretprobe]
fn tls_return(ctx: RetProbeContext) -> u32 {
    leave(&ctx);
    0
}

/// `SSL_free(session)` and `SSL_clear(session)`.
#[uprobe]
fn tls_end(ctx: ProbeContext) -> u32 {
    end(&ctx);
    0
}

#[inline(always)]
fn calls_of(thread: u64) -> Option<&'static mut Calls> {
    let calls = TLS_CALLS.get_ptr_mut(thread)?;
    // SAFETY: the entry of this thread, which is here and nowhere else.
    Some(unsafe { &mut *calls })
}

/// The entry at `at`, which must be below [`DEPTH_MAX`].
#[inline(always)]
fn call_at(calls: &mut Calls, at: u64) -> Option<&mut Call> {
    if !scratch::in_bounds(at, 0, DEPTH_MAX as u64 - 1) {
        return None;
    }
    // SAFETY: the position was just checked.
    let call = unsafe { calls.calls.as_mut_ptr().add(at as usize) };
    // SAFETY: as above; the element is there and nobody else has it.
    Some(unsafe { &mut *call })
}

/// Takes off the calls that never came back, which are below: the library jumped, or there was no room
/// for the return. How many are left.
#[inline(always)]
fn returned(process: &Tracked, calls: &mut Calls, stack: u64, file: u32) -> u64 {
    let mut depth = calls.depth;
    for _ in 0..DEPTH_MAX {
        let Some(last) = call_at(calls, depth.wrapping_sub(1)) else { break };
        if last.stack > stack {
            break;
        }
        depth -= 1;
        if last.inner == 0 {
            unseen(process, last.session, last.received, file);
        }
    }
    depth
}

#[inline(always)]
fn enter(ctx: &ProbeContext, received: bool, counts: bool) -> Option<()> {
    let process = tree::current(ctx)?;
    let session: u64 = ctx.arg(0)?;
    let buffer: u64 = ctx.arg(1)?;
    let count_at: u64 = if counts { ctx.arg(3)? } else { 0 };
    let thread = thread();
    let received = u32::from(received);
    let file = file(ctx);
    if TLS_CALLS.get_ptr(thread).is_none() && TLS_CALLS.insert(thread, NO_CALLS.get(0)?, 0).is_err()
    {
        unseen(&process, session, received, file);
        return None;
    }
    let stack = stack(ctx);
    let calls = calls_of(thread)?;
    if let Some(last) = call_at(calls, calls.depth.wrapping_sub(1))
        && last.stack == stack
        && last.session == session
        && last.received == received
    {
        // One file under two names, as overlays give it, has two breakpoints there.
        if last.file != file {
            return None;
        }
        // The other function of the two jumped here, and does not return itself.
        if (last.count_at != 0) != counts {
            calls.depth -= 1;
        }
    }
    let depth = returned(&process, calls, stack, file);
    // A program can write from within a read: it hears there that the handshake is over.
    let inner = call_at(calls, depth.wrapping_sub(1)).is_some_and(|last| {
        last.session == session && last.received == received && last.buffer == buffer
    });
    let Some(call) = call_at(calls, depth) else {
        unseen(&process, session, received, file);
        return None;
    };
    *call = Call {
        session,
        buffer,
        count_at,
        stack,
        began_ns: emit::now_ns(),
        received,
        inner: u32::from(inner),
        file,
        padding: 0,
    };
    calls.depth = depth + 1;
    Some(())
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
fn leave(ctx: &RetProbeContext) -> Option<()> {
    /// Between the stack pointer at a function's first instruction and behind its return.
    const RETURN_ADDRESS_BYTES: u64 = 8;
    let process = tree::current(ctx)?;
    let file = file(ctx);
    let stack = stack(ctx);
    let calls = calls_of(thread())?;
    let mut depth = calls.depth;
    let mut found = None;
    for _ in 0..DEPTH_MAX {
        let Some(last) = call_at(calls, depth.wrapping_sub(1)) else { break };
        if last.stack > stack {
            break;
        }
        depth -= 1;
        if stack - last.stack <= RETURN_ADDRESS_BYTES {
            found = Some(depth);
            break;
        }
        if last.inner == 0 {
            unseen(&process, last.session, last.received, file);
        }
    }
    calls.depth = depth;
    // Without one, the function had been entered before there was a breakpoint.
    let call = *call_at(calls, found?)?;
    let returned: i32 = ctx.ret();
    if call.inner != 0 || returned <= 0 {
        return None;
    }
    let mut count = u64::from(returned.cast_unsigned());
    if call.count_at != 0 && !read(call.count_at, &mut count) {
        unseen(&process, call.session, call.received, file);
        return None;
    }
    if count == 0 {
        return None;
    }
    exchanged(&process, &call, file, count)
}

/// The number of the file whose breakpoint this is.
#[inline(always)]
fn file(ctx: &impl EbpfContext) -> u32 {
    // SAFETY: the context is that of a probe of this kind.
    unsafe { bpf_get_attach_cookie(ctx.as_ptr()) as u32 }
}

/// A call of which is not known how many bytes it was: from here on, where bytes are in the session is
/// not known either.
#[inline(never)]
fn unseen(process: &Tracked, session: u64, received: u32, file: u32) {
    emit::missed(Kind::TlsData);
    if let Some(known) = session_of(process, session, file) {
        known.bytes[usize::from(received != 0)] += TLS_UNKNOWN_BYTES;
    }
}

/// What is known of a session, which begins with that if it is new.
#[inline(always)]
fn session_of(process: &Tracked, session: u64, file: u32) -> Option<&'static mut TlsSession> {
    let key = TlsKey { session, tgid: process.tgid, padding: 0 };
    let exec_id = Task::current().exec_id().unwrap_or(0);
    let is_known = |known: *mut TlsSession| {
        // SAFETY: a map's value, which lives as long as the map.
        let known = unsafe { &*known };
        known.start_ns == process.member.start_ns && known.exec_id == exec_id
    };
    let known = match TLS_SESSIONS.get_ptr_mut(key) {
        Some(known) if is_known(known) => known,
        Some(_) | None => {
            let new = TlsSession {
                stream: serial(),
                start_ns: process.member.start_ns,
                exec_id,
                padding: 0,
                bytes: [0; 2],
            };
            if TLS_SESSIONS.insert(key, new, 0).is_err() {
                emit::missed(Kind::TlsData);
                return None;
            }
            begin(process, session, new.stream, file);
            TLS_SESSIONS.get_ptr_mut(key)?
        }
    };
    // SAFETY: as above; a session is one thread's at a time, or the library breaks.
    Some(unsafe { &mut *known })
}

/// A session has exchanged bytes.
#[inline(always)]
fn exchanged(process: &Tracked, call: &Call, file: u32, count: u64) -> Option<()> {
    let known = session_of(process, call.session, file)?;
    let bytes = &mut known.bytes[if call.received == 0 { 0 } else { 1 }];
    let offset_bytes = *bytes;
    *bytes += count;
    let taken = count.min(u64::from(TLS_CALL_BYTES_MAX)) as u32;
    let pieces = Pieces {
        process: *process,
        stream: known.stream,
        offset_bytes,
        began_ns: call.began_ns,
        buffer: call.buffer,
        count,
        taken,
        received: call.received,
    };
    pieces.emit();
    Some(())
}

/// A number that no other session has: no CPU is here twice within a nanosecond.
#[inline(always)]
fn serial() -> u64 {
    const CPU_BITS: u32 = 12;
    (emit::now_ns() << CPU_BITS) | u64::from(emit::cpu() & ((1 << CPU_BITS) - 1))
}

#[inline(always)]
fn begin(process: &Tracked, session: u64, stream: u64, file: u32) {
    let places = TLS_PLACES.get(file);
    emit::record(Kind::TlsBegin, |begin: &mut TlsBegin| {
        process.fill_header(&mut begin.header, Kind::TlsBegin);
        begin.stream = stream;
        begin.session = session;
        let Some(places) = places else { return };
        for (place, room) in places.iter().zip(&mut begin.randoms) {
            if place.at == 0 {
                break;
            }
            let mut from = session;
            if place.pointer_at != NO_POINTER
                && !read(session + u64::from(place.pointer_at), &mut from)
            {
                from = 0;
            }
            let mut random = [0u8; TLS_RANDOM_BYTES];
            if from != 0 && read(from + u64::from(place.at), &mut random) {
                *room = random;
            }
            begin.count += 1;
        }
    });
}

#[inline(always)]
fn end(ctx: &ProbeContext) -> Option<()> {
    let process = tree::current(ctx)?;
    let key = TlsKey { session: ctx.arg(0)?, tgid: process.tgid, padding: 0 };
    // SAFETY: the entry is copied at once.
    let known = *unsafe { TLS_SESSIONS.get(key) }?;
    let _ = TLS_SESSIONS.remove(key);
    if known.start_ns == process.member.start_ns {
        emit::record(Kind::TlsEnd, |end: &mut TlsEnd| {
            process.fill_header(&mut end.header, Kind::TlsEnd);
            end.stream = known.stream;
            end.bytes = known.bytes;
        });
    }
    Some(())
}

/// The bytes of a call, and whose they are. Nothing in it changes while they are emitted: what is
/// asked of a piece follows from its number, so the verifier walks one of them.
struct Pieces {
    process: Tracked,
    stream: u64,
    offset_bytes: u64,
    began_ns: u64,
    buffer: u64,
    /// Of the call.
    count: u64,
    /// Of those that are taken.
    taken: u32,
    received: u32,
}

const _: () = assert!(TLS_PIECE_BYTES.is_power_of_two() && TLS_SMALL_BYTES.is_power_of_two());

/// A record with room for bytes.
#[repr(C)]
struct Room<const BYTES: usize> {
    data: TlsData,
    bytes: [u8; BYTES],
}

impl Pieces {
    #[inline(always)]
    fn emit(&self) {
        let pieces = (&raw const *self).cast_mut().cast();
        let count = self.taken.div_ceil(TLS_PIECE_BYTES as u32);
        // SAFETY: `piece` has the signature bpf_loop calls and reads its context as what it is.
        unsafe { bpf_loop(count, piece as *const () as *mut c_void, pieces, 0) };
    }

    #[inline(always)]
    fn emit_in<const BYTES: usize>(&self, done: u32, len: u32) {
        emit::record_with(Kind::TlsData, |slot: *mut Room<BYTES>| {
            // SAFETY: the ring handed out room for one record, aligned to eight bytes; each field is
            // written here, of the bytes as many as `len` says.
            let room = unsafe { &mut *slot };
            let data = &mut room.data;
            data.header.unread = 0;
            self.process.fill_header(&mut data.header, Kind::TlsData);
            data.stream = self.stream;
            data.offset_bytes = self.offset_bytes + u64::from(done);
            data.began_ns = self.began_ns;
            // The last one stands for what is not taken, too.
            let rest = self.count - u64::from(done);
            data.length_bytes = if done + len < self.taken { u64::from(len) } else { rest };
            data.received = self.received;
            data.len = 0;
            let to = room.bytes.as_mut_ptr();
            // From 1 to BYTES already; said once more by bits, because the verifier of 6.12 follows a
            // comparison into a branch that cannot be and finds any length there ("const tnum out of
            // sync with range bounds"). Hidden from LLVM, which would leave it out.
            let len =
                (core::hint::black_box(u64::from(len)).wrapping_sub(1) & (BYTES as u64 - 1)) + 1;
            let from = (self.buffer + u64::from(done)) as *const _;
            // SAFETY: there is room for BYTES bytes and `len` is no more; the helper checks the source.
            if unsafe { bpf_probe_read_user(to.cast(), len as u32, from) } == 0 {
                data.len = len as u32;
            }
        });
    }
}

/// Emits one of [`Pieces`]. Returns 1 when it was the last.
unsafe extern "C" fn piece(number: u64, pieces: *mut c_void) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    // SAFETY: what `Pieces::emit` gave bpf_loop, which calls this before it returns.
    let pieces = unsafe { &*pieces.cast::<Pieces>() };
    let done = number as u32 * TLS_PIECE_BYTES as u32;
    let len = pieces.taken.saturating_sub(done).min(TLS_PIECE_BYTES as u32);
    if len == 0 {
        return STOP;
    }
    if len <= TLS_SMALL_BYTES as u32 {
        pieces.emit_in::<TLS_SMALL_BYTES>(done, len);
    } else {
        pieces.emit_in::<TLS_PIECE_BYTES>(done, len);
    }
    GO_ON
}
