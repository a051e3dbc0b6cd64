//! Bytes from anybody, at every reader: none panics.

#![expect(clippy::unwrap_used, reason = "a test: what goes wrong here fails it")]

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*, sample::Index};
use tracer_ebpf::abi::Kind;

mod targets;

const TARGETS: [fn(&[u8]); 9] = [
    targets::ring_record,
    targets::dns,
    targets::client_hello,
    targets::quic_initial,
    targets::http_head,
    targets::hosts_file,
    targets::recording,
    targets::policy_file,
    targets::catalogue_file,
];

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
