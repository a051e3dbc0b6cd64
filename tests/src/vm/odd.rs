//! Programs with one odd behaviour each, started as `odd DEED ARGUMENTS...`.

use std::{
    ffi::{CString, c_char, c_int},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::{fs::OpenOptionsExt as _, net::UnixStream, process::CommandExt as _},
    },
    process::{Command, ExitCode},
    thread,
};

use anyhow::{Result, anyhow, bail, ensure};

/// Marks a deed that this kernel does not offer.
pub const UNSUPPORTED: u8 = 77;

/// Where a program goes that is executed without a name.
const COPY: &str = "/tmp/odd-copy";

pub fn main(deed: &str, arguments: &[String]) -> ExitCode {
    match act(deed, arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("odd {deed}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(deed: &str, arguments: &[String]) -> Result<u8> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match (deed, words.as_slice()) {
        ("exit", [code]) => return Ok(code.parse()?),
        ("signal", [signal]) => signal_itself(signal.parse()?)?,
        ("connect", [address, send, receive]) => {
            connect(address, send.parse()?, receive.parse()?)?;
        }
        ("datagrams", [address, count, bytes]) => {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            for _ in 0..count.parse::<u32>()? {
                socket.send_to(&vec![b'x'; bytes.parse()?], address)?;
            }
        }
        ("say-over-tcp", [address, words]) => {
            TcpStream::connect(*address)?.write_all(words.as_bytes())?;
        }
        ("raw-socket", []) => {
            // SAFETY: no memory is involved.
            let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP) };
            ensure!(socket >= 0, "socket: {}", io::Error::last_os_error());
        }
        ("packet-socket", []) => {
            // SAFETY: no memory is involved.
            let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
            ensure!(socket >= 0, "socket: {}", io::Error::last_os_error());
        }
        ("connect-refused", [address]) => {
            ensure!(TcpStream::connect(*address).is_err(), "{address} answered");
        }
        ("long-argv", [count, bytes, program]) => {
            let bytes: usize = bytes.parse()?;
            let count: usize = count.parse()?;
            let long = (0..count).map(|index| long_argument(index, bytes));
            return Err(Command::new(program).args(long).exec().into());
        }
        ("from-thread", [program, rest @ ..]) => {
            let mut command = Command::new(program);
            command.args(rest);
            let failed = thread::spawn(move || command.exec()).join();
            bail!("the exec failed: {:?}", failed.map_err(|_| "the thread panicked"));
        }
        ("double-fork", [program, rest @ ..]) => double_fork(program, rest)?,
        ("memfd", [program, rest @ ..]) => {
            // SAFETY: the name is NUL-terminated; the flags are ones that exist since 3.17.
            let fd = unsafe { libc::memfd_create(c"odd".as_ptr(), libc::MFD_CLOEXEC) };
            ensure!(fd >= 0, "memfd_create: {}", io::Error::last_os_error());
            // SAFETY: the kernel just returned this descriptor and nobody else has it.
            let mut memory = unsafe { File::from_raw_fd(fd) };
            memory.write_all(&fs::read(program)?)?;
            exec_descriptor(&memory, program, rest)?;
        }
        ("deleted", [program, rest @ ..]) => {
            let mut copy = OpenOptions::new();
            copy.create_new(true).write(true).mode(0o755);
            copy.open(COPY)?.write_all(&fs::read(program)?)?;
            // A file that somebody may still write to is not executed: open it anew.
            let file = File::open(COPY)?;
            fs::remove_file(COPY)?;
            exec_descriptor(&file, program, rest)?;
        }
        ("touch", [file]) => drop(File::create(file)?),
        ("say", [socket]) => UnixStream::connect(socket)?.write_all(b"!")?,
        ("seize", [pid]) => seize(pid.parse()?)?,
        ("int80", [program]) => return int80(program),
        ("pid-namespace", [program]) => pid_namespace(program)?,
        ("as-user", [uid, gid, program]) => {
            let mut command = Command::new(program);
            return Err(command.gid(gid.parse()?).uid(uid.parse()?).exec().into());
        }
        _ => bail!("there is no such deed with {} arguments", arguments.len()),
    }
    Ok(0)
}

/// Each differs from the others in every part of it, so that a swapped or repeated piece shows.
pub fn long_argument(index: usize, bytes: usize) -> String {
    format!("{index:05}.").chars().cycle().take(bytes).collect()
}

