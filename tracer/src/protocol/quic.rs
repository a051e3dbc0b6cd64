//! The ClientHello in QUIC's Initial packets (RFC 9000, 9001; version 2: RFC 9369).
//!
//! Initial packets are encrypted with keys that anybody can derive: from a number of the packet's own
//! and a published salt.

use std::fmt;

use ring::{aead, hkdf};

use super::{
    Cursor, Reading,
    pieces::Pieces,
    tls::{self, ClientHello},
};

/// Connections that are told apart between one socket and one destination.
const CONNECTIONS_MAX: usize = 16;
/// RFC 9000, 17.2.
const CONNECTION_ID_MAX_BYTES: usize = 20;
const LONG_HEADER: u8 = 0x80;

struct Version {
    number: u32,
    salt: [u8; 20],
    /// Bits 4 and 5 of the first byte.
    initial: u8,
    key: &'static [u8],
    iv: &'static [u8],
    header: &'static [u8],
}

const VERSIONS: [Version; 2] = [
    // RFC 9001, 5.2.
    Version {
        number: 1,
        salt: [
            0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8,
            0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a,
        ],
        initial: 0b00,
        key: b"tls13 quic key",
        iv: b"tls13 quic iv",
        header: b"tls13 quic hp",
    },
    // RFC 9369, 3.
    Version {
        number: 0x6b33_43cf,
        salt: [
            0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26,
            0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9,
        ],
        initial: 0b01,
        key: b"tls13 quicv2 key",
        iv: b"tls13 quicv2 iv",
        header: b"tls13 quicv2 hp",
    },
];

/// What one socket sends to one destination.
#[derive(Debug, Default)]
pub struct Initials {
    connections: Vec<Connection>,
    /// Something could not be read, and that was said.
    complained: bool,
}

#[derive(Debug)]
struct Connection {
    version: u32,
    /// The sender's own connection id, the same in all its Initial packets.
    source: Vec<u8>,
    keys: Keys,
    /// Its handshake messages; none once the ClientHello was there.
    crypto: Option<Pieces>,
}

impl Initials {
    /// Adds a datagram. Returns each ClientHello that it completes, or why there will be none.
    pub fn add(&mut self, datagram: &[u8], whole: bool) -> Vec<Result<ClientHello, String>> {
        let mut found = Vec::new();
        let mut rest = datagram;
        // Packets that share a datagram follow each other.
        while let Some(&first) = rest.first() {
            if first & LONG_HEADER == 0 {
                break;
            }
            match Packet::split(&mut rest) {
                Ok(Some(packet)) => found.extend(self.packet(&packet)),
                Ok(None) => {}
                Err(why) => {
                    let why = if whole { why } else { "the capture cut a QUIC packet".into() };
                    found.extend(self.complain(why));
                    break;
                }
            }
        }
        found
    }

    /// What is still missing at the end.
    pub fn rest(&self) -> Vec<String> {
        let open = self.connections.iter().filter(|connection| connection.crypto.is_some());
        open.map(|_| "the ClientHello in QUIC packets was not complete".into()).collect()
    }

    /// Bytes kept.
    pub fn held_bytes(&self) -> usize {
        self.connections
            .iter()
            .filter_map(|connection| connection.crypto.as_ref())
            .map(Pieces::held_bytes)
            .sum()
    }

