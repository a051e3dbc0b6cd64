//! Programs that run code of other files: interpreters, dynamic loaders and multi-call shells.
//!
//! A copy of one under another name takes the same arguments, so those of this machine are looked for
//! when tracing starts.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use object::{
    Endianness, FileKind, ReadCache,
    elf::{FileHeader32, FileHeader64},
    read::elf::{ElfFile, FileHeader, ProgramHeader as _},
};

use super::{Search, expand};
use crate::{
    model::{Bytes, FileVersion},
    record::schema::KnownInterpreter,
};

/// How a family of interpreters takes a program as text.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Options whose value is code.
    pub code: &'static [char],
    /// Options whose value is a module.
    pub module: &'static [char],
    /// Options whose value is something else: the rest of the word, else the next one.
    pub value: &'static [char],
    /// Options that take a further word each, and behind which further options can stand in the same one.
    pub word: &'static [char],
    /// Options with which a script is looked at and not run.
    pub check: &'static [char],
    /// Options with which standard input is the script.
    pub input: &'static [char],
    /// Whether a dash alone ends the options; else it stands for standard input as the script.
    pub dash_ends_options: bool,
}

/// A shell, by the name of its file.
pub fn is_shell(name: &str) -> bool {
    matches!(name, "bash" | "dash" | "sh" | "ash" | "hush" | "zsh" | "ksh" | "mksh")
}

/// The family of an interpreter, by the name of its file.
pub fn family(name: &str) -> Option<Family> {
    const NONE: Family = Family {
        code: &[],
        module: &[],
        value: &[],
        word: &[],
        check: &[],
        input: &[],
        dash_ends_options: false,
    };
    Some(match name {
        // bash(1), dash(1): `set -o`, and bash's `shopt -O`.
        _ if is_shell(name) => Family {
            code: &['c'],
            word: &['o', 'O'],
            check: &['n'],
            input: &['s'],
            dash_ends_options: true,
            ..NONE
        },
        // perlrun(1)
        "perl" => Family {
            code: &['e', 'E'],
            value: &['C', 'd', 'D', 'F', 'i', 'I', 'm', 'M', 'V', 'x'],
            check: &['c'],
            ..NONE
        },
        // ruby(1)
        "ruby" => Family {
            code: &['e'],
            value: &['C', 'E', 'F', 'i', 'I', 'K', 'r', 'T', 'W', 'x', 'X'],
            check: &['c'],
            ..NONE
        },
        // Its options of one letter stand alone: `-c` checks, `-C` is a condition, `-r` a module.
        "node" => Family { code: &['e', 'p'], value: &['C', 'r'], check: &['c'], ..NONE },
        _ if name.starts_with("python") || name.starts_with("pypy") => {
            Family { code: &['c'], module: &['m'], value: &['W', 'X'], ..NONE }
        }
        _ => return None,
    })
}

/// A dynamic loader, by the name of its file.
pub fn is_loader(name: &str) -> bool {
    name.starts_with("ld-linux") || name.starts_with("ld-musl") || name == "ld.so"
}

/// A program that is another one for each name it is called by, or by its first argument.
pub fn is_multi_call(name: &str) -> bool {
    name.starts_with("busybox") || name.starts_with("toybox")
}

/// Where dynamic loaders are, beside the places that programs name.
const LOADERS: [&str; 3] = ["/lib*/ld-*.so*", "/lib/*/ld-*.so*", "/usr/lib*/ld-*.so*"];

/// Those of this machine, each file once: in the folders where programs are, and the loaders that they
/// name. Scripts (a version manager's shim) are left out: their interpreter is what is executed.
pub fn interpreters(
    search: &Search<'_>,
    identify: &dyn Fn(&Path) -> Option<FileVersion>,
) -> Vec<KnownInterpreter> {
    let mut found = Vec::new();
    let mut files = BTreeSet::new();
    let mut loaders: BTreeSet<PathBuf> =
        LOADERS.iter().flat_map(|pattern| expand(pattern, None)).collect();
    let mut add = |path: &Path, name: &str, loaders: Option<&mut BTreeSet<PathBuf>>| {
        let Some(version) = identify(path) else { return };
        if !files.insert(version.id) {
            return;
        }
        let Some(loader) = loader_of(path) else { return };
        if let Some(loaders) = loaders {
            loaders.extend(loader);
        }
        found.push(KnownInterpreter {
            name: name.to_owned(),
            path: Bytes::from(path),
            file: version.id,
            size_bytes: version.size_bytes,
        });
    };
    for folder in search.folders() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        entries.sort();
        for path in entries {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if family(name).is_some() || is_multi_call(name) {
                add(&path, name, Some(&mut loaders));
            }
        }
    }
    for path in std::mem::take(&mut loaders) {
        add(&path, "ld.so", None);
    }
    found
}

/// The dynamic loader that a program asks for, if any; none at all for what is no ELF file.
fn loader_of(path: &Path) -> Option<Option<PathBuf>> {
    let mut file = File::open(path).ok()?;
    let mut beginning = [0; 64];
    file.read_exact(&mut beginning).ok()?;
    let file = ReadCache::new(file);
    let kind = FileKind::parse(beginning.as_slice()).ok()?;
    if kind == FileKind::Elf64 {
        Some(named_loader::<FileHeader64<Endianness>>(&file))
    } else if kind == FileKind::Elf32 {
        Some(named_loader::<FileHeader32<Endianness>>(&file))
    } else {
        None
    }
}

fn named_loader<Header: FileHeader<Endian = Endianness>>(
    file: &ReadCache<File>,
) -> Option<PathBuf> {
    let elf = ElfFile::<Header, _>::parse(file).ok()?;
    let named = elf
        .elf_program_headers()
        .iter()
        .find_map(|header| header.interpreter(elf.endian(), file).ok().flatten())?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(named)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Catalogue, Place},
        *,
    };
    use crate::model::{Device, FileId};

    #[test]
    fn interpreters_and_the_loaders_they_name_are_found() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        std::fs::copy(&own, folder.path().join("python3.99")).unwrap();
        std::fs::write(folder.path().join("perl"), "#!/bin/sh\n".repeat(20)).unwrap();
        std::fs::write(folder.path().join("node"), "short").unwrap();
        let mut catalogue = Catalogue::embedded().clone();
        catalogue.folders.clear();
        let place = Place { path: vec![folder.path().to_owned()], ..Place::default() };
        let identify = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            let id = FileId { device: Device::from_stat(metadata.dev()), inode: metadata.ino() };
            Some(FileVersion { id, size_bytes: metadata.len(), ctime_ns: 0 })
        };
        let found = interpreters(&Search::new(&catalogue, &place), &identify);
        let names: Vec<&str> = found.iter().map(|known| known.name.as_str()).collect();
        assert_eq!(names[0], "python3.99");
        assert!(!names.contains(&"perl") && !names.contains(&"node"), "{names:?}");
        if let Some(Some(loader)) = loader_of(&own) {
            let loader = identify(&loader).unwrap().id;
            assert!(found.iter().any(|known| known.file == loader && known.name == "ld.so"));
        }
    }

    #[test]
    fn what_is_no_program_names_no_loader() {
        assert!(loader_of(Path::new("/proc/self/status")).is_none());
        assert!(loader_of(Path::new("/no/such/file")).is_none());
    }
}
