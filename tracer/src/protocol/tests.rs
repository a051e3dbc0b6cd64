//! What the readers make of right, cut, and hostile bytes.

use proptest::prelude::*;

use super::{Reading, dns, hosts::Hosts, http, made, pieces::Pieces, quic::Initials, tls};
use crate::record::schema::{DnsMessage, DnsRecord};

fn answer(bytes: &[u8]) -> (String, String, Vec<DnsRecord>, bool) {
    let message = dns::message(bytes, true);
    let DnsMessage::Answer { name, code, records, truncated, .. } = message else {
        panic!("{message:?}");
    };
    (name, code, records, truncated)
}

fn malformed(bytes: &[u8]) -> String {
    let message = dns::message(bytes, true);
    let DnsMessage::Malformed { why } = message else { panic!("{message:?}") };
    why
}

#[test]
fn dns_questions_and_answers() {
    let question = dns::message(&made::question(7, "Api.Example.COM", made::AAAA), true);
    let expected =
        DnsMessage::Question { id: 7, name: "api.example.com".into(), of: "AAAA".into() };
    assert_eq!(question, expected);

    let records = [
        made::record(None, made::CNAME, &made::dns_name("edge.example.net")),
        made::record(Some("edge.example.net"), made::A, &[10, 0, 0, 1]),
        made::record(Some("edge.example.net"), made::AAAA, &[1; 16]),
        made::record(Some("edge.example.net"), 16, b"\x05hello"),
        made::record(Some("other.example"), made::A, &[10, 0, 0, 9]),
    ];
    let (name, code, found, truncated) =
        answer(&made::answer(7, "api.example.com", made::A, &records));
    assert_eq!((name.as_str(), code.as_str(), truncated), ("api.example.com", "NOERROR", false));
    let data: Vec<&str> = found.iter().map(|record| record.data.as_str()).collect();
    assert_eq!(
        data,
        ["edge.example.net", "10.0.0.1", "101:101:101:101:101:101:101:101", "", "10.0.0.9"]
    );
    assert_eq!(
        (found[0].name.as_str(), found[0].ttl_s, found[3].of.as_str()),
        ("api.example.com", 60, "TXT")
    );
    let given = dns::given(&name, &found);
    assert_eq!(given.addresses.len(), 2, "the record of another name gives nothing");
    assert_eq!(given.aliases, ["edge.example.net"]);

    let refused = made::message(1, 0x8183, "no.example", made::A, &[]);
    assert_eq!(answer(&refused).1, "NXDOMAIN");
    assert!(answer(&made::message(1, 0x8380, "big.example", made::A, &[])).3);
}

#[test]
fn dns_https_records() {
    let mut data = vec![0, 1];
    data.extend(made::dns_name(""));
    data.extend([0, 1, 0, 3, 2, b'h', b'3']);
    data.extend([0, 4, 0, 8, 10, 0, 0, 1, 10, 0, 0, 2]);
    data.extend([0, 6, 0, 16]);
    data.extend([0xfd; 16]);
    let records = [made::record(None, made::HTTPS, &data)];
    let found = answer(&made::answer(1, "a.example", made::HTTPS, &records)).2;
    let expected = "a.example 10.0.0.1 10.0.0.2 fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd";
    assert_eq!(found[0].data, expected);
    let given = dns::given("a.example", &found);
    assert_eq!((given.addresses.len(), given.aliases.len()), (3, 0));

    let alias = [&[0, 0][..], &made::dns_name("pool.example")].concat();
    let records = [made::record(None, made::HTTPS, &alias)];
    let found = answer(&made::answer(1, "a.example", made::HTTPS, &records)).2;
    assert_eq!(dns::given("a.example", &found).aliases, ["pool.example"]);
}

#[test]
fn dns_names_show_every_byte() {
    let bytes = made::question(1, "a b.<x>\u{202e}.example", made::A);
    let DnsMessage::Question { name, .. } = dns::message(&bytes, true) else { panic!() };
    assert_eq!(name, r"a\032b.\060x\062\226\128\174.example");
    let DnsMessage::Question { name, .. } = dns::message(&made::question(1, "", 2), true) else {
        panic!()
    };
    assert_eq!(name, ".");
}