fn signal_itself(signal: c_int) -> Result<()> {
    // SAFETY: raising a signal involves no memory.
    ensure!(unsafe { libc::raise(signal) } == 0, "raise: {}", io::Error::last_os_error());
    bail!("signal {signal} did not end the process")
}

/// Sends and receives so many bytes, and closes only when the other side has closed.
fn connect(address: &str, send: usize, receive: usize) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&vec![b'x'; send])?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    ensure!(received.len() == receive, "received {} bytes, not {receive}", received.len());
    Ok(())
}

/// As a debugger takes control of a process.
fn seize(pid: libc::pid_t) -> Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: this request reads and writes no memory of this process.
    let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) };
    ensure!(seized == 0, "ptrace: {}", io::Error::last_os_error());
    Ok(())
}

/// What daemons do: fork, a session of its own, fork; the first parent does not wait for the last
/// child.
fn double_fork(program: &str, rest: &[&str]) -> Result<()> {
    match fork()? {
        0 => {
            // SAFETY: no memory is involved.
            ensure!(unsafe { libc::setsid() } >= 0, "setsid: {}", io::Error::last_os_error());
            match fork()? {
                0 => Err(Command::new(program).args(rest).exec().into()),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Starts the program as process 1 of a pid namespace of its own.
fn pid_namespace(program: &str) -> Result<()> {
    // SAFETY: no memory is involved.
    let refused = unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0;
    ensure!(!refused, "unshare: {}", io::Error::last_os_error());
    match fork()? {
        0 => Err(Command::new(program).exec().into()),
        child => {
            let mut status = 0;
            // SAFETY: the status is writable.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            ensure!(waited == child && status == 0, "the child ended with status {status}");
            Ok(())
        }
    }
}

fn fork() -> Result<libc::pid_t> {
    // SAFETY: this process has one thread, so the copy in the child is whole.
    match unsafe { libc::fork() } {
        pid if pid >= 0 => Ok(pid),
        _ => Err(anyhow!("fork: {}", io::Error::last_os_error())),
    }
}

/// Executes what a descriptor is open on, without a path.
fn exec_descriptor(file: &File, name: &str, rest: &[&str]) -> Result<()> {
    let words = [name].into_iter().chain(rest.iter().copied()).map(CString::new);
    let words = words.collect::<Result<Vec<_>, _>>()?;
    let mut argv: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(std::ptr::null());
    let environment = [std::ptr::null::<c_char>()];
    // SAFETY: both lists end with a null and point to strings that live until the call returns.
    unsafe { libc::fexecve(file.as_raw_fd(), argv.as_ptr(), environment.as_ptr()) };
    Err(anyhow!("fexecve: {}", io::Error::last_os_error()))
}

/// Executes through the 32-bit system call table, which the hooks on 64-bit system calls do not see.
#[cfg(target_arch = "x86_64")]
fn int80(program: &str) -> Result<u8> {
    /// `execve` in arch/x86/entry/syscalls/syscall_32.tbl.
    const EXECVE: i64 = 11;
    const PAGE: usize = 4096;
    // SAFETY: a new mapping of our own; MAP_32BIT keeps its address within 32 bits.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        )
    };
    ensure!(page != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
    let address = u32::try_from(page as usize)?;
    // argv of one word, its end, an empty environment, then the word itself.
    let mut content = Vec::new();
    for word in [address + 16, 0, 0, 0] {
        content.extend(word.to_ne_bytes());
    }
    content.extend(program.bytes().chain([0]));
    ensure!(content.len() <= PAGE, "the name is too long");
    // SAFETY: the page is ours, writable and large enough, and nothing else points to it.
    unsafe { std::ptr::copy_nonoverlapping(content.as_ptr(), page.cast::<u8>(), content.len()) };
    let mut result = EXECVE;
    // SAFETY: the kernel reads only the page above. rbx is the compiler's, so it is swapped for
    // the call; r8 to r11 are clobbered by `int 0x80` on some kernels.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {path}",
            "int 0x80",
            "xchg rbx, {path}",
            path = inout(reg) u64::from(address) + 16 => _,
            inout("rax") result,
            in("rcx") u64::from(address),
            in("rdx") u64::from(address) + 8,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let errno = i32::try_from(-result)?;
    if errno == libc::ENOSYS {
        return Ok(UNSUPPORTED);
    }
    Err(anyhow!("execve: {}", io::Error::from_raw_os_error(errno)))
}

#[cfg(not(target_arch = "x86_64"))]
fn int80(_program: &str) -> Result<u8> {
    Ok(UNSUPPORTED)
}
