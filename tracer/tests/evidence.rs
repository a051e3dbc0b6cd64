//! What a recording proves to somebody who was not there: no edit goes unnoticed, the verdict comes
//! from the events, and a signature is what others make of it, too.

#![expect(clippy::unwrap_used, reason = "a test: what goes wrong here fails it")]

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::{Cursor, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use sha2::{Digest as _, Sha256};
use tracer::{
    policy::{self, Ruling, Verdict},
    record::{Integrity, ReadError, Reader},
    session::Story,
};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Real recordings of every schema version: name and text.
fn recordings() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let versions = tracer::record::VERSIONS.iter();
    let versions = versions.map(|version| format!("recordings/v{}", version.number));
    for folder in versions.chain(["reports".to_owned()]) {
        for entry in fs::read_dir(tests().join("golden").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "jsonl") {
                found.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(found.len() >= 9, "{}", found.len());
    found
}

fn recording(name: &str) -> PathBuf {
    tests().join(format!("golden/reports/{name}.jsonl"))
}

fn read(text: &[u8]) -> Result<Story, ReadError> {
    let reader = Reader::new(Cursor::new(text.to_vec()), "edited".into(), false)?;
    let story = Story::for_verdict(reader.start().clone());
    Ok(story.read(reader, &mut |_, _| ())?.0)
}

fn judged(text: &[u8]) -> (Story, Verdict) {
    let story = read(text).unwrap();
    let verdict = policy::judge(&story, &story.start.policies).unwrap();
    (story, verdict)
}

/// Numbers without a meaning, the same at every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }

    /// A range that is not empty.
    fn range(&mut self, limit: usize) -> std::ops::Range<usize> {
        let (one, other) = (self.below(limit), self.below(limit));
        one.min(other)..one.max(other) + 1
    }
}

const CHAIN: &str = ",\"chain\":\"";

/// A line whose own digest fits the one before it.
fn sealed(body: &str, before: &[u8]) -> (String, Vec<u8>) {
    let digest = Sha256::new().chain_update(before).chain_update(body).finalize().to_vec();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    (format!("{body}{CHAIN}{hex}\"}}\n"), digest)
}

fn seed() -> Vec<u8> {
    Sha256::digest(b"tracer recording 1\n").to_vec()
}

fn body(line: &str) -> &str {
    line.rsplit_once(CHAIN).unwrap().0
}

/// A recording of these bodies, as somebody makes one who knows how.
fn chained<'a>(bodies: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut before = seed();
    let mut text = String::new();
    for body in bodies {
        let (line, digest) = sealed(body, &before);
        text.push_str(&line);
        before = digest;
    }
    text.into_bytes()
}

/// One edit of a recording, and its name. `other` is another recording.
fn edit(numbers: &mut Numbers, text: &[u8], other: &[u8]) -> (&'static str, Vec<u8>) {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let foreign: Vec<&[u8]> = other.split_inclusive(|byte| *byte == b'\n').collect();
    let (one, two) = (numbers.below(lines.len()), numbers.below(lines.len()));
    let at = numbers.below(text.len());
    let mut bytes = text.to_vec();
    match numbers.below(13) {
        0 => {
            bytes[at] ^= 1 << numbers.below(8);
            ("a flipped bit", bytes)
        }
        1 => {
            bytes.insert(at, b"0123456789abcdef\n \"}"[numbers.below(20)]);
            ("an inserted byte", bytes)
        }
        2 => {
            bytes.remove(at);
            ("a removed byte", bytes)
        }
        3 => {
            bytes.drain(numbers.range(text.len()));
            ("a hole", bytes)
        }
        4 => ("a cut anywhere", text[..at].to_vec()),
        5 => ("a cut between lines", lines[..one].concat()),
        6 => {
            lines.remove(one);
            ("a dropped line", lines.concat())
        }
        7 => {
            lines.insert(two, lines[one]);
            ("a line twice", lines.concat())
        }
        8 => {
            lines.swap(one, two);
            ("two lines swapped", lines.concat())
        }
        9 => {
            lines
                .splice(numbers.range(lines.len()), foreign[numbers.range(foreign.len())].to_vec());
            ("lines of another recording in place of some", lines.concat())
        }
        10 => {
            let tail = foreign[numbers.below(foreign.len())..].concat();
            ("the end of another recording", [lines[..=one].concat(), tail].concat())
        }
        11 => ("lines after the end", [text, foreign[numbers.below(foreign.len())]].concat()),
        _ => {
            // A digit of a line that is not the last, and the line's own digest made to fit.
            let at = numbers.below(lines.len() - 1);
            let line = String::from_utf8(lines[at].to_vec()).unwrap();
            let mut changed = body(&line).to_owned().into_bytes();
            let digits: Vec<usize> =
                (0..changed.len()).filter(|at| changed[*at].is_ascii_digit()).collect();
            let digit = &mut changed[digits[numbers.below(digits.len())]];
            *digit = if *digit == b'9' { b'1' } else { *digit + 1 };
            let before = match at.checked_sub(1) {
                Some(before) => digest_of(lines[before]),
                None => seed(),
            };
            let resealed = sealed(std::str::from_utf8(&changed).unwrap(), &before).0;
            lines[at] = resealed.as_bytes();
            ("a number changed and its line sealed again", lines.concat())
        }
    }
}

