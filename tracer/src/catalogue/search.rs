//! Finds what the catalogue describes on this machine: copies of programs, and the folders of the
//! Python modules that are a program.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::File,
    io::{BufRead as _, Read as _},
    os::unix::{ffi::OsStringExt as _, fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{Catalogue, Program, places};
use crate::{
    model::{Bytes, FileVersion},
    record::schema::{KnownCopy, KnownFolder},
};

/// More of one kind than any machine has; a limit, so that nobody makes tracer mark the whole disk.
const FOUND_MAX: usize = 512;

/// Where and how a command is about to run.
#[derive(Debug, Default)]
pub struct Place {
    /// The calling user's.
    pub home: Option<PathBuf>,
    pub cwd: PathBuf,
    /// Folders of `PATH`.
    pub path: Vec<PathBuf>,
    /// The command's own program.
    pub command: Option<PathBuf>,
    /// Prefixes of the environments that are active (`VIRTUAL_ENV`, `CONDA_PREFIX`).
    pub environments: Vec<PathBuf>,
    /// Folders of `PYTHONPATH`.
    pub python_path: Vec<PathBuf>,
}

impl Place {
    /// From tracer's own environment, which the command inherits.
    pub fn from_environment(home: Option<PathBuf>, program: Option<&OsStr>) -> Place {
        let cwd = std::env::current_dir().unwrap_or_default();
        let list = |name: &str| -> Vec<PathBuf> {
            let value = std::env::var_os(name).unwrap_or_default();
            std::env::split_paths(&value)
                .filter(|path| !path.as_os_str().is_empty())
                .map(|path| cwd.join(path))
                .collect()
        };
        let path = list("PATH");
        let command = program.and_then(|program| {
            if program.as_encoded_bytes().contains(&b'/') {
                return Some(cwd.join(program));
            }
            path.iter().map(|folder| folder.join(program)).find(|file| file.is_file())
        });
        let environments =
            ["VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONUSERBASE"].into_iter();
        Place {
            home,
            command,
            environments: environments.flat_map(list).collect(),
            python_path: list("PYTHONPATH"),
            path,
            cwd,
        }
    }
}

/// What was found of one program.
#[derive(Debug, Default)]
pub struct Found {
    pub copies: Vec<KnownCopy>,
    /// Folders of its Python modules, with all links resolved.
    pub packages: Vec<PathBuf>,
    /// There was more than the limit.
    pub cut: bool,
}

/// The places to look at, worked out once.
#[derive(Debug)]
pub struct Search<'a> {
    catalogue: &'a Catalogue,
    place: &'a Place,
    folders: Vec<PathBuf>,
    other_folders: Vec<PathBuf>,
}

