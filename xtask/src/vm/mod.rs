//! Boots other kernels under QEMU and runs the integration tests in them.
//!
//! A probe that loads on the kernel it was written on may be refused by another one's verifier, or
//! read a field that has moved. So tracer, the integration tests and the programs they need are put into
//! an initramfs and started on Debian's kernels, without disk, network card or modules. The processor
//! is emulated, so this needs neither root nor KVM.

mod document;
mod initramfs;
mod kernels;
mod outcome;
mod qemu;

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use self::{
    initramfs::Initramfs,
    kernels::{Downloads, Kernel, Wanted},
    outcome::Outcome,
    qemu::Qemu,
};
use crate::{
    build,
    command::{self, IfFails},
    layout::Layout,
    setup,
    tally::Tally,
    test,
};

/// Start to power-off takes some minutes, and several times that on a busy machine. A kernel that
/// hangs is stopped.
const LONGEST_BOOT: Duration = Duration::from_secs(25 * 60);

/// Programs of this machine that the tests run, beside their own. What a test needs and is not here
/// makes it fail there.
const PROGRAMS: &[&str] = &[
    "base64",
    "basename",
    "bash",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "dirname",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "getent",
    "grep",
    "head",
    "id",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mount",
    "mv",
    "nice",
    "nohup",
    "openssl",
    "printf",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setpriv",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "umount",
    "uname",
    "uniq",
    "unshare",
    "wc",
    "xargs",
    "yes",
];
/// Other files that they read.
const FILES: &[&str] = &["/etc/group", "/etc/nsswitch.conf", "/etc/passwd", "/etc/ssl/openssl.cnf"];
/// Where the odd programs of the tests are in the virtual machine.
const ODD_PROGRAMS: &str = "/programs";

#[derive(Debug, Default, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask vm --kernel 6.1                            # one kernel, every profile
  cargo xtask vm --kernel 6.12 --profile cgroup-v1       # one profile
  cargo xtask vm --write                                 # every kernel, and docs/kernel-support.md")]
