//! What a file says of the TLS library in it.

use std::{cell::OnceCell, collections::BTreeMap, fs::File};

use object::{
    Object as _, ObjectSection as _, ObjectSegment as _, ReadRef as _,
    elf::{DT_NEEDED, SHT_DYNSYM, SHT_SYMTAB},
    read::elf::{Dyn as _, SectionHeader as _, Sym as _},
};
use tracer_ebpf::abi::{NO_POINTER, TLS_PLACES_MAX, TlsPlace, TlsPlaces};

use super::{
    super::libraries::{Elf, in_file, with_elf_in},
    prologue::{self, Prologue},
};
use crate::{
    catalogue::{Catalogue, TlsUnreadable},
    probe::{TlsFunction, TlsLibrary},
};

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No TLS library that anybody knows.
    Nothing,
    Readable(TlsLibrary),
    /// A TLS library of that name.
    Unreadable(String),
}

/// Functions of OpenSSL, and what they do.
const FUNCTIONS: [(&str, TlsFunction); 6] = [
    ("SSL_write", TlsFunction::Write),
    ("SSL_write_ex", TlsFunction::WriteEx),
    ("SSL_read", TlsFunction::Read),
    ("SSL_read_ex", TlsFunction::ReadEx),
    ("SSL_free", TlsFunction::End),
    ("SSL_clear", TlsFunction::End),
];
const GET_RANDOM: &str = "SSL_get_client_random";

/// What libraries of TLS 1.3 that nobody knows are called.
const UNNAMED: &str = "TLS of no known kind";
/// More of a file's data is not looked at.
const DATA_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// A library with less code has no TLS in it. The data of ICU are such a file.
const CODE_MIN_BYTES: u64 = 64 * 1024;

/// Looks for a TLS library. `is_program` for what is executed, whose text is believed at once: what is mapped can
/// be a part of OpenSSL that does not speak TLS, and has the text of its version in it.
pub(super) fn look(file: File, is_program: bool, catalogue: &Catalogue) -> Found {
    let look = |elf: &Elf<'_>| {
        if let Some(known) = known_build(elf, catalogue) {
            return Some(Found::Readable(known));
        }
        let symbols = symbols(elf, catalogue);
        if let Some(library) = openssl(elf, &symbols) {
            return Some(Found::Readable(library));
        }
        let unreadable = catalogue.tls_unreadable.iter();
        let (data, label) = (OnceCell::new(), label());
        let data = || *data.get_or_init(|| text_of(elf, is_program));
        let speaks = OnceCell::new();
        let speaks = || *speaks.get_or_init(|| contains(data(), &label));
        let fits = |library: &&TlsUnreadable| {
            let has_section = |name: &String| elf.section_by_name(name).is_some();
            let needs = |begin: &String| needed(elf).any(|name| name.starts_with(begin.as_bytes()));
            library.section.as_ref().is_none_or(has_section)
                && library.symbol.as_ref().is_none_or(|name| symbols.contains_key(name.as_str()))
                && library.text.as_ref().is_none_or(|text| {
                    (is_program || speaks()) && contains(data(), text.as_bytes())
                })
                && !library.unless_needs.iter().any(needs)
        };
        let found = unreadable.into_iter().find(fits).map(|library| library.name.as_str());
        let found = found.or_else(|| speaks().then_some(UNNAMED));
        Some(found.map_or(Found::Nothing, |name| Found::Unreadable(name.into())))
    };
    with_elf_in(file, look).unwrap_or(Found::Nothing)
}

/// What every TLS 1.3 has among its data, to name a key by (RFC 8446, 7.1). Backwards here, so that a program which
/// looks for it does not have it.
fn label() -> Vec<u8> {
    b"ciffart sh c".iter().rev().copied().collect()
}

/// The read-only data of a file.
fn text_of<'data>(elf: &Elf<'data>, is_program: bool) -> &'data [u8] {
    let code = elf.section_by_name(".text").map_or(0, |section| section.size());
    if !is_program && code < CODE_MIN_BYTES {
        return &[];
    }
    let place = elf.section_by_name(".rodata").and_then(|section| section.file_range());
    place
        .and_then(|(at, bytes)| elf.data().read_bytes_at(at, bytes.min(DATA_MAX_BYTES)).ok())
        .unwrap_or_default()
}

/// The names of libraries that it is linked with.
fn needed<'data>(elf: &Elf<'data>) -> impl Iterator<Item = &'data [u8]> {
    let (endian, data) = (elf.endian(), elf.data());
    let sections = elf.elf_section_table();
    let dynamic = sections.dynamic(endian, data).ok().flatten();
    let found = dynamic.and_then(|(entries, strings)| {
        let strings = sections.strings(endian, data, strings).ok()?;
        Some((entries, strings))
    });
    found.into_iter().flat_map(move |(entries, strings)| {
        let entries = entries.iter().filter(move |entry| entry.tag(endian) == DT_NEEDED);
        entries.filter_map(move |entry| entry.string(endian, strings).ok())
    })
}

