//! Everything that talks to the kernel's BPF side. aya appears only here.
//!
//! [`sensors::SENSORS`] is the one table of what is attached where; loading, `doctor`, the first
//! line of a recording and the completeness statement read it.

mod attach;
mod attached;
mod btf;
#[cfg(feature = "debug-log")]
mod debug_log;
mod enlist;
mod error;
mod finder;
mod guard;
mod kernel;
mod links;
mod load;
mod mappings;
mod object;
mod options;
mod plain;
mod raw;
pub mod sensors;
mod threads;
mod tls;

pub use attached::{Attached, Breakpoints, Deputy, FinalCounters};
pub use btf::{BtfError, Offsets};
pub use enlist::{Enroller, Identifier, Opener};
pub use error::LoadError;
pub use finder::{Finder, PidFd};
pub use kernel::{Lockdown, kernel_release, lockdown};
pub(crate) use links::to_breakpoints;
pub use load::{CgroupTarget, Loaded, Rings};
pub use options::{Debug, Library, Options};
pub use tls::{TlsFunction, TlsLibrary, TlsSessions};
