//! What the running kernel says of itself.

use std::{
    os::fd::{FromRawFd as _, OwnedFd},
    path::Path,
};

/// `uname -r`.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
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
    /// `struct { ... } prog_load` of `union bpf_attr`, include/uapi/linux/bpf.h.
    #[repr(C)]
    #[derive(Default)]
    struct ProgramLoad {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log: [u32; 2],
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
        types_fd: u32,
        function_info_size: u32,
        function_info: u64,
        function_info_count: u32,
        line_info_size: u32,
        line_info: u64,
        line_info_count: u32,
        attach_type_id: u32,
    }
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_TYPE_TRACING: u32 = 26;
    const BPF_TRACE_FEXIT: u32 = 25;
    // r0 = 0; exit
    const INSTRUCTIONS: [u64; 2] = [0xb7, 0x95];
    // Not a function: where such programs are allowed, this one is refused for that.
    const NO_FUNCTION: u32 = 1;
    let attr = ProgramLoad {
        kind: BPF_PROG_TYPE_TRACING,
        instruction_count: INSTRUCTIONS.len() as u32,
        instructions: INSTRUCTIONS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        attach_type: BPF_TRACE_FEXIT,
        attach_type_id: NO_FUNCTION,
        ..ProgramLoad::default()
    };
    // SAFETY: `attr` has the layout that this command reads, and its addresses outlive the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<ProgramLoad>())
    };
    if let Ok(fd) = i32::try_from(fd)
        && fd >= 0
    {
        // SAFETY: the kernel just returned this descriptor and nobody else has it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        return false;
    }
    std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
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
