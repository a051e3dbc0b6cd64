//! The checks, in the order in which they run. Those over all recordings come last.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt as _,
    thread::{self, JoinHandle},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::MountFlags;
use serde_json::Value;

use super::{
    Check, Finding,
    machine::{
        AWS, AWS_BY_COPY, AWS_BY_HARD_LINK, AWS_BY_SYMLINK, ODD, bind, mount_at, write_program,
    },
    odd, outside, pids,
    recording::expect,
    say, sockets,
    traced::{Traced, tracer},
};

pub(super) const ALL: &[(&str, Check)] = &[
    ("doctor", doctor),
    ("instruction-budget", instruction_budget),
    ("shell-session", shell_session),
    ("many-processes", many_processes),
    ("long-argv", long_argv),
    ("aws-by-symlink", aws_by_symlink),
    ("aws-by-hard-link", aws_by_hard_link),
    ("aws-by-copy", aws_by_copy),
    ("aws-read", aws_read),
    ("left-for-cron", left_for_cron),
    ("file-identity", file_identity),
    ("connect-v4", connect_v4),
    ("connect-v6", connect_v6),
    ("connect-refused", connect_refused),
    ("datagrams", sockets::datagrams),
    ("leaves-cgroup", sockets::leaves_cgroup),
    ("odd-sockets", sockets::odd_sockets),
    ("http-host", sockets::http_host),
    ("foreign-sends", sockets::foreign_sends),
    ("resolver", sockets::resolver),
    ("forced-loss", forced_loss),
    ("script", script),
    ("memfd", memfd),
    ("deleted", deleted),
    ("exec-from-thread", exec_from_thread),
    ("double-fork", double_fork),
    ("exit-code", exit_code),
    ("signal", signal),
    ("paths-across-mounts", paths_across_mounts),
    ("path-too-deep", path_too_deep),
    ("pid-namespace", pid_namespace),
    ("credentials", credentials),
    ("int80", int80),
    ("failed-execs", outside::failed_execs),
    ("local-sends", outside::local_sends),
    ("intrusions", outside::intrusions),
    ("enforced", outside::enforced),
    ("reused-pids", pids::reused_pids),
    ("every-field-readable", every_field_readable),
    ("execs-equal-witness", execs_equal_witness),
    ("counters-add-up", counters_add_up),
    ("verify-agrees", verify_agrees),
];

pub(super) fn ok(detail: impl Into<String>) -> Result<Finding> {
    Ok(Finding::Ok(detail.into()))
}

/// The line `verified instructions PROGRAM N, PROGRAM N ...` of `tracer doctor`.
fn verified_instructions(doctor: &str) -> Vec<(&str, u64)> {
    let line = doctor.lines().find_map(|line| line.strip_prefix("verified instructions"));
    line.into_iter()
        .flat_map(|line| line.split(','))
        .filter_map(|entry| {
            let (program, count) = entry.trim().split_once(' ')?;
            Some((program, count.parse().ok()?))
        })
        .collect()
}

fn doctor(_: &mut Traced) -> Result<Finding> {
    let doctor = tracer(&["doctor"])?;
    ensure!(doctor.code == 0, "code {}: {}{}", doctor.code, doctor.out, doctor.err);
    // Whether there is a C library depends on the machine that this one was made on.
    let refused = |line: &&str| line.contains("NO:") && !line.contains("no C library");
    let refused: Vec<_> = doctor.out.lines().filter(refused).collect();
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    for (sensor, count) in verified_instructions(&doctor.out) {
        say(&format!("vm-instructions {sensor} {count}"));
    }
    ok(doctor.out.lines().last().unwrap_or_default())
}

/// The kernel refuses a program when its verifier has walked a million instructions
/// (BPF_COMPLEXITY_LIMIT_INSNS, include/linux/bpf.h), and how far it walks differs from kernel to
/// kernel. A tenth leaves room for one that was not tried.
fn instruction_budget(_: &mut Traced) -> Result<Finding> {
    const BUDGET: u64 = 100_000;
    let doctor = tracer(&["doctor"])?;
    let counts = verified_instructions(&doctor.out);
    let largest =
        counts.iter().max_by_key(|(_, count)| *count).context("doctor names no sensor")?;
    ensure!(counts.iter().all(|(_, count)| *count > 0), "a count is 0: {counts:?}");
    ensure!(largest.1 <= BUDGET, "sensor {} takes {}, more than {BUDGET}", largest.0, largest.1);
    ok(format!("at most {} of {BUDGET} ({})", largest.1, largest.0))
}

