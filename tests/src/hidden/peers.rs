//! Who can be reached in a row's network namespace.
//!
//! | port | |
//! |---|---|
//! | TCP 443 | takes connections to any address, reads once, closes; knows TCP Fast Open |
//! | TCP 444 | the same, and speaks MPTCP where the kernel does |
//! | TCP 82 of 127.0.0.1 | a queue of one that is full: nothing is answered |
//! | TCP 81 | nobody: refused |
//! | UDP 443 | takes datagrams to any address, answers none |

use std::{
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, Shutdown, SocketType, bind, ipproto, listen, shutdown, socket};

const ANSWERS: u16 = 443;
const ANSWERS_MULTIPATH: u16 = 444;
const FULL: u16 = 82;
const QUEUE: i32 = 128;

/// They end with this.
#[derive(Debug)]
pub struct Peers {
    _listeners: Vec<Listener>,
    _datagrams: UdpSocket,
    _full: (TcpListener, TcpStream),
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Peers {
    /// In the network namespace of the calling thread, which must have nothing on these ports.
    pub fn start() -> Result<Peers> {
        // Bit 0 lets clients, bit 1 lets servers; without it, there is no Fast Open to be tried.
        let fast_open = fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3");
        let plain = listener(ANSWERS, None)?;
        if fast_open.is_ok() {
            let_fast_open(&plain)?;
        }
        let mut listeners = vec![Listener::serve(plain)?];
        if let Ok(multipath) = listener(ANSWERS_MULTIPATH, Some(ipproto::MPTCP)) {
            listeners.push(Listener::serve(multipath)?);
        }
        Ok(Peers {
            _listeners: listeners,
            _datagrams: UdpSocket::bind(("::", ANSWERS)).context("cannot bind a UDP socket")?,
            _full: full()?,
        })
    }
}

impl Listener {
    fn serve(socket: TcpListener) -> Result<Listener> {
        let own = socket.try_clone()?;
        let thread = thread::spawn(move || {
            for stream in own.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut some = [0_u8; 4096];
                // Whatever came of it, the connection is over.
                let _ = stream.read(&mut some);
            }
        });
        Ok(Listener { socket, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Wakes the thread up, whose accept then fails.
        let _ = shutdown(&self.socket, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// On all addresses of both families.
fn listener(port: u16, protocol: Option<rustix::net::Protocol>) -> Result<TcpListener> {
    let made: OwnedFd = socket(AddressFamily::INET6, SocketType::STREAM, protocol)?;
    rustix::net::sockopt::set_ipv6_v6only(&made, false)?;
    bind(&made, &SocketAddrV6::new(std::net::Ipv6Addr::UNSPECIFIED, port, 0, 0))?;
    listen(&made, QUEUE)?;
    Ok(made.into())
}

fn let_fast_open(listener: &TcpListener) -> Result<()> {
    let queue: libc::c_int = 16;
    // SAFETY: the option's value is one int, which outlives the call.
    let set = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN,
            (&raw const queue).cast(),
            size_of_val(&queue) as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).context("TCP_FASTOPEN") }
}

/// A listener whose queue of one is full, and who fills it.
fn full() -> Result<(TcpListener, TcpStream)> {
    let full = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&full, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, FULL))?;
    listen(&full, 0)?;
    let full = TcpListener::from(full);
    let queued = TcpStream::connect((Ipv4Addr::LOCALHOST, FULL))?;
    Ok((full, queued))
}
