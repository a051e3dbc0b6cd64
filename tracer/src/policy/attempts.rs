//! Failed execs, for claims that count them.

use super::{
    Claim, ClaimKind, ClaimVerdict, Violation,
    paths::{Leads, NamedPath, Origin},
    verdict::{Finding, allows},
};
use crate::{model::Bytes, record::schema::Attempt, session::Story};

/// Adds what the failed execs of the tree mean for a claim.
pub(super) fn judge(story: &Story, claim: &Claim, verdict: &mut ClaimVerdict) {
    if !claim.attempts {
        return;
    }
    match story.start.sensors.iter().find(|sensor| sensor.sensor == "attempts") {
        None => verdict.reasons.push("failed execs were not watched".into()),
        Some(sensor) => verdict.reasons.extend(
            sensor.missing.iter().map(|why| format!("failed execs could not be watched: {why}")),
        ),
    }
    for attempt in &story.attempts {
        // The end of a search along PATH: the exec is judged. Of a path that is forbidden, what was found
        // elsewhere says nothing.
        if story.found_later(attempt) && !is_after_a_path(story, claim, attempt) {
            continue;
        }
        verdict
            .reasons
            .extend(unnamed(attempt).map(|why| format!("{}: {why}", story.label(attempt.process))));
        let is_allowed = attempt.argv_complete && allows(claim, &attempt.argv);
        match tried(story, claim, attempt) {
            None => {}
            Some(Finding::Unclear(_)) if is_allowed => {}
            Some(Finding::Unclear(why)) => {
                verdict.reasons.push(format!("{}: {why}", story.label(attempt.process)));
            }
            Some(Finding::Violates(what)) => {
                let violation = Violation {
                    t_ns: attempt.t_ns,
                    process: attempt.process,
                    detail: format!("tried to run {what}: {}", describe(attempt)),
                };
                if is_allowed {
                    verdict.allowed.push(violation);
                } else {
                    verdict.violations.push(violation);
                }
            }
        }
    }
}

/// What keeps it from being known what was tried.
fn unnamed(attempt: &Attempt) -> Option<String> {
    if attempt.filename_cut || attempt.unread.iter().any(|field| field == "filename") {
        return Some(
            "the kernel could not read all of the name of what it tried to execute".into(),
        );
    }
    attempt.filenames.is_empty().then(|| {
        format!(
            "it tried to execute an open file (fexecve), or an empty name, and which file that was is not \
             known: {}",
            attempt.error
        )
    })
}

/// What the attempt was after, if the claim forbids it.
pub(super) fn tried(story: &Story, claim: &Claim, attempt: &Attempt) -> Option<Finding> {
    match claim.kind {
        ClaimKind::NeverRuns => {
            let leads = claim.programs.iter().map(|program| {
                let called = if is_copy_by_path(story, program, attempt) {
                    Leads::There
                } else {
                    is_after(story, program, attempt)
                };
                (called, program)
            });
            let (leads, program) = leads.max_by_key(|(leads, _)| *leads)?;
            match leads {
                Leads::There => Some(Finding::Violates(program.clone())),
                Leads::Perhaps => Some(Finding::Unclear(format!(
                    "it may have tried to run {program}: {}, and which folder that is in is not known",
                    describe(attempt)
                ))),
                Leads::Elsewhere => None,
            }
        }
        ClaimKind::RunsOnly => {
            let own = own_names(story);
            let is_listed = |program: &String| {
                let leads = attempt.filenames.iter().map(|name| match program.as_str() {
                    "@command" => either(own.iter().any(|own| own.base_name() == name.base_name())),
                    program => is_called(story, program, name),
                });
                leads.min().unwrap_or(Leads::There)
            };
            match claim.programs.iter().map(is_listed).max() {
                Some(Leads::There) => None,
                Some(Leads::Perhaps) => Some(Finding::Unclear(format!(
                    "it tried to run what may not be listed: {}, and which folder that is in is not known",
                    describe(attempt)
                ))),
                Some(Leads::Elsewhere) | None => {
                    let name = attempt.filenames.first();
                    let name = name.map_or("something".into(), |name| name.lossy());
                    Some(Finding::Violates(format!("{name}, which is not listed")))
                }
            }
        }
        ClaimKind::ConnectsOnlyTo
        | ClaimKind::NeverConnectsTo
        | ClaimKind::CredentialsInProcess => None,
    }
}

/// Whether what was tried is surely a program that the claim forbids by its path.
fn is_after_a_path(story: &Story, claim: &Claim, attempt: &Attempt) -> bool {
    claim.kind == ClaimKind::NeverRuns
        && claim.programs.iter().filter(|program| program.starts_with('/')).any(|program| {
            attempt.filenames.iter().any(|name| is_called(story, program, name) == Leads::There)
        })
}

/// Whether the attempt was after the program, by any of its names and its argv[0].
fn is_after(story: &Story, program: &str, attempt: &Attempt) -> Leads {
    let names = attempt.filenames.iter().map(|name| is_called(story, program, name));
    let argv0 = attempt.argv.first().map(|name| match is_called(story, program, name) {
        // It is a word of the caller's choice, most often one without a folder.
        Leads::Perhaps => Leads::Elsewhere,
        leads @ (Leads::Elsewhere | Leads::There) => leads,
    });
    names.chain(argv0).max().unwrap_or(Leads::Elsewhere)
}

fn is_called(story: &Story, program: &str, name: &Bytes) -> Leads {
    match NamedPath::of(&story.start, program) {
        // Which folder the process was in is not recorded.
        Some(path) => path.is_named(&name.0, &Origin::default()),
        None => either(story.start.program(program).is_file_name(name.base_name())),
    }
}

fn either(is_it: bool) -> Leads {
    if is_it { Leads::There } else { Leads::Elsewhere }
}

/// A copy that could not be executed, for want of rights for example, under any name.
fn is_copy_by_path(story: &Story, program: &str, attempt: &Attempt) -> bool {
    let copies = story.start.known_programs.get(program);
    copies.into_iter().flatten().any(|copy| attempt.filenames.contains(&copy.path))
}

/// The names the traced command was executed under.
fn own_names(story: &Story) -> Vec<&Bytes> {
    let first = story.command();
    first.into_iter().flat_map(|exec| exec.filename.iter().chain(exec.argv.args.first())).collect()
}

fn describe(attempt: &Attempt) -> String {
    let first = attempt.filenames.first().map_or("an unreadable name".into(), Bytes::lossy);
    let others = attempt.filenames.len().saturating_sub(1);
    let tries = match (others, attempt.tries) {
        (0, 1) => String::new(),
        (0, tries) => format!(" ({tries} times)"),
        (others, _) => format!(" and {others} more names"),
    };
    format!("{first}{tries} could not be executed: {}", attempt.error)
}
