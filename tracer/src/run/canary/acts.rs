//! What the canary process does: it leaves its cgroup and comes back (before this begins), forks, fails to exec by
//! either system call, connects over loopback and sends a byte, sends datagrams there by each of four ways, sends over
//! sockets that it brought along from outside its cgroup, sends to tracer over unix sockets, makes a raw socket and one
//! of netlink, takes control of a process outside its tree by each of three ways, and exits.

use std::{
    ffi::CStr,
    fs::{self, File},
    io::{self, Write as _},
    mem::{size_of_val, zeroed},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    process::ExitCode,
};

use super::REFUSED_CONTROL;

/// What it takes control of, before it is one: a process that is not of its tree. And sockets that are not of its
/// cgroup, as standard output (IPv4) and standard error (IPv6). Makes system calls only.
pub(super) fn bring_along(packets: &UnixDatagram) -> io::Result<()> {
    make_victim()?;
    // SAFETY: no memory is involved.
    checked(unsafe { libc::fcntl(packets.as_raw_fd(), libc::F_SETFD, 0) })?;
    bring_socket(libc::AF_INET, libc::STDOUT_FILENO)?;
    // Where there is no IPv6, none is expected.
    let _ = bring_socket(libc::AF_INET6, libc::STDERR_FILENO);
    Ok(())
}

fn bring_socket(family: libc::c_int, to: RawFd) -> io::Result<()> {
    // SAFETY: no memory is involved.
    let socket =
        checked(unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: no memory is involved; what was there is /dev/null.
    checked(unsafe { libc::dup2(socket, to) })?;
    Ok(())
}

/// Waits, stopped, until it is ended, with whoever made it at the latest.
fn make_victim() -> io::Result<()> {
    // Not by the C library, which would run what others want to have run at a fork.
    // SAFETY: without a stack and flags this is a fork; the child makes system calls only and ends.
    let victim = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if victim < 0 {
        return Err(io::Error::last_os_error());
    }
    if victim > 0 {
        return Ok(());
    }
    const ANYBODY: libc::c_ulong = libc::c_ulong::MAX;
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // So that whoever has no more rights than this may.
    // SAFETY: as above; it only makes readable what is tracer's own.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
    // SAFETY: as above. Where there is no Yama, nobody has to be named.
    unsafe { libc::prctl(PR_SET_PTRACER, ANYBODY) };
    // Somebody with fewer rights than the other may not.
    let _ = rustix::thread::set_capabilities(None, no_capabilities());
    loop {
        // SAFETY: stops this process.
        unsafe { libc::raise(libc::SIGSTOP) };
    }
}

/// include/uapi/linux/prctl.h.
const PR_SET_PTRACER: libc::c_int = 0x5961_6d61;

fn no_capabilities() -> rustix::thread::CapabilitySets {
    let none = rustix::thread::CapabilitySet::empty();
    rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none }
}

/// Never returns to the normal program.
pub fn main() -> ExitCode {
    if loopback_up().is_err() {
        // In the caller's own namespace, without the right to change it: loopback is up or not.
    }
    let (Ok(()), control) = (act(), take_control()) else { return ExitCode::FAILURE };
    match control {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(REFUSED_CONTROL),
    }
}

fn act() -> io::Result<()> {
    // SAFETY: this process has one thread, and the child does nothing but end.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the child without running destructors of the copied state.
        unsafe { libc::_exit(0) };
    }
    checked(child)?;
    let mut status = 0;
    // SAFETY: the status is writable.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    fail_to_exec();
    send_outside()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    TcpStream::connect(listener.local_addr()?)?.write_all(b"!")?;
    send_datagrams()?;
    // Without the right to it, its absence shows where it is expected; so does what cannot be made here.
    let _ = raw_socket();
    let _ = netlink_to_itself();
    Ok(())
}

/// A path at which nothing can be.
const NOWHERE: &CStr = c"/dev/null/tracer-canary";

fn fail_to_exec() {
    let argv = [NOWHERE.as_ptr(), std::ptr::null()];
    let none = [std::ptr::null::<libc::c_char>()];
    // SAFETY: the names are NUL-terminated and the vectors end with a null.
    unsafe { libc::execv(NOWHERE.as_ptr(), argv.as_ptr()) };
    // SAFETY: as above; the descriptor means nothing for an absolute path.
    unsafe {
        libc::syscall(libc::SYS_execveat, -1, NOWHERE.as_ptr(), argv.as_ptr(), none.as_ptr(), 0)
    };
}

/// By a stream, by a packet, and from a file, which older kernels have a way of their own for.
fn send_outside() -> io::Result<()> {
    // SAFETY: the descriptor is this process's own, and nothing else in it uses standard input.
    let mut stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(libc::STDIN_FILENO) });
    stream.write_all(b"!")?;
    send_file(stream.as_raw_fd())?;
    let packets = std::env::args().nth(1).and_then(|number| number.parse().ok());
    let packets: RawFd = packets.ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: whoever started this process left it the descriptor.
    UnixDatagram::from(unsafe { OwnedFd::from_raw_fd(packets) }).send(b"!")?;
    Ok(())
}

