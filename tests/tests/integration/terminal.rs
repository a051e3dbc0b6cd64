//! Signals to tracer, and keys on its terminal.

use std::{
    fs::{self, File},
    io::Write as _,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::Child,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Test,
    harness::{Scratch, program, wait_for},
};

pub(crate) const TESTS: &[Test] = &[
    ("terminate_is_forwarded", terminate_is_forwarded),
    ("interrupt_is_forwarded", interrupt_is_forwarded),
    ("control_c_reaches_the_command_once", control_c_reaches_the_command_once),
    ("signal_while_lingering_ends_tracing", signal_while_lingering_ends_tracing),
];

/// What `count-signals` does when it has been signalled.
const ITS_STATUS: i32 = 42;

fn appears(file: &std::path::Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !file.exists() {
        ensure!(Instant::now() < deadline, "{} did not appear", file.display());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn pid(child: &Child) -> Result<Pid> {
    Pid::from_raw(child.id().cast_signed()).context("no process")
}

/// Starts `count-signals`, lets `act` signal, and gives what it counted.
fn counted(
    scratch: &Scratch,
    change: impl FnOnce(&mut std::process::Command),
    act: impl FnOnce(&Child) -> Result<()>,
) -> Result<String> {
    let counts: PathBuf = scratch.file("counts");
    let command = [program(scratch, "count-signals")?, counts.clone()];
    let mut tracer = scratch.run(&command).set(change).spawn()?;
    appears(&counts.with_extension("ready"))?;
    act(&tracer)?;
    let status = wait_for(&mut tracer)?;
    ensure!(status.code() == Some(ITS_STATUS), "tracer ended with {status}");
    Ok(fs::read_to_string(&counts)?)
}

fn terminate_is_forwarded(scratch: &Scratch) -> Result<()> {
    let act = |tracer: &Child| Ok(kill_process(pid(tracer)?, Signal::TERM)?);
    let counts = counted(scratch, |_| (), act)?;
    ensure!(counts == "0 interrupts, 1 terminations\n", "{counts}");
    Ok(())
}

fn interrupt_is_forwarded(scratch: &Scratch) -> Result<()> {
    let act = |tracer: &Child| Ok(kill_process(pid(tracer)?, Signal::INT)?);
    let counts = counted(scratch, |_| (), act)?;
    ensure!(counts == "1 interrupts, 0 terminations\n", "{counts}");
    Ok(())
}

/// A terminal: the side of the person, and the side of the program.
pub(crate) fn terminal() -> Result<(File, File)> {
    let error = std::io::Error::last_os_error;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    ensure!(fd >= 0, "no terminal: {}", error());
    // SAFETY: the kernel just returned this descriptor and nobody else has it.
    let person = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: the descriptor is open.
    ensure!(unsafe { libc::unlockpt(person.as_raw_fd()) } == 0, "{}", error());
    let mut name = [0; 64];
    // SAFETY: the pointer and the length are those of a live, writable buffer.
    let named = unsafe { libc::ptsname_r(person.as_raw_fd(), name.as_mut_ptr(), name.len()) };
    ensure!(named == 0, "{}", error());
    // SAFETY: on success the name is NUL-terminated.
    let name = unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) }.to_str()?.to_owned();
    use std::os::unix::fs::OpenOptionsExt as _;
    let program =
        fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name)?;
    Ok((person, program))
}

fn control_c_reaches_the_command_once(scratch: &Scratch) -> Result<()> {
    let (mut person, program) = terminal()?;
    let program_fd = program.as_raw_fd();
    let take_terminal = move || {
        // SAFETY: no memory is involved.
        if unsafe { libc::setsid() } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open here too, and the request takes no memory.
        if unsafe { libc::ioctl(program_fd, libc::TIOCSCTTY, 0) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    let change = |command: &mut std::process::Command| {
        // SAFETY: the closure makes system calls only.
        unsafe { command.pre_exec(take_terminal) };
    };
    let counts = counted(scratch, change, |_| Ok(person.write_all(b"\x03")?))?;
    ensure!(counts == "1 interrupts, 0 terminations\n", "{counts}");
    Ok(())
}

fn signal_while_lingering_ends_tracing(scratch: &Scratch) -> Result<()> {
    let ended = scratch.file("ended");
    let recording = scratch.file("r.jsonl");
    let line = format!("sleep 64 & touch {}", ended.display());
    let mut tracer = scratch
        .run(["sh", "-c", &line])
        .policy("no-aws-cli")
        .option("--linger=600")
        .option("-o")
        .option(&recording)
        .spawn()?;
    appears(&ended)?;
    // The command ends a moment after its last deed.
    std::thread::sleep(Duration::from_millis(300));
    kill_process(pid(&tracer)?, Signal::TERM)?;
    let status = wait_for(&mut tracer)?;
    ensure!(status.code() == Some(11), "tracer ended with {status}");
    let verified = scratch.tracer(&["verify", &recording.to_string_lossy()]).output()?;
    verified.exits(11)?.prints("integrity: every line")?.prints("still running")?;
    Ok(())
}
