//! What paths really are, links followed, also of what is not there yet.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io::ErrorKind,
    path::{Component, Path, PathBuf},
};

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;

/// The real folder of an absolute path and its own last component, and then each path that it leads
/// to if it is a link. Empty where that cannot be told.
pub fn places(path: &Path) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = real_folder(path).into_iter().collect();
    while let Some(place) = places.last()
        && places.len() <= LINKS_MAX
        && let Ok(target) = std::fs::read_link(place)
        && let Some(folder) = place.parent()
        && let Some(next) = real_folder(&folder.join(target))
    {
        places.push(next);
    }
    places
}

/// What a folder really is, as far as it exists.
pub(super) fn real(folder: &Path) -> Option<PathBuf> {
    followed(folder.iter().map(OsStr::to_owned).collect())
}

fn real_folder(path: &Path) -> Option<PathBuf> {
    Some(real(path.parent()?)?.join(path.file_name()?))
}

fn followed(mut parts: VecDeque<OsString>) -> Option<PathBuf> {
    let mut real = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = parts.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => real = PathBuf::from("/"),
            Some(Component::ParentDir) => {
                real.pop();
            }
            Some(Component::Normal(name)) => {
                let next = real.join(name);
                match std::fs::read_link(&next) {
                    Ok(_) if links == LINKS_MAX => return None,
                    Ok(target) => {
                        links += 1;
                        for part in target.iter().rev() {
                            parts.push_front(part.to_owned());
                        }
                    }
                    Err(error) if is_no_link(&error) => real = next,
                    Err(_) => return None,
                }
            }
            Some(Component::CurDir | Component::Prefix(_)) | None => {}
        }
    }
    Some(real)
}

/// Or there is nothing at all.
fn is_no_link(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_whether_or_not_the_file_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path);
        std::fs::create_dir_all(at("real/inner")).unwrap();
        symlink("real", at("link")).unwrap();
        symlink(at("missing"), at("dangling")).unwrap();
        symlink("../real/inner/tool", at("real/named")).unwrap();
        symlink("loop", at("loop")).unwrap();
        assert_eq!(places(&at("link/tool")), [at("real/tool")]);
        assert_eq!(places(&at("link/none/tool")), [at("real/none/tool")]);
        assert_eq!(places(&at("dangling/tool")), [at("missing/tool")]);
        assert_eq!(places(&at("link/named")), [at("real/named"), at("real/inner/tool")]);
        assert_eq!(places(&at("loop/tool")), Vec::<PathBuf>::new());
        assert_eq!(real(&at("link/inner")), Some(at("real/inner")));
    }
}
