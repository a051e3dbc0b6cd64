//! Valid inputs, from which hostile ones are made.

use std::{fs, path::Path};

use tracer_ebpf::abi::{
    AF_INET, Close, Connect, ConnectResult, Datagram, Exec, Exit, Flow, Fork, Header, Kind,
    Payload, Root, SocketAddress, TlsBegin, TlsData, TlsEnd,
};
use zerocopy::{Immutable, IntoBytes};

const HELLO: &[u8] = include_bytes!("../corpus/hello-openssl.bin");
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
    let seeds: Vec<(&str, &str, Vec<u8>)> = vec![
        ("ring", "session", ring()),
        ("dns", "answer", dns()),
        ("client-hello", "openssl", HELLO.to_vec()),
        ("quic-initial", "v1", read("tests/corpus/quic-v1.bin")),
        ("quic-initial", "v2", read("tests/corpus/quic-v2.bin")),
        ("http-head", "post", REQUEST.to_vec()),
        ("conversation", "http1", pieces([spoken(0, REQUEST), spoken(1, RESPONSE)])),
        ("conversation", "http2", http2()),
        ("hosts-file", "usual", b"127.0.0.1\tlocalhost # own\n::1 ip6-localhost a.b\n".to_vec()),
        ("recording", "inconclusive", short.concat()),
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
    for (target, name, bytes) in seeds {
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

/// An answer with an alias, compressed names and both kinds of addresses.
fn dns() -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 3, 0, 0, 0, 0];
    message.extend(b"\x01a\x07example\0\0\x01\0\x01");
    message.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01b\xc0\x0e");
    message.extend(b"\xc0\x25\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
    message.extend(b"\xc0\x25\0\x1c\0\x01\0\0\0\x3c\0\x10\x20\x01\x0d\xb8");
    message.extend([0; 12]);
    message
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

/// A process that executes something, connects, says its hello and a request, sends a datagram, ends.
fn ring() -> Vec<u8> {
    let header = |kind: Kind, time_ns: u64| Header {
        kind: kind as u32,
        time_ns,
        tgid: 7,
        start_ns: 1,
        tid: 7,
        ..Header::default()
    };
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

fn of(fixed: &(impl IntoBytes + Immutable), rest: &[u8]) -> Vec<u8> {
    [fixed.as_bytes(), rest].concat()
}
