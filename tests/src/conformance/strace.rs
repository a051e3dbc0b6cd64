//! The lines that `strace -f -y -xx` writes, put together to whole system calls.
//!
//! With `-xx` every string is in hexadecimal, so no quote, bracket or arrow in a line is anything but
//! strace's own.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};

use super::facts::Status;

/// A call that has come back, or what strace said about a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The first line of a thread: it did not run before.
    Seen(Tid),
    Call(Call),
    Ended(Tid, Status),
    /// A thread executed something, and goes on under the number of the process.
    Became {
        from: Tid,
        to: Tid,
    },
}

pub(super) type Tid = u32;

/// A system call that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) tid: Tid,
    pub(super) name: String,
    /// As written, between the brackets.
    pub(super) arguments: String,
    /// As written, after the equals sign.
    pub(super) result: String,
}

impl Call {
    /// The number that came back, if one did.
    pub(super) fn returned(&self) -> Option<i64> {
        let end = self.result.find(['<', ' ']).unwrap_or(self.result.len());
        self.result[..end].parse().ok()
    }

    /// The error's name, or how the call was interrupted.
    pub(super) fn error(&self) -> Option<&str> {
        let rest = self.result.strip_prefix("-1 ").or_else(|| self.result.strip_prefix("? "))?;
        rest.split(' ').next()
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut open: HashMap<Tid, Begun> = HashMap::new();
    let mut known = std::collections::HashSet::new();
    for line in text.lines() {
        let mut one = |line: &str| -> Result<()> {
            let (tid, rest) = line.trim_start().split_once(' ').context("no blank")?;
            let tid: Tid = tid.parse().context("no thread's number")?;
            if known.insert(tid) {
                steps.push(Step::Seen(tid));
            }
            match read(rest.trim_start())? {
                Line::Whole { name, arguments, result } => {
                    let call = Call { tid, name, arguments, result };
                    steps.push(Step::Call(call));
                }
                Line::Begun(begun) => {
                    open.insert(tid, begun);
                }
                Line::BegunElsewhere(begun) => {
                    open.insert(tid, begun);
                }
                Line::Superseded { by } => {
                    let mut begun = open.remove(&by).with_context(|| format!("no exec of {by}"))?;
                    // It is only said once the exec has succeeded; with `--seccomp-bpf` the result is
                    // not.
                    begun.result = Some("0".into());
                    open.insert(tid, begun);
                    known.remove(&by);
                    steps.push(Step::Became { from: by, to: tid });
                }
                Line::Resumed { name, arguments, result } => {
                    let begun =
                        open.remove(&tid).with_context(|| format!("no {name} to resume"))?;
                    let arguments = begun.arguments + &arguments;
                    let result = begun.result.unwrap_or(result);
                    steps.push(Step::Call(Call { tid, name, arguments, result }));
                }
                Line::Ended(status) => {
                    open.remove(&tid);
                    known.remove(&tid);
                    steps.push(Step::Ended(tid, status));
                }
                Line::Nothing => {}
            }
            Ok(())
        };
        one(line).with_context(|| format!("not a line of strace's: {}", shortened(line)))?;
    }
    Ok(steps)
}

fn shortened(line: &str) -> String {
    line.chars().take(200).collect()
}

struct Begun {
    arguments: String,
    /// Known before it comes back.
    result: Option<String>,
}

impl Begun {
    fn new(arguments: &str) -> Begun {
        Begun { arguments: arguments.trim_end().into(), result: None }
    }
}

enum Line {
    Whole {
        name: String,
        arguments: String,
        result: String,
    },
    Begun(Begun),
    /// It will come back under the number of the process.
    BegunElsewhere(Begun),
    Superseded {
        by: Tid,
    },
    Resumed {
        name: String,
        arguments: String,
        result: String,
    },
    Ended(Status),
    Nothing,
}

const UNFINISHED: &str = "<unfinished ...>";
/// The thread was killed within the call.
const DETACHED: &str = "<detached ...>";

fn read(line: &str) -> Result<Line> {
    if let Some(said) = line.strip_prefix("+++ ") {
        if let Some(by) = said.strip_prefix("superseded by execve in pid ") {
            let by = by.trim_end_matches(" +++").parse()?;
            return Ok(Line::Superseded { by });
        }
        return Ok(status(said)?.map_or(Line::Nothing, Line::Ended));
    }
    if line.starts_with("---") {
        return Ok(Line::Nothing);
    }
    if let Some(rest) = line.strip_prefix("<... ") {
        let (name, rest) = rest.split_once(" resumed>").context("no end of `resumed`")?;
        // The thread ended within the call.
        if [UNFINISHED, DETACHED].iter().any(|end| rest.trim_end().ends_with(end)) {
            let (name, arguments, result) = (name.into(), String::new(), "?".into());
            return Ok(Line::Resumed { name, arguments, result });
        }
        let (arguments, result) = arguments_and_result(rest)?;
        return Ok(Line::Resumed { name: name.into(), arguments, result });
    }
    let (name, rest) = line.split_once('(').context("no bracket")?;
    if let Some(arguments) = rest.strip_suffix(UNFINISHED) {
        return Ok(Line::Begun(Begun::new(arguments)));
    }
    if let Some(before) = rest.strip_suffix(" ...>")
        && let Some((arguments, _)) = before.rsplit_once("<pid changed to ")
    {
        return Ok(Line::BegunElsewhere(Begun::new(arguments)));
    }
    if let Some(arguments) = rest.strip_suffix(DETACHED) {
        let arguments = arguments.trim_end().into();
        return Ok(Line::Whole { name: name.into(), arguments, result: "?".into() });
    }
    let (arguments, result) = arguments_and_result(rest)?;
    Ok(Line::Whole { name: name.into(), arguments, result })
}

/// `exited with 1 +++`, `killed by SIGSEGV (core dumped) +++`.
fn status(said: &str) -> Result<Option<Status>> {
    let word = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    if let Some(rest) = said.strip_prefix("exited with ") {
        return Ok(Some(Status::Code(word(rest).parse().context("no exit code")?)));
    }
    Ok(said.strip_prefix("killed by ").map(|rest| Status::Signal(word(rest))))
}

fn arguments_and_result(text: &str) -> Result<(String, String)> {
    let (before, result) = text.rsplit_once(" = ").context("no result")?;
    let Some(arguments) = before.trim_end().strip_suffix(')') else { bail!("no closing bracket") };
    Ok((arguments.into(), result.trim().into()))
}

/// The bytes of a string as `-xx` writes it, without its quotes; what is not hexadecimal is kept.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let escaped = rest.strip_prefix("\\x").and_then(|rest| rest.get(..2));
        if let Some(byte) = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = &rest[4..];
        } else {
            let length = next.len_utf8();
            bytes.extend_from_slice(&rest.as_bytes()[..length]);
            rest = &rest[length..];
        }
    }
    bytes
}

