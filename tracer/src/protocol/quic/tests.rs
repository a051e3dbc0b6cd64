//! Packets are encrypted here with the keys of the RFCs, so that every shape can be made.

use super::*;
use crate::protocol::made;

/// A packet as a client sends it.
pub(crate) struct Made<'a> {
    pub(crate) version: &'static Version,
    pub(crate) key_from: &'a [u8],
    pub(crate) destination: &'a [u8],
    pub(crate) number: u8,
}

impl Made<'_> {
    fn seal(&self, frames: &[u8]) -> Vec<u8> {
        const TAG: usize = 16;
        let keys = Keys::derive(self.version, self.key_from).unwrap();
        let mut packet = vec![0xc0 | self.version.initial << 4];
        packet.extend(self.version.number.to_be_bytes());
        packet.push(u8::try_from(self.destination.len()).unwrap());
        packet.extend(self.destination);
        packet.extend([2, 0xaa, 0xbb, 0]);
        let len = u16::try_from(1 + frames.len() + TAG).unwrap();
        packet.extend((0x4000 | len).to_be_bytes());
        let number_at = packet.len();
        packet.push(self.number);
        let mut nonce = keys.iv;
        nonce[11] ^= self.number;
        let mut payload = frames.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        keys.key.seal_in_place_append_tag(nonce, aead::Aad::from(&packet), &mut payload).unwrap();
        packet.extend(payload);
        let mask = keys.header.new_mask(&packet[number_at + 4..number_at + 20]).unwrap();
        packet[0] ^= mask[0] & 0x0f;
        packet[number_at] ^= mask[1];
        packet
    }
}

fn crypto(offset: u16, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![6];
    frame.extend((0x4000 | offset).to_be_bytes());
    frame.extend((0x4000 | u16::try_from(bytes.len()).unwrap()).to_be_bytes());
    frame.extend(bytes);
    frame
}

const V1: Made<'_> =
    Made { version: &VERSIONS[0], key_from: b"original", destination: b"original", number: 0 };

fn sni(found: Vec<Result<ClientHello, String>>) -> Vec<String> {
    found.into_iter().map(|hello| hello.unwrap().sni.unwrap()).collect()
}

#[test]
fn keys_are_those_of_the_rfcs() {
    let destination = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let check = |version, key, iv, header| {
        let secrets = client_secrets(version, &destination).unwrap();
        assert_eq!(hex(&secrets.0), key);
        assert_eq!(hex(&secrets.1), iv);
        assert_eq!(hex(&secrets.2), header);
    };
    // RFC 9001, A.1, and RFC 9369, A.1.
    check(
        &VERSIONS[0],
        "1f369613dd76d5467730efcbe3b1a22d",
        "fa044b2f42a3fd3b46fb255c",
        "9f50449e04a0e810283a1e9933adedd2",
    );
    check(
        &VERSIONS[1],
        "8b1a0bc121284290a29e0971b5cd045d",
        "91f73e2351d8fa91660e909f",
        "45b95e15235d6f45a6b19cbcb0294ba9",
    );
}

#[test]
fn packets_of_another_implementation_are_read() {
    for datagram in [made::QUIC_V1, made::QUIC_V2] {
        let mut initials = Initials::default();
        let found = initials.add(datagram, true);
        let hello = found.into_iter().next().unwrap().unwrap();
        assert_eq!(
            (hello.sni.as_deref(), &hello.alpn[..]),
            (Some("quic.example"), &["h3".into()][..])
        );
        assert!(initials.rest().is_empty());
    }
}

#[test]
fn frames_come_in_any_order_over_several_datagrams() {
    let hello = made::hello("a.example", &[made::key_share(2200)]);
    let (first, second) = hello.split_at(700);
    let mut initials = Initials::default();
    let late = Made { number: 1, ..V1 }.seal(&[&[1, 0, 0][..], &crypto(700, second)].concat());
    assert!(initials.add(&late, true).is_empty());
    assert_eq!(initials.rest().len(), 1);
    // Small pieces, the last one first, as Chromium does.
    let mut frames = Vec::new();
    for (index, piece) in first.chunks(100).enumerate().rev() {
        frames.extend(crypto(u16::try_from(index * 100).unwrap(), piece));
    }
    // The server has given another connection id by then; the keys stay.
    let early = Made { destination: b"theirs", number: 2, ..V1 }.seal(&frames);
    assert_eq!(sni(initials.add(&early, true)), ["a.example"]);
    assert!(initials.add(&early, true).is_empty(), "it is said once");
    assert!(initials.rest().is_empty());
    assert_eq!(initials.held_bytes(), 0);
}

#[test]
fn connections_of_one_socket_are_told_apart() {
    let mut initials = Initials::default();
    let mut say = |name: &str, id: &[u8]| {
        let frames = crypto(0, &made::hello(name, &[]));
        let packet = Made { key_from: id, destination: id, ..V1 }.seal(&frames);
        initials.add(&packet, true)
    };
    assert_eq!(sni(say("a.example", b"id-of-a1")), ["a.example"]);
    assert_eq!(sni(say("b.example", b"id-of-b1")), ["b.example"]);
    for index in 2..CONNECTIONS_MAX {
        assert_eq!(say("more.example", format!("id-{index:05}").as_bytes()).len(), 1);
    }
    assert!(say("last.example", b"too many")[0].as_ref().is_err_and(|why| why.contains("more")));
    assert!(say("last.example", b"too much").is_empty(), "complaints come once");
}

#[test]
fn what_cannot_be_read_says_why() {
    let why = |datagram: &[u8], whole| match Initials::default().add(datagram, whole).as_slice() {
        [Err(why)] => why.clone(),
        other => panic!("{other:?}"),
    };
    let packet = V1.seal(&crypto(0, &made::hello("a.example", &[])));
    assert!(why(&packet[..60], true).contains("shorter than it says"));
    assert!(why(&packet[..60], false).contains("the capture cut"));
    let mut damaged = packet.clone();
    damaged[50] ^= 1;
    assert!(why(&damaged, true).contains("does not decrypt"));
    let mut version = packet;
    version[1] = 0xff;
    assert!(why(&version, true).contains("QUIC version 0xff000001"));
    assert!(why(&V1.seal(&[0x1e; 40]), true).contains("unknown frames"));
    assert!(why(&V1.seal(&crypto(0, &[2; 40])), true).contains("begins with message 2"));
    let too_far = crypto(0x3fff, &[0; 40]);
    assert!(why(&V1.seal(&too_far), true).contains("more handshake bytes"));
}