/// Absolute names, because this shell runs its own `true` without an exec.
fn shell_session(traced: &mut Traced) -> Result<Finding> {
    let script = "/bin/ls / | /bin/head -n 1; (/bin/true); /bin/sleep 0.1 & \
                  /bin/sh -c '/bin/true; /bin/false'; wait; exec /bin/true";
    let recording = traced.judged(0, &["/bin/sh", "-c", script])?;
    let expected = 9;
    ensure!(recording.execs() == expected, "{} execs, not {expected}", recording.execs());
    let sleep = recording.exec(&["/bin/sleep", "0.1"])?;
    expect(sleep, "/file/path", "/bin/busybox")?;
    expect(sleep, "/filename", "/bin/sleep")?;
    expect(sleep, "/cwd", "/")?;
    ok(format!("proven, {expected} execs, {} seen by the witness", recording.witnessed()?))
}

fn many_processes(traced: &mut Traced) -> Result<Finding> {
    const PROCESSES: usize = 200;
    let script =
        format!("i=0; while [ $i -lt {PROCESSES} ]; do /bin/true & i=$((i+1)); done; wait; exit 0");
    let recording = traced.judged(0, &["/bin/sh", "-c", &script])?;
    for (kind, expected) in [("exec", PROCESSES + 1), ("fork", PROCESSES), ("exit", PROCESSES + 1)]
    {
        let found = recording.of_type(kind).count();
        ensure!(found == expected, "{found} {kind} records, not {expected}");
    }
    ok(format!("{PROCESSES} at once"))
}

fn long_argv(traced: &mut Traced) -> Result<Finding> {
    const COUNT: usize = 200;
    const BYTES: usize = 1023;
    let (count, bytes) = (COUNT.to_string(), BYTES.to_string());
    let recording = traced.judged(0, &[ODD, "long-argv", &count, &bytes, "/bin/true"])?;
    let exec = recording.exec(&["/bin/true"])?;
    expect(exec, "/argv/complete", true)?;
    let total = "/bin/true\0".len() + COUNT * (BYTES + 1);
    expect(exec, "/argv/total_bytes", total)?;
    let args = exec["argv"]["args"].as_array().context("argv is no list")?;
    ensure!(args.len() == COUNT + 1, "{} arguments, not {}", args.len(), COUNT + 1);
    for (index, arg) in args.iter().skip(1).enumerate() {
        ensure!(*arg == odd::long_argument(index, BYTES), "argument {index} is {arg}");
    }
    ok(format!("{total} bytes, each as it was given"))
}

fn aws_by_symlink(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.judged(10, &[AWS_BY_SYMLINK, "exit", "0"])?;
    expect(recording.exec(&[AWS_BY_SYMLINK])?, "/file/path", AWS)?;
    ok("violated")
}

fn aws_by_hard_link(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.judged(10, &[AWS_BY_HARD_LINK, "exit", "0"])?;
    expect(recording.exec(&[AWS_BY_HARD_LINK])?, "/file/path", AWS_BY_HARD_LINK)?;
    ok("violated, by the inode of the aws on PATH")
}

fn aws_by_copy(traced: &mut Traced) -> Result<Finding> {
    traced.judged(10, &[AWS_BY_COPY, "exit", "0"])?;
    ok("violated, by the content of the aws on PATH")
}

/// Read and not executed: the watch of files names the process.
fn aws_read(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.judged(11, &["/bin/busybox", "wc", AWS])?;
    let opened = recording.of_type("opened").next().context("no file was seen to be opened")?;
    expect(opened, "/path", AWS)?;
    expect(opened, "/process/pid", recording.exec(&["/bin/busybox"])?["process"]["pid"].clone())?;
    ok("inconclusive, and the process is named")
}

fn left_for_cron(traced: &mut Traced) -> Result<Finding> {
    const FOLDER: &str = "/etc/cron.d";
    fs::create_dir_all(FOLDER).context(FOLDER)?;
    let line = format!("echo x > /tmp/job; mv /tmp/job {FOLDER}/job");
    let recording = traced.judged(11, &["/bin/busybox", "sh", "-c", &line])?;
    let hand_off = recording.of_type("hand-off").next().context("no hand-off was recorded")?;
    expect(hand_off, "/via", format!("{FOLDER}/job"))?;
    ensure!(hand_off["process"]["pid"].is_u64(), "nobody is named: {hand_off}");
    fs::remove_dir_all(FOLDER).context(FOLDER)?;
    ok("a file that is moved there is a hand-off of its process")
}

