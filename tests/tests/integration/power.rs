//! What tracer may do: with as little as is documented it works, and soon it has nothing.

mod doctor;
mod service;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::CapabilitySet;
use serde_json::Value;
use tracer::{
    policy::Ruling,
    record::{self, Integrity},
    session::Story,
};
use tracer_tests::cgroup::Cgroup;

use crate::{
    Test,
    harness::{
        NOBODY, Scratch, Tracer,
        attached::{Attached, Workload},
        child_of, on_path, until, wait_for,
    },
    opentelemetry::{Sink, sender_of},
};

pub(crate) const TESTS: &[Test] = &[
    ("exact_capabilities", exact_capabilities),
    ("each_missing_capability_is_named", each_missing_capability_is_named),
    ("each_of_the_sidecars_is_named", each_of_the_sidecars_is_named),
    ("the_daemonsets_are_enough", the_daemonsets_are_enough),
    ("everything_is_given_up", everything_is_given_up),
    ("attached_it_gives_up_everything_too", attached_it_gives_up_everything_too),
    ("the_command_has_the_callers_rights", the_command_has_the_callers_rights),
    ("a_killed_broker", a_killed_broker),
    ("what_outlives_tracer", what_outlives_tracer),
    ("doctor_as_json", doctor::as_json),
    ("unit_of_systemd", service::unit_of_systemd),
    ("started_by_systemd", service::started_by_systemd),
];

/// A row of the table, as `tracer doctor --json` has it.
#[derive(Clone, Debug)]
struct Need {
    name: String,
    needed: String,
    essential: bool,
}

fn doctor(scratch: &Scratch) -> Result<Value> {
    let output = scratch.tracer(&["doctor", "--json"]).output()?;
    output.exits(0)?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn needs(doctor: &Value) -> Result<Vec<Need>> {
    let rows = doctor["capabilities"].as_array().context("no capabilities")?;
    let need = |row: &Value| {
        Some(Need {
            name: row["name"].as_str()?.to_owned(),
            needed: row["needed"].as_str()?.to_owned(),
            essential: row["without"].is_null(),
        })
    };
    rows.iter().map(|row| need(row).with_context(|| format!("{row}"))).collect()
}

/// By their names, as capabilities(7) has them.
fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<CapabilitySet> {
    let one = |name: &str| {
        let name = name.strip_prefix("CAP_").unwrap_or(name);
        CapabilitySet::from_name(name).with_context(|| format!("no capability {name}"))
    };
    names.into_iter().try_fold(CapabilitySet::empty(), |all, name| Ok(all | one(name)?))
}

/// Starts a program in a cgroup with those capabilities and no chance of more.
fn limit(command: &mut Command, capabilities: CapabilitySet, cgroup: &Cgroup) -> Result<()> {
    let door = fs::OpenOptions::new().write(true).open(cgroup.path().join("cgroup.procs"))?;
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap")?.trim().parse()?;
    let in_child = move || {
        (&door).write_all(b"0")?;
        let _ = door.as_raw_fd();
        for number in 0..=last {
            if capabilities.bits() & (1 << number) != 0 {
                continue;
            }
            // SAFETY: no memory is involved.
            if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // What is executed by root has all of the bounding set, and nothing else.
        Ok(())
    };
    // SAFETY: the closure makes system calls only: no allocation, no lock.
    unsafe { command.pre_exec(in_child) };
    Ok(())
}

fn limited<'a>(
    tracer: Tracer<'a>,
    capabilities: CapabilitySet,
    cgroup: &Cgroup,
) -> Result<Tracer<'a>> {
    let mut limited = Ok(());
    let tracer = tracer.set(|command| limited = limit(command, capabilities, cgroup));
    limited?;
    Ok(tracer)
}

