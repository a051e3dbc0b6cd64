//! Attacks on tracer itself, by root.

use std::{
    fs,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tracer::{
    policy::Ruling,
    record::{self, Integrity, schema::CommandCgroup},
};

use crate::{
    Test,
    harness::{Scratch, copy_program, program, same_lines, skip, until, wait_for},
};

pub(crate) const TESTS: &[Test] = &[
    ("detached_probe", detached_probe),
    ("edited_maps", edited_maps),
    ("small_disk", small_disk),
    ("rotated", rotated),
    ("write_errors", write_errors),
    ("stopped_tracer", stopped_tracer),
    ("flood", flood),
    ("moving_address", moving_address),
    ("time_namespace", time_namespace),
    ("clock_set", clock_set),
];

/// `union bpf_attr` of commands that take up to four numbers.
#[repr(C)]
#[derive(Default)]
struct Attr([u32; 8]);

fn bpf(command: libc::c_long, attr: &mut Attr) -> std::io::Result<i32> {
    // SAFETY: the kernel reads and writes no more than the size that is given.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<Attr>()) };
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    i32::try_from(result).map_err(std::io::Error::other)
}

fn open_by_id(command: libc::c_long, id: u32) -> std::io::Result<OwnedFd> {
    let fd = bpf(command, &mut Attr([id, 0, 0, 0, 0, 0, 0, 0]))?;
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn info(fd: &OwnedFd) -> std::io::Result<String> {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))
}

fn field(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Detaches what is attached to a cgroup. How many there were.
fn detach_all(cgroup: u64) -> Result<usize> {
    const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
    const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;
    const BPF_LINK_DETACH: libc::c_long = 34;
    let (mut id, mut detached) = (0, 0);
    loop {
        let mut attr = Attr([id, 0, 0, 0, 0, 0, 0, 0]);
        if bpf(BPF_LINK_GET_NEXT_ID, &mut attr).is_err() {
            return Ok(detached);
        }
        id = attr.0[1];
        let Ok(link) = open_by_id(BPF_LINK_GET_FD_BY_ID, id) else { continue };
        if field(&info(&link)?, "cgroup_id:") == Some(cgroup) {
            let descriptor = link.as_raw_fd().cast_unsigned();
            bpf(BPF_LINK_DETACH, &mut Attr([descriptor, 0, 0, 0, 0, 0, 0, 0]))?;
            detached += 1;
        }
    }
}

const WAIT: &str = "while [ ! -e go ]; do sleep 0.01; done";

/// Programs on sockets that somebody detaches are missed, and the verdict says so.
fn detached_probe(scratch: &Scratch) -> Result<()> {
    let recording = scratch.file("session.jsonl");
    let run = scratch.run(["sh", "-c", WAIT]).policy("no-aws-cli").option("-o").option(&recording);
    let mut tracer = run.spawn()?;
    until("the command", || {
        fs::read_to_string(&recording).is_ok_and(|text| text.contains("\"type\":\"exec\""))
    })?;
    let Some(CommandCgroup::Own { id, .. }) = record::read(&recording)?.start.cgroup else {
        scratch.write("go", "")?;
        wait_for(&mut tracer)?;
        return skip("the command has no cgroup");
    };
    ensure!(detach_all(id)? > 0, "nothing is attached to the command's cgroup");
    // Longer than from one check to the next.
    std::thread::sleep(Duration::from_millis(1200));
    scratch.write("go", "")?;
    ensure!(wait_for(&mut tracer)?.code() == Some(11));
    let end = record::read(&recording)?.end.context("no end")?;
    let checks = end.checks.context("no checks")?;
    ensure!(checks.made >= 2, "{checks:?}");
    ensure!(checks.failure.is_some_and(|why| why.contains("detached by somebody else")));
    let verdict = end.verdict.context("no verdict")?;
    ensure!(verdict.overall == Ruling::Inconclusive, "{verdict:?}");
    ensure!(verdict.claims[0].reasons.iter().any(|reason| reason.starts_with("attached: ")));
    Ok(())
}

/// Nobody can write to the maps on which a verdict rests.
fn edited_maps(scratch: &Scratch) -> Result<()> {
    const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
    const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
    /// BPF_MAP_TYPE_HASH, _ARRAY, _PERCPU_ARRAY and _LRU_HASH; the others are rings.
    const WRITABLE: [u64; 4] = [1, 2, 6, 9];
    /// Written while tracing goes on, and about calls.
    const OPEN: [&str; 2] = ["TLS_PLACES", "TLS_SESSIONS"];
    let recording = scratch.file("session.jsonl");
    let command = ["sh", "-c", WAIT];
    let run = scratch.run(command).policy("no-aws-cli");
    let mut tracer = run.option("-o").option(&recording).spawn()?;
    until("the command", || {
        fs::read_to_string(&recording).is_ok_and(|text| text.contains("\"type\":\"exec\""))
    })?;
    let mut refused = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", tracer.id()))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let (Some(id), Some(kind)) = (field(&text, "map_id:"), field(&text, "map_type:")) else {
            continue;
        };
        if !WRITABLE.contains(&kind) {
            continue;
        }
        let map = open_by_id(BPF_MAP_GET_FD_BY_ID, u32::try_from(id)?)?;
        let name = map_name(&map)?;
        if OPEN.contains(&&*name) {
            continue;
        }
        ensure!(field(&text, "frozen:") == Some(1), "{name} can be written to");
        let key = [1u8; 64];
        let address = key.as_ptr() as u64;
        let [low, high] = [address as u32, (address >> 32) as u32];
        let descriptor = map.as_raw_fd().cast_unsigned();
        let deleted = bpf(BPF_MAP_DELETE_ELEM, &mut Attr([descriptor, 0, low, high, 0, 0, 0, 0]));
        let error = deleted.err().with_context(|| format!("{name} was written to"))?;
        ensure!(error.raw_os_error() == Some(libc::EPERM), "{name}: {error}");
        refused.push(name);
    }
    scratch.write("go", "")?;
    ensure!(wait_for(&mut tracer)?.code() == Some(0), "the run was not proven");
    for name in ["TREE", "IDENTIFIED"] {
        ensure!(refused.iter().any(|refused| refused == name), "no {name} in {refused:?}");
    }
    Ok(())
}

