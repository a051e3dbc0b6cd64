//! Network namespaces.

use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};

/// Of the calling thread's network namespace.
pub fn bring_up_loopback() -> Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        *to = from.cast_signed();
    }
    // IFF_UP is 1 in every ABI, so it fits the field.
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if status != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot bring up loopback");
    }
    Ok(())
}
