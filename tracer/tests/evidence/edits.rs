//! Ten thousand edits.

use super::*;

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
