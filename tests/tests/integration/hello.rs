//! ClientHellos, byte by byte as RFC 8446, 4.1.2 has them.

/// One to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hello<'a> {
    pub(crate) name: &'a str,
    pub(crate) alpn: &'a [&'a str],
    /// With a key share of X25519MLKEM768, which alone has 1,216 bytes.
    pub(crate) post_quantum: bool,
    /// With an outer Encrypted ClientHello.
    pub(crate) encrypted: bool,
    /// How much of the message is in one TLS record.
    pub(crate) record_bytes: usize,
}

impl Default for Hello<'_> {
    fn default() -> Self {
        Hello {
            name: "bedrock-runtime.us-east-1.amazonaws.com",
            alpn: &["h2", "http/1.1"],
            post_quantum: false,
            encrypted: false,
            record_bytes: 16_384,
        }
    }
}

const RANDOM: [u8; 32] = *b"it is no secret, and not random.";

impl Hello<'_> {
    /// As recordings have it.
    pub(crate) fn random_text(&self) -> String {
        RANDOM.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        const HANDSHAKE: [u8; 3] = [22, 3, 1];
        let message = self.message();
        let records = message.chunks(self.record_bytes);
        records.flat_map(|part| [&HANDSHAKE[..], &counted(part)].concat()).collect()
    }

    fn message(&self) -> Vec<u8> {
        const CLIENT_HELLO: u8 = 1;
        let body = [
            &[3, 3][..],
            &RANDOM,
            &[32],
            &[9; 32],
            // TLS_AES_128_GCM_SHA256 and no compression.
            &[0, 2, 0x13, 0x01, 1, 0],
            &counted(&self.extensions().concat()),
        ]
        .concat();
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&[CLIENT_HELLO][..], &length[1..], &body].concat()
    }

    fn extensions(&self) -> Vec<Vec<u8>> {
        const X25519: u16 = 29;
        const X25519_MLKEM768: u16 = 0x11ec;
        let share = |group: u16, bytes: usize| {
            [&group.to_be_bytes()[..], &counted(&vec![7; bytes])].concat()
        };
        let mut shares = Vec::new();
        if self.post_quantum {
            shares.extend(share(X25519_MLKEM768, 1216));
        }
        shares.extend(share(X25519, 32));
        let protocols = self.alpn.iter().flat_map(|name| {
            let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
            [&[length][..], name.as_bytes()].concat()
        });
        let name = counted(&[&[0][..], &counted(self.name.as_bytes())].concat());
        let mut all = vec![
            // The large one comes first, so that the name is not in the first segment.
            extension(51, &counted(&shares)),
            extension(43, &[2, 3, 4]),
        ];
        if self.post_quantum {
            // Browsers' are larger than one segment of Ethernet.
            all.push(extension(21, &[0; 300]));
        }
        if self.encrypted {
            // HKDF-SHA256, AES-128-GCM, and keys that fit nothing.
            let outer = [&[0, 0, 1, 0, 1, 5][..], &counted(&[8; 32]), &counted(&[6; 144])].concat();
            all.push(extension(0xfe0d, &outer));
        }
        all.push(extension(0, &name));
        all.push(extension(16, &counted(&protocols.collect::<Vec<u8>>())));
        all
    }
}

fn extension(of: u16, data: &[u8]) -> Vec<u8> {
    [&of.to_be_bytes()[..], &counted(data)].concat()
}

/// With its length before it, in two bytes.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}
