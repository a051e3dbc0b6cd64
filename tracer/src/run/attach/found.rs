//! What a process that was found is, and has open.
//!
//! Its file comes from the kernel, through `/proc/PID/exe`, and is as good as that of an exec. Its argv is
//! what its own memory says now.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs,
    net::SocketAddr,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use procfs::{
    ProcError,
    process::{FDTarget, MMPermissions, MMapPath, MemoryMap, Process},
};

use super::{search::Look, threads};
use crate::{
    model::{Bytes, Device, FileId, FileVersion},
    probe::Identifier,
    record::schema::{Argv, Credentials, Exec, ExecutedFile, FoundSocket, SocketProtocol},
    run::tls::FoundCode,
};

/// What stands behind the path of a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";

/// The image of a process, and where its file can be read.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) exec: Exec,
    pub(super) content: Option<(FileVersion, PathBuf)>,
}

/// The thread that /proc tells of the process through.
fn readable(look: &Look) -> u32 {
    threads::living(look.pid).unwrap_or(look.pid)
}

pub(super) fn image(look: &Look, t_ns: u64, identifier: &Identifier) -> Image {
    let folder = PathBuf::from(format!("/proc/{}", readable(look)));
    let mut unread = Vec::new();
    let mut unless = |what: &str, missing: bool| {
        if missing {
            unread.push(what.to_owned());
        }
    };
    let link = folder.join("exe");
    let path = fs::read_link(&link).ok();
    let file = executed_file(&link, path.as_deref(), identifier);
    unless("file", file.is_none());
    let cwd = fs::read_link(folder.join("cwd")).ok();
    unless("cwd", cwd.is_none());
    let argv = fs::read(folder.join("cmdline")).ok();
    unless("argv", argv.is_none());
    let credentials = credentials(&folder);
    unless("credentials", credentials.is_none());
    let path_bytes = path.as_deref().map(|path| path.as_os_str().as_bytes());
    let memfd = path_bytes.is_some_and(|path| path.starts_with(b"/memfd:"));
    let exec = Exec {
        t_ns,
        process: look.key(),
        thread: None,
        filename: path.as_deref().map(|path| plain(path).into()),
        argv: argv.map_or_else(
            || Argv { args: Vec::new(), total_bytes: 0, complete: false },
            |bytes| words(&bytes),
        ),
        cwd: cwd.map(|cwd| Bytes::from(cwd.as_path())),
        unlinked: file.as_ref().is_some_and(|(_, links)| *links == 0),
        file: file.as_ref().map(|(file, _)| file.clone()),
        script: None,
        memfd,
        witness_detached: false,
        found: true,
        killed: false,
        credentials,
        environment: None,
        stdio: None,
        cgroup_id: look.found.cgroup_id,
        ns_pid: (look.found.ns_pid != 0).then_some(look.found.ns_pid),
        pid_ns_inum: (look.found.pid_ns_inum != 0).then_some(look.found.pid_ns_inum),
        unread,
    };
    let content = file.map(|(file, _)| (file.version(), link));
    Image { exec, content }
}

/// Files that the process has mapped as code now.
pub(super) fn code(look: &Look, t_ns: u64, program: Option<FileId>) -> Vec<FoundCode> {
    // One that has ended has mapped nothing.
    let thread = readable(look);
    let maps = i32::try_from(thread).ok().and_then(|pid| Process::new(pid).ok()?.maps().ok());
    let mut seen = BTreeSet::new();
    let code = maps.into_iter().flatten().filter_map(|map| {
        let MMapPath::Path(path) = &map.pathname else { return None };
        let (major, minor) = (u32::try_from(map.dev.0).ok()?, u32::try_from(map.dev.1).ok()?);
        let id = FileId { device: Device::new(major, minor), inode: map.inode };
        let is_new = map.perms.contains(MMPermissions::EXECUTE) && seen.insert(id);
        is_new.then(|| FoundCode {
            process: look.key(),
            pid: thread,
            t_ns,
            id,
            path: plain(path).into(),
            is_deleted: path.as_os_str().as_bytes().ends_with(DELETED),
            is_program: Some(id) == program,
        })
    });
    code.collect()
}

