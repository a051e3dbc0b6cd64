//! Which program an exec is.
//!
//! Names come from the caller and prove little; the inode comes from the kernel. An exec is a
//! program if any name says so, *or* its file is one of the copies found on this machine, *or* it has
//! the content of one. What cannot be told is a reason for `inconclusive`, never a "no".

use std::collections::BTreeSet;

use super::{
    Claim, ClaimKind,
    layers::{given, may_be_interpreter, runs_loader, runs_shell, takes_programs},
    mapped,
    paths::{Leads, NamedPath, Origin},
};
use crate::{
    model::Bytes,
    record::schema::{Exec, KnownCopy},
    session::Story,
};

/// What an exec has to do with a program.
#[derive(Debug)]
pub(super) enum Match {
    /// It runs the program; the text says how that is known.
    Runs(String),
    /// It runs the file of a multi-call copy under another name. If that is a shim, what it hands over
    /// to counts; if not, it may be the program.
    SharesFile(String),
    /// An interpreter was given something that may be the program.
    MayRun(String),
}

pub(super) fn copies<'a>(story: &'a Story, program: &str) -> &'a [KnownCopy] {
    story.start.known_programs.get(program).map_or(&[], Vec::as_slice)
}

/// Whether an exec runs `program`, and what says so.
pub(super) fn runs(
    exec: &Exec,
    program: &str,
    copies: &[KnownCopy],
    story: &Story,
) -> Option<Match> {
    let named = named(exec, program, story);
    if let Some(Match::Runs(_)) = named {
        return named;
    }
    let found =
        by_file(exec, copies, story).or_else(|| given(exec, &story.start.program(program), story));
    match found {
        Some(Match::Runs(_)) => found,
        _ => named.or(found),
    }
}

fn named(exec: &Exec, program: &str, story: &Story) -> Option<Match> {
    match NamedPath::of(&story.start, program) {
        Some(path) => by_path(exec, &path),
        None => by_name(exec, program, story).map(Match::Runs),
    }
}

fn by_file(exec: &Exec, copies: &[KnownCopy], story: &Story) -> Option<Match> {
    let script = exec.script.as_ref().and_then(|script| script.file.as_ref());
    let files = [
        ("executed file", exec.file.as_ref().map(|file| file.version())),
        ("script", script.map(|script| script.version())),
    ];
    let found = files.iter().find_map(|(what, version)| {
        let version = version.as_ref()?;
        let content = story.content(version).ok();
        copies.iter().find_map(|copy| {
            let path = copy.path.lossy();
            if copy.file == version.id {
                return Some((copy, format!("the {what} is {path} (same inode)")));
            }
            let same = story.contents_of(copy.file).any(|known| Some(known) == content);
            same.then(|| (copy, format!("the {what} is a copy of {path} (same content)")))
        })
    });
    let (copy, how) = found?;
    Some(if copy.multi_call { Match::SharesFile(how) } else { Match::Runs(how) })
}

/// Whether the exec is a shim: a script of a shell that did nothing but execute something else. Passing
/// the same file on, as `#!/usr/bin/env` does, is not something else. Of a binary nobody can tell what
/// it did before that.
pub(super) fn is_shim(exec: &Exec, story: &Story) -> bool {
    let Some(process) = story.processes.get(&exec.process) else { return false };
    let name = exec.filename.as_ref();
    let passes_on = |later: &Exec| {
        later.filename.as_ref() == name
            || !later.argv.complete
            || later.argv.args.iter().any(|arg| Some(arg) == name)
    };
    let from = process.execs.iter().skip_while(|own| !std::ptr::eq(own.as_ref(), exec));
    let mut later = from.skip(1);
    let mut runs = exec;
    loop {
        let Some(next) = later.next() else { return false };
        if !passes_on(next) {
            return exec.script.is_some()
                && runs_shell(runs, story)
                && process.did_nothing_between(exec.t_ns, next.t_ns);
        }
        runs = next;
    }
}

fn by_name(exec: &Exec, program: &str, story: &Story) -> Option<String> {
    let script = exec.script.as_ref().and_then(|script| script.file.as_ref());
    let program = story.start.program(program);
    let named =
        |name: Option<&Bytes>| name.is_some_and(|name| program.is_file_name(name.base_name()));
    if named(exec.filename.as_ref()) {
        return Some("by the name it was executed under".into());
    }
    if named(exec.file.as_ref().and_then(|file| file.path.as_ref())) {
        return Some("by the path of the executed file".into());
    }
    if named(script.map(|script| &script.path)) {
        return Some("by the path of the script".into());
    }
    if named(exec.argv.args.first()) {
        return Some("by its argv[0]".into());
    }
    None
}

