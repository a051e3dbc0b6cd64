//! What tracer gives up before it reads what others wrote.
//!
//! Capabilities, the chance to get any back (`no_new_privs`), every system call that reading, judging and
//! writing do not take (seccomp), and writing to or executing files and making connections (Landlock, where the
//! kernel has it). What is open stays open. What takes more is done by the [broker](super::broker). Capabilities
//! and filters are those of a thread, so this is done while there is one; later ones have what it has.

mod sending;

use std::{collections::BTreeMap, io};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    Scope,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

pub(super) use self::sending::confine_sender;
use crate::report::SandboxFinding;

/// What the kernel has.
pub(super) fn available() -> SandboxFinding {
    SandboxFinding { landlock: landlock_version(), seccomp: has_seccomp() }
}

/// To look at processes that run already: their descriptors, their files, their sockets.
pub(super) const TO_LOOK: CapabilitySet =
    CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);

/// Gives up everything but `keep`, for good. To be called while there is one thread; a second call gives up
/// more. Files can be opened for reading afterwards, as far as the plain rights of tracer's user go.
pub(super) fn confine(keep: CapabilitySet) -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "tracer has {threads} threads where it should have one"
        )));
    }
    give_up_capabilities(keep)?;
    set_no_new_privs(true)?;
    // What looks at other processes may not be in a domain of its own: Landlock hides those outside.
    if keep.is_empty() {
        restrict_files().map_err(io::Error::other)?;
    }
    restrict_calls(allowed)
}

