//! Finds or installs what building and testing need, below `target/tools`.
//!
//! Nothing of the machine is replaced. Each step prints one line: `ok: ...` if there is nothing to
//! do, `setup: ...` for what it does now. To standard error: with `cargo xtask run -- ARGS`, standard
//! output is tracer's.

mod apt;
mod awscli;
mod chromium;
mod debian;
mod evasions;
mod linker;
mod npm;
mod python;
mod sources;
mod stamp;
mod toolchain;

use std::{
    fs::{self, File, TryLockError},
    path::PathBuf,
};

use anyhow::{Context as _, Result};

pub(crate) use self::apt::{Apt, library_folders};
pub(crate) use self::stamp::{Stamp, replace_if_different};
pub(crate) use self::toolchain::Toolchain;
use crate::layout::Layout;

/// What the kernel side is built with.
#[derive(Debug)]
pub(crate) struct BpfTools {
    pub(crate) toolchain: Toolchain,
    pub(crate) linker: PathBuf,
}

/// What a build needs.
pub(crate) fn for_build(layout: &Layout) -> Result<BpfTools> {
    let _lock = lock(layout)?;
    let toolchain = Toolchain::find_or_install(layout)?;
    let linker = linker::find_or_install(layout, &toolchain)?;
    Ok(BpfTools { toolchain, linker })
}

/// What a build, the bundled session and the tests need.
pub(crate) fn everything(layout: &Layout) -> Result<BpfTools> {
    let tools = for_build(layout)?;
    for_tests(layout)?;
    Ok(tools)
}

/// What the bundled session and the tests need beside what was built.
pub(crate) fn for_tests(layout: &Layout) -> Result<()> {
    let _lock = lock(layout)?;
    npm::install_fixtures(layout)?;
    awscli::find_or_install(layout)?;
    // Tests that need one of these are skipped without it, and say so.
    let optional = [
        python::find_or_install,
        chromium::find_or_install,
        evasions::find_or_install,
        evasions::node,
    ];
    for optional in optional {
        if let Err(error) = optional(layout) {
            eprintln!("setup: not there: {error:#}");
        }
    }
    Ok(())
}

/// The programs that tracer is measured beside.
pub(crate) fn peers(layout: &Layout) -> Result<()> {
    let _lock = lock(layout)?;
    evasions::peers(layout)
}

/// What conformance is compared with, and workloads for it: programs, and the sources that are built.
pub(crate) fn conformance(layout: &Layout, with_sources: bool) -> Result<()> {
    let _lock = lock(layout)?;
    evasions::conformance(layout)?;
    if with_sources { sources::find_or_download(layout) } else { Ok(()) }
}

/// The compiler alone, for tasks that link nothing.
pub(crate) fn toolchain_only(layout: &Layout) -> Result<Toolchain> {
    let _lock = lock(layout)?;
    Toolchain::find_or_install(layout)
}

/// One setup at a time: two of them would unpack into each other's folders.
pub(crate) fn lock(layout: &Layout) -> Result<File> {
    let file = layout.tools().join(".lock");
    let context = || format!("cannot lock {}", file.display());
    fs::create_dir_all(layout.tools()).with_context(context)?;
    let lock = File::create(&file).with_context(context)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("setup: wait for another one that is running");
            lock.lock().with_context(context)?;
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(context),
    }
    Ok(lock)
}
