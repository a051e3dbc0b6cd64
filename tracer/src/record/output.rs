//! Opens the files that tracer writes: for the owner alone, and nobody's data behind them.

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Only an empty one is written to.
    Keep,
    Replace,
}

impl Existing {
    /// By whether the user asked for it to be replaced.
    pub fn forced(force: bool) -> Existing {
        if force { Existing::Replace } else { Existing::Keep }
    }
}

/// Why a file was not opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error(
        "it is a symbolic link, and tracer writes through none: whoever made the link chose the file behind it"
    )]
    SymbolicLink,
    #[error("the file has further hard links; remove it first")]
    HardLinks,
    #[error("it exists already, and replacing it would lose what is in it; --force replaces it")]
    Exists,
    #[error(
        "there are further files of an earlier recording beside it (with .1, .2 and so on behind the name); \
         --force removes them"
    )]
    PartsExist,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Opens the file something goes to: mode 0600, never through a symbolic link. A pipe or device is
/// written to as it is.
pub fn create_output(path: &Path, existing: Existing) -> Result<File, OutputError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        // Also a loop of links in the folders above, which the file itself then is not.
        Some(libc::ELOOP) if path.is_symlink() => OutputError::SymbolicLink,
        _ => OutputError::Io(error),
    })?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        if metadata.nlink() > 1 {
            return Err(OutputError::HardLinks);
        }
        if metadata.len() > 0 && existing == Existing::Keep {
            return Err(OutputError::Exists);
        }
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.set_len(0)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn nothing_is_lost_by_accident() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        create_output(&path, Existing::Keep).unwrap();
        // Still empty, so there is nothing to lose.
        create_output(&path, Existing::Keep).unwrap().write_all(b"data").unwrap();
        assert!(matches!(create_output(&path, Existing::Keep), Err(OutputError::Exists)));
        assert_eq!(fs::read(&path).unwrap(), b"data");

        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(create_output(&link, Existing::Replace), Err(OutputError::SymbolicLink)));
        let hard = folder.path().join("hard");
        fs::hard_link(&path, &hard).unwrap();
        assert!(matches!(create_output(&hard, Existing::Replace), Err(OutputError::HardLinks)));
        assert_eq!(fs::read(&path).unwrap(), b"data");

        fs::remove_file(&hard).unwrap();
        create_output(&path, Existing::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }
}
