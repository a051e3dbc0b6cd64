//! The emulator.

use std::{
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::kernels::{Downloads, Kernel};
use crate::{command, layout::Layout, setup};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// The options of every virtual machine. TCG, the emulation, because KVM is often missing or broken
/// where tests run; `max` is every processor feature it can emulate, without the two that say that copies
/// from byte to byte are fast, which they are not when emulated. Two processors, so that events
/// of one process come from several; one thread emulates both, because with a thread for each the
/// kernel died once of a breakpoint that it had already taken away again (a perf event's static key
/// in `__schedule`): the emulation ran code that the other processor had just changed.
const MACHINE: [&str; 11] = [
    "-accel",
    "tcg,thread=single",
    "-cpu",
    "max,-erms,-fsrm",
    "-smp",
    "2",
    "-m",
    "1280M",
    "-nographic",
    "-no-reboot",
    "-nic",
];

/// Only errors on the console; a panic ends the machine at once instead of leaving it hanging. Without a
/// check of the timer: on a busy machine the emulation is late with its ticks, and the kernel panics
/// ("IO-APIC + timer doesn't work").
///
/// The rest is for speed, half of the time together: the clock is the processor's counter (else the
/// kernel may distrust it and read an emulated device, up to a tenth of the time); no detours against attacks on real
/// processors; no pages zeroed twice; addresses that stay the same, so that what was translated for one
/// process can be used for the next.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check tsc=reliable mitigations=off \
                                   init_on_alloc=0 nokaslr norandmaps";

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    PoweredOff,
    /// QEMU itself failed.
    QemuFailed,
    StoppedAfter(Duration),
}

#[derive(Debug)]
pub(super) struct Qemu {
    layout_root: PathBuf,
    program: PathBuf,
    /// Where its libraries and firmware are, when it is not installed.
    unpacked: Option<PathBuf>,
}

impl Qemu {
    pub(super) fn find_or_install(layout: &Layout, downloads: &mut Downloads<'_>) -> Result<Self> {
        let layout_root = layout.root().to_owned();
        if let Some(program) = command::on_path(PROGRAM) {
            return Ok(Self { layout_root, program, unpacked: None });
        }
        let program = downloads
            .package(PACKAGE, &[&format!("usr/bin/{PROGRAM}")])
            .with_context(|| format!("{PROGRAM} is not on PATH and cannot be downloaded"))?;
        Ok(Self { layout_root, program, unpacked: Some(layout.tools().join(PACKAGE)) })
    }

    pub(super) fn command(&self, kernel: &Kernel, initramfs: &Path) -> Command {
        let mut qemu = Command::new(&self.program);
        qemu.current_dir(&self.layout_root).stdin(std::process::Stdio::null());
        if let Some(folder) = &self.unpacked {
            let libraries = setup::library_folders(folder);
            let joined: Vec<OsString> = libraries.into_iter().map(OsString::from).collect();
            qemu.env("LD_LIBRARY_PATH", joined.join(std::ffi::OsStr::new(":")));
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                qemu.arg("-L").arg(folder.join(firmware));
            }
        }
        qemu.args(MACHINE).arg("none").arg("-kernel").arg(&kernel.image);
        // What the kernel does not know it hands to process 1, in its environment.
        let line = format!("{KERNEL_COMMAND_LINE} profiles={}", kernel.profiles);
        qemu.arg("-initrd").arg(initramfs).args(["-append", &line]);
        qemu
    }

    /// Runs the machine to its end, with the console going to a file.
    pub(super) fn boot(
        &self,
        kernel: &Kernel,
        initramfs: &Path,
        console: &Path,
        limit: Duration,
    ) -> Result<Ending> {
        const POLL: Duration = Duration::from_millis(100);
        let context = || format!("cannot write {}", console.display());
        let file = File::create(console).with_context(context)?;
        let mut qemu = self.command(kernel, initramfs);
        qemu.stdout(file.try_clone().with_context(context)?).stderr(file);
        eprintln!("$ {} > {}", command::render(&qemu), console.display());
        let mut child = qemu.spawn().with_context(|| {
            format!("cannot start `{}`; remove target/tools/{PACKAGE}", self.program.display())
        })?;
        let deadline = Instant::now() + limit;
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(Ending::PoweredOff),
                Some(_) => return Ok(Ending::QemuFailed),
                None if Instant::now() >= deadline => {
                    child.kill()?;
                    child.wait()?;
                    return Ok(Ending::StoppedAfter(limit));
                }
                None => thread::sleep(POLL),
            }
        }
    }
}
