//! DNS messages (RFC 1035, 9460).
//!
//! By hand and not with a crate, because the message may be cut: whatever is complete in it counts.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{Cursor, push_label};
use crate::record::schema::{DnsMessage, DnsRecord};

/// Records kept of a message. Answers with more exist in tests only.
pub const RECORDS_MAX: usize = 128;
/// Characters kept of a message's records, in all: names can be compressed, and 128 long ones fill
/// 128 KiB.
pub const TEXT_MAX_BYTES: usize = 32 * 1024;
/// Of a name on the wire (RFC 1035, 3.1).
const NAME_MAX_BYTES: usize = 255;

const HEADER_BYTES: usize = 12;
const IN: u16 = 1;

mod rr {
    pub(super) const A: u16 = 1;
    pub(super) const CNAME: u16 = 5;
    pub(super) const AAAA: u16 = 28;
    pub(super) const DNAME: u16 = 39;
    pub(super) const SVCB: u16 = 64;
    pub(super) const HTTPS: u16 = 65;
}

/// One message, without the length that TCP puts before it. `whole` unless the capture cut it.
pub fn message(bytes: &[u8], whole: bool) -> DnsMessage {
    read(bytes, whole).unwrap_or_else(|why| DnsMessage::Malformed { why: why.into() })
}

fn read(bytes: &[u8], whole: bool) -> Result<DnsMessage, &'static str> {
    let mut header = Cursor(bytes);
    let mut next = || header.u16().ok_or("shorter than the header of a message");
    let (id, flags, questions, answers) = (next()?, next()?, next()?, next()?);
    let others = u32::from(next()?) + u32::from(next()?);
    let (is_answer, opcode) = (flags & 0x8000 != 0, flags >> 11 & 0xf);
    if opcode != 0 {
        return Err("an operation other than a query");
    }
    if questions != 1 {
        return Err("not one question");
    }
    let mut message = Message { bytes, at: HEADER_BYTES };
    let name = message.name().ok_or("the question has no valid name")?;
    let of = message.u16().ok_or("the question is cut")?;
    let class = message.u16().ok_or("the question is cut")?;
    let of = if class == IN { type_name(of) } else { format!("CLASS{class}/{}", type_name(of)) };
    if !is_answer {
        // What asks may carry anything behind the question.
        if !whole {
            return Err("longer than what tracer reads of a question");
        }
        for _ in 0..u32::from(answers) + others {
            message.record().ok_or("a record behind the question is not valid")?;
        }
        if message.at != bytes.len() {
            return Err("it goes on behind the question");
        }
        return Ok(DnsMessage::Question { id, name, of });
    }
    let (mut records, mut text_bytes, mut truncated) = (Vec::new(), 0, flags & 0x0200 != 0);
    for _ in 0..answers {
        if records.len() == RECORDS_MAX || text_bytes >= TEXT_MAX_BYTES {
            truncated = true;
            break;
        }
        let Some(record) = message.record() else {
            if whole && flags & 0x0200 == 0 {
                return Err("a record in the answer is not valid");
            }
            truncated = true;
            break;
        };
        text_bytes += record.name.len() + record.data.len();
        records.push(record);
    }
    Ok(DnsMessage::Answer { id, name, of, code: code_name(flags & 0xf), records, truncated })
}

