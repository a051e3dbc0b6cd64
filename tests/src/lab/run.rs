//! Runs one command as if it had been started without the lab: signals reach it, and the lab
//! outlives it.

use std::io;
use std::mem::MaybeUninit;
use std::process::{Command, ExitStatus};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, WaitId, WaitIdOptions};

/// Signals that end a process, and which the command must be left to decide about.
const FORWARDED: [libc::c_int; 6] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// The command's process, 0 while there is none.
static COMMAND: AtomicI32 = AtomicI32::new(0);
/// A signal that came while there was none, else 0.
static PENDING: AtomicI32 = AtomicI32::new(0);

/// Spawns the command and waits for it. Meanwhile a signal to this process goes to the command,
/// except one from the terminal, which the command gets by itself. One call a process.
pub fn run(command: &mut Command) -> io::Result<ExitStatus> {
    for signal in FORWARDED {
        forward(signal)?;
    }
    let mut child = command.spawn()?;
    // Linux pids are positive and below 2^22.
    COMMAND.store(child.id().cast_signed(), Ordering::SeqCst);
    let pending = PENDING.swap(0, Ordering::SeqCst);
    if pending != 0 {
        // SAFETY: kill has no memory effects; the child is not reaped, so the pid is its own.
        unsafe { libc::kill(child.id().cast_signed(), pending) };
    }
    // Not reaped before the handler has forgotten its pid, which may be given away after.
    if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(pid), options))?;
    }
    COMMAND.store(0, Ordering::SeqCst);
    child.wait()
}

fn forward(signal: libc::c_int) -> io::Result<()> {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `old` is valid for a write of one sigaction and nothing is installed.
    if unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the successful call above filled it.
    if unsafe { old.assume_init_ref() }.sa_sigaction == libc::SIG_IGN {
        // As nohup does: ignored here means ignored in the command too.
        return Ok(());
    }
    // SAFETY: sigaction is plain data, for which all zeroes is a value: an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler has the type that SA_SIGINFO asks for and is async-signal-safe.
    if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo.
    let from_terminal = unsafe { &*info }.si_code == libc::SI_KERNEL;
    let command = COMMAND.load(Ordering::SeqCst);
    if command == 0 {
        PENDING.store(signal, Ordering::SeqCst);
    } else if !from_terminal {
        // SAFETY: kill is async-signal-safe; the pid is not reaped while it is stored.
        unsafe { libc::kill(command, signal) };
    }
}
