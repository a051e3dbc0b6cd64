//! Messages for tests: real ones from other implementations, and made-up ones of every shape.

/// First datagram of aioquic 1.7, versions 1 and 2 of QUIC.
pub(crate) const QUIC_V1: &[u8] = include_bytes!("../../tests/corpus/quic-v1.bin");
pub(crate) const QUIC_V2: &[u8] = include_bytes!("../../tests/corpus/quic-v2.bin");
/// What Python's ssl sends with OpenSSL.
pub(crate) const OPENSSL: &[u8] = include_bytes!("../../tests/corpus/hello-openssl.bin");

fn be16(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap().to_be_bytes()
}

pub(crate) fn extension(of: u16, data: &[u8]) -> Vec<u8> {
    [&of.to_be_bytes()[..], &be16(data.len()), data].concat()
}

/// As large as a post-quantum one, for example.
pub(crate) fn key_share(len: usize) -> Vec<u8> {
    extension(51, &vec![7; len])
}

pub(crate) fn server_name(name: &str) -> Vec<u8> {
    let list = [&[0][..], &be16(name.len()), name.as_bytes()].concat();
    extension(0, &[&be16(list.len())[..], &list].concat())
}

pub(crate) fn alpn(protocols: &[&str]) -> Vec<u8> {
    let mut list = Vec::new();
    for protocol in protocols {
        list.push(u8::try_from(protocol.len()).unwrap());
        list.extend(protocol.as_bytes());
    }
    extension(16, &[&be16(list.len())[..], &list].concat())
}

/// A ClientHello message with these extensions only.
pub(crate) fn bare_hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions = extensions.concat();
    let body = [
        &[3, 3][..],
        &[0xcd; 32],
        &[0],
        &[0, 2, 0x13, 1],
        &[1, 0],
        &be16(extensions.len()),
        &extensions,
    ]
    .concat();
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1][..], &len[1..], &body].concat()
}

pub(crate) fn hello(name: &str, more: &[Vec<u8>]) -> Vec<u8> {
    bare_hello(&[&[server_name(name)][..], more].concat())
}

/// In TLS records of so many bytes at most.
pub(crate) fn records(message: &[u8], each: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for fragment in message.chunks(each) {
        bytes.extend([22, 3, 1]);
        bytes.extend(be16(fragment.len()));
        bytes.extend(fragment);
    }
    bytes
}

/// A name in DNS.
pub(crate) fn dns_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const AAAA: u16 = 28;
pub(crate) const HTTPS: u16 = 65;

pub(crate) fn question(id: u16, name: &str, of: u16) -> Vec<u8> {
    message(id, 0x0100, name, of, &[])
}

pub(crate) fn answer(id: u16, name: &str, of: u16, records: &[Vec<u8>]) -> Vec<u8> {
    message(id, 0x8180, name, of, records)
}

pub(crate) fn message(id: u16, flags: u16, name: &str, of: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [id, flags, 1, u16::try_from(records.len()).unwrap(), 0, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(dns_name(name));
    bytes.extend([&of.to_be_bytes()[..], &[0, 1]].concat());
    bytes.extend(records.concat());
    bytes
}

/// A record whose owner is the question's name, by a pointer to it, or another.
pub(crate) fn record(owner: Option<&str>, of: u16, data: &[u8]) -> Vec<u8> {
    let owner = owner.map_or(vec![0xc0, 12], dns_name);
    let fixed = [&of.to_be_bytes()[..], &[0, 1], &60u32.to_be_bytes()].concat();
    [owner, fixed, be16(data.len()).to_vec(), data.to_vec()].concat()
}