/// The digest in a line.
fn digest_of(line: &[u8]) -> Vec<u8> {
    let line = std::str::from_utf8(line).unwrap();
    let hex = &line.rsplit_once(CHAIN).unwrap().1[..64];
    (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

#[test]
fn ten_thousand_edits_are_all_found() {
    let recordings = recordings();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut found: BTreeMap<&str, u32> = BTreeMap::new();
    let mut edits = 0;
    while edits < 10_000 {
        let (name, text) = &recordings[numbers.below(recordings.len())];
        let other = &recordings[numbers.below(recordings.len())].1;
        let (what, edited) = edit(&mut numbers, text, other);
        // A splice of the same lines changes nothing.
        if edited == *text || edited == *other {
            continue;
        }
        edits += 1;
        match read(&edited) {
            Err(
                ReadError::NotARecording { .. }
                | ReadError::NewerSchema { .. }
                | ReadError::Empty { .. }
                | ReadError::FirstLineCut { .. },
            ) => {}
            Err(error) => panic!("{name}, {what}: {error}"),
            Ok(story) => {
                assert_ne!(story.integrity, Integrity::Intact, "{name}, edit {edits}: {what}");
                let verdict = policy::judge(&story, &story.start.policies);
                let ruling = verdict.map(|verdict| verdict.overall);
                assert_ne!(ruling, Some(Ruling::Proven), "{name}, edit {edits}: {what}");
            }
        }
        *found.entry(what).or_default() += 1;
    }
    assert_eq!(found.len(), 13, "{found:?}");
    assert!(found.values().all(|count| *count > 300), "{found:?}");
}

/// Who recomputes the whole chain still has the kernel's counters, ledger and witness against them.
#[test]
fn a_dropped_event_shows_in_the_counters() {
    let text = fs::read_to_string(recording("proven")).unwrap();
    let bodies: Vec<&str> = text.lines().map(body).collect();
    assert_eq!(judged(&chained(bodies.iter().copied())).1.overall, Ruling::Proven);
    let mut dropped = 0;
    for at in 1..bodies.len() - 1 {
        let rest = bodies.iter().enumerate().filter(|(other, _)| *other != at);
        let (story, verdict) = judged(&chained(rest.map(|(_, body)| *body)));
        assert_eq!(story.integrity, Integrity::Intact, "the chain was made to fit");
        // A program that was found on the machine and not executed is none of the counters' business.
        if bodies[at].starts_with("{\"type\":\"content\"") {
            continue;
        }
        let holds = verdict.completeness.iter().all(|line| line.holds);
        assert!(!holds, "without {}", bodies[at]);
        let of_connections =
            ["connect", "connect-result", "close"].map(|kind| format!("{{\"type\":\"{kind}\""));
        if !of_connections.iter().any(|kind| bodies[at].starts_with(kind)) {
            assert_ne!(verdict.overall, Ruling::Proven, "without {}", bodies[at]);
        }
        dropped += 1;
    }
    assert!(dropped > 30, "{dropped}");
}

/// The verdict in the file counts for nothing.
#[test]
fn a_forged_verdict_is_not_believed() {
    let text = fs::read_to_string(recording("violated")).unwrap();
    let forged = text.replace("\"violated\"", "\"proven\"");
    assert_ne!(forged, text);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("forged.jsonl");
    fs::write(&file, chained(forged.lines().map(body))).unwrap();
    let output = tracer(&["verify", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(11), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("verdict: violated") && said.contains("another verdict"), "{said}");
}

/// What a verdict keeps of a recording is enough for it, and connections only where a claim is about
/// them.
#[test]
fn verdicts_keep_what_they_need() {
    for (name, text) in recordings() {
        let lean = read(&text).unwrap();
        let reader = Reader::new(Cursor::new(text), name.clone(), false).unwrap();
        let full = Story::new(reader.start().clone()).read(reader, &mut |_, _| ()).unwrap().0;
        let of = |story: &Story| policy::judge(story, &story.start.policies);
        assert_eq!(of(&lean), of(&full), "{name}");
        let asked = policy::asks_for_contacts(&lean.start, &lean.start.policies);
        assert!(asked || lean.connections.is_empty(), "{name}");
    }
}

/// Recordings of every version that ever was: intact, and their verdict still follows from them.
#[test]
fn old_recordings_stay_readable() {
    let document = fs::read_to_string(tests().join("../../docs/evidence.md")).unwrap();
    for version in tracer::record::VERSIONS {
        let row = format!("| {} | {} |", version.number, version.brought);
        assert!(document.contains(&row), "docs/evidence.md has no row `{row}`");
        let folder = tests().join(format!("golden/recordings/v{}", version.number));
        let mut rulings = Vec::new();
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let story = read(&fs::read(&path).unwrap()).unwrap();
            let name = path.display();
            assert_eq!(story.start.schema, version.number, "{name}");
            assert_eq!(story.integrity, Integrity::Intact, "{name}");
            let verdict = policy::judge(&story, &story.start.policies).unwrap();
            let written = story.end.as_ref().unwrap().verdict.as_ref().unwrap();
            assert!(written.says_the_same_as(&verdict), "{name}: {written:?} and {verdict:?}");
            rulings.push(verdict.overall);
            let output = tracer(&["verify", path.to_str().unwrap()]);
            let expected = match verdict.overall {
                Ruling::Proven => 0,
                Ruling::Violated => 10,
                Ruling::Inconclusive => 11,
            };
            assert_eq!(output.status.code(), Some(expected), "{name}: {output:?}");
        }
        rulings.sort();
        rulings.dedup();
        assert_eq!(rulings.len(), 3, "every ruling of version {}: {rulings:?}", version.number);
    }
}

fn tracer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer")).args(arguments).output().unwrap()
}

/// Fails unless tracer ends with this code and says this, on either stream.
fn check(arguments: &[&str], code: i32, says: &str) {
    let output = tracer(arguments);
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{err}");
    assert!(out.contains(says) || err.contains(says), "{arguments:?}: no `{says}` in {out}{err}");
}

fn key(name: &str) -> String {
    tests().join("golden/keys").join(name).display().to_string()
}

struct Signed {
    folder: tempfile::TempDir,
    recording: String,
    envelope: String,
}

/// A copy of a recording, signed.
fn signed(name: &str, private: &str) -> Signed {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("session.jsonl");
    fs::copy(recording(name), &copy).unwrap();
    let recording = copy.display().to_string();
    check(&["sign", "--key", &key(private), &recording], 0, "signed by key");
    let envelope = format!("{recording}.intoto.json");
    Signed { folder, recording, envelope }
}

#[test]
fn a_signature_is_of_one_file_and_by_one_key() {
    for (private, public, other) in
        [("pkcs8.pem", "spki.pem", "openssh.pub"), ("openssh", "openssh.pub", "spki.pem")]
    {
        let Signed { folder, recording, envelope } = signed("proven", private);
        let mode = fs::metadata(&envelope).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let with = |public: &str| [key(public), recording.clone()];
        let verify = |public: &str, code, says: &str| {
            let [key, recording] = with(public);
            check(&["verify", "--key", &key, &recording], code, says);
        };
        verify(public, 0, "signature: valid");
        verify(public, 0, "verdict: proven");
        verify(other, 11, "signature: NO");
        verify(private, 125, "private key");

        // An intact recording, but another one.
        let proven = fs::read(&recording).unwrap();
        fs::copy(self::recording("violated"), &recording).unwrap();
        verify(public, 11, "about another file");
        // The same events, chained again after an edit that changes no verdict.
        let text = String::from_utf8(proven.clone()).unwrap().replace("\"cpus\":", "\"cpus\":1");
        fs::write(&recording, chained(text.lines().map(body))).unwrap();
        check(&["verify", &recording], 0, "verdict: proven");
        verify(public, 11, "about another file");
        fs::write(&recording, [&proven[..], b"\n"].concat()).unwrap();
        verify(public, 11, "about another file");
        fs::write(&recording, proven).unwrap();

        // Elsewhere, by standard input, or not there at all.
        let moved = folder.path().join("statement").display().to_string();
        fs::rename(&envelope, &moved).unwrap();
        verify(public, 11, "tracer sign");
        let [public, recording] = with(public);
        let named = ["verify", "--key", &public, "--attestation", &moved];
        check(&[&named[..], &[&recording]].concat(), 0, "signature: valid");
        check(&["verify", "--key", &public, "-"], 125, "--attestation");
        fs::write(&moved, "{}").unwrap();
        check(&[&named[..], &[&recording]].concat(), 11, "no DSSE envelope");
    }
}

#[test]
fn signing_refuses_what_it_should() {
    let Signed { folder, recording, envelope } = signed("proven", "pkcs8.pem");
    let private = key("pkcs8.pem");
    check(&["sign", "--key", &private, &recording], 125, "--force");
    check(&["sign", "--force", "--key", &private, &recording], 0, "signed by key");
    check(&["sign", "--key", &key("spki.pem"), &recording], 125, "public key");
    check(&["sign", "--key", &key("openssh-locked"), &recording], 125, "passphrase");
    check(&["sign", "--key", "/nonexistent", &recording], 125, "cannot read the key");
    check(&["sign", "--key", &private, "-"], 125, "standard input");

    let precious = folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    fs::remove_file(&envelope).unwrap();
    symlink(&precious, &envelope).unwrap();
    check(&["sign", "--force", "--key", &private, &recording], 125, "symbolic link");
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    fs::remove_file(&envelope).unwrap();

    let text = fs::read(&recording).unwrap();
    let middle = text.len() / 2;
    let edited = [&text[..middle], b" ", &text[middle..]].concat();
    let lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
    for (unsound, says) in [
        (&edited[..], "damaged at line"),
        (&text[..text.len() - 1], "cut short"),
        (&text[..middle], "cut short"),
        (&lines[..5].concat(), "cut short"),
    ] {
        fs::write(&recording, unsound).unwrap();
        check(&["sign", "--key", &private, &recording], 11, "was not signed");
        check(&["sign", "--key", &private, &recording], 11, says);
        check(&["report", &recording], 11, says);
    }
    assert!(!Path::new(&envelope).exists());
}

#[test]
fn compare_expands_names_what_it_leaves_out_and_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    fs::copy(recording("proven"), file("a1.jsonl")).unwrap();
    fs::copy(recording("proven"), file("a2.jsonl")).unwrap();
    // A name that would not match itself as a pattern.
    fs::copy(recording("violated"), file("b[1].jsonl")).unwrap();
    let (all, odd) = (format!("sdk={}", file("a*.jsonl")), format!("cli={}", file("b[1].jsonl")));
    check(&["compare", &all, &odd], 0, "only in this group");
    check(&["compare", &all, &all], 0, "2 proven");
    for format in ["text", "markdown", "html", "json"] {
        check(&["compare", "--format", format, &all, &odd], 0, "/opt/demo/bin/aws");
    }
    check(&["compare", &format!("sdk={}", file("c*.jsonl"))], 2, "no recording");
    check(&["compare", "sdk"], 2, "NAME=RECORDING");

    let page = file("page.html");
    let to_page = ["compare", "-f", "html", "-o", &page, &all];
    check(&to_page, 0, "");
    check(&to_page, 125, "--force");
    check(&[&to_page[..], &["--force"]].concat(), 0, "");

    fs::write(file("a3.jsonl"), "{}\n").unwrap();
    let text = fs::read(recording("proven")).unwrap();
    fs::write(file("a4.jsonl"), &text[..text.len() / 2]).unwrap();
    check(&["compare", &all], 11, "2 recordings were not used");
    check(&["compare", &all], 11, "a4.jsonl");
    check(&["compare", &all], 11, "not a tracer recording");
}

