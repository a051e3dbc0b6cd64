//! Makes bytes of traced programs harmless to show.
//!
//! A process chooses its own argv, so it could move the cursor, repaint the verdict or hide text
//! with invisible and direction-changing characters. Everything of that kind is shown as an escape.

use std::fmt::Write as _;

use crate::model::Bytes;

/// Longest command line shown, in characters.
const SHOWN_MAX: usize = 160;

/// Printable text: control, invisible and bidirectional characters as `\u{...}`, bytes that are no
/// UTF-8 as `\xNN`.
pub fn clean(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                _ if is_deceptive(character) => {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
                }
                _ => out.push(character),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Characters that do not show as themselves.
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(u32::from(character),
            0xad                                // soft hyphen
            | 0x34f | 0x61c | 0x115f | 0x1160   // joiners, Arabic letter mark, Hangul fillers
            | 0x17b4 | 0x17b5 | 0x180b..=0x180f // Khmer and Mongolian invisibles
            | 0x200b..=0x200f | 0x2028..=0x202e // zero width, line separators, embeddings
            | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f
            | 0xfeff | 0xffa0 | 0xfff0..=0xfffb // byte order mark, interlinear annotations
            | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a
            | 0xe000..=0xf8ff                   // private use
            | 0xe0000..=0xe0fff | 0xf0000..=0x10ffff)
}

/// An argv as one would type it, cut to a readable length.
pub fn command_line(args: &[Bytes]) -> String {
    command_line_of(args, SHOWN_MAX)
}

/// An argv as one would type it, cut to `max` characters.
pub(super) fn command_line_of(args: &[Bytes], max: usize) -> String {
    let mut line = String::new();
    for (index, arg) in args.iter().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        let shown = clean(&arg.0);
        let plain = !arg.is_empty()
            && arg
                .0
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(byte));
        if plain {
            line.push_str(&shown);
        } else {
            line.push('\'');
            line.push_str(&shown.replace('\'', "'\\''"));
            line.push('\'');
        }
        if line.chars().count() > max {
            let cut: String = line.chars().take(max).collect();
            return format!("{cut}...");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_deceptive_gets_through() {
        let check = |bytes: &[u8], expected: &str| assert_eq!(clean(bytes), expected);
        check(b"plain text", "plain text");
        check("snow \u{2603}".as_bytes(), "snow \u{2603}");
        check(b"\x1b[2Jgone", "\\u{1b}[2Jgone");
        check(b"a\r\nb\tc", "a\\r\\nb\\tc");
        check("\u{202e}sdrawkcab".as_bytes(), "\\u{202e}sdrawkcab");
        check("a\u{200b}ws".as_bytes(), "a\\u{200b}ws");
        check("\u{9b}31m".as_bytes(), "\\u{9b}31m");
        check(b"\xff\xfe", "\\xff\\xfe");
    }

    #[test]
    fn command_lines_are_quoted_where_needed() {
        let args = |args: &[&str]| args.iter().map(|arg| Bytes::from(*arg)).collect::<Vec<_>>();
        assert_eq!(command_line(&args(&["sh", "-c", "a b", ""])), "sh -c 'a b' ''");
        assert_eq!(command_line(&args(&["echo", "it's"])), "echo 'it'\\''s'");
        assert!(command_line(&args(&["x".repeat(500).as_str()])).ends_with("..."));
    }
}
