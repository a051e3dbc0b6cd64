//! Bytes from anybody, at every reader: none panics.

#![expect(clippy::unwrap_used, reason = "a test: what goes wrong here fails it")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proptest::{collection::vec, prelude::*, sample::Index};
use tracer::{
    catalogue::Catalogue,
    evidence::{self, PublicKey},
    policy::{self, Ruling},
    protocol::{Reading, dns, http, tls},
    record::{self, Integrity, schema::DnsMessage},
    run::CodeFile,
    session::Story,
};
use tracer_ebpf::abi::Kind;

#[path = "../../src/protocol/made.rs"]
mod made;
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

/// As libFuzzer names what it keeps: SHA-1 in hexadecimal digits.
fn is_digest(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What is kept for a target under a name that says what it is: most of it is valid. What the fuzzer found has a
/// digest for a name, and there is so much of it that little else would be changed below.
fn inputs_of(name: &'static str) -> &'static [Vec<u8>] {
    static INPUTS: LazyLock<BTreeMap<&str, Vec<Vec<u8>>>> = LazyLock::new(|| {
        let of = |name: &str| {
            let entries = fs::read_dir(corpus().join(name)).unwrap();
            let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            files.retain(|path| !is_digest(&path.file_name().unwrap().to_string_lossy()));
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

/// What is changed below is a recording that would be proven: another one tells nothing about the check of
/// its lines.
#[test]
fn the_recording_is_proven() {
    let recording = record::read(&corpus().join("recording/proven")).unwrap();
    assert_eq!(recording.integrity, Integrity::Intact);
    let story = Story::of(recording);
    let verdict = policy::judge(&story, &story.start.policies).unwrap();
    assert_eq!(verdict.overall, Ruling::Proven);
}

#[test]
fn the_statement_is_signed() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keys");
    let key = PublicKey::load(&golden.join("spki.pem")).unwrap();
    evidence::open(&corpus().join("envelope/signed"), &key).unwrap();
}

/// Inputs of readers that take only what is valid: these are, so that what must hold of that is tried.
#[test]
fn what_is_read_is_valid() {
    let read = |path: &str| fs::read(corpus().join(path)).unwrap();
    for (name, records) in
        [("answer", 3), ("answer-edns", 1), ("alias-chain", 4), ("alias-ring", 2), ("service", 1)]
    {
        let message = dns::message(&read(&format!("dns/{name}")), true);
        let is_so =
            matches!(&message, DnsMessage::Answer { records: got, .. } if got.len() == records);
        assert!(is_so, "{name}: {message:?}");
    }
    assert_eq!(dns::framed(&read("dns/stream")).0.len(), 3);
    for name in
        ["grease", "without-name", "encrypted", "fragmented", "byte-by-byte", "more-behind-it"]
    {
        let reading = tls::in_records(&read(&format!("client-hello/{name}")));
        assert!(matches!(reading, Reading::Done(_)), "{name}: {reading:?}");
    }
    assert!(matches!(tls::in_handshake(&read("client-hello/bare")), Reading::Done(_)));
    for name in ["absolute", "connect", "asterisk", "white-space-in-fields", "line-feeds"] {
        let reading = http::head(&read(&format!("http-head/{name}")));
        assert!(matches!(reading, Reading::Done(_)), "{name}: {reading:?}");
    }
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

    /// A digit or letter that is another one, so that what is chained or signed can still be read: only its
    /// digests tell.
    #[test]
    fn edited_text(which in any::<Index>(), at in any::<Index>(), by in 1..10_u8) {
        for name in ["recording", "parts", "envelope"] {
            let inputs = inputs_of(name);
            let mut text = inputs[which.index(inputs.len())].clone();
            let is_word = |at: &usize| text[*at].is_ascii_alphanumeric();
            let words: Vec<usize> = (0..text.len()).filter(is_word).collect();
            let at = words[at.index(words.len())];
            let (first, count) = match text[at] {
                b'0'..=b'9' => (b'0', 10),
                b'a'..=b'z' => (b'a', 26),
                _ => (b'A', 26),
            };
            text[at] = first + (text[at] - first + by) % count;
            target(name)(&text);
        }
    }

    /// A recording without one of its lines, with one of them twice, or two of them exchanged.
    #[test]
    fn moved_lines(which in any::<Index>(), one in any::<Index>(), other in any::<Index>(), how in 0..3) {
        let inputs = inputs_of("recording");
        let text = &inputs[which.index(inputs.len())];
        let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let (one, other) = (one.index(lines.len()), other.index(lines.len()));
        match how {
            0 => drop(lines.remove(one)),
            1 => lines.insert(other, lines[one]),
            _ => lines.swap(one, other),
        }
        target("recording")(&lines.concat());
    }

    /// What is valid, changed in places: of every target.
    #[test]
    fn changed_inputs(which in any::<Index>(), change in changes()) {
        for (name, target) in TARGETS {
            let inputs = inputs_of(name);
            target(&change.of(&inputs[which.index(inputs.len())]));
        }
    }
}