/// What the probes read from the inode against what stat(2) says, on two kinds of file system.
fn file_identity(traced: &mut Traced) -> Result<Finding> {
    const ON_TMPFS: &str = "/tmp/identity";
    fs::copy(ODD, ON_TMPFS).context(ON_TMPFS)?;
    // Times with nothing in common, so that none can stand in for another.
    let modified = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    fs::File::open(ON_TMPFS)?.set_modified(modified)?;
    for program in [ODD, ON_TMPFS] {
        let recording = traced.judged(0, &[program, "exit", "0"])?;
        let (exec, stat) = (recording.exec(&[program])?, fs::metadata(program)?);
        let (major, minor) = (libc::major(stat.dev()), libc::minor(stat.dev()));
        let ns = |seconds: i64, rest: i64| seconds * 1_000_000_000 + rest;
        expect(exec, "/file/device", format!("{major}:{minor}"))?;
        expect(exec, "/file/inode", stat.ino())?;
        expect(exec, "/file/size_bytes", stat.size())?;
        expect(exec, "/file/mode", stat.mode())?;
        expect(exec, "/file/mtime_ns", ns(stat.mtime(), stat.mtime_nsec()))?;
        expect(exec, "/file/ctime_ns", ns(stat.ctime(), stat.ctime_nsec()))?;
    }
    ok("device, inode, size, mode and times as stat has them")
}

const REQUEST_BYTES: usize = 1000;
const RESPONSE_BYTES: usize = 300_000;

fn connect_v4(traced: &mut Traced) -> Result<Finding> {
    connect(traced, "127.0.0.1:0")
}

fn connect_v6(traced: &mut Traced) -> Result<Finding> {
    connect(traced, "[::1]:0")
}

fn connect(traced: &mut Traced, at: &str) -> Result<Finding> {
    let (address, server) = serve(at)?;
    let (send, receive) = (REQUEST_BYTES.to_string(), RESPONSE_BYTES.to_string());
    let command = [ODD, "connect", &address.to_string(), &send, &receive];
    let recording = traced.judged(0, &command)?;
    server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    let connect = recording.one("connect", "/destination", endpoint(address))?;
    let id = connect["connection"].as_u64().context("the connection has no id")?;
    let result = recording.one("connect-result", "/connection", id)?;
    expect(result, "/outcome", "established")?;
    expect(result, "/source/address", address.ip().to_string())?;
    let close = recording.one("close", "/connection", id)?;
    expect(close, "/sent_bytes", REQUEST_BYTES)?;
    expect(close, "/received_bytes", RESPONSE_BYTES)?;
    ok(format!("established, {REQUEST_BYTES} bytes sent, {RESPONSE_BYTES} received"))
}

/// As recordings have it.
fn endpoint(address: SocketAddr) -> Value {
    serde_json::json!({ "address": address.ip().to_string(), "port": address.port() })
}

/// Answers one connection, outside of what is traced.
fn serve(at: &str) -> Result<(SocketAddr, JoinHandle<Result<()>>)> {
    let listener = TcpListener::bind(at).with_context(|| at.to_owned())?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut request = vec![0; REQUEST_BYTES];
        stream.read_exact(&mut request)?;
        stream.write_all(&vec![b'y'; RESPONSE_BYTES])?;
        Ok(())
    });
    Ok((address, server))
}

fn connect_refused(traced: &mut Traced) -> Result<Finding> {
    // A port that was just given back is nobody's.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let recording = traced.judged(0, &[ODD, "connect-refused", &address.to_string()])?;
    let connect = recording.one("connect", "/destination", endpoint(address))?;
    let id = connect["connection"].as_u64().context("the connection has no id")?;
    let result = recording.one("connect-result", "/connection", id)?;
    expect(result, "/outcome/failed/errno", libc::ECONNREFUSED)?;
    ok(result["outcome"]["failed"]["name"].as_str().unwrap_or_default())
}

/// Records are lost by kind and processor. The canary at the start makes at most two of a kind, so it
/// survives the loss of every third; of the eight exits of all, one processor has at least four.
fn forced_loss(traced: &mut Traced) -> Result<Finding> {
    let script = "/bin/true; /bin/true; /bin/true; exit 0";
    let options = ["-p", "no-aws-cli", "--debug-lose", "process=3"];
    let recording = traced.run(&options, 11, &["/bin/sh", "-c", script])?;
    let lost: u64 = counters(recording.end()?).map(|row| row.lost).sum();
    ensure!(lost > 0, "nothing was lost");
    ok(format!("inconclusive with {lost} lost"))
}

