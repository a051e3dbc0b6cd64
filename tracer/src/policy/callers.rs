//! The second leg of a claim that a program never runs.
//!
//! A changed copy under another name is not recognised by name, inode or content. Whatever it is
//! called, it still has to call what the program calls (`calls` in the catalogue). So when a process
//! calls such an endpoint that does not run a program which the policy expects there (`sdk-users`),
//! the claim is inconclusive. Any name will do for that, also one that only DNS gave.

use std::collections::BTreeSet;

use super::{
    Claim, ClaimKind,
    claim::ANYBODY,
    contacts::Contact,
    identity::{copies, is_copy},
    layers::{may_be_interpreter, takes_programs},
};
use crate::{
    catalogue::{Catalogue, Fit, Target},
    model::{Bytes, Endpoint, FileId, ProcessKey},
    record::{
        self,
        schema::{Exec, Start},
    },
    session::Story,
};

/// Whether the claim has a second leg, so that it needs to know the contacts of the tree.
pub(super) fn applies(start: &Start, claim: &Claim) -> bool {
    claim.kind == ClaimKind::NeverRuns
        && record::version(start.schema).tells_endpoints
        && !claim.sdk_users.iter().flatten().any(|user| user == ANYBODY)
        && claim.programs.iter().any(|program| !start.program(program).calls.is_empty())
}

/// Whether anything else ran, so that a call nobody recorded may have been another program's.
pub(super) fn others_ran(story: &Story, claim: &Claim) -> bool {
    story.forgotten.other_programs.contains(claim)
        || story.execs_in_order().any(|exec| !is_user(story, claim, exec))
}

/// Why a call of another program's could have gone without its name.
pub(super) fn unseen_names(story: &Story) -> Option<String> {
    let packets = story.start.sensors.iter().find(|sensor| sensor.sensor == "packets")?;
    let why = packets.missing.as_ref()?;
    Some(format!("what other programs called is not known by name: {why}"))
}

/// Every call that a copy of one of the claim's programs would have to make, by somebody else.
pub(super) fn reasons(story: &Story, claim: &Claim, contacts: &[Contact]) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut seen: BTreeSet<(ProcessKey, String)> = BTreeSet::new();
    for (program, calls) in calls_of(story, claim) {
        for contact in contacts.iter().flat_map(Contact::with_and_without_lost) {
            if contact.is_dns {
                continue;
            }
            let Some(why) = suspicion(story, &calls, contact) else { continue };
            let image = story.image(contact.process, contact.t_ns);
            if image.is_some_and(|exec| is_user(story, claim, exec))
                || !seen.insert((contact.process, why.clone()))
            {
                continue;
            }
            reasons.push(format!(
                "{}: it {why} ({}), as a changed copy of {program} would have to, and `sdk-users` does \
                 not name its program",
                story.label(contact.process),
                contact.words()
            ));
        }
    }
    reasons
}

/// What each of the claim's programs has to call, where that is known.
fn calls_of<'a>(story: &Story, claim: &'a Claim) -> Vec<(&'a String, Vec<Target>)> {
    let parsed = |program| -> Vec<Target> {
        let entry = story.start.program(program);
        entry.calls.iter().filter_map(|call| Target::parse(call).ok()).collect()
    };
    let all = claim.programs.iter().map(|program| (program, parsed(program)));
    all.filter(|(_, calls)| !calls.is_empty()).collect()
}

/// Why the contact may be one of these calls.
fn suspicion(story: &Story, calls: &[Target], contact: &Contact) -> Option<String> {
    let endpoints = story.endpoints().unwrap_or(&Catalogue::embedded().endpoints);
    // What is known by its address is the instance's own metadata, and no call of an API.
    if contact.to.is_some_and(|to| endpoints.of_address(to).is_some()) {
        return None;
    }
    let called = contact.naming.names.iter().find(|named| {
        let fits = |call: &Target| call.fits_name(&named.name, contact.port(), endpoints);
        calls.iter().any(|call| fits(call) != Fit::No)
    });
    match called {
        Some(named) => Some(format!("called {}", named.name)),
        None if contact.hides_name && contact.found().next().is_none() => {
            Some("called somebody whose name it hides".to_owned())
        }
        None => None,
    }
}