impl<'a> Search<'a> {
    pub fn new(catalogue: &'a Catalogue, place: &'a Place) -> Search<'a> {
        let home = place.home.as_deref();
        let mut folders = place.path.clone();
        // sudo replaces PATH by one of its own, so the usual folders are looked at in any case.
        folders.extend(catalogue.folders.iter().flat_map(|one| expand(one, home)));
        let mut other_folders: Vec<PathBuf> =
            catalogue.other_folders.iter().flat_map(|one| expand(one, home)).collect();
        other_folders.extend(place.environments.iter().map(|prefix| prefix.join("bin")));
        for folder in place.cwd.ancestors() {
            const BESIDE: [&str; 4] = [".venv/bin", "venv/bin", "env/bin", "node_modules/.bin"];
            other_folders.extend(BESIDE.map(|inner| folder.join(inner)));
        }
        for command in place.command.iter().flat_map(|command| with_resolved(command)) {
            other_folders.extend(command.parent().map(Path::to_owned));
        }
        // What a version manager's shims lead to.
        let shims = folders.iter().chain(&other_folders);
        let managed: Vec<PathBuf> = shims
            .filter(|folder| folder.ends_with("shims"))
            .filter_map(|folder| folder.parent())
            .flat_map(|root| {
                let below = |inner| expand(&join_pattern(root, inner), None);
                below("versions/*/bin").into_iter().chain(below("installs/*/*/bin"))
            })
            .collect();
        other_folders.extend(managed);
        Search {
            catalogue,
            place,
            folders: existing(folders),
            other_folders: existing(other_folders),
        }
    }

    /// Where programs of any name are.
    pub fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        self.folders.iter().chain(&self.other_folders)
    }

    /// What the folders where programs are really are, and those of these paths. Also those that do
    /// not exist: whoever looks for a program along `PATH` tries them.
    pub fn real_folders<'p>(&self, paths: impl Iterator<Item = &'p Path>) -> Vec<KnownFolder> {
        let of_paths = paths.filter_map(Path::parent).map(Path::to_owned);
        let all: BTreeSet<PathBuf> =
            self.folders().chain(&self.place.path).cloned().chain(of_paths).collect();
        let known = |folder: &PathBuf| {
            let leads_to = Bytes::from(places::real(folder)?.as_path());
            Some(KnownFolder { path: Bytes::from(folder.as_path()), leads_to })
        };
        all.iter().filter_map(known).collect()
    }

    /// Copies and packages of a program, or the file itself when `program` is an absolute path.
    /// `identify` follows symbolic links.
    pub fn find(&self, program: &str, identify: &dyn Fn(&Path) -> Option<FileVersion>) -> Found {
        let mut found = Found::default();
        if program.starts_with('/') {
            let names = Path::new(program).file_name().and_then(OsStr::to_str).map(str::to_owned);
            let names: Vec<String> = names.into_iter().collect();
            found.add(Path::new(program), false, &names, identify);
            return found;
        }
        let program = self.catalogue.program(program);
        let names = &program.file_names;
        let layouts = |other: bool| {
            let all = program.layouts.iter().filter(move |_| !other);
            all.flat_map(|layout| expand(layout, self.place.home.as_deref()))
        };
        for (folders, other) in [(&self.folders, false), (&self.other_folders, true)] {
            let named =
                folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
            for path in named.chain(layouts(other)) {
                found.add(&path, other, names, identify);
            }
        }
        if !program.python_modules.is_empty() {
            self.packages(&program, &mut found);
        }
        found
    }

    fn packages(&self, program: &Program, found: &mut Found) {
        let mut roots: Vec<PathBuf> = program
            .module_folders
            .iter()
            .flat_map(|folder| expand(folder, self.place.home.as_deref()))
            .collect();
        roots.extend(self.place.python_path.iter().cloned());
        // `python -c` and `python -m` look into the current folder first.
        roots.push(self.place.cwd.clone());
        let command = self.place.command.iter().flat_map(|command| with_resolved(command));
        roots.extend(command.filter_map(|command| Some(command.parent()?.to_owned())));
        let mut prefixes: BTreeSet<PathBuf> = self.place.environments.iter().cloned().collect();
        let bins = self.folders.iter().chain(&self.other_folders);
        prefixes.extend(bins.filter_map(|bin| prefix_of_bin(bin)));
        for bin in self.folders.iter().chain(&self.other_folders) {
            let interpreters = ["python3", "python", "pypy3"].map(|name| bin.join(name));
            prefixes.extend(interpreters.iter().filter_map(|path| prefix_of_program(path)));
        }
        for copy in &found.copies {
            let path = copy.path.as_path();
            prefixes.extend(with_resolved(path).iter().filter_map(|path| prefix_of_program(path)));
            prefixes.extend(interpreter_of(path).and_then(|path| prefix_of_bin(path.parent()?)));
        }
        for prefix in prefixes {
            for inner in ["site-packages", "dist-packages"] {
                for lib in ["lib", "lib64"] {
                    let pattern = join_pattern(&prefix, &format!("{lib}/py*3*/{inner}"));
                    roots.extend(expand(&pattern, None));
                }
            }
        }
        let linked: Vec<PathBuf> = roots.iter().flat_map(|root| linked_folders(root)).collect();
        roots.extend(linked);
        let mut packages = BTreeSet::new();
        for root in existing(roots) {
            let is_marked = program.marker_files.is_empty()
                || program.marker_files.iter().any(|marker| root.join(marker).is_file());
            if !is_marked {
                continue;
            }
            for module in &program.python_modules {
                let folder = root.join(module.replace('.', "/"));
                packages.extend(folder.canonicalize().ok().filter(|folder| folder.is_dir()));
            }
        }
        found.cut |= packages.len() > FOUND_MAX;
        found.packages = packages.into_iter().take(FOUND_MAX).collect();
    }
}

