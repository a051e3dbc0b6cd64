//! Names of things that survive reuse of numbers.

use std::{fmt, net::IpAddr};

use tracer_ebpf::abi::ExecFile;

/// A process: a pid is reused, a pid with its start time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// `CLOCK_BOOTTIME` nanoseconds.
    pub start_ns: u64,
}

/// A device number, in the kernel's own encoding (`include/linux/kdev_t.h`: 12 bits of major above
/// 20 of minor), which is not the one `stat(2)` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device(pub u32);

impl Device {
    const MINOR_BITS: u32 = 20;

    pub fn new(major: u32, minor: u32) -> Device {
        Device(major << Self::MINOR_BITS | minor)
    }

    /// From `st_dev`.
    pub fn from_stat(st_dev: u64) -> Device {
        Device::new(libc::major(st_dev), libc::minor(st_dev))
    }

    pub fn major(self) -> u32 {
        self.0 >> Self::MINOR_BITS
    }

    pub fn minor(self) -> u32 {
        self.0 & ((1 << Self::MINOR_BITS) - 1)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major(), self.minor())
    }
}

/// A file on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    pub device: Device,
    pub inode: u64,
}

/// A file as it was at one moment: whoever changes its content changes its ctime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileVersion {
    pub id: FileId,
    pub size_bytes: u64,
    pub ctime_ns: i64,
}

impl From<&ExecFile> for FileVersion {
    fn from(file: &ExecFile) -> FileVersion {
        FileVersion {
            id: FileId { device: Device(file.key.device), inode: file.key.inode },
            size_bytes: file.size_bytes,
            ctime_ns: nanoseconds(file.ctime_s, file.ctime_ns),
        }
    }
}

/// Seconds and the rest as one number.
pub(crate) fn nanoseconds(seconds: i64, rest: u32) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(rest))
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}
