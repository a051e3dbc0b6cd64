//! The ClientHello of TLS (RFC 8446, 4.1.2), as it stands in TLS records or in QUIC.

use std::fmt::Write as _;

use super::{Cursor, Reading, host_name, printable};
use crate::record::schema::FirstBytes;

/// A longer ClientHello is not read. With two post-quantum key shares it has less than 4 KiB.
pub const HELLO_MAX_BYTES: usize = 16 * 1024;
/// Application protocols kept of a list.
const ALPN_MAX: usize = 16;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// RFC 8446, 5.1.
const RECORD_MAX_BYTES: u16 = 1 << 14;

mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    pub(super) const ALPN: u16 = 16;
    /// RFC 9849, and its drafts from 13 on.
    pub(super) const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
    /// Earlier drafts of it, and its forerunner that encrypts the server name only.
    pub(super) const EARLIER_ENCRYPTED: [u16; 6] = [0xfe08, 0xfe09, 0xfe0a, 0xfe0b, 0xfe0c, 0xffce];
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    pub sni: Option<String>,
    pub alpn: Vec<String>,
    /// Random bytes in that place (GREASE) look the same on purpose, so this says "may be".
    pub encrypted_hello: bool,
    /// Hexadecimal.
    pub client_random: String,
}

impl ClientHello {
    pub fn first_bytes(self, quic: bool) -> FirstBytes {
        let ClientHello { sni, alpn, encrypted_hello, client_random } = self;
        FirstBytes::Tls { sni, alpn, encrypted_hello, client_random, quic }
    }
}

/// The ClientHello at the beginning of a stream of TLS records; it may be split over several.
pub fn in_records(bytes: &[u8]) -> Reading<ClientHello> {
    let (mut records, mut hello) = (Cursor(bytes), Vec::new());
    while let Some(content) = records.u8() {
        if content != HANDSHAKE_RECORD {
            return if hello.is_empty() {
                Reading::No
            } else {
                Reading::Bad("another record came before the ClientHello was complete".into())
            };
        }
        let Some(major) = records.u8() else { break };
        let Some(minor) = records.u8() else { break };
        if major != 3 || minor > 4 {
            return if hello.is_empty() {
                Reading::No
            } else {
                Reading::Bad("a TLS record of no known version".into())
            };
        }
        let Some(len) = records.u16() else { break };
        if len == 0 || len > RECORD_MAX_BYTES {
            return Reading::Bad(format!("a TLS record of {len} bytes"));
        }
        let there = usize::from(len).min(records.0.len());
        hello.extend(records.take(there).unwrap_or_default());
        let reading = in_handshake(&hello);
        if reading != Reading::Partial || there < usize::from(len) {
            return reading;
        }
    }
    Reading::Partial
}

/// The ClientHello at the beginning of handshake messages.
pub fn in_handshake(bytes: &[u8]) -> Reading<ClientHello> {
    let mut message = Cursor(bytes);
    let Some(kind) = message.u8() else { return Reading::Partial };
    if kind != CLIENT_HELLO {
        return Reading::Bad(format!("a TLS handshake that begins with message {kind}"));
    }
    let Some(len) = message.u24() else { return Reading::Partial };
    if len > HELLO_MAX_BYTES {
        return Reading::Bad(format!("a ClientHello of {len} bytes"));
    }
    match message.take(len) {
        None => Reading::Partial,
        Some(body) => hello(body).map_or_else(|why| Reading::Bad(why.into()), Reading::Done),
    }
}

fn hello(body: &[u8]) -> Result<ClientHello, &'static str> {
    const CUT: &str = "a ClientHello whose lengths do not add up";
    const RANDOM_BYTES: usize = 32;
    let mut body = Cursor(body);
    let _version = body.u16().ok_or(CUT)?;
    let random = body.take(RANDOM_BYTES).ok_or(CUT)?;
    let _session = body.vector8().ok_or(CUT)?;
    let _cipher_suites = body.vector16().ok_or(CUT)?;
    let _compression = body.vector8().ok_or(CUT)?;
    let mut hello = ClientHello {
        sni: None,
        alpn: Vec::new(),
        encrypted_hello: false,
        client_random: random.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }),
    };
    if body.is_empty() {
        return Ok(hello);
    }
    let mut extensions = body.vector16().ok_or(CUT)?;
    if !body.is_empty() {
        return Err(CUT);
    }
    let mut has_alpn = false;
    while !extensions.is_empty() {
        let of = extensions.u16().ok_or(CUT)?;
        let mut data = extensions.vector16().ok_or(CUT)?;
        match of {
            extension::SERVER_NAME if hello.sni.is_some() => {
                return Err("a ClientHello with two server names");
            }
            extension::SERVER_NAME => hello.sni = Some(server_name(data)?),
            extension::ALPN if has_alpn => return Err("a ClientHello with two lists of protocols"),
            extension::ALPN => {
                has_alpn = true;
                let mut list = data.vector16().ok_or(CUT)?;
                while !list.is_empty() {
                    let protocol = list.vector8().ok_or(CUT)?;
                    if hello.alpn.len() < ALPN_MAX {
                        hello.alpn.push(printable(protocol.0));
                    }
                }
            }
            // 1 is the inner hello, which hides nothing.
            extension::ENCRYPTED_CLIENT_HELLO => hello.encrypted_hello |= data.u8() != Some(1),
            _ if extension::EARLIER_ENCRYPTED.contains(&of) => hello.encrypted_hello = true,
            _ => {}
        }
    }
    Ok(hello)
}

/// RFC 6066, 3: a list, of which only names of hosts were ever defined, and one of them at most.
fn server_name(mut data: Cursor<'_>) -> Result<String, &'static str> {
    const BAD: &str = "a ClientHello whose server name is not valid";
    let mut list = data.vector16().ok_or(BAD)?;
    let kind = list.u8().ok_or(BAD)?;
    let name = list.vector16().ok_or(BAD)?;
    if kind != 0 || name.is_empty() || !list.is_empty() || !data.is_empty() {
        return Err(BAD);
    }
    Ok(host_name(name.0))
}
