//! What one recording's tree talked to, by name, without keeping what is read.
//!
//! A contact is named by what was said and answered around it. So the latest records wait in a
//! window; when it is full, all contacts but the newest are named, counted and dropped, and of the
//! answers of DNS those stay that say something no later one says. A name that a program sends
//! thousands of contacts after it has connected is missed, and the next best source counts.

use std::collections::{BTreeMap, HashSet};

use crate::{
    catalogue::{CallKind, EndpointClass},
    model::{Endpoint, ProcessKey},
    record::schema::{Call, Connect, Datagram, Dns, End, Opening, Resolved, Start},
    report::{self, Protocols},
    session::{Connection, Names, Naming, Story, answers},
};

/// Records of one kind that wait before any is dropped.
const WINDOW: usize = 8_192;
/// Of them, the newest that stay: rings are read one after the other, so what belongs to a contact
/// can come after it.
const NEWEST: usize = 1_024;
/// Answers that stay because they say something of their own.
const ANSWERS_MAX: usize = 65_536;

/// What is known of an endpoint besides how often it was contacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) times: u64,
    /// From the catalogue, in words and as its class.
    pub(super) service: Option<(String, EndpointClass)>,
}

#[derive(Debug)]
pub(super) struct Contacts {
    /// What waits. It has no processes.
    window: Story,
    connections: Vec<Connection>,
    reached: BTreeMap<String, Reached>,
    /// Contacts without a name, for which there may still be one in the file of hosts.
    nameless: BTreeMap<(String, Option<Endpoint>), u64>,
    /// How many answers stayed the last time.
    answers: usize,
}

impl Contacts {
    pub(super) fn new(start: &Start) -> Contacts {
        Contacts {
            window: Story::new(start.clone()),
            connections: Vec::new(),
            reached: BTreeMap::new(),
            nameless: BTreeMap::new(),
            answers: 0,
        }
    }

    pub(super) fn connect(&mut self, connect: &Connect) {
        self.connections.push(connection(connect));
        self.make_room(self.connections.len());
    }

    pub(super) fn datagram(&mut self, datagram: &Datagram) {
        self.window.datagrams.push(datagram.clone());
        self.make_room(self.window.datagrams.len());
    }

    pub(super) fn dns(&mut self, dns: &Dns) {
        self.window.dns.push(dns.clone());
        // Those that stay do not make it full.
        self.make_room(self.window.dns.len().saturating_sub(self.answers));
    }

    pub(super) fn opening(&mut self, opening: &Opening) {
        self.window.openings.push(opening.clone());
        self.make_room(self.window.openings.len());
    }

    pub(super) fn resolved(&mut self, resolved: &Resolved) {
        self.window.resolved.push(resolved.clone());
        self.make_room(self.window.resolved.len().saturating_sub(self.answers));
    }

    /// What the recording's catalogue makes of a call.
    pub(super) fn kind(&self, call: &Call) -> CallKind {
        self.window.call_kind(call)
    }

    /// Endpoints, as reports show them.
    pub(super) fn finish(mut self, end: Option<&End>) -> BTreeMap<String, Reached> {
        self.window.end = end.cloned();
        self.settle(0);
        let names = Names::of(&self.window);
        for ((protocol, destination), times) in std::mem::take(&mut self.nameless) {
            // Before any answer, so that only the file of hosts counts.
            let naming = names.connection(&Connection {
                id: u64::MAX,
                process: ProcessKey { pid: 0, start_ns: 0 },
                attempted_ns: 0,
                cookie: None,
                destination,
                result: None,
                close: None,
            });
            self.reach(&protocol, &naming, destination, times);
        }
        self.reached
    }

    fn make_room(&mut self, waiting: usize) {
        if waiting >= WINDOW {
            self.settle(NEWEST);
        }
    }

    /// Counts all contacts but the newest and drops them, and what is of no more use.
    fn settle(&mut self, newest: usize) {
        let names = Names::of(&self.window);
        let protocols = Protocols::of(&self.window);
        let mut named = Vec::new();
        for connection in but_newest(&mut self.connections, newest) {
            named.push(("tcp".into(), names.connection(&connection), connection.destination));
        }
        for datagram in but_newest(&mut self.window.datagrams, newest) {
            let protocol = protocols.of_datagram(&datagram);
            named.push((protocol, names.datagram(&datagram), datagram.destination));
        }
        for (protocol, naming, destination) in named {
            if naming.best().is_some() {
                self.reach(&protocol, &naming, destination, 1);
            } else {
                *self.nameless.entry((protocol, destination)).or_default() += 1;
            }
        }
        drop(but_newest(&mut self.window.openings, newest));
        answers::telling(&mut self.window.dns, newest, &HashSet::new(), Some);
        but_newest(&mut self.window.dns, ANSWERS_MAX);
        let keep = answers::first_and_last(&self.window.resolved, |one| {
            Some((one.process, one.name.clone(), one.addresses.clone()))
        });
        answers::retain(&mut self.window.resolved, &keep);
        but_newest(&mut self.window.resolved, ANSWERS_MAX);
        self.answers = self.window.dns.len().max(self.window.resolved.len());
    }

