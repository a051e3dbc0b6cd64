//! Valid inputs, from which hostile ones are made.

use std::{fs, io::Cursor, path::Path};

use tracer::record::{Reader, Record, Writer};
use tracer_ebpf::abi::{
    AF_INET, ArgvChunk, Attempt, CgroupMove, Close, Connect, ConnectResult, Datagram, Exec, Exit,
    Flow, ForeignSend, Fork, Header, Intrusion, Kind, LocalSend, OddSocket, Payload, Resolve, Root,
    SocketAddress, TlsBegin, TlsData, TlsEnd,
};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use super::{
    made::{self, OPENSSL as HELLO},
    targets::Shared,
};

const REQUEST: &[u8] = b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: api.example:443\r\n\
    Authorization: Bearer x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
    12\r\n{\"model\":\"m-1\"}\r\n\r\n0\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\
    x-request-id: r1\r\n\r\nok";

/// As [`super::targets`] cuts them.
pub(crate) fn pieces(all: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in all {
        bytes.extend(u16::try_from(piece.len()).unwrap().to_le_bytes());
        bytes.extend(piece);
    }
    bytes
}

/// Writes a seed for each target, or several.
pub(crate) fn write(corpus: &Path) {
    let read = |path: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let recording = read("tests/golden/reports/hostile.jsonl");
    let short = read("tests/golden/recordings/v4/inconclusive.jsonl");
    let short: Vec<&[u8]> = short.split_inclusive(|byte| *byte == b'\n').collect();
    let proven = read("tests/golden/recordings/v4/proven.jsonl");
    let seeds: Vec<(&str, &str, Vec<u8>)> = vec![
        ("ring", "session", ring()),
        ("ring", "every-kind", ring_of_every_kind()),
        ("ring", "names", ring_of_names()),
        ("ring", "pid-twice", ring_of_a_pid_twice()),
        ("ring", "late-fork", ring_of_a_late_fork()),
        ("quic-initial", "v1", made::QUIC_V1.to_vec()),
        ("quic-initial", "v2", made::QUIC_V2.to_vec()),
        ("conversation", "http1", pieces([spoken(0, REQUEST), spoken(1, RESPONSE)])),
        ("conversation", "http2", http2()),
        ("hosts-file", "usual", b"127.0.0.1\tlocalhost # own\n::1 ip6-localhost a.b\n".to_vec()),
        ("recording", "inconclusive", short.concat()),
        ("recording", "proven", small(&proven, None).concat()),
        ("parts", "one", pieces([small(&proven, None).concat()])),
        ("parts", "lines", pieces(small(&proven, Some(1_000)))),
        ("parts", "cut-lines", in_pieces_of(&small(&proven, Some(1_000)).concat(), 999)),
        ("parts", "missing", {
            let mut files = small(&proven, Some(1_000));
            files[2].clear();
            pieces(files)
        }),
        ("records", "first-lines", short[..12].concat()),
        ("records", "every-type", one_of_each_type(&recording)),
        ("policy-file", "no-aws-cli", read("policies/no-aws-cli.toml")),
        ("policy-file", "no-shell-outs", read("policies/no-shell-outs.toml")),
        ("policy-file", "no-telemetry", read("policies/no-telemetry.toml")),
        ("policy-file", "endpoints", endpoints_policy()),
        ("catalogue-file", "calls", read("src/catalogue/calls.toml")),
        ("catalogue-file", "handoffs", read("src/catalogue/handoffs.toml")),
        ("catalogue-file", "programs", read("src/catalogue/programs.toml")),
        ("catalogue-file", "tls", read("src/catalogue/tls.toml")),
        ("key-file", "openssh", read("tests/golden/keys/openssh")),
        ("key-file", "openssh-public", read("tests/golden/keys/openssh.pub")),
        ("key-file", "pkcs8", read("tests/golden/keys/pkcs8.pem")),
        ("key-file", "spki", read("tests/golden/keys/spki.pem")),
    ];
    let more = [
        ("dns", dns_messages()),
        ("client-hello", client_hellos()),
        ("http-head", http_heads()),
        ("http-calls", vec![("hpack-bomb", hpack_bomb())]),
        ("conversation", vec![("lost", lost())]),
        ("proxy", proxies()),
        ("broker-messages", broker_messages()),
    ];
    let more = more.into_iter().flat_map(|(target, seeds)| {
        seeds.into_iter().map(move |(name, bytes)| (target, name, bytes))
    });
    for (target, name, bytes) in seeds.into_iter().chain(more) {
        fs::create_dir_all(corpus.join(target)).unwrap();
        fs::write(corpus.join(target).join(name), bytes).unwrap();
    }
}

fn one_of_each_type(recording: &[u8]) -> Vec<u8> {
    let mut seen = std::collections::BTreeSet::new();
    let is_new = |line: &&[u8]| {
        let record: serde_json::Value = serde_json::from_slice(line).unwrap();
        seen.insert(record["type"].to_string())
    };
    let lines = recording.split_inclusive(|byte| *byte == b'\n');
    lines.filter(is_new).collect::<Vec<_>>().concat()
}

fn endpoints_policy() -> Vec<u8> {
    b"name = \"p\"\nsurvivors = \"allow\"\n[[claim]]\nkind = \"connects-only-to\"\n\
      endpoints = [\"service:bedrock-runtime\", \"**.example.com:443\", \"10.0.0.0/8\"]\n\
      [[claim]]\nkind = \"never-connects-to\"\nendpoints = [\"class:telemetry\"]\n\
      elsewhere = [\"127.0.0.0/8\"]\n[[claim]]\nkind = \"runs-only\"\nprograms = [\"@command\", \"/bin/a\"]\n"
        .to_vec()
}

/// Lines of a recording, without what no claim is about: whole, and with digests of their own.
fn small(recording: &[u8], part_bytes: Option<u64>) -> Vec<Vec<u8>> {
    let source = Cursor::new(recording.to_vec());
    let mut reader = Reader::new(source, "recording".into(), false).unwrap();
    let mut start = reader.start().clone();
    start.part_bytes = part_bytes;
    start.host.kernel = "6.12.0".into();
    start.host.boot_id = "00000000-0000-4000-8000-000000000000".into();
    (start.endpoints, start.credentials) = (None, None);
    start.mcp_servers.clear();
    for sensor in &mut start.sensors {
        sensor.cannot_see.clear();
    }
    let mut records = vec![Record::Start(Box::new(start))];
    while let Some(record) = reader.next_event().unwrap() {
        if !matches!(record, Record::Mapped(_)) {
            records.push(record);
        }
    }
    let mut end = reader.finish().unwrap().end.unwrap();
    end.verdict = None;
    records.push(Record::End(Box::new(end)));
    let file = Shared::default();
    let mut writer = Writer::new(Box::new(file.clone()));
    for record in &records {
        writer.write(record).unwrap();
    }
    writer.flush().unwrap();
    file.take().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn in_pieces_of(bytes: &[u8], size: usize) -> Vec<u8> {
    pieces(bytes.chunks(size).map(<[u8]>::to_vec))
}

/// Of one kind each.
fn dns_messages() -> Vec<(&'static str, Vec<u8>)> {
    let mut compressed = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 3, 0, 0, 0, 0];
    compressed.extend(b"\x01a\x07example\0\0\x01\0\x01");
    compressed.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01b\xc0\x0e");
    compressed.extend(b"\xc0\x25\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
    compressed.extend(b"\xc0\x25\0\x1c\0\x01\0\0\0\x3c\0\x10\x20\x01\x0d\xb8");
    compressed.extend([0; 12]);
    let edns = |mut message: Vec<u8>| {
        message[11] = 1; // one additional record
        // A cookie (RFC 7873) in an OPT of the root.
        message.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x0812345678");
        message
    };
    let question = edns(made::question(7, "api.example.com", made::AAAA));
    let alias = |of: &str, to: &str| made::record(Some(of), made::CNAME, &made::dns_name(to));
    let address = |of: &str| made::record(Some(of), made::A, &[192, 0, 2, 1]);
    let name = "a.example";
    let chain = [
        address("c.example"),
        alias("b.example", "c.example"),
        made::record(None, made::CNAME, &made::dns_name("b.example")),
        address("elsewhere.example"),
    ];
    let ring = [alias(name, "b.example"), alias("b.example", name)];
    let chain = made::answer(8, name, made::A, &chain);
    let hints = b"\0\x01\0\0\x01\0\x03\x02h3\0\x04\0\x08\xc0\0\x02\x01\xc0\0\x02\x02\
        \0\x06\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";
    let service = made::record(None, made::HTTPS, hints);
    let mut forward = made::answer(9, name, made::A, &[address(name)]);
    forward.extend([0xc0, 0x0c]);
    forward[23] = 0; // as if the name ended here
    let long = [&[b'a'; 63][..]; 4].join(&63);
    let framed = [&question, &chain, &compressed]
        .into_iter()
        .flat_map(|message| [&(message.len() as u16).to_be_bytes()[..], message].concat())
        .collect();
    vec![
        ("answer", compressed),
        ("question-edns", question),
        ("answer-edns", edns(made::answer(7, name, made::A, &[address(name)]))),
        ("alias-chain", chain.clone()),
        ("alias-ring", made::answer(8, name, made::A, &ring)),
        ("service", made::answer(8, name, made::HTTPS, &[service])),
        ("truncated", made::message(8, 0x8380, name, made::A, &[address(name)])),
        ("no-such-name", made::message(8, 0x8183, name, made::A, &[])),
        ("cut", chain[..chain.len() - 20].to_vec()),
        ("behind-the-end", forward),
        ("label-of-63", [&chain[..12], &[63], &long[..], &[0, 0, 1, 0, 1]].concat()),
        ("stream", framed),
    ]
}

fn client_hellos() -> Vec<(&'static str, Vec<u8>)> {
    // RFC 8701, as Chrome has it: an extension without and one with a byte, and a share of a key.
    let grease = [
        made::extension(0x3a3a, &[]),
        made::alpn(&["h2", "http/1.1"]),
        made::extension(51, b"\0\x05\x0a\x0a\0\x01\0"),
        made::extension(0x8a8a, &[0]),
    ];
    // RFC 9849: outer, with HKDF-SHA256 and AES-128-GCM.
    let outer = [&b"\0\0\x01\0\x01\x09\0\x20"[..], &[5; 32], b"\0\x40", &[6; 64]].concat();
    let encrypted = made::extension(0xfe0d, &outer);
    let large = made::hello("pq.example", &[made::key_share(1_216), made::alpn(&["h3"])]);
    let mut two_messages = made::hello("a.example", &[]);
    two_messages.extend([2, 0, 0, 0]);
    let whole = |message: Vec<u8>| made::records(&message, 16_000);
    vec![
        ("openssl", HELLO.to_vec()),
        ("grease", whole(made::hello("a.example", &grease))),
        ("without-name", whole(made::bare_hello(&[made::alpn(&["http/1.1"])]))),
        ("encrypted", whole(made::hello("public.example", std::slice::from_ref(&encrypted)))),
        ("encrypted-inner", whole(made::hello("a.example", &[made::extension(0xfe0d, &[1])]))),
        ("fragmented", made::records(&large, 300)),
        ("byte-by-byte", made::records(&made::hello("a.example", &[]), 1)),
        ("bare", large),
        ("more-behind-it", whole(two_messages)),
        ("two-names", whole(made::hello("a.example", &[made::server_name("b.example")]))),
        ("address", whole(made::hello("192.0.2.1", &[]))),
        ("alert-between", {
            let mut records = made::records(&made::hello("a.example", &[]), 20);
            records.splice(25..25, [21, 3, 3, 0, 2, 1, 0]);
            records
        }),
    ]
}

fn http_heads() -> Vec<(&'static str, Vec<u8>)> {
    let heads: [(&str, &[u8]); 12] = [
        ("post", REQUEST),
        ("absolute", b"GET http://u:p@a.example:8080/x?y#z HTTP/1.1\r\nHost: b.example\r\n\r\n"),
        ("connect", b"CONNECT a.example:443 HTTP/1.1\r\nHost: b.example\r\n\r\n\x16\x03\x01"),
        ("asterisk", b"OPTIONS * HTTP/1.1\r\nHost: A.Example.\r\n\r\n"),
        ("version-6", b"GET / HTTP/1.1\r\nHost: [2001:DB8::1]:443\r\n\r\n"),
        ("folded", b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\tc\r\nHost: a.example\r\n\r\n"),
        ("white-space", b"\r\nGET  / HTTP/1.1 \r\nHost :\ta.example \t\r\n\r\n"),
        ("white-space-in-fields", b"GET / HTTP/1.1\r\nHost:\t  a.example \t \r\nA:\r\n\r\n"),
        ("line-feeds", b"GET / HTTP/1.0\nhOST:a.example\n\nGET / HTTP/1.0\n\n"),
        ("two-hosts", b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n"),
        ("other-bytes", b"M-SEARCH /\xc3\xa9 HTTP/1.1\r\nHost: a<b\xe9\r\nA: \x80\xff\r\n\r\n"),
        ("preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ];
    heads.map(|(name, head)| (name, head.to_vec())).into()
}

/// A field of 3,000 bytes that goes into the table, and one byte for it a hundred times: more than a block may have.
fn hpack_bomb() -> Vec<u8> {
    const FIELD_BYTES: usize = 3_000;
    let mut fields = b"\x82\x87\x84\x41\x01a\x40\x01x\x7f".to_vec();
    // The rest of the length in seven bits each (RFC 7541, 5.1).
    let rest = FIELD_BYTES - 127;
    fields.extend([(rest & 0x7f) as u8 | 0x80, (rest >> 7) as u8]);
    fields.extend([b'v'; FIELD_BYTES]);
    fields.extend([0xbe; 100]);
    fields
}

/// As [`http1`](write) says it, three times: with an answer that is cut, and a piece that is lost.
fn lost() -> Vec<u8> {
    let short = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    pieces([
        spoken(0, short),
        spoken(1, RESPONSE),
        spoken(0, &[REQUEST, short].concat()),
        spoken(1 | 4, RESPONSE),
        spoken(1, RESPONSE),
        spoken(2, REQUEST),
        spoken(1, RESPONSE),
    ])
}

/// The two versions of the PROXY protocol, and SOCKS in its versions, each before a call.
fn proxies() -> Vec<(&'static str, Vec<u8>)> {
    let before = |say: &[(u8, &[u8])]| {
        let call: [(u8, &[u8]); 2] = [(0, REQUEST), (1, RESPONSE)];
        pieces(say.iter().chain(&call).map(|(how, bytes)| spoken(*how, bytes)))
    };
    let reached = b"\x05\0\0\x01\x7f\0\0\x01\x01\xbb";
    vec![
        ("line", before(&[(0, b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n")])),
        ("line-unknown", before(&[(0, b"PROXY UNKNOWN\r\n")])),
        (
            "binary",
            before(&[(
                0,
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x01\xc0\0\x02\x02\xdc\x04\x01\xbb\
                  \x01\0\x02h2",
            )]),
        ),
        ("binary-local", before(&[(0, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")])),
        (
            "socks5-name",
            before(&[
                (0, b"\x05\x01\0"),
                (1, b"\x05\0"),
                (0, b"\x05\x01\0\x03\x09a.example\x01\xbb"),
                (1, reached),
            ]),
        ),
        (
            "socks5-password",
            before(&[
                (0, b"\x05\x02\0\x02"),
                (1, b"\x05\x02"),
                (0, b"\x01\x01u\x01p"),
                (1, b"\x01\0"),
                (0, b"\x05\x01\0\x01\xc0\0\x02\x01\0\x50"),
                (1, reached),
            ]),
        ),
        ("socks5-other-way", before(&[(0, b"\x05\x01\x01"), (1, b"\x05\x01")])),
        ("socks5-refused", before(&[(0, b"\x05\x01\0"), (1, b"\x05\xff")])),
        (
            "socks4",
            before(&[(0, b"\x04\x01\x01\xbb\xc0\0\x02\x01u\0"), (1, b"\0\x5a\0\0\0\0\0\0")]),
        ),
        (
            "socks4a",
            before(&[(0, b"\x04\x01\x01\xbb\0\0\0\x01u\0a.example\0"), (1, b"\0\x5a\0\0\0\0\0\0")]),
        ),
    ]
}

/// What tracer asks its broker for, and what that says.
fn broker_messages() -> Vec<(&'static str, Vec<u8>)> {
    let packets = |packets: &[(u8, &str)]| {
        pieces(packets.iter().map(|(beside, text)| spoken(*beside, text.as_bytes())))
    };
    let requests = [
        (0, r#"{"descriptors":0,"body":{"MakeCgroup":{"below":null}}}"#),
        (1, r#"{"descriptors":1,"body":"Canary"}"#),
        (
            1,
            r#"{"descriptors":1,"body":{"Launch":{"counts_execs":true,"maps_bytes":4096,"maps_at_once":false}}}"#,
        ),
        (0, r#"{"descriptors":0,"body":{"Ended":{"child":1}}}"#),
        (0, r#"{"descriptors":0,"body":{"Signal":{"child":1,"signal":-15}}}"#),
        (0, r#"{"descriptors":0,"body":{"Part":{"number":4294967295}}}"#),
        (0, r#"{"descriptors":0,"body":{"Open":{"path":"/etc/hosts"}}}"#),
        (1, r#"{"descriptors":1,"body":"Read"}"#),
        (
            2,
            r#"{"descriptors":2,"body":{"Break":{"offsets":[0,18446744073709551615],"cookie":1,"at_return":true,"together":false}}}"#,
        ),
        (2, r#"{"descriptors":2,"body":{"Mark":{"mask":134217728}}}"#),
        (0, r#"{"descriptors":0,"body":"Finish"}"#),
    ];
    let replies = [
        (0, r#"{"descriptors":0,"body":"Done"}"#),
        (0, r#"{"descriptors":0,"body":{"Cgroup":{"path":"/sys/fs/cgroup/a"}}}"#),
        (
            3,
            r#"{"descriptors":3,"body":{"Started":{"child":0,"witness":{"Ok":null},"maps":{"Err":"none"}}}}"#,
        ),
        (
            0,
            r#"{"descriptors":0,"body":{"NotStarted":{"NotStarted":{"errno":13,"why":"denied"}}}}"#,
        ),
        (0, r#"{"descriptors":0,"body":{"Ended":{"status":256}}}"#),
        (1, r#"{"descriptors":1,"body":"Opened"}"#),
        (0, r#"{"descriptors":0,"body":{"Failed":{"errno":null,"why":"\u001b[2J"}}}"#),
    ];
    vec![
        ("requests", packets(&requests)),
        ("replies", packets(&replies)),
        (
            "in-several-packets",
            packets(&[(7, r#"{"descriptors":12,"body":"CloseLater"}"#), (0, "+"), (5, "+")]),
        ),
        ("never-all", packets(&[(1, r#"{"descriptors":16384,"body":"CloseLater"}"#), (7, "+")])),
        ("too-many", packets(&[(1, r#"{"descriptors":16385,"body":"CloseLater"}"#)])),
        ("empty", packets(&[(0, ""), (0, r#"{"descriptors":0,"body":"Finish"}"#)])),
    ]
}

fn spoken(how: u8, bytes: &[u8]) -> Vec<u8> {
    [&[how][..], bytes].concat()
}

/// A request and its response, by RFC 7541's static table.
fn http2() -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u32, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
    };
    let fields = b"\x82\x87\x84\x41\x09a.example\x40\x09x-request\x01r";
    let client = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, b"\0\x03\0\0\0\x64"),
        frame(1, 0x4, 1, fields),
        frame(0, 0x1, 1, b"{}"),
    ];
    let server = [
        frame(4, 0, 0, b""),
        frame(1, 0, 1, b"\x88"),
        frame(9, 0x4, 1, b"\x5f\x09text/html"),
        frame(0, 0x1, 1, b"ok"),
    ];
    pieces([spoken(0, &client.concat()), spoken(1, &server.concat())])
}

fn header(kind: Kind, time_ns: u64) -> Header {
    Header { kind: kind as u32, time_ns, tgid: 7, start_ns: 1, tid: 7, ..Header::default() }
}

/// A process that executes something, connects, says its hello and a request, sends a datagram, ends.
fn ring() -> Vec<u8> {
    let flow = Flow { cookie: 5, address: [9; 16], port: 443, protocol: 6, padding: 0 };
    let address = SocketAddress { family: AF_INET, destination_port: 443, ..Default::default() };
    let payload = |at: u64, bytes: &[u8]| {
        let fixed = Payload {
            header: header(Kind::Payload, at),
            flow,
            connection: 3,
            offset_bytes: 0,
            wire_bytes: bytes.len() as u32,
            len: bytes.len() as u32,
            incoming: 0,
            padding: 0,
        };
        of(&fixed, bytes)
    };
    let tls = |received: u32, bytes: &[u8]| {
        let fixed = TlsData {
            header: header(Kind::TlsData, 20),
            stream: 1,
            offset_bytes: 0,
            began_ns: 19,
            length_bytes: bytes.len() as u64,
            len: bytes.len() as u32,
            received,
        };
        of(&fixed, bytes)
    };
    let exec = Exec {
        header: header(Kind::Exec, 3),
        argv_len: 8,
        argc: 2,
        filename_len: 6,
        path_len: 7,
        cwd_len: 2,
        argv_inline_len: 8,
        ..Exec::default()
    };
    pieces([
        of(&Root { header: header(Kind::Root, 1), ns_pid: 7, parent_tgid: 1 }, b""),
        of(&Fork { header: header(Kind::Fork, 2), child_tgid: 8, ..Fork::default() }, b""),
        of(&exec, b"bin/a\0a\0bin\0\0/\0a\0x y z\0"),
        of(&Connect { header: header(Kind::Connect, 4), id: 3, cookie: 5, address }, b""),
        of(
            &ConnectResult {
                header: header(Kind::ConnectResult, 5),
                id: 3,
                cookie: 5,
                address,
                established: 1,
                ..ConnectResult::default()
            },
            b"",
        ),
        payload(6, HELLO),
        of(&TlsBegin { header: header(Kind::TlsBegin, 18), stream: 1, ..TlsBegin::default() }, b""),
        tls(0, REQUEST),
        tls(1, RESPONSE),
        of(&TlsEnd { header: header(Kind::TlsEnd, 21), stream: 1, bytes: [200, 90] }, b""),
        of(&Close { header: header(Kind::Close, 22), id: 3, ..Close::default() }, b""),
        of(
            &Datagram {
                header: header(Kind::Datagram, 23),
                flow,
                via: 1,
                net_ns_inum: 1,
                unspecified: 0,
                padding: 0,
            },
            b"",
        ),
        of(&Exit { header: header(Kind::Exit, 24), wait_status: 0, execs: 1 }, b""),
    ])
}

/// A record of each kind, as large as its fixed part is, and most of it zeros.
fn ring_of_every_kind() -> Vec<u8> {
    fn zeros<T: FromZeros + IntoBytes + Immutable>() -> Vec<u8> {
        T::new_zeroed().as_bytes().to_vec()
    }
    pieces((0..).zip(Kind::ALL).map(|(number, kind)| {
        let mut record = match kind {
            Kind::Root => zeros::<Root>(),
            Kind::Fork => zeros::<Fork>(),
            Kind::Exec => zeros::<Exec>(),
            Kind::ArgvChunk => zeros::<ArgvChunk>(),
            Kind::Exit => zeros::<Exit>(),
            Kind::Connect => zeros::<Connect>(),
            Kind::ConnectResult => zeros::<ConnectResult>(),
            Kind::Close => zeros::<Close>(),
            Kind::Attempt => zeros::<Attempt>(),
            Kind::LocalSend => zeros::<LocalSend>(),
            Kind::Intrusion => zeros::<Intrusion>(),
            Kind::Datagram => zeros::<Datagram>(),
            Kind::OddSocket => zeros::<OddSocket>(),
            Kind::CgroupMove => zeros::<CgroupMove>(),
            Kind::Payload => zeros::<Payload>(),
            Kind::ForeignSend => zeros::<ForeignSend>(),
            Kind::Resolve => zeros::<Resolve>(),
            Kind::TlsData => zeros::<TlsData>(),
            Kind::TlsBegin => zeros::<TlsBegin>(),
            Kind::TlsEnd => zeros::<TlsEnd>(),
        };
        let header = header(*kind, number);
        record[..size_of::<Header>()].copy_from_slice(header.as_bytes());
        record
    }))
}

/// A question and its answer over UDP, over TCP in two pieces, and a first packet of QUIC.
fn ring_of_names() -> Vec<u8> {
    let question = made::question(1, "a.example", made::A);
    let address = made::record(None, made::A, &[192, 0, 2, 1]);
    let answer = made::answer(1, "a.example", made::A, &[address]);
    let framed = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
    let piece = |at: u64, to: (u16, u16, u64), offset_bytes: u64, incoming: u32, bytes: &[u8]| {
        let (port, protocol, cookie) = to;
        let fixed = Payload {
            header: header(Kind::Payload, at),
            flow: Flow { cookie, address: [9; 16], port, protocol, padding: 0 },
            connection: if protocol == 6 { cookie } else { 0 },
            offset_bytes,
            wire_bytes: bytes.len() as u32,
            len: bytes.len() as u32,
            incoming,
            padding: 0,
        };
        of(&fixed, bytes)
    };
    let (udp, tcp, quic) = ((53, 17, 1), (53, 6, 2), (443, 17, 3));
    pieces([
        of(&Root { header: header(Kind::Root, 1), ns_pid: 7, parent_tgid: 1 }, b""),
        piece(2, udp, 0, 0, &question),
        piece(3, udp, 0, 1, &answer),
        piece(4, tcp, 20, 1, &framed[20..]),
        piece(5, tcp, 0, 1, &framed[..20]),
        piece(6, quic, 0, 0, made::QUIC_V1),
    ])
}

fn fork_of(child_tgid: u32, child_start_ns: u64, at_ns: u64) -> Vec<u8> {
    let header = header(Kind::Fork, at_ns);
    of(&Fork { header, child_tgid, child_start_ns, ..Fork::default() }, b"")
}

fn exit_of(tgid: u32, start_ns: u64, at_ns: u64) -> Vec<u8> {
    let header = Header { tgid, start_ns, tid: tgid, ..header(Kind::Exit, at_ns) };
    of(&Exit { header, wait_status: 9, execs: 0 }, b"")
}

/// A number of a process that another process gets after it.
fn ring_of_a_pid_twice() -> Vec<u8> {
    pieces([
        of(&Root { header: header(Kind::Root, 1), ns_pid: 7, parent_tgid: 1 }, b""),
        fork_of(8, 2, 2),
        exit_of(8, 2, 3),
        fork_of(8, 4, 4),
        exit_of(8, 4, 5),
        exit_of(7, 1, 6),
    ])
}

/// What a process did comes before that it was forked, as it can from the rings of two processors.
fn ring_of_a_late_fork() -> Vec<u8> {
    let of_child = |kind, at| Header { tgid: 8, start_ns: 2, tid: 8, ..header(kind, at) };
    let connect = Connect {
        header: of_child(Kind::Connect, 4),
        id: 3,
        cookie: 5,
        address: SocketAddress { family: AF_INET, destination_port: 443, ..Default::default() },
    };
    let exec = Exec {
        header: of_child(Kind::Exec, 3),
        argv_len: 9_000,
        argc: 2,
        filename_len: 6,
        argv_inline_len: 8,
        argv_chunks: 1,
        ..Exec::default()
    };
    let mut chunk = ArgvChunk::new_zeroed();
    (chunk.header, chunk.offset_bytes, chunk.len) = (of_child(Kind::ArgvChunk, 3), 4_096, 100);
    pieces([
        of(&Root { header: header(Kind::Root, 1), ns_pid: 7, parent_tgid: 1 }, b""),
        of(&chunk, b""),
        of(&exec, b"bin/a\0a\0b c d\0"),
        of(&connect, b""),
        exit_of(8, 2, 5),
        fork_of(8, 2, 2),
        exit_of(7, 1, 6),
    ])
}

fn of(fixed: &(impl IntoBytes + Immutable), rest: &[u8]) -> Vec<u8> {
    [fixed.as_bytes(), rest].concat()
}
