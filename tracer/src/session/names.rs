//! Which name an address stands for, and what says so.
//!
//! An address has no name of its own: what is known is what a process was told before it connected,
//! and what it said itself when it had. All of it is listed, in the order of [`NameSource`], and
//! nothing is decided between sources: where they contradict each other, [`Naming::disagree`] says so.
//!
//! One pass over the story makes an index. A question to it costs the logarithm of what is known about
//! one address, and the walk back in time from there is bounded by [`WALK_MAX`].

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Connection, Story};
use crate::{
    model::{Endpoint, ProcessKey},
    protocol::dns,
    record::schema::{Datagram, Dns, DnsMessage, FirstBytes, Opening},
};

/// Names of one source that are listed, the latest first.
const NAMES_MAX: usize = 64;
/// How many answers are looked at for them.
const WALK_MAX: usize = 512;
/// Names of which another one is an alias, the latest ones.
const ORIGINS_MAX: usize = 16;

/// What a name rests on, the best first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NameSource {
    /// The Host of a plaintext HTTP request.
    HttpHost,
    /// The server name of a TLS ClientHello.
    Sni,
    /// A DNS answer that the process itself received.
    OwnDns,
    /// A DNS answer that another process of the tree received.
    OtherDns,
    /// The C library gave the process this address for the name.
    Resolver,
    /// The file of hosts has it.
    HostsFile,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Named {
    pub name: String,
    pub source: NameSource,
}

/// Everything that names one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// The best source first; each pair once. Several names of one source are in order of time, the
    /// latest first, and no more than 64.
    pub names: Vec<Named>,
    /// Sources contradict each other: the client named different servers, or one that no answer and
    /// no entry gave this address.
    pub disagree: bool,
    /// The server name may be encrypted, so the one that is seen may stand for another.
    pub encrypted_hello: bool,
    /// Something began there that could not be read, and may have named another server.
    pub unread: bool,
    /// What the answers of DNS call the server of the best name otherwise: the names that it is an alias of.
    pub aliases: Vec<String>,
}

impl Naming {
    pub fn best(&self) -> Option<&Named> {
        self.names.first()
    }

    fn add(&mut self, name: &str, source: NameSource) {
        let named = Named { name: name.to_owned(), source };
        if !self.names.contains(&named) {
            self.names.push(named);
        }
    }
}

/// The names of a story, ready to be asked.
#[derive(Debug, Default)]
pub struct Names {
    /// What clients said over connections, and over sockets without them.
    by_connection: HashMap<u64, Vec<Said>>,
    by_flow: HashMap<(u64, Option<Endpoint>), Vec<Said>>,
    by_address: HashMap<IpAddr, Address>,
}

#[derive(Debug, Default)]
struct Said {
    name: Option<(Arc<str>, NameSource)>,
    encrypted_hello: bool,
    unread: bool,
}

/// What gave an address to whom, in order of time.
#[derive(Debug, Default)]
struct Address {
    own_dns: HashMap<ProcessKey, Vec<Told>>,
    any_dns: Vec<Told>,
    resolved: HashMap<ProcessKey, Vec<Told>>,
    hosts: Vec<Arc<str>>,
    /// When somebody was first told that a name, the first of two, is an alias of the other.
    aliases: HashMap<(Arc<str>, Arc<str>), u64>,
    /// When somebody was first told a name by DNS.
    first_dns: HashMap<Arc<str>, u64>,
    /// When a process first got a name resolved.
    first_resolved: HashMap<(ProcessKey, Arc<str>), u64>,
}

#[derive(Clone, Debug)]
struct Told {
    t_ns: u64,
    process: ProcessKey,
    name: Arc<str>,
}

impl Names {
    pub fn of(story: &Story) -> Names {
        let mut names = Names::without_resolver(story);
        names.add_resolved(story);
        names
    }

    /// As if nobody had watched the C library's resolver.
    pub fn without_resolver(story: &Story) -> Names {
        let mut names = Names::default();
        for opening in &story.openings {
            names.add_opening(opening);
        }
        let mut answers = Answers::default();
        let mut messages: Vec<&Dns> = story.dns.iter().collect();
        messages.sort_by_key(|dns| dns.t_ns);
        for dns in messages {
            answers.add(dns, &mut names);
        }
        for entry in story.end.iter().flat_map(|end| &end.hosts) {
            let known = entry.names.iter().map(|name| Arc::from(plain(name)));
            names.address(entry.address).hosts.extend(known);
        }
        names
    }

