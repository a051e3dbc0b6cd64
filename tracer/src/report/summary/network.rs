//! What the tree talked to: connections, datagrams, and the endpoints they add up to.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::Builder;
use crate::{
    catalogue::Classified,
    model::Endpoint,
    record::schema::{Datagram, DatagramVia, Exchange, FirstBytes},
    report::{clean::clean, words},
    session::{Connection, NameSource, Named, Names, Naming, Story},
};

/// Connections, and sockets without connections, that went to the same name and port, as far as the
/// same source knows the name; without a name, to the same address and port.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EndpointSummary {
    /// The name or the address, with the port; fit to be shown.
    pub shown: String,
    /// `tcp`, `udp`, `quic`, `udp-lite`, or `protocol N`.
    pub protocol: String,
    /// What the best source says. Names are fit to be shown.
    pub name: Option<Named>,
    /// What else there is for these addresses, from this source and from others.
    pub other_names: Vec<Named>,
    /// Sources contradict each other.
    pub disagree: bool,
    /// The server name was encrypted, so the one that is seen may stand for another.
    pub encrypted_hello: bool,
    /// What the catalogue has under this name, or under this address where there is no name.
    pub catalogue: Option<Classified>,
    /// Empty when none could be read.
    pub addresses: BTreeSet<Endpoint>,
    /// Connections; of datagrams, sockets.
    pub connections: u64,
    /// How many came to which outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// The shortest time to connect.
    pub fastest_connect_ns: Option<u64>,
    /// Over those whose bytes are known; null when none's are.
    pub sent_bytes: Option<u64>,
    pub received_bytes: Option<u64>,
    /// Of datagrams only, likewise.
    pub sent_packets: Option<u64>,
    pub received_packets: Option<u64>,
    /// Established and not seen to close, or datagrams without a count: their bytes are unknown.
    pub still_open: u64,
    /// Places in `processes`.
    pub processes: BTreeSet<usize>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ConnectionSummary {
    /// Place in `processes`.
    pub process: usize,
    /// Place in `endpoints`.
    pub endpoint: usize,
    pub at_ns: u64,
    pub destination: Option<Endpoint>,
    pub source: Option<Endpoint>,
    /// `established`, the name of an error, or why that is not known.
    pub outcome: String,
    pub established: bool,
    /// From the attempt to the outcome.
    pub connect_ns: Option<u64>,
    pub closed_at_ns: Option<u64>,
    pub sent_bytes: Option<u64>,
    pub received_bytes: Option<u64>,
    /// A claim names it.
    pub violates: bool,
}

/// A socket without connections and one of its destinations.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DatagramSummary {
    /// Place in `processes`.
    pub process: usize,
    /// Place in `endpoints`.
    pub endpoint: usize,
    pub at_ns: u64,
    pub destination: Option<Endpoint>,
    /// Whether anything was sent there, or why that is not known.
    pub outcome: String,
    pub sent_packets: Option<u64>,
    pub sent_bytes: Option<u64>,
    pub received_packets: Option<u64>,
    pub received_bytes: Option<u64>,
    /// A claim names it.
    pub violates: bool,
}

impl EndpointSummary {
    /// With the protocol where it is not TCP.
    pub(in crate::report) fn label(&self) -> String {
        with_protocol(&self.shown, &self.protocol)
    }

    /// The program sent the name over the connection.
    pub(in crate::report) fn says_its_name(&self) -> bool {
        match self.name.as_ref().map(|name| name.source) {
            Some(NameSource::HttpHost | NameSource::Sni) => true,
            Some(
                NameSource::OwnDns
                | NameSource::OtherDns
                | NameSource::Resolver
                | NameSource::HostsFile,
            )
            | None => false,
        }
    }

    /// What the name rests on, and what is odd about it; empty for an address alone.
    pub(in crate::report) fn name_note(&self) -> String {
        let notes = [
            self.name.as_ref().map(|name| words::name_source(name.source)),
            self.disagree.then_some("sources disagree"),
            self.encrypted_hello.then_some("encrypted hello"),
        ];
        notes.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// With what its name rests on.
    pub(in crate::report) fn full_label(&self) -> String {
        match self.name_note() {
            none if none.is_empty() => self.label(),
            note => format!("{} ({note})", self.label()),
        }
    }
}

/// What an endpoint is called wherever it is shown, with the protocol where it is not TCP.
pub(crate) fn endpoint_label(
    protocol: &str,
    name: Option<&str>,
    destination: Option<Endpoint>,
) -> String {
    let name = name.map(|name| clean(name.as_bytes()));
    with_protocol(&place(name.as_deref(), destination), protocol)
}

fn with_protocol(shown: &str, protocol: &str) -> String {
    match protocol {
        "tcp" => shown.into(),
        other => format!("{shown} {other}"),
    }
}

/// The name or the address, with the port.
fn place(name: Option<&str>, destination: Option<Endpoint>) -> String {
    match (name, destination) {
        (Some(name), Some(to)) => format!("{name}:{}", to.port),
        (Some(name), None) => name.into(),
        (None, to) => words::destination(to),
    }
}

/// What the lists about the network are made from, one record after the other.
pub(super) struct Network {
    pub(super) endpoints: Vec<EndpointSummary>,
    pub(super) connections: Vec<ConnectionSummary>,
    pub(super) datagrams: Vec<DatagramSummary>,
}

/// What makes two destinations the same endpoint. TCP is before the others, names before addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    protocol: (bool, String),
    unnamed: bool,
    name: Option<(String, NameSource)>,
    /// Where there is no name.
    address: Option<Endpoint>,
    port: Option<u16>,
    disagree: bool,
    encrypted_hello: bool,
}

