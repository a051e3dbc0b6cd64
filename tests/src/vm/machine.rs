//! Makes a usable system out of a kernel and an initramfs, and changes it.

use std::{
    ffi::CStr,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::profile::{Build, PROFILES, Profile};
use crate::network;

/// File systems by type and where they go.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tracefs", "/sys/kernel/tracing"),
    ("securityfs", "/sys/kernel/security"),
    ("bpf", "/sys/fs/bpf"),
];
const CGROUPS: &str = "/sys/fs/cgroup";

pub(super) fn set_up() -> Result<()> {
    for (kind, at) in MOUNTS {
        mount_at(kind, kind, at, None)?;
    }
    mount_at("cgroup2", "cgroup2", CGROUPS, None)?;
    fs::create_dir_all("/dev/shm").context("/dev/shm")?;
    mount_at("devpts", "devpts", "/dev/pts", None)?;
    for (link, to) in [("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0")] {
        std::os::unix::fs::symlink(to, link).context(link)?;
    }
    network::bring_up_loopback()?;
    fs::write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n").context("/etc/hosts")?;
    // SAFETY: nothing else runs yet that could read the environment.
    unsafe { std::env::set_var("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin") };
    // SAFETY: as above.
    unsafe { std::env::set_var(crate::programs::FOLDER, "/programs") };
    Ok(())
}

fn build() -> Build {
    // Only kernels with PREEMPT_RT have the file.
    if Path::new("/sys/kernel/realtime").exists() {
        Build::RealTime
    } else if release().contains("cloud") {
        Build::Cloud
    } else {
        Build::Plain
    }
}

/// The profiles that the kernel's command line names (`profiles=full,cgroup-v1`, which process 1 gets
/// in its environment), or all of this kind of kernel.
pub(super) fn wanted() -> Result<Vec<&'static Profile>> {
    let names = std::env::var("profiles").unwrap_or_default();
    if names.is_empty() {
        let build = build();
        return Ok(PROFILES.iter().filter(|profile| profile.build == build).collect());
    }
    let is_named = |profile: &&Profile, name| profile.name.replace(' ', "-") == name;
    for name in names.split(',') {
        let found = PROFILES.iter().any(|profile| is_named(&profile, name));
        ensure!(found, "there is no profile {name}");
    }
    let wanted = |profile: &&Profile| names.split(',').any(|name| is_named(profile, name));
    Ok(PROFILES.iter().filter(wanted).collect())
}

fn mount_at(source: &str, kind: &str, at: &str, data: Option<&CStr>) -> Result<()> {
    if !Path::new(at).is_dir() {
        fs::create_dir_all(at).with_context(|| at.to_owned())?;
    }
    mount(source, at, kind, MountFlags::empty(), data)
        .with_context(|| format!("mount {kind} at {at}"))
}

/// Kprobes that are armed from now on do nothing.
pub(super) fn without_kprobes() -> Result<()> {
    const SWITCH: &str = "/sys/kernel/debug/kprobes/enabled";
    mount_at("debugfs", "debugfs", "/sys/kernel/debug", None)?;
    fs::write(SWITCH, "0").context(SWITCH)?;
    let state = fs::read_to_string(SWITCH).context(SWITCH)?;
    if state.trim() == "0" { Ok(()) } else { bail!("kprobes are still there: {state}") }
}

pub(super) fn hybrid_cgroups() -> Result<()> {
    only_first_cgroups()?;
    mount_at("cgroup2", "cgroup2", &format!("{CGROUPS}/unified"), None)
}

pub(super) fn v1_cgroups() -> Result<()> {
    only_first_cgroups()
}

/// As systemd does it: a controller or two, and a hierarchy without any.
fn only_first_cgroups() -> Result<()> {
    unmount_cgroups()?;
    mount_at("tmpfs", "tmpfs", CGROUPS, None)?;
    for (name, data) in [("systemd", c"none,name=systemd"), ("cpu", c"cpu"), ("pids", c"pids")] {
        mount_at("cgroup", "cgroup", &format!("{CGROUPS}/{name}"), Some(data))?;
    }
    Ok(())
}

pub(super) fn v2_cgroups() -> Result<()> {
    unmount_cgroups()?;
    mount_at("cgroup2", "cgroup2", CGROUPS, None)
}

fn unmount_cgroups() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut points: Vec<PathBuf> =
        points.filter(|point| point.starts_with(CGROUPS)).map(PathBuf::from).collect();
    points.reverse();
    for point in points {
        unmount(&point, UnmountFlags::empty())
            .with_context(|| format!("unmount {}", point.display()))?;
    }
    Ok(())
}

pub(super) fn lock_down(mode: &str) -> Result<()> {
    const STATE: &str = "/sys/kernel/security/lockdown";
    fs::write(STATE, mode).context(STATE)?;
    let state = fs::read_to_string(STATE).context(STATE)?;
    if state.contains(&format!("[{mode}]")) { Ok(()) } else { bail!("lockdown is {state}") }
}

pub(super) fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}

/// Returns only the reason why it could not.
pub(super) fn power_off() -> io::Error {
    // SAFETY: no memory is involved, and nothing here is worth keeping.
    unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF) };
    io::Error::last_os_error()
}