fn as_nobody(tracer: Tracer<'_>) -> Tracer<'_> {
    tracer.env("SUDO_UID", NOBODY.to_string()).env("SUDO_GID", NOBODY.to_string())
}

/// Each documented set is enough for what it is documented for.
fn exact_capabilities(scratch: &Scratch) -> Result<()> {
    let needs = needs(&doctor(scratch)?)?;
    let cgroup = Cgroup::new("tracer-test-power")?;
    let of = |features: &[&str]| {
        let wanted = needs.iter().filter(|need| features.contains(&&*need.needed));
        set(wanted.map(|need| &*need.name))
    };
    // What was split off from CAP_SYS_ADMIN is not needed beside it.
    let split = set(["CAP_BPF", "CAP_PERFMON"])?;

    let plain = of(&["always"])?;
    ensure!(plain.contains(split) && !plain.contains(CapabilitySet::SYS_ADMIN), "{plain:?}");
    let run = limited(scratch.run(["true"]), plain, &cgroup)?.record()?;
    run.exits(0)?;
    ensure!(run.story.execs == 1, "{} execs", run.story.execs);

    let verdict = of(&["always", "with a policy", "to run with a policy"])?;
    for set in [verdict, verdict - split] {
        let run = scratch.run(["sh", "-c", "/bin/true; /bin/true"]).policy("no-aws-cli");
        limited(run, set, &cgroup)?.record()?.proven()?;
    }
    let enforced = scratch.run(["/bin/sh", "-c", "aws"]).policy("no-aws-cli").option("--enforce");
    scratch.copy(Path::new("/bin/true"), "aws")?;
    let run = limited(enforced.env("PATH", scratch.path()), verdict, &cgroup)?.record()?;
    run.rules(Ruling::Violated)?.because(&["killed before its first instruction"])?;
    each_option_with_its_own(scratch, &needs, &cgroup)?;

    let caller = of(&[
        "always",
        "with a policy",
        "to run with a policy",
        "behind sudo",
        "behind sudo, and to attach",
    ])?;
    // A file that its user alone may read, of a process that lives long enough to be looked at.
    scratch.give_to(NOBODY)?;
    let line = "cp /bin/sleep gone; chmod 700 gone; ./gone 0.5 & sleep 0.2; rm gone; wait";
    let run = as_nobody(scratch.run(["sh", "-c", line]).policy("no-aws-cli"));
    let run = limited(run, caller, &cgroup)?.record()?;
    run.proven()?;
    let gone = run.exec("gone")?.file.as_ref().context("no file")?.version();
    let sha256 = run.story.content(&gone);
    ensure!(sha256.is_ok(), "{sha256:?}");
    Ok(())
}

/// What watches more asks for more, and says so by name.
fn each_option_with_its_own(scratch: &Scratch, needs: &[Need], cgroup: &Cgroup) -> Result<()> {
    for (option, sensor) in
        [("--resolver", "resolved"), ("--attempts", "attempts"), ("--http", "tls")]
    {
        let own = format!("with `{option}`");
        let wanted =
            needs.iter().filter(|need| need.needed == "always" || need.needed.starts_with(&own));
        let with = set(wanted.map(|need| &*need.name))?;
        let run = || scratch.run(["true"]).option(option);
        let all = limited(run(), with, cgroup)?.record()?;
        all.exits(0)?;
        ensure!(!all.output.stderr.contains("without CAP_"), "{option}: {}", all.output.stderr);
        let row = all.story.start.sensors.iter().find(|row| row.sensor == sensor);
        match &row.with_context(|| sensor.to_owned())?.missing {
            // Of the machine, not of what tracer may do.
            Some(why) if ["no C library", "seccomp"].iter().any(|part| why.contains(part)) => {}
            Some(why) => anyhow::bail!("{option}: {why}"),
            None => {}
        }
        for name in needs.iter().filter(|need| need.needed.starts_with(&own)).map(|need| &need.name)
        {
            let less = limited(run(), with - set([&**name])?, cgroup)?.output()?;
            less.exits(0)?.says(&format!("without {name}")).with_context(|| option.to_owned())?;
        }
    }
    Ok(())
}

/// Without a capability tracer says which one is missing, before it starts anything.
fn each_missing_capability_is_named(scratch: &Scratch) -> Result<()> {
    let needs = needs(&doctor(scratch)?)?;
    let cgroup = Cgroup::new("tracer-test-power")?;
    let all = set(needs.iter().map(|need| &*need.name))?;
    let ran = scratch.file("ran");
    scratch.give_to(NOBODY)?;
    // What only some options need is tried with those.
    let is_tried = |need: &Need| !["where", "with `"].iter().any(|it| need.needed.starts_with(it));
    for need in needs.iter().filter(|need| is_tried(need)) {
        let without = all - set([&*need.name])?;
        let without = if ["CAP_BPF", "CAP_PERFMON"].contains(&&*need.name) {
            without - CapabilitySet::SYS_ADMIN
        } else {
            without
        };
        let run = as_nobody(scratch.run(["touch".as_ref(), ran.as_os_str()]).policy("no-aws-cli"));
        let recording = scratch.file(format!("without-{}.jsonl", need.name));
        let run = run.option("--output").option(&recording);
        let output = limited(run, without, &cgroup)?.output()?;
        ensure!(need.essential != recording.exists(), "{}: an empty file is left", need.name);
        output.says(&need.name).with_context(|| need.name.clone())?;
        if need.essential && need.needed == "always" {
            let doctor = limited(scratch.tracer(&["doctor", "--json"]), without, &cgroup)?;
            let doctor: Value = serde_json::from_slice(&doctor.output()?.stdout)?;
            ensure!(
                doctor["usable"] == false,
                "the doctor says that it works without {}",
                need.name
            );
        }
        if need.essential {
            output.exits(125)?.says("Nothing was started")?;
            ensure!(!ran.exists(), "{}: the command ran", need.name);
        } else {
            output.says(&format!("without {}", need.name))?;
        }
        let _ = fs::remove_file(&ran);
    }
    Ok(())
}

/// Items of a list of a manifest, by the line before the first.
fn listed(manifest: &str, before: &str) -> Result<Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes");
    let text = fs::read_to_string(folder.join(manifest))?;
    let (_, list) =
        text.split_once(before).with_context(|| format!("no {before} in {manifest}"))?;
    let one = |line: &str| Some(line.trim().strip_prefix("- ")?.split(' ').next()?.to_owned());
    let items: Vec<String> = list.lines().map_while(one).collect();
    ensure!(items.len() > 2, "{items:?}");
    Ok(items)
}

