//! The unit of systemd.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tracer::{
    record::{self, Integrity},
    session::Story,
};
use tracer_tests::cgroup::Cgroup;

use super::{doctor, limit, needs, set};
use crate::harness::{Scratch, on_path, skip, tracer_program};

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/tracer-host.service")
}

fn recordings_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|ext| ext == "jsonl")).collect())
}

/// The service has the capabilities that it names and no others, and works with them.
pub(super) fn unit_of_systemd(scratch: &Scratch) -> Result<()> {
    let unit = unit();
    let text = fs::read_to_string(&unit).with_context(|| unit.display().to_string())?;
    let setting = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.with_context(|| format!("the unit has no {name}"))
    };
    let bounding = set(setting("CapabilityBoundingSet")?.split_whitespace())?;
    let needs = needs(&doctor(scratch)?)?;
    let topmost = "where a cgroup's directory may not be written to, as the topmost one";
    let wanted = ["always", "with a policy", "behind sudo, and to attach", topmost];
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
    command.env("TRACER", tracer_program());
    command.env("LOGS_DIRECTORY", scratch.path()).current_dir(scratch.path());
    command.env_remove("SUDO_UID").env_remove("SUDO_GID");
    limit(&mut command, bounding, &cgroup)?;
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(0), "{}: {said}", output.status);
    let recordings = recordings_in(scratch.path())?;
    let [recording] = &recordings[..] else { anyhow::bail!("{recordings:?}: {said}") };
    let verified = scratch.tracer(&["verify", &recording.to_string_lossy()]).output()?;
    verified.prints("integrity: every line")?;
    let start = fs::read_to_string(recording)?;
    let start: Value = serde_json::from_str(start.lines().next().unwrap_or_default())?;
    ensure!(start["cgroup"]["absent"].is_null(), "{}: {said}", start["cgroup"]);

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

/// The first process of namespaces in which there is nothing to write to but what is the test's, so that
/// it cannot set up, tidy or stop anything of the machine.
const SERVICE_MANAGER: &str = r#"
set -e
scratch=$1 systemd=$2
mount --make-rprivate /
mount -t proc proc /proc
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for folder in /run /etc/systemd/system /var/lib/systemd; do
    mount -t tmpfs tmpfs "$folder"
done
mkdir -p /run/systemd/system
cp -r "$scratch/units/." /run/systemd/system
mount --bind "$scratch/log" /var/log
mount --bind "$scratch/console" /dev/console
mount -o remount,ro,bind /
ip link set lo up
exec env -i container=tracer-test PATH=/usr/sbin:/usr/bin "$systemd" --system \
    --unit=trial.target --log-target=console --show-status=false
"#;

/// With every line of the unit in force, under the real service manager.
pub(super) fn started_by_systemd(scratch: &Scratch) -> Result<()> {
    let known = ["/lib/systemd/systemd", "/usr/lib/systemd/systemd"].map(Path::new);
    let Some(systemd) = known.into_iter().find(|path| path.exists()) else {
        return skip("systemd is not installed");
    };
    let tracer = tracer_program();
    let unit = fs::read_to_string(unit())?;
    let unit = unit
        .replace("/usr/local/bin/tracer", &tracer.to_string_lossy())
        .replace("--duration 24h", "--duration 2s")
        .replace("Restart=always", "Restart=no");
    for folder in ["units/tracer-host.service.d", "log"] {
        fs::create_dir_all(scratch.path().join(folder))?;
    }
    scratch.write("console", "")?;
    scratch.write("units/tracer-host.service", &unit)?;
    scratch.write(
        "units/trial.target",
        "[Unit]\nDefaultDependencies=no\nWants=tracer-host.service\n",
    )?;
    // It ends with the service, and nothing of the machine's own configuration is started.
    scratch.write(
        "units/tracer-host.service.d/trial.conf",
        "[Unit]\nDefaultDependencies=no\nSuccessAction=exit-force\nFailureAction=exit-force\n\
         [Service]\nExecStartPost=/bin/sh -c 'cat /proc/$MAINPID/status >$LOGS_DIRECTORY/status'\n\
         StandardOutput=append:/var/log/said\nStandardError=append:/var/log/said\n",
    )?;
    let script = scratch.write("manager", SERVICE_MANAGER)?;
    let cgroup = Cgroup::new("tracer-test-systemd")?;
    let entering = cgroup.entering();
    let mut command = Command::new(&entering[0]);
    command.args(&entering[1..]).args(["timeout", "--kill-after=5", "120", "unshare"]);
    let namespaces = ["--mount", "--pid", "--cgroup", "--net", "--uts", "--ipc"];
    command.args(namespaces).args(["--fork", "--kill-child", "sh"]);
    command.arg(script).arg(scratch.path()).arg(systemd);
    let output = command.output()?;
    let read = |name: &str| fs::read_to_string(scratch.path().join(name)).unwrap_or_default();
    let said = format!(
        "{}{}{}",
        String::from_utf8_lossy(&output.stderr),
        read("console"),
        read("log/said")
    );
    ensure!(output.status.success(), "{}: {said}", output.status);

    let recordings = recordings_in(&scratch.path().join("log/tracer"))?;
    let [recording] = &recordings[..] else { anyhow::bail!("{recordings:?}: {said}") };
    let story = Story::of(record::read(recording)?);
    ensure!(story.integrity == Integrity::Intact, "{:?}", story.integrity);
    let end = story.end.as_ref().context("no end")?;
    let [first, last] = &end.canaries[..] else { anyhow::bail!("{:?}", end.canaries) };
    for canary in [first, last] {
        ensure!(canary.seen.values().all(|seen| *seen), "{canary:?}");
    }
    // Both versions of IP, at the start and in the end: what the unit keeps from tracer is not tried. Sockets that a
    // canary brings along are of the whole machine, as everybody's.
    ensure!(end.canary_events.get("datagram").is_some_and(|count| *count == 12), "{end:?}");

    let status = read("log/tracer/status");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        ensure!(status.contains(line), "no {line:?}: {status}");
    }
    Ok(())
}
