//! Where a body of HTTP/1 ends (RFC 9112, 6 and 7).

/// A longer line of a chunked body is not read: nobody uses extensions of chunks.
const LINE_MAX_BYTES: usize = 8 * 1024;
/// Trailers of a body.
const TRAILERS_MAX_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes are to come.
    Length(u64),
    Chunked(Chunked),
    /// It ends with its connection.
    UntilClose,
}

#[derive(Debug)]
pub(super) enum Chunked {
    /// In the line with the size.
    Size(Vec<u8>),
    /// In data of which so many bytes are to come.
    Data(u64),
    /// In the end of the line behind data, of which so many bytes were seen.
    End(usize),
    /// In trailers: bytes of the line so far, of them carriage returns at its end, and of all lines.
    Trailers { line: usize, returns: usize, all: usize },
}

impl Body {
    pub(super) fn chunked() -> Body {
        Body::Chunked(Chunked::Size(Vec::new()))
    }

    /// Whether it has ended. Takes what is its own off the input and gives what is data.
    pub(super) fn read(
        &mut self,
        input: &mut &[u8],
        data: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, &'static str> {
        match self {
            Body::UntilClose => {
                data(std::mem::take(input));
                Ok(false)
            }
            Body::Length(left) => {
                data(take(input, left));
                Ok(*left == 0)
            }
            Body::Chunked(state) => {
                while !input.is_empty() {
                    if state.step(input, data)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// So many bytes were not read. Whether it has ended, if it is certain where in it they are: none
    /// of what frames it can be among them.
    pub(super) fn skip(&mut self, bytes: u64) -> Option<bool> {
        match self {
            Body::UntilClose => Some(false),
            Body::Length(left) => {
                *left = left.checked_sub(bytes)?;
                Some(*left == 0)
            }
            Body::Chunked(Chunked::Data(left)) => {
                *left = left.checked_sub(bytes)?;
                Some(false)
            }
            Body::Chunked(Chunked::Size(_) | Chunked::End(_) | Chunked::Trailers { .. }) => None,
        }
    }
}

impl Chunked {
    /// One step on input that is not empty.
    fn step(
        &mut self,
        input: &mut &[u8],
        data: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, &'static str> {
        match self {
            Chunked::Size(line) => {
                let end = input.iter().position(|byte| *byte == b'\n');
                let taken = end.map_or(input.len(), |at| at + 1);
                line.extend(&input[..taken]);
                *input = &input[taken..];
                if line.len() > LINE_MAX_BYTES {
                    return Err("a line of a chunked body is too long");
                }
                if end.is_some() {
                    *self = match size(line).ok_or("a chunk has no valid size")? {
                        0 => Chunked::Trailers { line: 0, returns: 0, all: 0 },
                        size => Chunked::Data(size),
                    };
                }
            }
            Chunked::Data(left) => {
                data(take(input, left));
                if *left == 0 {
                    *self = Chunked::End(0);
                }
            }
            Chunked::End(seen) => {
                if input.first() != b"\r\n".get(*seen) {
                    return Err("a chunk is longer than its size");
                }
                *seen += 1;
                *input = &input[1..];
                if *seen == 2 {
                    *self = Chunked::Size(Vec::new());
                }
            }
            Chunked::Trailers { line, returns, all } => {
                let Some((byte, rest)) = input.split_first() else { return Ok(false) };
                *input = rest;
                *all += 1;
                if *all > TRAILERS_MAX_BYTES {
                    return Err("the trailers of a body are too long");
                }
                match byte {
                    b'\n' if *line == *returns && *line <= 1 => return Ok(true),
                    b'\n' => (*line, *returns) = (0, 0),
                    b'\r' => (*line, *returns) = (*line + 1, *returns + 1),
                    _ => (*line, *returns) = (*line + 1, 0),
                }
            }
        }
        Ok(false)
    }
}

/// RFC 9112, 7.1: hexadecimal, and extensions behind a semicolon.
fn size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| valid)?;
    u64::from_str_radix(digits, 16).ok()
}

fn take<'a>(input: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    let (own, rest) = input.split_at(taken);
    *input = rest;
    *left -= taken as u64;
    own
}
