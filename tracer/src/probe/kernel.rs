//! What the running kernel says of itself.

use std::path::Path;

use super::raw::{self, ProgramLoad};

/// `uname -r`.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// A kernel by the first two numbers of its release, or of a version that a sensor names.
pub(super) fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split(|byte: char| !byte.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}

/// The kernel's lockdown mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// `none`, `integrity` or `confidentiality`.
    Mode(String),
    /// securityfs is not mounted or the kernel has no lockdown.
    Unknown,
}

pub fn lockdown() -> Lockdown {
    // "none [integrity] confidentiality": the one in brackets is in force.
    std::fs::read_to_string(Path::new("/sys/kernel/security/lockdown"))
        .ok()
        .and_then(|text| {
            let (_, rest) = text.split_once('[')?;
            let (mode, _) = rest.split_once(']')?;
            Some(Lockdown::Mode(mode.to_owned()))
        })
        .unwrap_or(Lockdown::Unknown)
}

/// Whether the kernel is one with PREEMPT_RT, which alone has the file.
pub(super) fn is_real_time() -> bool {
    Path::new("/sys/kernel/realtime").exists()
}

/// Whether the kernel kills processes for a uretprobe. From 6.11 on they come back to it by a system
/// call that a seccomp filter, made when there was none of that number, refuses or punishes; later
/// kernels do not ask the filter.
pub(super) fn kills_at_uretprobes(release: &str) -> bool {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    match (next(), next(), next()) {
        // The stable releases got the mend somewhat earlier; which one first was not looked up.
        (6, 11 | 13, _) => true,
        (6, 12, patch) => patch < 20,
        _ => false,
    }
}

/// Whether programs on kernel functions are refused as such, whatever they do: some kernels are built
/// or locked down that way. Asked with a program of two instructions, because for a real one all of
/// the kernel's types have to be read first.
pub(super) fn refuses_function_probes() -> bool {
    const BPF_PROG_TYPE_TRACING: u32 = 26;
    // r0 = 0; exit
    const INSTRUCTIONS: [u64; 2] = [0xb7, 0x95];
    // Not a function: where such programs are allowed, this one is refused for that.
    const NO_FUNCTION: u32 = 1;
    let attr = ProgramLoad {
        kind: BPF_PROG_TYPE_TRACING,
        instruction_count: INSTRUCTIONS.len() as u32,
        instructions: INSTRUCTIONS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        attach_type: raw::TRACE_FEXIT,
        attach_type_id: NO_FUNCTION,
        ..ProgramLoad::default()
    };
    match raw::open(raw::PROG_LOAD, &attr) {
        Ok(_) => false,
        Err(error) => error.raw_os_error() == Some(libc::EPERM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_kill_at_uretprobes() {
        for kills in ["6.11.0-29-generic", "6.12.9+bpo-amd64", "6.13.12", "6.13"] {
            assert!(kills_at_uretprobes(kills), "{kills}");
        }
        for safe in ["6.1.0-32-amd64", "6.10.11", "6.12.38+deb13-amd64", "6.14.0", "?"] {
            assert!(!kills_at_uretprobes(safe), "{safe}");
        }
    }
}