/// Where the kernel can.
fn restrict_calls(
    allowed: impl FnOnce() -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error>,
) -> io::Result<()> {
    if has_seccomp() {
        for filter in allowed().and_then(filters).map_err(io::Error::other)? {
            seccompiler::apply_filter(&filter).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn give_up_capabilities(keep: CapabilitySet) -> io::Result<()> {
    clear_ambient_capability_set()?;
    // The highest one that a kernel can have.
    for number in 0..64 {
        // SAFETY: no memory is involved.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        // EINVAL: there are no more. EPERM: tracer may not do that, and `no_new_privs` keeps it from
        // getting anything out of that set.
        if dropped != 0 {
            break;
        }
    }
    let keep = keep.intersection(capabilities(None)?.permitted);
    let sets =
        CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// No file is written, made, removed or executed, no connection made, no process outside signalled, from here
/// on. Reading is not restricted: the kernel opens the files of fanotify events in this process's name.
fn restrict_files() -> Result<(), landlock::RulesetError> {
    const KNOWN: ABI = ABI::V6;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(KNOWN) | AccessFs::Execute)?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .restrict_self()?;
    Ok(())
}

/// System calls about nothing but the process itself, whose arguments do not matter.
const OF_ITSELF: &[libc::c_long] = &[
    // Memory and threads.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // Signals of its own.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_uname,
    libc::SYS_getrandom,
];

/// Further ones of tracer.
const ALLOWED: &[libc::c_long] = &[
    // What is open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_fsync,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_name_to_handle_at,
    // The protocol of a socket.
    libc::SYS_getxattr,
    // Waiting, for the broker too.
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    // Who it is, and what it may use.
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getcwd,
    // Names of processes that run already.
    libc::SYS_pidfd_open,
    // To give up more.
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
];

/// Commands of bpf(2) that use what is open, include/uapi/linux/bpf.h. None makes a program or a map.
const BPF_COMMANDS: [u64; 6] = [
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    10, // BPF_PROG_TEST_RUN
    15, // BPF_OBJ_GET_INFO_BY_FD
];

/// To ask terminals.
const IOCTLS: [u64; 4] = [
    libc::TCGETS,
    0x802c_542a, // TCGETS2
    libc::TIOCGWINSZ,
    libc::FIOCLEX,
];

/// Naming a thread, the seccomp mode, giving up more.
const PRCTLS: [libc::c_int; 6] = [
    libc::PR_SET_NAME,
    libc::PR_GET_SECCOMP,
    libc::PR_CAPBSET_DROP,
    libc::PR_CAP_AMBIENT,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_SET_SECCOMP,
];

type Error = seccompiler::BackendError;

/// The same question for one argument.
fn when(argument: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompRule, Error> {
    let width = SeccompCmpArgLen::Dword;
    SeccompRule::new(vec![SeccompCondition::new(argument, width, compare, value)?])
}

fn one_of(argument: u8, values: impl IntoIterator<Item = u64>) -> Result<Vec<SeccompRule>, Error> {
    values.into_iter().map(|value| when(argument, SeccompCmpOp::Eq, value)).collect()
}

/// Two, because a refusal has one error: the C library starts threads another way when it is told that there
/// is no clone3, whose arguments no filter can see.
fn filters(allowed: BTreeMap<i64, Vec<SeccompRule>>) -> Result<[BpfProgram; 2], Error> {
    let refused = |errno: libc::c_int| SeccompAction::Errno(errno.unsigned_abs());
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_clone3 = SeccompFilter::new(
        clone3,
        SeccompAction::Allow,
        refused(libc::ENOSYS),
        TargetArch::x86_64,
    )?;
    let allowed = SeccompFilter::new(
        allowed,
        refused(libc::EPERM),
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    Ok([no_clone3.try_into()?, allowed.try_into()?])
}

/// What any process of tracer may do with itself.
fn of_itself() -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error> {
    const THREAD: u64 = libc::CLONE_THREAD as u64;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        OF_ITSELF.iter().map(|number| (*number, Vec::new())).collect();
    rules.insert(libc::SYS_clone3, Vec::new());
    rules.insert(libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(THREAD), THREAD)?]);
    let prctls = PRCTLS.iter().map(|option| u64::from(option.unsigned_abs()));
    rules.insert(libc::SYS_prctl, one_of(0, prctls)?);
    // Its own limits, no other's.
    rules.insert(libc::SYS_prlimit64, vec![when(0, SeccompCmpOp::Eq, 0)?]);
    // Ending itself when something is badly wrong.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![when(0, SeccompCmpOp::Eq, own)?]);
    Ok(rules)
}

/// Opening files for reading.
fn for_reading() -> Result<Vec<SeccompRule>, Error> {
    /// O_TMPFILE has the bit of O_DIRECTORY, which is harmless, and writes.
    const WRITING: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND) as u64;
    Ok(vec![when(2, SeccompCmpOp::MaskedEq(WRITING), 0)?])
}

fn allowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error> {
    let mut rules = of_itself()?;
    rules.extend(ALLOWED.iter().map(|number| (*number, Vec::new())));
    rules.insert(libc::SYS_openat, for_reading()?);
    rules.insert(libc::SYS_bpf, one_of(0, BPF_COMMANDS)?);
    rules.insert(libc::SYS_ioctl, one_of(1, IOCTLS)?);
    Ok(rules)
}

fn landlock_version() -> Option<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_long = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call reads no memory and returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            nothing,
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

fn has_seccomp() -> bool {
    const SECCOMP_GET_ACTION_AVAIL: libc::c_long = 2;
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the call reads four bytes, which outlive it.
    unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io,
        net::{TcpListener, TcpStream},
        process::Command,
    };

    use super::{
        CapabilitySet, capabilities, confine, has_seccomp, landlock_version, restrict_files,
    };

    /// What went wrong in a child that gave something up, as a bit each.
    fn in_child(of: impl FnOnce(&mut dyn FnMut(i32, bool))) -> i32 {
        // SAFETY: the child allocates, which the C library allows after a fork, and takes no lock of others.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut wrong = 0;
            of(&mut |bit, ok| wrong |= if ok { 0 } else { 1 << bit });
            // SAFETY: ends the child without running what belongs to the test.
            unsafe { libc::_exit(wrong) };
        }
        let child = rustix::process::Pid::from_raw(child).unwrap();
        let waited = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
        waited.unwrap().unwrap().1.exit_status().unwrap()
    }

    fn refused<T>(tried: io::Result<T>) -> bool {
        tried.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    fn call(number: libc::c_long, first: libc::c_long) -> io::Result<()> {
        // SAFETY: without further arguments none of the calls that are tried here touches memory.
        match unsafe { libc::syscall(number, first, 0, 0, 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    #[test]
    fn it_reads_and_nothing_else() {
        const BPF_PROG_LOAD: libc::c_long = 5;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        std::fs::write(&own, "").unwrap();
        let wrong = in_child(|expect| {
            expect(0, confine(CapabilitySet::empty()).is_ok());
            expect(1, capabilities(None).is_ok_and(|sets| sets.permitted.is_empty()));
            expect(2, File::open("/proc/self/status").is_ok());
            if !has_seccomp() {
                return;
            }
            expect(3, refused(File::create(folder.path().join("new"))));
            expect(4, refused(File::options().append(true).open(&own)));
            expect(5, refused(TcpStream::connect(address)));
            expect(6, refused(Command::new("/bin/true").status()));
            let others = [libc::SYS_kill, libc::SYS_ptrace, libc::SYS_mount, libc::SYS_setuid];
            expect(7, others.iter().all(|number| refused(call(*number, 0))));
            expect(7, refused(call(libc::SYS_bpf, BPF_PROG_LOAD)));
        });
        assert_eq!(wrong, 0, "bits of what went wrong");
    }

    #[test]
    fn files_and_connections_are_refused_by_landlock_too() {
        let Some(version) = landlock_version() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let wrong = in_child(|expect| {
            expect(0, super::set_no_new_privs(true).is_ok() && restrict_files().is_ok());
            expect(
                1,
                File::open("/etc/hostname").is_ok()
                    || !std::path::Path::new("/etc/hostname").exists(),
            );
            expect(2, refused(File::create(folder.path().join("new"))));
            expect(3, refused(Command::new("/bin/true").status()));
            // Ports since Linux 6.7.
            expect(4, version < 4 || refused(TcpStream::connect(address)));
        });
        assert_eq!(wrong, 0, "bits of what went wrong");
    }
}
