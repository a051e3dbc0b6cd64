//! Coverage-guided fuzzing of everything that reads bytes of others: libFuzzer over the targets of
//! `tracer/tests/inputs`, which the property tests run too.
//!
//! Inputs begin with those in `tests/fuzz/corpus` and grow below `target/fuzz`. What fails there is
//! a bug: the input that shows it goes into `tests/fuzz/corpus`, where each run of the unit tests
//! tries it again.

use std::{
    collections::VecDeque,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    build,
    command::{self, IfFails},
    layout::Layout,
    setup::{self, Toolchain, replace_if_different},
    steps::Steps,
    tally::Tally,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROGRAM: &str = "tracer-fuzz";

/// What cargo-fuzz builds with: each edge has a counter, and comparisons are looked at.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

const IF_BUILD_FAILS: IfFails<'static> = IfFails {
    it_means: "the fuzzer cannot be built",
    remedy: "read the compiler's messages above; libFuzzer needs a C++ compiler",
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask fuzz                          # every target for a minute, two at a time
  cargo xtask fuzz --seconds 3600 dns ring  # two of them for an hour
  cargo xtask fuzz --input FILE dns         # one input again, with what goes wrong
  cargo xtask fuzz --seconds 600 --keep     # and keep what reached new code in tests/fuzz/corpus")]
pub(crate) struct Options {
    /// How long each target is fuzzed
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Add small inputs that reached new code to those in the repository
    #[arg(long)]
    keep: bool,
    /// Run this input alone, once
    #[arg(long, value_name = "FILE", requires = "targets")]
    input: Option<PathBuf>,
    /// Without the address sanitizer: twice as fast, and blind to wrong memory accesses
    #[arg(long)]
    no_sanitizer: bool,
    /// Only these; `tests/fuzz/corpus` has a folder for each
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    let known = targets(layout)?;
    if let Some(unknown) = options.targets.iter().find(|name| !known.contains(name)) {
        bail!("there is no target `{unknown}`; there are {}", known.join(", "));
    }
    let toolchain = setup::toolchain_only(layout)?;
    let kind = if options.no_sanitizer { Kind::Plain } else { Kind::Sanitized };
    let fuzzer = Fuzzer::build(layout, &toolchain, kind)?;
    let wanted = if options.targets.is_empty() { known } else { options.targets.clone() };
    if let Some(input) = &options.input {
        let name = wanted.first().context("an input is one of a target")?;
        let status = fuzzer.command(name).arg(input).status()?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut steps = Steps::begin();
    steps.step("fuzzing", || Ok(((), fuzzer.run_all(&wanted, options.seconds)?)));
    if options.keep {
        steps.step("inputs that reached new code", || {
            wanted.iter().try_for_each(|name| fuzzer.keep(name))?;
            Ok(((), Tally::NOTHING))
        });
    }
    Ok(steps.end_with_tally())
}

/// Each target for a moment, and all inputs of the repository; skipped where fuzzing cannot be done.
pub(crate) fn step(layout: &Layout, toolchain: &Toolchain) -> Result<((), Tally)> {
    const SECONDS: u32 = 2;
    if let Some(reason) = why_not(toolchain) {
        println!("skipped: fuzzing: {reason}");
        return Ok(((), Tally::ONE_SKIPPED));
    }
    let fuzzer = Fuzzer::build(layout, toolchain, Kind::Quick)?;
    Ok(((), fuzzer.run_all(&targets(layout)?, SECONDS)?))
}

fn why_not(toolchain: &Toolchain) -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("it was made for x86_64".into());
    }
    if command::on_path("c++").is_none() {
        return Some("there is no C++ compiler (`c++`) for libFuzzer".into());
    }
    matches!(toolchain, Toolchain::Debian(_))
        .then(|| "Debian's compiler was not tried with it; it takes rustup's nightly".into())
}

fn corpus(layout: &Layout) -> PathBuf {
    layout.tests().join("fuzz/corpus")
}

/// The folders of inputs; a test has them equal the targets.
fn targets(layout: &Layout) -> Result<Vec<String>> {
    let corpus = corpus(layout);
    let context = || format!("cannot list {}", corpus.display());
    let entries = fs::read_dir(&corpus).with_context(context)?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()
        .with_context(context)?;
    names.sort();
    Ok(names)
}