/// Whatever the file is called, whatever is in it, and whoever wants it to be written to.
#[test]
fn a_recording_is_named_as_it_is_and_never_replaced() {
    use std::os::unix::ffi::OsStringExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let a = file("a.jsonl");
    fs::copy(recording("proven"), &a).unwrap();
    for output in [&a, &file("./a.jsonl")] {
        check(&["report", "--force", "-o", output, &a], 125, "would lose it");
        check(&["compare", "--force", "-o", output, &format!("x={a}")], 125, "would lose it");
    }
    assert_eq!(fs::read(&a).unwrap(), fs::read(recording("proven")).unwrap());

    // The same file under another name is the same file; a copy of it is the same session.
    let link = file("link.jsonl");
    symlink(&a, &link).unwrap();
    check(&["compare", &format!("x={a}"), &format!("x={link}")], 0, "1 proven");
    let copy = file("copy.jsonl");
    fs::copy(&a, &copy).unwrap();
    let both = [format!("x={a}"), format!("y={copy}")];
    check(&["compare", &both[0], &both[1]], 0, "Sessions that count more than once");

    let odd = OsString::from_vec(b"odd\xff \x1b[31m'name.jsonl".to_vec());
    fs::copy(&a, folder.path().join(&odd)).unwrap();
    let run = |arguments: &[&OsStr]| {
        let mut tracer = Command::new(env!("CARGO_BIN_EXE_tracer"));
        tracer.args(arguments).current_dir(folder.path()).output().unwrap()
    };
    let member = [OsStr::new("x="), &odd].into_iter().collect::<OsString>();
    assert!(run(&["compare".as_ref(), &member]).status.success());
    let document = run(&["report".as_ref(), "-f".as_ref(), "markdown".as_ref(), &odd]).stdout;
    let document = String::from_utf8(document).unwrap();
    let command = document.lines().find_map(|line| line.strip_prefix("tracer verify ")).unwrap();
    let line = format!("exec {} verify {command}", env!("CARGO_BIN_EXE_tracer"));
    let mut bash = Command::new("bash");
    let output = bash.args(["-c", &line]).current_dir(folder.path()).output();
    match output {
        Ok(output) => assert!(output.status.success(), "{command}: {output:?}"),
        Err(error) => skip(&format!("bash: {error}")),
    }
    let missing = run(&["report".as_ref(), "no\x1b[31m".as_ref()]);
    assert!(!missing.stderr.contains(&b'\x1b'), "{missing:?}");

    let whole = fs::read(recording("proven")).unwrap();
    let first_line = whole.iter().position(|byte| *byte == b'\n').unwrap();
    for (bytes, says) in [
        (0, "cut short before its first line"),
        (1, "within its first line"),
        (20, "within its first line"),
        (first_line - 1, "within its first line"),
        (first_line, "cut short"),
        (first_line + 1, "cut short"),
    ] {
        fs::write(&copy, &whole[..bytes]).unwrap();
        check(&["verify", &copy], 11, says);
        check(&["verify", &copy], 11, "integrity: NO");
        check(&["report", &copy], 11, says);
    }
    for (content, says) in [
        (&b"\x1f\x8b\x08"[..], "is compressed"),
        (b"\x00\x01", "not a tracer recording"),
        (b"{\"type\":\"start\",\"schema\":0}\n", "no schema 0"),
        (b"{\"type\":\"exit\",\"schema\":4}\n", "in several files, name the first"),
    ] {
        fs::write(&copy, content).unwrap();
        check(&["verify", &copy], 125, says);
        check(&["report", &copy], 125, says);
    }
}

