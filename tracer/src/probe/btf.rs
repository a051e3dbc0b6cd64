//! What is read from the running kernel's BTF: where fields are, and the numbers of functions.
//!
//! BTF is a header, an array of type records of varying size and a string table
//! (Documentation/bpf/btf.rst in the kernel source). Only structs, unions, what leads through
//! them (typedefs, qualifiers) and functions matter here. aya's own BTF type hides members, and copies all
//! of some hundred thousand records; hence this reader.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    slice,
};

use rustix::mm::{MapFlags, ProtFlags, mmap};
use tracer_ebpf::offsets::{ABSENT, FIELDS, Field};

/// Where the kernel publishes its BTF.
pub(super) const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error(
        "cannot read the kernel's type information {path}: {source}. \
         The probes take the layout of kernel structs from it; use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    Unreadable { path: String, source: io::Error },
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
        KernelTypes::read(path)?.offsets()
    }
}

/// The kernel's BTF, of which nothing is looked at before it is asked for.
pub(super) struct KernelTypes {
    path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Mapped(&'static [u8]),
    Read(Vec<u8>),
}

impl KernelTypes {
    pub(super) fn read(path: &Path) -> Result<KernelTypes, BtfError> {
        let bytes = read(path)
            .map_err(|source| BtfError::Unreadable { path: path.display().to_string(), source })?;
        Ok(KernelTypes { path: path.to_owned(), bytes })
    }

    pub(super) fn offsets(&self) -> Result<Offsets, BtfError> {
        let btf = self.structs_of_fields().map_err(|at| self.malformed(at))?;
        let offset = |field: &Field| Ok((field.global, btf.resolve(field)?));
        FIELDS.iter().map(offset).collect::<Result<_, _>>().map(Offsets)
    }

    /// The number of a function of the kernel, by which a program is loaded for it.
    pub(super) fn function(&self, name: &str) -> Result<Option<u32>, BtfError> {
        let find = || {
            let sections = Sections::of(self.bytes())?;
            for record in sections.records() {
                let record = record?;
                if record.kind == KIND_FUNCTION && sections.is_named(record, name) {
                    return Ok(Some(record.id));
                }
            }
            Ok(None)
        };
        find().map_err(|at| self.malformed(at))
    }

    fn structs_of_fields(&self) -> Result<Structs<'_>, usize> {
        Structs::read(Sections::of(self.bytes())?)
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(bytes) => bytes,
            Bytes::Read(bytes) => bytes,
        }
    }

    fn malformed(&self, at: usize) -> BtfError {
        BtfError::Malformed { path: self.path.display().to_string(), at }
    }
}

/// Mapped, where the kernel lets that be done with its own file (since 6.16): it gives no more than a page to a read.
fn read(path: &Path) -> io::Result<Bytes> {
    const SYSFS_MAGIC: i64 = 0x6265_6572;
    let file = File::open(path)?;
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    let is_of_kernel = rustix::fs::fstatfs(&file).is_ok_and(|system| system.f_type == SYSFS_MAGIC);
    if is_of_kernel && len > 0 {
        let (anywhere, from) = (std::ptr::null_mut(), 0);
        // SAFETY: a mapping at a place of the kernel's choice changes none that is there.
        let mapped =
            unsafe { mmap(anywhere, len, ProtFlags::READ, MapFlags::PRIVATE, file.as_fd(), from) };
        if let Ok(start) = mapped {
            // SAFETY: the mapping has `len` bytes, stays for as long as the process, and is of memory that the
            // kernel never changes: the file is its own, of a size that is fixed.
            return Ok(Bytes::Mapped(unsafe { slice::from_raw_parts(start.cast(), len) }));
        }
    }
    std::fs::read(path).map(Bytes::Read)
}

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FUNCTION: u32 = 12;

/// The two parts of BTF.
#[derive(Clone, Copy)]
struct Sections<'a> {
    bytes: &'a [u8],
    /// Where the types begin and end.
    types: (usize, usize),
    strings: &'a [u8],
}

/// A type record, as far as it is needed.
#[derive(Clone, Copy)]
struct Record {
    id: u32,
    name: u32,
    kind: u32,
    /// Byte size, or the id of the type that a typedef or qualifier leads to.
    size_or_type: u32,
    /// Where its members start, and how many there are.
    members_at: usize,
    members: u32,
    /// Member offsets are split into bit size and bit offset.
    bitfields: bool,
}