fn contains(data: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(data, text).is_some()
}

fn known_build(elf: &Elf<'_>, catalogue: &Catalogue) -> Option<TlsLibrary> {
    let build_id = elf.build_id().ok()??;
    let build_id: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let known = catalogue.tls_functions.iter().find(|known| known.build_id == build_id)?;
    Some(TlsLibrary { functions: known.functions(), places: TlsPlaces::default() })
}

/// A function: its address, and its size if the file says it.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    address: u64,
    size_bytes: u64,
}

/// The functions of interest that the file defines.
fn symbols<'a>(elf: &Elf<'_>, catalogue: &'a Catalogue) -> BTreeMap<&'a str, Symbol> {
    let names: Vec<&str> = FUNCTIONS
        .iter()
        .map(|(name, _)| *name)
        .chain([GET_RANDOM])
        .chain(catalogue.tls_unreadable.iter().filter_map(|library| library.symbol.as_deref()))
        .collect();
    let mut found = BTreeMap::new();
    // Those for others first: they are fewer.
    for kind in [SHT_DYNSYM, SHT_SYMTAB] {
        add_symbols(elf, kind, &names, &mut found);
        if found.contains_key("SSL_write") {
            break;
        }
    }
    found
}

/// Adds those of a table. The names are read as one piece: there can be a hundred thousand.
fn add_symbols<'a>(
    elf: &Elf<'_>,
    kind: u32,
    names: &[&'a str],
    found: &mut BTreeMap<&'a str, Symbol>,
) -> Option<()> {
    let (endian, data) = (elf.endian(), elf.data());
    let sections = elf.elf_section_table();
    let table = sections.symbols(endian, data, kind).ok()?;
    let strings = sections.section(table.string_section()).ok()?.data(endian, data).ok()?;
    for symbol in table.iter() {
        if symbol.is_undefined(endian) || symbol.st_value(endian) == 0 {
            continue;
        }
        let at = usize::try_from(symbol.st_name(endian)).unwrap_or(usize::MAX);
        let Some(name) = strings.get(at..) else { continue };
        let is_it = |known: &&&str| {
            name.strip_prefix(known.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
        };
        if let Some(name) = names.iter().find(is_it) {
            let (address, size_bytes) = (symbol.st_value(endian), symbol.st_size(endian));
            found.entry(*name).or_insert(Symbol { address, size_bytes });
        }
    }
    Some(())
}

fn openssl(elf: &Elf<'_>, symbols: &BTreeMap<&str, Symbol>) -> Option<TlsLibrary> {
    let places = symbols.get(GET_RANDOM).map(|symbol| places(elf, *symbol)).unwrap_or_default();
    let mut functions = Vec::new();
    for (name, also, kind) in [
        ("SSL_write", "SSL_write_ex", TlsFunction::WriteEx),
        ("SSL_read", "SSL_read_ex", TlsFunction::ReadEx),
    ] {
        let both = [name, also].map(|name| symbols.get(name).copied());
        let [Some(plain), ex] = both else { return None };
        // Both hand over to one function, which takes the arguments of the second.
        if let Some(ex) = ex
            && let Some(inner) = common(elf, plain, ex)
        {
            functions.push((kind, inner));
            continue;
        }
        let kind_of = |name| FUNCTIONS.iter().find(|(known, _)| *known == name);
        for (name, symbol) in [(name, Some(plain)), (also, ex)] {
            if let (Some((_, kind)), Some(symbol)) = (kind_of(name), symbol) {
                functions.push((*kind, cheapest(elf, symbol.address)?));
            }
        }
    }
    // Without it, the next session at the same place would be taken for the same one.
    symbols.get("SSL_free")?;
    for name in ["SSL_free", "SSL_clear"] {
        if let Some(symbol) = symbols.get(name) {
            functions.push((TlsFunction::End, cheapest(elf, symbol.address)?));
        }
    }
    Some(TlsLibrary { functions, places })
}

/// The code at an address, some of it.
fn code<'data>(elf: &Elf<'data>, address: u64, bytes: u64) -> Option<&'data [u8]> {
    elf.segments().find_map(|segment| {
        let (begin, size) = (segment.address(), segment.file_range().1);
        let inside = address.checked_sub(begin).filter(|inside| *inside < size)?;
        segment.data_range(address, bytes.min(size - inside)).ok()?
    })
}

