//! Whom the tree contacted, and what is known of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::completeness;
use crate::{
    model::{Endpoint, ProcessKey},
    record::schema::{Datagram, DatagramVia, Dns, DnsMessage, FirstBytes, Opening, Outcome},
    session::{Connection, NameSource, Named, Names, Naming, Story},
};

/// A connection, or a destination of a socket that has none.
#[derive(Clone, Debug)]
pub(crate) struct Contact {
    pub(super) t_ns: u64,
    pub(crate) process: ProcessKey,
    pub(super) means: &'static str,
    pub(super) to: Option<Endpoint>,
    pub(super) naming: Naming,
    /// Something may have been said: it is not known that nothing went either way.
    pub(super) spoken: bool,
    /// All that was said there was read as DNS.
    pub(super) is_dns: bool,
    /// It began with a TLS handshake that names nobody, or hides the name.
    pub(super) hides_name: bool,
    /// The same without the resolver's names, where some of its answers were lost: another name may
    /// have been among those, and nothing may hold by such a name that would not hold without it.
    pub(super) without_resolver: Option<Box<Contact>>,
}

/// What the names of a contact amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The process said the best name to the other end, and the address was found under it.
    Surely,
    /// It has a name; why that is no more than likely.
    Perhaps(&'static str),
    Nothing,
}

impl Contact {
    pub(super) fn port(&self) -> Option<u16> {
        self.to.map(|to| to.port)
    }

    /// Names that the process said to the other end.
    pub(super) fn said(&self) -> impl Iterator<Item = &Named> {
        self.naming.names.iter().filter(|named| is_said(named.source))
    }

    /// Names that the address was found under.
    pub(super) fn found(&self) -> impl Iterator<Item = &Named> {
        self.naming.names.iter().filter(|named| !is_said(named.source))
    }

    pub(super) fn known(&self) -> Known {
        let Some(best) = self.naming.best() else { return Known::Nothing };
        if self.naming.encrypted_hello {
            return Known::Perhaps("its real name was sent encrypted");
        }
        if !is_said(best.source) {
            return Known::Perhaps(
                "only its address stands for that name, and others can have the same address",
            );
        }
        if self.naming.unread {
            return Known::Perhaps(
                "something began there that could not be read, and may have named another",
            );
        }
        if self.naming.disagree {
            return Known::Perhaps("the sources of its name contradict each other");
        }
        // It is among those, or they would disagree.
        if self.found().next().is_some() {
            Known::Surely
        } else {
            Known::Perhaps(
                "the process said that name, and no answer of DNS, the resolver or the hosts file gave \
                 it this address",
            )
        }
    }

    /// The same contact without the resolver's names, if that is another one.
    pub(super) fn set_without_resolver(&mut self, without: Contact) {
        if self.naming != without.naming {
            self.without_resolver = Some(Box::new(without));
        }
    }

    /// All that it has to be judged as.
    pub(super) fn with_and_without_lost(&self) -> impl Iterator<Item = &Contact> {
        std::iter::once(self).chain(self.without_resolver.as_deref())
    }

    /// The same as what a process did.
    pub(super) fn deed(&self) -> String {
        match self.means {
            TCP => format!("asked for a {}", self.words()),
            UDP_SOCKET | SOCKET => {
                format!("connected a {}, and may have sent some", self.words())
            }
            _ => format!("sent {}", self.words()),
        }
    }

    /// For messages: what it was, to whom, and what says so.
    pub(super) fn words(&self) -> String {
        let mut text = self.means.to_owned();
        let mut names: Vec<(&str, String)> = Vec::new();
        for named in &self.naming.names {
            match names.iter_mut().find(|(name, _)| *name == named.name) {
                Some((_, by)) => *by = format!("{by} and {}", source(named.source)),
                None => names.push((&named.name, format!("by {}", source(named.source)))),
            }
        }
        let more = names.len().saturating_sub(NAMES_SHOWN);
        let mut names: Vec<String> =
            names.iter().take(NAMES_SHOWN).map(|(name, by)| format!("{name} {by}")).collect();
        if more > 0 {
            names.push(format!("{more} more"));
        }
        let _ = match self.to {
            Some(to) => write!(text, " to {to}"),
            None if self.means == UNSPECIFIED => Ok(()),
            None => write!(text, " to an address that is not known"),
        };
        if !names.is_empty() {
            let _ = write!(text, " ({})", names.join(", "));
        }
        text
    }
}

/// In messages. Fifty hosts can share an address.
const NAMES_SHOWN: usize = 3;