/// Why contacts there may have been one of the claim's calls, given these names of the file of hosts.
pub(super) fn named_by_hosts(
    story: &Story,
    claim: &Claim,
    to: Endpoint,
    names: &[String],
    who: &str,
) -> Option<String> {
    let endpoints = story.endpoints().unwrap_or(&Catalogue::embedded().endpoints);
    let (program, name) = calls_of(story, claim).into_iter().find_map(|(program, calls)| {
        let fits = |name: &&String| {
            calls.iter().any(|call| call.fits_name(name, Some(to.port), endpoints) != Fit::No)
        };
        Some((program, names.iter().find(fits)?))
    })?;
    Some(format!(
        "{who}: it contacted {to}, which is {name} in the file of hosts, as a changed copy of {program} \
         would have to"
    ))
}

/// Whether the claim can do without the contact, whatever comes later.
pub(super) fn is_settled(story: &Story, claim: &Claim, contact: &Contact) -> bool {
    let suspects = |contact: &Contact| {
        calls_of(story, claim).iter().any(|(_, calls)| suspicion(story, calls, contact).is_some())
    };
    let by_a_user = || {
        let image = story.image(contact.process, contact.t_ns);
        // Whether it is an interpreter's copy may not be known yet, and then what it was given counts.
        let is_sure = |exec: &&Exec| may_be_interpreter(exec, story).is_none();
        image.filter(is_sure).is_some_and(|exec| is_user(story, claim, exec))
    };
    !applies(&story.start, claim) || by_a_user() || !contact.with_and_without_lost().any(suspects)
}

/// Whether the exec runs a program that may call these endpoints.
pub(super) fn is_user(story: &Story, claim: &Claim, exec: &Exec) -> bool {
    let default = ["@command".to_owned()];
    let users = claim.sdk_users.as_deref().unwrap_or(&default);
    users.iter().any(|user| match user.as_str() {
        "@command" => is_command(story, exec),
        user => is_copy(exec, copies(story, user)),
    })
}

/// Whether the exec is the command's own: the same file and, of an interpreter, the same script.
pub(super) fn is_command(story: &Story, exec: &Exec) -> bool {
    let Some(own) = story.command() else { return false };
    let is_same = || {
        let identity = identity(own, story);
        identity.is_some() && identity == self::identity(exec, story)
    };
    std::ptr::eq(own, exec) || is_same()
}

/// What tells the program of an exec from others that run from the same file.
#[derive(Debug, PartialEq, Eq)]
struct Identity<'a> {
    file: FileId,
    script: Option<FileId>,
    /// Up to the script; all of them where it cannot be told which one that is.
    arguments: &'a [Bytes],
    /// For a script with a relative name.
    cwd: Option<&'a Bytes>,
}

fn identity<'a>(exec: &'a Exec, story: &Story) -> Option<Identity<'a>> {
    let id = exec.file.as_ref()?.id();
    if let Some(script) = &exec.script {
        let script = Some(script.file.as_ref()?.id);
        return Some(Identity { file: id, script, arguments: &[], cwd: None });
    }
    if !takes_programs(exec, story) {
        return Some(Identity { file: id, script: None, arguments: &[], cwd: None });
    }
    if !exec.argv.complete {
        return None;
    }
    let arguments = exec.argv.args.get(1..).unwrap_or_default();
    let is_option = |word: &Bytes| word.0.starts_with(b"-") || word.0.starts_with(b"+");
    // An option can take the next word, unless its value is in the same one.
    let alone = |word: &Bytes| word.0.starts_with(b"--") && word.0.contains(&b'=');
    let script = arguments.iter().position(|word| !is_option(word));
    let arguments = match script {
        Some(at) if arguments.iter().take(at).all(alone) => arguments.get(..=at)?,
        Some(_) | None => arguments,
    };
    Some(Identity { file: id, script: None, arguments, cwd: exec.cwd.as_ref() })
}
