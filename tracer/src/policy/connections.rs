//! Claims over connections.
//!
//! A name counts when the process said it to the other end (SNI, HTTP Host) *and* found the address
//! under it (DNS, the resolver, the hosts file). Either alone proves nothing: an address can have many
//! names, and a process can say any name to anybody. What is likely and not sure never proves a claim;
//! where nothing was said over a connection, likely is all there is to know.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    Claim, ClaimKind, ClaimVerdict, DnsRule, Violation,
    contacts::{Contact, Known},
};
use crate::{
    catalogue::{Catalogue, Endpoints, Fit, Target},
    model::ProcessKey,
    record,
    session::Story,
};

/// Adds what the contacts of the tree mean for a claim.
pub(super) fn judge(
    story: &Story,
    claim: &Claim,
    contacts: &[Contact],
    verdict: &mut ClaimVerdict,
) {
    let asked = Asked::of(story, claim, verdict);
    let mut found: Vec<(ProcessKey, u64, Finding, u64)> = Vec::new();
    let mut index: BTreeMap<(ProcessKey, Finding), usize> = BTreeMap::new();
    for contact in contacts {
        let asks_for_names = contact.is_dns && claim.dns == DnsRule::Allow;
        let find = |contact: &Contact| match claim.kind {
            ClaimKind::ConnectsOnlyTo if asks_for_names => None,
            ClaimKind::NeverConnectsTo if asks_for_names => asked.never_at(contact),
            ClaimKind::ConnectsOnlyTo => asked.only_to(contact),
            ClaimKind::NeverConnectsTo => asked.never_to(contact),
            ClaimKind::NeverRuns | ClaimKind::RunsOnly | ClaimKind::CredentialsInProcess => None,
        };
        let finding = contact.with_and_without_lost().find_map(find);
        let Some(finding) = finding else { continue };
        match index.entry((contact.process, finding)) {
            Entry::Occupied(at) => {
                if let Some((.., times)) = found.get_mut(*at.get()) {
                    *times += 1;
                }
            }
            Entry::Vacant(room) => {
                let finding = room.key().1.clone();
                room.insert(found.len());
                found.push((contact.process, contact.t_ns, finding, 1));
            }
        }
    }
    for (process, t_ns, finding, times) in found {
        let more = if times > 1 { format!(" ({times} times)") } else { String::new() };
        match finding {
            Finding::Violates(detail) => {
                let detail = format!("{detail}{more}");
                verdict.violations.push(Violation { t_ns, process, detail });
            }
            Finding::Unclear(why) => {
                verdict.reasons.push(format!("{}: {why}{more}", story.label(process)));
            }
        }
    }
    verdict.reasons.extend(unseen(story));
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    Violates(String),
    Unclear(String),
}

/// What keeps connections from being seen, process by process.
fn unseen(story: &Story) -> impl Iterator<Item = String> {
    let odd = story.odd_sockets.iter().map(|socket| {
        if socket.is_multipath() {
            return multipath(story, socket.process);
        }
        format!(
            "{}: it has a socket of family {}, type {}, protocol {}, and what goes over it is not seen",
            story.label(socket.process),
            socket.family,
            socket.socket_type,
            socket.protocol
        )
    });
    let cgroup = story.watched_cgroup();
    let moves = story.cgroup_moves.iter().map(move |moved| {
        let to = moved
            .to_path
            .as_ref()
            .map_or_else(String::new, |path| format!(" for {}", path.lossy()));
        format!(
            "{}: it left the {cgroup}{to}, and what its sockets send from then on is not seen",
            story.label(moved.process),
        )
    });
    let elsewhere = story.foreign_sends.iter().filter(|send| !send.is_stream()).map(move |send| {
        if send.is_multipath() {
            return multipath(story, send.process);
        }
        format!(
            "{}: it sent datagrams over a socket that was made outside the {cgroup}, and each of them can go \
             anywhere",
            story.label(send.process)
        )
    });
    let inherited = story.start.inherited_network_sockets.len();
    let inherited = (inherited > 0).then(|| {
        format!(
            "the command was started with {inherited} network sockets of its caller, and where they lead \
             is not known"
        )
    });
    let old = (!record::version(story.start.schema).tells_endpoints).then(|| {
        "the recording is from before tracer recorded datagrams and what names an address"
            .to_owned()
    });
    let found = story.found_sockets.iter().filter(|socket| socket.leads_away()).map(|socket| {
        let what = socket.words();
        let to = socket.remote.map_or_else(String::new, |remote| format!(" to {remote}"));
        format!(
            "{}: it had a socket open when it was found ({what}{to}), and what goes over that is not seen",
            story.label(socket.process)
        )
    });
    odd.chain(moves).chain(elsewhere).chain(inherited).chain(old).chain(found)
}

fn multipath(story: &Story, process: ProcessKey) -> String {
    format!(
        "{}: it has a socket of Multipath TCP, which the kernel connects to further addresses that the other side \
         names, and those connections are not seen",
        story.label(process)
    )
}

/// A claim's endpoints, read.
struct Asked<'a> {
    targets: Vec<Target>,
    elsewhere: Vec<Target>,
    endpoints: &'a Endpoints,
    needs_name: bool,
}

