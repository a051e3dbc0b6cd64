//! Conversations by HTTP, of both versions, and what precedes them.

use super::{REQUEST, RESPONSE, pieces, spoken};

/// A field of 3,000 bytes that goes into the table, and one byte for it a hundred times: more than a block may have.
pub(super) fn hpack_bomb() -> Vec<u8> {
    const FIELD_BYTES: usize = 3_000;
    let mut fields = b"\x82\x87\x84\x41\x01a\x40\x01x\x7f".to_vec();
    // The rest of the length in seven bits each (RFC 7541, 5.1).
    let rest = FIELD_BYTES - 127;
    fields.extend([(rest & 0x7f) as u8 | 0x80, (rest >> 7) as u8]);
    fields.extend([b'v'; FIELD_BYTES]);
    fields.extend([0xbe; 100]);
    fields
}

/// As [`write`](super::write) says it, three times: with an answer that is cut, and a piece that is lost.
pub(super) fn lost() -> Vec<u8> {
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
pub(super) fn proxies() -> Vec<(&'static str, Vec<u8>)> {
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

/// A request and its response, by RFC 7541's static table.
pub(super) fn http2() -> Vec<u8> {
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