struct Message<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Message<'_> {
    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(len)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        Cursor(self.take(2)?).u16()
    }

    fn u32(&mut self) -> Option<u32> {
        Cursor(self.take(4)?).u32()
    }

    fn record(&mut self) -> Option<DnsRecord> {
        let name = self.name()?;
        let (of, class, ttl_s) = (self.u16()?, self.u16()?, self.u32()?);
        let len = usize::from(self.u16()?);
        let start = self.at;
        self.take(len)?;
        let mut inside = Message { bytes: self.bytes.get(..start + len)?, at: start };
        let data = match of {
            _ if class != IN => String::new(),
            rr::A => {
                Ipv4Addr::from_bits(inside.exactly::<4>(len).map(u32::from_be_bytes)?).to_string()
            }
            rr::AAAA => Ipv6Addr::from(inside.exactly::<16>(len)?).to_string(),
            rr::CNAME | rr::DNAME => inside.name()?,
            rr::SVCB | rr::HTTPS => inside.service(&name)?,
            _ => String::new(),
        };
        Some(DnsRecord { name, of: type_name(of), ttl_s, data })
    }

    fn exactly<const N: usize>(&mut self, len: usize) -> Option<[u8; N]> {
        (len == N).then(|| self.take(N)?.try_into().ok())?
    }

    /// The target and the address hints (RFC 9460, 2.2 and 7.3).
    fn service(&mut self, owner: &str) -> Option<String> {
        let priority = self.u16()?;
        let target = self.name()?;
        // In service mode the root stands for the owner itself.
        let mut text = if target == "." && priority != 0 { owner.to_owned() } else { target };
        let mut parameters = Cursor(self.bytes.get(self.at..)?);
        while !parameters.is_empty() {
            let key = parameters.u16()?;
            let mut value = parameters.vector16()?;
            match key {
                4 => {
                    while let Some(bytes) = value.array::<4>() {
                        push_hint(&mut text, Ipv4Addr::from(bytes).into());
                    }
                }
                6 => {
                    while let Some(bytes) = value.array::<16>() {
                        push_hint(&mut text, Ipv6Addr::from(bytes).into());
                    }
                }
                _ => {}
            }
        }
        Some(text)
    }

    /// A name that may be compressed. Each pointer leads to before where it was met, so there is an
    /// end.
    fn name(&mut self) -> Option<String> {
        let (mut at, mut before, mut wire_bytes) = (self.at, self.at, 1);
        let (mut text, mut jumped) = (String::new(), false);
        loop {
            let len = *self.bytes.get(at)?;
            match len >> 6 {
                0 if len == 0 => {
                    if !jumped {
                        self.at = at + 1;
                    }
                    break;
                }
                0 => {
                    let label = self.bytes.get(at + 1..at + 1 + usize::from(len))?;
                    wire_bytes += label.len() + 1;
                    if wire_bytes > NAME_MAX_BYTES {
                        return None;
                    }
                    if !text.is_empty() {
                        text.push('.');
                    }
                    push_label(&mut text, label);
                    at += 1 + label.len();
                }
                3 => {
                    let pointer = Cursor(self.bytes.get(at..)?).u16()? & 0x3fff;
                    if !jumped {
                        self.at = at + 2;
                    }
                    jumped = true;
                    at = pointer.into();
                    if at >= before {
                        return None;
                    }
                    before = at;
                }
                _ => return None,
            }
        }
        if text.is_empty() {
            text.push('.');
        }
        Some(text)
    }
}

fn push_hint(text: &mut String, address: IpAddr) {
    if text.len() < TEXT_MAX_BYTES {
        text.push(' ');
        text.push_str(&address.to_string());
    }
}

/// What a record gives to those that follow it: addresses, and other names to go on with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    pub addresses: Vec<IpAddr>,
    pub aliases: Vec<String>,
}

/// What an answer's records give to the name that was asked for, along chains of aliases. Records
/// that do not belong to it give nothing.
pub fn given(asked: &str, records: &[DnsRecord]) -> Given {
    let mut found = Given::default();
    let mut names = vec![asked];
    let mut known = HashSet::from([asked]);
    // A chain is mostly in order, but need not be; its names are not more than the records.
    while let Some(name) = names.pop() {
        for record in records.iter().filter(|record| record.name == name) {
            match record.of.as_str() {
                "A" | "AAAA" => found.addresses.extend(record.data.parse::<IpAddr>()),
                "CNAME" => {
                    names.extend(Some(record.data.as_str()).filter(|name| known.insert(name)));
                }
                "SVCB" | "HTTPS" => {
                    let mut parts = record.data.split(' ');
                    let target = parts.next().filter(|target| known.insert(target));
                    names.extend(target);
                    found.addresses.extend(parts.filter_map(|hint| hint.parse::<IpAddr>().ok()));
                }
                _ => {}
            }
        }
    }
    known.remove(asked);
    found.aliases = known.into_iter().filter(|name| *name != ".").map(str::to_owned).collect();
    found.aliases.sort();
    found
}

fn type_name(of: u16) -> String {
    let name = match of {
        rr::A => "A",
        2 => "NS",
        rr::CNAME => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        rr::AAAA => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        rr::DNAME => "DNAME",
        41 => "OPT",
        43 => "DS",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        52 => "TLSA",
        rr::SVCB => "SVCB",
        rr::HTTPS => "HTTPS",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        257 => "CAA",
        other => return format!("TYPE{other}"),
    };
    name.into()
}

fn code_name(code: u16) -> String {
    let name = match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        other => return other.to_string(),
    };
    name.into()
}

/// The messages of a TCP stream: each comes after its length (RFC 1035, 4.2.2). Returns those that
/// are complete, and how many bytes they took.
pub fn framed(bytes: &[u8]) -> (Vec<&[u8]>, usize) {
    let (mut messages, mut rest) = (Vec::new(), Cursor(bytes));
    let mut taken = 0;
    while let Some(message) = rest.vector16() {
        messages.push(message.0);
        taken = bytes.len() - rest.0.len();
    }
    (messages, taken)
}
