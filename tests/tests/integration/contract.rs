//! Exit codes, messages, and everything a command must find as if tracer were not there.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    Test,
    harness::{NOBODY, Scratch, tracer_program, wait_for},
};

pub(crate) const TESTS: &[Test] = &[
    ("without_privileges", without_privileges),
    ("commands_that_cannot_start", commands_that_cannot_start),
    ("bad_policies", bad_policies),
    ("kernel_without_type_information", kernel_without_type_information),
    ("status_of_the_command", status_of_the_command),
    ("wrong_usage", wrong_usage),
    ("help", help),
    ("streams_bit_for_bit", streams_bit_for_bit),
    ("environment_unchanged", environment_unchanged),
    ("signal_mask_unchanged", signal_mask_unchanged),
    ("ignored_signals_unchanged", ignored_signals_unchanged),
    ("ignored_broken_pipe_unchanged", ignored_broken_pipe_unchanged),
    ("caller_that_ignores_its_children", caller_that_ignores_its_children),
    ("no_descriptor_leaks", no_descriptor_leaks),
    ("works_in_any_directory", works_in_any_directory),
];

fn without_privileges(scratch: &Scratch) -> Result<()> {
    // A copy, because the build's folder may be closed to others.
    let copy = scratch.copy(&tracer_program(), "tracer")?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let ran = scratch.file("ran");
    scratch.give_to(NOBODY)?;
    let tracer = scratch.run(["touch".as_ref(), ran.as_os_str()]).by(|_| {
        let mut command = Command::new(copy);
        command.uid(NOBODY).gid(NOBODY);
        command
    });
    let output = tracer.output()?;
    output.exits(125)?;
    let said = output.stderr.to_lowercase();
    ensure!(said.contains("root") || said.contains("sudo"), "it does not say what to do: {said}");
    ensure!(!said.contains("panicked") && said.lines().count() < 12, "{said}");
    ensure!(!ran.exists(), "the command ran untraced");
    Ok(())
}

fn commands_that_cannot_start(scratch: &Scratch) -> Result<()> {
    let plain = scratch.write("plain", "no program\n")?;
    let no_interpreter = scratch.script("no-interpreter", "#!/nonexistent/interpreter\n")?;
    let folder = scratch.folder("folder")?;
    for (command, code, says) in [
        ("no-such-command-anywhere".into(), 127, "was not found"),
        ("/nonexistent/command".into(), 127, "was not found"),
        (no_interpreter.into_os_string(), 127, "interpreter"),
        (plain.into_os_string(), 126, "Permission denied"),
        (folder.into_os_string(), 126, "Permission denied"),
    ] {
        for policy in [false, true] {
            let tracer = scratch.run([&command]);
            let tracer = if policy { tracer.policy("no-aws-cli") } else { tracer };
            let run = tracer.record().with_context(|| format!("{command:?}"))?;
            run.exits(code).with_context(|| format!("{command:?}"))?;
            run.output.says(says)?;
            ensure!(run.story.execs == 0, "{} execs", run.story.execs);
        }
    }
    Ok(())
}

fn bad_policies(scratch: &Scratch) -> Result<()> {
    let claim = "[[claim]]\nkind = 'never-runs'\nprograms = ['aws']\n";
    let ran = scratch.file("ran");
    for (text, says) in [
        (format!("name = 'x'\nsurvivor = 'allow'\n{claim}"), "survivor"),
        (format!("name = 'x'\n{claim}alow = []\n"), "alow"),
        ("name = 'x'\n".into(), "claim"),
        ("name = 'x\n".into(), "policy.toml"),
        (format!("name = ''\n{claim}"), "`name` is empty"),
    ] {
        let policy = scratch.write("policy.toml", &text)?;
        let command = ["touch".as_ref(), ran.as_os_str()];
        scratch.run(command).policy(&policy).output()?.exits(2)?.says(says)?;
        let policy = policy.to_string_lossy().into_owned();
        scratch.tracer(&["policy", "check", &policy]).output()?.exits(2)?.says(says)?;
    }
    let unknown = scratch.run(["true"]).policy("no-such-policy").output()?;
    unknown.exits(2)?.says("no-such-policy")?.says("no-aws-cli")?;
    let missing = scratch.run(["true"]).policy("./missing.toml").output()?;
    missing.exits(2)?.says("missing.toml")?;
    ensure!(!ran.exists(), "a command ran");
    Ok(())
}

fn kernel_without_type_information(scratch: &Scratch) -> Result<()> {
    let garbage = scratch.write("garbage", "this is no BTF at all, but it is long enough\n")?;
    // A header that is right, and nothing that it promises.
    let short = scratch.file("short");
    fs::write(&short, [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 0])?;
    let empty = scratch.write("empty", "")?;
    let ran = scratch.file("ran");
    for btf in [scratch.file("nonexistent"), garbage, short, empty] {
        let command = ["touch".as_ref(), ran.as_os_str()];
        let output = scratch.run(command).option("--debug-btf").option(&btf).output()?;
        output.exits(125)?.says("BTF")?;
        ensure!(!output.stderr.contains("panicked"), "{}", output.stderr);
        ensure!(!ran.exists(), "the command ran");
    }
    Ok(())
}