    fn add_resolved(&mut self, story: &Story) {
        let mut resolved: Vec<_> = story.resolved.iter().collect();
        resolved.sort_by_key(|resolved| resolved.t_ns);
        for resolved in resolved {
            // An address in place of a name names nothing.
            let Some(name) = host(&resolved.name) else { continue };
            for address in &resolved.addresses {
                let told = Told {
                    t_ns: resolved.t_ns,
                    process: resolved.process,
                    name: Arc::clone(&name),
                };
                let known = self.address(*address);
                let first = known.first_resolved.entry((resolved.process, Arc::clone(&name)));
                first.or_insert(resolved.t_ns);
                push(known.resolved.entry(resolved.process).or_default(), told);
            }
        }
    }

    pub fn connection(&self, connection: &Connection) -> Naming {
        let by_socket = connection.cookie.map(|cookie| (cookie, connection.destination));
        let said = [
            self.by_connection.get(&connection.id),
            by_socket.and_then(|flow| self.by_flow.get(&flow)),
        ];
        let said = said.into_iter().flatten().flatten();
        self.naming(said, connection.destination, connection.process, connection.attempted_ns)
    }

    pub fn datagram(&self, datagram: &Datagram) -> Naming {
        let said = self.by_flow.get(&(datagram.cookie, datagram.destination)).into_iter().flatten();
        self.naming(said, datagram.destination, datagram.process, datagram.t_ns)
    }

    /// For a socket of which nothing but its destination is known.
    pub fn destination(&self, to: Option<Endpoint>, process: ProcessKey, t_ns: u64) -> Naming {
        self.naming(std::iter::empty(), to, process, t_ns)
    }

    fn naming<'a>(
        &self,
        said: impl Iterator<Item = &'a Said>,
        destination: Option<Endpoint>,
        process: ProcessKey,
        t_ns: u64,
    ) -> Naming {
        let mut naming = Naming::default();
        let mut spoken: Vec<(&Arc<str>, NameSource)> = Vec::new();
        for said in said {
            naming.encrypted_hello |= said.encrypted_hello;
            naming.unread |= said.unread;
            spoken.extend(said.name.iter().map(|(name, source)| (name, *source)));
        }
        spoken.sort_by_key(|(_, source)| *source);
        for (name, source) in spoken.iter().rev().take(NAMES_MAX).rev() {
            naming.add(name, *source);
        }
        let address = destination.and_then(|end| self.by_address.get(&end.address.to_canonical()));
        let (mut told, mut confirmed) = (false, true);
        if let Some(address) = address {
            let before = naming.names.len();
            address.list(process, t_ns, &mut naming);
            told = naming.names.len() > before;
            confirmed = spoken.iter().all(|(name, _)| address.has(name, process, t_ns));
        }
        let different =
            spoken.iter().any(|(name, _)| Some(name) != spoken.first().map(|(name, _)| name));
        naming.disagree = different || (told && !confirmed);
        if let (Some(address), Some(best)) = (address, naming.names.first()) {
            naming.aliases = address.aliases_of(&best.name, t_ns);
        }
        naming
    }

    fn address(&mut self, address: IpAddr) -> &mut Address {
        self.by_address.entry(address.to_canonical()).or_default()
    }

    fn add_opening(&mut self, opening: &Opening) {
        let said = match &opening.what {
            FirstBytes::Tls { sni, encrypted_hello, .. } => Said {
                name: sni.as_deref().and_then(host).map(|name| (name, NameSource::Sni)),
                encrypted_hello: *encrypted_hello,
                unread: false,
            },
            FirstBytes::Http { host: name, .. } => Said {
                name: name.as_deref().and_then(host).map(|name| (name, NameSource::HttpHost)),
                encrypted_hello: false,
                unread: false,
            },
            FirstBytes::Unread { .. } => Said { name: None, encrypted_hello: false, unread: true },
            FirstBytes::Other => return,
        };
        let known = match opening.connection {
            Some(connection) => self.by_connection.entry(connection).or_default(),
            None => self.by_flow.entry((opening.cookie, opening.destination)).or_default(),
        };
        known.push(said);
    }

    /// `process` was told by DNS that `name` has this address.
    fn tell(&mut self, address: IpAddr, told: Told) {
        let known = self.address(address);
        known.first_dns.entry(Arc::clone(&told.name)).or_insert(told.t_ns);
        push(known.own_dns.entry(told.process).or_default(), told.clone());
        push(&mut known.any_dns, told);
    }
}

impl Address {
    fn aliases_of(&self, name: &str, t_ns: u64) -> Vec<String> {
        let known =
            self.aliases.iter().filter(|((of, _), told_ns)| **of == *name && **told_ns <= t_ns);
        let mut aliases: Vec<String> = known.map(|((_, alias), _)| alias.to_string()).collect();
        aliases.sort_unstable();
        aliases
    }

