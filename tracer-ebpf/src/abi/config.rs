//! What the collector tells the kernel side.

use super::header_flag;

/// Why a process is enrolled; passed to the `enrol` program as its first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Role {
    /// The traced command, or a process that `attach` found.
    Traced = 0,
    /// tracer's own check that the probes fire.
    Canary = 1,
}

impl Role {
    /// The flag that the process and its descendants carry.
    pub const fn header_flags(self) -> u32 {
        match self {
            Role::Traced => 0,
            Role::Canary => header_flag::CANARY,
        }
    }
}

/// Value of the `FAIL_EVERY` globals that switches the simulated loss off.
pub const FAIL_NEVER: u32 = 0;
