//! Disguises of a forbidden program, beside those of the table (`evasions`). A stand-in named `aws` is
//! on PATH; whatever runs it under another name must end as violated, or where it cannot be known as
//! inconclusive.

use std::{
    ffi::OsString,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tracer::policy::Ruling;

use crate::{
    Test,
    harness::{Run, Scratch, copy_program, on_path, program, skip},
};

pub(crate) const TESTS: &[Test] = &[
    ("nothing_forbidden", nothing_forbidden),
    ("named_by_a_shell_and_not_run", named_by_a_shell_and_not_run),
    ("direct", direct),
    ("symbolic_link", symbolic_link),
    ("hard_link", hard_link),
    ("spelled_paths", spelled_paths),
    ("other_argv0", other_argv0),
    ("shell_and_wrappers", shell_and_wrappers),
    ("script_of_that_name", script_of_that_name),
    ("python_script", python_script),
    ("python_module", python_module),
    ("loader", loader),
    ("symbolic_link_to_script", symbolic_link_to_script),
    ("copy_beside_the_original", copy_beside_the_original),
    ("script_that_replaces_itself", script_that_replaces_itself),
    ("every_script_is_found", every_script_is_found),
    ("listed_file_changed_in_place", listed_file_changed_in_place),
    ("forbidden_path_that_comes_later", forbidden_path_that_comes_later),
];

/// A path at which there is nothing when tracing begins, by whatever spelling it is run from then on.
fn forbidden_path_that_comes_later(scratch: &Scratch) -> Result<()> {
    std::fs::create_dir(scratch.file("late"))?;
    symlink("late", scratch.file("by-link"))?;
    let tool = scratch.file("late").join("tool").display().to_string();
    let policy = scratch.write(
        "policy.toml",
        &format!(
            "name = 'x'\n[[claim]]\nkind = 'never-runs'\nattempts = true\nprograms = ['{tool}']\n"
        ),
    )?;
    let by_path = (Ruling::Violated, "by its path");
    for (line, (ruling, words)) in [
        (tool.clone(), by_path),
        ("by-link/tool".to_owned(), by_path),
        ("late/../by-link/./tool".to_owned(), by_path),
        ("cd by-link && ./tool".to_owned(), by_path),
        ("/bin/sh late/tool".to_owned(), (Ruling::Violated, "was given")),
        (format!("chmod 600 late/tool; {tool}"), (Ruling::Violated, "tried to run")),
        ("cd late; chmod 600 tool; ./tool".to_owned(), (Ruling::Inconclusive, "may have tried")),
        ("cp late/tool tool; ./tool".to_owned(), (Ruling::Proven, "")),
    ] {
        let script = format!("cp /bin/true late/tool; {line}; true");
        let run = scratch.run(["/bin/sh", "-c", &script]).policy(&policy).record()?;
        run.rules(ruling).with_context(|| line.clone())?;
        if !words.is_empty() {
            run.because(&[words]).with_context(|| line)?;
        }
        std::fs::remove_file(scratch.file("late").join("tool"))?;
    }
    Ok(())
}

/// A file that may run has other content when it does, from before anything could be read.
fn listed_file_changed_in_place(scratch: &Scratch) -> Result<()> {
    let tool = scratch.copy("/bin/true".as_ref(), "tool")?.display().to_string();
    let other = program(scratch, "stand-in")?.display().to_string();
    let policy = scratch.write(
        "policy.toml",
        &format!(
            "name = 'x'\n[[claim]]\nkind = 'runs-only'\nprograms = ['@command', '/bin/cat', '{tool}']\n"
        ),
    )?;
    for (line, ruling) in [
        (tool.clone(), Ruling::Proven),
        (format!("cat {other} >{tool}; {tool}"), Ruling::Inconclusive),
    ] {
        let run = scratch.run(["/bin/sh", "-c", &line]).option("-p").option(&policy).record()?;
        run.rules(ruling).with_context(|| line)?;
    }
    Ok(())
}

/// The stand-in, in a folder that comes first on PATH.
fn stand_in(scratch: &Scratch) -> Result<PathBuf> {
    let folder = scratch.folder("bin")?;
    let aws = folder.join("aws");
    if !aws.exists() {
        copy_program(program(scratch, "stand-in")?, &aws)?;
    }
    Ok(aws)
}

fn traced(scratch: &Scratch, command: &[OsString]) -> Result<Run> {
    let mut path = scratch.file("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    scratch.run(command).policy("no-aws-cli").env("PATH", path).record()
}

/// The command must end as violated, for a reason with these words.
fn check(scratch: &Scratch, command: &[impl Into<OsString> + Clone], how: &str) -> Result<Run> {
    stand_in(scratch)?;
    let command: Vec<OsString> = command.iter().cloned().map(Into::into).collect();
    let run = traced(scratch, &command).with_context(|| format!("{command:?}"))?;
    run.rules(Ruling::Violated)
        .and_then(|run| run.because(&["runs aws", how]))
        .with_context(|| format!("{command:?}"))?;
    Ok(run)
}

/// The command must end as violated by the very process that executed the stand-in.
fn check_caught(scratch: &Scratch, command: &[impl Into<OsString> + Clone]) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let run = check(scratch, command, "")?;
    let inode = std::fs::metadata(stand_in(scratch)?)?.ino();
    let violations: Vec<_> = run
        .verdict
        .iter()
        .flat_map(|verdict| &verdict.claims)
        .flat_map(|claim| &claim.violations)
        .map(|violation| (violation.process, violation.t_ns))
        .collect();
    let mut ran = run.execs();
    ran.retain(|exec| exec.file.as_ref().is_some_and(|file| file.inode == inode));
    ensure!(!ran.is_empty(), "the stand-in was not executed:\n{}", run.output.stderr);
    for exec in ran {
        ensure!(
            violations.contains(&(exec.process, exec.t_ns)),
            "an exec of the stand-in is no violation:\n{}",
            run.output.stderr
        );
    }
    Ok(())
}

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The control: the stand-in being there is no violation.
fn nothing_forbidden(scratch: &Scratch) -> Result<()> {
    let aws = stand_in(scratch)?;
    for command in [
        vec!["true".into()],
        vec!["ls".into(), text(&aws)],
        vec!["sh".into(), "-c".into(), "test -x aws || :".into()],
    ] {
        let command: Vec<OsString> = command.into_iter().map(OsString::from).collect();
        traced(scratch, &command)?.proven()?;
    }
    Ok(())
}

/// A command line that only mentions the file is no violation.
fn named_by_a_shell_and_not_run(scratch: &Scratch) -> Result<()> {
    stand_in(scratch)?;
    for line in ["ls bin/aws", "test -x ./bin/aws; echo no/aws"] {
        let run = traced(scratch, &["sh".into(), "-c".into(), line.into()])?;
        run.all_seen()?;
        run.proven()?;
    }
    Ok(())
}

fn direct(scratch: &Scratch) -> Result<()> {
    let aws = stand_in(scratch)?;
    check_caught(scratch, &["aws", "sts", "get-caller-identity"])?;
    check_caught(scratch, &[text(&aws)])?;
    Ok(())
}

fn symbolic_link(scratch: &Scratch) -> Result<()> {
    let link = scratch.file("harmless");
    symlink(stand_in(scratch)?, &link)?;
    check_caught(scratch, &[text(&link)])?;
    Ok(())
}

fn hard_link(scratch: &Scratch) -> Result<()> {
    let link = scratch.file("harmless");
    std::fs::hard_link(stand_in(scratch)?, &link)?;
    check_caught(scratch, &[text(&link)])?;
    Ok(())
}

fn spelled_paths(scratch: &Scratch) -> Result<()> {
    let aws = text(&stand_in(scratch)?);
    scratch.folder("bin/below")?;
    check_caught(scratch, &["bin/below/../aws"])?;
    check_caught(scratch, &["./bin/./aws"])?;
    check_caught(scratch, &[format!("/proc/self/root{aws}")])?;
    check_caught(scratch, &["/proc/self/cwd/bin/aws"])?;
    Ok(())
}

fn other_argv0(scratch: &Scratch) -> Result<()> {
    let aws = text(&stand_in(scratch)?);
    on_path("bash")?;
    check_caught(scratch, &["bash", "-c", &format!("exec -a harmless {aws}")])?;
    check_caught(scratch, &["bash", "-c", &format!("exec -a '' {aws}")])?;
    // The other way round: any program that is told it is aws.
    check(scratch, &["bash", "-c", "exec -a /opt/aws true"], "argv[0]")?;
    Ok(())
}

fn shell_and_wrappers(scratch: &Scratch) -> Result<()> {
    for command in [
        &["sh", "-c", "aws"][..],
        &["sh", "-c", "true; aws; true"],
        &["sh", "-c", "echo $(aws)"],
        &["env", "X=1", "aws"],
        &["nice", "aws"],
        &["nohup", "aws"],
        &["timeout", "30", "aws"],
        &["setsid", "--wait", "aws"],
        &["env", "nice", "timeout", "30", "sh", "-c", "aws"],
        &["sh", "-c", "echo x | xargs aws"],
    ] {
        check_caught(scratch, command)?;
    }
    Ok(())
}

fn script_of_that_name(scratch: &Scratch) -> Result<()> {
    scratch.folder("elsewhere")?;
    let script = scratch.script("elsewhere/aws", "#!/bin/sh\nexit 0\n")?;
    check(scratch, &[text(&script)], "name it was executed under")?;
    Ok(())
}

fn symbolic_link_to_script(scratch: &Scratch) -> Result<()> {
    scratch.folder("elsewhere")?;
    let script = scratch.script("elsewhere/aws", "#!/bin/sh\nexit 0\n")?;
    let link = scratch.file("harmless");
    symlink(script, &link)?;
    check(scratch, &[text(&link)], "path of the script")?;
    Ok(())
}

/// Not the shim of a version manager, which is a shell script.
pub(crate) fn python() -> Result<String> {
    let python = Path::new("/usr/bin/python3");
    if python.is_file() { Ok(text(python)) } else { skip("there is no /usr/bin/python3") }
}

fn python_script(scratch: &Scratch) -> Result<()> {
    scratch.folder("elsewhere")?;
    let script = text(&scratch.write("elsewhere/aws", "print('not really')\n")?);
    check(scratch, &[python()?, script.clone()], "was given")?;
    check(scratch, &[python()?, "-I".into(), "-B".into(), script], "was given")?;
    Ok(())
}

fn python_module(scratch: &Scratch) -> Result<()> {
    check(scratch, &[&python()?, "-m", "awscli", "--version"], "awscli")?;
    check(scratch, &[&python()?, "-Imawscli"], "awscli")?;
    check(scratch, &[&python()?, "-c", "import awscli.clidriver"], "awscli")?;
    Ok(())
}

fn loader(scratch: &Scratch) -> Result<()> {
    let aws = text(&stand_in(scratch)?);
    let loader = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let Some(loader) = loader.into_iter().find(|path| Path::new(path).is_file()) else {
        return skip("there is no ELF loader at a known place");
    };
    check(scratch, &[loader, &aws], "was given")?;
    Ok(())
}

/// A twin in the same folder makes the file look like a multi-call program. That must not excuse it.
fn copy_beside_the_original(scratch: &Scratch) -> Result<()> {
    let aws = stand_in(scratch)?;
    let twin = scratch.copy(&aws, "bin/harmless")?;
    let run = traced(scratch, &[twin.into_os_string()])?;
    run.rules(Ruling::Inconclusive)?.because(&["which goes by several names"])?;
    // Nor does that it executes something else in the end.
    let (shell, twin) = (scratch.copy("/bin/sh".as_ref(), "bin/aws")?, scratch.file("bin/zz"));
    std::fs::hard_link(shell, &twin)?;
    let twin = twin.into_os_string();
    let run = traced(scratch, &[twin, "-c".into(), "exec /bin/true".into()])?;
    run.rules(Ruling::Inconclusive)?.because(&["which goes by several names"])?;
    Ok(())
}

/// A copy of the script `aws` that puts something else in its place while it runs.
fn script_that_replaces_itself(scratch: &Scratch) -> Result<()> {
    let text = "#!/bin/sh\nmv innocent harmless\n";
    scratch.folder("bin")?;
    scratch.script("bin/aws", text)?;
    for _ in 0..20 {
        scratch.script("harmless", text)?;
        scratch.script("innocent", "#!/bin/sh\nexit 0\n")?;
        let run = traced(scratch, &["./harmless".into()])?;
        let overall = run.verdict.as_ref().map(|verdict| verdict.overall);
        ensure!(overall > Some(Ruling::Proven), "it ended as {overall:?}:\n{}", run.output.stderr);
    }
    Ok(())
}

/// The kernel names the script's own file: through chains of interpreters, after a large program in
/// the same process (whose mapped files wait in the same list), by relative path and by descriptor.
fn every_script_is_found(scratch: &Scratch) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let one = scratch.script("one", "#!/bin/sh\nexit 0\n")?;
    scratch.script("two", &format!("#!{}\n", text(&one)))?;
    scratch.script("three", "#!/usr/bin/env -S sh -e\nexec ./one\n")?;
    let node = "require('child_process').execFileSync('./three')";
    let mut lines = vec!["./one", "./two", "./three", "exec ./one", "bash -c 'exec ./one'"];
    let after_node = format!("node -e \"{node}\"");
    if on_path("node").is_ok() {
        lines.push(&after_node);
    }
    if Path::new("/usr/bin/python3").is_file() {
        lines.push("/usr/bin/python3 -c \"import ssl, os; os.execv('./two', ['x'])\"");
        lines.push(
            "/usr/bin/python3 -c \"import os; f = os.open('one', 0); os.set_inheritable(f, True); \
             os.execve(f, ['x'], {})\"",
        );
    }
    for line in lines {
        let run = traced(scratch, &["sh".into(), "-c".into(), line.into()])?;
        let scripts: Vec<_> =
            run.execs().into_iter().filter(|exec| exec.script.is_some()).collect();
        ensure!(!scripts.is_empty(), "{line}: no script");
        for exec in scripts {
            let file = exec.script.as_ref().and_then(|script| script.file.as_ref());
            let file = file.with_context(|| format!("{line}: {exec:?}"))?;
            let inode = std::fs::metadata(file.path.as_path())?.ino();
            ensure!(file.id.inode == inode, "{line}: {exec:?}");
        }
        run.proven()?;
    }
    Ok(())
}