impl<'a> Sections<'a> {
    /// Fails, as everything here, with the position of the first thing that does not fit.
    fn of(bytes: &'a [u8]) -> Result<Sections<'a>, usize> {
        const MAGIC: u16 = 0xeb9f;
        let word = |at: usize| read_u32(bytes, at).ok_or(at);
        if bytes.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err(0);
        }
        let header_len = word(4)? as usize;
        let section = |offset_at: usize| -> Result<(usize, usize), usize> {
            let from = header_len.checked_add(word(offset_at)? as usize).ok_or(offset_at)?;
            let to = from.checked_add(word(offset_at + 4)? as usize).ok_or(offset_at)?;
            if to > bytes.len() { Err(offset_at) } else { Ok((from, to)) }
        };
        let (types, strings) = (section(8)?, section(16)?);
        Ok(Sections { bytes, types, strings: &bytes[strings.0..strings.1] })
    }

    /// All records in order. The first has the id 1: 0 is void.
    fn records(self) -> impl Iterator<Item = Result<Record, usize>> {
        let (mut at, end) = self.types;
        let mut id = 0;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            id += 1;
            let record = self.record(id, at);
            let next = record.and_then(|record| record.end().ok_or(at));
            // Nothing is known of what follows a record that is none.
            at = next.unwrap_or(end);
            Some(next.and(record))
        })
    }

    fn record(self, id: u32, at: usize) -> Result<Record, usize> {
        let word = |at: usize| read_u32(self.bytes, at).ok_or(at);
        let info = word(at + 4)?;
        Ok(Record {
            id,
            name: word(at)?,
            kind: info >> 24 & 0x1f,
            size_or_type: word(at + 8)?,
            members_at: at + 12,
            members: info & 0xffff,
            bitfields: info >> 31 != 0,
        })
    }

    fn string(self, at: u32) -> Option<&'a [u8]> {
        self.strings.get(at as usize..)?.split(|byte| *byte == 0).next()
    }

    fn is_named(self, record: Record, name: &str) -> bool {
        let strings = self.strings.get(record.name as usize..);
        let rest = strings.and_then(|strings| strings.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }
}

impl Record {
    /// Where the next one begins.
    fn end(&self) -> Option<usize> {
        self.members_at.checked_add(trailing_bytes(self.kind, self.members)?)
    }
}

/// The types that fields are looked for in.
struct Structs<'a> {
    sections: Sections<'a>,
    /// Where each type's record is, by id less 1.
    places: Vec<u32>,
    /// Those that [`FIELDS`] names.
    named: HashMap<&'a [u8], u32>,
}

impl<'a> Structs<'a> {
    fn read(sections: Sections<'a>) -> Result<Structs<'a>, usize> {
        let spellings = FIELDS.iter().flat_map(|field| field.spellings);
        let wanted: HashSet<&[u8]> = spellings.map(|(name, _)| name.as_bytes()).collect();
        let (mut places, mut named) = (Vec::new(), HashMap::new());
        for record in sections.records() {
            let record = record?;
            let at = record.members_at - 12;
            places.push(u32::try_from(at).map_err(|_| at)?);
            if record.kind == KIND_STRUCT && record.name != 0 {
                let name = sections.string(record.name).ok_or(at)?;
                if wanted.contains(name) {
                    // The first of several structs of one name is vmlinux's main one.
                    named.entry(name).or_insert(record.id);
                }
            }
        }
        Ok(Structs { sections, places, named })
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
        let mut id = *self.named.get(structure.as_bytes())?;
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
            let bytes = self.sections.bytes;
            let member_name = self.sections.string(read_u32(bytes, at)?)?;
            let member_type = read_u32(bytes, at + 4)?;
            let raw = read_u32(bytes, at + 8)?;
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
    fn structure(&self, mut id: u32) -> Option<Record> {
        const TYPEDEF: u32 = 8;
        const VOLATILE: u32 = 9;
        const CONST: u32 = 10;
        const RESTRICT: u32 = 11;
        const TYPE_TAG: u32 = 18;
        const CHAIN_MAX: u32 = 32;
        for _ in 0..CHAIN_MAX {
            let place = *self.places.get(id.checked_sub(1)? as usize)?;
            let found = self.sections.record(id, place as usize).ok()?;
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
        let parse = |bytes: &[u8]| Structs::read(Sections::of(bytes)?).map(drop);
        assert_eq!(parse(&[]), Err(0));
        let Ok(bytes) = std::fs::read(BTF_PATH) else { return };
        let head = &bytes[..bytes.len().min(4096)];
        for len in 0..head.len() {
            assert!(parse(&head[..len]).is_err(), "cut at {len}");
        }
        let mut broken = bytes.clone();
        broken[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(parse(&broken).is_err());
    }

    #[test]
    fn functions_by_name() {
        let Ok(types) = KernelTypes::read(Path::new(BTF_PATH)) else { return };
        let (one, other) =
            (types.function("vfs_read").unwrap(), types.function("vfs_write").unwrap());
        assert!(one.is_some() && other.is_some() && one != other);
        assert_eq!(types.function("vfs_rea").unwrap(), None, "the beginning of a name is none");
        // The bytes are the same, whichever way they are read.
        assert_eq!(types.bytes(), std::fs::read(BTF_PATH).unwrap());
    }
}
