//! The process that sends log records.
//!
//! Making connections is among what tracer gives up, so a process of its own does that: forked before anything is
//! loaded, with no capability, no file and no descriptor but a socket to tracer and those to the collector
//! ([`confine_sender`]). It gets the bodies of requests and says what became of each, in frames: the
//! length, as four bytes in the machine's order, and so many bytes. When tracer is gone it ends. When it is
//! gone, what was not sent is counted, and tracing goes on.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    panic::AssertUnwindSafe,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, SocketFlags, SocketType, socketpair,
        sockopt::{Timeout, set_socket_timeout},
    },
    process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid},
};

use super::{broker, sandbox::confine_sender, signals::OriginalMask};
use crate::otlp::{Answer, Client, Collector, Post, TIMEOUT};

/// Longer than collectors take.
const BODY_BYTES_MAX: usize = 256 << 20;
/// An answer is a sentence at most.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// It answers in [`TIMEOUT`], whatever the collector does.
const ANSWERS_IN: Duration = TIMEOUT.saturating_mul(2);

/// Having closed its side, it has nothing left to do.
const ENDS_IN: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// The process, as tracer has it.
#[derive(Debug)]
pub struct SenderProcess {
    collector: Collector,
    pid: Pid,
    /// Readable when it has ended.
    ended: OwnedFd,
    /// Or why nothing can be sent any more.
    connection: Result<File, String>,
}

impl SenderProcess {
    /// Forks it. To be called while the process has one thread.
    pub fn start(collector: Collector) -> io::Result<SenderProcess> {
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        for which in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&here, which, Some(ANSWERS_IN))?;
        }
        // A terminal's Ctrl-C is for the command.
        let mask = OriginalMask::block()?;
        // SAFETY: this process has one thread, so the child finds no lock taken and no state half changed.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let serving = AssertUnwindSafe(|| serve(there, &collector));
            let done = std::panic::catch_unwind(serving).is_ok();
            // SAFETY: ends the process without running what belongs to tracer.
            unsafe { libc::_exit(i32::from(!done)) };
        }
        mask.restore()?;
        let Some(pid) = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 0) else {
            return Err(io::Error::last_os_error());
        };
        broker::add_own(pid);
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        let mut here = File::from(here);
        let greeting: Result<(), String> = receive(&mut here)?;
        greeting.map_err(io::Error::other)?;
        Ok(SenderProcess { collector, pid, ended, connection: Ok(here) })
    }

    fn gone(&self, error: &io::Error) -> String {
        // A process that ends closes what it has before it can be waited for.
        if error.kind() != io::ErrorKind::WouldBlock {
            let mut ended = [PollFd::new(&self.ended, PollFlags::IN)];
            // Whether it did is what waiting for it says.
            let _ = poll(&mut ended, Some(&ENDS_IN));
        }
        let ended = match waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => match (status.terminating_signal(), status.exit_status()) {
                (Some(signal), _) => format!("was killed by signal {signal}"),
                (None, Some(code)) => format!("ended with {code}"),
                (None, None) => "ended".to_owned(),
            },
            Ok(None) | Err(_) => format!("does not answer ({error})"),
        };
        format!("the process that sends them {ended}")
    }
}

impl Post for SenderProcess {
    fn url(&self) -> String {
        self.collector.to_string()
    }

    fn post(&mut self, body: &[u8]) -> Answer {
        if body.len() > BODY_BYTES_MAX {
            return Answer::Refused(format!("a request of {} bytes is too long", body.len()));
        }
        let connection = match &mut self.connection {
            Ok(connection) => connection,
            Err(why) => return Answer::Refused(why.clone()),
        };
        match send(connection, body).and_then(|()| receive(connection)) {
            Ok(answer) => answer,
            Err(error) => {
                // An answer that comes after all would be taken for that to something else.
                let why = self.gone(&error);
                self.connection = Err(why.clone());
                Answer::Refused(why)
            }
        }
    }
}

fn send(to: &mut File, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_ne_bytes())?;
    to.write_all(bytes)
}

fn receive_bytes(from: &mut File, most: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_ne_bytes(length)).map_err(io::Error::other)?;
    if length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn receive<T: serde::de::DeserializeOwned>(from: &mut File) -> io::Result<T> {
    Ok(serde_json::from_slice(&receive_bytes(from, ANSWER_BYTES_MAX)?)?)
}

/// The process's side, until tracer is gone.
fn serve(socket: OwnedFd, collector: &Collector) {
    // Only to be told apart in a list of processes.
    let _ = rustix::thread::set_name(c"tracer-sender");
    let confined = leave_descriptors(&socket).and_then(|()| confine_sender(collector));
    let confined = confined.map_err(|error| format!("it cannot give up its rights: {error}"));
    let mut socket = File::from(socket);
    let say = |socket: &mut File, what: &[u8]| send(socket, what).is_ok();
    let greeting = serde_json::to_vec(&confined).unwrap_or_default();
    if !say(&mut socket, &greeting) || confined.is_err() {
        return;
    }
    let client = Client::new(collector);
    while let Ok(body) = receive_bytes(&mut socket, BODY_BYTES_MAX) {
        let answer = serde_json::to_vec(&client.post(&body)).unwrap_or_default();
        if !say(&mut socket, &answer) {
            return;
        }
    }
}

/// Closes all but this one. The standard ones are open still, and lead nowhere.
fn leave_descriptors(but: &OwnedFd) -> io::Result<()> {
    let nowhere = File::options().read(true).write(true).open("/dev/null")?;
    for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: no memory is involved.
        if unsafe { libc::dup2(nowhere.as_raw_fd(), standard) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    drop(nowhere);
    let but = but.as_fd().as_raw_fd().unsigned_abs();
    for (first, last) in [(3, but.saturating_sub(1)), (but + 1, u32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: nothing in this process uses another descriptor from here on.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
