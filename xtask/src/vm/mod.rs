//! Boots other kernels under QEMU and runs tracer's checks in them.
//!
//! A probe that loads on the kernel it was written on may be refused by another one's verifier, or
//! read a field that has moved. So tracer, a shell and `vm-init` (the checks) are put into an
//! initramfs and started on Debian's kernels, without disk, network card or modules. The processor is
//! emulated, so this needs neither root nor KVM.

mod initramfs;
mod kernels;
mod outcome;
mod qemu;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use self::{
    kernels::{Downloads, Kernel, Wanted},
    outcome::Outcome,
    qemu::Qemu,
};
use crate::{build, command, layout::Layout, setup, tally::Tally};

/// Start to power-off takes about a minute, and twice that on a busy machine. A kernel that hangs is
/// stopped.
const LONGEST_BOOT: Duration = Duration::from_secs(5 * 60);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A kernel series of Debian's (6.1, 6.12) or a bzImage; repeatable [default: 6.1 and 6.12]
    #[arg(long = "kernel", value_name = "SERIES|FILE")]
    kernels: Vec<Wanted>,
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
    let (qemu, busybox, kernels) = find_or_install(layout, &wanted)?;
    let tally = boot_all(layout, &qemu, &busybox, &kernels, options.keep)?;
    println!("{tally}");
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As a step of the tests: what cannot be had on this machine is skipped, with the reason.
pub(crate) fn step(layout: &Layout) -> Result<((), Tally)> {
    let wanted = kernels::default_series();
    match find_or_install(layout, &wanted) {
        Ok((qemu, busybox, kernels)) => {
            Ok(((), boot_all(layout, &qemu, &busybox, &kernels, false)?))
        }
        Err(error) => {
            let reason = format!("{error:#}");
            let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            for kernel in &wanted {
                println!("skipped: the checks on kernel {kernel}: {reason}");
            }
            let skipped = u64::try_from(wanted.len()).unwrap_or(u64::MAX);
            Ok(((), Tally { skipped, ..Tally::NOTHING }))
        }
    }
}

/// Everything that is not ours.
fn find_or_install(layout: &Layout, wanted: &[Wanted]) -> Result<(Qemu, PathBuf, Vec<Kernel>)> {
    if !cfg!(target_arch = "x86_64") {
        return Err(anyhow!("the virtual machines are x86_64, and this machine is not"));
    }
    let _lock = setup::lock(layout)?;
    let mut downloads = Downloads::new(layout);
    let qemu = Qemu::find_or_install(layout, &mut downloads)?;
    let busybox = downloads.busybox()?;
    let kernels = wanted.iter().map(|kernel| downloads.kernel(kernel)).collect::<Result<_>>()?;
    Ok((qemu, busybox, kernels))
}

/// Boots all kernels at once: the emulation of each uses little more than one processor.
fn boot_all(
    layout: &Layout,
    qemu: &Qemu,
    busybox: &Path,
    kernels: &[Kernel],
    keep: bool,
) -> Result<Tally> {
    let folder = layout.target().join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let initramfs = folder.join("initramfs");
    initramfs::write(&initramfs, &programs(layout, busybox)?)?;
    let boots: Vec<_> = thread::scope(|scope| {
        let boots: Vec<_> = kernels
            .iter()
            .map(|kernel| scope.spawn(|| boot(qemu, kernel, &initramfs, &folder)))
            .collect();
        boots.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut tally = Tally::NOTHING;
    for (kernel, boot) in kernels.iter().zip(boots) {
        let outcome = boot.map_err(|_| anyhow!("the thread of a virtual machine panicked"))??;
        print!("{outcome}");
        tally += outcome.tally();
        if keep {
            println!("  $ {}", command::render(&qemu.command(kernel, &initramfs)));
        }
    }
    if !keep {
        fs::remove_file(&initramfs)
            .with_context(|| format!("cannot remove {}", initramfs.display()))?;
    }
    Ok(tally)
}

fn boot(qemu: &Qemu, kernel: &Kernel, initramfs: &Path, folder: &Path) -> Result<Outcome> {
    let started = Instant::now();
    let log = folder.join(format!("{}.log", kernel.name));
    let ending = qemu.boot(kernel, initramfs, &log, LONGEST_BOOT)?;
    let console = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let console = String::from_utf8_lossy(&console);
    Ok(Outcome::of_console(&kernel.name, &console, ending, started.elapsed()))
}

/// A program that calls getaddrinfo of glibc, and all that it needs; nothing where this machine has
/// another C library.
fn resolving() -> Vec<PathBuf> {
    let libraries = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/usr/lib/libc.so.6"];
    let library = libraries.iter().map(Path::new).find(|path| path.is_file());
    let others = ["/usr/bin/getent", "/lib64/ld-linux-x86-64.so.2"].map(Path::new);
    let all: Vec<PathBuf> = library.into_iter().chain(others).map(Path::to_owned).collect();
    if library.is_some() && all.iter().all(|path| path.is_file()) { all } else { Vec::new() }
}

/// Static programs, because the virtual machine has no C library but for the one that is watched.
fn programs(layout: &Layout, busybox: &Path) -> Result<initramfs::Programs> {
    let built = build::static_programs(layout, &["tracer", "vm-init"])?;
    Ok(initramfs::Programs {
        init: built.join("vm-init"),
        tracer: built.join("tracer"),
        busybox: busybox.to_owned(),
        copied: resolving(),
    })
}
