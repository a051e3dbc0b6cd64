//! A network namespace of a test's own, with nothing but loopback, and peers to connect to.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::UnshareFlags;
use tracer_tests::network::bring_up_loopback;

/// A proof of being on the thread that [`in_private_network`] made.
#[derive(Debug)]
pub(crate) struct Network(());

/// Runs `test` on a thread that has a new network namespace; the processes it starts are in it
/// too. The namespace ends with the last of them.
pub(crate) fn in_private_network<T: Send>(
    test: impl FnOnce(&Network) -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: UnshareFlags::FILES, the one that could pull descriptors away under their
            // owners, is not among the flags.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .context("cannot make a network namespace")?;
            bring_up_loopback()?;
            test(&Network(()))
        });
        thread.join().map_err(|_| anyhow!("the test panicked"))?
    })
}

impl Network {
    /// Connections opened in this namespace so far, as the kernel counts them.
    pub(crate) fn active_opens(&self) -> Result<u64> {
        let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
        tracer_tests::lab::active_opens_of(&text)
    }

    /// Listens on an address, port 0 for any. However slowly connections are accepted, none has to be made
    /// again for lack of room: what the kernel then drops is sent again seconds and minutes later.
    pub(crate) fn listen(&self, address: &str) -> Result<(TcpListener, SocketAddr)> {
        const WAITING: u16 = u16::MAX;
        fs::write("/proc/sys/net/core/somaxconn", WAITING.to_string())
            .context("cannot let connections wait")?;
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        // Of a socket that listens already, it sets how many may wait.
        rustix::net::listen(&listener, WAITING.into())?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }
}

/// What the other side of a connection does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) receives: u64,
    pub(crate) sends: usize,
    /// Closes at once; otherwise waits until the client has closed.
    pub(crate) closes_first: bool,
}

impl Peer {
    /// Serves `count` connections, one after another, on a thread of its own. Ends with the process
    /// at the latest.
    pub(crate) fn serve(self, listener: TcpListener, count: usize) {
        thread::spawn(move || {
            for stream in listener.incoming().take(count) {
                let Ok(mut stream) = stream else { return };
                let mut received = Vec::new();
                let _ = (&mut stream).take(self.receives).read_to_end(&mut received);
                let _ = stream.write_all(&vec![b'p'; self.sends]);
                if !self.closes_first {
                    let _ = stream.read_to_end(&mut received);
                }
            }
        });
    }
}
