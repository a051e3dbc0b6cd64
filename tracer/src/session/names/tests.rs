//! Stories in, names out.

use super::*;
use crate::record::schema::{Connect, DatagramVia, DnsRecord, End, HostsEntry, Record, Resolved};

const ROOT: ProcessKey = ProcessKey { pid: 9, start_ns: 1 };
const CHILD: ProcessKey = ProcessKey { pid: 10, start_ns: 2 };
const ADDRESS: &str = "10.0.0.1";

/// A story that is told line by line; each line is one nanosecond later.
struct Teller {
    story: Story,
    t_ns: u64,
}

fn end_of(address: &str) -> Option<Endpoint> {
    Some(Endpoint { address: address.parse().unwrap(), port: 443 })
}

impl Teller {
    fn new() -> Teller {
        let policy = crate::policy::load("no-aws-cli").unwrap();
        Teller { story: Story::new(crate::policy::test_start(&policy)), t_ns: 100 }
    }

    fn add(&mut self, record: Record) -> &mut Teller {
        self.story.add(record);
        self.t_ns += 1;
        self
    }

    fn dns(&mut self, process: ProcessKey, message: DnsMessage) -> &mut Teller {
        let t_ns = self.t_ns;
        let (cookie, server) = (process.pid.into(), None);
        self.add(Record::Dns(Dns { t_ns, process, cookie, server, tcp: false, message }))
    }

    fn asks(&mut self, process: ProcessKey, name: &str, of: &str) -> &mut Teller {
        self.dns(process, DnsMessage::Question { id: 1, name: name.into(), of: of.into() })
    }

    fn answered(
        &mut self,
        process: ProcessKey,
        name: &str,
        of: &str,
        records: &[[&str; 3]],
    ) -> &mut Teller {
        let record = |[name, of, data]: &[&str; 3]| DnsRecord {
            name: (*name).into(),
            of: (*of).into(),
            ttl_s: 60,
            data: (*data).into(),
        };
        let message = DnsMessage::Answer {
            id: 1,
            name: name.into(),
            of: of.into(),
            code: "NOERROR".into(),
            records: records.iter().map(record).collect(),
            truncated: false,
        };
        self.dns(process, message)
    }

    /// Asks and is told that a name has an address.
    fn resolves(&mut self, process: ProcessKey, name: &str, address: &str) -> &mut Teller {
        self.asks(process, name, "A").answered(process, name, "A", &[[name, "A", address]])
    }

    fn connects(&mut self, process: ProcessKey, address: &str) -> &mut Teller {
        let connection = self.story.connections.len() as u64;
        self.add(Record::Connect(Connect {
            t_ns: self.t_ns,
            process,
            thread: process.pid,
            connection,
            cookie: Some(1000 + connection),
            destination: end_of(address),
            net_ns_inum: 1,
            unread: Vec::new(),
        }))
    }

    fn says(&mut self, what: FirstBytes) -> &mut Teller {
        let last = self.story.connections.last().unwrap();
        let opening = Opening {
            t_ns: self.t_ns,
            process: last.process,
            cookie: last.cookie.unwrap(),
            connection: Some(last.id),
            destination: last.destination,
            what,
        };
        self.add(Record::Opening(opening))
    }

    fn hosts(&mut self, names: &[&str]) -> &mut Teller {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let hosts = vec![HostsEntry { address: ADDRESS.parse().unwrap(), names }];
        let end = crate::policy::test_end(&[]);
        self.add(Record::End(Box::new(End { hosts, ..end })))
    }

    /// How the last connection is named.
    fn last(&self) -> (Vec<String>, bool) {
        let naming = Names::of(&self.story).connection(self.story.connections.last().unwrap());
        let name = |named: &Named| format!("{} {:?}", named.name, named.source);
        (naming.names.iter().map(name).collect(), naming.disagree)
    }

    #[track_caller]
    fn check(&self, names: &[&str], disagree: bool) {
        assert_eq!(self.last(), (names.iter().map(|name| (*name).to_owned()).collect(), disagree));
    }
}

fn sni(name: &str) -> FirstBytes {
    FirstBytes::Tls {
        sni: Some(name.into()),
        alpn: Vec::new(),
        encrypted_hello: false,
        client_random: String::new(),
        quic: false,
    }
}

fn host(name: &str) -> FirstBytes {
    FirstBytes::Http { method: "GET".into(), host: Some(name.into()) }
}