fn prologue(elf: &Elf<'_>, address: u64) -> Prologue {
    /// More than the instructions that are looked at.
    const BYTES: u64 = 64;
    if elf.architecture() != object::Architecture::X86_64 {
        return Prologue::default();
    }
    code(elf, address, BYTES).map(prologue::read).unwrap_or_default()
}

/// Where in the file a breakpoint costs least.
fn cheapest(elf: &Elf<'_>, address: u64) -> Option<u64> {
    in_file(elf, address.checked_add(prologue(elf, address).cheap_at.unwrap_or(0))?)
}

/// Where a breakpoint is cheap in the function that both call first, if it is dear in one of them.
fn common(elf: &Elf<'_>, plain: Symbol, ex: Symbol) -> Option<u64> {
    let (of_plain, of_ex) = (prologue(elf, plain.address), prologue(elf, ex.address));
    if of_plain.cheap_at.is_some() && of_ex.cheap_at.is_some() {
        return None;
    }
    let inner = plain.address.checked_add_signed(of_plain.calls?)?;
    if ex.address.checked_add_signed(of_ex.calls?)? != inner {
        return None;
    }
    in_file(elf, inner.checked_add(prologue(elf, inner).cheap_at?)?)
}

/// Where a session may have the random bytes of its ClientHello, from the numbers in the function that
/// copies them. One that has nothing to do with it does no harm: what is there is compared with the
/// random bytes that were on the wire.
fn places(elf: &Elf<'_>, function: Symbol) -> TlsPlaces {
    /// The function has 200 to 350 bytes.
    const BYTES: u64 = 384;
    let size = if function.size_bytes == 0 { BYTES } else { function.size_bytes.min(BYTES) };
    code(elf, function.address, size).map(places_in).unwrap_or_default()
}