/// Of a program that is named by its path. The file may have come into being after the start, so its
/// name counts too.
fn by_path(exec: &Exec, wanted: &NamedPath<'_>) -> Option<Match> {
    let file = exec.file.as_ref();
    let executed = file.map_or(Leads::Elsewhere, |file| match &file.path {
        Some(path) if file.path_cut => wanted.may_end_with(&path.0),
        Some(path) => wanted.is_at(&path.0),
        None => Leads::Perhaps,
    });
    let script = exec.script.as_ref();
    let file = script.and_then(|script| script.file.as_ref());
    let script_file = file.map_or(Leads::Elsewhere, |file| wanted.is_at(&file.path.0));
    if executed.max(script_file) == Leads::There {
        return Some(Match::Runs("by its path".into()));
    }
    let from = Origin::exec(exec);
    let interpreter = script.and_then(|script| script.interpreter.as_ref());
    let names = [exec.filename.as_ref(), interpreter];
    let (leads, name) = names
        .into_iter()
        .flatten()
        .map(|name| (wanted.is_named(&name.0, &from), name.lossy()))
        .max_by_key(|(leads, _)| *leads)?;
    match leads {
        Leads::There => Some(Match::Runs(format!("by its path, as {name}"))),
        Leads::Perhaps => Some(Match::MayRun(format!(
            "it was executed as {name}, and which folder that is in is not known"
        ))),
        Leads::Elsewhere if executed.max(script_file) == Leads::Perhaps => Some(Match::MayRun(
            "which folder the executed file is in, or what the path was at the start, is not known"
                .into(),
        )),
        Leads::Elsewhere => None,
    }
}

/// Whether an exec runs one of a program's copies, by the files alone: a script must be run by the
/// interpreter that its first line led to when tracing started, because mounts and formats that are
/// registered (`binfmt_misc`) can put another one in its place. Of a multi-call file the name it was called
/// by must be the copy's too.
pub(super) fn is_copy(exec: &Exec, copies: &[KnownCopy]) -> bool {
    let script = exec.script.as_ref();
    let executed = exec.file.as_ref().map(|file| file.id());
    let file = match script {
        Some(script) => script.file.as_ref().map(|file| file.id),
        None => executed,
    };
    let by_its_interpreter =
        |copy: &KnownCopy| script.is_none() || (executed.is_some() && copy.interpreter == executed);
    let called_as = |name: &[u8]| {
        let argv0 = if script.is_some() { None } else { exec.argv.args.first() };
        [exec.filename.as_ref(), argv0].into_iter().flatten().all(|own| own.base_name() == name)
    };
    copies.iter().filter(|copy| !copy.only_forbids).any(|copy| {
        Some(copy.file) == file
            && by_its_interpreter(copy)
            && (!copy.multi_call || called_as(copy.path.base_name()))
    })
}

/// What keeps an exec from being identified.
pub(super) fn unidentified(exec: &Exec, claim: &Claim, story: &Story) -> Option<String> {
    if exec.memfd {
        return Some(
            "it executed an anonymous memory file, whose content no name identifies".into(),
        );
    }
    if exec.unlinked {
        return Some("the executed file had no name left in any directory".into());
    }
    let Some(file) = &exec.file else {
        return Some("the kernel could not read which file was executed".into());
    };
    if exec.filename.is_none() {
        return Some("the kernel could not read the name it was executed under".into());
    }
    if !exec.argv.complete {
        return Some("its argv is not complete".into());
    }
    if exec.found && takes_programs(exec, story) {
        return Some(
            "it ran already when it was found, and what an interpreter was given before is told by its own memory only"
                .into(),
        );
    }
    let script = exec.script.as_ref().map(|script| script.file.as_ref());
    if script == Some(None) {
        return Some("the kernel could not read which script was executed".into());
    }
    let loaded_is_judged = claim.kind == ClaimKind::NeverRuns && mapped::all_seen(story);
    if !loaded_is_judged && runs_loader(exec, story) {
        return Some(
            "a dynamic loader was run as a program, and what it loaded is not seen".into(),
        );
    }
    match claim.kind {
        ClaimKind::ConnectsOnlyTo | ClaimKind::NeverConnectsTo | ClaimKind::CredentialsInProcess => None,
        // The inode decides, as long as its content stays what it was.
        ClaimKind::RunsOnly => {
            let executed = ("executed file", file.version());
            let script = script.flatten().map(|script| ("script", script.version()));
            std::iter::once(executed).chain(script).find_map(|(what, version)| {
                if let Err(why) = story.content(&version) {
                    return Some(format!("the content of the {what} is not known: {why}"));
                }
                // It may be that at the start.
                if let Some(why) = story.unread_of(version.id) {
                    return Some(format!("a version of the {what} is not known: {why}"));
                }
                let contents: BTreeSet<&str> = story.contents_of(version.id).collect();
                (contents.len() > 1).then(|| format!("the content of the {what} was changed"))
            })
        }
        ClaimKind::NeverRuns => [
            ("executed file", Some(file.version())),
            ("script", script.flatten().map(|script| script.version())),
        ]
        .into_iter()
        .find_map(|(what, version)| {
            let version = version?;
            // No file of another size has the content of a copy.
            let same_size = || {
                let copies = claim.programs.iter().flat_map(|program| copies(story, program));
                copies.filter(|copy| copy.may_have_size(version.size_bytes))
            };
            match story.content(&version) {
                Ok(_) => same_size()
                    .find(|copy| story.contents_of(copy.file).next().is_none())
                    .map(|copy| {
                        format!(
                            "whether the {what} is a copy of {} is not known, because that could not be read",
                            copy.path.lossy()
                        )
                    }),
                Err(why) => same_size()
                    .next()
                    .map(|_| format!("the content of the {what} is not known: {why}")),
            }
        })
        .or_else(|| may_be_interpreter(exec, story)),
    }
}