/// How the targets are built.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Sanitized,
    Plain,
    /// Built in half the time and slow, for a short run.
    Quick,
}

impl Kind {
    /// One folder for each set of flags: in a common one everything would be built each time.
    fn folder(self) -> &'static str {
        match self {
            Kind::Sanitized => "build-sanitized",
            Kind::Plain => "build",
            Kind::Quick => "build-quick",
        }
    }

    fn profile(self) -> &'static str {
        match self {
            Kind::Sanitized | Kind::Plain => "release",
            Kind::Quick => "quick",
        }
    }
}

#[derive(Debug)]
struct Fuzzer<'a> {
    layout: &'a Layout,
    program: PathBuf,
}

impl<'a> Fuzzer<'a> {
    fn build(layout: &'a Layout, toolchain: &Toolchain, kind: Kind) -> Result<Self> {
        if let Some(reason) = why_not(toolchain) {
            bail!("there is no fuzzing here: {reason}");
        }
        let package = layout.tests().join("fuzz");
        lock(layout, &package)?;
        let target = layout.target().join("fuzz").join(kind.folder());
        let mut flags = COVERAGE.to_vec();
        if matches!(kind, Kind::Sanitized) {
            flags.push("-Zsanitizer=address");
        }
        let mut cargo = toolchain.cargo(layout);
        cargo.args(["build", "--profile", kind.profile(), "--manifest-path"]);
        cargo.arg(package.join("Cargo.toml"));
        // With a target, build scripts and macros are built without those flags.
        cargo.arg(format!("--target={TARGET}")).arg("--target-dir").arg(&target);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        build::use_stand_in(layout, &mut cargo)?;
        command::run_shown(&mut cargo, IF_BUILD_FAILS)?;
        let program = target.join(TARGET).join(kind.profile()).join(PROGRAM);
        Ok(Self { layout, program })
    }

    fn command(&self, target: &str) -> Command {
        let mut command = command::program(self.layout, &self.program);
        command.env("TRACER_FUZZ_TARGET", target);
        // What is not given back at the end of an input is a matter of the global tables.
        command.args(["-rss_limit_mb=2048", "-timeout=20", "-detect_leaks=0"]);
        command
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.layout.target().join("fuzz").join(name)
    }

    /// Inputs that this machine found.
    fn found(&self, target: &str) -> PathBuf {
        self.folder("found").join(target)
    }

    /// As many at once as there are processors.
    fn run_all(&self, targets: &[String], seconds: u32) -> Result<Tally> {
        let waiting = Mutex::new(VecDeque::from(targets.to_vec()));
        let next = || waiting.lock().ok()?.pop_front();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let work = || -> Result<Tally> {
            let mut tally = Tally::NOTHING;
            while let Some(target) = next() {
                tally += self.run(&target, seconds)?;
            }
            Ok(tally)
        };
        let mut tally = Tally::NOTHING;
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for result in results {
            tally += result.map_err(|_| anyhow!("a thread of the fuzzer panicked"))??;
        }
        Ok(tally)
    }