fn places_in(code: &[u8]) -> TlsPlaces {
    /// In sessions of OpenSSL 1.1.1 to 3.6 the number is between these.
    const LIKELY: std::ops::RangeInclusive<u32> = 0x40..=0x1000;
    let number = |bytes: &[u8]| {
        let number = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        LIKELY.contains(&number).then_some(number)
    };
    let (mut sums, mut pointers) = (Vec::new(), Vec::new());
    let add = |list: &mut Vec<u32>, found: Option<u32>| {
        if let Some(found) = found.filter(|found| !list.contains(found)) {
            list.push(found);
        }
    };
    for at in 0..code.len() {
        match &code[at..] {
            // lea register, [register + number]
            [0x48 | 0x49 | 0x4c | 0x4d, 0x8d, form, rest @ ..]
                if form & 0xc0 == 0x80 && form & 7 != 4 =>
            {
                add(&mut sums, number(rest));
            }
            // add rax, number; add register, number
            [0x48, 0x05, rest @ ..] | [0x48, 0x81, 0xc0..=0xc7, rest @ ..] => {
                add(&mut sums, number(rest));
            }
            // mov register, [rdi + number]
            [0x48, 0x8b, form, rest @ ..] if form & 0xc7 == 0x87 => {
                add(&mut pointers, number(rest));
            }
            _ => {}
        }
    }
    pointers.retain(|pointer| !sums.contains(pointer));
    let direct = sums.iter().map(|at| TlsPlace { pointer_at: NO_POINTER, at: *at });
    let through = pointers
        .iter()
        .flat_map(|pointer_at| sums.iter().map(|at| TlsPlace { pointer_at: *pointer_at, at: *at }));
    let mut places = TlsPlaces::default();
    for (place, found) in places.iter_mut().zip(direct.chain(through).take(TLS_PLACES_MAX)) {
        *place = found;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: &str, expected: &[TlsPlace]) {
        let code: Vec<u8> =
            code.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let mut places = TlsPlaces::default();
        places[..expected.len()].copy_from_slice(expected);
        assert_eq!(places_in(&code), places, "{code:02x?}");
        for len in 0..code.len() {
            places_in(&code[..len]);
        }
    }

    #[test]
    fn places_of_real_functions() {
        let direct = |at| TlsPlace { pointer_at: NO_POINTER, at };
        // OpenSSL 3.0 of Node 20: lea rcx, [rdi + 352]; cmovbe rax, rdx; mov rdx, [rdi + 352].
        check("48 8d 8f 60 01 00 00 48 0f 46 c2 48 8b 97 60 01 00 00", &[direct(0x160)]);
        // OpenSSL 3.5 of Node 26: add rax, 392.
        check("48 05 88 01 00 00", &[direct(0x188)]);
        // OpenSSL 1.1.1: mov rax, [rdi + 168]; lea rsi, [rax + 184].
        check(
            "48 8b 87 a8 00 00 00 48 8d b0 b8 00 00 00",
            &[direct(0xb8), TlsPlace { pointer_at: 0xa8, at: 0xb8 }],
        );
        // lea r8, [rsi + 8]; lea rax, [rip + 4096]: neither is one.
        check("4c 8d 46 08 48 8d 05 00 10 00 00", &[]);
    }

    #[test]
    fn libraries_that_are_no_openssl() {
        let catalogue = Catalogue::embedded();
        let own = std::env::current_exe().unwrap();
        assert_eq!(look(File::open(own).unwrap(), false, catalogue), Found::Nothing);
        let text = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(look(File::open(text).unwrap(), true, catalogue), Found::Nothing);
    }

    /// An ELF file of only these data, and some code.
    fn elf_with(data: &[u8], code_bytes: u64) -> File {
        use std::io::{Seek as _, Write as _};
        const NAMES: &[u8] = b"\0.text\0.rodata\0.names\0";
        const HEADER_BYTES: u64 = 64;
        let data_end = HEADER_BYTES + data.len() as u64;
        let table = data_end + NAMES.len() as u64;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([3, 0, 62, 0, 1, 0, 0, 0]);
        for number in [0, 0, table] {
            file.extend(number.to_le_bytes());
        }
        file.extend([0; 4]);
        for number in [HEADER_BYTES, 56, 0, 64, 4, 3] {
            file.extend(&number.to_le_bytes()[..2]);
        }
        file.extend(data);
        file.extend(NAMES);
        // The first one is none; the code takes no room in the file.
        file.extend([0; 64]);
        for (name, kind, at, bytes) in [
            (1, object::elf::SHT_NOBITS, HEADER_BYTES, code_bytes),
            (7, object::elf::SHT_PROGBITS, HEADER_BYTES, data.len() as u64),
            (15, object::elf::SHT_STRTAB, data_end, NAMES.len() as u64),
        ] {
            file.extend([name, kind].into_iter().flat_map(u32::to_le_bytes));
            for number in [0, 0, at, bytes, 0, 1, 0] {
                file.extend(number.to_le_bytes());
            }
        }
        let mut written = tempfile::tempfile().unwrap();
        written.write_all(&file).unwrap();
        written.rewind().unwrap();
        written
    }

    #[test]
    fn libraries_with_tls_in_them_are_told_from_those_that_mention_it() {
        let catalogue = Catalogue::embedded();
        let named = |text: &str, with_label: bool, is_program: bool| {
            let label = if with_label { label() } else { Vec::new() };
            let file = elf_with(&[text.as_bytes(), b"\0", &label, b"\0"].concat(), 100_000);
            match look(file, is_program, catalogue) {
                Found::Nothing => None,
                Found::Unreadable(name) => Some(name),
                Found::Readable(library) => panic!("{library:?}"),
            }
        };
        let openssl = Some("OpenSSL without names".to_owned());
        // A library for Python with OpenSSL in it, and libcrypto.
        assert_eq!(named("OpenSSL 3.0.15 3 Sep 2024", true, false), openssl);
        assert_eq!(named("OpenSSL 3.0.15 3 Sep 2024", false, false), None);
        assert_eq!(named("OpenSSL 3.0.15 3 Sep 2024", false, true), openssl);
        assert_eq!(named("../ssl/ssl_lib.c", true, false), openssl);
        let boringssl = Some("BoringSSL".to_owned());
        assert_eq!(
            named("third_party/boringssl-with-bazel/src/ssl/ssl_lib.cc", true, false),
            boringssl
        );
        assert_eq!(named("nothing that is known", true, false).as_deref(), Some(UNNAMED));
        assert_eq!(named("nothing that is known", false, false), None);
        // Data only.
        assert_eq!(look(elf_with(&label(), 100), false, catalogue), Found::Nothing);
    }

    #[test]
    fn a_build_that_is_known_needs_no_names() {
        let library =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/code-file/openssl-names");
        let entry = |id: &str| {
            format!(
                "[[tls-functions]]\nname = 'x'\nbuild-id = '{id}'\nwrite = 868\nread-ex = 912\nend = 930\n"
            )
        };
        let functions = |id: &str| {
            let catalogue = Catalogue::with_texts([("test", entry(id).as_str())]).unwrap();
            match look(File::open(library).unwrap(), false, &catalogue) {
                Found::Readable(found) => found.functions,
                other @ (Found::Nothing | Found::Unreadable(_)) => panic!("{other:?}"),
            }
        };
        let (write, read) = (TlsFunction::Write, TlsFunction::ReadEx);
        let known = functions("9ae3759536314ef0fd7be9302197dad79f6806e3");
        assert_eq!(known, [(write, 868), (read, 912), (TlsFunction::End, 930)]);
        // Another build of it is read by its names.
        assert_ne!(functions("00"), known);
    }
}
