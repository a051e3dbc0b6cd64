//! The unit of systemd.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tracer_tests::cgroup::Cgroup;

use super::{doctor, limit, needs, set};
use crate::harness::{Scratch, on_path};

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/tracer-host.service")
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