    fn run(&self, target: &str, seconds: u32) -> Result<Tally> {
        let (found, failed) = (self.found(target), self.folder("failed"));
        for folder in [&found, &failed] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let log = self.folder(&format!("{target}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut fuzzer = self.command(target);
        fuzzer.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
        fuzzer.arg(format!("-artifact_prefix={}/{target}-", failed.display()));
        fuzzer.arg(&found).arg(corpus(self.layout).join(target));
        let status = fuzzer.stdout(file.try_clone()?).stderr(file).status();
        let status = status.with_context(|| format!("cannot start {}", self.program.display()))?;
        let said = fs::read(&log)?;
        let said = String::from_utf8_lossy(&said);
        let report = Report::of(&said);
        if status.success() {
            println!("  ok      fuzzing {target}: {report}");
            return Ok(Tally { passed: 1, ..Tally::NOTHING });
        }
        let failure = format!(
            "fuzzing {target} ({status}): {report}; {}:\n{}\n    again: cargo xtask fuzz --input FILE {target}",
            log.display(),
            what_happened(&said)
        );
        println!("  FAILED  {failure}");
        Ok(Tally::one_failed(failure))
    }

    /// Adds what reaches code that no input in the repository reaches: the fewest that reach all of it, and small
    /// ones only. How often an input comes by is of no account, else there would be thousands.
    fn keep(&self, target: &str) -> Result<()> {
        const BYTES_MAX: u32 = 512;
        let into = corpus(self.layout).join(target);
        let before = fs::read_dir(&into)?.count();
        let mut merge = self.command(target);
        merge.args(["-set_cover_merge=1", "-use_counters=0", &format!("-max_len={BYTES_MAX}")]);
        let if_fails = IfFails {
            it_means: "the inputs that were found could not be compared with those that are kept",
            remedy: "read the messages above; a target that fails must be mended first",
        };
        command::capture(merge.arg(&into).arg(self.found(target)), if_fails)?;
        println!("  {target}: {before} inputs were kept, now {}", fs::read_dir(&into)?.count());
        Ok(())
    }
}

/// Of what the fuzzer said: what went wrong, and the input, which may be all that is left of a machine.
fn what_happened(said: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = said.lines().collect();
    let wrong = |line: &&str| line.contains("panicked at") || line.contains(" ERROR: ");
    let begin = lines.iter().position(wrong).unwrap_or(lines.len().saturating_sub(LINES));
    let input = |line: &&str| line.starts_with("Base64: ") || line.contains("Test unit written to");
    let shown = lines[begin..].iter().take(LINES).copied();
    let shown = shown.chain(lines.iter().copied().filter(input));
    shown.map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// The workspace's lock file: what is fuzzed is what is built. Cargo adds libFuzzer to it.
fn lock(layout: &Layout, package: &Path) -> Result<()> {
    let own = layout.root().join("Cargo.lock");
    let content = fs::read(&own).with_context(|| format!("cannot read {}", own.display()))?;
    let stamp = setup::Stamp::new(layout.target().join("fuzz/.lock-stamp"), content.clone());
    let lock = package.join("Cargo.lock");
    if !stamp.is_current(&lock) {
        replace_if_different(&lock, &content)?;
        stamp.write()?;
    }
    Ok(())
}

/// What libFuzzer says at its end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    runs: u64,
    edges: u64,
    new_inputs: u64,
}

impl Report {
    fn of(said: &str) -> Report {
        let stat = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
        };
        let edges = said.lines().rev().find_map(|line| {
            let (_, rest) = line.split_once(" cov: ")?;
            rest.split(' ').next()?.parse().ok()
        });
        Report {
            runs: stat("stat::number_of_executed_units:"),
            edges: edges.unwrap_or(0),
            new_inputs: stat("stat::new_units_added:"),
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runs, edges, new_inputs } = self;
        write!(f, "{runs} runs, {edges} edges, {new_inputs} new inputs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_and_its_input() {
        let said = format!(
            "#7 NEW cov: 9\nthread '<unnamed>' panicked at a.rs:3:5:\nit is 4\nstack backtrace:\n{}\
             ==7== ERROR: libFuzzer: deadly signal\n0x41,\nBase64: QQ==\n",
            "   0: f\n".repeat(20)
        );
        let told = what_happened(&said);
        assert!(told.starts_with("    thread '<unnamed>' panicked at a.rs:3:5:\n    it is 4\n"));
        assert!(told.ends_with("   0: f\n    Base64: QQ=="), "{told}");
        assert_eq!(what_happened("no words\n"), "    no words");
    }

    #[test]
    fn what_libfuzzer_says() {
        let said = "#2\tINITED cov: 5 ft: 6 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                    #99\tDONE   cov: 41 ft: 77 corp: 9/40b lim: 4 exec/s: 49 rss: 31Mb\n\
                    Done 99 runs in 2 second(s)\nstat::number_of_executed_units: 99\n\
                    stat::average_exec_per_sec:     49\nstat::new_units_added:          8\n";
        assert_eq!(Report::of(said), Report { runs: 99, edges: 41, new_inputs: 8 });
        assert_eq!(Report::of(""), Report::default());
    }
}
