//! Makes a usable system out of a kernel and an initramfs.

use std::{
    ffi::CStr,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};

/// The odd programs' file. It is a copy, not process 1's own file, so that the two differ.
pub(super) const ODD: &str = "/bin/odd";
/// A file of the name that policy `no-aws-cli` is about.
pub(super) const AWS: &str = "/opt/aws";
/// Other names of it. Not in its own folder, where a second name would make it a program that goes by
/// several.
pub(super) const AWS_BY_SYMLINK: &str = "/tmp/helper";
pub(super) const AWS_BY_HARD_LINK: &str = "/run/tool";
/// Another file with the same content.
pub(super) const AWS_BY_COPY: &str = "/tmp/copy";

/// File systems by type and where they go.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

pub(super) fn set_up() -> Result<()> {
    for (kind, at) in MOUNTS {
        mount_at(kind, kind, at, MountFlags::empty())?;
    }
    // SAFETY: nothing else runs yet that could read the environment.
    unsafe { std::env::set_var("PATH", "/bin:/opt") };
    run("/bin/busybox", &["--install", "-s", "/bin"])?;
    run("/bin/ip", &["link", "set", "lo", "up"])?;
    fs::copy("/init", ODD).context(ODD)?;
    fs::copy(ODD, AWS).context(AWS)?;
    // Of a content of its own, which no loader looks at behind a program's end.
    OpenOptions::new().append(true).open(AWS)?.write_all(b"aws").context(AWS)?;
    fs::copy(AWS, AWS_BY_COPY).context(AWS_BY_COPY)?;
    symlink(AWS, AWS_BY_SYMLINK).context(AWS_BY_SYMLINK)?;
    fs::hard_link(AWS, AWS_BY_HARD_LINK).context(AWS_BY_HARD_LINK)
}

pub(super) fn mount_at(source: &str, kind: &str, at: &str, flags: MountFlags) -> Result<()> {
    mount(source, at, kind, flags, None::<&CStr>).with_context(|| format!("mount {kind} at {at}"))
}

/// Shows a folder at a second place.
pub(super) fn bind(folder: &str, at: &str) -> Result<()> {
    mount_at(folder, "none", at, MountFlags::BIND)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status().context(program.to_owned())?;
    ensure!(status.success(), "{program} {}: {status}", arguments.join(" "));
    Ok(())
}

pub(super) fn write_program(file: impl AsRef<Path>, content: &str) -> Result<()> {
    let file = file.as_ref();
    fs::write(file, content)
        .and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(0o755)))
        .with_context(|| file.display().to_string())
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
