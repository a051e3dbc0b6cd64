//! The C libraries whose resolver is watched.

use std::{
    collections::BTreeSet,
    env,
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use object::{
    Object as _, ObjectSegment as _, ObjectSymbol as _, ReadCache,
    elf::{FileHeader64, PT_INTERP},
    read::elf::{ElfFile, ProgramHeader as _},
};

use crate::probe::Library;

/// Where distributions have their C library: glibc's, then musl's.
const USUAL: [&str; 6] = [
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib64/libc.so.6",
    "/usr/lib64/libc.so.6",
    "/usr/lib/libc.so.6",
    "/lib/libc.so.6",
    "/lib/ld-musl-x86_64.so.1",
];

pub(super) type Elf<'a> = ElfFile<'a, FileHeader64<object::Endianness>, &'a ReadCache<File>>;

/// What the file names of C libraries begin with: glibc's, that of before 2.34, and musl's, which is its loader.
const NAMES: [&[u8]; 4] = [b"libc.so.", b"libc-2.", b"ld-musl-", b"libc.musl-"];

/// Those of the machine and the command's own, each file once.
pub(super) fn libraries(command: &[OsString]) -> Vec<Library> {
    let own = command.first().and_then(|name| program(name)).and_then(|path| loader(&path));
    // musl's loader is the library; glibc has it in the same folder.
    let own = own.into_iter().flat_map(|loader| {
        let loader = loader.canonicalize().unwrap_or(loader);
        [loader.with_file_name("libc.so.6"), loader]
    });
    each_once(own)
}

/// Those of the machine and those among what processes have mapped, each file once.
pub(super) fn libraries_among(mapped: impl Iterator<Item = PathBuf>) -> Vec<Library> {
    let is_library = |path: &PathBuf| {
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        NAMES.iter().any(|beginning| name.starts_with(beginning))
    };
    each_once(mapped.filter(is_library))
}

/// The machine's and those.
fn each_once(others: impl Iterator<Item = PathBuf>) -> Vec<Library> {
    let mut known = BTreeSet::new();
    let library = |path: PathBuf| {
        // What others have there may be anything; a pipe would be waited for.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || !known.insert((metadata.dev(), metadata.ino())) {
            return None;
        }
        let getaddrinfo_bytes = function_in(file.try_clone().ok()?, "getaddrinfo")?;
        Some(Library { path, file: Arc::new(file), getaddrinfo_bytes })
    };
    USUAL.iter().map(PathBuf::from).chain(others).filter_map(library).collect()
}

/// The file that a command's first word is.
pub(super) fn program(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(name.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn with_elf<T>(path: &Path, look: impl FnOnce(&Elf<'_>) -> Option<T>) -> Option<T> {
    with_elf_in(File::open(path).ok()?, look)
}

pub(super) fn with_elf_in<T>(file: File, look: impl FnOnce(&Elf<'_>) -> Option<T>) -> Option<T> {
    let file = ReadCache::new(file);
    look(&ElfFile::parse(&file).ok()?)
}

/// The dynamic loader that a program asks for.
pub(super) fn loader(program: &Path) -> Option<PathBuf> {
    with_elf(program, |elf| {
        let endian = elf.endian();
        let headers = elf.elf_program_headers();
        let header = headers.iter().find(|header| header.p_type(endian) == PT_INTERP)?;
        let name = header.data(endian, elf.data()).ok()?;
        let name = name.split(|byte| *byte == 0).next()?;
        Some(OsStr::from_bytes(name).into())
    })
}

/// Where in a file a function begins that others can call.
pub(super) fn function(library: &Path, name: &str) -> Option<u64> {
    function_in(File::open(library).ok()?, name)
}

fn function_in(library: File, name: &str) -> Option<u64> {
    with_elf_in(library, |elf| {
        let symbol = elf
            .dynamic_symbols()
            .find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))?;
        in_file(elf, symbol.address())
    })
}

/// Where in the file an address of a loaded program is.
pub(super) fn in_file(elf: &Elf<'_>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let inside = address.checked_sub(segment.address())?;
        let (offset_bytes, size_bytes) = segment.file_range();
        (inside < size_bytes).then(|| offset_bytes.checked_add(inside))?
    })
}
