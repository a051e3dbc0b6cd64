//! runc, and what it runs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tracer_tests::scratch::MARK;

use crate::harness::{Scratch, until_some, wait_for};

pub(super) struct Runc<'a> {
    scratch: &'a Scratch,
    program: PathBuf,
}

/// A folder with a root directory and a specification.
pub(super) struct Bundle {
    folder: PathBuf,
    pub(super) spec: Value,
}

/// Gone when dropped, with its cgroups.
pub(super) struct Container<'a> {
    scratch: &'a Scratch,
    program: PathBuf,
    pub(super) id: String,
    pub(super) bundle: Bundle,
    process: Mutex<Child>,
}

/// A root directory with a shell, some programs, and the libraries of these.
pub(super) fn shell_root(scratch: &Scratch, root: &Path) -> Result<()> {
    let script = "set -e; cd \"$1\"; mkdir -p bin usr/bin work tmp
        for program in /bin/sh /bin/sleep /bin/true /usr/bin/uname; do
        cp --parents $program $(ldd $program | grep -o '/[^ ]*') .; done
        test -e bin/sh || cp /bin/sh /bin/sleep /bin/true bin";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, "sh"]).arg(root).current_dir(scratch.path());
    let made = shell.output()?;
    ensure!(made.status.success(), "no root: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

impl Bundle {
    pub(super) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    pub(super) fn arguments(&mut self, words: &[&str]) {
        self.spec["process"]["args"] = json!(words);
    }

    /// The namespaces that the containers of a pod have in common with one another.
    pub(super) fn share(&mut self, pid: u32) {
        for (kind, name) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
            self.namespace(
                kind,
                Some(json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")})),
            );
        }
        // A host name belongs to a namespace of one's own.
        if let Some(spec) = self.spec.as_object_mut() {
            spec.remove("hostname");
        }
    }

    /// In place of the one of this kind, or the runtime's own with none.
    pub(super) fn namespace(&mut self, kind: &str, new: Option<Value>) {
        if let Some(all) = self.spec["linux"]["namespaces"].as_array_mut() {
            all.retain(|one| one["type"] != json!(kind));
            all.extend(new);
        }
    }
}

impl<'a> Runc<'a> {
    pub(super) fn new(scratch: &'a Scratch, program: PathBuf) -> Runc<'a> {
        Runc { scratch, program }
    }

    /// With runc's own specification, but no terminal.
    pub(super) fn bundle(&self, name: &str) -> Result<Bundle> {
        let folder = self.scratch.folder(format!("bundle-{name}"))?;
        fs::create_dir_all(folder.join("root"))?;
        let made = Command::new(&self.program).arg("spec").current_dir(&folder).output()?;
        ensure!(made.status.success(), "no spec: {}", String::from_utf8_lossy(&made.stderr));
        let mut spec: Value = serde_json::from_slice(&fs::read(folder.join("config.json"))?)
            .context("config.json")?;
        spec["process"]["terminal"] = json!(false);
        spec["root"]["path"] = json!("root");
        // All that a test starts carries its mark.
        let mark = format!("{MARK}={}", self.scratch.mark());
        if let Some(variables) = spec["process"]["env"].as_array_mut() {
            variables.push(json!(mark));
        }
        Ok(Bundle { folder, spec })
    }

    pub(super) fn run(&self, id: &str, bundle: Bundle) -> Result<Container<'a>> {
        fs::write(bundle.folder.join("config.json"), bundle.spec.to_string())?;
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.scratch.file("state")).args(["run", id]);
        command.current_dir(&bundle.folder).env(MARK, self.scratch.mark()).stdin(Stdio::null());
        let file = |end: &str| File::create(self.scratch.file(format!("{id}.{end}")));
        let process = command.stdout(file("out")?).stderr(file("log")?).spawn()?;
        Ok(Container {
            scratch: self.scratch,
            program: self.program.clone(),
            id: id.into(),
            bundle,
            process: Mutex::new(process),
        })
    }

    /// Runs something in a container.
    pub(super) fn enter(&self, container: &Container<'_>, words: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.scratch.file("state")).args(["exec", &container.id]);
        let output = command.args(words).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Container<'_> {
    fn said(&self, end: &str) -> String {
        fs::read_to_string(self.scratch.file(format!("{}.{end}", self.id))).unwrap_or_default()
    }

    pub(super) fn log(&self) -> String {
        self.said("log")
    }

    /// Its standard output.
    pub(super) fn out(&self) -> String {
        self.said("out")
    }

    /// The host's number of its first process.
    pub(super) fn pid(&self) -> Result<u32> {
        let state = self.scratch.file("state").join(&self.id).join("state.json");
        until_some(&format!("the container {}", self.id), || {
            let state: Value = serde_json::from_str(&fs::read_to_string(&state).ok()?).ok()?;
            u32::try_from(state["init_process_pid"].as_u64()?).ok().filter(|pid| *pid > 0)
        })
        .with_context(|| format!("it said: {}", self.log()))
    }

    fn runc(&self, words: &[&str]) -> Result<()> {
        let mut runc = Command::new(&self.program);
        runc.arg("--root").arg(self.scratch.file("state")).args(words);
        let output = runc.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    pub(super) fn signal(&self, signal: &str) -> Result<()> {
        self.runc(&["kill", &self.id, signal])
    }

    pub(super) fn is_running(&self) -> bool {
        let mut process = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        process.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Waits for its end.
    pub(super) fn code(&self) -> Result<i32> {
        let mut process = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        wait_for(&mut process)?.code().context("a signal ended it")
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.runc(&["delete", "--force", &self.id]);
        let mut process = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = process.kill();
        let _ = process.wait();
        // runc removes the cgroups of containers and leaves those above. Others' are below those too, and one
        // in which nobody is at the moment can be a tracer's.
        let path = self.bundle.spec["linux"]["cgroupsPath"].as_str().unwrap_or_default();
        let path = Path::new(path.trim_start_matches('/'));
        let above = || path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for mount in mounts.lines() {
            let mut fields = mount.split(' ').skip(1);
            if let (Some(point), Some("cgroup" | "cgroup2")) = (fields.next(), fields.next()) {
                above().for_each(|above| drop(fs::remove_dir(Path::new(point).join(above))));
            }
        }
    }
}

/// Those that have no processes any more, from below.
pub(super) fn remove_cgroups(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    // Who was killed a moment ago may still be in it.
    for _ in 0..50 {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let busy = fs::read_to_string(path.join("cgroup.procs"));
                if busy.is_ok_and(|processes| !processes.is_empty()) {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                return;
            }
            _ => return,
        }
    }
}
