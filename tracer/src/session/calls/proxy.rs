//! What connections begin with that go through a proxy, and in front of what is meant for the other end.

/// The longest line of version 1 of the PROXY protocol.
const LINE_MAX_BYTES: usize = 107;
/// Version 2 begins with this; a version, an address family and a length follow.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LENGTH_AT: usize = SIGNATURE.len() + 2;
/// A longer name of SOCKS 4 is none.
const NAME_MAX_BYTES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing of a proxy.
    Nothing,
    /// It may be one: more bytes will tell.
    More,
    /// So many bytes of the client and of the server.
    Bytes(usize, usize),
    /// A way of speaking to a proxy that is not read.
    Unread,
}

/// The header of the PROXY protocol: one line, or one of binary fields.
pub(super) fn header(bytes: &[u8]) -> Found {
    const LINE: &[u8] = b"PROXY ";
    if bytes.is_empty() {
        return Found::Nothing;
    }
    if LINE.starts_with(bytes) || SIGNATURE.starts_with(bytes) {
        return Found::More;
    }
    if let Some(rest) = bytes.strip_prefix(LINE) {
        let is_known = [&b"TCP4 "[..], b"TCP6 ", b"UNKNOWN"].iter().any(|kind| {
            let there = kind.len().min(rest.len());
            rest[..there] == kind[..there]
        });
        return match memchr::memchr(b'\n', bytes) {
            Some(end) if is_known && end < LINE_MAX_BYTES => Found::Bytes(end + 1, 0),
            None if is_known && bytes.len() < LINE_MAX_BYTES => Found::More,
            Some(_) | None => Found::Nothing,
        };
    }
    if !bytes.starts_with(SIGNATURE) {
        return Found::Nothing;
    }
    let Some(length) = bytes.get(LENGTH_AT..).and_then(|rest| rest.first_chunk()) else {
        return Found::More;
    };
    let all = LENGTH_AT + length.len() + usize::from(u16::from_be_bytes(*length));
    if bytes.len() >= all { Found::Bytes(all, 0) } else { Found::More }
}

/// What both ends of SOCKS say until the other end is reached.
pub(super) fn socks(client: &[u8], server: &[u8]) -> Found {
    let (mut client, mut server) = (Cursor::new(client), Cursor::new(server));
    let result = match client.bytes.first() {
        Some(5) => socks5(&mut client, &mut server),
        Some(4) => socks4(&mut client, &mut server),
        Some(_) | None => Err(Found::Nothing),
    };
    result.map_or_else(|found| found, |()| Found::Bytes(client.at, server.at))
}

/// RFC 1928.
fn socks5<'a>(client: &mut Cursor<'a>, server: &mut Cursor<'a>) -> Result<(), Found> {
    const NONE: u8 = 0;
    const PASSWORD: u8 = 2;
    const NOT_ANY: u8 = 0xff;
    let [_, methods] = client.array()?;
    client.skip(methods.into())?;
    let [version, method] = server.array()?;
    match (version, method) {
        (5, NONE) => {}
        (5, PASSWORD) => {
            // RFC 1929.
            let [_, name] = client.array()?;
            client.skip(name.into())?;
            let [password] = client.array()?;
            client.skip(password.into())?;
            server.skip(2)?;
        }
        (5, NOT_ANY) => return Err(Found::Nothing),
        (5, _) => return Err(Found::Unread),
        _ => return Err(Found::Nothing),
    }
    const CONNECT: u8 = 1;
    const SUCCEEDED: u8 = 0;
    for (end, expected) in [(client, CONNECT), (server, SUCCEEDED)] {
        let [version, code, _, kind] = end.array()?;
        if (version, code) != (5, expected) {
            return Err(Found::Nothing);
        }
        let address = match kind {
            1 => 4,
            3 => end.array::<1>()?[0].into(),
            4 => 16,
            _ => return Err(Found::Nothing),
        };
        end.skip(address + size_of::<u16>())?;
    }
    Ok(())
}

/// Version 4, and 4a with a name instead of an address.
fn socks4(client: &mut Cursor<'_>, server: &mut Cursor<'_>) -> Result<(), Found> {
    const CONNECT: u8 = 1;
    const GRANTED: u8 = 90;
    let [_, command, _, _, address @ ..] = client.array::<8>()?;
    if command != CONNECT {
        return Err(Found::Nothing);
    }
    client.skip_name()?;
    if address.starts_with(&[0; 3]) {
        client.skip_name()?;
    }
    let [version, code, ..] = server.array::<8>()?;
    if (version, code) == (0, GRANTED) { Ok(()) } else { Err(Found::Nothing) }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Found> {
        let array = *self.rest().first_chunk().ok_or(Found::More)?;
        self.at += N;
        Ok(array)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Found> {
        let there = self.rest().len() >= bytes;
        self.at += bytes;
        if there { Ok(()) } else { Err(Found::More) }
    }

    /// One that ends with a zero.
    fn skip_name(&mut self) -> Result<(), Found> {
        let rest = self.rest();
        match memchr::memchr(0, &rest[..rest.len().min(NAME_MAX_BYTES + 1)]) {
            Some(end) => self.skip(end + 1),
            None if rest.len() > NAME_MAX_BYTES => Err(Found::Nothing),
            None => Err(Found::More),
        }
    }
}
