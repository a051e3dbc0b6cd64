//! Whether a name leads to a program that a policy names by its path.
//!
//! One file has many spellings: through links to folders, relative to a folder, with `..`. The kernel
//! says where an executed file really is, so where the policy's path really is was looked up when
//! tracing started. What only the caller says (the name of a link, a script, an exec that failed) is
//! followed as far as it is known which folders are real ones; a name that could be the path and
//! cannot be followed may be it.

use std::collections::BTreeSet;

use crate::{
    model::Bytes,
    record::schema::{Exec, Start},
};

/// Where a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leads {
    Elsewhere,
    /// It has the path's last component, and which folder it is in is not known.
    Perhaps,
    There,
}

/// A program that is named by its path.
#[derive(Debug)]
pub(super) struct NamedPath<'a> {
    /// As the policy has it.
    path: &'a [u8],
    /// What it really was at the start; empty where that is not known.
    places: &'a [Bytes],
    start: &'a Start,
}

/// What is known of where a name was used.
#[derive(Debug, Default)]
pub(super) struct Origin<'a> {
    cwd: Option<&'a [u8]>,
    /// Folders that were no links, by the kernel's own paths, and all above them were none either.
    real: BTreeSet<&'a [u8]>,
}

impl<'a> Origin<'a> {
    /// Where an exec's own name and words were used.
    pub(super) fn exec(exec: &'a Exec) -> Origin<'a> {
        let cwd = exec.cwd.as_ref().map(|cwd| cwd.0.as_slice()).filter(|cwd| is_absolute(cwd));
        let file = exec.file.as_ref().filter(|file| !file.path_cut);
        let script = exec.script.as_ref().and_then(|script| script.file.as_ref());
        let files = [file.and_then(|file| file.path.as_ref()), script.map(|script| &script.path)];
        let folders = files.into_iter().flatten().filter(|path| is_absolute(&path.0));
        let folders = folders.map(|path| split(&path.0).0);
        Origin { cwd, real: cwd.into_iter().chain(folders).collect() }
    }
}

impl<'a> NamedPath<'a> {
    /// None for a program that is named otherwise.
    pub(super) fn of(start: &'a Start, program: &'a str) -> Option<NamedPath<'a>> {
        let places = || start.known_paths.get(program).map_or(&[][..], Vec::as_slice);
        program.starts_with('/').then(|| NamedPath {
            path: program.as_bytes(),
            places: places(),
            start,
        })
    }

    /// Where the kernel's own path of a file is.
    pub(super) fn is_at(&self, path: &[u8]) -> Leads {
        if self.is(path) {
            Leads::There
        } else if self.places.is_empty() && self.ends_like(path) {
            Leads::Perhaps
        } else {
            Leads::Elsewhere
        }
    }

    /// The same of a path that lacks its beginning.
    pub(super) fn may_end_with(&self, path: &[u8]) -> Leads {
        if self.ends_like(path) { Leads::Perhaps } else { Leads::Elsewhere }
    }

    /// Where a name leads to that a caller gave.
    pub(super) fn is_named(&self, name: &[u8], from: &Origin<'_>) -> Leads {
        let unknown = || self.may_end_with(name);
        let Some(name) = self.followed(name, from) else { return unknown() };
        if self.is(&name) {
            return Leads::There;
        }
        let (folder, last) = split(&name);
        let Some(real) = self.real(folder, from) else { return unknown() };
        let mut resolved = real.to_vec();
        if resolved != b"/" {
            resolved.push(b'/');
        }
        resolved.extend_from_slice(last);
        self.is_at(&resolved)
    }

    fn is(&self, path: &[u8]) -> bool {
        self.path == path || self.places.iter().any(|place| place.0 == path)
    }

    fn ends_like(&self, path: &[u8]) -> bool {
        let last = split(path).1;
        let own =
            std::iter::once(self.path).chain(self.places.iter().map(|place| place.0.as_slice()));
        own.into_iter().any(|own| split(own).1 == last)
    }

    /// The name as an absolute one, without `.` and empty parts; `..` only leads to the folder above
    /// where what it stands in is no link.
    fn followed(&self, name: &[u8], from: &Origin<'_>) -> Option<Vec<u8>> {
        let whole = if is_absolute(name) { name.to_vec() } else { [from.cwd?, name].join(&b'/') };
        let mut followed: Vec<u8> = Vec::new();
        for part in whole.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    if !followed.is_empty() {
                        let folder = self.real(&followed, from)?.to_vec();
                        followed = split(&folder).0.to_vec();
                    }
                    if followed == b"/" {
                        followed.clear();
                    }
                }
                part => {
                    followed.push(b'/');
                    followed.extend_from_slice(part);
                }
            }
        }
        Some(followed)
    }

    /// What a folder really is, if that is known.
    fn real<'b>(&'b self, folder: &'b [u8], from: &Origin<'_>) -> Option<&'b [u8]> {
        let known = self.start.known_folders.iter();
        if let Some(known) = known.clone().find(|known| known.path.0 == folder) {
            return Some(&known.leads_to.0);
        }
        let places = self.places.iter().map(|place| split(&place.0).0);
        let real = from.real.iter().copied().chain(places);
        let mut real = real.chain(known.map(|known| known.leads_to.0.as_slice()));
        real.any(|real| is_in(real, folder)).then_some(folder)
    }
}

fn is_absolute(path: &[u8]) -> bool {
    path.starts_with(b"/")
}

/// The folder, `/` at least where the path is absolute, and the last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => (b"/", path.get(1..).unwrap_or_default()),
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

/// Whether the path is that of the folder or of something in it.
fn is_in(path: &[u8], folder: &[u8]) -> bool {
    folder == b"/"
        || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}
