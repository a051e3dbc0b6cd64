//! Field offsets from the running kernel's BTF.
//!
//! BTF is a header, an array of type records of varying size and a string table
//! (Documentation/bpf/btf.rst in the kernel source). Only structs, unions and what leads through
//! them (typedefs, qualifiers) matter here. aya's own BTF type hides members, hence this reader.

use std::{collections::HashMap, path::Path};

use tracer_ebpf::offsets::{ABSENT, FIELDS, Field};

/// Where the kernel publishes its BTF.
pub(super) const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error(
        "cannot read the kernel's type information {path}: {source}. \
         The probes take the layout of kernel structs from it; use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    Unreadable { path: String, source: std::io::Error },
    #[error(
        "the kernel's type information {path} is malformed at byte {at}; \
         it must be the BTF of the running kernel, as in {BTF_PATH}"
    )]
    Malformed { path: String, at: usize },
    #[error(
        "this kernel has no {structure}.{member}, which the probe field {global} needs; \
         kernels from {minimum} on are supported",
        minimum = super::sensors::MINIMUM_KERNEL
    )]
    NoField { global: &'static str, structure: &'static str, member: &'static str },
}

/// Offsets by the name of the global that takes them, for every entry of [`FIELDS`].
#[derive(Debug)]
pub struct Offsets(pub Vec<(&'static str, u32)>);

impl Offsets {
    pub fn of_kernel(path: &Path) -> Result<Offsets, BtfError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path)
            .map_err(|source| BtfError::Unreadable { path: name.clone(), source })?;
        let btf = Btf::parse(&bytes).map_err(|at| BtfError::Malformed { path: name, at })?;
        FIELDS
            .iter()
            .map(|field| Ok((field.global, btf.resolve(field)?)))
            .collect::<Result<_, _>>()
            .map(Offsets)
    }
}

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// A type record, as far as it is needed.
#[derive(Clone, Copy)]
struct Type {
    kind: u32,
    /// Byte size, or the id of the type that a typedef or qualifier leads to.
    size_or_type: u32,
    /// Where its members start, and how many there are.
    members_at: usize,
    members: u32,
    /// Member offsets are split into bit size and bit offset.
    bitfields: bool,
}

struct Btf<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
    types: Vec<Type>,
    /// Structs by name.
    structs: HashMap<&'a [u8], u32>,
}

impl<'a> Btf<'a> {
    /// Fails with the position of the first thing that does not fit.
    fn parse(bytes: &'a [u8]) -> Result<Btf<'a>, usize> {
        const MAGIC: u16 = 0xeb9f;
        let word = |at: usize| read_u32(bytes, at).ok_or(at);
        if bytes.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err(0);
        }
        let header_len = word(4)? as usize;
        let section = |offset_at: usize| -> Result<std::ops::Range<usize>, usize> {
            let from = header_len.checked_add(word(offset_at)? as usize).ok_or(offset_at)?;
            let to = from.checked_add(word(offset_at + 4)? as usize).ok_or(offset_at)?;
            if to > bytes.len() { Err(offset_at) } else { Ok(from..to) }
        };
        let (types_at, strings_at) = (section(8)?, section(16)?);
        let void = Type { kind: 0, size_or_type: 0, members_at: 0, members: 0, bitfields: false };
        let mut btf =
            Btf { bytes, strings: &bytes[strings_at], types: vec![void], structs: HashMap::new() };
        let mut at = types_at.start;
        while at < types_at.end {
            let (name, info) = (word(at)?, word(at + 4)?);
            let kind = info >> 24 & 0x1f;
            let members = info & 0xffff;
            let members_at = at + 12;
            btf.types.push(Type {
                kind,
                size_or_type: word(at + 8)?,
                members_at,
                members,
                bitfields: info >> 31 != 0,
            });
            if kind == KIND_STRUCT && name != 0 {
                let id = u32::try_from(btf.types.len() - 1).map_err(|_| at)?;
                let name = btf.string(name).ok_or(at)?;
                // The first of several structs of one name is vmlinux's main one.
                btf.structs.entry(name).or_insert(id);
            }
            at = members_at + trailing_bytes(kind, members).ok_or(at)?;
        }
        Ok(btf)
    }

