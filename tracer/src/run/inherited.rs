//! What the caller handed to tracer and the command must get unchanged.
//!
//! Before `main`, Rust's runtime ignores SIGPIPE and opens /dev/null for standard descriptors that
//! are closed. tracer itself needs SIGCHLD at its default and must survive SIGXFSZ. So the state is
//! taken earlier, in an initialiser, and put back in the child before it executes the command.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU8, Ordering},
};

/// Signals whose disposition differs between tracer and the command.
const SIGNALS: [libc::c_int; 3] = [libc::SIGPIPE, libc::SIGCHLD, libc::SIGXFSZ];
const DESCRIPTORS: [libc::c_int; 3] =
    [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO];

/// Bit n: the n-th of [`SIGNALS`] was ignored.
static IGNORED: AtomicU8 = AtomicU8::new(0);
/// Bit n: descriptor n was closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Run by the loader before `main` and before Rust's runtime.
#[used]
// SAFETY: .init_array holds pointers to functions that take no argument tracer needs; this one
// calls async-signal-safe functions only and needs nothing that the runtime sets up.
#[unsafe(link_section = ".init_array")]
static TAKE: extern "C" fn() = take;

extern "C" fn take() {
    let mut ignored = 0;
    for (bit, signal) in SIGNALS.iter().enumerate() {
        // SAFETY: all zeroes is a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: a null new action only asks for the old one, which is writable.
        let asked = unsafe { libc::sigaction(*signal, std::ptr::null(), &raw mut action) };
        if asked == 0 && action.sa_sigaction == libc::SIG_IGN {
            ignored |= 1 << bit;
        }
    }
    let mut closed = 0;
    for (bit, descriptor) in DESCRIPTORS.iter().enumerate() {
        // SAFETY: no memory is involved.
        if unsafe { libc::fcntl(*descriptor, libc::F_GETFD) } < 0 {
            closed |= 1 << bit;
        }
    }
    IGNORED.store(ignored, Ordering::Relaxed);
    CLOSED.store(closed, Ordering::Relaxed);
}

/// Whether standard output was closed when tracer was started.
pub fn stdout_was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed) & (1 << libc::STDOUT_FILENO) != 0
}

fn set(signal: libc::c_int, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: the handler is SIG_IGN or SIG_DFL: no code of ours runs in it.
    if unsafe { libc::signal(signal, handler) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What tracer needs for itself.
pub(super) fn settle() -> io::Result<()> {
    // Ignored, children would be reaped before they can be waited for.
    set(libc::SIGCHLD, libc::SIG_DFL)?;
    // A recording that hits the file size limit is an error, not the end of tracer.
    set(libc::SIGXFSZ, libc::SIG_IGN)
}

/// In the child: what the caller had. Async-signal-safe.
pub(super) fn restore() -> io::Result<()> {
    let (ignored, closed) = (IGNORED.load(Ordering::Relaxed), CLOSED.load(Ordering::Relaxed));
    for (bit, signal) in SIGNALS.iter().enumerate() {
        let handler = if ignored & (1 << bit) != 0 { libc::SIG_IGN } else { libc::SIG_DFL };
        set(*signal, handler)?;
    }
    for (bit, descriptor) in DESCRIPTORS.iter().enumerate() {
        if closed & (1 << bit) != 0 {
            // SAFETY: the command is to find it closed; nothing of tracer runs here afterwards.
            unsafe { libc::close(*descriptor) };
        }
    }
    Ok(())
}

/// Whether it is a socket of another domain than unix.
pub(super) fn is_network(descriptor: BorrowedFd<'_>) -> bool {
    !rustix::net::sockopt::socket_domain(descriptor)
        .is_ok_and(|domain| domain == rustix::net::AddressFamily::UNIX)
}

/// Whether all that is sent over it goes to the one that the caller has connected it to. A socket for datagrams, or one
/// that is not connected, can be connected to anybody.
pub(super) fn is_to_one(descriptor: BorrowedFd<'_>) -> bool {
    use rustix::net::{SocketType, getpeername, sockopt::socket_type};
    socket_type(descriptor).is_ok_and(|kind| kind != SocketType::DGRAM)
        && getpeername(descriptor).is_ok()
}

/// Inode numbers of those sockets among the descriptors that a child keeps: the caller's.
pub(super) fn sockets(wanted: impl Fn(BorrowedFd<'_>) -> bool) -> Vec<u64> {
    let descriptors = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let mut inodes: Vec<u64> = descriptors
        .filter_map(|entry| {
            let number: i32 = entry.file_name().to_str()?.parse().ok()?;
            // SAFETY: F_GETFD touches no memory.
            let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
            if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
                return None;
            }
            let target = std::fs::read_link(entry.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
            // SAFETY: it was open a moment ago and no thread of tracer closes what the caller gave.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            inode.filter(|_| wanted(descriptor))
        })
        .collect();
    inodes.sort_unstable();
    inodes.dedup();
    inodes
}