/// Whether the process says such a name to the other end, as opposed to finding an address by it.
fn is_said(source: NameSource) -> bool {
    match source {
        NameSource::HttpHost | NameSource::Sni => true,
        NameSource::OwnDns
        | NameSource::OtherDns
        | NameSource::Resolver
        | NameSource::HostsFile => false,
    }
}

fn source(source: NameSource) -> &'static str {
    match source {
        NameSource::HttpHost => "HTTP Host",
        NameSource::Sni => "SNI",
        NameSource::OwnDns => "its DNS answer",
        NameSource::OtherDns => "another process's DNS answer",
        NameSource::Resolver => "the C library's resolver",
        NameSource::HostsFile => "the hosts file",
    }
}

/// All contacts of a story, in order of time.
pub(super) fn contacts(story: &Story) -> Vec<Contact> {
    let index = Index::of(story, Names::of(story));
    let mut contacts = index.contacts(story);
    if !completeness::resolver_is_whole(story) {
        let without = Index { names: Names::without_resolver(story), ..index };
        for (contact, without) in contacts.iter_mut().zip(without.contacts(story)) {
            contact.set_without_resolver(without);
        }
    }
    let mut kept = story.forgotten.contacts.clone();
    if completeness::resolver_is_whole(story) {
        kept.iter_mut().for_each(|contact| contact.without_resolver = None);
    }
    contacts.extend(kept);
    contacts.sort_by_key(|contact| contact.t_ns);
    contacts
}

#[derive(Clone, Copy, Debug)]
struct Packets {
    sent: u64,
    received: u64,
}

/// What it takes to see contacts in the records of a story.
pub(super) struct Index {
    names: Names,
    /// Sockets and servers all of whose messages there could be read as DNS.
    dns: BTreeSet<(u64, Option<Endpoint>)>,
    /// Connections whose TLS handshake names nobody, hides the name or could not be read.
    hidden: BTreeSet<u64>,
    /// Packets of sockets for datagrams, where they were counted.
    packets: Option<BTreeMap<(u64, Endpoint), Packets>>,
    /// Sockets for datagrams that sent to none of their destinations.
    elsewhere: BTreeSet<u64>,
}

impl Index {
    pub(super) fn of(story: &Story, names: Names) -> Index {
        let counted = story
            .start
            .sensors
            .iter()
            .any(|sensor| sensor.sensor == "packets" && sensor.missing.is_none());
        let exchanges = story.exchanges.iter();
        let packets = exchanges.map(|exchange| {
            let (sent, received) = (exchange.sent_packets, exchange.received_packets);
            ((exchange.cookie, exchange.destination), Packets { sent, received })
        });
        let elsewhere = story.exchanges.iter().filter(|exchange| exchange.elsewhere_packets > 0);
        Index {
            names,
            dns: dns_sockets(story),
            hidden: hidden_names(story),
            packets: counted.then(|| packets.collect()),
            elsewhere: elsewhere.map(|exchange| exchange.cookie).collect(),
        }
    }

    fn contacts(&self, story: &Story) -> Vec<Contact> {
        let connections = story.connections.iter().map(|connection| self.connection(connection));
        let datagrams = story.datagrams.iter().filter_map(|datagram| self.datagram(datagram));
        let foreign = story.foreign_sends.iter().map(|send| Contact {
            t_ns: send.t_ns,
            process: send.process,
            means: if story.start.attached.is_some() {
                "bytes over a socket that was made outside the cgroup that was joined"
            } else {
                "bytes over a socket that was made outside the command's cgroup"
            },
            to: send.destination,
            naming: self.names.destination(send.destination, send.process, send.t_ns),
            spoken: true,
            is_dns: false,
            hides_name: true,
            without_resolver: None,
        });
        connections.chain(datagrams).chain(foreign).collect()
    }

    pub(super) fn connection(&self, connection: &Connection) -> Contact {
        let is_dns = connection.destination.is_some_and(|to| to.port == DNS_PORT)
            && connection
                .cookie
                .is_some_and(|cookie| self.dns.contains(&(cookie, connection.destination)));
        Contact {
            t_ns: connection.attempted_ns,
            process: connection.process,
            means: TCP,
            to: connection.destination,
            naming: self.names.connection(connection),
            spoken: was_spoken(connection),
            is_dns,
            hides_name: self.hidden.contains(&connection.id),
            without_resolver: None,
        }
    }

