//! What no claim can need any more, so that it need not be kept until the end.
//!
//! Only for claims that a program never runs: those are decided exec by exec and call by call. An
//! exec is settled when it gives neither a violation nor a reason, and nothing can come later that
//! would change that but two things, for which something small is kept ([`Forgotten`]): content that
//! turns out to be a program's when that file itself is changed, and names in the file of hosts, which
//! is read at the end.

use super::{
    Claim, ClaimKind, Policy,
    attempts::tried,
    callers,
    contacts::{Contact, Index},
    identity::{copies, unidentified},
    layers::runs_loader,
    mapped::may_be_program,
    verdict::forbidden,
};
use crate::{
    record::schema::{Attempt, Datagram, Exec, Mapped, Opening, Start},
    session::{Connection, Forgotten, Names, Story},
};

/// Whether anything can be settled before the end.
pub(crate) fn can_settle(policies: &[Policy]) -> bool {
    let mut claims = policies.iter().flat_map(|policy| &policy.claims);
    claims.all(|claim| match claim.kind {
        ClaimKind::NeverRuns => true,
        ClaimKind::RunsOnly
        | ClaimKind::ConnectsOnlyTo
        | ClaimKind::NeverConnectsTo
        | ClaimKind::CredentialsInProcess => false,
    })
}

fn claims(start: &Start) -> impl Iterator<Item = &Claim> {
    start.policies.iter().flat_map(|policy| &policy.claims)
}

/// Whether an exec of a process that has ended matters to no claim.
pub(crate) fn exec_is_settled(story: &Story, exec: &Exec) -> bool {
    claims(&story.start).all(|claim| {
        forbidden(story, claim, exec).is_none()
            && unidentified(exec, claim, story).is_none()
            // Whether that is a reason depends on what is known at the end.
            && !runs_loader(exec, story)
    })
}

/// Whether a failed exec matters to no claim.
pub(crate) fn attempt_is_settled(story: &Story, attempt: &Attempt) -> bool {
    let named = !attempt.filenames.is_empty() && !attempt.filename_cut;
    claims(&story.start)
        .all(|claim| !claim.attempts || (named && tried(story, claim, attempt).is_none()))
}

/// Whether files that were mapped matter to no claim.
pub(crate) fn mapped_is_settled(story: &Story, mapped: &Mapped) -> bool {
    let mut programs = claims(&story.start).flat_map(|claim| &claim.programs);
    programs.all(|program| !mapped.files.iter().any(|file| may_be_program(story, program, file)))
}

/// Claims whose second leg is there because the exec's program is none that the policy names.
pub(crate) fn claims_with_others<'a>(
    story: &'a Story,
    exec: &'a Exec,
) -> impl Iterator<Item = &'a Claim> {
    let applies = |claim: &&Claim| callers::applies(&story.start, claim);
    claims(&story.start).filter(applies).filter(|claim| !callers::is_user(story, claim, exec))
}

/// Tells contacts that matter from others, by what is known now.
pub(crate) struct Contacts<'a> {
    story: &'a Story,
    index: Index,
    /// As if nobody had watched the resolver: whether some of its answers were lost is known at the end.
    without_resolver: Option<Index>,
}

impl<'a> Contacts<'a> {
    pub(crate) fn of(story: &'a Story) -> Contacts<'a> {
        let without = || Index::of(story, Names::without_resolver(story));
        Contacts {
            story,
            index: Index::of(story, Names::of(story)),
            without_resolver: (!story.resolved.is_empty()).then(without),
        }
    }

    /// What is to be kept of it.
    pub(crate) fn connection(&self, connection: &Connection) -> Option<Contact> {
        self.unsettled(|index| Some(index.connection(connection)))
    }

    pub(crate) fn datagram(&self, datagram: &Datagram) -> Option<Contact> {
        self.unsettled(|index| index.datagram(datagram))
    }

    /// Of a contact that is forgotten already.
    pub(crate) fn opening(&self, opening: &Opening) -> Option<Contact> {
        self.unsettled(|index| Some(index.opening(opening)))
    }

    fn unsettled(&self, of: impl Fn(&Index) -> Option<Contact>) -> Option<Contact> {
        let mut contact = of(&self.index)?;
        if let Some(without) = self.without_resolver.as_ref().and_then(of) {
            contact.set_without_resolver(without);
        }
        // What may turn out not to be DNS counts as something else.
        contact.is_dns = false;
        let settled = |claim: &Claim| callers::is_settled(self.story, claim, &contact);
        (!claims(&self.story.start).all(settled)).then_some(contact)
    }
}

/// What the end of the recording says about what was forgotten.
pub(super) fn reasons(story: &Story, claim: &Claim) -> Vec<String> {
    let Forgotten { files, destinations, .. } = &story.forgotten;
    let programs = || claim.programs.iter().filter(|program| !program.starts_with('@'));
    let mut reasons = Vec::new();
    for (version, who) in files {
        let Ok(content) = story.content(version) else { continue };
        for program in programs() {
            let same = |path| {
                format!(
                    "{who}: the executed file has the content that {path} was given later, which is {program}"
                )
            };
            let copies = copies(story, program).iter();
            let copy =
                copies.filter(|copy| story.contents_of(copy.file).any(|known| known == content));
            reasons.extend(copy.map(|copy| same(copy.path.lossy())).next());
        }
    }
    if callers::applies(&story.start, claim) {
        let hosts = story.end.iter().flat_map(|end| &end.hosts);
        for entry in hosts {
            let address = entry.address.to_canonical();
            let there = destinations.iter().filter(|(to, _)| to.address.to_canonical() == address);
            for (to, who) in there {
                reasons.extend(callers::named_by_hosts(story, claim, *to, &entry.names, who));
            }
        }
    }
    reasons
}