fn status_of_the_command(scratch: &Scratch) -> Result<()> {
    for status in [0, 1, 2, 10, 11, 125, 255] {
        let line = format!("exit {status}");
        scratch.run(["sh", "-c", &line]).output()?.exits(status)?;
        let tracer = scratch.run(["sh", "-c", &line]).policy("no-aws-cli");
        tracer.option("--exit-code=command").output()?.exits(status)?;
        let tracer = scratch.run(["sh", "-c", &line]).policy("no-aws-cli");
        tracer.output()?.exits(0)?;
    }
    for signal in [9, 15] {
        scratch.run(["sh", "-c", &format!("kill -{signal} $$")]).output()?.exits(128 + signal)?;
    }
    let both = scratch.run(["true"]).policy("no-aws-cli").policy("no-shell-outs").output()?;
    both.exits(0)?;
    let shells_out = scratch.run(["sh", "-c", "/bin/true; exit 3"]).policy("no-aws-cli");
    shells_out.policy("no-shell-outs").output()?.exits(10)?.says("/bin/true")?;
    Ok(())
}

fn wrong_usage(scratch: &Scratch) -> Result<()> {
    for arguments in [
        &["run"][..],
        &["run", "--"],
        &["run", "--no-such-option", "--", "true"],
        &["no-such-command"],
        &["run", "--linger", "soon", "--", "true"],
        &["run", "--exit-code", "neither", "--", "true"],
        &["run", "-q", "-v", "--", "true"],
        &["verify"],
    ] {
        scratch.tracer(arguments).output()?.exits(2)?;
    }
    Ok(())
}

fn help(scratch: &Scratch) -> Result<()> {
    for arguments in [&["--help"][..], &["run", "--help"], &["run", "-h"]] {
        let help = scratch.tracer(arguments).output()?;
        help.exits(0)?.prints("Exit codes:")?;
        help.prints("0 proven, 10 violated, 11 inconclusive")?.prints("125")?.prints("127")?;
        let text = String::from_utf8_lossy(&help.stdout);
        ensure!(!text.contains("--debug-"), "hidden options are shown:\n{text}");
    }
    scratch.tracer(&["verify", "--help"]).output()?.exits(0)?.prints("11 inconclusive")?;
    scratch.tracer(&["--version"]).output()?.exits(0)?.prints("tracer ")?;
    Ok(())
}

fn streams_bit_for_bit(scratch: &Scratch) -> Result<()> {
    // Every byte value, more than any pipe or buffer on the way holds, no line end at the end.
    let bytes: Vec<u8> = (0..=255).cycle().take(1_000_003).collect();
    let input = scratch.file("input");
    fs::write(&input, &bytes)?;
    let error = scratch.file("error");
    let tracer = scratch.run(["tee", "/dev/stderr"]).option("--quiet");
    let mut child = tracer
        .set(|command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        })
        .set(|command| {
            if let Ok(file) = fs::File::create(&error) {
                command.stderr(file);
            }
        })
        .spawn_on_own_streams()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let mut stdout = child.stdout.take().context("no standard output")?;
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let mut received = Vec::new();
    stdout.read_to_end(&mut received)?;
    let status = wait_for(&mut child)?;
    ensure!(writer.join().is_ok_and(|written| written.is_ok()), "standard input was closed early");
    ensure!(status.success(), "{status}");
    ensure!(received == bytes, "standard output has {} bytes", received.len());
    let error = fs::read(&error)?;
    ensure!(error == bytes, "standard error has {} bytes", error.len());
    Ok(())
}

/// The output of a command with tracer and of the same command without.
fn with_and_without(
    scratch: &Scratch,
    line: &[&str],
    prepare: impl Fn(&mut Command),
) -> Result<(String, String)> {
    let traced = scratch.run(line).option("--quiet").set(&prepare).output()?;
    traced.exits(0)?;
    let without = scratch.tracer(&[]).by(|_| {
        let mut command = Command::new(line[0]);
        command.args(&line[1..]);
        command
    });
    let without = without.set(&prepare).output()?;
    without.exits(0)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(&traced.stdout), text(&without.stdout)))
}

fn environment_unchanged(scratch: &Scratch) -> Result<()> {
    let odd = |command: &mut Command| {
        command
            .env("ODD", "two words\nand a line")
            .env("EMPTY", "")
            .env("LD_DEBUG_OUTPUT", "/dev/null");
    };
    let (traced, without) = with_and_without(scratch, &["env", "-0"], odd)?;
    ensure!(traced == without, "{traced:?}\n{without:?}");
    ensure!(traced.contains("ODD=two words\nand a line\0"), "{traced:?}");
    Ok(())
}

