//! What the running kernel says of itself.

use std::path::Path;

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