/// Files that a process has mapped as code, as tracer can open them, whatever the process has for its root. None
/// where it has ended or may not be looked at.
pub(super) fn mapped_files(pid: u32) -> BTreeSet<PathBuf> {
    let Some(thread) = threads::living(pid) else { return BTreeSet::new() };
    let maps = i32::try_from(thread).ok().and_then(|pid| Process::new(pid).ok()?.maps().ok());
    let root = PathBuf::from(format!("/proc/{thread}/root"));
    let file = |map: MemoryMap| {
        let MMapPath::Path(path) = map.pathname else { return None };
        let is_code = map.perms.contains(MMPermissions::EXECUTE);
        is_code.then(|| Some(root.join(path.strip_prefix("/").ok()?)))?
    };
    maps.into_iter().flatten().filter_map(file).collect()
}

/// A path that the kernel marks as deleted, without that mark.
fn plain(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_suffix(DELETED).unwrap_or(bytes)
}

/// The file, and how many names it has.
fn executed_file(
    link: &Path,
    path: Option<&Path>,
    identifier: &Identifier,
) -> Option<(ExecutedFile, u64)> {
    let handle = identifier.open(link).ok()?;
    let version = identifier.version_of(&handle)?;
    let metadata = handle.metadata().ok()?;
    let file = ExecutedFile {
        path: path.map(|path| plain(path).into()),
        path_cut: false,
        device: version.id.device,
        inode: version.id.inode,
        size_bytes: version.size_bytes,
        mtime_ns: metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec()),
        ctime_ns: version.ctime_ns,
        mode: metadata.mode(),
    };
    Some((file, metadata.nlink()))
}

/// As `/proc/PID/cmdline` has it: each word ends with a NUL.
fn words(bytes: &[u8]) -> Argv {
    let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let args = text.split(|byte| *byte == 0).map(Bytes::from);
    let args = if bytes.is_empty() { Vec::new() } else { args.collect() };
    Argv { args, total_bytes: bytes.len() as u64, complete: true }
}

/// From `/proc/PID/status` (proc(5)): real, effective, saved and file system ids.
fn credentials(folder: &Path) -> Option<Credentials> {
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let ids = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let mut ids = line.split_whitespace().map(str::parse::<u32>);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    };
    let ((uid, euid), (gid, egid)) = (ids("Uid:")?, ids("Gid:")?);
    Some(Credentials { uid, euid, gid, egid })
}

/// The sockets of network namespaces, by inode. Each table is read once.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    namespaces: BTreeMap<u64, BTreeMap<u64, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    protocol: SocketProtocol,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    state: Option<String>,
    path: Option<Bytes>,
}

impl Sockets {
    /// Those that the process has open, or why that is not known.
    pub(super) fn of(&mut self, look: &Look, t_ns: u64) -> Result<Vec<FoundSocket>, String> {
        let about = |error: ProcError| {
            format!("the sockets of process {} could not be read: {error}", look.pid)
        };
        let thread = readable(look);
        let pid = i32::try_from(thread).map_err(|error| error.to_string())?;
        let process = Process::new(pid).map_err(about)?;
        let mut inodes = BTreeMap::new();
        for descriptor in process.fd().map_err(about)? {
            // A descriptor that was closed meanwhile.
            let Ok(descriptor) = descriptor else { continue };
            if let FDTarget::Socket(inode) = descriptor.target {
                inodes.entry(inode).or_insert(descriptor.fd);
            }
        }
        if inodes.is_empty() {
            return Ok(Vec::new());
        }
        let link = format!("/proc/{thread}/ns/net");
        let namespace = fs::metadata(link).map_err(|error| about(error.into()))?.ino();
        let table = match self.namespaces.entry(namespace) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(table(&process).map_err(about)?),
        };
        let socket = |(inode, descriptor): (u64, i32)| {
            let known = table.get(&inode).cloned();
            let (protocol, kind) = match &known {
                Some(known) => (Some(known.protocol), None),
                None => kind(thread, descriptor),
            };
            FoundSocket {
                t_ns,
                process: look.key(),
                inode,
                protocol,
                kind,
                local: known.as_ref().and_then(|known| known.local),
                remote: known.as_ref().and_then(|known| known.remote),
                state: known.as_ref().and_then(|known| known.state.clone()),
                path: known.and_then(|known| known.path),
            }
        };
        Ok(inodes.into_iter().map(socket).collect())
    }
}