/// Of a map, as the kernel keeps it: 15 bytes at the most.
fn map_name(map: &OwnedFd) -> Result<String> {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    /// In `struct bpf_map_info`, behind six numbers.
    const NAME: std::ops::Range<usize> = 24..40;
    let mut info = [0u8; NAME.end];
    let address = info.as_mut_ptr() as u64;
    let [low, high] = [address as u32, (address >> 32) as u32];
    let (fd, len) = (map.as_raw_fd().cast_unsigned(), u32::try_from(info.len())?);
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut Attr([fd, len, low, high, 0, 0, 0, 0]))?;
    let name = &info[NAME];
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// A file system of this size, gone afterwards.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn new(scratch: &Scratch, size: &str) -> Result<SmallDisk> {
        let folder = scratch.folder(format!("disk-{size}"))?;
        let flags = rustix::mount::MountFlags::empty();
        let options = std::ffi::CString::new(format!("size={size}"))?;
        rustix::mount::mount("tmpfs", &folder, "tmpfs", flags, options.as_c_str())?;
        Ok(SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH) {
            eprintln!("{} could not be unmounted: {error}", self.0.display());
        }
    }
}

/// A full disk is told, what is on it is intact as far as it goes, and the command is treated as asked.
fn small_disk(scratch: &Scratch) -> Result<()> {
    for (what, runs_on) in [("continue", true), ("stop", false)] {
        let disk = SmallDisk::new(scratch, "256k")?;
        let recording = disk.0.join("session.jsonl");
        let ended = scratch.file(format!("ended-{what}"));
        let line = format!(
            "i=0; while [ $i -lt 400 ]; do /bin/true; i=$((i+1)); done; sleep 2; touch {}",
            ended.display()
        );
        let run = scratch.run(["sh", "-c", &line]).policy("no-aws-cli");
        let output =
            run.option("-o").option(&recording).option("--on-error").option(what).output()?;
        output.exits(125)?.says("could not be written to its end")?.says("No space left")?;
        output.says("says that it was cut short (exit code 11)")?;
        ensure!(ended.exists() == runs_on, "{what}: the command ran on: {}", ended.exists());
        if !runs_on {
            output.says("the command gets SIGTERM")?;
        }
        let recording = recording.to_string_lossy();
        let verified = scratch.tracer(&["verify", &recording]).output()?;
        verified
            .exits(11)?
            .prints("integrity: NO: the recording was cut short")?
            .prints("inconclusive")?;
        let report = scratch.tracer(&["report", &recording]).output()?;
        report.exits(11)?.prints("/bin/true")?;
    }
    Ok(())
}

