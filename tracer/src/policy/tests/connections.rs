//! Claims over connections, for contacts whose names are given.

use tracer_ebpf::abi::Kind;

use super::*;
use crate::{
    model::Endpoint,
    policy::{contacts::Contact, file::parse, verdict::judge_with},
    session::{NameSource, Named, Naming},
};

/// A TCP connection of the child, over which something was said, with names by their sources.
pub(in crate::policy) fn contact(address: &str, names: &[(&str, NameSource)]) -> Contact {
    let to: std::net::SocketAddr = address.parse().unwrap();
    let names: Vec<Named> = names
        .iter()
        .map(|(name, source)| Named { name: (*name).into(), source: *source })
        .collect();
    let of = |source| names.iter().filter(move |named| named.source == source);
    let best = names.first();
    let disagree = names.iter().any(|named| {
        named.source != NameSource::Sni
            && !of(named.source).any(|named| Some(&named.name) == best.map(|best| &best.name))
    });
    Contact {
        t_ns: 6,
        process: CHILD,
        means: "TCP connection",
        to: Some(Endpoint { address: to.ip(), port: to.port() }),
        naming: Naming { names, disagree, ..Naming::default() },
        spoken: true,
        is_dns: false,
        hides_name: false,
        without_resolver: None,
    }
}

pub(in crate::policy) const SNI: NameSource = NameSource::Sni;
pub(in crate::policy) const DNS: NameSource = NameSource::OwnDns;

/// Judges the contacts by the first claim of this policy.
pub(in crate::policy) fn ruling_by(
    policy: &Policy,
    records: &[Record],
    contacts: &[Contact],
    spoil: impl FnOnce(&mut Start, &mut End),
) -> (Ruling, String) {
    let records = events(records);
    let (mut start, mut end) = (start(policy), good_end(&records));
    spoil(&mut start, &mut end);
    let mut story = Story::new(start);
    for record in records.into_iter().chain([Record::End(Box::new(end))]) {
        story.add(record);
    }
    let verdict = judge_with(&story, std::slice::from_ref(policy), contacts).unwrap();
    let claim = &verdict.claims[0];
    let violations = claim.violations.iter().map(|violation| violation.detail.clone());
    (
        verdict.overall,
        claim.reasons.iter().cloned().chain(violations).collect::<Vec<_>>().join("\n"),
    )
}

fn policy(claim: &str) -> Policy {
    parse(&format!("name = 'x'\n[[claim]]\n{claim}"), "x.toml").unwrap()
}

fn only(endpoints: &str, contact: Contact) -> (Ruling, String) {
    let policy = policy(&format!("kind = 'connects-only-to'\nendpoints = [{endpoints}]"));
    ruling_by(&policy, &[git()], &[contact], |_, _| {})
}

fn never(endpoints: &str, contact: Contact) -> (Ruling, String) {
    let policy = policy(&format!("kind = 'never-connects-to'\nendpoints = [{endpoints}]"));
    ruling_by(&policy, &[git()], &[contact], |_, _| {})
}

const API: &str = "'api.anthropic.com'";
const AT: &str = "192.0.2.1:443";

#[test]
fn a_name_that_was_said_and_found_proves() {
    let sure = || contact(AT, &[("api.anthropic.com", SNI), ("api.anthropic.com", DNS)]);
    check(only(API, sure()), Ruling::Proven, "");
    check(only("'service:anthropic-api'", sure()), Ruling::Proven, "");
    check(only("'class:api'", sure()), Ruling::Proven, "");
    check(only("'*.anthropic.com:443'", sure()), Ruling::Proven, "");
    check(only("'*.anthropic.com:80'", sure()), Ruling::Violated, "is not listed");
    check(only("'provider:aws'", sure()), Ruling::Violated, "api.anthropic.com by SNI");
    check(never("'class:telemetry'", sure()), Ruling::Proven, "");
    check(never(API, sure()), Ruling::Violated, "it matches api.anthropic.com");
    for other in [NameSource::OtherDns, NameSource::Resolver, NameSource::HostsFile] {
        let named = contact(AT, &[("api.anthropic.com", SNI), ("api.anthropic.com", other)]);
        check(only(API, named), Ruling::Proven, "");
    }
    let plain = [("api.anthropic.com", NameSource::HttpHost), ("api.anthropic.com", DNS)];
    check(only(API, contact(AT, &plain)), Ruling::Proven, "");
}