fn send_file(to: RawFd) -> io::Result<()> {
    let file = File::open("/proc/self/exe")?;
    // SAFETY: both descriptors are open, and there is no offset to write.
    match unsafe { libc::sendfile(to, file.as_raw_fd(), std::ptr::null_mut(), 1) } {
        1 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Over sockets that are followed, and over those that were brought along.
fn send_datagrams() -> io::Result<()> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let to = receiver.local_addr()?;
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(b"!", to)?;
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.connect(to)?;
    // SAFETY: nothing else in this process uses standard output.
    let brought = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(libc::STDOUT_FILENO) });
    brought.connect(to)?;
    brought.send(b"!")?;
    send_file(brought.as_raw_fd())?;
    if has_ipv6() {
        // Where nobody has to hear it, and where there may be no way to.
        let nobody = (Ipv6Addr::LOCALHOST, to.port());
        let _ = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?.send_to(b"!", nobody);
        let _ = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?.connect(nobody);
        // SAFETY: nothing else in this process uses standard error.
        let brought = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(libc::STDERR_FILENO) });
        // A socket of IPv6 that needs no address of IPv6.
        let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), to.port()));
        brought.connect(mapped)?;
        brought.send(b"!")?;
    }
    Ok(())
}

/// Whether sockets of IPv6 can be made; whether it has addresses is another question, which the probes
/// do not depend on.
pub(super) fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let socket = checked(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// A socket that is not followed. Where the right to it is missing, so is what it would show.
fn raw_socket() -> io::Result<()> {
    socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP).map(drop)
}

/// A socket of another family, which takes no right, and is noticed when it is made or when it sends.
fn netlink_to_itself() -> io::Result<()> {
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_USERSOCK)?;
    // SAFETY: all zeroes is a valid address: whichever is free.
    let mut address: libc::sockaddr_nl = unsafe { zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    let mut len = size_of_val(&address) as libc::socklen_t;
    let at = (&raw mut address).cast::<libc::sockaddr>();
    // SAFETY: `at` has `len` bytes, which live as long as the call.
    checked(unsafe { libc::bind(socket.as_raw_fd(), at, len) })?;
    // SAFETY: as above, and both are writable.
    checked(unsafe { libc::getsockname(socket.as_raw_fd(), at, &raw mut len) })?;
    // SAFETY: as above; the byte is readable.
    match unsafe { libc::sendto(socket.as_raw_fd(), b"!".as_ptr().cast(), 1, 0, at, len) } {
        1 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Of the process that was brought along, which is ended whatever comes of it.
fn take_control() -> io::Result<()> {
    let mut status = 0;
    // SAFETY: the status is writable.
    let victim = checked(unsafe { libc::waitpid(-1, &raw mut status, libc::WUNTRACED) })?;
    let taken =
        attach(victim).and_then(|()| write_memory(victim)).and_then(|()| take_descriptor(victim));
    // SAFETY: no memory is involved, and the process was not waited for since it stopped.
    unsafe { libc::kill(victim, libc::SIGKILL) };
    // SAFETY: the status is writable.
    while unsafe { libc::waitpid(victim, &raw mut status, libc::__WALL) } == victim
        && libc::WIFSTOPPED(status)
    {}
    taken
}

fn attach(victim: libc::pid_t) -> io::Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: no memory is involved.
    match unsafe { libc::ptrace(libc::PTRACE_SEIZE, victim, nothing, nothing) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One byte at the end of its stack, which nobody reads any more.
fn write_memory(victim: libc::pid_t) -> io::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{victim}/maps"))?;
    let stack = maps.lines().find(|line| line.ends_with("[stack]"));
    let begin = stack.and_then(|line| line.split('-').next());
    let begin = begin.and_then(|begin| usize::from_str_radix(begin, 16).ok());
    let there = begin.ok_or(io::ErrorKind::NotFound)?;
    let mut byte = 0_u8;
    let from = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let to = libc::iovec { iov_base: there as *mut libc::c_void, iov_len: 1 };
    // SAFETY: what is read is one byte of this process, and what is written is memory of the other one.
    match unsafe { libc::process_vm_writev(victim, &raw const from, 1, &raw const to, 1, 0) } {
        1 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn take_descriptor(victim: libc::pid_t) -> io::Result<()> {
    let pid = rustix::process::Pid::from_raw(victim).ok_or(io::ErrorKind::NotFound)?;
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    rustix::process::pidfd_getfd(
        process,
        libc::STDIN_FILENO,
        rustix::process::PidfdGetfdFlags::empty(),
    )?;
    Ok(())
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Sets IFF_UP on `lo`, which is down in a new network namespace.
fn loopback_up() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request names an interface and carries flags, as this ioctl reads them.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })?;
    Ok(())
}