/// A recording goes on in further files, and is one.
fn rotated(scratch: &Scratch) -> Result<()> {
    let recording = scratch.file("session.jsonl");
    let line = "i=0; while [ $i -lt 400 ]; do /bin/true; i=$((i+1)); done";
    let record = || {
        let run =
            scratch.run(["sh", "-c", line]).policy("no-aws-cli").option("-o").option(&recording);
        run.option("--rotate").option("64K")
    };
    record().output()?.exits(0)?;
    let part = |number: u32| scratch.file(format!("session.jsonl.{number}"));
    ensure!(part(3).exists(), "the recording has fewer than four files");
    let path = recording.to_string_lossy().into_owned();
    let verify = || scratch.tracer(&["verify", &path]).output();
    verify()?.exits(0)?;
    let later = scratch.tracer(&["verify", &part(2).to_string_lossy()]).output()?;
    later.exits(125)?.says("is a later part of a recording")?.says(&format!("{path},"))?;
    fs::rename(part(2), scratch.file("aside"))?;
    verify()?.exits(11)?.prints("of its files together")?.prints("the digest does not fit")?;
    fs::rename(scratch.file("aside"), part(2))?;
    verify()?.exits(0)?;
    record().output()?.exits(125)?.says("--force removes them")?;
    record().option("--force").output()?.exits(0)?;
    verify()?.exits(0)?;
    Ok(())
}

/// A device that fails and a reader that is gone end as a full disk does.
fn write_errors(scratch: &Scratch) -> Result<()> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let line = "/bin/true; while [ ! -e go ]; do sleep 0.01; done; /bin/true; touch ended";
    for (broken, says) in [("terminal", "Input/output error"), ("pipe", "Broken pipe")] {
        let [go, ended] = ["go", "ended"].map(|name| scratch.file(name));
        // Writing to a terminal whose other end is closed is EIO.
        let (reader, path) = if broken == "terminal" {
            let controller =
                openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            grantpt(&controller)?;
            unlockpt(&controller)?;
            let path = ptsname(&controller, Vec::new())?.into_string()?;
            (controller, path)
        } else {
            let path = scratch.file("pipe");
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)?;
            // Read and write: opening it waits for nobody.
            let reader = fs::File::options().read(true).write(true).open(&path)?;
            (OwnedFd::from(reader), path.display().to_string())
        };
        let run = scratch.run(["sh", "-c", line]).policy("no-aws-cli").option("-o").option(&path);
        let errors = fs::File::create(scratch.file("errors"))?;
        let run = run.set(|command| {
            command.stderr(errors);
        });
        let mut tracer = run.spawn_on_own_streams()?;
        let mut start = [0; 4096];
        ensure!(rustix::io::read(&reader, &mut start)? > 0, "{broken}: no recording came");
        drop(reader);
        scratch.write("go", "")?;
        let status = wait_for(&mut tracer)?;
        let said = fs::read_to_string(scratch.file("errors"))?;
        ensure!(status.code() == Some(125), "{broken}: {status}: {said}");
        ensure!(said.contains("could not be written to its end"), "{broken}: {said}");
        ensure!(said.contains(says), "{broken}: {said}");
        ensure!(ended.exists(), "{broken}: the command did not run on");
        fs::remove_file(go)?;
        fs::remove_file(ended)?;
    }
    Ok(())
}

