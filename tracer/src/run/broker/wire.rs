//! What is said between tracer and its broker, and how.
//!
//! One packet is one message: JSON, with descriptors beside it. A kernel takes 253 descriptors with a packet
//! (SCM_MAX_FD), so a message with more of them is followed by packets that bring the rest.
//!
//! Public for the tests that read packets of anybody; nothing else speaks it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::model::Bytes;

/// What tracer asks for. Nothing in it says what to run or where to write: the broker knows that from before
/// tracer read anything.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// A cgroup for the command, or for canaries: below tracer's own, or below this one.
    MakeCgroup {
        below: Option<Bytes>,
    },
    /// Start a canary. Beside it: the program that enrols it.
    Canary,
    /// Start the command. Beside it: the program that enrols it.
    Launch {
        counts_execs: bool,
        maps_bytes: Option<usize>,
        maps_at_once: bool,
    },
    /// Whether a child has ended.
    Ended {
        child: u32,
    },
    Signal {
        child: u32,
        signal: i32,
    },
    /// The next file of the recording.
    Part {
        number: u32,
    },
    /// A descriptor that names a file and does nothing else.
    Open {
        path: Bytes,
    },
    /// A descriptor that reads a regular file. Beside it: one that names it.
    Read,
    /// Breakpoints, for as long as the descriptor that comes with the reply is open. Beside it: the
    /// program that runs there, and the file. See [`Breakpoints`](crate::probe::Breakpoints).
    Break {
        offsets: Vec<u64>,
        cookie: u64,
        at_return: bool,
        together: bool,
    },
    /// Add to a watch of files. Beside it: the watch, and a descriptor that names the file.
    Mark {
        mask: u64,
    },
    /// Beside it: descriptors that the kernel takes long to close. They are closed after the end.
    CloseLater,
    /// The end: whatever was made is undone before the reply.
    Finish,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Cgroup {
        path: Bytes,
    },
    /// Beside it: a pidfd, the counter of execs if there is one, and the events of mappings.
    Started {
        child: u32,
        witness: Option<Result<(), String>>,
        maps: Option<Result<usize, String>>,
    },
    NotStarted(Refusal),
    /// As wait(2) has it; none while it runs.
    Ended {
        status: Option<i32>,
    },
    /// Beside it: the descriptor.
    Opened,
    Failed {
        errno: Option<i32>,
        why: String,
    },
}

/// Why a command was not started, see [`LaunchError`](super::super::LaunchError).
#[derive(Debug, Serialize, Deserialize)]
pub enum Refusal {
    NotFound,
    NotStarted { errno: Option<i32>, why: String },
    NotEnrolled,
    NotTheUser,
    NotInCgroup,
    NoThread { why: String },
}

impl Reply {
    pub(super) fn failed(error: &io::Error) -> Reply {
        Reply::Failed { errno: error.raw_os_error(), why: error.to_string() }
    }
}

/// The error of another process.
pub(super) fn error_of(errno: Option<i32>, why: String) -> io::Error {
    errno.map_or_else(|| io::Error::other(why), io::Error::from_raw_os_error)
}

#[derive(Serialize, Deserialize)]
struct Message<T> {
    descriptors: usize,
    body: T,
}

/// Longer than any request: two paths at most, of which the kernel takes 4,096 bytes each, in JSON.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Fewer than SCM_MAX_FD.
const DESCRIPTORS_PER_PACKET: usize = 128;
/// More than any machine has processors.
const DESCRIPTORS_MAX: usize = 16 * 1024;

pub fn send<T: Serialize>(
    socket: &OwnedFd,
    body: T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let message = Message { descriptors: descriptors.len(), body };
    let text = serde_json::to_vec(&message)?;
    let (first, rest) = descriptors.split_at(descriptors.len().min(DESCRIPTORS_PER_PACKET));
    send_packet(socket, &text, first)?;
    rest.chunks(DESCRIPTORS_PER_PACKET).try_for_each(|chunk| send_packet(socket, b"+", chunk))
}

fn send_packet(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_PACKET))];
    let mut beside = SendAncillaryBuffer::new(&mut room);
    if !descriptors.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// None when the other side is gone.
pub fn receive<T: DeserializeOwned>(socket: &OwnedFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut descriptors = Vec::new();
    let text = receive_packet(socket, &mut descriptors)?;
    if text.is_empty() {
        return Ok(None);
    }
    let message: Message<T> = serde_json::from_slice(&text)?;
    if message.descriptors > DESCRIPTORS_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    while descriptors.len() < message.descriptors {
        if receive_packet(socket, &mut descriptors)?.is_empty() {
            return Ok(None);
        }
    }
    Ok(Some((message.body, descriptors)))
}

fn receive_packet(socket: &OwnedFd, descriptors: &mut Vec<OwnedFd>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_PACKET))];
    let mut beside = RecvAncillaryBuffer::new(&mut room);
    let received = loop {
        let into = &mut [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket, into, &mut beside, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    // A cut message, or descriptors that this process has no room for.
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other(
            "descriptors or bytes of a message were lost; is the limit of open files (RLIMIT_NOFILE) too low?",
        ));
    }
    bytes.truncate(received.bytes);
    Ok(bytes)
}

/// Borrows all.
pub(super) fn borrow<T: AsFd>(descriptors: &[T]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn more_descriptors_than_a_packet_takes_arrive() {
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        for count in [0, 1, DESCRIPTORS_PER_PACKET, DESCRIPTORS_PER_PACKET * 2 + 1] {
            let many = vec![here.as_fd(); count];
            send(&here, Request::Open { path: Bytes(b"/\xff\x00".to_vec()) }, &many).unwrap();
            let (request, got) = receive::<Request>(&there).unwrap().unwrap();
            assert!(matches!(request, Request::Open { path } if path.0 == b"/\xff\x00"));
            assert_eq!(got.len(), count);
        }
        drop(here);
        assert!(receive::<Request>(&there).unwrap().is_none());
    }
}
