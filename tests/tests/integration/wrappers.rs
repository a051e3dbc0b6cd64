//! Programs that run another one without an exec of it: dynamic loaders, interpreters and multi-call
//! shells, under their own names and under others.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tracer::policy::Ruling;

use crate::{
    Test,
    harness::{Run, Scratch, copy_program, program, skip},
};

pub(crate) const TESTS: &[Test] = &[
    ("loader_by_any_name", loader_by_any_name),
    ("loader_with_options", loader_with_options),
    ("interpreter_by_any_name", interpreter_by_any_name),
    ("interpreter_by_another_name_and_nothing_forbidden", nothing_forbidden),
    ("busybox", busybox),
];

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A compiled stand-in in a folder that comes first on PATH.
fn stand_in(scratch: &Scratch) -> Result<String> {
    let aws = scratch.folder("bin")?.join("aws");
    copy_program(program(scratch, "stand-in")?, &aws)?;
    Ok(text(&aws))
}

fn traced(scratch: &Scratch, command: &[&str]) -> Result<Run> {
    let mut path = scratch.file("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let run = scratch.run(command).policy("no-aws-cli").env("PATH", path);
    run.record().with_context(|| format!("{command:?}"))
}

fn check(scratch: &Scratch, command: &[&str], how: &[&str]) -> Result<()> {
    let run = traced(scratch, command)?;
    run.rules(Ruling::Violated)
        .and_then(|run| run.because(how))
        .with_context(|| format!("{command:?}"))?;
    Ok(())
}

/// The machine's own dynamic loader.
fn loader() -> Result<PathBuf> {
    let known = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"].map(PathBuf::from);
    match known.into_iter().find(|path| path.is_file()) {
        Some(loader) => Ok(loader),
        None => skip("there is no dynamic loader at a known place"),
    }
}

fn loader_by_any_name(scratch: &Scratch) -> Result<()> {
    let (aws, loader) = (stand_in(scratch)?, loader()?);
    check(scratch, &[&text(&loader), &aws], &["was given"])?;
    let copy = text(&scratch.copy(&loader, "harmless")?);
    check(scratch, &[&copy, &aws], &["harmless, a copy of", "was given"])?;
    Ok(())
}

fn loader_with_options(scratch: &Scratch) -> Result<()> {
    let (aws, loader) = (stand_in(scratch)?, text(&loader()?));
    check(scratch, &[&loader, "--argv0", "harmless", &aws], &["was given"])?;
    check(scratch, &[&loader, "--library-path", "/tmp", &loader, &aws], &["was given"])?;
    Ok(())
}

/// Not the shim of a version manager, which is a shell script.
fn python() -> Result<&'static Path> {
    let python = Path::new("/usr/bin/python3");
    if python.is_file() { Ok(python) } else { skip("there is no /usr/bin/python3") }
}

fn interpreter_by_any_name(scratch: &Scratch) -> Result<()> {
    stand_in(scratch)?;
    scratch.folder("elsewhere")?;
    let script = text(&scratch.write("elsewhere/aws", "print('not really')\n")?);
    let copy = text(&scratch.copy(python()?, "harmless")?);
    check(scratch, &[&copy, &script], &["harmless, a copy of", "was given"])?;
    check(scratch, &[&copy, "-m", "awscli"], &["harmless, a copy of", "the module awscli"])?;
    let shell = text(&scratch.copy(Path::new("/bin/sh"), "innocent")?);
    check(scratch, &[&shell, &script], &["innocent, a copy of", "was given"])?;
    let python = text(python()?);
    check(scratch, &[&text(&loader()?), &python, &script], &["as python3 was given"])?;
    Ok(())
}

fn nothing_forbidden(scratch: &Scratch) -> Result<()> {
    stand_in(scratch)?;
    let copy = text(&scratch.copy(python()?, "harmless")?);
    let run = traced(scratch, &[&copy, "-c", "print('aws')"])?;
    run.proven()?;
    let exec = run.exec("harmless")?;
    ensure!(exec.file.is_some(), "{exec:?}");
    Ok(())
}

fn busybox(scratch: &Scratch) -> Result<()> {
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())
    else {
        return skip("there is no busybox");
    };
    let aws = stand_in(scratch)?;
    scratch.folder("elsewhere")?;
    let script = text(&scratch.script("elsewhere/aws", "exit 0\n")?);
    let busybox = text(&busybox);
    check(scratch, &[&busybox, "sh", &script], &["busybox as sh was given"])?;
    check(scratch, &[&busybox, "env", "X=1", &aws], &["runs aws"])?;
    let copy = text(&scratch.copy(Path::new(&busybox), "busybox-harmless")?);
    check(scratch, &[&copy, "sh", &script], &["was given"])?;
    Ok(())
}