    fn string(&self, at: u32) -> Option<&'a [u8]> {
        self.strings.get(at as usize..)?.split(|byte| *byte == 0).next()
    }

    fn resolve(&self, field: &Field) -> Result<u32, BtfError> {
        let found =
            field.spellings.iter().find_map(|(structure, path)| self.offset(structure, path));
        let (structure, member) = field.spellings[0];
        match found {
            Some(offset) if offset != ABSENT => Ok(offset),
            _ => Err(BtfError::NoField { global: field.global, structure, member }),
        }
    }

    /// Byte offset of a dotted member path in a struct.
    fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let mut id = *self.structs.get(structure.as_bytes())?;
        let mut bits = 0;
        for name in path.split('.') {
            let (member_bits, member_type) = self.member(id, name.as_bytes(), 0)?;
            bits += member_bits;
            id = member_type;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// Bit offset and type of a member, also of one inside an anonymous member.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        const DEPTH_MAX: u32 = 16;
        let structure = self.structure(id)?;
        if depth > DEPTH_MAX {
            return None;
        }
        (0..structure.members as usize).find_map(|index| {
            let at = structure.members_at + index * 12;
            let member_name = self.string(read_u32(self.bytes, at)?)?;
            let member_type = read_u32(self.bytes, at + 4)?;
            let raw = read_u32(self.bytes, at + 8)?;
            let bits = if structure.bitfields { raw & 0x00ff_ffff } else { raw };
            if member_name == name {
                return Some((bits, member_type));
            }
            if !member_name.is_empty() {
                return None;
            }
            let (inner_bits, inner_type) = self.member(member_type, name, depth + 1)?;
            Some((bits + inner_bits, inner_type))
        })
    }

    /// The struct or union that a type is, behind typedefs and qualifiers.
    fn structure(&self, mut id: u32) -> Option<Type> {
        const TYPEDEF: u32 = 8;
        const VOLATILE: u32 = 9;
        const CONST: u32 = 10;
        const RESTRICT: u32 = 11;
        const TYPE_TAG: u32 = 18;
        const CHAIN_MAX: u32 = 32;
        for _ in 0..CHAIN_MAX {
            let found = *self.types.get(id as usize)?;
            match found.kind {
                KIND_STRUCT | KIND_UNION => return Some(found),
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => id = found.size_or_type,
                _ => return None,
            }
        }
        None
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

/// Bytes that follow a type record's twelve.
fn trailing_bytes(kind: u32, members: u32) -> Option<usize> {
    let each = |bytes: usize| (members as usize).checked_mul(bytes);
    match kind {
        // int, var, declaration tag
        1 | 14 | 17 => Some(4),
        // array
        3 => Some(12),
        // struct, union, data section, enum64
        KIND_STRUCT | KIND_UNION | 15 | 19 => each(12),
        // enum, function prototype
        6 | 13 => each(8),
        // pointer, forward, typedef, qualifiers, function, float, type tag
        2 | 7..=12 | 16 | 18 => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_every_field() {
        let path = Path::new(BTF_PATH);
        if !path.exists() {
            eprintln!("skipped: this kernel has no {BTF_PATH}");
            return;
        }
        let offsets = Offsets::of_kernel(path).unwrap();
        assert_eq!(offsets.0.len(), FIELDS.len());
        // arg_start sits in an anonymous struct, which a plain member search misses.
        let of = |name| offsets.0.iter().find(|(global, _)| *global == name).unwrap().1;
        assert_eq!(of("MM_ARG_END"), of("MM_ARG_START") + 8);
        assert_eq!(of("SOCK_FAMILY"), 16, "skc_family has been at 16 since 3.12");
    }

    #[test]
    fn malformed_bytes_are_refused_without_a_panic() {
        assert_eq!(Btf::parse(&[]).err(), Some(0));
        let Ok(bytes) = std::fs::read(BTF_PATH) else { return };
        let head = &bytes[..bytes.len().min(4096)];
        for len in 0..head.len() {
            assert!(Btf::parse(&head[..len]).is_err(), "cut at {len}");
        }
        let mut broken = bytes.clone();
        broken[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(Btf::parse(&broken).is_err());
    }
}