impl Found {
    fn add(
        &mut self,
        path: &Path,
        other: bool,
        names: &[String],
        identify: &dyn Fn(&Path) -> Option<FileVersion>,
    ) {
        let Some(version) = identify(path) else { return };
        if self.copies.iter().any(|copy| copy.file == version.id) {
            return;
        }
        if self.copies.len() == FOUND_MAX {
            self.cut = true;
            return;
        }
        let multi_call = is_multi_call(path, &version, names, identify);
        let interpreter = interpreter_of(path).and_then(|path| Some(identify(&path)?.id));
        let path = Bytes::from(path);
        self.copies.push(KnownCopy {
            path,
            file: version.id,
            multi_call,
            only_forbids: other,
            interpreter,
            size_bytes: Some(version.size_bytes),
        });
    }
}

/// Paths that exist and fit a pattern. A pattern in a home nobody knows has none.
pub fn expand(pattern: &str, home: Option<&Path>) -> Vec<PathBuf> {
    let pattern = match pattern.strip_prefix("~/") {
        Some(rest) => match home {
            Some(home) => join_pattern(home, rest),
            None => return Vec::new(),
        },
        None => pattern.to_owned(),
    };
    // Patterns were checked when the catalogue was read.
    let paths = glob::glob(&pattern).into_iter().flatten();
    paths.filter_map(Result::ok).take(FOUND_MAX).collect()
}

/// The pattern `rest` below a folder whose name is meant as it is.
fn join_pattern(folder: &Path, rest: &str) -> String {
    format!("{}/{rest}", glob::Pattern::escape(&folder.to_string_lossy()))
}

/// Those that exist, each once, in order.
fn existing(folders: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    folders.into_iter().filter(|folder| folder.is_dir() && seen.insert(folder.clone())).collect()
}

/// A path, and what it leads to when that is another.
fn with_resolved(path: &Path) -> Vec<PathBuf> {
    let resolved = path.canonicalize().ok().filter(|resolved| resolved != path);
    std::iter::once(path.to_owned()).chain(resolved).collect()
}

fn prefix_of_bin(bin: &Path) -> Option<PathBuf> {
    (bin.ends_with("bin")).then(|| bin.parent().map(Path::to_owned)).flatten()
}

/// Of `PREFIX/bin/PROGRAM`, with links resolved.
fn prefix_of_program(path: &Path) -> Option<PathBuf> {
    prefix_of_bin(path.canonicalize().ok()?.parent()?)
}

/// The interpreter that a script names. Links stay: an environment's interpreter is one.
fn interpreter_of(script: &Path) -> Option<PathBuf> {
    const LINE_BYTES_MAX: u64 = 512;
    // Without waiting, should somebody put a pipe in its place.
    let file =
        File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(script);
    let mut line = Vec::new();
    std::io::BufReader::new(file.ok()?.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line).ok()?;
    let rest = line.strip_prefix(b"#!")?.trim_ascii();
    let path = rest.split(|byte| byte.is_ascii_whitespace()).next()?;
    Some(PathBuf::from(OsString::from_vec(path.to_vec())))
}

