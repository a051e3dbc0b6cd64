//! What tracer may do: with as little as is documented it works, and soon it has nothing.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::CapabilitySet;
use serde_json::Value;
use tracer_tests::cgroup::Cgroup;

use crate::{
    Test,
    harness::{NOBODY, Scratch, Tracer, on_path, wait_for},
};

pub(crate) const TESTS: &[Test] = &[
    ("exact_capabilities", exact_capabilities),
    ("each_missing_capability_is_named", each_missing_capability_is_named),
    ("everything_is_given_up", everything_is_given_up),
    ("attached_it_gives_up_everything_too", attached_it_gives_up_everything_too),
    ("the_command_has_the_callers_rights", the_command_has_the_callers_rights),
    ("a_killed_broker", a_killed_broker),
    ("doctor_as_json", doctor_as_json),
    ("unit_of_systemd", unit_of_systemd),
];

const LONGEST: Duration = Duration::from_secs(30);

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

    let verdict = of(&["always", "with a policy"])?;
    for set in [verdict, verdict - split] {
        let run = scratch.run(["sh", "-c", "/bin/true; /bin/true"]).policy("no-aws-cli");
        limited(run, set, &cgroup)?.record()?.proven()?;
    }

    let caller = of(&["always", "with a policy", "behind sudo", "behind sudo, and to attach"])?;
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

/// Without a capability tracer says which one is missing, before it starts anything.
fn each_missing_capability_is_named(scratch: &Scratch) -> Result<()> {
    let needs = needs(&doctor(scratch)?)?;
    let cgroup = Cgroup::new("tracer-test-power")?;
    let all = set(needs.iter().map(|need| &*need.name))?;
    let ran = scratch.file("ran");
    for need in needs.iter().filter(|need| !need.needed.starts_with("where")) {
        let without = all - set([&*need.name])?;
        let without = if ["CAP_BPF", "CAP_PERFMON"].contains(&&*need.name) {
            without - CapabilitySet::SYS_ADMIN
        } else {
            without
        };
        let run = as_nobody(scratch.run(["touch".as_ref(), ran.as_os_str()]).policy("no-aws-cli"));
        let output = limited(run, without, &cgroup)?.output()?;
        output.says(&need.name).with_context(|| need.name.clone())?;
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

fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + LONGEST;
    while !done() {
        ensure!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
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
    for thread in &threads {
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
    for option in [None, Some("--http")] {
        let recording = scratch.file(format!("session{}.jsonl", option.unwrap_or_default()));
        let tracer = scratch.run(["sh", "-c", WAIT]).policy("no-aws-cli");
        let tracer = option.into_iter().fold(tracer, Tracer::option);
        let mut tracer = started(tracer, &recording, "exec")?;
        let checked = check_given_up(tracer.id());
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
    let tracer = scratch.tracer(&["attach", "--pid", &pid]).policy("no-aws-cli");
    let mut tracer = started(tracer, &recording, "snapshot")?;
    // It is given up after that line.
    until("tracer to give it up", || check_given_up(tracer.id()).is_ok())
        .and_then(|()| check_given_up(tracer.id()))
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
    let children = fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).ok()?;
    let is_broker = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "tracer-broker")
    };
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_broker)
}

/// Whenever the broker is killed, tracer ends with an error and the recording is not complete.
fn a_killed_broker(scratch: &Scratch) -> Result<()> {
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
        tracer_tests::cgroup::remove_of(tracer.id());
        let verified = scratch.tracer(&["verify", &recording.to_string_lossy()]).output()?;
        verified.exits(11)?.prints("integrity: NO")?;
    }
    Ok(())
}

