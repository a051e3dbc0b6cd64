//! The root file system of the virtual machine: a cpio archive in the format `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel source).
//!
//! Not compressed: the kernel takes it either way, and emulated unpacking costs more than loading.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

// File types and permissions as in `st_mode`.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Initramfs {
    archive: Archive,
    known: BTreeSet<PathBuf>,
}

impl Initramfs {
    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        let mut all: Vec<&Path> = Path::new(path).ancestors().collect();
        all.pop(); // the root
        for path in all.into_iter().rev() {
            if self.known.insert(path.to_owned()) {
                self.archive.add(path, DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    /// A file of this machine, at a place of its own.
    pub(super) fn file(&mut self, at: &Path, from: &Path) -> Result<()> {
        if let Some(folder) = at.parent().and_then(Path::to_str) {
            self.directory(folder)?;
        }
        if self.known.insert(at.to_owned()) {
            let unreadable = || format!("cannot read {}", from.display());
            let content = fs::read(from).with_context(unreadable)?;
            // Python compiles a module again when it is not as old as the compiled one says.
            let time = fs::metadata(from).with_context(unreadable)?.mtime();
            self.archive.add_as_old_as(at, PROGRAM, u32::try_from(time)?, &content)?;
        }
        Ok(())
    }

    /// A file of this machine at the place where it is here, with every link on the way to it.
    pub(super) fn as_here(&mut self, path: &Path) -> Result<()> {
        let mut at = PathBuf::from("/");
        let mut parts = path.components();
        while let Some(part) = parts.next() {
            match part {
                Component::Normal(name) => at.push(name),
                Component::ParentDir => {
                    at.pop();
                    continue;
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            }
            let meta =
                at.symlink_metadata().with_context(|| format!("cannot find {}", at.display()))?;
            if meta.is_symlink() {
                let to = fs::read_link(&at)?;
                if self.known.insert(at.clone()) {
                    self.archive.add(&at, LINK, to.as_os_str().as_bytes())?;
                }
                at.pop();
                return self.as_here(&at.join(to).join(parts.as_path()));
            }
            if meta.is_file() {
                return self.file(&at, &at);
            }
            if self.known.insert(at.clone()) {
                self.archive.add(&at, DIRECTORY, &[])?;
            }
        }
        bail!("{} is no file", path.display())
    }

    pub(super) fn write(self, file: &Path) -> Result<()> {
        fs::write(file, self.archive.end()?)
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        self.add_as_old_as(path, mode, 0, content)
    }

    fn add_as_old_as(&mut self, path: &Path, mode: u32, time: u32, content: &[u8]) -> Result<()> {
        let name = path.strip_prefix("/").unwrap_or(path).to_str();
        let name = name.with_context(|| format!("{} is not UTF-8", path.display()))?;
        self.entries += 1;
        self.entry(self.entries, name, mode, time, content)
    }

    fn entry(
        &mut self,
        inode: u32,
        name: &str,
        mode: u32,
        time: u32,
        content: &[u8],
    ) -> Result<()> {
        let size = u32::try_from(content.len())
            .with_context(|| format!("{name} is too large for the archive format"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        let (owner, links, device, checksum) = (0, 1, 0, 0);
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
        self.entry(0, "TRAILER!!!", 0, 0, &[])?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_format_says() {
        let mut archive = Archive::default();
        archive.add(Path::new("/a"), DIRECTORY, &[]).unwrap();
        archive.add(Path::new("/a/bc"), PROGRAM, b"12345").unwrap();
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

    #[test]
    fn links_on_the_way_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real");
        fs::create_dir(&real).unwrap();
        fs::write(real.join("file"), "x").unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        let mut initramfs = Initramfs::default();
        initramfs.as_here(&folder.path().join("link/file")).unwrap();
        let known = |path: &str| initramfs.known.contains(&folder.path().join(path));
        assert!(known("link") && known("real") && known("real/file"), "{:?}", initramfs.known);
        assert!(initramfs.as_here(&folder.path().join("none")).is_err());
    }
}
