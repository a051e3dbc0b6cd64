//! Messages between tracer and its broker.

use std::{
    collections::VecDeque,
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracer::run::wire;

use super::{in_a_file, pieces};

/// Packets between tracer and its broker. Each begins with a byte that says how many descriptors are beside it.
pub(super) fn broker_messages(bytes: &[u8]) {
    received::<wire::Request>(bytes);
    received::<wire::Reply>(bytes);
}

/// Of a message, how many descriptors are beside it. Whatever else is in it need not even be UTF-8.
#[derive(Deserialize)]
struct Announced {
    descriptors: u64,
}

fn connected() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("there is a socket")
}

/// Each message comes with all descriptors it says it has. What comes out can be sent, and is then the same.
fn received<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    // Few, because this process has other files, and short, so that they can be sent also if all their
    // bytes have to be escaped.
    const PACKETS_MAX: usize = 16;
    const DESCRIPTORS_MAX: usize = 8;
    const PACKET_BYTES_MAX: usize = 16_000;
    let (here, there) = connected();
    let (back, forth) = connected();
    let file = in_a_file(b"");
    let mut sent = VecDeque::new();
    for piece in pieces(bytes).take(PACKETS_MAX) {
        let Some((descriptors, packet)) = piece.split_first() else { continue };
        let descriptors = usize::from(*descriptors) % DESCRIPTORS_MAX;
        let many = vec![file.as_fd(); descriptors];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut room);
        if !many.is_empty() {
            beside.push(SendAncillaryMessage::ScmRights(&many));
        }
        let packet = &packet[..packet.len().min(PACKET_BYTES_MAX)];
        // Nobody reads yet, so it would wait for ever when there is no more room.
        let flags = SendFlags::DONTWAIT;
        if sendmsg(&here, &[IoSlice::new(packet)], &mut beside, flags).is_err() {
            break;
        }
        let said: Option<Announced> = serde_json::from_slice(packet).ok();
        sent.push_back((said.map(|said| said.descriptors), descriptors));
    }
    drop(here);
    while let Ok(Some((message, descriptors))) = wire::receive::<T>(&there) {
        let (announced, mut beside) = sent.pop_front().expect("it was sent");
        while (beside as u64) < announced.expect("it says how many there are") {
            beside += sent.pop_front().expect("it was sent").1;
        }
        assert_eq!(descriptors.len(), beside, "not all descriptors are there, or others");
        let said = serde_json::to_value(&message).expect("any message can be written");
        let beside: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        wire::send(&back, message, &beside).expect("what was received can be sent");
        let (again, and_beside) = wire::receive::<T>(&forth)
            .expect("what is sent can be received")
            .expect("the other side is there");
        let again = serde_json::to_value(&again).expect("any message can be written");
        assert_eq!((again, and_beside.len()), (said, beside.len()), "it is another one");
    }
}
