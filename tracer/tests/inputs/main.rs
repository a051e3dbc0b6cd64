//! Bytes from anybody, at every reader: none panics.

#![expect(clippy::unwrap_used, reason = "a test: what goes wrong here fails it")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proptest::{collection::vec, prelude::*, sample::Index};
use tracer::{catalogue::Catalogue, run::CodeFile};
use tracer_ebpf::abi::Kind;

mod seeds;
mod targets;

use targets::TARGETS;

/// Inputs that the fuzzer starts from, and those that once found a bug: a folder for each target.
fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus")
}

fn target(name: &str) -> fn(&[u8]) {
    TARGETS.iter().find(|(known, _)| *known == name).unwrap().1
}

/// All that is kept for a target, but what is empty.
fn inputs_of(name: &'static str) -> &'static [Vec<u8>] {
    static INPUTS: LazyLock<BTreeMap<&str, Vec<Vec<u8>>>> = LazyLock::new(|| {
        let of = |name: &str| {
            let entries = fs::read_dir(corpus().join(name)).unwrap();
            let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            files.sort();
            let inputs = files.iter().map(|path| fs::read(path).unwrap());
            inputs.filter(|input| !input.is_empty()).collect()
        };
        TARGETS.iter().map(|(name, _)| (*name, of(name))).collect()
    });
    &INPUTS[name]
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

/// `TRACER_BLESS=1` writes the seeds anew.
#[test]
fn every_input_that_is_kept() {
    if std::env::var_os("TRACER_BLESS").is_some() {
        seeds::write(&corpus());
    }
    for (name, target) in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus().join(name)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display()); // shown when it fails
            target(&fs::read(path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "there is no input for {name}");
    }
    let folders = fs::read_dir(corpus()).unwrap().count();
    assert_eq!(folders, TARGETS.len(), "a folder of inputs has no target");
}

/// What is changed below is a library that is read.
#[test]
fn the_tls_library_is_one() {
    let functions = |path: &Path| CodeFile::read(path, false, Catalogue::embedded()).tls_functions;
    assert!(!functions(&corpus().join("code-file/openssl-names")).is_empty());
    assert!(functions(&corpus().join("code-file/program")).is_empty());
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..3000)) {
        for (_, target) in TARGETS {
            target(&bytes);
        }
    }

    /// Records that begin as real ones do.
    #[test]
    fn records_of_every_kind(kind in any::<Index>(), rest in vec(any::<u8>(), 0..6000)) {
        let kind = Kind::ALL[kind.index(Kind::ALL.len())] as u32;
        let mut record = kind.to_ne_bytes().to_vec();
        record.extend(rest);
        target("ring")(&seeds::pieces([record]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is valid, changed in places: of every target.
    #[test]
    fn changed_inputs(which in any::<Index>(), change in changes()) {
        for (name, target) in TARGETS {
            let inputs = inputs_of(name);
            target(&change.of(&inputs[which.index(inputs.len())]));
        }
    }
}
