//! What the kernel makes of an exec of a script: who interprets it, and with which arguments.
//!
//! strace sees the call alone. What stands after `#!` is read from the file when all is over.

use std::{ffi::OsStr, fs::File, io::Read as _, os::unix::ffi::OsStrExt as _, path::Path};

use super::{facts::Interpreter, traced::without_links};

/// As much of a file as the kernel looks at (`BINPRM_BUF_SIZE`), without the closing zero.
const LONGEST: u64 = 255;

/// How often an interpreter may be a script itself.
const DEEPEST: usize = 5;

/// The arguments that the program gets, and the interpreter, if the file is a script. Relative names are
/// below the folder.
pub(super) fn of(
    file: &Path,
    folder: &Path,
    filename: &[u8],
    argv: &[Vec<u8>],
) -> Option<(Vec<Vec<u8>>, Interpreter)> {
    let (mut file, mut script, mut argv) = (file.to_owned(), filename.to_owned(), argv.to_vec());
    let mut found = None;
    for _ in 0..=DEEPEST {
        let Some((interpreter, argument)) = head(&file).as_deref().and_then(first_line) else {
            break;
        };
        let rest = argv.get(1..).unwrap_or_default();
        let start = [Some(interpreter.clone()), argument, Some(script)];
        argv = start.into_iter().flatten().chain(rest.iter().cloned()).collect();
        let path = without_links(&folder.join(OsStr::from_bytes(&interpreter)));
        found = Some(Interpreter { name: interpreter.clone(), file: path.clone() });
        script = interpreter;
        file = path.unwrap_or_default();
    }
    found.map(|interpreter| (argv, interpreter))
}

fn head(file: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(file).ok()?.take(LONGEST).read_to_end(&mut head).ok()?;
    Some(head)
}

/// The interpreter, and all that follows as its one argument.
fn first_line(head: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = head.strip_prefix(b"#!")?.split(|byte| matches!(byte, b'\n' | 0)).next()?;
    let line = line.trim_ascii();
    let end = line.iter().position(is_blank).unwrap_or(line.len());
    let (interpreter, argument) = (&line[..end], line[end..].trim_ascii());
    let argument = (!argument.is_empty()).then(|| argument.to_vec());
    (!interpreter.is_empty()).then(|| (interpreter.to_vec(), argument))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::scratch::Scratch;

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn first_lines() {
        let check = |head: &str, interpreter: &str, argument: Option<&str>| {
            let argument = argument.map(|argument| argument.as_bytes().to_vec());
            let expected = Some((interpreter.as_bytes().to_vec(), argument));
            assert_eq!(first_line(head.as_bytes()), expected, "{head:?}");
        };
        check("#!/bin/sh\nexit", "/bin/sh", None);
        check("#! /bin/sh -e -u \nexit", "/bin/sh", Some("-e -u"));
        check("#!/usr/bin/env\tnode", "/usr/bin/env", Some("node"));
        for head in ["#!\n/bin/sh", "#/bin/sh", "\x7fELF", ""] {
            assert_eq!(first_line(head.as_bytes()), None, "{head:?}");
        }
    }

    #[test]
    fn scripts_of_scripts() {
        let scratch = Scratch::new().unwrap();
        let folder = fs::canonicalize(scratch.path()).unwrap();
        scratch.write("inner", "#!/bin/sh -e\n").unwrap();
        let outer = scratch.write("outer", "#!./inner one\n").unwrap();
        let shell = fs::canonicalize("/bin/sh").ok();
        let expected = words("/bin/sh -e ./inner one ./outer two");
        let found = of(&outer, &folder, b"./outer", &words("name two"));
        let interpreter = Interpreter { name: b"/bin/sh".to_vec(), file: shell };
        assert_eq!(found, Some((expected, interpreter)));
        let program = fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(of(&program, &folder, b"/bin/sh", &words("sh")), None);
    }
}