    /// Adds what was known at that time, the best first.
    fn list(&self, process: ProcessKey, t_ns: u64, naming: &mut Naming) {
        let own = self.own_dns.get(&process).map(Vec::as_slice).unwrap_or_default();
        let own = latest(own, t_ns, |_| true);
        // What the process was told itself is not said again of others.
        let others = latest(&self.any_dns, t_ns, |told| told.process != process);
        let resolved = self.resolved.get(&process).map(Vec::as_slice).unwrap_or_default();
        own.iter().for_each(|name| naming.add(name, NameSource::OwnDns));
        others.iter().for_each(|name| naming.add(name, NameSource::OtherDns));
        for name in latest(resolved, t_ns, |_| true) {
            naming.add(name, NameSource::Resolver);
        }
        for name in self.hosts.iter().take(NAMES_MAX) {
            naming.add(name, NameSource::HostsFile);
        }
    }

    /// Whether something gave this address to that name by then, also when it is not listed.
    fn has(&self, name: &Arc<str>, process: ProcessKey, t_ns: u64) -> bool {
        let by_then = |first: &u64| *first <= t_ns;
        self.first_dns.get(name).is_some_and(by_then)
            || self.first_resolved.get(&(process, Arc::clone(name))).is_some_and(by_then)
            || self.hosts.contains(name)
    }
}

/// Appends, unless it says what the one before it said.
fn push(told: &mut Vec<Told>, next: Told) {
    let again = told.last().is_some_and(|it| it.name == next.name && it.process == next.process);
    if !again {
        told.push(next);
    }
}

/// The names told until `t_ns`, each once, the latest first.
fn latest(told: &[Told], t_ns: u64, wanted: impl Fn(&Told) -> bool) -> Vec<&Arc<str>> {
    let until = told.partition_point(|told| told.t_ns <= t_ns);
    let mut names = Vec::new();
    let mut known = HashSet::new();
    for told in told[..until].iter().rev().take(WALK_MAX).filter(|told| wanted(told)) {
        if names.len() < NAMES_MAX && known.insert(&told.name) {
            names.push(&told.name);
        }
    }
    names
}

/// Questions and answers on their way to names.
#[derive(Debug, Default)]
struct Answers<'a> {
    /// Socket, id, name and type. A resolver drops an answer without its question, and so do we.
    asked: HashSet<(u64, u16, &'a str, &'a str)>,
    /// Which names led a process to this one.
    origins: HashMap<(ProcessKey, String), Vec<Arc<str>>>,
}

impl<'a> Answers<'a> {
    fn add(&mut self, dns: &'a Dns, names: &mut Names) {
        let (id, name, of, code, records) = match &dns.message {
            DnsMessage::Question { id, name, of } => {
                self.asked.insert((dns.cookie, *id, name, of));
                return;
            }
            DnsMessage::Answer { id, name, of, code, records, truncated: _ } => {
                (id, name, of, code, records)
            }
            DnsMessage::Malformed { .. } => return,
        };
        if code != "NOERROR" || !self.asked.contains(&(dns.cookie, *id, name, of)) {
            return;
        }
        let given = dns::given(name, records);
        let origins = self.origins.get(&(dns.process, name.clone())).cloned().unwrap_or_default();
        // The name that was asked for comes last, and so is listed first.
        let all: Vec<Arc<str>> = origins.into_iter().chain([Arc::from(name.as_str())]).collect();
        let aliases: Vec<Arc<str>> =
            given.aliases.iter().map(|alias| Arc::from(alias.as_str())).collect();
        for address in given.addresses {
            for (number, name) in all.iter().enumerate() {
                let told = Told { t_ns: dns.t_ns, process: dns.process, name: Arc::clone(name) };
                names.tell(address, told);
                // The name that was asked for may be an alias of one that was asked for before.
                let asked = all.last().filter(|_| number + 1 < all.len());
                for alias in aliases.iter().chain(asked) {
                    let pair = (Arc::clone(name), Arc::clone(alias));
                    names.address(address).aliases.entry(pair).or_insert(dns.t_ns);
                }
            }
        }
        for alias in given.aliases {
            let known = self.origins.entry((dns.process, alias)).or_default();
            known.extend(
                all.iter().filter(|name| !known.contains(name)).cloned().collect::<Vec<_>>(),
            );
            let surplus = known.len().saturating_sub(ORIGINS_MAX);
            known.drain(..surplus);
        }
    }
}

/// A name as names are compared: in lower case and without the last dot.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// A name of a host; an address is none.
fn host(name: &str) -> Option<Arc<str>> {
    let name = plain(name);
    let is_address = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
    (!is_address && !name.is_empty()).then(|| Arc::from(name))
}

#[cfg(test)]
mod tests;
