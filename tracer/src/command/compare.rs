//! `tracer compare`.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tracer::{
    cli::{self, CompareFormat, Member, exit},
    compare::{self, Comparison, Group, Session},
    record::{self, Existing},
    report::{self, Paint},
};

pub(crate) fn compare(arguments: &cli::Compare) -> anyhow::Result<u8> {
    let groups = match members(&arguments.members) {
        Ok(groups) => groups,
        Err(error) => {
            crate::complain(&format!("{error:#}"));
            return Ok(exit::USAGE);
        }
    };
    if let Some(output) = arguments.output.as_deref() {
        let files = groups.iter().flat_map(|(_, files)| files.values().map(PathBuf::as_path));
        super::refuse_input(output, files)?;
    }
    let mut progress = Progress::of(groups.iter().map(|(_, files)| files.len()).sum());
    let mut read = Vec::new();
    for (name, files) in groups {
        let mut group = Group::new(&name);
        for file in files.into_values() {
            progress.show(&file);
            let shown = file.display().to_string();
            match Session::read(&file, arguments.verdicts) {
                Ok(session) => group.add(&shown, &session),
                Err(error) => {
                    group.leave_out(&shown, report::clean(error.to_string().as_bytes()));
                }
            }
        }
        read.push(group);
    }
    progress.end();
    show(arguments, &Comparison::of(&read, arguments.verdicts))?;
    let unused: usize = read.iter().map(|group| group.unused.len()).sum();
    if unused > 0 {
        let what =
            if unused == 1 { "1 recording was" } else { &format!("{unused} recordings were") };
        tracer::notice(format_args!("{what} not used; the comparison says why"));
        return Ok(exit::INCONCLUSIVE);
    }
    Ok(exit::PROVEN)
}

fn show(arguments: &cli::Compare, comparison: &Comparison) -> anyhow::Result<()> {
    let file = arguments.output.as_deref().filter(|path| *path != Path::new("-"));
    let paint = file.map_or_else(|| Paint::for_stream(&io::stdout()), |_| Paint::OFF);
    let text = match arguments.format {
        CompareFormat::Text => compare::text(comparison, paint),
        CompareFormat::Markdown => compare::markdown(comparison),
        CompareFormat::Html => compare::html(comparison),
        CompareFormat::Json => comparison.json(),
    };
    let Some(path) = file else { return crate::put(&text) };
    let existing = Existing::forced(arguments.force);
    record::create_output(path, existing)
        .and_then(|mut file| Ok(file.write_all(text.as_bytes())?))
        .with_context(|| format!("cannot write the comparison {}", path.display()))
}

/// Files by where they really are, as they were named first: each counts once.
type Files = BTreeMap<PathBuf, PathBuf>;

/// The files of each group, groups in the order of their first mention.
fn members(members: &[Member]) -> anyhow::Result<Vec<(String, Files)>> {
    let mut groups: Vec<(String, Files)> = Vec::new();
    for Member { group, pattern } in members {
        let files = expand(pattern)?;
        let at = match groups.iter().position(|(name, _)| name == group) {
            Some(at) => at,
            None => {
                groups.push((group.clone(), Files::new()));
                groups.len() - 1
            }
        };
        for file in files {
            let place = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
            groups[at].1.entry(place).or_insert(file);
        }
    }
    Ok(groups)
}

fn expand(pattern: &OsStr) -> anyhow::Result<Vec<PathBuf>> {
    // A file may have a name that looks like a pattern.
    if Path::new(pattern).exists() {
        return Ok(vec![pattern.into()]);
    }
    let shown = pattern.display();
    let none = || format!("there is no recording `{shown}`; name another one");
    // Patterns are text.
    let text = pattern.to_str().with_context(none)?;
    let paths = glob::glob(text).with_context(|| format!("`{shown}` is no pattern"))?;
    let files = paths.collect::<Result<Vec<PathBuf>, _>>()?;
    anyhow::ensure!(!files.is_empty(), none());
    Ok(files)
}

/// One line on standard error, if that is a terminal.
struct Progress {
    all: usize,
    done: usize,
    on: bool,
}

impl Progress {
    fn of(all: usize) -> Progress {
        Progress { all, done: 0, on: all > 1 && io::stderr().is_terminal() }
    }

    fn show(&mut self, file: &Path) {
        const WIDTH: usize = 20;
        const NAME_MAX: usize = 40;
        if self.on {
            let full = self.done * WIDTH / self.all;
            let bar = format!("{}{}", "#".repeat(full), "-".repeat(WIDTH - full));
            let name = file.file_name().unwrap_or_default();
            let name = report::clean(name.as_encoded_bytes());
            let name: String = name.chars().take(NAME_MAX).collect();
            // A line that cannot be shown is no loss.
            let _ = write!(io::stderr(), "\r\x1b[K[{bar}] {} of {}  {name}", self.done, self.all);
        }
        self.done += 1;
    }

    fn end(&self) {
        if self.on {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
