//! The claim that processes resolve their credentials themselves.
//!
//! It rests on two things: for each process that called AWS, a source of credentials was seen that it
//! could use itself; and before its last call nothing else ran that could have handed it credentials.
//! Whatever a program prints, or gives to what it starts, can be credentials, so every other program
//! counts that the claim's `programs` does not name. What hands over credentials for certain (the `credential_process` of a
//! configuration, a CLI that is asked for them) violates it.

use std::collections::BTreeMap;

use super::{
    Claim, ClaimVerdict, Violation,
    callers::is_command,
    contacts::Contact,
    identity::{copies, is_copy},
};
use crate::{
    model::ProcessKey,
    record::schema::{CredentialGap, Exec},
    session::{CredentialUse, Origin, Story, credential_uses, helper},
};

/// The provider that the claim is about.
const PROVIDER: &str = "aws";

/// Adds what is known of credentials to a verdict.
pub(super) fn judge(
    story: &Story,
    claim: &Claim,
    contacts: &[Contact],
    verdict: &mut ClaimVerdict,
) {
    if story.start.credentials.is_none() {
        verdict.reasons.push("the recording does not tell where credentials came from".into());
        return;
    }
    let uses = credential_uses(story);
    let calls = |one: &&CredentialUse| one.provider == PROVIDER && one.origin != Origin::NoContact;
    let uses: Vec<&CredentialUse> = uses.iter().filter(calls).collect();
    if uses.is_empty() {
        verdict
            .reasons
            .push("no process was seen to call AWS, so there is nothing to prove".into());
    }
    for one in &uses {
        match &one.origin {
            Origin::Helper { process, .. } => verdict.violations.push(Violation {
                t_ns: first_call(one),
                process: *process,
                detail: format!("{} {}", story.label(one.process), one.origin.words(story)),
            }),
            Origin::Unknown { .. } => verdict.reasons.push(format!(
                "{}: {}",
                story.label(one.process),
                one.origin.words(story)
            )),
            Origin::Resolved { .. } | Origin::OneOf { .. } | Origin::NoContact => {}
        }
        verdict.reasons.extend(others(story, claim, one));
    }
    verdict.reasons.extend(nameless(story, contacts));
    verdict.reasons.extend(gaps(story));
}

fn first_call(one: &CredentialUse) -> u64 {
    one.contacts().next().unwrap_or(0)
}

/// Programs that ran before the last call, other than the one that called.
fn others(story: &Story, claim: &Claim, one: &CredentialUse) -> Vec<String> {
    let own: Vec<&Exec> =
        one.contacts().filter_map(|t_ns| story.image(one.process, t_ns)).collect();
    let last_ns = one.contacts().last().unwrap_or(u64::MAX);
    let mut found: BTreeMap<String, (ProcessKey, usize)> = BTreeMap::new();
    for exec in story.execs_in_order() {
        let is_own = own.iter().any(|own| std::ptr::eq(*own, exec));
        let asked = || {
            let watch = story.start.credentials.as_ref();
            watch.is_some_and(|watch| helper(&story.start, watch, exec).is_some())
        };
        if exec.t_ns > last_ns || is_own || (is_listed(story, claim, exec) && !asked()) {
            continue;
        }
        let path = exec.file.as_ref().and_then(|file| file.path.as_ref());
        let name = path.or(exec.filename.as_ref()).map_or("?".into(), |path| path.lossy());
        found.entry(name.into_owned()).or_insert((exec.process, 0)).1 += 1;
    }
    found
        .into_iter()
        .map(|(name, (process, times))| {
            let more = if times > 1 { format!(", {times} times") } else { String::new() };
            format!(
                "{}: {name} ran before its last call of AWS ({}{more}), and what that handed over is \
                 not seen; `programs` does not name it",
                story.label(one.process),
                story.label(process)
            )
        })
        .collect()
}

fn is_listed(story: &Story, claim: &Claim, exec: &Exec) -> bool {
    claim.programs.iter().any(|program| match program.as_str() {
        "@command" => is_command(story, exec),
        program => is_copy(exec, copies(story, program)),
    })
}

/// Calls that may have been calls of AWS, because nothing names the other end.
fn nameless(story: &Story, contacts: &[Contact]) -> Vec<String> {
    let unknown = |contact: &&Contact| {
        contact.spoken
            && !contact.is_dns
            && (contact.hides_name || contact.naming.best().is_none())
            && story.classify(None, contact.to).is_none()
    };
    let mut reasons: Vec<String> = Vec::new();
    for contact in contacts.iter().filter(unknown) {
        let who = story.label(contact.process);
        let reason = format!("{who}: its {} may have been a call of AWS", contact.words());
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons
}

/// Files that were not watched, and events that were lost.
fn gaps(story: &Story) -> Vec<String> {
    let ours = |gap: &&CredentialGap| {
        story
            .start
            .credentials
            .iter()
            .flat_map(|watch| &watch.sources)
            .any(|source| source.name == gap.source && source.provider == PROVIDER)
    };
    let before = story.start.credentials.iter().flat_map(|watch| &watch.gaps);
    let end = story.end.as_ref().and_then(|end| end.credentials.as_ref());
    let later = end.iter().flat_map(|end| &end.gaps);
    let mut reasons: Vec<String> =
        before.chain(later).filter(ours).map(|gap| format!("credentials: {}", gap.why)).collect();
    match end {
        None => reasons.push("the recording does not say what the watch of credentials counted".into()),
        Some(end) if end.events.overflows > 0 || end.events.lost > 0 => reasons.push(format!(
            "credentials: the kernel's queue of opened files was full {} times, and {} events were lost",
            end.events.overflows, end.events.lost
        )),
        Some(_) => {}
    }
    reasons
}