/// What the kernel calls a socket that no table has: one that is neither bound nor connected, of a protocol
/// without a table, or of another namespace. It is asked by the descriptor, so a socket that took the number
/// meanwhile answers for the one before; both are the process's.
fn kind(pid: u32, descriptor: i32) -> (Option<SocketProtocol>, Option<String>) {
    // Longer than any name of a protocol (32 bytes, struct proto).
    let mut name = [0; 64];
    let path = format!("/proc/{pid}/fd/{descriptor}");
    let Ok(len) = rustix::fs::getxattr(path, "system.sockprotoname", &mut name) else {
        return (None, None);
    };
    let name = name[..len].split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    match name.strip_suffix("v6").unwrap_or(&name) {
        "tcp" => (Some(SocketProtocol::Tcp), None),
        "udp" => (Some(SocketProtocol::Udp), None),
        "unix" | "unix-stream" => (Some(SocketProtocol::Unix), None),
        other => (None, Some(other.to_owned())),
    }
}

/// The sockets of a process's network namespace. Where IPv6 is switched off its tables are missing.
fn table(process: &Process) -> Result<BTreeMap<u64, Known>, ProcError> {
    let optional = |result| match result {
        Err(ProcError::NotFound(_)) => Ok(Vec::new()),
        other => other,
    };
    let optional_udp = |result| match result {
        Err(ProcError::NotFound(_)) => Ok(Vec::new()),
        other => other,
    };
    let peer = |address: SocketAddr| (!address.ip().is_unspecified()).then_some(address);
    let mut known = BTreeMap::new();
    for entry in process.tcp()?.into_iter().chain(optional(process.tcp6())?) {
        let socket = Known {
            protocol: SocketProtocol::Tcp,
            local: Some(entry.local_address),
            remote: peer(entry.remote_address),
            state: Some(format!("{:?}", entry.state).to_lowercase()),
            path: None,
        };
        known.insert(entry.inode, socket);
    }
    for entry in process.udp()?.into_iter().chain(optional_udp(process.udp6())?) {
        let socket = Known {
            protocol: SocketProtocol::Udp,
            local: Some(entry.local_address),
            remote: peer(entry.remote_address),
            state: None,
            path: None,
        };
        known.insert(entry.inode, socket);
    }
    for entry in process.unix()? {
        let socket = Known {
            protocol: SocketProtocol::Unix,
            local: None,
            remote: None,
            state: None,
            path: entry.path.map(|path| Bytes::from(path.as_path())),
        };
        known.insert(entry.inode, socket);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_with_a_nul() {
        let check = |bytes: &[u8], expected: &[&str]| {
            let args: Vec<Bytes> = expected.iter().map(|word| Bytes::from(*word)).collect();
            assert_eq!(words(bytes).args, args, "{bytes:?}");
        };
        check(b"", &[]);
        check(b"node\0a.mjs\0", &["node", "a.mjs"]);
        check(b"node\0\0", &["node", ""]);
        // A process that overwrote its argv, as servers do.
        check(b"server: idle", &["server: idle"]);
    }

    #[test]
    fn sockets_that_no_table_has_are_told_by_the_kernel() {
        use rustix::net::{AddressFamily, SocketType, socket};
        let of = |family, kind_of| {
            let socket = socket(family, kind_of, None).unwrap();
            kind(std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&socket))
        };
        let udp = (Some(SocketProtocol::Udp), None);
        assert_eq!(of(AddressFamily::INET, SocketType::DGRAM), udp);
        assert_eq!(of(AddressFamily::INET6, SocketType::DGRAM), udp);
        assert_eq!(of(AddressFamily::INET, SocketType::STREAM), (Some(SocketProtocol::Tcp), None));
        assert_eq!(of(AddressFamily::UNIX, SocketType::STREAM), (Some(SocketProtocol::Unix), None));
        assert_eq!(of(AddressFamily::NETLINK, SocketType::RAW), (None, Some("netlink".into())));
        assert_eq!(kind(std::process::id(), 1_000_000), (None, None));
    }

    #[test]
    fn this_process_has_its_own_sockets() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let found =
            tracer_ebpf::abi::FoundProcess { tgid: std::process::id(), ..Default::default() };
        let look = Look { pid: std::process::id(), found };
        let sockets = Sockets::default().of(&look, 1).unwrap();
        let listening = sockets.iter().find(|socket| {
            socket.state.as_deref() == Some("listen") && socket.local == Some(address)
        });
        assert!(
            listening.is_some_and(|socket| socket.remote.is_none() && !socket.leads_away()),
            "{sockets:?}"
        );
        let connected = sockets.iter().find(|socket| socket.remote == Some(address));
        assert_eq!(connected.and_then(|socket| socket.local), client.local_addr().ok());
        assert!(connected.is_some_and(FoundSocket::leads_away));
    }
}