#[test]
fn nothing_rests_on_a_resolver_that_lost_something() {
    let lost = |policy: &str, contact: Contact| {
        ruling_by(&self::policy(policy), &[git()], &[contact], |_, end| {
            let row = |read, lost| CounterRow {
                cpu: 0,
                kind: Kind::Resolve.name().into(),
                produced: read + lost,
                lost,
                read,
            };
            end.counters.push(row(0, 1));
        })
    };
    let only = format!("kind = 'connects-only-to'\nendpoints = [{API}]");
    // By itself it matters to nobody.
    let sure = || contact(AT, &[("api.anthropic.com", SNI), ("api.anthropic.com", DNS)]);
    check(lost(&only, sure()), Ruling::Proven, "");
    let both = [("api.anthropic.com", SNI), ("api.anthropic.com", NameSource::Resolver)];
    let without = Some(Box::new(contact(AT, &both[..1])));
    let by_resolver = Contact { without_resolver: without, ..contact(AT, &both) };
    check(lost(&only, by_resolver.clone()), Ruling::Inconclusive, "no answer of DNS");
    // What it did tell counts against a claim all the same.
    let only_other = "kind = 'connects-only-to'\nendpoints = ['other.example']";
    check(lost(only_other, by_resolver), Ruling::Violated, "is not listed");
}

#[test]
fn claims_that_are_decided_by_names() {
    let judges = |claim: &str| policy(claim).judges_names();
    assert!(judges("kind = 'connects-only-to'\nendpoints = ['a.example', '10.0.0.0/8']"));
    assert!(judges("kind = 'never-connects-to'\nendpoints = ['class:telemetry']"));
    assert!(judges("kind = 'credentials-in-process'"));
    assert!(!judges("kind = 'connects-only-to'\nendpoints = ['10.0.0.0/8', '[::1]:443']"));
    assert!(!judges("kind = 'never-runs'\nprograms = ['aws']"));
}

#[test]
fn a_weak_name_alone_proves_nothing() {
    for source in [DNS, NameSource::OtherDns, NameSource::Resolver, NameSource::HostsFile] {
        let weak = || contact(AT, &[("api.anthropic.com", source)]);
        check(only(API, weak()), Ruling::Inconclusive, "only its address stands for that name");
        check(never("'class:telemetry'", weak()), Ruling::Inconclusive, "only its address");
        // It is enough to see that something is wrong.
        check(only("'provider:aws'", weak()), Ruling::Violated, "is not listed");
        check(never(API, weak()), Ruling::Violated, "forbidden");
    }
    let said = || contact(AT, &[("api.anthropic.com", SNI)]);
    check(only(API, said()), Ruling::Inconclusive, "no answer of DNS");
    check(never("'class:telemetry'", said()), Ruling::Inconclusive, "no answer of DNS");
    check(never(API, said()), Ruling::Violated, "forbidden");
}

#[test]
fn without_a_name_nothing_is_proven_but_over_addresses() {
    let unnamed = || contact(AT, &[]);
    check(only(API, unnamed()), Ruling::Inconclusive, "192.0.2.1:443: nothing tells its name");
    check(never(API, unnamed()), Ruling::Inconclusive, "git (pid 11): TCP connection");
    check(only("'192.0.2.0/24'", unnamed()), Ruling::Proven, "");
    check(only("'192.0.2.0/24:80'", unnamed()), Ruling::Violated, "is not listed");
    check(only("'198.51.100.0/24', '::1'", unnamed()), Ruling::Violated, "is not listed");
    check(never("'198.51.100.0/24'", unnamed()), Ruling::Proven, "");
    check(never("'192.0.2.1'", unnamed()), Ruling::Violated, "forbidden");
    let metadata = || contact("169.254.169.254:80", &[]);
    check(only("'service:aws-imds'", metadata()), Ruling::Proven, "");
    check(never("'provider:aws'", metadata()), Ruling::Violated, "it matches 169.254.169.254");
    let unreadable = || Contact { to: None, ..unnamed() };
    check(only("'192.0.2.0/24'", unreadable()), Ruling::Inconclusive, "without its address");
    check(never("'192.0.2.0/24'", unreadable()), Ruling::Inconclusive, "without its address");
}