/// Both are the same findings, and the schema describes them.
fn doctor_as_json(scratch: &Scratch) -> Result<()> {
    let json = doctor(scratch)?;
    let output = scratch.tracer(&["doctor"]).output()?;
    output.exits(0)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(json["schema"] == 1 && json["usable"] == true, "{json}");
    let line = |name: &str| {
        let found =
            text.lines().find(|line| line.get(..22).is_some_and(|field| field.trim() == name));
        found.with_context(|| format!("no line `{name}` in\n{text}"))
    };
    let list = |name: &str| json[name].as_array().with_context(|| name.to_owned());
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for found in list("capabilities")? {
        let line = line(&word(&found["name"]))?;
        ensure!(line.contains("held") == (found["held"] == true), "{line}");
        ensure!(line.contains(&word(&found["to"])), "{line}");
    }
    ensure!(list("sensors")?.len() > 10);
    for found in list("sensors")? {
        let line = line(&format!("sensor {}", word(&found["sensor"])))?;
        ensure!(line.contains("NO:") != found["missing"].is_null(), "{line}");
        ensure!(line.contains(&word(&found["hook"])), "{line}");
    }
    for (field, name) in [
        ("type_information", "type information"),
        ("exec_witness", "exec witness"),
        ("cgroup", "cgroup of the command"),
    ] {
        let (line, found) = (line(name)?, &json[field]);
        ensure!(line.contains("NO:") != (found["ok"] == true), "{line}");
    }
    for (program, count) in json["verified_instructions"].as_object().context("no programs")? {
        ensure!(
            line("verified instructions")?.contains(&format!("{program} {count}")),
            "{program}"
        );
    }
    let landlock = json["sandbox"]["landlock"].as_u64();
    let says = landlock.map_or("no Landlock".to_owned(), |version| format!("Landlock {version}"));
    ensure!(line("sandbox of tracer")?.contains(&says), "{text}");

    let schema = scratch.tracer(&["schema", "doctor"]).output()?;
    schema.exits(0)?;
    let schema: Value = serde_json::from_slice(&schema.stdout)?;
    let described = schema["properties"].as_object().context("no properties")?;
    let fields: Vec<&String> = json.as_object().context("no object")?.keys().collect();
    ensure!(fields.len() == described.len(), "{fields:?}");
    ensure!(fields.iter().all(|field| described.contains_key(*field)), "{fields:?}");
    Ok(())
}

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/tracer-host.service")
}

/// The service has the capabilities that it names and no others, and works with them.
fn unit_of_systemd(scratch: &Scratch) -> Result<()> {
    let unit = unit();
    let text = fs::read_to_string(&unit).with_context(|| unit.display().to_string())?;
    let setting = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.with_context(|| format!("the unit has no {name}"))
    };
    let bounding = set(setting("CapabilityBoundingSet")?.split_whitespace())?;
    let needs = needs(&doctor(scratch)?)?;
    let wanted = ["always", "with a policy", "behind sudo, and to attach"];
    let wanted = needs.iter().filter(|need| wanted.contains(&&*need.needed));
    ensure!(bounding == set(wanted.map(|need| &*need.name))?, "{bounding:?}");

    // As the unit starts it, but for a second and in a folder of the test's.
    let line = setting("ExecStart")?;
    let (_, line) = line.split_once("exec ").context("no exec in the unit's command")?;
    let line = line.trim_end_matches('\'').replace("/usr/local/bin/tracer", "\"$TRACER\"");
    let line = line.replace("$$", "$").replace("%%", "%").replace("24h", "1s");
    let cgroup = Cgroup::new("tracer-test-power")?;
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {line}")]);
    command.env("TRACER", crate::harness::tracer_program());
    command.env("LOGS_DIRECTORY", scratch.path()).current_dir(scratch.path());
    command.env_remove("SUDO_UID").env_remove("SUDO_GID");
    limit(&mut command, bounding, &cgroup)?;
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(0), "{}: {said}", output.status);
    let entries = fs::read_dir(scratch.path())?.flatten().map(|entry| entry.path());
    let recordings: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|ext| ext == "jsonl")).collect();
    let [recording] = &recordings[..] else {
        anyhow::bail!("{recordings:?}: {said}");
    };
    let verified = scratch.tracer(&["verify", &recording.to_string_lossy()]).output()?;
    verified.prints("integrity: every line")?;

    match on_path("systemd-analyze") {
        Ok(analyze) => {
            // It wants to find the program.
            let text = text.replace("/usr/local/bin/tracer", "/bin/true");
            let copy = scratch.write("tracer-host.service", &text)?;
            let checked = Command::new(analyze).arg("verify").arg(&copy).output()?;
            let said = String::from_utf8_lossy(&checked.stderr).into_owned();
            ensure!(checked.status.success() && said.trim().is_empty(), "{said}");
        }
        Err(_) => eprintln!("  the unit was not checked by systemd-analyze, which is not there"),
    }
    Ok(())
}
