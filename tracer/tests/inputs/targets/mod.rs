//! Every reader of bytes that others wrote, as a function of bytes. One definition each, for the
//! property tests beside it and for the fuzzer (`tests/fuzz`, which includes this folder).
//!
//! None may panic, whatever the bytes are, and each states here what else must hold.

use std::{fs::File, io::Write as _, os::fd::OwnedFd};

use rustix::fs::MemfdFlags;
use tracer::{
    ingest,
    model::ExecEvent,
    record::Record,
    session::{Fold, Machine, Numbers},
};

mod broker;
mod calls;
mod files;
mod network;
mod recordings;

pub(crate) use recordings::Shared;

type Target = fn(&[u8]);

/// By name, which is also the name of the folder of its inputs (`tests/fuzz/corpus`).
pub(crate) const TARGETS: [(&str, Target); 18] = [
    ("ring", ring),
    ("dns", network::dns),
    ("client-hello", network::client_hello),
    ("quic-initial", network::quic_initial),
    ("http-head", network::http_head),
    ("conversation", calls::conversation),
    ("http-calls", calls::http_calls),
    ("proxy", calls::proxy),
    ("hosts-file", network::hosts_file),
    ("recording", recordings::recording),
    ("parts", recordings::parts),
    ("records", recordings::records),
    ("policy-file", files::policy_file),
    ("catalogue-file", files::catalogue_file),
    ("code-file", files::code_file),
    ("key-file", files::key_file),
    ("envelope", files::envelope),
    ("broker-messages", broker::broker_messages),
];

struct NoMachine;

impl Machine for NoMachine {
    fn executed(&mut self, _: &ExecEvent, _: Option<Numbers>) {}
}

/// Cuts pieces off: two bytes of length (little-endian), then as many bytes, or what there is.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        bytes = rest;
        Some(piece)
    })
}

/// Some of the places where bytes can be cut: all of few bytes.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    (0..bytes.len()).step_by(1 + bytes.len() / 64)
}

fn in_a_file(bytes: &[u8]) -> OwnedFd {
    let memory = rustix::fs::memfd_create("bytes", MemfdFlags::CLOEXEC).expect("there is memory");
    let mut file = File::from(memory);
    file.write_all(bytes).expect("there is memory");
    file.into()
}

/// Records of the rings, from decoding to what they amount to.
fn ring(bytes: &[u8]) {
    let mut fold = Fold::default();
    fold.read_calls(true);
    let mut records = Vec::new();
    let events = pieces(bytes).filter_map(|record| ingest::decode(record).ok());
    for event in events {
        records.extend(fold.apply(event, &mut NoMachine));
        records.extend(fold.take_said(false));
    }
    for event in fold.take_early(true) {
        records.extend(fold.record(event, &mut NoMachine));
    }
    records.extend(fold.take_attempts(true).into_iter().map(Record::Attempt));
    records.extend(fold.take_said(true));
    for record in &records {
        let line = serde_json::to_string(record).expect("any record can be written");
        let again: Record = serde_json::from_str(&line).expect("what is written can be read");
        assert_eq!(*record, again, "it is another one when it is read back: {line}");
    }
}