pub(crate) struct Options {
    /// A kernel of Debian's (6.1, 6.12, each also with -rt or -plain) or a bzImage; repeatable [default:
    /// Debian's]
    #[arg(long = "kernel", value_name = "SERIES|FILE")]
    kernels: Vec<Wanted>,
    /// Only this state of the machine (full, no-fentry, no-send-tracepoint, no-kprobes, processors, cgroup-hybrid,
    /// cgroup-v1, lockdown-integrity, lockdown-confidentiality; real-time and plain, each also with
    /// -without-fentry or -without-send-tracepoint); repeatable
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// Write docs/kernel-support.md from what is found, and from this machine's own kernel
    #[arg(long, conflicts_with_all = ["kernels", "profiles"])]
    write: bool,
    /// Keep the initramfs, and print the command that boots it
    #[arg(long)]
    keep: bool,
}

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<ExitCode> {
    build::task(layout, &build::Options::default())?;
    let wanted = match options.kernels.as_slice() {
        [] => kernels::default_series(),
        kernels => kernels.to_vec(),
    };
    let (qemu, mut kernels) = find_or_install(layout, &wanted)?;
    if !options.profiles.is_empty() {
        for kernel in &mut kernels {
            kernel.profiles = options.profiles.join(",");
        }
    }
    let outcomes = boot_all(layout, &qemu, &kernels, options.keep)?;
    let mut tally = total(&outcomes);
    if options.write {
        document::write(layout, &outcomes)?;
    } else if options.profiles.is_empty() {
        tally += compared(layout, &outcomes)?;
    }
    println!("{tally}");
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn total(outcomes: &[Outcome]) -> Tally {
    outcomes.iter().fold(Tally::NOTHING, |mut tally, outcome| {
        tally += outcome.tally();
        tally
    })
}

/// Fails where `docs/kernel-support.md` says something else.
fn compared(layout: &Layout, outcomes: &[Outcome]) -> Result<Tally> {
    let differences = document::differences(layout, outcomes)?;
    if differences.is_empty() {
        return Ok(Tally { passed: 1, ..Tally::NOTHING });
    }
    let failure = format!(
        "docs/kernel-support.md is not what was seen; if that is right, `cargo xtask vm --write` makes it anew:\n  {}",
        differences.join("\n  ")
    );
    println!("FAILED  {failure}");
    Ok(Tally::one_failed(failure))
}

/// Downloads what the step of the tests needs.
pub(crate) fn set_up(layout: &Layout) -> Result<()> {
    find_or_install(layout, &kernels::default_series()).map(drop)
}

/// As a step of the tests: what cannot be had on this machine is skipped, with the reason.
pub(crate) fn step(layout: &Layout) -> Result<((), Tally)> {
    let wanted = kernels::default_series();
    match find_or_install(layout, &wanted) {
        Ok((qemu, kernels)) => {
            let outcomes = boot_all(layout, &qemu, &kernels, false)?;
            let mut tally = total(&outcomes);
            tally += compared(layout, &outcomes)?;
            Ok(((), tally))
        }
        Err(error) => {
            let reason = format!("{error:#}");
            let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            for kernel in &wanted {
                println!("skipped: the tests on kernel {kernel}: {reason}");
            }
            let skipped = u64::try_from(wanted.len()).unwrap_or(u64::MAX);
            Ok(((), Tally { skipped, ..Tally::NOTHING }))
        }
    }
}

/// Everything that is not ours.
fn find_or_install(layout: &Layout, wanted: &[Wanted]) -> Result<(Qemu, Vec<Kernel>)> {
    if !cfg!(target_arch = "x86_64") {
        return Err(anyhow!("the virtual machines are x86_64, and this machine is not"));
    }
    let _lock = setup::lock(layout)?;
    let mut downloads = Downloads::new(layout);
    let qemu = Qemu::find_or_install(layout, &mut downloads)?;
    let kernels = wanted.iter().map(|kernel| downloads.kernel(kernel)).collect::<Result<_>>()?;
    Ok((qemu, kernels))
}

/// Boots as many kernels at once as there are processors: the emulation of each uses little more than
/// one.
fn boot_all(layout: &Layout, qemu: &Qemu, kernels: &[Kernel], keep: bool) -> Result<Vec<Outcome>> {
    let folder = layout.target().join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let initramfs = folder.join("initramfs");
    pack(layout, &initramfs)?;
    let waiting = Mutex::new(kernels.iter().enumerate().collect::<VecDeque<_>>());
    let next = || waiting.lock().ok()?.pop_front();
    let work = || -> Result<Vec<(usize, Outcome)>> {
        let mut outcomes = Vec::new();
        while let Some((number, kernel)) = next() {
            outcomes.push((number, boot(qemu, kernel, &initramfs, &folder)?));
        }
        Ok(outcomes)
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(kernels.len());
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut outcomes = Vec::new();
    for result in results {
        outcomes.extend(result.map_err(|_| anyhow!("a virtual machine's thread panicked"))??);
    }
    outcomes.sort_by_key(|(number, _)| *number);
    let outcomes: Vec<Outcome> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    for (kernel, outcome) in kernels.iter().zip(&outcomes) {
        print!("{outcome}");
        if keep {
            println!("  $ {}", command::render(&qemu.command(kernel, &initramfs)));
        }
    }
    if !keep {
        fs::remove_file(&initramfs)
            .with_context(|| format!("cannot remove {}", initramfs.display()))?;
    }
    Ok(outcomes)
}

fn boot(qemu: &Qemu, kernel: &Kernel, initramfs: &Path, folder: &Path) -> Result<Outcome> {
    let started = Instant::now();
    let log = folder.join(format!("{}.log", kernel.name));
    let ending = qemu.boot(kernel, initramfs, &log, LONGEST_BOOT)?;
    let console = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let console = String::from_utf8_lossy(&console);
    Ok(Outcome::of_console(&kernel.name, &console, ending, started.elapsed()))
}

/// The very programs that are tested on this machine, where they are here, with their libraries.
fn pack(layout: &Layout, file: &Path) -> Result<()> {
    let tests = integration_tests(layout)?;
    let tracer = layout.release("tracer");
    let odd = layout.target().join("vm/programs");
    let mut compile = command::program(layout, layout.release("tracer-programs"));
    command::run_shown(compile.arg(&odd), IF_PACKING_FAILS)?;

    let mut initramfs = Initramfs::default();
    for folder in ["/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/root", "/usr/local/bin"] {
        initramfs.directory(folder)?;
    }
    let init = layout.release("vm-init");
    initramfs.file(Path::new("/init"), &init)?;
    initramfs.file(Path::new("/tests"), &tests)?;
    let mut programs = vec![init, tests, tracer.clone()];
    for name in PROGRAMS {
        let program = command::on_path(name);
        let program = program.with_context(|| format!("there is no `{name}` on PATH"))?;
        initramfs.as_here(&program)?;
        programs.push(program);
    }
    // The tests name tracer by the folder of their package.
    let package = layout.tests();
    initramfs.directory(package.to_str().context("the workspace's path is not UTF-8")?)?;
    initramfs.as_here(&tracer)?;
    initramfs.as_here(Path::new("/bin/sh"))?;
    for file in FILES.iter().map(Path::new).filter(|file| file.exists()) {
        initramfs.as_here(file)?;
    }
    for entry in fs::read_dir(&odd)? {
        let program = entry?.path();
        let name = program.file_name().context("a program has a name")?;
        initramfs.file(&Path::new(ODD_PROGRAMS).join(name), &program)?;
        programs.push(program);
    }
    for part in python()? {
        initramfs.as_here(&part)?;
        programs.push(part);
    }
    for library in libraries(layout, &programs)? {
        initramfs.as_here(&library)?;
    }
    initramfs.write(file)
}

/// The distribution's python3 and what a client and a server of HTTPS import, compiled and not.
fn python() -> Result<Vec<PathBuf>> {
    const PYTHON: &str = "/usr/bin/python3";
    const IMPORT: &str = "import sys, encodings.ascii, encodings.idna, encodings.latin_1
import http.client, http.server, ssl, urllib.parse
for module in list(sys.modules.values()):
    for file in (getattr(module, '__file__', None), getattr(module, '__cached__', None)):
        if file: print(file)";
    let output =
        command::stdout(Command::new(PYTHON).args(["-I", "-c", IMPORT]), IF_PACKING_FAILS)?;
    let files = output.lines().map(PathBuf::from).filter(|file| file.is_file());
    Ok(files.chain([PYTHON.into()]).collect())
}

/// Beside them, the package has programs of unit tests.
fn integration_tests(layout: &Layout) -> Result<PathBuf> {
    let is_it = |program: &PathBuf| {
        let name = program.file_name().and_then(std::ffi::OsStr::to_str);
        name.is_some_and(|name| name.starts_with("integration-"))
    };
    let programs = test::elevated_programs(layout)?;
    programs.into_iter().find(is_it).context("cargo built no program of integration tests")
}

const IF_PACKING_FAILS: IfFails<'static> = IfFails {
    it_means: "the file system of the virtual machines cannot be made",
    remedy: "read the messages above; it takes a C compiler, ldd of the C library, and python3",
};

/// What the programs are linked to, and the dynamic loader.
fn libraries(layout: &Layout, programs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut ldd = command::program(layout, "ldd");
    // It fails for a script or a static program, which need none.
    let output = ldd.args(programs).output().context("cannot start `ldd`")?;
    Ok(linked(&String::from_utf8_lossy(&output.stdout)))
}

/// `\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, `\t/lib64/ld-linux-x86-64.so.2 (0x...)`.
fn linked(ldd: &str) -> Vec<PathBuf> {
    let lines = ldd.lines().filter(|line| line.starts_with('\t'));
    let paths = lines.flat_map(|line| line.split_whitespace().filter(|word| word.starts_with('/')));
    let mut paths: Vec<PathBuf> = paths.map(PathBuf::from).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// The tests on this machine's own kernel that say what it has, as they report it.
fn of_this_machine(layout: &Layout) -> Result<(String, Vec<String>)> {
    let report = layout.target().join("vm/report");
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let tests = integration_tests(layout)?;
    let mut tests = test::elevated_test(layout, &tests, &[("TRACER_TEST_REPORT", &report)])?;
    let if_fails = IfFails {
        it_means: "what this machine's kernel has is not known",
        remedy: "read the messages above",
    };
    command::run_shown(tests.args(["sensors::", "--skip", "documentation"]), if_fails)?;
    let release = command::stdout(Command::new("uname").arg("-r"), if_fails)?;
    let report = fs::read_to_string(&report).context("the tests reported nothing")?;
    Ok((release.trim().to_owned(), report.lines().map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_as_ldd_prints_them() {
        let ldd = "/usr/bin/a:\n\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/l/libc.so.6 (0x2)\n\
                   \t/lib64/ld.so.2 (0x3)\n/usr/bin/b:\n\tnot a dynamic executable\n\
                   \tlibc.so.6 => /lib/l/libc.so.6 (0x2)\n";
        assert_eq!(linked(ldd), ["/lib/l/libc.so.6", "/lib64/ld.so.2"].map(PathBuf::from));
    }
}