#[test]
fn sources_are_in_order() {
    let mut story = Teller::new();
    story.resolves(CHILD, "other.example", ADDRESS);
    story.resolves(ROOT, "a.example", ADDRESS);
    let (t_ns, addresses) = (story.t_ns, vec![ADDRESS.parse().unwrap()]);
    story.add(Record::Resolved(Resolved {
        t_ns,
        process: ROOT,
        thread: 9,
        name: "A.example.".into(),
        addresses,
        truncated: false,
        error: None,
    }));
    story.connects(ROOT, ADDRESS);
    story.check(&["a.example OwnDns", "other.example OtherDns", "a.example Resolver"], false);
    story.says(sni("a.example"));
    story.hosts(&["file.example"]);
    story.check(
        &[
            "a.example Sni",
            "a.example OwnDns",
            "other.example OtherDns",
            "a.example Resolver",
            "file.example HostsFile",
        ],
        false,
    );
}

#[test]
fn nothing_is_named_by_nothing() {
    let mut story = Teller::new();
    let resolved = Resolved {
        t_ns: story.t_ns,
        process: ROOT,
        thread: 9,
        name: ADDRESS.into(),
        addresses: vec![ADDRESS.parse().unwrap()],
        truncated: false,
        error: None,
    };
    story.add(Record::Resolved(resolved));
    story.connects(ROOT, ADDRESS).check(&[], false);
    story.says(FirstBytes::Other).check(&[], false);
    story.says(host("10.0.0.1")).says(host("[::1]")).check(&[], false);
    story.says(sni("a.example")).check(&["a.example Sni"], false);
}

#[test]
fn contradictions_are_told() {
    let mut story = Teller::new();
    story.resolves(ROOT, "a.example", ADDRESS).connects(ROOT, ADDRESS);
    story.says(host("A.Example")).check(&["a.example HttpHost", "a.example OwnDns"], false);
    story.connects(ROOT, ADDRESS).says(sni("b.example"));
    story.check(&["b.example Sni", "a.example OwnDns"], true);
    // Another process was told that name: it is not the address that contradicts.
    story.resolves(CHILD, "c.example", ADDRESS).connects(ROOT, ADDRESS).says(sni("c.example"));
    story.check(&["c.example Sni", "a.example OwnDns", "c.example OtherDns"], false);
    // Through a proxy: one name for the proxy, another one in the tunnel.
    story.connects(ROOT, "10.0.0.9").says(host("a.example")).says(sni("b.example"));
    story.check(&["a.example HttpHost", "b.example Sni"], true);
    story.hosts(&["d.example"]).connects(ROOT, ADDRESS).says(sni("d.example"));
    assert!(!story.last().1, "the file of hosts confirms it");
}

#[test]
fn only_what_was_known_before_counts() {
    let mut story = Teller::new();
    story.connects(ROOT, ADDRESS).resolves(ROOT, "late.example", ADDRESS).check(&[], false);
    story.says(sni("late.example")).check(&["late.example Sni"], false);
}

#[test]
fn an_alias_leads_back_to_the_name_that_was_asked() {
    let mut story = Teller::new();
    let chain = [
        ["a.example", "CNAME", "edge.example"],
        ["edge.example", "CNAME", "pop.example"],
        ["pop.example", "A", ADDRESS],
    ];
    story.asks(ROOT, "a.example", "A").answered(ROOT, "a.example", "A", &chain);
    story.connects(ROOT, ADDRESS).check(&["a.example OwnDns"], false);

    // A resolver that follows aliases itself, and one that follows an HTTPS record.
    let mut story = Teller::new();
    let alias = [["a.example", "CNAME", "edge.example"]];
    story.asks(ROOT, "a.example", "A").answered(ROOT, "a.example", "A", &alias);
    let service = [["edge.example", "HTTPS", "pop.example"]];
    story.asks(ROOT, "edge.example", "HTTPS").answered(ROOT, "edge.example", "HTTPS", &service);
    story.resolves(ROOT, "pop.example", ADDRESS).connects(ROOT, ADDRESS).says(sni("a.example"));
    story.check(
        &["a.example Sni", "pop.example OwnDns", "edge.example OwnDns", "a.example OwnDns"],
        false,
    );
    // The same name of another process leads nowhere.
    story.resolves(CHILD, "pop.example", "10.0.0.2").connects(CHILD, "10.0.0.2");
    story.check(&["pop.example OwnDns"], false);

    let mut story = Teller::new();
    let hint = [["a.example", "HTTPS", "a.example 10.0.0.1 10.0.0.3"]];
    story.asks(ROOT, "a.example", "HTTPS").answered(ROOT, "a.example", "HTTPS", &hint);
    story.connects(ROOT, "10.0.0.3").check(&["a.example OwnDns"], false);
}

