//! The SHA-256 chain over lines.
//!
//! A line is its JSON object with one more field at the end:
//!
//! ```text
//! {"type":"exec",...,"chain":"<64 hex digits>"}\n
//!  ^------ body ----^
//! chain(n) = SHA-256(chain(n-1) || body(n)),  chain(0) = SHA-256("tracer recording 1\n")
//! ```
//!
//! so a line that was edited, dropped, moved, inserted or cut no longer fits its successor or its
//! own digest. The chain alone finds damage and careless edits; somebody who recomputes it all is
//! found by the signature over its last digest.

use sha2::{Digest as _, Sha256};

use super::text::{from_hex, is_hex_of, to_hex};

const SEED: &[u8] = b"tracer recording 1\n";
const FIELD: &[u8] = b",\"chain\":\"";
const HEX_DIGITS: usize = 64;
const CLOSE: &[u8] = b"\"}";
/// Bytes of a line after its body.
const TAIL: usize = FIELD.len() + HEX_DIGITS + CLOSE.len();

#[derive(Clone, Debug)]
pub(super) struct Chain {
    last: [u8; 32],
}

/// Why a line does not belong where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChainError {
    #[error("the line does not end with a chain digest: it was cut or is not a recording's")]
    NoDigest,
    #[error(
        "the digest does not fit: this line was edited, or one before it edited, moved, inserted or dropped"
    )]
    Mismatch,
}

impl Chain {
    pub(super) fn new() -> Chain {
        Chain { last: Sha256::digest(SEED).into() }
    }

    /// As the last line of `text` has it, true or not. A line without a digest is found to be
    /// wrong itself, so it does not matter what follows it.
    pub(super) fn claimed_at_the_end_of(text: &[u8]) -> Chain {
        let digest = || {
            let line = text.strip_suffix(b"\n")?.strip_suffix(CLOSE)?;
            let digits = line.get(line.len().checked_sub(HEX_DIGITS)?..)?;
            from_hex(std::str::from_utf8(digits).ok()?)?.try_into().ok()
        };
        digest().map_or_else(Chain::new, |last| Chain { last })
    }

    fn advance(&mut self, body: &[u8]) {
        let mut hasher = Sha256::new();
        hasher.update(self.last);
        hasher.update(body);
        self.last = hasher.finalize().into();
    }

    /// Turns a JSON object in `line` into a chained line, line feed included.
    pub(super) fn seal(&mut self, line: &mut Vec<u8>) {
        debug_assert_eq!(line.last(), Some(&b'}'), "a JSON object");
        line.pop();
        self.advance(line);
        line.extend_from_slice(FIELD);
        line.extend_from_slice(to_hex(&self.last).as_bytes());
        line.extend_from_slice(CLOSE);
        line.push(b'\n');
    }

    /// Checks a line (without its line feed) against its predecessors.
    pub(super) fn check(&mut self, line: &[u8]) -> Result<(), ChainError> {
        let body_len = line.len().checked_sub(TAIL).ok_or(ChainError::NoDigest)?;
        let (body, tail) = line.split_at(body_len);
        let digest = tail
            .strip_prefix(FIELD)
            .and_then(|rest| rest.strip_suffix(CLOSE))
            .ok_or(ChainError::NoDigest)?;
        self.advance(body);
        // As text, so that other spellings of the same digits (capitals) count as an edit, too.
        if is_hex_of(digest, &self.last) { Ok(()) } else { Err(ChainError::Mismatch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(bodies: &[&str]) -> Vec<Vec<u8>> {
        let mut chain = Chain::new();
        bodies
            .iter()
            .map(|body| {
                let mut line = body.as_bytes().to_vec();
                chain.seal(&mut line);
                line.pop();
                line
            })
            .collect()
    }

    fn check(lines: &[Vec<u8>]) -> Result<(), ChainError> {
        let mut chain = Chain::new();
        lines.iter().try_for_each(|line| chain.check(line))
    }

    #[test]
    fn any_change_breaks_it() {
        let lines = sealed(&[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]);
        assert_eq!(check(&lines), Ok(()));
        for victim in 0..lines.len() {
            for at in 0..lines[victim].len() {
                for bit in 0..8 {
                    let mut edited = lines.clone();
                    edited[victim][at] ^= 1 << bit;
                    assert!(check(&edited).is_err(), "line {victim}, byte {at}, bit {bit}");
                }
                let mut cut = lines.clone();
                cut[victim].truncate(at);
                assert!(check(&cut).is_err(), "line {victim} cut at {at}");
            }
        }
        assert!(check(&[lines[1].clone(), lines[2].clone()]).is_err(), "first line dropped");
        assert!(check(&[lines[0].clone(), lines[2].clone()]).is_err(), "middle line dropped");
        assert!(check(&[lines[1].clone(), lines[0].clone()]).is_err(), "lines swapped");
    }
}
