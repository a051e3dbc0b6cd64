//! The claim that processes resolve their credentials themselves.

use super::*;
use crate::{
    catalogue::Catalogue,
    model::Endpoint,
    policy::file::parse,
    session::{Origin, credential_uses},
};

const BEDROCK: &str = "bedrock-runtime.us-east-1.amazonaws.com";
const KEYS: &[&str] = &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

/// An exec of the root's at this time, with these variables.
fn image(t_ns: u64, process: ProcessKey, argv: &[&str], variables: &[&str]) -> Record {
    let Record::Exec(mut exec) = exec(process, &format!("/usr/bin/{}", argv[0]), 1, argv) else {
        unreachable!()
    };
    exec.t_ns = t_ns;
    exec.environment = Some(variables.iter().map(|name| (*name).to_owned()).collect());
    Record::Exec(exec)
}

fn opened(t_ns: u64, source: &str) -> Record {
    Record::CredentialFile(CredentialFile {
        t_ns,
        after_ns: t_ns - 1,
        process: Some(ROOT),
        pid: ROOT.pid,
        source: source.into(),
        access: CredentialAccess::Opened,
        file: None,
        path: "/home/u/.aws/x".into(),
    })
}

/// A connection of the root's, with or without a server name.
fn call(t_ns: u64, to: &str, sni: Option<&str>) -> Vec<Record> {
    let (destination, none) = (to.parse::<std::net::SocketAddr>().unwrap(), Vec::new);
    let destination = Some(Endpoint { address: destination.ip(), port: destination.port() });
    let what = |sni: &str| FirstBytes::Tls {
        sni: Some(sni.into()),
        alpn: Vec::new(),
        encrypted_hello: false,
        client_random: String::new(),
        quic: false,
    };
    let mut records = vec![
        Record::Connect(Connect {
            t_ns,
            process: ROOT,
            thread: ROOT.pid,
            connection: t_ns,
            cookie: Some(t_ns),
            destination,
            net_ns_inum: 1,
            unread: none(),
        }),
        Record::ConnectResult(ConnectResult {
            t_ns: t_ns + 1,
            process: ROOT,
            connection: t_ns,
            outcome: Outcome::Established,
            connect_ns: Some(1),
            source: None,
            local: None,
            unread: none(),
        }),
    ];
    records.extend(sni.map(|sni| {
        Record::Opening(Opening {
            t_ns,
            process: ROOT,
            cookie: t_ns,
            connection: Some(t_ns),
            destination,
            what: what(sni),
        })
    }));
    records
}

fn bedrock() -> Vec<Record> {
    call(100, "192.0.2.1:443", Some(BEDROCK))
}

fn story(records: &[&[Record]], spoil: impl FnOnce(&mut Start, &mut End)) -> Story {
    let policy = parse("name = 'x'\n[[claim]]\nkind = 'credentials-in-process'", "x").unwrap();
    let mut all = events(&records.concat());
    // The command's own image comes with the records.
    all.remove(1);
    let (mut start, mut end) = (start(&policy), good_end(&all));
    let catalogue = Catalogue::embedded();
    start.credentials = Some(CredentialWatch {
        sources: catalogue.credential_sources.clone(),
        helpers: catalogue.credential_helpers.clone(),
        ..CredentialWatch::default()
    });
    end.credentials = Some(CredentialEvents::default());
    spoil(&mut start, &mut end);
    let mut story = Story::new(start);
    for record in all.into_iter().chain([Record::End(Box::new(end))]) {
        story.add(record);
    }
    story
}

fn origin(records: &[&[Record]]) -> Origin {
    let uses = credential_uses(&story(records, |_, _| {}));
    let own = uses.into_iter().find(|one| one.process == ROOT && one.provider == "aws");
    own.map_or(Origin::NoContact, |own| own.origin)
}

/// What the claim's own reasons and violations are.
fn judged(programs: &str, story: &Story) -> (Ruling, String) {
    let text = format!("name = 'x'\n[[claim]]\nkind = 'credentials-in-process'\n{programs}");
    let verdict = judge(story, &[parse(&text, "x").unwrap()]).unwrap();
    let claim = &verdict.claims[0];
    let ours =
        |text: &&String| ["credential", "AWS", "looked for"].iter().any(|word| text.contains(word));
    let reasons: Vec<String> = claim.reasons.iter().filter(ours).cloned().collect();
    let violations: Vec<String> =
        claim.violations.iter().map(|violation| violation.detail.clone()).collect();
    let ruling = match (violations.is_empty(), reasons.is_empty()) {
        (false, _) => Ruling::Violated,
        (true, false) => Ruling::Inconclusive,
        (true, true) => Ruling::Proven,
    };
    (ruling, [violations, reasons].concat().join("\n"))
}

fn resolved(source: &str, also: &[&str]) -> Origin {
    Origin::Resolved {
        source: source.into(),
        also: also.iter().map(|name| (*name).to_owned()).collect(),
    }
}

