//! What a recording proves to somebody who was not there: no edit goes unnoticed, the verdict comes
//! from the events, and a signature is what others make of it, too.

#![expect(clippy::unwrap_used, reason = "a test: what goes wrong here fails it")]

mod edits;
mod names;
mod signing;

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

/// Ends a test that this machine cannot do. Past the runner's capture, where the tally looks.
fn skip(reason: &str) {
    std::io::stderr().write_all(format!("skipped: {reason}\n").as_bytes()).unwrap();
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