#[test]
fn addresses_that_are_elsewhere_need_no_name() {
    let claim = "kind = 'never-connects-to'\nendpoints = ['class:telemetry']\n\
                 elsewhere = ['127.0.0.0/8', '[::1]:5432']";
    let judged = |at: &str, names: &[(&str, NameSource)]| {
        ruling_by(&policy(claim), &[git()], &[contact(at, names)], |_, _| {})
    };
    check(judged("127.0.0.1:80", &[]), Ruling::Proven, "");
    check(judged("[::1]:5432", &[]), Ruling::Proven, "");
    check(judged("[::1]:80", &[]), Ruling::Inconclusive, "nothing tells its name");
    check(judged("127.0.0.1:80", &[("api.statsig.com", SNI)]), Ruling::Violated, "forbidden");
}

#[test]
fn names_that_contradict_each_other_are_not_resolved() {
    let fronted = || contact(AT, &[("api.anthropic.com", SNI), ("evil.org", DNS)]);
    check(only(API, fronted()), Ruling::Inconclusive, "contradict");
    check(never("'evil.org'", fronted()), Ruling::Inconclusive, "contradict");
    check(never(API, fronted()), Ruling::Violated, "forbidden");
    check(only("'evil.org'", fronted()), Ruling::Violated, "not listed");
    // Hosts that share an address are no contradiction.
    let shared = || {
        let names = [("api.anthropic.com", SNI), ("evil.org", DNS), ("api.anthropic.com", DNS)];
        contact(AT, &names)
    };
    check(only(API, shared()), Ruling::Proven, "");
    check(never("'evil.org'", shared()), Ruling::Proven, "");
    let either = contact(AT, &[("evil.org", DNS), ("api.anthropic.com", DNS)]);
    check(never("'evil.org'", either), Ruling::Inconclusive, "only its address");
}

#[test]
fn an_encrypted_name_is_none() {
    let hidden = |outer: &str| {
        let mut contact = contact(AT, &[(outer, SNI), (outer, DNS)]);
        contact.naming.encrypted_hello = true;
        contact
    };
    check(only(API, hidden("api.anthropic.com")), Ruling::Inconclusive, "sent encrypted");
    check(only(API, hidden("front.example")), Ruling::Inconclusive, "sent encrypted");
    check(never(API, hidden("front.example")), Ruling::Inconclusive, "sent encrypted");
    check(never(API, hidden("api.anthropic.com")), Ruling::Violated, "forbidden");
}

#[test]
fn an_alias_forbids_and_does_not_allow() {
    let cloaked = || {
        let mut contact = contact(AT, &[("metrics.example", SNI), ("metrics.example", DNS)]);
        contact.naming.aliases = vec!["collect.evil.org".into()];
        contact
    };
    check(never("'**.evil.org'", cloaked()), Ruling::Violated, "forbidden");
    check(never("'other.org'", cloaked()), Ruling::Proven, "");
    check(only("'**.evil.org'", cloaked()), Ruling::Violated, "not listed");
    check(only("'metrics.example'", cloaked()), Ruling::Proven, "");
}

#[test]
fn what_could_not_be_read_may_have_another_name() {
    let unread = || {
        let mut contact = contact(AT, &[("api.anthropic.com", SNI), ("api.anthropic.com", DNS)]);
        contact.naming.unread = true;
        contact
    };
    check(only(API, unread()), Ruling::Inconclusive, "could not be read");
    check(never("'evil.org'", unread()), Ruling::Inconclusive, "could not be read");
    check(never(API, unread()), Ruling::Violated, "forbidden");
}

#[test]
fn where_nothing_was_said_a_likely_name_is_enough() {
    let failed = |names: &[(&str, NameSource)]| Contact { spoken: false, ..contact(AT, names) };
    let by_dns = || failed(&[("api.anthropic.com", DNS)]);
    check(only(API, by_dns()), Ruling::Proven, "");
    check(never("'class:telemetry'", by_dns()), Ruling::Proven, "");
    // To try is to contact.
    check(never(API, by_dns()), Ruling::Violated, "forbidden");
    check(only("'provider:aws'", by_dns()), Ruling::Violated, "not listed");
    check(never(API, failed(&[])), Ruling::Inconclusive, "nothing tells its name");
    let either = failed(&[("evil.org", DNS), ("api.anthropic.com", DNS)]);
    check(never("'evil.org'", either), Ruling::Inconclusive, "only its address");
}

