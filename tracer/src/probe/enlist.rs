//! Programs that a process runs on itself.
//!
//! `BPF_PROG_TEST_RUN` executes a raw tracepoint program in the context of the caller (5.10+), so
//! what such a program learns about "the current task" needs no pid and no path.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
    sync::Arc,
};

use aya::{
    Pod,
    maps::{Array, Map, MapData, MapError},
};
use tracer_ebpf::abi::{ExecFile, Role};

use crate::model::FileVersion;

/// Lets the calling process put itself into the tree.
#[derive(Debug)]
pub struct Enroller {
    program: OwnedFd,
}

impl Enroller {
    /// `program` is the one that enrols whoever runs it.
    pub(crate) fn new(program: OwnedFd) -> Enroller {
        Enroller { program }
    }

    pub(crate) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Async-signal-safe: it allocates nothing, so it may run between fork and exec.
    pub fn enrol(&self, role: Role) -> io::Result<()> {
        match run(&self.program, &[role as u64])? {
            0 => Ok(()),
            // The tree is full, or the process's own ids could not be read.
            _ => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }
}

/// Who opens files for tracer when it may not do so itself any more.
pub trait Opener: std::fmt::Debug + Send + Sync {
    /// As [`Identifier::open_here`].
    fn open(&self, path: &Path) -> io::Result<File>;
    /// As [`Identifier::read_here`].
    fn read(&self, handle: BorrowedFd<'_>) -> io::Result<File>;
}

/// Opens files, and tells them apart as the exec probe does.
pub struct Identifier {
    program: OwnedFd,
    answer: Array<MapData, PlainFile>,
    opener: Option<Arc<dyn Opener>>,
}

impl std::fmt::Debug for Identifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identifier").field("program", &self.program).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PlainFile(ExecFile);

// SAFETY: repr(C) integers without padding (zerocopy's IntoBytes holds for ExecFile), for which any
// bytes are a value.
unsafe impl Pod for PlainFile {}

impl Identifier {
    pub(super) fn new(program: OwnedFd, map: Map) -> Result<Identifier, MapError> {
        Ok(Identifier { program, answer: Array::try_from(map)?, opener: None })
    }

    /// The regular file at a path, symbolic links followed.
    pub fn file_at(&self, path: &Path) -> Option<FileVersion> {
        self.version_of(&self.open(path).ok()?)
    }

    /// Most files are anybody's to open, and asking somebody else takes longer.
    fn or_by_opener(
        &self,
        here: io::Result<File>,
        ask: impl FnOnce(&dyn Opener) -> io::Result<File>,
    ) -> io::Result<File> {
        match (here, &self.opener) {
            (Err(error), Some(opener)) if error.kind() == io::ErrorKind::PermissionDenied => {
                ask(&**opener)
            }
            (here, _) => here,
        }
    }

    /// From now on files that this process may not open are opened by somebody else.
    pub fn open_through(&mut self, opener: Arc<dyn Opener>) {
        self.opener = Some(opener);
    }

    /// A descriptor that names the file and does nothing else, so the file need not be readable.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        self.or_by_opener(Identifier::open_here(path), |opener| opener.open(path))
    }

    /// Opens for reading what such a descriptor names.
    pub fn read(&self, handle: &File) -> io::Result<File> {
        self.or_by_opener(Identifier::read_here(handle.as_fd()), |opener| {
            opener.read(handle.as_fd())
        })
    }

    /// As [`Identifier::open`], with the rights of this process.
    pub fn open_here(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path)
    }

    /// As [`Identifier::read`], with the rights of this process.
    pub fn read_here(handle: BorrowedFd<'_>) -> io::Result<File> {
        let this = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
        OpenOptions::new().read(true).custom_flags(flags).open(this)
    }

    /// The version of an open regular file.
    pub fn version_of(&self, file: &File) -> Option<FileVersion> {
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let descriptor = u64::try_from(file.as_raw_fd()).ok()?;
        if run(&self.program, &[descriptor]).ok()? != 0 {
            return None;
        }
        let PlainFile(found) = self.answer.get(&0, 0).ok()?;
        Some(FileVersion::from(&found))
    }
}

/// Runs a raw tracepoint program here and now; returns what it returned.
pub(super) fn run(program: &OwnedFd, arguments: &[u64]) -> io::Result<u32> {
    /// `struct { ... } test` of `union bpf_attr`, include/uapi/linux/bpf.h.
    #[repr(C)]
    #[derive(Default)]
    struct TestRun {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        padding: u32,
    }
    const BPF_PROG_TEST_RUN: libc::c_long = 10;
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        ctx_size_in: size_of_val(arguments) as u32,
        ctx_in: arguments.as_ptr() as u64,
        ..TestRun::default()
    };
    // SAFETY: `attr` has the layout that this command reads and writes, and `ctx_in` points to
    // `ctx_size_in` bytes that outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of::<TestRun>())
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(attr.retval) }
}