impl Key {
    fn of(protocol: &str, naming: &Naming, destination: Option<Endpoint>) -> Key {
        let name = naming.best().map(|best| (clean(best.name.as_bytes()), best.source));
        Key {
            protocol: (protocol != "tcp", protocol.into()),
            unnamed: name.is_none(),
            port: destination.map(|to| to.port),
            address: destination.filter(|_| name.is_none()),
            name,
            disagree: naming.disagree,
            encrypted_hello: naming.encrypted_hello,
        }
    }
}

impl Builder<'_> {
    pub(super) fn network(&self) -> Network {
        let story = self.story;
        let names = Names::of(story);
        let protocols = Protocols::of(story);
        let connections: Vec<(&Connection, Naming)> =
            story.connections.iter().map(|one| (one, names.connection(one))).collect();
        let datagrams: Vec<(&Datagram, Naming, String)> = story
            .datagrams
            .iter()
            .map(|one| (one, names.datagram(one), protocols.of_datagram(one)))
            .collect();
        let mut endpoints: BTreeMap<Key, EndpointSummary> = BTreeMap::new();
        for (connection, naming) in &connections {
            note(&mut endpoints, story, "tcp", naming, connection.destination);
        }
        for (datagram, naming, protocol) in &datagrams {
            note(&mut endpoints, story, protocol, naming, datagram.destination);
        }
        let places: BTreeMap<Key, usize> =
            endpoints.keys().cloned().enumerate().map(|(place, key)| (key, place)).collect();
        let mut endpoints: Vec<EndpointSummary> = endpoints.into_values().collect();
        let connections = connections
            .into_iter()
            .filter_map(|(one, naming)| {
                let key = Key::of("tcp", &naming, one.destination);
                self.connection(one, *places.get(&key)?)
            })
            .collect::<Vec<_>>();
        let exchanges: BTreeMap<(u64, Endpoint), &Exchange> =
            story.exchanges.iter().map(|one| ((one.cookie, one.destination), one)).collect();
        let datagrams = datagrams
            .into_iter()
            .filter_map(|(one, naming, protocol)| {
                let key = Key::of(&protocol, &naming, one.destination);
                let exchange =
                    one.destination.and_then(|to| exchanges.get(&(one.cookie, to)).copied());
                self.datagram(one, exchange, *places.get(&key)?)
            })
            .collect::<Vec<_>>();
        for connection in &connections {
            if let Some(endpoint) = endpoints.get_mut(connection.endpoint) {
                endpoint.add_connection(connection);
            }
        }
        for datagram in &datagrams {
            if let Some(endpoint) = endpoints.get_mut(datagram.endpoint) {
                endpoint.add_datagram(datagram);
            }
        }
        Network { endpoints, connections, datagrams }
    }

    fn connection(&self, connection: &Connection, endpoint: usize) -> Option<ConnectionSummary> {
        let (result, close) = (connection.result.as_ref(), connection.close.as_ref());
        Some(ConnectionSummary {
            // Every record's process is in the story, introduced by its event if by nothing else.
            process: *self.places.get(&connection.process)?,
            endpoint,
            at_ns: self.at(connection.attempted_ns),
            destination: connection.destination,
            source: result.and_then(|result| result.source),
            outcome: words::outcome(connection),
            established: connection.is_established(),
            connect_ns: result.and_then(|result| result.connect_ns),
            closed_at_ns: close.map(|close| self.at(close.t_ns)),
            sent_bytes: close.and_then(|close| close.sent_bytes),
            received_bytes: close.and_then(|close| close.received_bytes),
            violates: self.violating.contains(&(connection.process, connection.attempted_ns)),
        })
    }

    fn datagram(
        &self,
        datagram: &Datagram,
        exchange: Option<&Exchange>,
        endpoint: usize,
    ) -> Option<DatagramSummary> {
        let outcome = match (datagram.via, exchange) {
            (DatagramVia::Send, _) => "sent",
            (DatagramVia::Connect, Some(counted)) if counted.sent_packets > 0 => "sent",
            // What a group gets on this machine is not counted.
            (DatagramVia::Connect, Some(counted))
                if counted.elsewhere_packets == 0
                    && !datagram.destination.is_some_and(|to| to.address.is_multicast()) =>
            {
                "nothing sent"
            }
            (DatagramVia::Connect, _) => "connected",
        };
        Some(DatagramSummary {
            process: *self.places.get(&datagram.process)?,
            endpoint,
            at_ns: self.at(datagram.t_ns),
            destination: datagram.destination,
            outcome: outcome.into(),
            sent_packets: exchange.map(|counted| counted.sent_packets),
            sent_bytes: exchange.map(|counted| counted.sent_bytes),
            received_packets: exchange.map(|counted| counted.received_packets),
            received_bytes: exchange.map(|counted| counted.received_bytes),
            violates: self.violating.contains(&(datagram.process, datagram.t_ns)),
        })
    }
}