/// While tracer stands still, the rings hold what happens; what they cannot hold is counted.
fn stopped_tracer(scratch: &Scratch) -> Result<()> {
    for (ring, may_lose) in [(None, false), (Some("--debug-map=PROCESS_RING=4096"), true)] {
        let recording = scratch.file(format!("stopped-{may_lose}.jsonl"));
        let line = "touch ready; while [ ! -e go ]; do sleep 0.01; done; \
             i=0; while [ $i -lt 300 ]; do /bin/true $i; i=$((i+1)); done";
        let run =
            scratch.run(["sh", "-c", line]).policy("no-aws-cli").option("-o").option(&recording);
        let run = ring.into_iter().fold(run, |run, option| run.option(option));
        let mut tracer = run.spawn()?;
        until("the command", || scratch.file("ready").exists())?;
        let pid = i32::try_from(tracer.id())?;
        // SAFETY: no memory is involved; the child was not waited for.
        ensure!(unsafe { libc::kill(pid, libc::SIGSTOP) } == 0);
        scratch.write("go", "")?;
        std::thread::sleep(Duration::from_millis(2500));
        // SAFETY: as above.
        ensure!(unsafe { libc::kill(pid, libc::SIGCONT) } == 0);
        let status = wait_for(&mut tracer)?;
        let end = record::read(&recording)?.end.context("no end")?;
        let lost: u64 = end.counters.iter().map(|row| row.lost).sum();
        let ruling = end.verdict.context("no verdict")?.overall;
        ensure!((lost > 0) == may_lose, "{lost} lost with {ring:?}");
        let expected = if may_lose { Ruling::Inconclusive } else { Ruling::Proven };
        ensure!(ruling == expected, "{ring:?}: {ruling:?}, {status}");
        for file in ["go", "ready"] {
            fs::remove_file(scratch.file(file))?;
        }
    }
    Ok(())
}

/// Cheap events by the hundred thousand do not drown the one that counts.
fn flood(scratch: &Scratch) -> Result<()> {
    let run = scratch.run([program(scratch, "flood")?]).policy("no-aws-cli").record()?;
    let real = run.exec("echo")?;
    ensure!(real.argv.args.len() == 2, "{real:?}");
    run.all_seen()?;
    for kind in ["fork", "exec", "exit"] {
        ensure!(run.counted(kind)?.lost == 0, "{kind}: {:?}", run.counted(kind)?);
    }
    // All failed execs are in it, told apart or not, or the verdict says how many are not.
    let lost = run.counted("attempt")?.lost + run.counted("datagram")?.lost;
    run.rules(if lost == 0 { Ruling::Proven } else { Ruling::Inconclusive })?;
    Ok(())
}

/// What is recorded is where the kernel connected to, not what the caller's memory says.
fn moving_address(scratch: &Scratch) -> Result<()> {
    let line = format!("{} > reached", program(scratch, "moving-address")?.display());
    let run = scratch.run(["sh", "-c", &line]).policy("no-aws-cli").record()?;
    run.proven()?;
    let reached = fs::read_to_string(scratch.file("reached"))?;
    let reached = reached.trim().split_once(' ').context("no counts")?;
    let count = |address: &str| {
        let to = |line: &&String| line.starts_with(&format!("{address} established"));
        run.connection_lines().iter().filter(to).count().to_string()
    };
    same_lines(
        &format!("127.0.0.2: {}\n127.0.0.3: {}\n", reached.0, reached.1),
        &[
            format!("127.0.0.2: {}", count("127.0.0.2")),
            format!("127.0.0.3: {}", count("127.0.0.3")),
        ],
    )
}

/// In a time namespace tracer is told another time than the kernel has; what it orders by time stays right.
fn time_namespace(scratch: &Scratch) -> Result<()> {
    let bin = scratch.folder("bin")?;
    scratch.copy(&program(scratch, "argv0")?, "bin/aws")?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    for offset in [0, 864_000, -60] {
        let run = scratch.run(["sh", "-c", "cat bin/aws > /dev/null"]).policy("no-aws-cli");
        let run = run.by(|tracer| {
            let mut command = std::process::Command::new("unshare");
            command.args(["-T", "--boottime", &offset.to_string()]).arg(tracer);
            command
        });
        let run = run.env("PATH", &path).record()?;
        run.rules(Ruling::Inconclusive)
            .and_then(|run| run.because(&["it opened", "bin/aws"]))
            .with_context(|| format!("an offset of {offset} s"))?;
    }
    Ok(())
}

/// Unix time minus the time since the machine was started, in nanoseconds. Put back when dropped.
struct Clock(i64);

const SECOND_NS: i64 = 1_000_000_000;

impl Clock {
    fn new() -> Result<Clock> {
        Ok(Clock(Clock::read(libc::CLOCK_REALTIME)? - Clock::read(libc::CLOCK_BOOTTIME)?))
    }