    /// None where nothing was sent.
    pub(super) fn datagram(&self, datagram: &Datagram) -> Option<Contact> {
        let key = datagram.destination.map(|to| (datagram.cookie, to));
        let packets = self.packets.as_ref().and_then(|packets| packets.get(&key?));
        // Behind NAT a packet has another address than the program asked for. For which of them is not known, so
        // each counts as sent to.
        let elsewhere = self.elsewhere.contains(&datagram.cookie);
        // To connect a socket for datagrams sends nothing: resolvers do it to sort addresses.
        let connected = datagram.via == DatagramVia::Connect && !elsewhere;
        // What a group gets on this machine goes by no counter, and with a lifetime of 0 nothing else does.
        let is_group =
            datagram.destination.is_some_and(|to| to.address.to_canonical().is_multicast());
        let silent = connected && !is_group && packets.is_some_and(|packets| packets.sent == 0);
        let unused = silent && packets.is_some_and(|packets| packets.received == 0);
        let sent = !connected || is_group || packets.is_some_and(|packets| packets.sent > 0);
        if datagram.unspecified && (elsewhere || self.packets.is_none()) {
            return Some(self.to_unspecified(datagram));
        }
        let is_dns = datagram.destination.is_some_and(|to| to.port == DNS_PORT)
            && !is_group
            && self.dns.contains(&(datagram.cookie, datagram.destination));
        (!silent).then(|| Contact {
            t_ns: datagram.t_ns,
            process: datagram.process,
            means: match (datagram.protocol == UDP, sent) {
                (true, true) => "UDP datagrams",
                (false, true) => "datagrams",
                (true, false) => UDP_SOCKET,
                (false, false) => SOCKET,
            },
            to: datagram.destination,
            naming: self.names.datagram(datagram),
            spoken: !unused,
            is_dns,
            hides_name: false,
            without_resolver: None,
        })
    }

    /// Which address of this machine the kernel took for `0.0.0.0` or `::` is not known.
    fn to_unspecified(&self, datagram: &Datagram) -> Contact {
        let mut naming = self.names.datagram(datagram);
        naming.names.retain(|named| is_said(named.source));
        Contact {
            t_ns: datagram.t_ns,
            process: datagram.process,
            means: UNSPECIFIED,
            to: None,
            naming,
            spoken: true,
            is_dns: false,
            hides_name: false,
            without_resolver: None,
        }
    }

    /// By what was said in it, when what it belongs to is forgotten.
    pub(super) fn opening(&self, opening: &Opening) -> Contact {
        let connection = Connection {
            id: opening.connection.unwrap_or(u64::MAX),
            process: opening.process,
            attempted_ns: opening.t_ns,
            cookie: Some(opening.cookie),
            destination: opening.destination,
            result: None,
            close: None,
        };
        Contact { means: "connection or datagrams", ..self.connection(&connection) }
    }
}

const TCP: &str = "TCP connection";
/// What was connected, where it is not known whether anything was sent.
const UDP_SOCKET: &str = "socket for UDP datagrams";
const SOCKET: &str = "socket for datagrams";
const UNSPECIFIED: &str = "datagrams to 0.0.0.0 or ::, for which the kernel took an address of this machine that is not known";
const DNS_PORT: u16 = 53;
const UDP: u16 = 17;

fn was_spoken(connection: &Connection) -> bool {
    let Some(result) = &connection.result else { return true };
    match result.outcome {
        Outcome::Failed { .. } | Outcome::Abandoned | Outcome::Unsent => false,
        Outcome::Unknown => true,
        Outcome::Established => connection
            .close
            .as_ref()
            .is_none_or(|close| (close.sent_bytes, close.received_bytes) != (Some(0), Some(0))),
    }
}

fn dns_sockets(story: &Story) -> BTreeSet<(u64, Option<Endpoint>)> {
    let (malformed, read): (Vec<&Dns>, Vec<&Dns>) =
        story.dns.iter().partition(|dns| matches!(dns.message, DnsMessage::Malformed { .. }));
    let mut sockets: BTreeSet<_> = read.iter().map(|dns| (dns.cookie, dns.server)).collect();
    for dns in malformed {
        sockets.remove(&(dns.cookie, dns.server));
    }
    sockets
}

fn hidden_names(story: &Story) -> BTreeSet<u64> {
    let hides = |what: &FirstBytes| match what {
        FirstBytes::Tls { sni, encrypted_hello, .. } => sni.is_none() || *encrypted_hello,
        FirstBytes::Unread { .. } => true,
        FirstBytes::Http { .. } | FirstBytes::Other => false,
    };
    let openings = story.openings.iter().filter(|opening| hides(&opening.what));
    openings.filter_map(|opening| opening.connection).collect()
}
