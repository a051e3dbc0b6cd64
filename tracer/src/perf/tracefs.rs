//! Numbers of tracepoints.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// The tracepoint's number, from tracefs wherever it is mounted, or from an instance of our own
/// that is mounted nowhere.
pub(crate) fn tracepoint_id(group: &str, name: &str) -> io::Result<u64> {
    let file = format!("events/{group}/{name}/id");
    let text = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .find_map(|mount| std::fs::read_to_string(format!("{mount}/{file}")).ok())
        .map_or_else(|| detached_tracefs(&file), Ok)?;
    text.trim().parse().map_err(|_| io::Error::other("the tracepoint's id is not a number"))
}

/// Reads a file through a tracefs that only this descriptor sees (fsopen, 5.2+).
fn detached_tracefs(file: &str) -> io::Result<String> {
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
    std::fs::read_to_string(format!("/proc/self/fd/{}/{file}", mount.as_raw_fd()))
}