    fn reach(&mut self, protocol: &str, naming: &Naming, to: Option<Endpoint>, times: u64) {
        let name = naming.best().map(|best| best.name.as_str());
        let label = report::endpoint_label(protocol, name, to);
        let window = &self.window;
        let reached = self.reached.entry(label).or_insert_with(|| Reached {
            times: 0,
            service: window.classify(name, to).map(|found| (report::service(&found), found.class)),
        });
        reached.times += times;
    }
}

fn connection(connect: &Connect) -> Connection {
    Connection {
        id: connect.connection,
        process: connect.process,
        attempted_ns: connect.t_ns,
        cookie: connect.cookie,
        destination: connect.destination,
        result: None,
        close: None,
    }
}

fn but_newest<T>(all: &mut Vec<T>, newest: usize) -> Vec<T> {
    let kept = all.split_off(all.len().saturating_sub(newest));
    std::mem::replace(all, kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::{load, test_start},
        record::schema::{DnsMessage, DnsRecord, FirstBytes},
    };

    const PROCESS: ProcessKey = ProcessKey { pid: 7, start_ns: 1 };

    fn to(last: u8) -> Option<Endpoint> {
        Some(Endpoint { address: [10, 0, 0, last].into(), port: 443 })
    }

    fn answer(contacts: &mut Contacts, t_ns: u64, name: &str, last: u8) {
        let (id, of) = (u16::try_from(t_ns % 60_000).unwrap(), "A".to_owned());
        let (name, code) = (name.to_owned(), "NOERROR".to_owned());
        let data = format!("10.0.0.{last}");
        let records = vec![DnsRecord { name: name.clone(), of: of.clone(), ttl_s: 1, data }];
        for message in [
            DnsMessage::Question { id, name: name.clone(), of: of.clone() },
            DnsMessage::Answer { id, name, of, code, records, truncated: false },
        ] {
            let server = None;
            contacts.dns(&Dns {
                t_ns,
                process: PROCESS,
                cookie: t_ns,
                server,
                tcp: false,
                message,
            });
        }
    }

    fn connect(contacts: &mut Contacts, t_ns: u64, last: u8, sni: Option<&str>) {
        contacts.connect(&Connect {
            t_ns,
            process: PROCESS,
            thread: 7,
            connection: t_ns,
            cookie: Some(t_ns),
            destination: to(last),
            net_ns_inum: 1,
            unread: Vec::new(),
        });
        let what = FirstBytes::Tls {
            sni: sni.map(str::to_owned),
            alpn: Vec::new(),
            encrypted_hello: false,
            client_random: String::new(),
            quic: false,
        };
        contacts.opening(&Opening {
            t_ns,
            process: PROCESS,
            cookie: t_ns,
            connection: Some(t_ns),
            destination: to(last),
            what,
        });
    }

    fn contacts() -> Contacts {
        Contacts::new(&test_start(&load("no-aws-cli").unwrap()))
    }

    #[test]
    fn what_waits_does_not_grow_and_names_are_those_of_the_time() {
        const ROUNDS: u64 = 10_000;
        let mut contacts = contacts();
        for round in 0..ROUNDS {
            let t_ns = 10 * round;
            // Two names of one address, in turn; one that is said; and one that has no name.
            let name = if round % 2 == 0 { "even.example" } else { "odd.example" };
            answer(&mut contacts, t_ns + 1, name, 1);
            connect(&mut contacts, t_ns + 2, 1, None);
            connect(&mut contacts, t_ns + 3, 1, Some("said.example"));
            connect(&mut contacts, t_ns + 4, 2, None);
            let window = &contacts.window;
            let waiting = [contacts.connections.len(), window.openings.len(), window.dns.len()];
            assert!(waiting.into_iter().all(|length| length <= 2 * WINDOW), "{waiting:?}");
        }
        let reached = contacts.finish(None);
        let times: Vec<(&str, u64)> =
            reached.iter().map(|(name, reached)| (name.as_str(), reached.times)).collect();
        assert_eq!(
            times,
            [
                ("10.0.0.2:443", ROUNDS),
                ("even.example:443", ROUNDS / 2),
                ("odd.example:443", ROUNDS / 2),
                ("said.example:443", ROUNDS),
            ]
        );
    }

    #[test]
    fn an_answer_is_remembered_however_long_ago_it_was() {
        let mut contacts = contacts();
        answer(&mut contacts, 1, "sts.amazonaws.com", 9);
        for round in 0..3 * WINDOW as u64 {
            answer(&mut contacts, 10 + round, "other.example", 3);
        }
        connect(&mut contacts, 1_000_000, 9, None);
        let reached = contacts.finish(None);
        let sts = &reached["sts.amazonaws.com:443"];
        let class = sts.service.as_ref().map(|(_, class)| *class);
        assert_eq!((sts.times, class), (1, Some(EndpointClass::Credentials)));
    }
}