#[test]
fn hostile_dns() {
    let header = |questions: u16, answers: u16| {
        let fields = [1u16, 0x8180, questions, answers, 0, 0];
        fields.iter().flat_map(|field| field.to_be_bytes()).collect::<Vec<u8>>()
    };
    assert!(malformed(b"").contains("shorter"));
    assert!(malformed(&header(1, 0)[..11]).contains("shorter"));
    assert!(malformed(&header(0, 0)).contains("not one question"));
    assert!(malformed(&header(9, 0)).contains("not one question"));
    assert!(malformed(&made::message(1, 0x2800, "a.example", 1, &[])).contains("operation"));
    let no_name = "the question has no valid name";
    let with = |name: &[u8]| [&header(1, 0)[..], name, &[0, 1, 0, 1]].concat();
    assert_eq!(malformed(&with(&[0xc0, 12])), no_name, "a pointer to itself");
    assert_eq!(malformed(&with(&[0xc0, 14, 0xc0, 12])), no_name, "two pointers to each other");
    assert_eq!(malformed(&with(&[1, b'a', 0xc0, 12])), no_name, "a label that repeats itself");
    assert_eq!(malformed(&with(&[0x80, 1, 0])), no_name, "a kind of label that does not exist");
    assert_eq!(malformed(&with(&[63])), no_name, "a label that is cut");
    assert_eq!(malformed(&with(&[[1, b'a']; 128].concat())), no_name, "257 bytes");
    let short = made::record(None, made::A, &[1, 2, 3]);
    assert!(malformed(&made::answer(1, "a.example", 1, &[short])).contains("not valid"));
    let outside = made::record(None, made::CNAME, &[0xff]);
    assert!(malformed(&made::answer(1, "a.example", 1, &[outside])).contains("not valid"));

    // As long as a message can be, each record with the longest name there is.
    let long = format!("{0}.{0}.{0}.{1}", "\u{1}".repeat(63), "\u{1}".repeat(61));
    let records: Vec<Vec<u8>> =
        (0..4000).map(|_| made::record(None, made::CNAME, &[0xc0, 12])).collect();
    let (_, _, found, truncated) = answer(&made::answer(1, &long, made::CNAME, &records));
    assert!(truncated);
    let text: usize = found.iter().map(|record| record.name.len() + record.data.len()).sum();
    assert!(text <= dns::TEXT_MAX_BYTES + 2 * 4 * 255, "{text}");
    assert!(found.len() <= dns::RECORDS_MAX);

    // A loop of aliases ends.
    let alias = |of: &str, to: &str| made::record(Some(of), made::CNAME, &made::dns_name(to));
    let records = [alias("a", "b"), alias("b", "c"), alias("c", "a")];
    let found = answer(&made::answer(1, "a", made::A, &records)).2;
    assert_eq!(dns::given("a", &found).aliases, ["b", "c"]);
}