/// With those that the manifest of the daemonset has, and no others, everybody's processes are read.
fn the_daemonsets_are_enough(scratch: &Scratch) -> Result<()> {
    let names = listed("daemonset.yaml", "add:\n")?;
    let capabilities = set(names.iter().map(String::as_str))?;
    let words = listed("daemonset.yaml", "args:\n")?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    ensure!(words.contains(&"--output=-"), "{words:?}");
    let cgroup = Cgroup::new("tracer-test-power")?;
    // Another user's, with a socket.
    let script = "import os, socket, time\n\
         os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n\
         listener = socket.create_server(('127.0.0.1', 0)); time.sleep(100)";
    let mut python = Command::new("/usr/bin/python3");
    let nobodys = Workload::start(scratch, python.args(["-c", script]))?;
    let pid: u32 = nobodys.pid().parse()?;
    until("its socket", || {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|open| open.count() > 3)
    })?;
    let tracer = scratch.tracer(&words).set(|command| {
        command.args(["--duration", "1s"]);
    });
    let output = limited(tracer, capabilities, &cgroup)?.output()?;
    output.exits(0)?;
    ensure!(output.stderr.is_empty(), "{}", output.stderr);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let story = Story::of(record::read(&scratch.write("host.jsonl", &lines)?)?);
    ensure!(story.integrity == Integrity::Intact, "{:?}", story.integrity);
    let doubts = &story.snapshot.as_ref().context("no snapshot")?.doubts;
    // A sandbox can have a first process that not even root may look at.
    let first = fs::read_link("/proc/1/exe").is_err();
    let is_known = |doubt: &String| first && doubt.contains("which file process 1 executes");
    ensure!(doubts.iter().all(is_known), "{doubts:?}");
    ensure!(story.found_sockets.iter().any(|socket| socket.process.pid == pid), "its socket");
    // Files are watched for policies, and it has none.
    for sensor in story.start.sensors.iter().filter(|sensor| sensor.sensor != "files") {
        ensure!(sensor.missing.is_none(), "{sensor:?}");
    }
    // None is there without need.
    let attach = |with: CapabilitySet| -> Result<_> {
        let tracer = scratch.tracer(&["attach", "--host", "--duration", "1s", "--quiet"]);
        limited(tracer, with, &cgroup)?.output()
    };
    for name in &names {
        let without = attach(capabilities - set([name.as_str()])?)?;
        without.says(&format!("CAP_{name}")).with_context(|| name.clone())?;
    }
    Ok(())
}

