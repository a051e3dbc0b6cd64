//! Who is in a cgroup is joined.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tracer::{
    policy::Ruling,
    record::schema::{AttachedTo, CommandCgroup},
};

use super::{WAIT, go};
use crate::harness::{
    Scratch,
    attached::{Attached, Seen, Workload, v2_mount},
    skip,
};

/// A cgroup of a test's own, gone afterwards.
pub(super) struct OwnCgroup(PathBuf);

impl OwnCgroup {
    pub(super) fn new(scratch: &Scratch) -> Result<OwnCgroup> {
        let Some(v2) = v2_mount()? else { return skip("the v2 cgroups are not mounted") };
        OwnCgroup::below(&v2, scratch)
    }

    fn below(directory: &Path, scratch: &Scratch) -> Result<OwnCgroup> {
        let path = directory.join(scratch.path().file_name().context("a name")?);
        fs::create_dir(&path)?;
        Ok(OwnCgroup(path))
    }

    pub(super) fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    pub(super) fn take(&self, pid: &str) -> Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), pid)?)
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        // Who was killed a moment ago may still be in it.
        for _ in 0..500 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        eprintln!("the cgroup {} could not be removed", self.0.display());
    }
}

/// Who is in a cgroup is joined, and who comes later.
pub(super) fn cgroup(scratch: &Scratch) -> Result<()> {
    let cgroup = OwnCgroup::new(scratch)?;
    let path = cgroup.path();
    let inside = Workload::shell(scratch, &format!("{WAIT}; uname"))?;
    let late = Workload::shell(scratch, &format!("{WAIT}; id"))?;
    let outside = Workload::shell(scratch, &format!("{WAIT}; whoami"))?;
    cgroup.take(&inside.pid())?;
    let attached = Attached::to(scratch, &["--cgroup", &path], &[])?;
    cgroup.take(&late.pid())?;
    go(scratch)?;
    let seen = attached.end()?;
    ensure!(seen.doubts()?.is_empty(), "{:?}", seen.doubts());
    let ran = |name: &str| -> Vec<u32> {
        let creators = seen.executed(name).into_iter();
        creators.filter_map(|key| seen.story.processes[&key].creator).map(|key| key.pid).collect()
    };
    ensure!(ran("uname") == [inside.id()], "{:?}", ran("uname"));
    ensure!(ran("id") == [late.id()], "{:?}", ran("id"));
    ensure!(seen.executed("whoami").is_empty(), "somebody else was joined");
    drop(outside);
    let Some(CommandCgroup::Shared { path: recorded, others: 0, .. }) = &seen.story.start.cgroup
    else {
        anyhow::bail!("{:?}", seen.story.start.cgroup)
    };
    ensure!(recorded.as_path() == cgroup.0, "{recorded:?}");
    Ok(())
}

/// A hierarchy that has a controller of its own, as all had before version 2.
fn first_version_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let points = mounts.lines().map(|line| line.split(' ')).filter_map(|mut fields| {
        let point = fields.nth(1)?;
        (fields.next()? == "cgroup").then(|| PathBuf::from(point))
    });
    let mount = points.into_iter().find(|point| point.ends_with("pids"));
    mount.map_or_else(|| skip("no controller of pids is mounted as version 1"), Ok)
}

/// What a hierarchy of version 1 cannot do is said, and members are found all the same.
fn joined_by_first_version(
    scratch: &Scratch,
    cgroup: &OwnCgroup,
    target: [&str; 2],
) -> Result<Seen> {
    let inside = Workload::shell(scratch, &format!("{WAIT}; uname"))?;
    let outside = Workload::shell(scratch, &format!("{WAIT}; whoami"))?;
    cgroup.take(&inside.pid())?;
    let attached = Attached::to(scratch, &target, &["-p", "no-aws-cli", "--from-arming"])?;
    go(scratch)?;
    let seen = attached.end()?;
    seen.rules(Ruling::Inconclusive)?.because("the cgroup is of version 1")?;
    let doubts = seen.doubts()?;
    ensure!(
        doubts.iter().any(|doubt| doubt.contains("a process that joins it later")),
        "{doubts:?}"
    );
    let [uname] = seen.executed("uname")[..] else { anyhow::bail!("{:?}", seen.executed("uname")) };
    let creator = seen.story.processes[&uname].creator.context("nobody's child")?;
    ensure!(creator.pid == inside.id(), "{creator:?}");
    ensure!(seen.executed("whoami").is_empty(), "somebody else was joined");
    drop(outside);
    Ok(seen)
}

pub(super) fn first_version_cgroup(scratch: &Scratch) -> Result<()> {
    let cgroup = OwnCgroup::below(&first_version_mount()?, scratch)?;
    let path = cgroup.path();
    let seen = joined_by_first_version(scratch, &cgroup, ["--cgroup", &path])?;
    let Some(attachment) = &seen.story.start.attached else { anyhow::bail!("nothing joined") };
    let AttachedTo::Cgroup(joined) = &attachment.to else { anyhow::bail!("{attachment:?}") };
    ensure!(joined.as_path() == cgroup.0, "{joined:?}");
    Ok(())
}

/// Docker's layout, with the driver that has systemd make nothing, by the beginning of its ID.
pub(super) fn first_version_container(scratch: &Scratch) -> Result<()> {
    let above = OwnCgroup::below(&first_version_mount()?, scratch)?;
    let docker = OwnCgroup(above.0.join("docker"));
    fs::create_dir(&docker.0)?;
    // Of this test alone.
    let id = format!("{:08x}{}", std::process::id(), "5".repeat(56));
    let container = OwnCgroup(docker.0.join(&id));
    fs::create_dir(&container.0)?;
    let seen = joined_by_first_version(scratch, &container, ["--container", &id[..12]])?;
    let Some(attachment) = &seen.story.start.attached else { anyhow::bail!("nothing joined") };
    let AttachedTo::Container { id: found, .. } = &attachment.to else {
        anyhow::bail!("{attachment:?}")
    };
    ensure!(*found == id, "{found:?}");
    Ok(())
}