/// Runs in a child between fork and exec.
fn block_and_ignore() -> std::io::Result<()> {
    // SAFETY: all zeroes is a valid signal set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in [libc::SIGUSR1, libc::SIGINT, libc::SIGCHLD, libc::SIGRTMIN() + 2] {
        // SAFETY: the set is initialised.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: the set outlives the call.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    for signal in [libc::SIGUSR2, libc::SIGHUP] {
        // SAFETY: no handler is installed, only the disposition changes.
        if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

fn with_signals(command: &mut Command) {
    // SAFETY: the function makes system calls only.
    unsafe { command.pre_exec(block_and_ignore) };
}

fn signal_mask_unchanged(scratch: &Scratch) -> Result<()> {
    let line = ["grep", "SigBlk", "/proc/self/status"];
    let (traced, without) = with_and_without(scratch, &line, with_signals)?;
    ensure!(traced == without && !without.contains("0000000000000000"), "{traced} {without}");
    let (traced, without) = with_and_without(scratch, &line, |_| ())?;
    ensure!(traced == without, "{traced} {without}");
    Ok(())
}

/// The set of ignored signals in a line of /proc/PID/status.
fn ignored(line: &str) -> Result<u64> {
    // 32 and 33 are the C library's own, which no program can change by its functions.
    const OF_THE_C_LIBRARY: u64 = 1 << 31 | 1 << 32;
    let (_, digits) = line.trim().split_once('\t').context("no tab")?;
    Ok(u64::from_str_radix(digits, 16)? & !OF_THE_C_LIBRARY)
}

fn ignored_signals_unchanged(scratch: &Scratch) -> Result<()> {
    let line = ["grep", "SigIgn", "/proc/self/status"];
    for change in [|_: &mut Command| (), with_signals] {
        let (traced, without) = with_and_without(scratch, &line, change)?;
        let (traced, without) = (ignored(&traced)?, ignored(&without)?);
        ensure!(traced == without, "with tracer {traced:#x}, without {without:#x}");
    }
    Ok(())
}

/// Rust's start-up code ignores the signal in tracer itself, and hands children the default.
fn ignored_broken_pipe_unchanged(scratch: &Scratch) -> Result<()> {
    const BROKEN_PIPE: u64 = 1 << (libc::SIGPIPE - 1);
    let ignore = |command: &mut Command| {
        let ignore = || {
            // SAFETY: no handler is installed, only the disposition changes.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
            Ok(())
        };
        // SAFETY: the closure makes one system call.
        unsafe { command.pre_exec(ignore) };
    };
    let line = ["grep", "SigIgn", "/proc/self/status"];
    let (traced, without) = with_and_without(scratch, &line, ignore)?;
    ensure!(ignored(&without)? & BROKEN_PIPE != 0, "{without}");
    ensure!(ignored(&traced)? & BROKEN_PIPE != 0, "with tracer: {traced}");
    Ok(())
}

/// With SIGCHLD ignored the kernel reaps children by itself, and waiting for one finds none.
fn caller_that_ignores_its_children(scratch: &Scratch) -> Result<()> {
    let ignore = |command: &mut Command| {
        let ignore = || {
            // SAFETY: no handler is installed, only the disposition changes.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            Ok(())
        };
        // SAFETY: the closure makes one system call.
        unsafe { command.pre_exec(ignore) };
    };
    let output = scratch.run(["sh", "-c", "exit 3"]).set(ignore).output()?;
    output.exits(3)?;
    Ok(())
}

fn no_descriptor_leaks(scratch: &Scratch) -> Result<()> {
    let line = ["sh", "-c", "ls /proc/$$/fd"];
    let tracer = scratch.run(line).option("--quiet").option("-o").option(scratch.file("r.jsonl"));
    let traced = tracer.policy("no-aws-cli").output()?;
    let traced = String::from_utf8_lossy(&traced.stdout).into_owned();
    let (_, without) = with_and_without(scratch, &line, |_| ())?;
    ensure!(traced == without, "with tracer: {traced:?}, without: {without:?}");
    Ok(())
}

fn works_in_any_directory(scratch: &Scratch) -> Result<()> {
    let folder = scratch.folder("gone")?;
    let line = format!(
        "cd {} && rmdir . 2>/dev/null || rmdir {}; exec \"$0\" run -q -- true",
        folder.display(),
        folder.display()
    );
    let tracer = tracer_program();
    let tracer = fs::canonicalize(tracer)?;
    let output = scratch.tracer(&[]).by(|_| {
        let mut command = Command::new("sh");
        command.args(["-c", &line]).arg(tracer);
        command
    });
    output.output()?.exits(0)?;
    Ok(())
}