/// A quoted string at the beginning, whether there was more of it, and what follows.
pub(super) fn string(text: &str) -> Option<(Vec<u8>, bool, &str)> {
    let (inside, rest) = text.strip_prefix('"')?.split_once('"')?;
    let (is_cut, rest) = match rest.strip_prefix("...") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    Some((bytes(inside), is_cut, rest))
}

/// What a descriptor stands for, as `-y` writes it: `3<...>` at the beginning, and what follows.
pub(super) fn descriptor(text: &str) -> Option<(i64, Vec<u8>, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    match text[end..].strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((of, rest)) => {
            let rest = rest.strip_prefix("(deleted)").unwrap_or(rest);
            Some((number, bytes(of), rest))
        }
        None => Some((number, Vec::new(), &text[end..])),
    }
}

/// The first thread that was seen: whom strace started.
pub(super) fn first(steps: &[Step]) -> Option<Tid> {
    steps.iter().find_map(|step| match step {
        Step::Seen(tid) => Some(*tid),
        Step::Call(_) | Step::Ended(..) | Step::Became { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(tid: Tid, name: &str, arguments: &str, result: &str) -> Step {
        Step::Call(Call {
            tid,
            name: name.into(),
            arguments: arguments.into(),
            result: result.into(),
        })
    }

    #[test]
    fn calls_are_put_together() {
        let text = "\
7 vfork( <unfinished ...>
8 execve(\"\\x61\", [\"\\x62\"], 0x7f /* 2 vars */ <unfinished ...>
7 <... vfork resumed>)              = 8
8 <... execve resumed>)             = 0
8 +++ exited with 0 +++
7 close(3<\\x61>)                   = 0
";
        let expected = [
            Step::Seen(7),
            Step::Seen(8),
            call(7, "vfork", "", "8"),
            call(8, "execve", "\"\\x61\", [\"\\x62\"], 0x7f /* 2 vars */", "0"),
            Step::Ended(8, Status::Code(0)),
            call(7, "close", "3<\\x61>", "0"),
        ];
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_thread_that_executes_becomes_the_process() {
        let text = "\
7 clone3({flags=CLONE_THREAD} => {parent_tid=[9]}, 88) = 9
9 execve(\"\\x61\", [], NULL <pid changed to 7 ...>
7 +++ superseded by execve in pid 9 +++
7 <... execve resumed>) = ?
";
        let expected = [
            Step::Seen(7),
            call(7, "clone3", "{flags=CLONE_THREAD} => {parent_tid=[9]}, 88", "9"),
            Step::Seen(9),
            Step::Became { from: 9, to: 7 },
            call(7, "execve", "\"\\x61\", [], NULL", "0"),
        ];
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn how_threads_end() {
        let text = "\
7 +++ exited with 127 +++
8 +++ killed by SIGKILL +++
9 +++ killed by SIGSEGV (core dumped) +++
";
        let steps = parse(text).unwrap();
        let ends: Vec<&Step> =
            steps.iter().filter(|step| matches!(step, Step::Ended(..))).collect();
        let killed = |tid, name: &str| Step::Ended(tid, Status::Signal(name.into()));
        let code = Step::Ended(7, Status::Code(127));
        assert_eq!(ends, [&code, &killed(8, "SIGKILL"), &killed(9, "SIGSEGV")]);
    }

    #[test]
    fn pieces_of_lines() {
        assert_eq!(string("\"\\x61\\x0a\"..., 3"), Some((b"a\n".to_vec(), true, ", 3")));
        assert_eq!(descriptor("3<\\x61>, x"), Some((3, b"a".to_vec(), ", x")));
        assert_eq!(descriptor("-1, x"), Some((-1, Vec::new(), ", x")));
        let Step::Call(failed) = call(1, "connect", "", "-1 EINPROGRESS (in progress)") else {
            panic!()
        };
        assert_eq!((failed.returned(), failed.error()), (Some(-1), Some("EINPROGRESS")));
        let Step::Call(cut) = call(1, "execve", "", "? ERESTARTSYS (to be restarted)") else {
            panic!()
        };
        assert_eq!((cut.returned(), cut.error()), (None, Some("ERESTARTSYS")));
        assert!(parse("7 nonsense").is_err());
    }
}
