//! What is left to the process that sends log records: its sockets, and the way to the collector.

use std::{collections::BTreeMap, io};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope, path_beneath_rules,
};
use rustix::thread::{CapabilitySet, set_no_new_privs};
use seccompiler::SeccompRule;

use super::{Error, for_reading, give_up_capabilities, of_itself, one_of, restrict_calls};
use crate::otlp::Collector;

/// What the C library reads to find a host by its name (nsswitch.conf(5), resolv.conf(5), gai.conf(5)), with its
/// modules for that.
const NAMES: [&str; 12] = [
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    "/run/systemd/resolve",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
];
/// Of TCP, which long answers of name servers take.
const DNS_PORT: u16 = 53;

/// System calls on sockets and what is open, whose arguments do not matter.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_connect,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_poll,
    libc::SYS_ppoll,
];

/// To read files, and to know them.
const READING: &[libc::c_long] =
    &[libc::SYS_lseek, libc::SYS_pread64, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx];

/// How much is there, and not to wait.
const IOCTLS: [u64; 2] = [libc::FIONREAD, libc::FIONBIO];

/// Gives up everything but what it takes to reach this collector, for good.
pub(in crate::run) fn confine_sender(collector: &Collector) -> io::Result<()> {
    give_up_capabilities(CapabilitySet::empty())?;
    set_no_new_privs(true)?;
    restrict_files_and_ports(collector).map_err(io::Error::other)?;
    restrict_calls(|| allowed(collector))
}

fn restrict_files_and_ports(collector: &Collector) -> Result<(), RulesetError> {
    const KNOWN: ABI = ABI::V6;
    let (files, ports): (&[&str], &[u16]) =
        if collector.has_name() { (&NAMES, &[DNS_PORT]) } else { (&[], &[]) };
    let ports = ports.iter().copied().chain([collector.port()]);
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(files, AccessFs::ReadFile | AccessFs::ReadDir))?
        .add_rules(
            ports.map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp))),
        )?
        .restrict_self()?;
    Ok(())
}

fn allowed(collector: &Collector) -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error> {
    const FAMILIES: [libc::c_int; 2] = [libc::AF_INET, libc::AF_INET6];
    let mut rules = of_itself()?;
    rules.extend(ALLOWED.iter().map(|number| (*number, Vec::new())));
    let families = FAMILIES.iter().map(|family| u64::from(family.unsigned_abs()));
    rules.insert(libc::SYS_socket, one_of(0, families)?);
    rules.insert(libc::SYS_ioctl, one_of(1, IOCTLS)?);
    if collector.has_name() {
        rules.extend(READING.iter().map(|number| (*number, Vec::new())));
        rules.insert(libc::SYS_openat, for_reading()?);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        net::{TcpListener, TcpStream},
        os::unix::net::UnixDatagram,
    };

    use super::{super::landlock_version, confine_sender};
    use crate::otlp::Collector;

    /// Nobody listens there either, which has another error.
    fn refused(tried: std::io::Result<TcpStream>) -> bool {
        tried.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    }

    /// What went wrong, as a bit each.
    fn in_sandbox(collector: &Collector, other: std::net::SocketAddr) -> i32 {
        if confine_sender(collector).is_err() {
            return 1;
        }
        let has_name = collector.has_name();
        let landlock = landlock_version().unwrap_or(0);
        let mut wrong = 0;
        let mut expect = |bit: i32, ok: bool| wrong |= if ok { 0 } else { 1 << bit };
        expect(1, TcpStream::connect(("127.0.0.1", collector.port())).is_ok());
        // Other ports can be reached before Linux 6.7.
        expect(2, landlock < 4 || refused(TcpStream::connect(other)));
        expect(3, File::open("/etc/hosts").is_ok() == has_name);
        // Without Landlock, whoever may read some file may read any.
        expect(4, File::open("/proc/self/status").is_err() || (has_name && landlock == 0));
        expect(5, File::create("/tmp/tracer-sandbox-test").is_err());
        expect(6, UnixDatagram::unbound().is_err());
        expect(7, TcpListener::bind("127.0.0.1:0").is_err());
        wrong
    }

    #[test]
    fn it_reaches_the_collector_and_nothing_else() {
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let port = here.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost"] {
            let collector = format!("http://{host}:{port}").parse().unwrap();
            // SAFETY: the child allocates, which the C library allows after a fork, and takes no lock of others.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let wrong = in_sandbox(&collector, other);
                // SAFETY: ends the child without running what belongs to the test.
                unsafe { libc::_exit(wrong) };
            }
            let child = rustix::process::Pid::from_raw(child).unwrap();
            let waited =
                rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
            let (_, status) = waited.unwrap().unwrap();
            assert_eq!(status.exit_status(), Some(0), "bits of what went wrong, for {host}");
        }
    }
}
