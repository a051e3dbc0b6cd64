//! Messages of DNS, of TLS and of HTTP, of one kind each.

use super::{super::made, REQUEST};

pub(super) fn dns_messages() -> Vec<(&'static str, Vec<u8>)> {
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

pub(super) fn client_hellos() -> Vec<(&'static str, Vec<u8>)> {
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
        ("openssl", made::OPENSSL.to_vec()),
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

pub(super) fn http_heads() -> Vec<(&'static str, Vec<u8>)> {
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
