//! Bytes from anybody, at every reader: none panics.

#![expect(clippy::unwrap_used, reason = "a test: what goes wrong here fails it")]

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*, sample::Index};
use tracer_ebpf::abi::Kind;

mod targets;

const TARGETS: [fn(&[u8]); 11] = [
    targets::ring_record,
    targets::dns,
    targets::client_hello,
    targets::quic_initial,
    targets::http_head,
    targets::hosts_file,
    targets::http_calls,
    targets::mapped_file,
    targets::recording,
    targets::policy_file,
    targets::catalogue_file,
];

/// A library with the names of OpenSSL's functions and little in them, built by `gcc -Os -fno-inline -fPIC
/// -shared -nostdlib`.
const TLS_LIBRARY: &[u8] = include_bytes!("../corpus/libssl.bin");

/// Parts of conversations by HTTP: answers, frames with fields (RFC 7541, C.4 and C.6) and data, fields.
const CONVERSATIONS: [&[u8]; 5] = [
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nrequest-id: a\r\n\r\nhello\
      GET / HTTP/1.1\r\nHost: b.example\r\nUpgrade: websocket\r\n\r\n",
    b"A;x=y\r\n0123456789\r\n0\r\nX: y\r\n\r\nHTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n",
    b"POST /a?X-Amz-Algorithm=AWS4-HMAC-SHA256 HTTP/1.1\r\nHost: a.example\r\n\
      Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
      f\r\n{\"model\": \"m-1\"\r\n1\r\n}\r\n0\r\n\r\n",
    b"\x00\x00\x11\x01\x04\x00\x00\x00\x01\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\
      \x90\xf4\xff\x00\x00\x05\x00\x09\x00\x00\x00\x01\x02ab\x00\x00\x00\x00\x04\x03\x00\x00\x00\x00\x01\
      \x00\x00\x00\x08",
    b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
];

/// What is changed below is a library that is read.
#[test]
fn the_tls_library_is_one() {
    assert_eq!(targets::tls_library(TLS_LIBRARY), Some(true));
    assert_eq!(targets::tls_library(b"\x7fELF"), None);
}

fn folder(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A valid file with some bytes changed, a piece of it repeated, and its end cut.
#[derive(Clone, Debug)]
struct Change {
    bytes: Vec<(Index, u8)>,
    piece: (Index, Index),
    cut: Option<Index>,
}

fn changes() -> impl Strategy<Value = Change> {
    let bytes = vec((any::<Index>(), any::<u8>()), 0..6);
    (bytes, any::<(Index, Index)>(), proptest::option::of(any::<Index>()))
        .prop_map(|(bytes, piece, cut)| Change { bytes, piece, cut })
}

impl Change {
    fn of(&self, valid: &[u8]) -> Vec<u8> {
        let mut changed = valid.to_vec();
        for (at, byte) in &self.bytes {
            let at = at.index(changed.len());
            changed[at] = *byte;
        }
        let (one, other) = (self.piece.0.index(changed.len()), self.piece.1.index(changed.len()));
        let piece = changed[one.min(other)..one.max(other)].to_vec();
        if piece.len() < 200 {
            changed.splice(one..one, piece);
        }
        if let Some(cut) = &self.cut {
            changed.truncate(cut.index(changed.len()));
        }
        changed
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..3000)) {
        for target in TARGETS {
            target(&bytes);
        }
    }

    /// Records that begin as real ones do.
    #[test]
    fn records_of_every_kind(kind in any::<Index>(), rest in vec(any::<u8>(), 0..6000)) {
        let kind = Kind::ALL[kind.index(Kind::ALL.len())] as u32;
        let mut record = kind.to_ne_bytes().to_vec();
        record.extend(rest);
        targets::ring_record(&record);
    }

    /// Answers, frames and fields that are nearly right.
    #[test]
    fn changed_conversations(which in any::<Index>(), change in changes()) {
        targets::http_calls(&change.of(CONVERSATIONS[which.index(CONVERSATIONS.len())]));
    }

    #[test]
    fn changed_tls_libraries(change in changes()) {
        targets::tls_library(&change.of(TLS_LIBRARY));
    }

    #[test]
    fn changed_policies(which in any::<Index>(), change in changes()) {
        let policies = folder("policies");
        targets::policy_file(&change.of(&policies[which.index(policies.len())]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn changed_catalogues(which in any::<Index>(), change in changes()) {
        let files = folder("src/catalogue");
        let is_catalogue = |file: &&Vec<u8>| file.windows(2).any(|pair| pair == b"[[");
        let files: Vec<&Vec<u8>> = files.iter().filter(is_catalogue).collect();
        targets::catalogue_file(&change.of(files[which.index(files.len())]));
    }

    #[test]
    fn changed_recordings(which in any::<Index>(), change in changes()) {
        let recordings = folder("tests/golden/recordings/v3");
        targets::recording(&change.of(&recordings[which.index(recordings.len())]));
    }
}
