//! What was already said of processes outside the tree.

use aya_ebpf::{macros::map, maps::LruHashMap};
use tracer_ebpf::abi::SOCKET_NAME_BYTES;

use super::{
    field::{self, KernelPtr},
    tree::Tracked,
};

/// A process of the tree and the one it reached.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Contact {
    pub(crate) tgid: u32,
    pub(crate) peer: u32,
    /// Bytes of `name`, or what else tells contacts with one peer apart.
    pub(crate) what: u64,
    /// Of the socket: what is said over one that the caller gave is no contact with the process that has
    /// its other end, and what is said over another one is.
    pub(crate) inode: u64,
    pub(crate) name: [u8; SOCKET_NAME_BYTES],
}

#[map]
static CONTACTS: LruHashMap<Contact, u32> = LruHashMap::with_max_entries(16_384, 0);

/// Whether a send that had this result sent something. A message without bytes is one, which can carry
/// descriptors; over a stream there is none.
#[inline(always)]
pub(crate) fn was_sent(sock: KernelPtr, result: i32) -> bool {
    const SOCK_STREAM: u16 = 1;
    result > 0 || result == 0 && sock.read::<u16>(&field::SOCK_TYPE) != Some(SOCK_STREAM)
}

/// Whether this contact of the process is new. One that was forgotten for others is new again: better said
/// twice than never. So is each of a canary, which makes the same one by every way there is.
#[inline(always)]
pub(crate) fn is_new(process: &Tracked, contact: &Contact) -> bool {
    if process.is_canary() {
        return true;
    }
    // SAFETY: only whether there is an entry is asked.
    if unsafe { CONTACTS.get(contact) }.is_some() {
        return false;
    }
    let _ = CONTACTS.insert(contact, 1u32, 0);
    true
}