#[test]
fn guesses_forbid_and_do_not_allow() {
    let named = |name| contact(AT, &[(name, SNI), (name, DNS)]);
    check(never("'class:mcp'", named("mcp.evil.org")), Ruling::Violated, "it matches mcp.**");
    check(only("'class:mcp'", named("mcp.evil.org")), Ruling::Violated, "not listed");
    check(only("'class:mcp'", named("mcp.linear.app")), Ruling::Proven, "");
    check(only("'provider:aws'", named("x.y.amazonaws.com")), Ruling::Violated, "not listed");
    let customers = named("ec2-1-2-3-4.compute-1.amazonaws.com");
    check(only("'provider:aws'", customers), Ruling::Violated, "not listed");
}

#[test]
fn questions_for_names_are_no_contact_unless_the_claim_says_so() {
    let asked = || Contact { means: "UDP datagrams", is_dns: true, ..contact("8.8.8.8:53", &[]) };
    check(only(API, asked()), Ruling::Proven, "");
    check(never(API, asked()), Ruling::Proven, "");
    check(never("'class:dns'", asked()), Ruling::Violated, "UDP datagrams to 8.8.8.8:53");
    let strict = |endpoints: &str| {
        let claim = format!("kind = 'connects-only-to'\nendpoints = [{endpoints}]\ndns = 'judge'");
        ruling_by(&policy(&claim), &[git()], &[asked()], |_, _| {})
    };
    check(strict(API), Ruling::Inconclusive, "nothing tells its name");
    check(strict("'api.anthropic.com', '8.8.8.8:53'"), Ruling::Proven, "");
    let other = contact("8.8.8.8:53", &[]);
    check(only(API, other), Ruling::Inconclusive, "nothing tells its name");
}

#[test]
fn repeats_are_one_line() {
    let contacts = vec![contact(AT, &[]); 3];
    let claim = policy("kind = 'connects-only-to'\nendpoints = ['a.b']");
    let (ruling, text) = ruling_by(&claim, &[git()], &contacts, |_, _| {});
    assert_eq!((ruling, text.lines().count()), (Ruling::Inconclusive, 1), "{text}");
    assert!(text.ends_with("nothing tells its name (3 times)"), "{text}");
}

#[test]
fn a_socket_that_was_made_elsewhere_is_a_contact() {
    let sends_by = |protocol: u16, to: Option<&str>| {
        let to = to.map(|to| to.parse::<std::net::SocketAddr>().unwrap());
        let send = ForeignSend {
            t_ns: 6,
            process: CHILD,
            thread: CHILD.pid,
            protocol,
            raw: false,
            destination: to.map(|to| Endpoint { address: to.ip(), port: to.port() }),
            local: Some(false),
            net_ns_inum: 1,
            unread: Vec::new(),
        };
        [git(), Record::ForeignSend(send)]
    };
    let sends = |to| sends_by(6, to);
    let only = |endpoint: &str, to| {
        let claim = policy(&format!("kind = 'connects-only-to'\nendpoints = ['{endpoint}']"));
        ruling_of(&claim, &sends(to), |_, _| {})
    };
    check(only("10.0.0.0/8", Some("10.1.2.3:443")), Ruling::Proven, "");
    check(only("10.0.0.0/8", Some("192.0.2.1:443")), Ruling::Violated, "made outside");
    check(only("10.0.0.0/8", None), Ruling::Inconclusive, "without its address");
    check(only("a.b", Some("192.0.2.1:443")), Ruling::Inconclusive, "nothing tells its name");
    let claim = policy("kind = 'connects-only-to'\nendpoints = ['10.0.0.0/8']");
    let datagrams = ruling_of(&claim, &sends_by(17, Some("10.1.2.3:443")), |_, _| {});
    check(datagrams, Ruling::Inconclusive, "can go anywhere");
    let called = ruling("no-aws-cli", &sends(Some("192.0.2.1:443")), |_, _| {});
    check(called, Ruling::Inconclusive, "made outside the command's cgroup");
}

