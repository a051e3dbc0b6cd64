//! The canary: a process of our own that does what the probes must see.
//!
//! A probe that is attached and does not fire is the classic silent failure. Before the command
//! starts and after it has ended, tracer starts itself as a canary, which leaves its cgroup and comes
//! back, execs, forks, fails to exec, connects over loopback and sends a byte, sends datagrams there by
//! each of four ways and a byte to tracer, makes a raw socket and exits; as many events of each kind must
//! arrive. It has a network namespace of its own
//! where that is allowed, so it neither needs nor changes the command's network.

use std::{
    collections::BTreeMap,
    ffi::CStr,
    io,
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, ExitCode, Stdio},
};

use tracer_ebpf::abi::{Kind, Role};

use super::{cgroup::Doors, signals::OriginalMask};
use crate::probe::Enroller;

/// argv[0] that makes this program a canary.
pub const NAME: &str = "tracer-canary";

/// Starts a canary. Beside it comes what it talks to: the other end of its standard input, of a process outside
/// its tree.
pub(super) fn spawn(
    enroller: Enroller,
    doors: Option<Doors>,
    mask: OriginalMask,
) -> io::Result<(Child, UnixStream)> {
    let (outside, inside) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).env_clear().stdin(Stdio::from(OwnedFd::from(inside)));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let in_child = move || {
        // SAFETY: no memory is involved. Where it is refused, the loopback of the caller must do.
        let _ = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        if let Some(doors) = &doors {
            doors.inside.enter()?;
        }
        enroller.enrol(Role::Canary)?;
        if let Some((doors, outside)) =
            doors.as_ref().and_then(|doors| Some((doors, doors.outside.as_ref()?)))
        {
            outside.enter()?;
            doors.inside.enter()?;
        }
        mask.restore()
    };
    // SAFETY: the closure makes system calls only: no allocation, no lock.
    unsafe { command.pre_exec(in_child) };
    Ok((command.spawn()?, outside))
}

/// Which kinds of a canary's events have come, from the counts before and now.
pub(super) fn seen(
    kinds: &[Kind],
    before: &BTreeMap<&'static str, u64>,
    now: &BTreeMap<&'static str, u64>,
) -> BTreeMap<String, bool> {
    let count =
        |counts: &BTreeMap<_, u64>, kind: Kind| counts.get(kind.name()).copied().unwrap_or(0);
    kinds
        .iter()
        .map(|kind| {
            (kind.name().to_owned(), count(now, *kind) >= count(before, *kind) + wanted(*kind))
        })
        .collect()
}

/// How many events of the kind a canary makes.
fn wanted(kind: Kind) -> u64 {
    #[expect(clippy::wildcard_enum_match_arm, reason = "of any other kind, one")]
    match kind {
        // The canary and the child it forks both exit.
        Kind::Exit => 2,
        // Each way has a probe of its own.
        Kind::Datagram if has_ipv6() => 4,
        Kind::Datagram => 2,
        _ => 1,
    }
}

/// Whether sockets of IPv6 can be made; whether it has addresses is another question, which the probes
/// do not depend on.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

/// What the canary process does. Never returns to the normal program.
pub fn main() -> ExitCode {
    if loopback_up().is_err() {
        // In the caller's own namespace, without the right to change it: loopback is up or not.
    }
    match act() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn act() -> io::Result<()> {
    // SAFETY: this process has one thread, and the child does nothing but end.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the child without running destructors of the copied state.
        unsafe { libc::_exit(0) };
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: the status is writable.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    // SAFETY: the names are NUL-terminated and the vectors end with a null.
    unsafe { libc::execv(NOWHERE.as_ptr(), [NOWHERE.as_ptr(), std::ptr::null()].as_ptr()) };
    io::Write::write_all(&mut outside(), b"!")?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    io::Write::write_all(&mut TcpStream::connect(listener.local_addr()?)?, b"!")?;
    let receiver = UdpSocket::bind(("127.0.0.1", 0))?;
    let to = receiver.local_addr()?;
    UdpSocket::bind(("127.0.0.1", 0))?.send_to(b"!", to)?;
    UdpSocket::bind(("127.0.0.1", 0))?.connect(to)?;
    if has_ipv6() {
        // Where nobody has to hear it, and where there may be no way to.
        let to = (Ipv6Addr::LOCALHOST, to.port());
        let _ = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?.send_to(b"!", to);
        let _ = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?.connect(to);
    }
    // Without the right to it, its absence shows where it is expected.
    let _ = raw_socket();
    Ok(())
}

/// A socket that is not followed. Where the right to it is missing, so is what it would show.
fn raw_socket() -> io::Result<()> {
    // SAFETY: no memory is involved.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(socket) });
    Ok(())
}

/// A path at which nothing can be.
const NOWHERE: &CStr = c"/dev/null/tracer-canary";

/// Standard input, which is a socket.
fn outside() -> UnixStream {
    // SAFETY: the descriptor is this process's own, and nothing else in it uses standard input.
    UnixStream::from(unsafe { OwnedFd::from_raw_fd(libc::STDIN_FILENO) })
}

/// Sets IFF_UP on `lo`, which is down in a new network namespace.
fn loopback_up() -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request names an interface and carries flags, as this ioctl reads them.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
