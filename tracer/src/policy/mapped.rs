//! Files that processes map as code without executing them: what a dynamic loader loads that is run
//! by hand, and what a program loads by itself.

use std::collections::BTreeSet;

use super::{
    Claim, ClaimKind,
    identity::copies,
    paths::{Leads, NamedPath},
};
use crate::{
    record::schema::{KnownCopy, MappedFile, MapsWatched},
    session::Story,
};

/// Whether everything that was mapped is known.
pub(super) fn all_seen(story: &Story) -> bool {
    let maps = story.end.as_ref().and_then(|end| end.maps.as_ref());
    maps == Some(&MapsWatched::Lost(0))
}

/// Every reason that mapped files give for a claim. No violation: whoever lists what a program needs
/// (`ldd`) maps it too and runs nothing of it.
pub(super) fn reasons(story: &Story, claim: &Claim) -> Vec<String> {
    match claim.kind {
        ClaimKind::NeverRuns => {}
        // What runs there was executed, or is code of a program that may run.
        ClaimKind::RunsOnly
        | ClaimKind::ConnectsOnlyTo
        | ClaimKind::NeverConnectsTo
        | ClaimKind::CredentialsInProcess => {
            return Vec::new();
        }
    }
    let mut reasons = BTreeSet::new();
    for mapped in &story.mapped {
        for file in &mapped.files {
            for program in claim.programs.iter().filter(|program| !program.starts_with('@')) {
                let copies = copies(story, program);
                let by_path =
                    || is_at_path(story, program, file).then(|| Copy::Is("by its path".into()));
                let what = is_copy(story, copies, file).or_else(by_path);
                let Some(what) = what else { continue };
                let (who, path) = (story.label(mapped.process), file.path.lossy());
                reasons.insert(match what {
                    Copy::Is(of) => format!(
                        "{who}: it mapped {path} as code, which is {program} ({of}), without executing it: \
                         it may run it"
                    ),
                    Copy::MayBe(why) => format!(
                        "{who}: it mapped {path} as code, and whether that is {program} is not known: {why}"
                    ),
                });
            }
        }
    }
    reasons.into_iter().collect()
}

/// Whether the file is that of a program which is named by its path.
fn is_at_path(story: &Story, program: &str, file: &MappedFile) -> bool {
    NamedPath::of(&story.start, program)
        .is_some_and(|path| path.is_at(&file.path.0) == Leads::There)
}

/// Whether the file is the program's, or can turn out to be.
pub(super) fn may_be_program(story: &Story, program: &str, file: &MappedFile) -> bool {
    let version = file.version();
    let copies = copies(story, program);
    is_at_path(story, program, file)
        || copies.iter().any(|copy| {
            Some(copy.file) == version.map(|version| version.id)
                || copy.file == file.id
                || version.is_none_or(|version| copy.may_have_size(version.size_bytes))
        })
}

enum Copy {
    /// Of this path.
    Is(String),
    /// For this reason that cannot be told.
    MayBe(String),
}

fn is_copy(story: &Story, copies: &[KnownCopy], file: &MappedFile) -> Option<Copy> {
    let version = file.version();
    let ids = [Some(file.id), version.map(|version| version.id)];
    if let Some(copy) = copies.iter().find(|copy| ids.contains(&Some(copy.file))) {
        return Some(Copy::Is(format!("{}, the same file", copy.path.lossy())));
    }
    let Some(version) = version else {
        let why = file.unread.clone().unwrap_or_else(|| "the recording does not say why".into());
        return (!copies.is_empty()).then_some(Copy::MayBe(why));
    };
    let mut unknown = None;
    for copy in copies.iter().filter(|copy| copy.may_have_size(version.size_bytes)) {
        let known: Vec<&str> = story.contents_of(copy.file).collect();
        match story.content(&version) {
            Ok(content) if known.contains(&content) => {
                return Some(Copy::Is(format!("{}, the same content", copy.path.lossy())));
            }
            Ok(_) if known.is_empty() => {
                unknown = Some(format!("the content of {} could not be read", copy.path.lossy()));
            }
            Ok(_) => {}
            Err(why) => unknown = Some(why.to_owned()),
        }
    }
    unknown.map(Copy::MayBe)
}