    fn read(clock: libc::clockid_t) -> Result<i64> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the timespec is writable.
        ensure!(unsafe { libc::clock_gettime(clock, &raw mut time) } == 0, "no clock {clock}");
        Ok(time.tv_sec * SECOND_NS + time.tv_nsec)
    }

    fn set(&self, seconds_later: i64) -> Result<()> {
        let now = self.0 + Clock::read(libc::CLOCK_BOOTTIME)? + seconds_later * SECOND_NS;
        let time = libc::timespec { tv_sec: now / SECOND_NS, tv_nsec: now % SECOND_NS };
        // SAFETY: the timespec is readable.
        let set = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) };
        ensure!(set == 0, "the clock cannot be set: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if let Err(error) = self.set(0) {
            eprintln!("the clock could not be put back: {error:#}");
        }
    }
}

/// Setting the clock changes neither order nor times, and hides no change of a file.
fn clock_set(scratch: &Scratch) -> Result<()> {
    const DAY_S: i64 = 86_400;
    let clock = Clock::new()?;
    for (round, seconds_later) in [DAY_S, -DAY_S].into_iter().enumerate() {
        let (ready, go) = (format!("ready-{round}"), format!("go-{round}"));
        let line = format!(
            "/bin/true; touch {ready}; while [ ! -e {go} ]; do sleep 0.01; done; /bin/true; /bin/true"
        );
        let recording = scratch.file(format!("set-{round}.jsonl"));
        let run =
            scratch.run(["sh", "-c", &line]).policy("no-aws-cli").option("-o").option(&recording);
        let mut tracer = run.spawn()?;
        until("the command", || scratch.file(&ready).exists())?;
        clock.set(seconds_later)?;
        scratch.write(&go, "")?;
        let status = wait_for(&mut tracer)?;
        clock.set(0)?;
        ensure!(status.code() == Some(0), "{seconds_later} s: {status}");
        let recorded = record::read(&recording)?;
        ensure!(recorded.integrity == Integrity::Intact, "{:?}", recorded.integrity);
        let end = recorded.end.context("no end")?;
        let lasted_s = end.t_ns.saturating_sub(recorded.start.t_ns) / 1_000_000_000;
        ensure!(end.t_ns > recorded.start.t_ns && lasted_s < 3600, "it lasted {lasted_s} s");
        let verified = scratch.tracer(&["verify", &recording.to_string_lossy()]).output()?;
        verified.exits(0)?.prints("integrity: every line")?;
    }
    changed_in_the_past(scratch, &clock)
}

/// A file that is changed after it was mapped, at a time that seems to be before.
fn changed_in_the_past(scratch: &Scratch, clock: &Clock) -> Result<()> {
    let aws = scratch.folder("bin")?.join("aws");
    copy_program(program(scratch, "stand-in")?, &aws)?;
    let copy = scratch.file("copy");
    copy_program(&aws, &copy)?;
    let load = program(scratch, "load")?;
    let path =
        format!("{}:{}", scratch.file("bin").display(), std::env::var("PATH").unwrap_or_default());
    let line = format!(
        "touch ready; while [ ! -e go ]; do sleep 0.01; done; {} {}; touch mapped; \
         while [ ! -e end ]; do sleep 0.01; done",
        load.display(),
        copy.display()
    );
    let recording = scratch.file("past.jsonl");
    let run = scratch.run(["sh", "-c", &line]).policy("no-aws-cli").env("PATH", path);
    let mut tracer = run.option("-o").option(&recording).spawn()?;
    until("the command", || scratch.file("ready").exists())?;
    let pid = i32::try_from(tracer.id())?;
    // Else it looks at the file before that is changed.
    // SAFETY: no memory is involved; the child was not waited for.
    ensure!(unsafe { libc::kill(pid, libc::SIGSTOP) } == 0);
    scratch.write("go", "")?;
    until("the mapping", || scratch.file("mapped").exists())?;
    clock.set(-3600)?;
    fs::write(&copy, vec![0; usize::try_from(fs::metadata(&copy)?.len())?])?;
    scratch.write("end", "")?;
    // SAFETY: as above.
    ensure!(unsafe { libc::kill(pid, libc::SIGCONT) } == 0);
    let status = wait_for(&mut tracer)?;
    ensure!(status.code() == Some(11), "{status}");
    let verdict =
        record::read(&recording)?.end.and_then(|end| end.verdict).context("no verdict")?;
    let reasons = &verdict.claims[0].reasons;
    ensure!(
        reasons.iter().any(|reason| reason.contains("it was changed when it was mapped, or since")),
        "{reasons:#?}"
    );
    Ok(())
}