#[test]
fn what_a_name_is_an_alias_of() {
    let aliases = |story: &Teller| {
        Names::of(&story.story).connection(story.story.connections.last().unwrap()).aliases
    };
    let mut story = Teller::new();
    let chain = [["a.example", "CNAME", "edge.example"], ["edge.example", "A", ADDRESS]];
    story.connects(ROOT, ADDRESS);
    story.asks(ROOT, "a.example", "A").answered(ROOT, "a.example", "A", &chain);
    assert!(aliases(&story).is_empty(), "it was not known yet");
    story.connects(ROOT, ADDRESS);
    assert_eq!(aliases(&story), ["edge.example"]);

    // Of another name with the same address.
    story.resolves(ROOT, "b.example", ADDRESS).connects(ROOT, ADDRESS).says(sni("b.example"));
    assert!(aliases(&story).is_empty());

    // Asked one after the other.
    let mut story = Teller::new();
    let alias = [["a.example", "CNAME", "edge.example"]];
    story.asks(ROOT, "a.example", "A").answered(ROOT, "a.example", "A", &alias);
    story.resolves(ROOT, "edge.example", ADDRESS).connects(ROOT, ADDRESS).says(sni("a.example"));
    assert_eq!(aliases(&story), ["edge.example"]);
}

#[test]
fn answers_that_nobody_asked_for_name_nothing() {
    let mut story = Teller::new();
    story.answered(ROOT, "a.example", "A", &[["a.example", "A", ADDRESS]]);
    story.asks(ROOT, "b.example", "AAAA").answered(
        ROOT,
        "b.example",
        "A",
        &[["b.example", "A", ADDRESS]],
    );
    // Of another name than the one in the question.
    story.asks(ROOT, "c.example", "A").answered(
        ROOT,
        "c.example",
        "A",
        &[["d.example", "A", ADDRESS]],
    );
    story.connects(ROOT, ADDRESS).check(&[], false);
}

#[test]
fn a_name_from_before_the_fork_is_another_processes() {
    let mut story = Teller::new();
    story.resolves(ROOT, "a.example", ADDRESS).connects(CHILD, ADDRESS);
    story.check(&["a.example OtherDns"], false);
}

#[test]
fn fifty_hosts_on_one_address_stay_apart() {
    let mut story = Teller::new();
    for host in 0..50 {
        let name = format!("host-{host}.example");
        story.resolves(ROOT, &name, ADDRESS).connects(ROOT, ADDRESS);
        assert_eq!(story.last().0[0], format!("{name} OwnDns"));
        assert_eq!(story.last().0.len(), host + 1, "all candidates are listed");
        story.says(sni(&name));
        assert_eq!(story.last().0[0], format!("{name} Sni"));
        assert!(!story.last().1);
    }
    // All asked for first, and connected in another order: only the client tells which it is.
    let mut story = Teller::new();
    for host in 0..50 {
        story.resolves(ROOT, &format!("host-{host}.example"), ADDRESS);
    }
    story.connects(ROOT, ADDRESS);
    assert_eq!((story.last().0.len(), story.last().1), (50, false));
    story.says(sni("host-7.example"));
    assert_eq!((story.last().0[0].as_str(), story.last().1), ("host-7.example Sni", false));
}

#[test]
fn mapped_addresses_are_the_same_addresses() {
    let mut story = Teller::new();
    story.resolves(ROOT, "a.example", ADDRESS).connects(ROOT, "::ffff:10.0.0.1");
    story.check(&["a.example OwnDns"], false);
}

#[test]
fn datagrams_are_named_too() {
    let mut story = Teller::new();
    story.resolves(ROOT, "a.example", ADDRESS);
    let datagram = Datagram {
        t_ns: story.t_ns,
        process: ROOT,
        thread: 9,
        cookie: 5,
        protocol: 17,
        destination: end_of(ADDRESS),
        net_ns_inum: 1,
        via: DatagramVia::Send,
        unspecified: false,
        unread: Vec::new(),
    };
    let mut hello = sni("public.example");
    if let FirstBytes::Tls { encrypted_hello, quic, .. } = &mut hello {
        (*encrypted_hello, *quic) = (true, true);
    }
    let opening = Opening {
        t_ns: story.t_ns,
        process: ROOT,
        cookie: 5,
        connection: None,
        destination: end_of(ADDRESS),
        what: hello,
    };
    story.add(Record::Datagram(datagram.clone())).add(Record::Opening(opening));
    let naming = Names::of(&story.story).datagram(&datagram);
    assert_eq!(naming.best().unwrap().name, "public.example");
    assert!(naming.disagree && naming.encrypted_hello);
}

/// 100,000 names of one address and as many connections to it: what is quadratic takes hours.
#[test]
fn many_names_are_no_burden() {
    let mut story = Teller::new();
    for number in 0..100_000 {
        let process = ProcessKey { pid: 10 + number % 7, start_ns: 2 };
        story.resolves(process, &format!("host-{number}.example"), ADDRESS);
        story.connects(process, ADDRESS).says(sni(&format!("host-{number}.example")));
    }
    let names = Names::of(&story.story);
    for connection in story.story.connections.iter().step_by(100) {
        let naming = names.connection(connection);
        assert!(!naming.disagree && naming.names.len() <= 1 + 2 * NAMES_MAX);
    }
}
