//! A stamp says what an installed thing was made from, so that it is made again when that changes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// A file beside the thing, holding everything that decides whether it is still current.
/// It is written last: an interrupted install has no stamp and is repeated.
#[derive(Debug)]
pub(crate) struct Stamp {
    file: PathBuf,
    made_from: Vec<u8>,
}

impl Stamp {
    pub(crate) fn new(file: PathBuf, made_from: impl Into<Vec<u8>>) -> Self {
        Self { file, made_from: made_from.into() }
    }

    /// Whether the thing exists and was made from the same.
    pub(crate) fn is_current(&self, thing: &Path) -> bool {
        thing.exists() && fs::read(&self.file).is_ok_and(|content| content == self.made_from)
    }

    pub(crate) fn write(&self) -> Result<()> {
        replace_if_different(&self.file, &self.made_from)?;
        Ok(())
    }
}

/// Writes a file in one step, and not at all if it has that content: its time of change is what
/// cargo and npm look at. Says whether it wrote.
pub(crate) fn replace_if_different(file: &Path, content: &[u8]) -> Result<bool> {
    match fs::read(file) {
        Ok(present) if present == content => return Ok(false),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", file.display()));
        }
        Ok(_) | Err(_) => {}
    }
    let context = || format!("cannot write {}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(context)?;
    }
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".new");
    fs::write(&unfinished, content).with_context(context)?;
    fs::rename(&unfinished, file).with_context(context)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn current_only_with_thing_and_same_source() {
        let folder = tempfile::tempdir().unwrap();
        let thing = folder.path().join("thing");
        let file = folder.path().join("deep/thing.stamp");
        let stamp = Stamp::new(file.clone(), "v1");
        assert!(!stamp.is_current(&thing), "neither exists");
        fs::write(&thing, "").unwrap();
        assert!(!stamp.is_current(&thing), "no stamp: the install was interrupted");
        stamp.write().unwrap();
        assert!(stamp.is_current(&thing));
        assert!(!Stamp::new(file, "v2").is_current(&thing), "made from something else");
        fs::remove_file(&thing).unwrap();
        assert!(!stamp.is_current(&thing), "the thing is gone");
    }

    #[test]
    fn same_content_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        assert!(replace_if_different(&file, b"a").unwrap());
        assert!(!replace_if_different(&file, b"a").unwrap());
        assert!(replace_if_different(&file, b"b").unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"b");
    }
}