fn note(
    endpoints: &mut BTreeMap<Key, EndpointSummary>,
    story: &Story,
    protocol: &str,
    naming: &Naming,
    destination: Option<Endpoint>,
) {
    let key = Key::of(protocol, naming, destination);
    let endpoint =
        endpoints.entry(key).or_insert_with(|| new(story, protocol, naming, destination));
    endpoint.addresses.extend(destination);
    for other in naming.names.iter().skip(1).map(cleaned) {
        if endpoint.name.as_ref() != Some(&other) && !endpoint.other_names.contains(&other) {
            endpoint.other_names.push(other);
        }
    }
}

fn cleaned(named: &Named) -> Named {
    Named { name: clean(named.name.as_bytes()), source: named.source }
}

fn new(
    story: &Story,
    protocol: &str,
    naming: &Naming,
    destination: Option<Endpoint>,
) -> EndpointSummary {
    let best = naming.best();
    let name = best.map(cleaned);
    EndpointSummary {
        shown: place(name.as_ref().map(|name| name.name.as_str()), destination),
        protocol: protocol.into(),
        name,
        other_names: Vec::new(),
        disagree: naming.disagree,
        encrypted_hello: naming.encrypted_hello,
        catalogue: story.classify(best.map(|best| best.name.as_str()), destination).map(shown),
        addresses: BTreeSet::new(),
        connections: 0,
        outcomes: BTreeMap::new(),
        fastest_connect_ns: None,
        sent_bytes: None,
        received_bytes: None,
        sent_packets: None,
        received_packets: None,
        still_open: 0,
        processes: BTreeSet::new(),
    }
}

/// What the catalogue says, fit to be shown.
pub(super) fn shown(found: Classified) -> Classified {
    let shown = |text: &str| clean(text.as_bytes());
    Classified {
        service: shown(&found.service),
        provider: shown(&found.provider),
        region: found.region.as_deref().map(shown),
        rule: shown(&found.rule),
        ..found
    }
}

impl EndpointSummary {
    fn add_connection(&mut self, connection: &ConnectionSummary) {
        self.connections += 1;
        *self.outcomes.entry(connection.outcome.clone()).or_default() += 1;
        if connection.established {
            let times = [self.fastest_connect_ns, connection.connect_ns];
            self.fastest_connect_ns = times.into_iter().flatten().min();
            self.still_open += u64::from(connection.closed_at_ns.is_none());
        }
        add(&mut self.sent_bytes, connection.sent_bytes);
        add(&mut self.received_bytes, connection.received_bytes);
        self.processes.insert(connection.process);
    }

    fn add_datagram(&mut self, datagram: &DatagramSummary) {
        self.connections += 1;
        *self.outcomes.entry(datagram.outcome.clone()).or_default() += 1;
        self.still_open += u64::from(datagram.sent_packets.is_none());
        add(&mut self.sent_bytes, datagram.sent_bytes);
        add(&mut self.received_bytes, datagram.received_bytes);
        add(&mut self.sent_packets, datagram.sent_packets);
        add(&mut self.received_packets, datagram.received_packets);
        self.processes.insert(datagram.process);
    }
}

/// What is not known adds nothing, and nothing known is not zero.
fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}

/// Tells QUIC from other datagrams: by what was seen to be sent.
#[derive(Debug)]
pub(crate) struct Protocols {
    quic: BTreeSet<(u64, Option<Endpoint>)>,
}

impl Protocols {
    pub(crate) fn of(story: &Story) -> Protocols {
        let quic = story.openings.iter().filter_map(|opening| match &opening.what {
            FirstBytes::Tls { quic: true, .. } => Some((opening.cookie, opening.destination)),
            FirstBytes::Tls { .. }
            | FirstBytes::Http { .. }
            | FirstBytes::Other
            | FirstBytes::Unread { .. } => None,
        });
        Protocols { quic: quic.collect() }
    }

    pub(crate) fn of_datagram(&self, datagram: &Datagram) -> String {
        const UDP: u16 = libc::IPPROTO_UDP as u16;
        const UDP_LITE: u16 = libc::IPPROTO_UDPLITE as u16;
        match datagram.protocol {
            UDP if self.quic.contains(&(datagram.cookie, datagram.destination)) => "quic".into(),
            UDP => "udp".into(),
            UDP_LITE => "udp-lite".into(),
            other => format!("protocol {other}"),
        }
    }
}
