//! The lab's network and mount namespaces: made by one thread, entered by each command.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::{env, io};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::Host;

/// The loopback address of the name server, as resolv.conf gives it.
pub(super) const NAMESERVER: &str = "127.0.0.1";

/// Open descriptors of the two namespaces, which keep them alive.
#[derive(Debug)]
pub(super) struct Namespaces {
    pub(super) network: OwnedFd,
    mount: OwnedFd,
}

impl Namespaces {
    /// Moves the calling thread, and nothing else, into new namespaces.
    pub(super) fn unshare() -> Result<Self> {
        // SAFETY: UnshareFlags::FILES, the one that could pull descriptors away under their
        // owners, is not among the flags.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }
            .context("cannot make network and mount namespaces (is CAP_SYS_ADMIN missing?)")?;
        // Else a mount made here would appear outside.
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context("cannot make the mounts private")?;
        let open = |path: &str| File::open(path).with_context(|| format!("cannot open {path}"));
        Ok(Self {
            network: open("/proc/thread-self/ns/net")?.into(),
            mount: open("/proc/thread-self/ns/mnt")?.into(),
        })
    }

    /// Moves the calling process into the namespaces and keeps its working directory by name.
    /// Makes system calls only: it runs between fork and exec, as a child of process `lab`.
    pub(super) fn enter(&self, lab: Pid) -> io::Result<()> {
        // The server's last sweep finds processes by their network namespace. A lab that is killed
        // while this one is on its way there would leave it behind, so until then it dies with it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(lab) {
            return Err(io::Error::from_raw_os_error(libc::EOWNERDEAD));
        }
        // Joining a mount namespace moves root and working directory to its top.
        let mut buffer = [0_u8; libc::PATH_MAX as usize];
        // SAFETY: the pointer and the length are those of a live, writable buffer.
        let name = unsafe { libc::getcwd(buffer.as_mut_ptr().cast(), buffer.len()) };
        if name.is_null() {
            return Err(io::Error::last_os_error());
        }
        let directory = CStr::from_bytes_until_nul(&buffer)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?;
        let join = |fd: &OwnedFd, kind| move_into_link_name_space(fd.as_fd(), Some(kind));
        join(&self.network, LinkNameSpaceType::Network)?;
        join(&self.mount, LinkNameSpaceType::Mount)?;
        rustix::process::chdir(directory)?;
        set_parent_process_death_signal(None)?;
        Ok(())
    }
}

/// An empty directory that exists anyway, to mount the lab's files on: making one would leave a
/// trace outside when the lab is killed.
pub(super) fn mount_point() -> Result<PathBuf> {
    let current = env::current_dir().unwrap_or_default();
    ["/srv", "/media", "/mnt"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| {
            let empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
            empty && !current.starts_with(path)
        })
        .context("the lab needs an empty /srv, /media or /mnt to mount its own files on")
}

pub(super) fn mount_private_tmpfs(root: &Path) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", root, "tmpfs", flags, c"mode=755,size=64m")
        .with_context(|| format!("cannot mount a tmpfs on {}", root.display()))
}

/// Writes the lab's own resolver configuration and puts it over the machine's.
pub(super) fn bind_over_etc(root: &Path, known: &[Host]) -> Result<()> {
    let folder = root.join("etc");
    fs::create_dir(&folder).context("cannot make the lab's etc")?;
    let machine = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let in_file = known.iter().filter(|host| host.file);
    let lines = in_file.map(|host| format!("{} {}\n", host.address, host.name));
    let hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned() + &lines.collect::<String>();
    let files = [
        ("resolv.conf", format!("nameserver {NAMESERVER}\n")),
        ("hosts", hosts),
        ("nsswitch.conf", only_files_and_dns(&machine)),
    ];
    for (name, text) in files {
        let ours = folder.join(name);
        let theirs = Path::new("/etc").join(name);
        fs::write(&ours, text).with_context(|| format!("cannot write {}", ours.display()))?;
        // Without the file libc falls back to what the lab wants anyway: 127.0.0.1, files, dns.
        if theirs.exists() {
            mount_bind(&ours, &theirs)
                .with_context(|| format!("cannot mount over {}", theirs.display()))?;
        }
    }
    // A name service cache daemon would answer for the machine, over a socket, from outside.
    let cache = Path::new("/run/nscd");
    if cache.is_dir() {
        mount("tmpfs", cache, "tmpfs", MountFlags::empty(), c"mode=755,size=4k")
            .context("cannot mount over /run/nscd")?;
    }
    Ok(())
}

/// The machine's nsswitch.conf without services such as nss-resolve, which ask a daemon outside.
pub(super) fn only_files_and_dns(machine: &str) -> String {
    let others = machine.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    others.chain(["hosts: files dns"]).flat_map(|line| [line, "\n"]).collect()
}

pub(super) fn bring_up_loopback() -> Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .context("cannot open a socket")?;
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        *to = from.cast_signed();
    }
    // IFF_UP is 1 in every ABI, so it fits the field.
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let status = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if status != 0 {
        return Err(io::Error::last_os_error()).context("cannot bring up the lab's loopback");
    }
    Ok(())
}