/// Of the capabilities in the sidecar's manifest none can be left out without a word.
fn each_of_the_sidecars_is_named(scratch: &Scratch) -> Result<()> {
    let names = listed("sidecar.yaml", "add:\n")?;
    let all = set(names.iter().map(String::as_str))?;
    let cgroup = Cgroup::new("tracer-test-power")?;
    let sleeper = Workload::shell(scratch, "sleep 100; :")?;
    let pid = sleeper.pid();
    let attach = |with: CapabilitySet| -> Result<_> {
        let tracer = scratch.tracer(&["attach", "--pid", &pid, "--duration", "1s", "--quiet"]);
        let tracer = tracer.policy("no-telemetry").option("--from-arming");
        limited(tracer, with, &cgroup)?.output()
    };
    let whole = attach(all)?;
    for name in &names {
        ensure!(!whole.stderr.contains(&format!("without CAP_{name} ")), "{}", whole.stderr);
        let mut without = all - set([name.as_str()])?;
        if ["BPF", "PERFMON"].contains(&name.as_str()) {
            // The larger one has these.
            without -= CapabilitySet::SYS_ADMIN;
        }
        attach(without)?.says(&format!("CAP_{name}")).with_context(|| name.clone())?;
    }
    whole.exits(11)?;
    Ok(())
}

const WAIT: &str = "while [ ! -e go ]; do sleep 0.01; done";

/// Starts tracer with a recording, and waits until the recording has such a line.
fn started(tracer: Tracer<'_>, recording: &Path, kind: &str) -> Result<Child> {
    let child = tracer.option("-o").option(recording).spawn()?;
    let line = format!("\"type\":\"{kind}\"");
    until(kind, || fs::read_to_string(recording).is_ok_and(|text| text.contains(&line)))?;
    Ok(child)
}

/// Fields of /proc/PID/task/TID/status, by thread.
fn threads(pid: u32) -> Result<Vec<BTreeMap<String, String>>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("status"))?;
        let fields = text.lines().filter_map(|line| line.split_once(":\t"));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        threads.push(fields.collect());
    }
    Ok(threads)
}

fn check_given_up(pid: u32) -> Result<()> {
    let threads = threads(pid)?;
    let names: Vec<&String> = threads.iter().filter_map(|thread| thread.get("Name")).collect();
    ensure!(names.iter().any(|name| *name == "hasher"), "{names:?}");
    check_powerless(&threads)
}

/// The process that sends log records can do as little, and has nothing open that leads anywhere else.
fn check_sender(tracer: u32) -> Result<()> {
    let sender = sender_of(tracer)?;
    check_powerless(&threads(sender)?)?;
    for open in fs::read_dir(format!("/proc/{sender}/fd"))? {
        let leads_to = fs::read_link(open?.path())?;
        let to = leads_to.to_string_lossy();
        ensure!(to == "/dev/null" || to.starts_with("socket:"), "{to}");
    }
    Ok(())
}

fn check_powerless(threads: &[BTreeMap<String, String>]) -> Result<()> {
    ensure!(!threads.is_empty(), "no threads");
    for thread in threads {
        let field = |name: &str| thread.get(name).map_or("none", String::as_str);
        for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
            let has = u64::from_str_radix(field(set), 16)?;
            ensure!(has == 0, "{set} of {} is {has:x}", field("Name"));
        }
        ensure!(field("NoNewPrivs") == "1", "{thread:?}");
        ensure!(field("Seccomp") == "2", "{thread:?}");
    }
    Ok(())
}

/// Once the command runs, no thread of tracer can do anything that any process could not.
fn everything_is_given_up(scratch: &Scratch) -> Result<()> {
    let sink = Sink::start()?;
    for (number, options) in
        [&[][..], &["--http"], &["--otlp-endpoint", &sink.endpoint]].into_iter().enumerate()
    {
        let recording = scratch.file(format!("session-{number}.jsonl"));
        let tracer = scratch.run(["sh", "-c", WAIT]).policy("no-aws-cli");
        let tracer = options.iter().fold(tracer, Tracer::option);
        let mut tracer = started(tracer, &recording, "exec")?;
        // A thread that has just begun still has the name of the one that made it.
        let mut checked = until("tracer to give it up", || check_given_up(tracer.id()).is_ok())
            .and_then(|()| check_given_up(tracer.id()));
        if options.contains(&"--otlp-endpoint") {
            checked = checked.and_then(|()| check_sender(tracer.id()));
        }
        scratch.write("go", "")?;
        ensure!(wait_for(&mut tracer)?.code() == Some(0), "the run was not proven");
        checked?;
        fs::remove_file(scratch.file("go"))?;
    }
    Ok(())
}

