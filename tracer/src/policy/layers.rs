//! What one argv stands for, layer by layer.
//!
//! Most wrappers (`env`, `nice`, `timeout`, `sudo`, `xargs`) execute the next program, which is an
//! exec of its own. A dynamic loader and a multi-call shell do not: what they run is in their
//! arguments alone.

use super::{
    identity::Match,
    paths::{Leads, NamedPath, Origin},
};
use crate::{
    catalogue::{Program, family, is_loader, is_multi_call, is_shell},
    model::Bytes,
    record::schema::{Exec, KnownInterpreter},
    session::Story,
};

/// One program of an exec.
#[derive(Debug)]
pub(super) struct Layer<'a> {
    /// The name of its file; of an interpreter's copy under another name, the interpreter's.
    name: String,
    /// What it is called in messages.
    shown: String,
    argv: &'a [Bytes],
}

/// Outermost first: the executed file, and then what that runs without another exec.
pub(super) fn layers<'a>(exec: &'a Exec, story: &Story) -> Vec<Layer<'a>> {
    let own = file_name(exec).unwrap_or_default();
    let (name, shown) = match known_interpreter(exec, story) {
        Some(known) if !is_known_name(&own) => {
            (known.name.clone(), format!("{own}, a copy of {},", known.path.lossy()))
        }
        _ => (own.clone(), own),
    };
    let mut layers = vec![Layer { name, shown, argv: &exec.argv.args }];
    // Each layer's argv is shorter than the one before, or its name is no multi-call program's.
    while let Some(next) = layers.last().and_then(next) {
        layers.push(next);
    }
    layers
}

/// Whether the executed file is a shell of this machine.
pub(super) fn runs_shell(exec: &Exec, story: &Story) -> bool {
    known_interpreter(exec, story).is_some_and(|known| is_shell(&known.name))
}

fn is_known_name(name: &str) -> bool {
    family(name).is_some() || is_loader(name) || is_multi_call(name)
}

/// The name of the executed file.
fn file_name(exec: &Exec) -> Option<String> {
    let path = exec.file.as_ref().and_then(|file| file.path.as_ref()).or(exec.filename.as_ref())?;
    Some(base_name(path))
}

fn base_name(path: &Bytes) -> String {
    String::from_utf8_lossy(path.base_name()).into_owned()
}

/// The interpreter of this machine that the executed file is, by inode or content.
fn known_interpreter<'a>(exec: &Exec, story: &'a Story) -> Option<&'a KnownInterpreter> {
    let version = exec.file.as_ref()?.version();
    let known = &story.start.interpreters;
    known.iter().find(|known| known.file == version.id).or_else(|| {
        let content = story.content(&version).ok()?;
        let same = |known: &&KnownInterpreter| {
            known.size_bytes == version.size_bytes
                && story.contents_of(known.file).any(|known| known == content)
        };
        known.iter().find(same)
    })
}

/// Why it cannot be told whether the executed file is a copy of an interpreter.
pub(super) fn may_be_interpreter(exec: &Exec, story: &Story) -> Option<String> {
    let version = exec.file.as_ref()?.version();
    let known = &story.start.interpreters;
    if known.iter().any(|known| known.file == version.id) {
        return None;
    }
    known.iter().filter(|known| known.size_bytes == version.size_bytes).find_map(|known| {
        let why = match story.content(&version) {
            Err(why) => format!("its content is not known: {why}"),
            Ok(_) if story.contents_of(known.file).next().is_none() => {
                "the content of that could not be read".into()
            }
            Ok(_) => return None,
        };
        Some(format!("the executed file is as large as {}, and {why}", known.path.lossy()))
    })
}

/// Whether the exec is a dynamic loader, or leads to one.
pub(super) fn runs_loader(exec: &Exec, story: &Story) -> bool {
    layers(exec, story).iter().any(|layer| is_loader(&layer.name))
}

/// Whether which program the exec is depends on its arguments: an interpreter, a dynamic loader, a
/// multi-call shell.
pub(super) fn takes_programs(exec: &Exec, story: &Story) -> bool {
    layers(exec, story).iter().any(|layer| is_known_name(&layer.name))
}

