//! The root file system of the virtual machine: a cpio archive in the format `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel source).
//!
//! Not compressed: the kernel takes it either way, and emulated unpacking costs more than loading.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

#[derive(Debug)]
pub(super) struct Programs {
    /// Process 1, and the odd programs that the checks run.
    pub(super) init: PathBuf,
    pub(super) tracer: PathBuf,
    pub(super) busybox: PathBuf,
    /// Files of this machine that are to be at the same place there.
    pub(super) copied: Vec<PathBuf>,
}

const DIRECTORIES: [&str; 8] = ["bin", "dev", "etc", "opt", "proc", "run", "sys", "tmp"];

pub(super) fn write(file: &Path, programs: &Programs) -> Result<()> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.add(directory, DIRECTORY, &[])?;
    }
    let own = [
        (Path::new("init"), &programs.init),
        (Path::new("bin/tracer"), &programs.tracer),
        (Path::new("bin/busybox"), &programs.busybox),
    ];
    let copied = programs.copied.iter().map(|file| (file.strip_prefix("/").unwrap_or(file), file));
    let mut known = BTreeSet::from(DIRECTORIES.map(PathBuf::from));
    for (name, program) in own.into_iter().chain(copied) {
        let mut folders: Vec<&Path> =
            name.ancestors().skip(1).filter(|folder| *folder != Path::new("")).collect();
        folders.reverse();
        for folder in folders {
            if known.insert(folder.to_owned()) {
                archive.add(&folder.display().to_string(), DIRECTORY, &[])?;
            }
        }
        let content =
            fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        archive.add(&name.display().to_string(), PROGRAM, &content)?;
    }
    fs::write(file, archive.end()?).with_context(|| format!("cannot write {}", file.display()))
}

// File types and permissions as in `st_mode`.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        self.entry(self.entries, name, mode, content)
    }

    fn entry(&mut self, inode: u32, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len())
            .with_context(|| format!("{name} is too large for the archive format"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        let (owner, time, links, device, checksum) = (0, 0, 1, 0, 0);
        let fields = [
            inode, mode, owner, owner, links, time, size, device, device, device, device,
            name_size, checksum,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    /// Names and contents end at multiples of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Result<Vec<u8>> {
        self.entry(0, "TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_format_says() {
        let mut archive = Archive::default();
        archive.add("a", DIRECTORY, &[]).unwrap();
        archive.add("a/bc", PROGRAM, b"12345").unwrap();
        let bytes = archive.end().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let zeroes = |count: usize| "00000000".repeat(count);
        let directory =
            format!("07070100000001000041ED{}00000001{}0000000200000000a\0", zeroes(2), zeroes(6));
        assert!(text.starts_with(&directory), "{text}");
        // A header has 110 bytes: with a name of 1 and its NUL that is a multiple of four.
        assert_eq!(directory.len(), 112);
        let file = format!(
            "07070100000002000081ED{}00000001{}00000005{}0000000500000000a/bc\0\0",
            zeroes(2),
            zeroes(1),
            zeroes(4)
        );
        let rest = &text[directory.len()..];
        assert!(rest.starts_with(&file), "{rest}");
        assert!(rest[file.len()..].starts_with(concat!("12345\0\0\0", "070701")), "{rest}");
        assert!(text.contains("TRAILER!!!\0"));
    }
}