impl<'a> Asked<'a> {
    /// What cannot be read goes into the reasons: such a claim is not proven by anything.
    fn of(story: &'a Story, claim: &Claim, verdict: &mut ClaimVerdict) -> Asked<'a> {
        let mut read = |texts: &[String]| -> Vec<Target> {
            let (read, wrong): (Vec<_>, Vec<_>) =
                texts.iter().map(|text| Target::parse(text)).partition(Result::is_ok);
            verdict.reasons.extend(wrong.into_iter().filter_map(Result::err));
            read.into_iter().filter_map(Result::ok).collect()
        };
        let (targets, elsewhere) = (read(&claim.endpoints), read(&claim.elsewhere));
        let endpoints = story.endpoints().unwrap_or_else(|why| {
            let why = format!("the recording's catalogue of endpoints is not valid: {why}");
            verdict.reasons.push(why);
            &Catalogue::embedded().endpoints
        });
        let allows = claim.kind == ClaimKind::ConnectsOnlyTo;
        let unknown = targets.iter().filter_map(|target| target.check(endpoints, allows).err());
        verdict.reasons.extend(unknown);
        let needs_name = targets.iter().any(Target::needs_name);
        Asked { targets, elsewhere, endpoints, needs_name }
    }

    fn of_name(&self, name: &str, contact: &Contact) -> Fit {
        best(&self.targets, |target| target.fits_name(name, contact.port(), self.endpoints))
    }

    fn of_address(&self, contact: &Contact) -> Fit {
        let Some(to) = contact.to else { return Fit::No };
        best(&self.targets, |target| target.fits_address(to, self.endpoints))
    }

    /// Whether a name that the process said is one of the claim's, name by name.
    fn said(&self, contact: &Contact) -> Vec<Fit> {
        contact.said().map(|named| self.of_name(&named.name, contact)).collect()
    }

    fn only_to(&self, contact: &Contact) -> Option<Finding> {
        let listed = |fit: &Fit| matches!(fit, Fit::Yes(_));
        if listed(&self.of_address(contact)) {
            return None;
        }
        let what = contact.words();
        let violates =
            || Some(Finding::Violates(format!("{}, which is not listed", contact.deed())));
        let unclear = |why: &str| Some(Finding::Unclear(format!("{what}: {why}")));
        if contact.to.is_none() {
            return unclear("without its address it cannot be told whether that is listed");
        }
        if !self.needs_name {
            return violates();
        }
        let hidden = contact.naming.encrypted_hello;
        // The name that shows in front of an encrypted one says nothing.
        if !hidden && !self.said(contact).iter().all(listed) {
            return violates();
        }
        match contact.known() {
            Known::Surely => None,
            Known::Nothing => unclear("nothing tells its name"),
            Known::Perhaps(why) => {
                let mut names = contact.naming.names.iter();
                let likely = names.any(|named| listed(&self.of_name(&named.name, contact)));
                if !likely && !hidden {
                    violates()
                } else if likely && !contact.spoken {
                    None
                } else {
                    unclear(why)
                }
            }
        }
    }

    /// By the address alone.
    fn never_at(&self, contact: &Contact) -> Option<Finding> {
        forbidden(contact, self.of_address(contact))
    }

    fn never_to(&self, contact: &Contact) -> Option<Finding> {
        if let Some(violation) = self.never_at(contact) {
            return Some(violation);
        }
        let is_one = |fit: &Fit| *fit != Fit::No;
        if let Some(said) = self.said(contact).into_iter().find(is_one) {
            return forbidden(contact, said);
        }
        let known = contact.known();
        if known == Known::Surely {
            // Other names of its address are of other hosts, but not those that its own is an alias of.
            let aliases = contact.naming.aliases.iter();
            let fit = aliases.map(|alias| self.of_name(alias, contact)).find(is_one);
            return fit.and_then(|fit| forbidden(contact, fit));
        }
        let names = &contact.naming.names;
        let fits: Vec<Fit> =
            names.iter().map(|named| self.of_name(&named.name, contact)).filter(is_one).collect();
        if fits.len() == names.len()
            && let Some(fit) = fits.first()
        {
            return forbidden(contact, fit.clone());
        }
        let at = |target: &Target| {
            contact.to.map_or(Fit::No, |to| target.fits_address(to, self.endpoints))
        };
        if best(&self.elsewhere, at) != Fit::No {
            return None;
        }
        let unclear = |why: &str| Some(Finding::Unclear(format!("{}: {why}", contact.words())));
        if !self.needs_name {
            return match contact.to {
                Some(_) => None,
                None => unclear("without its address it cannot be told whether that is forbidden"),
            };
        }
        match known {
            Known::Surely => None,
            Known::Nothing => unclear("nothing tells its name"),
            Known::Perhaps(_) if fits.is_empty() && !contact.spoken => None,
            Known::Perhaps(why) => unclear(why),
        }
    }
}

fn forbidden(contact: &Contact, fit: Fit) -> Option<Finding> {
    match fit {
        Fit::No => None,
        Fit::Guess(rule) | Fit::Yes(rule) => {
            let what = contact.deed();
            Some(Finding::Violates(format!("{what}, which is forbidden (it matches {rule})")))
        }
    }
}

/// The strongest fit of several.
fn best(targets: &[Target], fit: impl Fn(&Target) -> Fit) -> Fit {
    let mut guess = Fit::No;
    for target in targets {
        match fit(target) {
            Fit::Yes(rule) => return Fit::Yes(rule),
            found @ Fit::Guess(_) if guess == Fit::No => guess = found,
            Fit::Guess(_) | Fit::No => {}
        }
    }
    guess
}