fn next<'a>(layer: &Layer<'a>) -> Option<Layer<'a>> {
    let argv = if is_loader(&layer.name) {
        loaded(layer.argv)?
    } else if is_multi_call(&layer.name) {
        let (own, rest) = layer.argv.split_first()?;
        if is_multi_call(&base_name(own)) { rest } else { layer.argv }
    } else {
        return None;
    };
    let word = argv.first()?;
    // A login shell's argv[0] begins with a dash.
    let name = base_name(word).trim_start_matches('-').to_owned();
    // A link to a multi-call program is called by the link's name.
    if argv.len() == layer.argv.len() && is_multi_call(&name) {
        return None;
    }
    Some(Layer { shown: format!("{} as {name}", layer.shown), name, argv })
}

/// The argv of what a dynamic loader is to run (ld.so(8), and musl's). None when it only says
/// something about the program, and when an option is unknown: what follows may be its value.
fn loaded(argv: &[Bytes]) -> Option<&[Bytes]> {
    const WITH_VALUE: [&str; 9] = [
        "--argv0",
        "--audit",
        "--glibc-hwcaps-mask",
        "--glibc-hwcaps-prepend",
        "--inhibit-rpath",
        "--library-path",
        "--preload",
        "--ld-library-path",
        "--ld-preload",
    ];
    let mut rest = argv.get(1..)?;
    loop {
        let word = rest.first()?.lossy();
        rest = match &*word {
            "--" => return rest.get(1..),
            "--inhibit-cache" => rest.get(1..)?,
            option if WITH_VALUE.contains(&option) => rest.get(2..)?,
            option
                if option.split_once('=').is_some_and(|(name, _)| WITH_VALUE.contains(&name)) =>
            {
                rest.get(1..)?
            }
            option if option.starts_with("--") => return None,
            _ => return Some(rest),
        };
    }
}

/// A layer that is the program, or an interpreter that was given the program as its argument.
pub(super) fn given(exec: &Exec, program: &Program, story: &Story) -> Option<Match> {
    let layers = layers(exec, story);
    let words = Words {
        program,
        path: NamedPath::of(&story.start, &program.name),
        from: Origin::exec(exec),
    };
    let inner = layers.iter().zip(layers.iter().skip(1)).find_map(|(outer, layer)| {
        let word = layer.argv.first()?;
        let leads = match words.path {
            None if program.is_file_name(layer.name.as_bytes()) => Leads::There,
            None => Leads::Elsewhere,
            // A multi-call program is given the name of another, and no path.
            Some(_) if !is_loader(&outer.name) => Leads::Elsewhere,
            Some(_) => words.leads(word),
        };
        found(leads, format!("{} was given {}", outer.shown, word.lossy()))
    });
    inner.or_else(|| layers.iter().find_map(|layer| interpreted(layer, &words)))
}

/// What words of an argv are compared with.
struct Words<'a> {
    program: &'a Program,
    /// Where it is named by its path.
    path: Option<NamedPath<'a>>,
    from: Origin<'a>,
}

impl Words<'_> {
    fn leads(&self, word: &Bytes) -> Leads {
        match &self.path {
            None if self.program.is_file_name(word.base_name()) => Leads::There,
            None => Leads::Elsewhere,
            Some(path) => match path.is_named(&word.0, &self.from) {
                // Some look for such a word in more folders than the current one.
                Leads::Elsewhere if !word.0.contains(&b'/') => path.may_end_with(&word.0),
                leads @ (Leads::Elsewhere | Leads::Perhaps | Leads::There) => leads,
            },
        }
    }
}

fn found(leads: Leads, how: String) -> Option<Match> {
    match leads {
        Leads::There => Some(Match::Runs(how)),
        Leads::Perhaps => {
            Some(Match::MayRun(format!("{how}, and which folder that is in is not known")))
        }
        Leads::Elsewhere => None,
    }
}

/// No more than that it may run it.
fn at_most(found: Match) -> Match {
    match found {
        Match::Runs(how) => Match::MayRun(how),
        Match::MayRun(_) | Match::SharesFile(_) => found,
    }
}