fn attached_it_gives_up_everything_too(scratch: &Scratch) -> Result<()> {
    let mut sleeper = Command::new("sh").args(["-c", WAIT]).current_dir(scratch.path()).spawn()?;
    let recording = scratch.file("attached.jsonl");
    let pid = sleeper.id().to_string();
    let sink = Sink::start()?;
    let tracer = scratch.tracer(&["attach", "--pid", &pid]).policy("no-aws-cli");
    let tracer = tracer.option("--otlp-endpoint").option(&sink.endpoint);
    let mut tracer = started(tracer, &recording, "snapshot")?;
    // It is given up after that line.
    until("tracer to give it up", || check_given_up(tracer.id()).is_ok())
        .and_then(|()| check_given_up(tracer.id()))
        .and_then(|()| check_sender(tracer.id()))
        .inspect_err(|_| drop(sleeper.kill()))?;
    scratch.write("go", "")?;
    ensure!(wait_for(&mut tracer)?.code() == Some(11), "nothing can be proven of what ran before");
    sleeper.wait()?;
    Ok(())
}

/// What a process can do and has around it, line by line.
const SHOW: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask|Sig(Blk|Ign))' /proc/self/status; \
     cat /proc/self/limits; cat /proc/self/oom_score_adj /proc/self/timerslack_ns; \
     tr '\\0' '\\n' < /proc/self/environ | sort; ls -l /proc/self/fd | wc -l";

/// The command has what tracer's caller had, and none of what tracer took on.
fn the_command_has_the_callers_rights(scratch: &Scratch) -> Result<()> {
    const WEAK: &str = "ulimit -n 321; ulimit -c 0; umask 027; trap '' USR1; exec setpriv --no-new-privs \
         --groups 7,8 --bounding-set -mknod \"$@\"";
    on_path("setpriv")?;
    for around in ["exec \"$@\"", WEAK] {
        let plain = Command::new("sh")
            .args(["-c", around, "sh", "sh", "-c", SHOW])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("tracer_test", "a b")
            .current_dir(scratch.path())
            .stdin(std::process::Stdio::null())
            .output()?;
        let run = scratch.run(["sh", "-c", SHOW]).policy("no-aws-cli").by(|tracer| {
            let mut command = Command::new("sh");
            command.args(["-c", around, "sh"]).arg(tracer);
            command
        });
        let run = run.set(|command| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            command.env_clear().env("PATH", path).env("tracer_test", "a b");
        });
        let traced = run.output()?;
        traced.exits(0)?;
        let (plain, traced) =
            (String::from_utf8_lossy(&plain.stdout), String::from_utf8_lossy(&traced.stdout));
        ensure!(plain.lines().count() > 20, "{plain}");
        crate::harness::same_lines(
            &plain,
            &traced.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>(),
        )
        .with_context(|| around.to_owned())?;
    }
    // Behind sudo it is the caller, who has nothing.
    let line =
        "grep -E '^(Uid|Gid|Groups|Cap(Eff|Prm|Inh|Amb)|NoNewPrivs|Seccomp):' /proc/self/status";
    let output = as_nobody(scratch.run(["sh", "-c", line]).policy("no-aws-cli")).output()?;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    output.exits(0)?;
    let fields: BTreeMap<&str, &str> =
        shown.lines().filter_map(|line| line.split_once(':')).collect();
    for (name, expected) in [
        ("Uid", "65534 65534 65534 65534"),
        ("Gid", "65534 65534 65534 65534"),
        ("Groups", "65534"),
        ("CapEff", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "0"),
        ("Seccomp", "0"),
    ] {
        let is: Vec<&str> = fields.get(name).unwrap_or(&"").split_whitespace().collect();
        ensure!(is.join(" ") == expected, "{name}: {shown}");
    }
    Ok(())
}

