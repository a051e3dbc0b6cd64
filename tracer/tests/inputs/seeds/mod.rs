//! Valid inputs, from which hostile ones are made.

use std::{fs, io::Cursor, path::Path};

use super::{made, targets::Shared};
use tracer::record::{Reader, Record, Writer};

mod broker;
mod calls;
mod network;
mod ring;

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

fn spoken(how: u8, bytes: &[u8]) -> Vec<u8> {
    [&[how][..], bytes].concat()
}

/// Writes a seed for each target, or several.
pub(crate) fn write(corpus: &Path) {
    let read = |path: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let recording = read("tests/golden/reports/hostile.jsonl");
    let short = read("tests/golden/recordings/v4/inconclusive.jsonl");
    let short: Vec<&[u8]> = short.split_inclusive(|byte| *byte == b'\n').collect();
    let proven = read("tests/golden/recordings/v4/proven.jsonl");
    let seeds: Vec<(&str, &str, Vec<u8>)> = vec![
        ("ring", "session", ring::session()),
        ("ring", "every-kind", ring::every_kind()),
        ("ring", "names", ring::names()),
        ("ring", "pid-twice", ring::a_pid_twice()),
        ("ring", "late-fork", ring::a_late_fork()),
        ("quic-initial", "v1", made::QUIC_V1.to_vec()),
        ("quic-initial", "v2", made::QUIC_V2.to_vec()),
        ("conversation", "http1", pieces([spoken(0, REQUEST), spoken(1, RESPONSE)])),
        ("conversation", "http2", calls::http2()),
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
        ("dns", network::dns_messages()),
        ("client-hello", network::client_hellos()),
        ("http-head", network::http_heads()),
        ("http-calls", vec![("hpack-bomb", calls::hpack_bomb())]),
        ("conversation", vec![("lost", calls::lost())]),
        ("proxy", calls::proxies()),
        ("broker-messages", broker::broker_messages()),
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
