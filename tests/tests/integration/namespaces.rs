//! Execs in other worlds: behind mounts, in pid namespaces, by the system calls of 32 bits.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use tracer::{policy::Ruling, record::schema::Exec};

use crate::{
    Test,
    harness::{Run, Scratch, on_path, program, skip},
};

pub(crate) const TESTS: &[Test] = &[
    ("paths_across_mounts", paths_across_mounts),
    ("script_of_another_interpreter", script_of_another_interpreter),
    ("pid_namespace", pid_namespace),
    ("by_32_bit_call", by_32_bit_call),
];

fn path(exec: &Exec) -> Result<String> {
    let path = exec.file.as_ref().and_then(|file| file.path.as_ref()).context("it has no path")?;
    Ok(path.lossy().into_owned())
}

/// A program two mounts below the root, and the same file through a bind mount of its folder, whose root
/// is not that of its file system.
fn paths_across_mounts(scratch: &Scratch) -> Result<()> {
    let unshare = on_path("unshare")?.display().to_string();
    let (outer, bound) = (scratch.folder("outer")?, scratch.folder("bound")?);
    let true_copy = scratch.copy("/bin/true".as_ref(), "copy")?;
    let (outer, bound) = (outer.display(), bound.display());
    let script = format!(
        "mount -t tmpfs tmpfs {outer} && mkdir -p {outer}/deep/inner &&
         mount -t tmpfs tmpfs {outer}/deep/inner && mkdir -p {outer}/deep/inner/a/b &&
         mount --bind {outer}/deep/inner/a/b {bound} && cp {} {bound}/program &&
         cd {outer}/deep/inner/a/b && ./program 1 && cd {bound} && ./program 2",
        true_copy.display()
    );
    let run = scratch.run([&unshare, "--mount", "sh", "-c", &script]).record()?;
    run.exits(0)?.all_seen()?;
    let found: Vec<&Exec> = run
        .execs()
        .into_iter()
        .filter(|exec| exec.argv.args.first().is_some_and(|word| word.0 == b"./program"))
        .collect();
    let [first, second] = found.as_slice() else { bail!("{} execs of it", found.len()) };
    ensure!(path(first)? == format!("{outer}/deep/inner/a/b/program"), "{first:?}");
    ensure!(path(second)? == format!("{bound}/program"), "{second:?}");
    let cwd = second.cwd.as_ref().map(|cwd| cwd.lossy().into_owned());
    ensure!(cwd == Some(bound.to_string()), "{second:?}");
    Ok(())
}

/// Where only a script may run, what runs it has to be what its first line led to at the start.
fn script_of_another_interpreter(scratch: &Scratch) -> Result<()> {
    let interpreter = scratch.copy("/bin/true".as_ref(), "interpreter")?.display().to_string();
    let other = scratch.copy("/bin/cat".as_ref(), "other")?.display().to_string();
    let script = scratch.script("script", &format!("#!{interpreter}\n"))?.display().to_string();
    let policy = scratch.write(
        "policy.toml",
        &format!(
            "name = 'x'\n[[claim]]\nkind = 'runs-only'\n\
             programs = ['/usr/bin/unshare', '/bin/sh', '/usr/bin/mount', '{script}']\n"
        ),
    )?;
    for (mount, ruling, detail) in [
        (":".to_owned(), Ruling::Proven, ""),
        (format!("mount --bind {other} {interpreter}"), Ruling::Violated, "did not lead"),
    ] {
        let line = format!("{mount}; {script} >/dev/null");
        let command = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", &line];
        let run = scratch.run(command).option("-p").option(&policy).record()?;
        let verdict = run.story.end.as_ref().and_then(|end| end.verdict.as_ref());
        let verdict = verdict.context("no verdict")?;
        ensure!(verdict.overall == ruling, "{verdict:#?}");
        let mut violations = verdict.claims.iter().flat_map(|claim| &claim.violations);
        let said = violations.any(|violation| violation.detail.contains(detail));
        ensure!(said || detail.is_empty(), "{verdict:#?}");
    }
    Ok(())
}

fn pid_namespace(scratch: &Scratch) -> Result<()> {
    let unshare = on_path("unshare")?.display().to_string();
    let run = scratch.run([&unshare, "--pid", "--fork", "/bin/true"]).record()?;
    run.exits(0)?.all_seen()?;
    let (outer, inner) = (run.exec("unshare")?, run.exec("true")?);
    ensure!(inner.ns_pid == Some(1), "{inner:?}");
    ensure!(inner.pid_ns_inum != outer.pid_ns_inum, "the same namespace: {inner:?}");
    Ok(())
}

/// The hooks on 64-bit system calls do not see it.
fn by_32_bit_call(scratch: &Scratch) -> Result<()> {
    const NOT_THERE: i32 = 77;
    let int80 = program(scratch, "int80")?.display().to_string();
    let run: Run = scratch.run([&int80, "/bin/true"]).record()?;
    if run.output.code() == NOT_THERE {
        return skip("this kernel has no 32-bit system calls");
    }
    run.exits(0)?.all_seen()?;
    ensure!(path(run.exec("true")?)? == fs::canonicalize("/bin/true")?.display().to_string());
    Ok(())
}