/// The process that keeps tracer's rights.
fn broker_of(tracer: u32) -> Option<u32> {
    child_of(tracer, "tracer-broker")
}

/// Whenever the broker is killed, tracer ends with an error and the recording is not complete.
fn a_killed_broker(scratch: &Scratch) -> Result<()> {
    let mut left: Vec<PathBuf> = Vec::new();
    for round in 0..5u64 {
        let recording = scratch.file(format!("killed-{round}.jsonl"));
        let tracer =
            scratch.run(["sh", "-c", "while true; do /bin/true; done"]).policy("no-aws-cli");
        let mut tracer = started(tracer, &recording, "start")?;
        std::thread::sleep(Duration::from_millis(round * 60));
        let broker = broker_of(tracer.id()).context("no broker")?;
        let pid = i32::try_from(broker)?;
        // SAFETY: no memory is involved; its parent is alive and has not waited for it.
        ensure!(unsafe { libc::kill(pid, libc::SIGKILL) } == 0);
        let status = wait_for(&mut tracer)?;
        ensure!(status.code() == Some(125), "{status}");
        scratch.sweep();
        left.push(tracer_tests::cgroup::root().join(format!("tracer-{}-0", tracer.id())));
        let verified = scratch.tracer(&["verify", &recording.to_string_lossy()]).output()?;
        verified.exits(11)?.prints("integrity: NO")?;
    }
    // One that goes on: its cgroup is empty between the canaries.
    let sleeper = Workload::shell(scratch, "sleep 100; :")?;
    let attached = Attached::to(scratch, &["--pid", &sleeper.pid()], &[])?;
    let in_use = tracer_tests::cgroup::root().join(format!("tracer-{}-0", attached.pid()));
    ensure!(in_use.exists(), "{} is not there", in_use.display());
    // Whoever was killed a moment ago may still be in one of the others.
    until("the next tracer to remove what those left", || {
        let ran = scratch.run(["/bin/true"]).output();
        ran.is_ok() && !left.iter().any(|cgroup| cgroup.exists())
    })?;
    ensure!(in_use.exists(), "it removed that of a tracer that runs");
    attached.stop()?;
    ensure!(!in_use.exists(), "{} was left", in_use.display());
    Ok(())
}

/// The broker may be there for a moment longer, with what it closes and nothing that anybody waits for.
fn what_outlives_tracer(scratch: &Scratch) -> Result<()> {
    let recording = scratch.file("outlived.jsonl");
    let (reader, writer) = io::pipe()?;
    // As a shell hands a lock on to what it starts.
    // SAFETY: no memory is involved, and 9 is nothing of the child's yet.
    let hand_on = move || match unsafe { libc::dup2(writer.as_raw_fd(), 9) } {
        9 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let tracer = scratch.run(["sleep", "0.3"]).policy("no-aws-cli");
    let tracer = tracer.set(|command| {
        // SAFETY: the closure makes one system call.
        unsafe { command.pre_exec(hand_on) };
    });
    let mut tracer = started(tracer, &recording, "start")?;
    let broker = broker_of(tracer.id()).context("no broker")?;
    let held = || -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{broker}/fd")).into_iter().flatten();
        let entries = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        entries.map(|target| target.display().to_string()).collect()
    };
    ensure!(held().iter().any(|target| target.starts_with("pipe:")), "{:?}", held());
    ensure!(wait_for(&mut tracer)?.success());
    ensure!(!cgroup_of(&recording)?.exists(), "the command's cgroup is there still");
    // Nobody writes into it any more, or this goes on for ever.
    io::copy(&mut &reader, &mut io::sink())?;
    let is_slow = |target: &String| {
        ["anon_inode:[perf_event]", "anon_inode:[fanotify]"].contains(&target.as_str())
    };
    until("broker with nothing but what is slow to close", || held().iter().all(is_slow))?;
    until("end of the broker", || held().is_empty())
}

/// Of the command.
fn cgroup_of(recording: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(recording)?;
    let start: Value = serde_json::from_str(text.lines().next().unwrap_or_default())?;
    let path = start["cgroup"]["own"]["path"].as_str();
    Ok(path.with_context(|| format!("no cgroup of its own: {}", start["cgroup"]))?.into())
}