    fn complain(&mut self, why: String) -> Option<Result<ClientHello, String>> {
        (!std::mem::replace(&mut self.complained, true)).then_some(Err(why))
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Option<Result<ClientHello, String>> {
        let known = |connection: &&mut Connection| {
            connection.version == packet.version.number && connection.source == packet.source
        };
        // The keys stay as the first packet had them, although the server gives other numbers.
        for connection in self.connections.iter_mut().filter(known) {
            if let Some(frames) = connection.keys.open(packet) {
                return connection.frames(&frames);
            }
        }
        let keys = Keys::derive(packet.version, packet.destination)?;
        let Some(frames) = keys.open(packet) else {
            // An answer to a Retry is the only other thing, and begins anew: its keys fit.
            return self.complain("a QUIC Initial packet that does not decrypt".into());
        };
        if self.connections.len() == CONNECTIONS_MAX {
            return self.complain(format!(
                "more than {CONNECTIONS_MAX} QUIC connections of one socket to one destination"
            ));
        }
        let connection = self.connections.push_mut(Connection {
            version: packet.version.number,
            source: packet.source.to_vec(),
            keys,
            crypto: Some(Pieces::new(tls::HELLO_MAX_BYTES + 4)),
        });
        connection.frames(&frames)
    }
}

impl Connection {
    fn frames(&mut self, bytes: &[u8]) -> Option<Result<ClientHello, String>> {
        let crypto = self.crypto.as_mut()?;
        let valid = crypto_frames(bytes, crypto);
        let result = match tls::in_handshake(crypto.beginning()) {
            Reading::Done(hello) => Ok(hello),
            Reading::Bad(why) => Err(why),
            Reading::No => Err("QUIC packets without a ClientHello".into()),
            Reading::Partial if !valid => Err("a QUIC Initial packet with unknown frames".into()),
            Reading::Partial if crypto.is_full() => {
                Err("more handshake bytes in QUIC packets than tracer keeps".into())
            }
            Reading::Partial => return None,
        };
        self.crypto = None;
        Some(result)
    }
}

/// Adds the CRYPTO frames of a packet. False when it has frames that no Initial packet may have.
fn crypto_frames(bytes: &[u8], crypto: &mut Pieces) -> bool {
    let mut frames = Cursor(bytes);
    while let Some(of) = frames.u8() {
        let read = match of {
            // PADDING and PING.
            0 | 1 => Some(()),
            2 | 3 => acknowledgement(&mut frames, of == 3),
            6 => crypto_frame(&mut frames, crypto),
            // CONNECTION_CLOSE: nothing of use follows.
            0x1c => return true,
            _ => None,
        };
        if read.is_none() {
            return false;
        }
    }
    true
}

fn crypto_frame(frames: &mut Cursor<'_>, crypto: &mut Pieces) -> Option<()> {
    let offset = varint(frames)?;
    let len = usize::try_from(varint(frames)?).ok()?;
    crypto.add(offset, frames.take(len)?);
    Some(())
}

fn acknowledgement(frames: &mut Cursor<'_>, with_ecn: bool) -> Option<()> {
    let _largest = varint(frames)?;
    let _delay = varint(frames)?;
    let ranges = varint(frames)?;
    let _first = varint(frames)?;
    for _ in 0..ranges {
        let _gap = varint(frames)?;
        let _len = varint(frames)?;
    }
    for _ in 0..if with_ecn { 3 } else { 0 } {
        varint(frames)?;
    }
    Some(())
}

/// RFC 9000, 16.
fn varint(bytes: &mut Cursor<'_>) -> Option<u64> {
    let first = bytes.u8()?;
    let more = bytes.take((1 << (first >> 6)) - 1)?;
    Some(more.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
}

/// An Initial packet, still encrypted.
struct Packet<'a> {
    version: &'static Version,
    destination: &'a [u8],
    source: &'a [u8],
    /// From the first byte to the end of the payload.
    bytes: &'a [u8],
    /// Where the packet number is.
    number_at: usize,
}

impl<'a> Packet<'a> {
    /// Takes a packet with a long header off a datagram; none for other kinds than Initial.
    fn split(datagram: &mut &'a [u8]) -> Result<Option<Packet<'a>>, String> {
        const CUT: &str = "a QUIC packet that is shorter than it says";
        let whole = *datagram;
        let mut rest = Cursor(whole);
        let first = rest.u8().ok_or(CUT)?;
        let number = rest.u32().ok_or(CUT)?;
        let Some(version) = VERSIONS.iter().find(|version| version.number == number) else {
            return Err(format!("QUIC version {number:#x}"));
        };
        let destination = rest.vector8().ok_or(CUT)?.0;
        let source = rest.vector8().ok_or(CUT)?.0;
        if destination.len().max(source.len()) > CONNECTION_ID_MAX_BYTES {
            return Err("a QUIC packet with too long a connection id".into());
        }
        let kind = first >> 4 & 0b11;
        // Retry packets have no length. Clients send none.
        if kind == version.initial.wrapping_sub(1) & 0b11 {
            return Err("a QUIC Retry packet".into());
        }
        let is_initial = kind == version.initial;
        if is_initial {
            let token = usize::try_from(varint(&mut rest).ok_or(CUT)?).map_err(|_| CUT)?;
            rest.take(token).ok_or(CUT)?;
        }
        let len = usize::try_from(varint(&mut rest).ok_or(CUT)?).map_err(|_| CUT)?;
        let number_at = whole.len() - rest.0.len();
        rest.take(len).ok_or(CUT)?;
        *datagram = rest.0;
        let bytes = &whole[..number_at + len];
        Ok(is_initial.then_some(Packet { version, destination, source, bytes, number_at }))
    }
}

struct Keys {
    key: aead::LessSafeKey,
    iv: [u8; aead::NONCE_LEN],
    header: aead::quic::HeaderProtectionKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label of RFC 8446, 7.1, without a context.
fn expand<const N: usize>(secret: &hkdf::Prk, label: &[u8]) -> Option<[u8; N]> {
    let (len, label_len) = (u16::try_from(N).ok()?, u8::try_from(label.len()).ok()?);
    let info = [&len.to_be_bytes()[..], &[label_len], label, &[0]];
    let mut out = [0; N];
    secret.expand(&info, Len(N)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

/// What a client encrypts Initial packets with: key, initialisation vector, header protection.
fn client_secrets(version: &Version, destination: &[u8]) -> Option<([u8; 16], [u8; 12], [u8; 16])> {
    let initial = hkdf::Salt::new(hkdf::HKDF_SHA256, &version.salt).extract(destination);
    let client: [u8; 32] = expand(&initial, b"tls13 client in")?;
    let client = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &client);
    Some((
        expand(&client, version.key)?,
        expand(&client, version.iv)?,
        expand(&client, version.header)?,
    ))
}

impl Keys {
    fn derive(version: &Version, destination: &[u8]) -> Option<Keys> {
        let (key, iv, header) = client_secrets(version, destination)?;
        let key = aead::UnboundKey::new(&aead::AES_128_GCM, &key).ok()?;
        Some(Keys {
            key: aead::LessSafeKey::new(key),
            iv,
            header: aead::quic::HeaderProtectionKey::new(&aead::quic::AES_128, &header).ok()?,
        })
    }

    /// The frames of a packet, if these are its keys.
    fn open(&self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        const SAMPLE_AT: usize = 4;
        let at = packet.number_at;
        let sample = packet.bytes.get(at + SAMPLE_AT..)?.get(..aead::quic::AES_128.sample_len())?;
        let mask = self.header.new_mask(sample).ok()?;
        let mut bytes = packet.bytes.to_vec();
        bytes[0] ^= mask[0] & 0x0f;
        let number_len = usize::from(bytes[0] & 0b11) + 1;
        let mut nonce = self.iv;
        for (index, mask) in mask[1..=number_len].iter().enumerate() {
            bytes[at + index] ^= mask;
            nonce[aead::NONCE_LEN - number_len + index] ^= bytes[at + index];
        }
        // Numbers of Initial packets are so low that they are never sent shortened.
        let (header, payload) = bytes.split_at_mut(at + number_len);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let len = self.key.open_in_place(nonce, aead::Aad::from(&*header), payload).ok()?.len();
        Some(payload[..len].to_vec())
    }
}

#[cfg(test)]
mod tests;