#[test]
fn dns_over_tcp() {
    let message = made::question(1, "a.example", made::A);
    let frame = [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat();
    let stream = [&frame[..], &frame, &frame[..9]].concat();
    assert_eq!(dns::framed(&stream), (vec![&message[..], &message], 2 * frame.len()));
    assert_eq!(dns::framed(b"\0"), (vec![], 0));
}

fn done<T: std::fmt::Debug>(reading: Reading<T>) -> T {
    let Reading::Done(done) = reading else { panic!("{reading:?}") };
    done
}

/// It is of the protocol and cannot be read, with this word in the reason.
fn refused<T: std::fmt::Debug>(reading: Reading<T>, word: &str) {
    let Reading::Bad(why) = reading else { panic!("{word}: {reading:?}") };
    assert!(why.contains(word), "{why}");
}

fn head(bytes: &str) -> (String, Option<String>) {
    let head = done(http::head(bytes.as_bytes()));
    (head.method, head.host)
}

#[test]
fn http_heads() {
    let check = |text: &str, method: &str, host: Option<&str>| {
        assert_eq!(head(text), (method.to_owned(), host.map(str::to_owned)), "{text:?}");
    };
    check("GET / HTTP/1.1\r\nA: b\r\nhOST: Api.Example.:8080\r\n\r\n", "GET", Some("api.example"));
    check("GET / HTTP/1.0\r\n\r\n", "GET", None);
    check("GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET", None);
    check("GET http://a.example/x HTTP/1.1\r\nHost: b.example\r\n\r\n", "GET", Some("a.example"));
    check("GET http://u@a.example:1?b HTTP/1.1\r\n\r\n", "GET", Some("a.example"));
    check("GET /http://b.example HTTP/1.1\r\nHost: a\r\n\r\n", "GET", Some("a"));
    check("CONNECT a.example:443 HTTP/1.1\r\nHost: b\r\n\r\n", "CONNECT", Some("a.example"));
    check("M-SEARCH * HTTP/1.1\r\nHost: [FD00::1]:80\r\n\r\n", "M-SEARCH", Some("[fd00::1]"));
    check("GET / HTTP/1.1\r\nHost: a<b\u{e9}\r\n\r\n", "GET", Some(r"a\060b\195\169"));
}

#[test]
fn http_that_is_none() {
    let no = |bytes: &str| assert_eq!(http::head(bytes.as_bytes()), Reading::No, "{bytes:?}");
    no("");
    no("SSH-2.0-OpenSSH_9.2\r\n");
    no("EHLO a.example\r\n");
    no("\0\0\0\x08\x04");
    no("*1\r\n$4\r\nPING\r\n");
    no(" / HTTP/1.1\r\n\r\n");
    let bad = |bytes: &str, word| refused(http::head(bytes.as_bytes()), word);
    bad("GET / FTP/1.1\r\n\r\n", "begins like");
    bad("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "two Host");
    bad("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxx", "HTTP/2");
    bad(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(129)), "too many headers");
    assert_eq!(http::head(b"GET / HTTP/1.1\r\nHost: a"), Reading::Partial);
    assert!(http::looks_like(b"GET /") && !http::looks_like(b"GETX /") && !http::looks_like(b"G"));
}

fn sni(bytes: &[u8]) -> Option<String> {
    done(tls::in_records(bytes)).sni
}

#[test]
fn client_hellos() {
    let hello = done(tls::in_records(made::OPENSSL));
    assert_eq!(hello.sni.as_deref(), Some("api.example.com"));
    assert_eq!(hello.alpn, ["h2", "http/1.1"]);
    assert!(!hello.encrypted_hello && hello.client_random.len() == 64);

    let pq = made::hello("pq.example", &[made::key_share(1216 + 65), made::alpn(&["h\0"])]);
    for each in [1, 5, 200, 1400, 4096] {
        assert_eq!(sni(&made::records(&pq, each)).as_deref(), Some("pq.example"), "{each}");
    }
    assert_eq!(sni(&made::records(&made::bare_hello(&[]), 4096)), None);
    let upper = made::records(&made::hello("A.Example.", &[]), 4096);
    assert_eq!(sni(&upper).as_deref(), Some("a.example"));
}

#[test]
fn encrypted_hellos_are_told() {
    let is_encrypted = |extension: Vec<u8>| {
        let bytes = made::records(&made::hello("public.example", &[extension]), 4096);
        done(tls::in_records(&bytes)).encrypted_hello
    };
    assert!(is_encrypted(made::extension(0xfe0d, &[0; 40])));
    assert!(!is_encrypted(made::extension(0xfe0d, &[1])), "the inner one hides nothing");
    assert!(is_encrypted(made::extension(0xffce, &[9; 40])));
    assert!(!is_encrypted(made::extension(0x0a0a, &[9; 40])));
}

#[test]
fn hostile_hellos() {
    let bad = |bytes: &[u8], word| refused(tls::in_records(bytes), word);
    let hello = |extensions: &[Vec<u8>]| made::records(&made::bare_hello(extensions), 4096);
    let name = made::server_name("a.example");
    bad(&hello(&[name.clone(), name]), "two server names");
    let list = made::alpn(&["h2"]);
    bad(&hello(&[list.clone(), list]), "two lists");
    bad(&hello(&[made::extension(0, &[])]), "server name is not valid");
    bad(&hello(&[made::extension(0, &[0, 3, 0, 0, 0])]), "server name is not valid");
    bad(&hello(&[made::extension(0, &[0, 4, 1, 0, 1, b'a'])]), "server name is not valid");
    bad(&hello(&[made::extension(0, &[0, 4, 0, 0, 9, b'a'])]), "server name is not valid");
    bad(&hello(&[vec![0, 0, 0xff, 0xff]]), "lengths");
    bad(&[22, 3, 1, 0, 0], "record of 0 bytes");
    bad(&[22, 3, 1, 0xff, 0xff], "record of 65535 bytes");
    bad(&[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff], "16777215 bytes");
    bad(&[22, 3, 1, 0, 4, 2, 0, 0, 1], "begins with message 2");
    bad(&[22, 3, 1, 0, 4, 1, 0, 1, 0, 21, 3, 1, 0, 2], "another record");
    bad(&[22, 3, 1, 0, 4, 1, 0, 1, 0, 22, 9, 9], "no known version");
    for other in [&b"GET / HTTP/1.1"[..], &[22, 9], &[0x80, 0x2e, 1, 3, 1]] {
        let reading = tls::in_records(other);
        assert!(matches!(reading, Reading::No | Reading::Partial), "{reading:?}");
    }
}

#[test]
fn hosts_files() {
    let text = b"127.0.0.1 localhost Localhost. # 10.0.0.1 no\n\
        \t::ffff:127.0.0.1\tmapped\n10.0.0.2\nno address\n10.0.0.3 a\xff\n10.0.0.3 b\r";
    let hosts = Hosts::parse(text);
    let names = |address: &str| hosts.names(address.parse().unwrap()).to_vec();
    assert_eq!(names("127.0.0.1"), ["localhost", "mapped"]);
    assert_eq!(names("10.0.0.1"), [""; 0]);
    assert_eq!(names("10.0.0.2"), [""; 0]);
    assert_eq!(names("10.0.0.3"), [r"a\255", "b"]);
    let many = (0..1000).map(|n| format!("0.0.0.0 ad-{n}.example\n")).collect::<String>();
    assert_eq!(Hosts::parse(many.as_bytes()).names([0; 4].into()).len(), 64);
}

#[test]
fn pieces_in_any_order() {
    let mut pieces = Pieces::new(10);
    assert!(!pieces.add(4, b"ef"));
    assert!(pieces.has_hole());
    assert!(pieces.add(0, b"abc"));
    assert!(!pieces.add(1, b"XX"), "what came first counts");
    assert!(pieces.add(2, b"Xd"));
    assert_eq!(pieces.beginning(), b"abcdef");
    assert!(!pieces.has_hole() && !pieces.is_full());
    assert!(pieces.add(6, b"ghijkl"));
    assert_eq!(pieces.beginning(), b"abcdefghij");
    assert!(pieces.is_full());
    let mut far = Pieces::new(10);
    far.add(u64::MAX, b"x");
    far.add(1, &[0; 11]);
    assert!(far.is_full() && far.held_bytes() == 0);
}

/// Every reader on the same bytes: none may panic, and what comes out is bounded.
fn read_everything(bytes: &[u8]) {
    for whole in [true, false] {
        if let DnsMessage::Answer { name, records, .. } = dns::message(bytes, whole) {
            let text: usize = records.iter().map(|it| it.name.len() + it.data.len()).sum();
            // The last record may be one with hints in all its bytes.
            assert!(
                text <= 2 * dns::TEXT_MAX_BYTES + 4 * 255 * 2 + 40
                    && records.len() <= dns::RECORDS_MAX
            );
            let given = dns::given(&name, &records);
            assert!(given.aliases.len() <= records.len());
        }
        let mut initials = Initials::default();
        initials.add(bytes, whole);
        initials.rest();
    }
    let (messages, taken) = dns::framed(bytes);
    assert!(taken <= bytes.len() && messages.len() <= bytes.len() / 2);
    tls::in_handshake(bytes);
    if let Reading::Done(hello) = tls::in_records(bytes) {
        assert!(hello.sni.is_none_or(|name| name.len() <= 4 * tls::HELLO_MAX_BYTES));
    }
    if let Reading::Done(head) = http::head(bytes) {
        assert!(head.bytes <= bytes.len());
    }
    http::looks_like(bytes);
    Hosts::parse(bytes);
}

/// Valid messages of all protocols.
fn valid() -> Vec<Vec<u8>> {
    let records = [
        made::record(None, made::CNAME, &made::dns_name("edge.example.net")),
        made::record(Some("edge.example.net"), made::A, &[10, 0, 0, 1]),
        made::record(None, made::HTTPS, &[0, 1, 0, 0, 4, 0, 4, 1, 2, 3, 4]),
    ];
    vec![
        made::question(1, "api.example.com", made::A),
        made::answer(1, "api.example.com", made::A, &records),
        made::OPENSSL.to_vec(),
        made::records(&made::hello("a.example", &[made::key_share(1216)]), 300),
        made::QUIC_V1.to_vec(),
        made::QUIC_V2.to_vec(),
        b"GET http://a.example/ HTTP/1.1\r\nHost: b.example:80\r\nAccept: */*\r\n\r\n".to_vec(),
    ]
}

#[test]
fn messages_cut_at_every_byte() {
    for message in valid() {
        for end in 0..=message.len() {
            read_everything(&message[..end]);
        }
    }
    let hello = made::records(&made::hello("a.example", &[]), 20);
    for end in 0..hello.len() {
        assert_eq!(tls::in_records(&hello[..end]), Reading::Partial, "{end}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        read_everything(&bytes);
    }

    /// Random bytes seldom get beyond the first check; changed messages do.
    #[test]
    fn changed_messages_are_harmless(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let messages = valid();
        let mut message = which.get(&messages).clone();
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        read_everything(&message);
        read_everything(&message[..cut.index(message.len())]);
    }

    /// However a stream is cut and shuffled, the same bytes come out.
    #[test]
    fn pieces_give_the_stream_back(
        stream in proptest::collection::vec(any::<u8>(), 1..400),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 1usize..80), 0..30),
    ) {
        let (mut pieces, mut narrow) = (Pieces::new(8000), Pieces::new(100));
        for (at, len) in cuts {
            let at = at.index(stream.len());
            let piece = &stream[at..(at + len).min(stream.len())];
            pieces.add(at as u64, piece);
            narrow.add(at as u64, piece);
            prop_assert!(narrow.held_bytes() <= 200);
        }
        prop_assert!(stream.starts_with(pieces.beginning()));
        for (index, piece) in stream.chunks(7).enumerate().rev() {
            pieces.add(index as u64 * 7, piece);
        }
        prop_assert_eq!(pieces.beginning(), &stream[..]);
    }
}