/// Folders that the `.pth` files of a folder of modules add to it, as editable installations do.
fn linked_folders(root: &Path) -> Vec<PathBuf> {
    const FILE_BYTES_MAX: u64 = 64 * 1024;
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut linked = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        if path.extension() != Some(OsStr::new("pth")) || !path.is_file() {
            continue;
        }
        let mut text = Vec::new();
        if File::open(&path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text))
            .is_ok()
        {
            let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            let folders = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
            linked.extend(folders.map(|line| root.join(OsString::from_vec(line.to_vec()))));
        }
    }
    linked
}

/// Whether a neighbour with a name of another program is the same file or has the same content.
fn is_multi_call(
    path: &Path,
    version: &FileVersion,
    names: &[String],
    identify: &dyn Fn(&Path) -> Option<FileVersion>,
) -> bool {
    /// Shims are small; a large file with a twin is a multi-call binary, which links share.
    const COMPARED_BYTES_MAX: u64 = 64 * 1024;
    let entries = path.parent().and_then(|directory| std::fs::read_dir(directory).ok());
    entries.into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name();
        if names.iter().any(|own| name.to_str().is_some_and(|name| name.starts_with(own.as_str())))
        {
            return false;
        }
        let neighbour = entry.path();
        // Whatever is the same has the same size, and asking for that is cheap.
        if !std::fs::metadata(&neighbour).is_ok_and(|other| other.len() == version.size_bytes) {
            return false;
        }
        let Some(other) = identify(&neighbour) else { return false };
        other.id == version.id
            || (version.size_bytes <= COMPARED_BYTES_MAX
                && std::fs::read(path)
                    .is_ok_and(|own| std::fs::read(&neighbour).is_ok_and(|theirs| theirs == own)))
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, symlink},
    };

    use super::*;
    use crate::model::{Device, FileId};

    /// A machine in a folder, and what is found on it.
    struct Machine {
        folder: tempfile::TempDir,
        catalogue: Catalogue,
        place: Place,
    }

    fn identify(path: &Path) -> Option<FileVersion> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let id = FileId { device: Device::from_stat(metadata.dev()), inode: metadata.ino() };
        Some(FileVersion { id, size_bytes: metadata.len(), ctime_ns: 0 })
    }

    impl Machine {
        fn new(entry: &str) -> Machine {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("catalogue.toml");
            let root = folder.path().to_str().unwrap();
            fs::write(&file, entry.replace("ROOT", root)).unwrap();
            let mut catalogue = Catalogue::with_files(&[file]).unwrap();
            // Not what is on the machine that runs the test.
            catalogue.folders.retain(|folder| folder.starts_with("~/"));
            catalogue.other_folders.retain(|folder| folder.starts_with("~/"));
            let place = Place {
                home: Some(folder.path().join("home")),
                cwd: folder.path().join("home/project/src"),
                ..Place::default()
            };
            Machine { folder, catalogue, place }
        }

        fn file(&self, path: &str) -> PathBuf {
            let path = self.folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.to_str().unwrap()).unwrap();
            path
        }

        /// Copies, those that only forbid with a `-`, and packages.
        fn find(&self) -> Vec<String> {
            let search = Search::new(&self.catalogue, &self.place);
            let found = search.find("tool", &identify);
            assert!(!found.cut);
            let copies = found.copies.iter().map(|copy| {
                let mark = if copy.only_forbids { "-" } else { "" };
                format!("{mark}{}", copy.path.lossy())
            });
            let packages = found.packages.iter().map(|folder| folder.display().to_string());
            let root = format!("{}/", self.folder.path().canonicalize().unwrap().display());
            copies.chain(packages).map(|path| path.replace(&root, "")).collect()
        }
    }

    #[test]
    fn copies_are_found_where_they_are_installed() {
        let mut machine = Machine::new(
            "[[program]]\nname = 'tool'\nfile-names = ['tool', 'tool.cmd']\n\
             layouts = ['ROOT/opt/tool/*/bin/tool', '~/tool/tool']\n",
        );
        for path in [
            "path/tool",
            "path/tool.cmd",
            "opt/tool/v1/bin/tool",
            "opt/tool/v2/bin/tool",
            "opt/tool/v2/lib/tool",
            "home/tool/tool",
            "home/.local/bin/tool",
            "home/.pyenv/versions/3.9/bin/tool",
            "home/project/.venv/bin/tool",
            "home/project/node_modules/.bin/tool",
            "manager/shims/other",
            "manager/versions/1/bin/tool",
            "environment/bin/tool",
            "elsewhere/tool",
        ] {
            machine.file(path);
        }
        machine.file("command/real/tool");
        let command = machine.file("command/real/start");
        fs::create_dir(machine.folder.path().join("home/project/src")).unwrap();
        symlink(command, machine.folder.path().join("command/start")).unwrap();
        let root = machine.folder.path().to_owned();
        machine.place.path = vec![root.join("path"), root.join("manager/shims"), root.join("path")];
        machine.place.environments = vec![root.join("environment")];
        machine.place.command = Some(root.join("command/start"));
        assert_eq!(
            machine.find(),
            [
                "path/tool",
                "path/tool.cmd",
                "home/.local/bin/tool",
                "opt/tool/v1/bin/tool",
                "opt/tool/v2/bin/tool",
                "home/tool/tool",
                "-home/.pyenv/versions/3.9/bin/tool",
                "-environment/bin/tool",
                "-home/project/.venv/bin/tool",
                "-home/project/node_modules/.bin/tool",
                "-command/real/tool",
                "-manager/versions/1/bin/tool",
            ]
        );
    }

    #[test]
    fn packages_are_found_by_their_marks() {
        let mut machine = Machine::new(
            "[[program]]\nname = 'tool'\npython-modules = ['tool.cli']\n\
             module-folders = ['ROOT/opt/tool/lib']\nmarker-files = ['tool/cli/main.py']\n",
        );
        for path in [
            "path/tool",
            "lib/python3.9/site-packages/tool/cli/main.py",
            "lib/python3.8/site-packages/tool/cli/other.py",
            "opt/tool/lib/tool/cli/main.py",
            "home/.local/lib/python3/dist-packages/tool/cli/main.py",
            "home/project/src/tool/cli/main.py",
            "own/tool/cli/main.py",
            "interpreter/lib64/pypy3.9/site-packages/tool/cli/main.py",
            "interpreter/bin/python3",
            "editable/tool/cli/main.py",
        ] {
            machine.file(path);
        }
        machine.file("home/.local/bin/anything");
        let links = machine.file("opt/tool/lib/links.pth");
        fs::write(links, "# a comment\nimport sys\n\n../../../editable\n").unwrap();
        let root = machine.folder.path().to_owned();
        fs::create_dir(root.join("bin")).unwrap();
        let line = format!("#!{}/interpreter/bin/python3 -I\n", root.display());
        fs::write(root.join("path/tool"), line).unwrap();
        machine.place.path = vec![root.join("path"), root.join("bin")];
        machine.place.python_path = vec![root.join("own")];
        assert_eq!(
            machine.find(),
            [
                "path/tool",
                "editable/tool/cli",
                "home/.local/lib/python3/dist-packages/tool/cli",
                "home/project/src/tool/cli",
                "interpreter/lib64/pypy3.9/site-packages/tool/cli",
                "lib/python3.9/site-packages/tool/cli",
                "opt/tool/lib/tool/cli",
                "own/tool/cli",
            ]
        );
    }

    #[test]
    fn an_absolute_path_is_that_file() {
        let machine = Machine::new("");
        let path = machine.file("x/tool");
        let search = Search::new(&machine.catalogue, &machine.place);
        let found = search.find(path.to_str().unwrap(), &identify);
        assert_eq!(found.copies.len(), 1);
        assert!(search.find("/no/such/file", &identify).copies.is_empty());
    }
}
