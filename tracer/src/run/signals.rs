//! Signals, read from a descriptor.
//!
//! They are blocked in every thread of tracer and the command gets the caller's mask back, so a
//! terminal's Ctrl-C reaches the command as if tracer were not there, and tracer waits for what the
//! command makes of it.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use tokio::io::unix::AsyncFd;

/// Signals that end a program, and the death of a child.
const HANDLED: [libc::c_int; 5] =
    [libc::SIGCHLD, libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) signal: libc::c_int,
    /// A process sent it to tracer alone; otherwise the terminal sent it to the command too.
    pub(super) from_process: bool,
}

/// The mask tracer was started with.
#[derive(Clone, Copy)]
pub(super) struct OriginalMask(libc::sigset_t);

impl std::fmt::Debug for OriginalMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OriginalMask")
    }
}

/// Signals that a command gets from tracer: those that end a program.
pub(super) fn is_handed_on(signal: libc::c_int) -> bool {
    signal == libc::SIGKILL || (HANDLED.contains(&signal) && signal != libc::SIGCHLD)
}

fn handled() -> libc::sigset_t {
    // SAFETY: all zeroes is a valid signal set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is writable.
    unsafe { libc::sigemptyset(&raw mut set) };
    // Whoever ignores the loss of the terminal (nohup) means tracer too. Not so interrupts, which a shell
    // ignores for whatever it starts in the background.
    let handled =
        HANDLED.into_iter().filter(|signal| *signal != libc::SIGHUP || !is_ignored(*signal));
    for signal in handled {
        // SAFETY: the set was initialised above.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zeroes is a valid sigaction, of plain fields.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: it is only asked for, and the answer has room.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

impl OriginalMask {
    /// Blocks the signals in this thread and those it starts.
    pub(super) fn block() -> io::Result<OriginalMask> {
        let set = handled();
        let mut before = set;
        // SAFETY: both sets outlive the call.
        let error =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(OriginalMask(before))
    }

    /// Async-signal-safe.
    pub(super) fn restore(&self) -> io::Result<()> {
        // SAFETY: the set is initialised and outlives the call.
        match unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

pub(super) struct Signals {
    descriptor: AsyncFd<OwnedFd>,
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}

impl Signals {
    /// Blocks the signals in this thread and those it starts. Needs a running tokio runtime.
    pub(super) fn block() -> io::Result<Signals> {
        OriginalMask::block()?;
        let set = handled();
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just returned this descriptor and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: AsyncFd owns the descriptor until it is dropped.
        let descriptor = unsafe { AsyncFd::register(fd) }?;
        Ok(Signals { descriptor })
    }

    pub(super) async fn next(&mut self) -> io::Result<Received> {
        loop {
            let mut ready = self.descriptor.readable().await?;
            match ready.try_io(|descriptor| read_one(descriptor.as_raw_fd())) {
                Ok(result) => return result,
                Err(_would_block) => continue,
            }
        }
    }
}

fn read_one(fd: RawFd) -> io::Result<Received> {
    // SAFETY: all zeroes is a valid signalfd_siginfo.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info);
    // SAFETY: the buffer is `size` bytes long.
    let read = unsafe { libc::read(fd, (&raw mut info).cast(), size) };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Received {
        signal: libc::c_int::try_from(info.ssi_signo).unwrap_or(0),
        from_process: info.ssi_code <= 0, // SI_USER, SI_QUEUE, SI_TKILL; the kernel's are positive
    })
}