fn script(traced: &mut Traced) -> Result<Finding> {
    const SCRIPT: &str = "/tmp/script";
    write_program(SCRIPT, "#!/bin/sh\n/bin/true\n")?;
    let recording = traced.judged(0, &[SCRIPT, "word"])?;
    let exec = recording.one("exec", "/filename", SCRIPT)?;
    expect(exec, "/script/interpreter", "/bin/sh")?;
    expect(exec, "/script/file/path", SCRIPT)?;
    expect(exec, "/script/file/inode", fs::metadata(SCRIPT)?.ino())?;
    expect(exec, "/file/path", "/bin/busybox")?;
    ensure!(exec["argv"]["args"] == serde_json::json!(["/bin/sh", SCRIPT, "word"]), "{exec}");
    ok("interpreter and script are told apart")
}

/// No name tells what a program in memory is, so nothing is proven about it.
fn memfd(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.judged(11, &[ODD, "memfd", "/bin/busybox", "true"])?;
    let exec = recording.exec(&["/bin/busybox", "true"])?;
    expect(exec, "/memfd", true)?;
    expect(exec, "/unlinked", true)?;
    ok(format!("inconclusive, {}", exec["file"]["path"]))
}

fn deleted(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.judged(11, &[ODD, "deleted", "/bin/busybox", "true"])?;
    let exec = recording.exec(&["/bin/busybox", "true"])?;
    expect(exec, "/unlinked", true)?;
    expect(exec, "/memfd", Value::Null)?;
    ok(format!("inconclusive, {}", exec["file"]["path"]))
}

fn exec_from_thread(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.judged(0, &[ODD, "from-thread", "/bin/busybox", "true"])?;
    let exec = recording.exec(&["/bin/busybox", "true"])?;
    let (leader, thread) = (exec["process"]["pid"].as_u64(), exec["thread"].as_u64());
    ensure!(thread.is_some() && thread != leader, "thread {thread:?} of process {leader:?}");
    let first = recording.exec(&[ODD])?;
    ensure!(first["process"] == exec["process"], "the process changed: {exec}");
    ok("recorded as the process, with its thread")
}

fn double_fork(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.judged(0, &[ODD, "double-fork", "/bin/sleep", "0.3"])?;
    let exec = recording.exec(&["/bin/sleep", "0.3"])?;
    let exit = recording.one("exit", "/process", exec["process"].clone())?;
    expect(exit, "/code", 0)?;
    expect(recording.end()?, "/survivors", serde_json::json!([]))?;
    ok("the grandchild was followed to its end")
}

fn exit_code(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.run(&[], 7, &[ODD, "exit", "7"])?;
    expect(recording.end()?, "/command_status/exited", 7)?;
    recording.one("exit", "/code", 7)?;
    ok("7")
}

fn signal(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.run(&[], 128 + libc::SIGTERM, &[ODD, "signal", "15"])?;
    expect(recording.end()?, "/command_status/killed", libc::SIGTERM)?;
    recording.one("exit", "/signal", libc::SIGTERM)?;
    ok("15")
}

/// A program two mounts below the root, and the same file through a bind mount of its folder, whose
/// root is not that of its file system.
fn paths_across_mounts(traced: &mut Traced) -> Result<Finding> {
    const OUTER: &str = "/tmp/outer";
    const INNER: &str = "/tmp/outer/deep/inner";
    const BOUND: &str = "/opt/bound";
    for at in [OUTER, INNER] {
        fs::create_dir_all(at).context(at)?;
        mount_at("tmpfs", "tmpfs", at, MountFlags::empty())?;
    }
    let folder = format!("{INNER}/a/b");
    fs::create_dir_all(&folder).with_context(|| folder.clone())?;
    fs::create_dir_all(BOUND).context(BOUND)?;
    bind(&folder, BOUND)?;
    fs::copy(ODD, format!("{folder}/program"))?;
    let mut paths = Vec::new();
    for folder in [folder.as_str(), BOUND] {
        let program = format!("{folder}/program");
        let script = format!("cd {folder} && ./program exit 0");
        let recording = traced.judged(0, &["/bin/sh", "-c", &script])?;
        let exec = recording.exec(&["./program"])?;
        expect(exec, "/file/path", program.as_str())?;
        expect(exec, "/cwd", folder)?;
        expect(exec, "/filename", "./program")?;
        paths.push(program);
    }
    ok(paths.join(" and "))
}

/// Deeper than a path is walked: the end of it, and marked as such.
fn path_too_deep(traced: &mut Traced) -> Result<Finding> {
    const DEPTH: usize = 80;
    let folder = format!("/tmp{}", "/x".repeat(DEPTH));
    fs::create_dir_all(&folder)?;
    let program = format!("{folder}/program");
    fs::copy(ODD, &program)?;
    let recording = traced.judged(0, &[&program, "exit", "0"])?;
    let file = &recording.exec(&[&program])?["file"];
    let path = file["path"].as_str().context("there is no path")?;
    let cut = file["path_cut"] == true;
    let is_right = if cut { program.ends_with(path) } else { program == path };
    ensure!(is_right, "cut: {cut}, {path}");
    ok(if cut { "marked as cut" } else { "whole" })
}