#[test]
fn the_first_source_that_is_set_counts() {
    let node = |variables: &[&str]| [image(5, ROOT, &["node"], variables)];
    let files = [opened(50, "shared files")];
    assert_eq!(origin(&[&node(KEYS), &bedrock()]), resolved("environment", &[]));
    let both = origin(&[&node(KEYS), &files, &bedrock()]);
    assert_eq!(both, resolved("environment", &["shared files"]));
    // Half of a pair is none, and a profile is asked first.
    let half = origin(&[&node(&KEYS[..1]), &files, &bedrock()]);
    assert_eq!(half, resolved("shared files", &[]));
    let profile = [KEYS, &["AWS_PROFILE"]].concat();
    assert_eq!(origin(&[&node(&profile), &files, &bedrock()]), resolved("shared files", &[]));
    assert!(matches!(origin(&[&node(&[]), &bedrock()]), Origin::Unknown { .. }));
    // What comes after the call was not used for it.
    let late = [opened(200, "shared files")];
    assert!(matches!(origin(&[&node(&[]), &bedrock(), &late]), Origin::Unknown { .. }));
    assert_eq!(origin(&[&node(KEYS), &files]), Origin::NoContact);
}

/// The variable may lead to any address, of which tracer does not know that it is such a service.
#[test]
fn a_service_that_a_variable_names_may_have_been_asked() {
    let own = ["AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    let node = |variables: &[&str]| [image(5, ROOT, &["node"], variables)];
    let files = [opened(50, "shared files")];
    let Origin::Unknown { why } = origin(&[&node(&own), &files, &bedrock()]) else {
        panic!("where it leads is not known")
    };
    assert!(why.contains(own[0]), "{why}");
    // Keys in the environment come before it.
    let both = [KEYS, &own].concat();
    assert_eq!(
        origin(&[&node(&both), &files, &bedrock()]),
        resolved("environment", &["shared files"])
    );
}

#[test]
fn a_source_that_was_asked_counts_for_more_than_one_that_leads_on() {
    let node = [image(5, ROOT, &["node"], &[])];
    let files = [opened(50, "shared files")];
    let metadata = call(60, "169.254.169.254:80", None);
    let from = |more: &[Record]| origin(&[&node, &files, more, &bedrock()]);
    assert_eq!(from(&metadata), resolved("instance metadata", &["shared files"]));
    assert_eq!(
        from(&[opened(55, "single sign-on")]),
        resolved("single sign-on", &["shared files"])
    );
    let two = [&metadata[..], &[opened(55, "single sign-on")]].concat();
    let Origin::OneOf { sources } = from(&two) else { panic!("two were asked") };
    assert_eq!(sources, ["single sign-on", "instance metadata"]);
    // One that did not answer gave nothing.
    assert_eq!(from(&metadata[..1]), resolved("shared files", &[]));
}

#[test]
fn the_claim_needs_a_source_and_a_call() {
    let keys = [image(5, ROOT, &["node"], KEYS)];
    let none = [image(5, ROOT, &["node"], &[])];
    let of = |records: &[&[Record]]| judged("", &story(records, |_, _| {}));
    check(of(&[&keys, &bedrock()]), Ruling::Proven, "");
    check(of(&[&none, &bedrock()]), Ruling::Inconclusive, "no source of credentials was seen");
    check(of(&[&keys]), Ruling::Inconclusive, "no process was seen to call AWS");
    let nameless = call(70, "192.0.2.9:443", None);
    check(of(&[&keys, &nameless, &bedrock()]), Ruling::Inconclusive, "may have been a call of AWS");
    let gap = |start: &mut Start, _: &mut End| {
        let watch = start.credentials.as_mut().unwrap();
        watch.gaps = vec![CredentialGap { source: "shared files".into(), why: "refused".into() }];
    };
    check(judged("", &story(&[&keys, &bedrock()], gap)), Ruling::Inconclusive, "refused");
    let lost = |_: &mut Start, end: &mut End| {
        end.credentials.as_mut().unwrap().events.overflows = 1;
    };
    check(judged("", &story(&[&keys, &bedrock()], lost)), Ruling::Inconclusive, "queue");
    let old = |start: &mut Start, _: &mut End| start.credentials = None;
    check(judged("", &story(&[&keys, &bedrock()], old)), Ruling::Inconclusive, "does not tell");
}

#[test]
fn what_ran_before_the_call_must_be_listed() {
    let keys = [image(5, ROOT, &["node"], KEYS)];
    let none = [image(5, ROOT, &["node"], &[])];
    let sort = [image(20, CHILD, &["sort"], KEYS)];
    let of = |programs: &str, records: &[&[Record]]| judged(programs, &story(records, |_, _| {}));
    check(of("", &[&keys, &sort, &bedrock()]), Ruling::Inconclusive, "/usr/bin/sort ran before");
    let late = [image(500, CHILD, &["sort"], KEYS)];
    check(of("", &[&keys, &bedrock(), &late]), Ruling::Proven, "");
    // What started it may have put the keys into its environment.
    let shell = [image(4, ROOT, &["sh"], &[])];
    check(of("", &[&shell, &keys, &bedrock()]), Ruling::Inconclusive, "/usr/bin/sh ran before");
    let vault = [image(4, ROOT, &["aws-vault", "exec", "x"], &[])];
    check(of("", &[&vault, &keys, &bedrock()]), Ruling::Violated, "which is aws-vault");
    let cli = [image(20, CHILD, &["aws", "configure", "export-credentials"], &[])];
    check(of("", &[&none, &cli, &bedrock()]), Ruling::Violated, "which is aws");
    // With keys of its own it may not have needed them; that it asked is a reason even when listed.
    let listed = "programs = ['aws']";
    check(of(listed, &[&keys, &cli, &bedrock()]), Ruling::Inconclusive, "/usr/bin/aws ran before");
}
