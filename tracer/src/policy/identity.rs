//! Which program an exec is.
//!
//! Names come from the caller and prove little; the inode comes from the kernel. An exec is a
//! program if any name says so *or* its file is one of the copies found on this machine, and what
//! cannot be told is a reason for `inconclusive`, never a "no".

use std::path::Path;

use crate::{
    catalogue::{self, Program},
    model::{Bytes, FileId},
    record::schema::{Exec, KnownCopy},
};

/// Copies of a program on this machine: in the directories of `path_variable`, or the file itself
/// when `program` is an absolute path. `identify` follows symbolic links.
pub fn find_copies(
    program: &str,
    path_variable: &[u8],
    identify: &dyn Fn(&Path) -> Option<FileId>,
) -> Vec<KnownCopy> {
    let copy = |path: Bytes| identify(path.as_path()).map(|file| KnownCopy { path, file });
    if program.starts_with('/') {
        return copy(program.into()).into_iter().collect();
    }
    let names = catalogue::program(program).file_names;
    let directories = path_variable.split(|byte| *byte == b':').filter(|path| !path.is_empty());
    let mut copies: Vec<KnownCopy> = Vec::new();
    for directory in directories {
        for name in &names {
            let found = copy(Bytes([directory, b"/", name.as_bytes()].concat()));
            copies.extend(found.filter(|found| copies.iter().all(|copy| copy.file != found.file)));
        }
    }
    copies
}

/// Whether an exec runs `program`, and what says so.
pub(super) fn runs(exec: &Exec, program: &str, copies: &[KnownCopy]) -> Option<String> {
    let script = exec.script.as_ref();
    for (what, file) in [
        ("executed file", exec.file.as_ref().map(|file| file.id())),
        ("script", script.and_then(|script| script.file)),
    ] {
        if let Some(copy) = copies.iter().find(|copy| Some(copy.file) == file) {
            return Some(format!("the {what} is {} (same inode)", copy.path.lossy()));
        }
    }
    if program.starts_with('/') {
        // The file may have come into being after the start, so its name counts too.
        let path = exec.file.as_ref().and_then(|file| file.path.as_ref());
        let script = script.and_then(|script| script.resolved_path.as_ref());
        let named = [exec.filename.as_ref(), path, script];
        return named
            .into_iter()
            .flatten()
            .any(|name| name.0 == program.as_bytes())
            .then(|| "by its path".into());
    }
    let program = catalogue::program(program);
    let named = |name: Option<&Bytes>| {
        name.is_some_and(|name| {
            program.file_names.iter().any(|file| file.as_bytes() == name.base_name())
        })
    };
    if named(exec.filename.as_ref()) {
        return Some("by the name it was executed under".into());
    }
    if named(exec.file.as_ref().and_then(|file| file.path.as_ref())) {
        return Some("by the path of the executed file".into());
    }
    if named(script.and_then(|script| script.resolved_path.as_ref())) {
        return Some("by the path of the script".into());
    }
    if named(exec.argv.args.first()) {
        return Some("by its argv[0]".into());
    }
    interpreted(exec, &program)
}

/// An interpreter or loader that was given the program as its argument.
fn interpreted(exec: &Exec, program: &Program) -> Option<String> {
    let path = exec.file.as_ref().and_then(|file| file.path.as_ref()).or(exec.filename.as_ref())?;
    let name = String::from_utf8_lossy(path.base_name()).into_owned();
    let python = name.starts_with("python") || name.starts_with("pypy");
    let other = ["perl", "ruby", "node", "bash", "dash", "sh", "zsh", "busybox"]
        .contains(&name.as_str())
        || name.starts_with("ld-linux")
        || name.starts_with("ld-musl")
        || name == "ld.so";
    if !python && !other {
        return None;
    }
    let mut arguments = exec.argv.args.iter().skip(1);
    while let Some(argument) = arguments.next() {
        let text = argument.lossy();
        if !text.starts_with('-') {
            let named =
                program.file_names.iter().any(|file| file.as_bytes() == argument.base_name());
            return named.then(|| format!("{name} was given {text}"));
        }
        if !python {
            continue;
        }
        let module_of = |text: &str| {
            program.python_modules.iter().find(|module| text.contains(*module)).cloned()
        };
        // `-m MODULE` and `-c CODE`, joined or apart, possibly behind other one-letter options.
        if let Some(at) = text.find(['m', 'c']).filter(|_| !text.starts_with("--")) {
            let joined = text[at + 1..].to_owned();
            let value = if joined.is_empty() {
                arguments.next().map(|value| value.lossy().into_owned()).unwrap_or_default()
            } else {
                joined
            };
            return module_of(&value).map(|module| format!("{name} runs the module {module}"));
        }
    }
    None
}

/// What keeps an exec from being identified.
pub(super) fn unidentified(exec: &Exec) -> Option<String> {
    if exec.memfd {
        return Some(
            "it executed an anonymous memory file, whose content no name identifies".into(),
        );
    }
    if exec.unlinked {
        return Some("the executed file had no name left in any directory".into());
    }
    if exec.file.is_none() {
        return Some("the kernel could not read which file was executed".into());
    }
    if exec.filename.is_none() {
        return Some("the kernel could not read the name it was executed under".into());
    }
    if !exec.argv.complete {
        return Some("its argv is not complete".into());
    }
    if exec.script.as_ref().is_some_and(|script| script.file.is_none()) {
        return Some("the script it ran was gone before its file could be identified".into());
    }
    None
}
