//! Compressed fields of HTTP/2 (RFC 7541), within bounds.
//!
//! The decoder is a crate's. It sets up a table for each string that is compressed, and fields that
//! refer to its dynamic table cost one byte and give many, so what is handed to it is counted first.

use std::fmt;

use loona_hpack::Decoder;

/// Fields of one block. Servers allow about a hundred.
const FIELDS_MAX: usize = 512;
/// What both ends may agree on for the dynamic table: what browsers ask for. Node asks for 4 KiB.
const TABLE_MAX_BYTES: usize = 64 * 1024;
/// Of all fields of a block, decompressed.
const LIST_MAX_BYTES: usize = 256 * 1024;

/// Names and values.
pub(super) type List = Vec<(Vec<u8>, Vec<u8>)>;

/// The fields of one direction.
pub(super) struct Hpack(Decoder<'static>);

impl fmt::Debug for Hpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hpack").finish_non_exhaustive()
    }
}

impl Hpack {
    pub(super) fn new() -> Hpack {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(TABLE_MAX_BYTES);
        Hpack(decoder)
    }

    /// A block as a whole. After an error nothing that follows can be decoded.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<List, String> {
        let fields = count(block).ok_or("a block of fields is cut short")?;
        if fields > FIELDS_MAX {
            return Err(format!("a block has more than {FIELDS_MAX} fields"));
        }
        let (mut list, mut bytes) = (List::new(), 0);
        let decoded = self.0.decode_with_cb(block, |name, value| {
            bytes += name.len() + value.len();
            if bytes <= LIST_MAX_BYTES {
                list.push((name.into_owned(), value.into_owned()));
            }
        });
        decoded.map_err(|error| format!("a block of fields is not valid: {error}"))?;
        if bytes > LIST_MAX_BYTES {
            return Err(format!("the fields of a block have more than {LIST_MAX_BYTES} bytes"));
        }
        Ok(list)
    }
}

/// How many representations a block has (RFC 7541, 6), if it ends with the last of them.
fn count(block: &[u8]) -> Option<usize> {
    let (mut rest, mut fields) = (block, 0);
    while let Some(first) = rest.first() {
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40..=0x7f => (6, true),
            0x20..=0x3f => (5, false),
            0..=0x1f => (4, true),
        };
        let index = integer(&mut rest, prefix)?;
        if literal {
            if index == 0 {
                string(&mut rest)?;
            }
            string(&mut rest)?;
        }
        fields += 1;
    }
    Some(fields)
}

/// RFC 7541, 5.1.
fn integer(rest: &mut &[u8], prefix: u32) -> Option<u64> {
    const BYTES_MAX: u32 = 5;
    let (first, mut after) = rest.split_first()?;
    let mask = (1u64 << prefix) - 1;
    let mut value = u64::from(*first) & mask;
    if value == mask {
        for shift in 0.. {
            let (byte, next) = after.split_first().filter(|_| shift < BYTES_MAX)?;
            after = next;
            value += u64::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = after;
    Some(value)
}

fn string(rest: &mut &[u8]) -> Option<()> {
    let len = usize::try_from(integer(rest, 7)?).ok()?;
    *rest = rest.get(len..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7541, C.4: three requests, compressed, with what they put into the table.
        let blocks: [&[u8]; 3] = [
            &[
                0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab,
                0x90, 0xf4, 0xff,
            ],
            &[0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf],
            &[
                0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f,
                0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf,
            ],
        ];
        let mut hpack = Hpack::new();
        let mut lists = Vec::new();
        for block in blocks {
            let list = hpack.decode(block).unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let list: Vec<String> = list
                .iter()
                .map(|(name, value)| format!("{}={}", text(name), text(value)))
                .collect();
            lists.push(list.join(" "));
        }
        assert_eq!(
            lists,
            [
                ":method=GET :scheme=http :path=/ :authority=www.example.com",
                ":method=GET :scheme=http :path=/ :authority=www.example.com cache-control=no-cache",
                ":method=GET :scheme=https :path=/index.html :authority=www.example.com \
                 custom-key=custom-value",
            ]
        );
    }

    #[test]
    fn bombs_are_refused() {
        let check = |block: &[u8], expected: &str| {
            let error = Hpack::new().decode(block).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&[0x82; FIELDS_MAX + 1], "more than 512 fields");
        // One large field, and references to it.
        let large = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'b'; 4000]].concat();
        assert_eq!(count(&large), Some(1));
        check(&[&large[..], &[0xbe; 100]].concat(), "bytes");
        check(&[0x3f, 0xff, 0xff, 0xff, 0x7f, 0x82], "not valid");
        for cut in [&[0x40][..], &[0x40, 5, b'a'], &[0xff], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]] {
            check(cut, "cut short");
        }
    }
}