#[test]
fn datagrams_that_left_with_another_address() {
    const COOKIE: u64 = 7;
    let to = |address: &str| {
        let to: std::net::SocketAddr = address.parse().unwrap();
        Endpoint { address: to.ip(), port: to.port() }
    };
    let socket = |via, unspecified, sent_packets, elsewhere_packets| {
        let destination = to("127.0.0.1:443");
        let datagram = Datagram {
            t_ns: 6,
            process: CHILD,
            thread: CHILD.pid,
            cookie: COOKIE,
            protocol: 17,
            destination: Some(destination),
            net_ns_inum: 1,
            via,
            unspecified,
            unread: Vec::new(),
        };
        let exchange = Exchange {
            t_ns: 9,
            cookie: COOKIE,
            destination,
            sent_packets,
            sent_bytes: sent_packets,
            received_packets: 0,
            received_bytes: 0,
            elsewhere_packets,
        };
        [git(), Record::Datagram(datagram), Record::Exchange(exchange)]
    };
    let never = |endpoint: &str, records: &[Record]| {
        let claim = policy(&format!("kind = 'never-connects-to'\nendpoints = ['{endpoint}']"));
        ruling_of(&claim, records, |start, _| start.sensors.push(sensor("packets")))
    };
    let only = |endpoint: &str, records: &[Record]| {
        let claim = policy(&format!("kind = 'connects-only-to'\nendpoints = ['{endpoint}']"));
        ruling_of(&claim, records, |start, _| start.sensors.push(sensor("packets")))
    };
    let asked = "127.0.0.1:443";
    // Connected, and nothing was sent, or something under another address.
    let silent = socket(DatagramVia::Connect, false, 0, 0);
    check(never(asked, &silent), Ruling::Proven, "");
    // Who only got something sent nothing.
    let mut received = silent.clone();
    let Record::Exchange(exchange) = &mut received[2] else { unreachable!() };
    exchange.received_packets = 3;
    check(never(asked, &received), Ruling::Proven, "");
    check(only("10.0.0.5", &received), Ruling::Proven, "");
    let claim = policy(&format!("kind = 'never-connects-to'\nendpoints = ['{asked}']"));
    check(
        ruling_of(&claim, &received, |_, _| {}),
        Ruling::Violated,
        "connected a socket for UDP datagrams",
    );
    // What members of a group on this machine get is not counted.
    let group = to("239.1.1.1:53");
    let mut grouped = silent.clone();
    let Record::Datagram(datagram) = &mut grouped[1] else { unreachable!() };
    datagram.destination = Some(group);
    let Record::Exchange(exchange) = &mut grouped[2] else { unreachable!() };
    exchange.destination = group;
    check(never("239.1.1.1", &grouped), Ruling::Violated, "UDP datagrams to 239.1.1.1:53");
    check(only("10.0.0.5", &grouped), Ruling::Violated, "UDP datagrams to 239.1.1.1:53");
    // A packet of IPv6 with further headers, whose destination the counter does not understand, went elsewhere.
    let mut received_6 = received.clone();
    let other = to("[::1]:443");
    let Record::Datagram(datagram) = &mut received_6[1] else { unreachable!() };
    datagram.destination = Some(other);
    let Record::Exchange(exchange) = &mut received_6[2] else { unreachable!() };
    exchange.destination = other;
    check(never("[::1]:443", &received_6), Ruling::Proven, "");
    let Record::Exchange(exchange) = &mut received_6[2] else { unreachable!() };
    exchange.elsewhere_packets = 1;
    check(never("[::1]:443", &received_6), Ruling::Violated, "UDP datagrams to [::1]:443");
    let elsewhere = socket(DatagramVia::Connect, false, 0, 1);
    check(never(asked, &elsewhere), Ruling::Violated, "UDP datagrams to 127.0.0.1:443");
    check(only(asked, &elsewhere), Ruling::Proven, "");
    check(never("10.0.0.5", &elsewhere), Ruling::Proven, "");
    // What was asked for as 0.0.0.0 went where it should, or to another address of this machine.
    let loopback = socket(DatagramVia::Send, true, 1, 0);
    check(never(asked, &loopback), Ruling::Violated, "UDP datagrams to 127.0.0.1:443");
    check(never("10.0.0.5", &loopback), Ruling::Proven, "");
    check(only(asked, &loopback), Ruling::Proven, "");
    let other = socket(DatagramVia::Send, true, 1, 1);
    let words = "an address of this machine that is not known: without its address";
    check(never("10.0.0.5", &other), Ruling::Inconclusive, words);
    check(never(asked, &other), Ruling::Inconclusive, words);
    check(only(asked, &other), Ruling::Inconclusive, words);
    // Nobody counted packets, which would show it.
    let claim = policy("kind = 'never-connects-to'\nendpoints = ['10.0.0.5']");
    check(ruling_of(&claim, &loopback, |_, _| {}), Ruling::Inconclusive, words);
}