/// An interpreter that was given the program as its argument.
///
/// Which argument is the script depends on which options take a value, and that on the
/// interpreter's version. The first word that is no option is the script if no option came before
/// it; else any of the following words, one more for each word that options may take, may be.
fn interpreted(layer: &Layer<'_>, wanted: &Words<'_>) -> Option<Match> {
    let interpreter = family(&layer.name)?;
    let shown = &layer.shown;
    // To a shell or to JavaScript it is a word like any other.
    let is_python = !interpreter.module.is_empty();
    let names_module = |text: &str| {
        let mut modules = wanted.program.python_modules.iter();
        modules.find(|module| is_python && text.contains(*module))
    };
    let given = |argument: &Bytes| {
        if argument.is_empty() {
            return None;
        }
        found(wanted.leads(argument), format!("{shown} was given {}", argument.lossy()))
    };
    // How many words options may take, and how many were passed over for that.
    let (mut taken, mut words) = (0, 0);
    let (mut is_checked, mut is_input, mut options_are_over) = (false, false, false);
    let mut arguments = layer.argv.iter().skip(1).peekable();
    'words: while let Some(argument) = arguments.next() {
        let text = argument.lossy();
        if options_are_over || !text.starts_with(['-', '+']) {
            if is_input {
                break;
            }
            match given(argument) {
                Some(Match::Runs(how)) if words > 0 || is_checked => {
                    return Some(Match::MayRun(how));
                }
                None => {}
                found => return found,
            }
            if words == taken {
                break; // the script, and what follows are its arguments
            }
            words += 1;
            continue;
        }
        if text == "--" || text == "-" && interpreter.dash_ends_options {
            options_are_over = true;
            continue;
        }
        if text == "-" {
            break;
        }
        if let Some(option) = text.strip_prefix("--") {
            // A module that is run first, for one; or the next word is.
            let value = option.split_once('=').map(|(_, value)| Bytes::from(value));
            if let Some(may_run) = value.as_ref().and_then(given) {
                return Some(at_most(may_run));
            }
            taken += usize::from(value.is_none());
            is_checked |= matches!(option, "check" | "help" | "version");
            continue;
        }
        let letters = || text.chars().skip(1);
        taken += letters().filter(|letter| interpreter.word.contains(letter)).count().max(1);
        for (at, letter) in text.char_indices().skip(1) {
            let joined = &text[at + letter.len_utf8()..];
            is_checked |= interpreter.check.contains(&letter);
            is_input |= interpreter.input.contains(&letter);
            if interpreter.value.contains(&letter) {
                // As with a long option.
                if letter == 'r'
                    && let Some(may_run) = given(&Bytes::from(joined))
                {
                    return Some(at_most(may_run));
                }
                break; // the rest of this word is the value, or the next word is
            }
            let (code, module) =
                (interpreter.code.contains(&letter), interpreter.module.contains(&letter));
            if !code && !module {
                continue;
            }
            let value = match arguments.peek() {
                Some(next) if joined.is_empty() || !interpreter.module.contains(&letter) => {
                    next.lossy().into_owned()
                }
                _ => joined.to_owned(),
            };
            let Some(found) = names_module(&value) else {
                // What follows a module is its own; what follows code, nobody runs.
                if module {
                    break 'words;
                }
                return None;
            };
            let imports = value.split(['\n', ';']).map(str::trim_start).any(|statement| {
                let rest =
                    statement.strip_prefix("import ").or_else(|| statement.strip_prefix("from "));
                rest.is_some_and(|rest| rest.trim_start().starts_with(found.as_str()))
            });
            let how =
                format!("{shown} was given {}", if module { "the module" } else { "code with" });
            let how = format!("{how} {found}");
            return Some(if (module && value == *found) || imports {
                Match::Runs(how)
            } else {
                Match::MayRun(how)
            });
        }
    }
    // `-m cProfile -m MODULE`, `-m runpy MODULE`: a module that runs another.
    let mut arguments = layer.argv.iter().skip(1);
    let given = arguments.find(|argument| names_module(&argument.lossy()).is_some())?;
    Some(Match::MayRun(format!("{shown} was given {}", given.lossy())))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Ruling, tests::*},
        *,
    };
    use crate::{
        model::FileVersion,
        record::schema::{End, Start},
    };

    /// Names of the layers of an argv whose first word is the executed file's name.
    fn names(argv: &[&str]) -> Vec<String> {
        let argv: Vec<Bytes> = argv.iter().map(|word| Bytes::from(*word)).collect();
        let name = base_name(&argv[0]);
        let mut layers = vec![Layer { name: name.clone(), shown: name, argv: &argv }];
        while let Some(next) = layers.last().and_then(next) {
            layers.push(next);
        }
        layers.into_iter().map(|layer| layer.name).collect()
    }

    #[test]
    fn wrappers_that_execute_nothing_are_peeled() {
        let check =
            |argv: &[&str], expected: &[&str]| assert_eq!(names(argv), expected, "{argv:?}");
        check(&["/usr/bin/env", "aws"], &["env"]);
        check(&["busybox", "sh", "aws"], &["busybox", "sh"]);
        check(&["busybox", "busybox", "sh", "aws"], &["busybox", "busybox", "sh"]);
        check(&["busybox"], &["busybox"]);
        check(&["/lib64/ld-linux-x86-64.so.2", "/opt/aws"], &["ld-linux-x86-64.so.2", "aws"]);
        check(&["ld.so", "--library-path", "/lib", "/bin/x"], &["ld.so", "x"]);
        check(&["ld.so", "--argv0=aws", "--", "-x"], &["ld.so", "x"]);
        check(&["ld.so", "ld.so", "busybox", "sh"], &["ld.so", "ld.so", "busybox", "sh"]);
        for argv in [&["ld.so", "--list", "aws"][..], &["ld.so", "--unknown", "aws"], &["ld.so"]] {
            check(argv, &["ld.so"]);
        }
        check(&["ld.so", "--argv0"], &["ld.so"]);
    }

    #[test]
    fn a_link_to_a_multi_call_program_is_what_it_is_called() {
        let argv = ["-sh", "/opt/aws"].map(Bytes::from);
        let layer = Layer { name: "busybox".into(), shown: String::new(), argv: &argv };
        let next = next(&layer).unwrap();
        assert_eq!((next.name.as_str(), next.argv.len()), ("sh", 2));
    }

    #[test]
    fn copies_of_interpreters_are_interpreters() {
        const PYTHON: u64 = 50;
        let known = |name: &str| {
            let known = KnownInterpreter {
                name: name.into(),
                path: "/usr/bin/known".into(),
                file: file(PYTHON),
                size_bytes: 1,
            };
            move |start: &mut Start, _: &mut End| start.interpreters = vec![known]
        };
        let linked = exec(CHILD, "/tmp/x", PYTHON, &["x", "/opt/aws"]);
        let copied = exec(CHILD, "/tmp/x", 51, &["x", "/opt/aws"]);
        // The test's contents are as different as the inodes.
        let same = content(FileVersion { id: file(PYTHON), size_bytes: 1, ctime_ns: 0 }, Ok("51"));
        let how = "x, a copy of /usr/bin/known, was given /opt/aws";
        let python = || known("python3");
        check(ruling("no-aws-cli", std::slice::from_ref(&linked), python()), Ruling::Violated, how);
        check(
            ruling("no-aws-cli", &[copied.clone(), same.clone()], python()),
            Ruling::Violated,
            how,
        );
        let other = content(FileVersion { id: file(PYTHON), size_bytes: 1, ctime_ns: 0 }, Ok("x"));
        check(ruling("no-aws-cli", &[copied.clone(), other], python()), Ruling::Proven, "");
        let unread = ruling("no-aws-cli", std::slice::from_ref(&copied), python());
        check(unread, Ruling::Inconclusive, "as large as /usr/bin/known");
        check(ruling("no-aws-cli", &[linked], |_, _| {}), Ruling::Proven, "");
        let loader = || known("ld.so");
        check(ruling("no-aws-cli", &[copied, same.clone()], loader()), Ruling::Violated, how);
        let other = exec(CHILD, "/tmp/x", 51, &["x", "/opt/x"]);
        check(ruling("no-aws-cli", &[other, same], loader()), Ruling::Inconclusive, "loader");
    }
}
