//! The independent witness: the kernel's own count of execs.
//!
//! A counting perf event on `sched:sched_process_exec` with `inherit` follows every fork of the
//! task it was opened on, without rings, maps or programs of ours. It is opened on the thread that
//! then forks the command, so it covers the whole tree and nothing else of tracer.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// Counts execs of the descendants of the thread that opened it.
#[derive(Debug)]
pub(super) struct ExecWitness {
    event: File,
}

impl ExecWitness {
    /// Opens the counter on the calling thread.
    pub(super) fn open() -> io::Result<ExecWitness> {
        /// `struct perf_event_attr`, its first published size (PERF_ATTR_SIZE_VER0).
        #[repr(C)]
        #[derive(Default)]
        struct Attributes {
            kind: u32,
            size: u32,
            config: u64,
            sample_period: u64,
            sample_type: u64,
            read_format: u64,
            flags: u64,
            wakeup_events: u32,
            breakpoint: u32,
            config1: u64,
        }
        const PERF_TYPE_TRACEPOINT: u32 = 2;
        const FLAG_INHERIT: u64 = 1 << 1;
        const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
        let attributes = Attributes {
            kind: PERF_TYPE_TRACEPOINT,
            size: size_of::<Attributes>() as u32,
            config: tracepoint_id()?,
            flags: FLAG_INHERIT,
            ..Attributes::default()
        };
        let (this_thread, any_cpu, no_group) = (0, -1, -1);
        // SAFETY: `attributes` has the layout and the size it names and outlives the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                this_thread,
                any_cpu,
                no_group,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        let fd =
            i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel just returned this descriptor and nobody else has it.
        Ok(ExecWitness { event: unsafe { File::from_raw_fd(fd) } })
    }

    /// Execs counted so far, in the tasks that are alive and in those that have exited.
    pub(super) fn read(&mut self) -> io::Result<u64> {
        let mut count = [0; 8];
        self.event.read_exact(&mut count)?;
        Ok(u64::from_ne_bytes(count))
    }
}

const ID: &str = "events/sched/sched_process_exec/id";

/// The tracepoint's number, from tracefs wherever it is mounted, or from an instance of our own
/// that is mounted nowhere.
fn tracepoint_id() -> io::Result<u64> {
    let text = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .find_map(|mount| std::fs::read_to_string(format!("{mount}/{ID}")).ok())
        .map_or_else(detached_tracefs, Ok)?;
    text.trim().parse().map_err(|_| io::Error::other("the tracepoint's id is not a number"))
}

/// Reads the id through a tracefs that only this descriptor sees (fsopen, 5.2+).
fn detached_tracefs() -> io::Result<String> {
    const FSOPEN_CLOEXEC: libc::c_long = 1;
    const FSCONFIG_CMD_CREATE: libc::c_long = 6;
    const FSMOUNT_CLOEXEC: libc::c_long = 1;
    let check = |result: libc::c_long| {
        i32::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)
    };
    // SAFETY: the name is NUL-terminated.
    let context =
        check(unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), FSOPEN_CLOEXEC) })?;
    // SAFETY: the kernel just returned this descriptor and nobody else has it.
    let context = unsafe { OwnedFd::from_raw_fd(context) };
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither key nor value.
    check(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0)
    })?;
    // SAFETY: no memory is involved.
    let mount = check(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0)
    })?;
    // SAFETY: the kernel just returned this descriptor and nobody else has it.
    let mount = unsafe { OwnedFd::from_raw_fd(mount) };
    std::fs::read_to_string(format!("/proc/self/fd/{}/{ID}", mount.as_raw_fd()))
}
