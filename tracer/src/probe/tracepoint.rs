//! Attaching a program to a classic tracepoint.
//!
//! aya can do that too, but only where tracefs is mounted.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use crate::perf;

/// Runs `program` at the tracepoint, whoever comes there, until the descriptor is closed.
pub(super) fn attach(group: &str, name: &str, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
    const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
    let event = perf::open_tracepoint_of_all(perf::tracepoint_id(group, name)?)?;
    for (request, argument) in
        [(PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()), (PERF_EVENT_IOC_ENABLE, 0)]
    {
        // SAFETY: both requests take a plain number: a descriptor, which is open, and nothing.
        if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(event)
}
