//! Failed execs, for claims that count them.

use super::{Claim, ClaimKind, ClaimVerdict, Violation, verdict::allows};
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
        // The end of a search along PATH: the exec is judged.
        if story.found_later(attempt) {
            continue;
        }
        if attempt.filenames.is_empty() || attempt.filename_cut {
            verdict.reasons.push(format!(
                "{}: the kernel could not read all of the name of what it tried to execute",
                story.label(attempt.process)
            ));
        }
        let Some(what) = tried(story, claim, attempt) else { continue };
        let violation = Violation {
            t_ns: attempt.t_ns,
            process: attempt.process,
            detail: format!("tried to run {what}: {}", describe(attempt)),
        };
        if attempt.argv_complete && allows(claim, &attempt.argv) {
            verdict.allowed.push(violation);
        } else {
            verdict.violations.push(violation);
        }
    }
}

/// What the attempt was after, if the claim forbids it.
pub(super) fn tried(story: &Story, claim: &Claim, attempt: &Attempt) -> Option<String> {
    let names = || attempt.filenames.iter().chain(attempt.argv.first());
    match claim.kind {
        ClaimKind::NeverRuns => claim
            .programs
            .iter()
            .find(|program| {
                is_called(story, program, names()) || is_copy_by_path(story, program, attempt)
            })
            .cloned(),
        ClaimKind::RunsOnly => {
            let own = own_names(story);
            let listed = claim.programs.iter().any(|program| {
                attempt.filenames.iter().all(|name| {
                    if program == "@command" {
                        own.iter().any(|own| own.base_name() == name.base_name())
                    } else {
                        is_called(story, program, std::iter::once(name))
                    }
                })
            });
            let name = attempt.filenames.first().map_or("something".into(), |name| name.lossy());
            (!listed).then(|| format!("{name}, which is not listed"))
        }
        ClaimKind::ConnectsOnlyTo
        | ClaimKind::NeverConnectsTo
        | ClaimKind::CredentialsInProcess => None,
    }
}

fn is_called<'a>(story: &Story, program: &str, mut names: impl Iterator<Item = &'a Bytes>) -> bool {
    if program.starts_with('/') {
        return names.any(|name| name.0 == program.as_bytes());
    }
    let entry = story.start.program(program);
    names.any(|name| entry.is_file_name(name.base_name()))
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
