//! Readers of what says names: DNS, TLS, QUIC, HTTP, the file of hosts.
//!
//! Their input comes from anybody. No reader panics, and what each allocates is bounded by a constant
//! or by the length of its input; both are checked in `tests.rs`.

pub mod dns;
pub mod hosts;
pub mod http;
#[cfg(test)]
pub(crate) mod made;
pub(crate) mod pieces;
pub mod quic;
#[cfg(test)]
mod tests;
pub mod tls;

use std::fmt::Write as _;

/// What a reader makes of bytes that may be the beginning of something only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    Done(T),
    /// Right so far.
    Partial,
    /// Not of this protocol.
    No,
    /// Of this protocol, and it cannot be read.
    Bad(String),
}

/// A place in bytes; every step checks that they are there.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u24(&mut self) -> Option<usize> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]) as usize)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// As long as its first byte says.
    pub(crate) fn vector8(&mut self) -> Option<Cursor<'a>> {
        let len = self.u8()?;
        self.take(len.into()).map(Cursor)
    }

    /// As long as its first two bytes say.
    pub(crate) fn vector16(&mut self) -> Option<Cursor<'a>> {
        let len = self.u16()?;
        self.take(len.into()).map(Cursor)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends a label as RFC 4343 has it: in lower case, and bytes that are no letter, digit, `-` or `_`
/// as `\DDD`.
pub(crate) fn push_label(text: &mut String, label: &[u8]) {
    for byte in label {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            text.push(byte.to_ascii_lowercase().into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\{byte:03}");
        }
    }
}

/// A host name that comes as text, in the same form as one from DNS: without the last dot.
pub(crate) fn host_name(name: &[u8]) -> String {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let mut text = String::with_capacity(name.len());
    for (index, label) in name.split(|byte| *byte == b'.').enumerate() {
        if index > 0 {
            text.push('.');
        }
        push_label(&mut text, label);
    }
    text
}

/// Bytes as text of printable ASCII, the rest as `\DDD`.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if (b' '..=b'~').contains(byte) && *byte != b'\\' {
            text.push((*byte).into());
        } else {
            let _ = write!(text, "\\{byte:03}");
        }
    }
    text
}