#[test]
fn what_is_not_seen_of_connections_is_a_reason() {
    let claim = policy("kind = 'connects-only-to'\nendpoints = ['a.b']");
    let with = |record: Record, words: &str| {
        check(ruling_by(&claim, &[git(), record], &[], |_, _| {}), Ruling::Inconclusive, words);
    };
    check(ruling_by(&claim, &[git()], &[], |_, _| {}), Ruling::Proven, "");
    let (t_ns, process, thread) = (6, CHILD, CHILD.pid);
    with(
        Record::OddSocket(OddSocket {
            t_ns,
            process,
            thread,
            family: 17,
            socket_type: 3,
            protocol: 0,
        }),
        "a socket of family 17, type 3",
    );
    let to_path = Some("/other".into());
    with(
        Record::CgroupMove(CgroupMove { t_ns, process, to_cgroup_id: 5, to_path }),
        "left the command's cgroup for /other",
    );
    with(
        Record::HandOff(HandOff {
            t_ns,
            process: Some(process),
            pid: 11,
            name: crate::catalogue::UNKNOWN_SERVICE.into(),
            via: "/run/proxy.sock".into(),
            how: "it sent something there".into(),
        }),
        "/run/proxy.sock",
    );
    let gap = |spoil: fn(&mut Start, &mut End), words: &str| {
        check(ruling_by(&claim, &[git()], &[], spoil), Ruling::Inconclusive, words);
    };
    gap(|start, _| start.inherited_network_sockets = vec![1, 2], "with 2 network sockets");
    gap(
        |start, _| start.sensors.retain(|sensor| sensor.sensor != "datagrams"),
        "without connections",
    );
    gap(|start, _| start.sensors[5].missing = Some("no cgroup".into()), "raw or SCTP");
    gap(|start, _| start.sensors[1].missing = Some("too old".into()), "over unix sockets");
    gap(|start, _| start.schema = 2, "from before tracer recorded datagrams");
    gap(|_, end| end.survivors.push(CHILD), "listed as still running");
    gap(|_, end| end.canaries[0].seen.extend([("connect".into(), false)]), "connect");
    gap(|_, end| end.skipped_runs.extend([("connect".into(), 1)]), "skipped 1 runs");
    gap(|_, end| end.skipped_runs.extend([("fork".into(), 1)]), "skipped 1 runs");
    gap(
        |start, _| {
            let mut rules = crate::catalogue::Catalogue::embedded().endpoints.rules().clone();
            rules.rules[0].names = vec!["*".into()];
            start.endpoints = Some(rules);
        },
        "catalogue of endpoints is not valid",
    );
    // An exec that was lost is no connection.
    let lost_exec = |_: &mut Start, end: &mut End| {
        end.skipped_runs.extend([("exec".into(), 1)]);
    };
    check(ruling_by(&claim, &[git()], &[], lost_exec), Ruling::Proven, "");
}

#[test]
fn claims_over_connections_do_not_ask_what_ran() {
    let claim = policy("kind = 'connects-only-to'\nendpoints = ['a.b']");
    let aws = exec(CHILD, "/usr/bin/aws", AWS, &["aws", "s3"]);
    check(ruling_by(&claim, &[aws], &[], |_, _| {}), Ruling::Proven, "");
}

#[test]
fn bad_claims_say_what_is_wrong() {
    let check = |claim: &str, says: &str| {
        let text = format!("name = 'x'\n[[claim]]\n{claim}");
        let error = parse(&text, "x.toml").unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    let only = "kind = 'connects-only-to'\n";
    let never = "kind = 'never-connects-to'\n";
    check(only, "a claim's `endpoints` is empty");
    check(&format!("{only}endpoints = ['a.b']\nprograms = ['x']"), "has no `programs`");
    check(&format!("{only}endpoints = ['a.b']\nattempts = true"), "has no `attempts`");
    check(&format!("{only}endpoints = ['a.b']\nelsewhere = ['::1']"), "goes into `endpoints`");
    check(&format!("{never}endpoints = ['a.b']\nelsewhere = ['c.d']"), "no address");
    check(&format!("{never}endpoints = ['a.b']\ndns = 'deny'"), "judge");
    check(&format!("{never}endpoints = ['https://a.b/']"), "`endpoints`: `https://a.b/` is a URL");
    check("kind = 'never-runs'\nprograms = ['x']\nendpoints = ['a.b']", "has no `endpoints`");
    check("kind = 'runs-only'\nprograms = ['x']\nsdk-users = ['y']", "only `never-runs`");
    check("kind = 'never-runs'\nprograms = ['@any']", "no program");
    check("kind = 'never-runs'\nprograms = ['x']\nsdk-users = ['a/b']", "relative path");
}