/// Ends a test that this machine cannot do. Past the runner's capture, where the tally looks.
fn skip(reason: &str) {
    std::io::stderr().write_all(format!("skipped: {reason}\n").as_bytes()).unwrap();
}

/// `securesystemslib`, the library behind in-toto's own tools, which shares no code with tracer,
/// accepts what tracer signs and nothing else, and tracer accepts what it signs.
#[test]
fn an_independent_tool_agrees() {
    const SCRIPT: &str = "\
import base64, copy, hashlib, json, sys
from cryptography.hazmat.primitives import serialization as s
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey
recording, envelope, public, other, private, theirs = sys.argv[1:]
def load(path):
    data = open(path, 'rb').read()
    ssh = data.startswith(b'ssh-')
    key = s.load_ssh_public_key(data) if ssh else s.load_pem_public_key(data)
    der = key.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
    return SSlibKey.from_crypto(key, keyid=hashlib.sha256(der).hexdigest())
key, other = load(public), load(other)
data = json.load(open(envelope))
Envelope.from_dict(copy.deepcopy(data)).verify([key], 1)
statement = json.loads(Envelope.from_dict(copy.deepcopy(data)).payload)
assert data['payloadType'] == 'application/vnd.in-toto+json', data['payloadType']
assert statement['_type'] == 'https://in-toto.io/Statement/v1'
assert statement['predicateType'] == 'https://in-toto.io/attestation/runtime-trace/v0.1'
digest = hashlib.sha256(open(recording, 'rb').read()).hexdigest()
assert statement['subject'][0]['digest'] == {'sha256': digest}, statement['subject']
predicate = statement['predicate']
for field in ('monitor', 'monitoredProcess', 'monitorLog', 'metadata', 'completeness'):
    assert predicate[field], field
assert predicate['completeness']['verdict'] == 'proven', predicate['completeness']
def refused(what, data, keys):
    try:
        Envelope.from_dict(data).verify(keys, 1)
    except VerificationError:
        return
    sys.exit(f'{what} was accepted')
def changed(**fields):
    return {**copy.deepcopy(data), **fields}
other.keyid = key.keyid
refused('another key', changed(), [other])
edited = json.dumps({**statement, 'subject': []}).encode()
refused('an edited statement', changed(payload=base64.b64encode(edited).decode()), [key])
refused('another type', changed(payloadType='text/plain'), [key])
ours = Envelope(json.dumps(statement, indent=1).encode(), data['payloadType'], {})
ours.sign(CryptoSigner(s.load_pem_private_key(open(private, 'rb').read(), None)))
json.dump(ours.to_dict(), open(theirs, 'w'))
";
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python/bin/python3");
    let has_it =
        Command::new(&python).args(["-c", "import securesystemslib, cryptography"]).output();
    if !has_it.is_ok_and(|output| output.status.success()) {
        return skip("there is no Python with securesystemslib; `cargo xtask setup` makes one");
    }
    for (private, public, other) in
        [("pkcs8.pem", "spki.pem", "openssh.pub"), ("openssh", "openssh.pub", "spki.pem")]
    {
        let Signed { folder, recording, envelope } = signed("proven", private);
        let theirs = folder.path().join("theirs").display().to_string();
        let mut script = Command::new(&python);
        script.args(["-c", SCRIPT, &recording, &envelope, &key(public), &key(other)]);
        script.args([&key("pkcs8.pem"), &theirs]);
        let output = script.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let verify = |public: &str, code, says: &str| {
            let public = key(public);
            let arguments = ["verify", "--key", &public, "--attestation", &theirs, &recording];
            check(&arguments, code, says);
        };
        verify("spki.pem", 0, "signature: valid");
        verify("openssh.pub", 11, "signature: NO");
    }
}