fn pid_namespace(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.judged(0, &[ODD, "pid-namespace", "/bin/true"])?;
    let (outer, inner) = (recording.exec(&[ODD])?, recording.exec(&["/bin/true"])?);
    expect(inner, "/ns_pid", 1)?;
    ensure!(inner["pid_ns_inum"] != outer["pid_ns_inum"], "the same namespace: {inner}");
    ok("process 1 inside, another outside")
}

fn credentials(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.judged(0, &[ODD, "as-user", "1000", "1001", "/bin/true"])?;
    let exec = recording.exec(&["/bin/true"])?;
    for (at, id) in [("uid", 1000), ("euid", 1000), ("gid", 1001), ("egid", 1001)] {
        expect(exec, &format!("/credentials/{at}"), id)?;
    }
    ok("1000:1001")
}

fn int80(traced: &mut Traced) -> Result<Finding> {
    // Without a policy tracer ends as the command does.
    let recording = match traced.run(&[], 0, &[ODD, "int80", "/bin/true"]) {
        Ok(recording) => recording,
        Err(_)
            if tracer(&["run", "--", ODD, "int80", "/bin/true"])?.code
                == i32::from(odd::UNSUPPORTED) =>
        {
            return Ok(Finding::Skipped("this kernel has no 32-bit system calls".into()));
        }
        Err(error) => return Err(error),
    };
    recording.exec(&["/bin/true"])?;
    ok("an exec by the 32-bit system call is recorded")
}

/// In an event, `unread` is the list of what a probe could not read. In a record of a file's content it
/// is the reason why tracer did not read the file, which may be gone by then.
fn every_field_readable(traced: &mut Traced) -> Result<Finding> {
    let mut records = 0;
    for run in &traced.runs {
        for record in &run.recording.records {
            records += 1;
            ensure!(!record["unread"].is_array(), "{}: {record}", run.command);
        }
    }
    ok(format!("{records} records of {} recordings", traced.runs.len()))
}

fn execs_equal_witness(traced: &mut Traced) -> Result<Finding> {
    let mut all = 0;
    for run in traced.runs.iter().filter(|run| !run.lossy) {
        let (execs, witnessed) = (run.recording.execs(), run.recording.witnessed()?);
        ensure!(execs == witnessed, "{}: {execs} recorded, {witnessed} counted", run.command);
        all += execs;
    }
    ok(format!("{all} execs"))
}

struct Counter {
    kind: String,
    produced: u64,
    lost: u64,
    read: u64,
}

fn counters(end: &Value) -> impl Iterator<Item = Counter> {
    end["counters"].as_array().into_iter().flatten().map(|row| Counter {
        kind: row["kind"].to_string(),
        produced: row["produced"].as_u64().unwrap_or(0),
        lost: row["lost"].as_u64().unwrap_or(0),
        read: row["read"].as_u64().unwrap_or(0),
    })
}

fn counters_add_up(traced: &mut Traced) -> Result<Finding> {
    let mut events = 0;
    for run in &traced.runs {
        for Counter { kind, produced, lost, read } in counters(run.recording.end()?) {
            ensure!(
                produced == lost + read,
                "{}: {produced} {kind} produced, {lost} lost, {read} read",
                run.command
            );
            ensure!(lost == 0 || run.lossy, "{}: {lost} {kind} lost", run.command);
            events += produced;
        }
    }
    ok(format!("{events} events"))
}

fn verify_agrees(traced: &mut Traced) -> Result<Finding> {
    for run in &traced.runs {
        let ended = tracer(&["verify", &run.file.display().to_string()])?;
        // Without a policy, the code of the run is the command's.
        let has_verdict = !run.recording.end()?["verdict"].is_null();
        let expected = if has_verdict { run.code } else { 0 };
        ensure!(
            ended.code == expected,
            "{}: code {}, not {expected}: {}{}",
            run.command,
            ended.code,
            ended.out,
            ended.err
        );
    }
    ok(format!("on {} recordings", traced.runs.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_as_doctor_prints_them() {
        let doctor = "kernel                 6.1 (x86_64)\n\
                      verified instructions  exec 5910, exit 7\n\
                      verdict                tracer run works here\n";
        assert_eq!(verified_instructions(doctor), [("exec", 5910), ("exit", 7)]);
    }
}
