//! Files of a forbidden program that are read and not executed, and work that is left where others
//! pick it up. What was done with a file that was read cannot be seen, so nothing of it may end as
//! proven; and nobody else's doings may end otherwise.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tracer::policy::Ruling;
use tracer_tests::vm;

use crate::{
    Test,
    harness::{Run, Scratch, Tracer, fixtures, on_path, skip, until, wait_for},
    identity::{python, text},
};

pub(crate) const TESTS: &[Test] = &[
    ("fed_to_an_interpreter", fed_to_an_interpreter),
    ("open_when_the_command_starts", open_when_the_command_starts),
    ("copied_or_read", copied_or_read),
    ("every_process_that_reads", every_process_that_reads),
    ("moved_and_linked_modules", moved_and_linked_modules),
    ("sourced", sourced),
    ("real_cli_imported", real_cli_imported),
    ("real_cli_allowed", real_cli_allowed),
    ("environment_beside_the_command", environment_beside_the_command),
    ("opened_by_others", opened_by_others),
    ("more_opens_than_the_queue_holds", more_opens_than_the_queue_holds),
    ("own_pid_namespace", own_pid_namespace),
    ("left_for_others", left_for_others),
    ("left_for_the_kernel", left_for_the_kernel),
    ("left_in_a_v1_hierarchy", left_in_a_v1_hierarchy),
    ("left_by_others", left_by_others),
    ("place_that_comes_into_being", place_that_comes_into_being),
    ("bad_catalogues", bad_catalogues),
];

/// A script named `aws` in a folder that comes first on PATH.
fn script(scratch: &Scratch) -> Result<PathBuf> {
    scratch.folder("bin")?;
    scratch.script("bin/aws", "open('it-ran', 'w').close()\n")
}

fn tracer<'a>(scratch: &'a Scratch, command: &[&str]) -> Tracer<'a> {
    let mut path = scratch.file("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    scratch.run(command).policy("no-aws-cli").env("PATH", path)
}

/// The command must end as inconclusive, for a reason with these words.
fn check(scratch: &Scratch, command: &[&str], words: &[&str]) -> Result<Run> {
    let run = tracer(scratch, command).record()?;
    run.rules(Ruling::Inconclusive)
        .and_then(|run| run.because(words))
        .with_context(|| format!("{command:?}"))?;
    Ok(run)
}

/// Nothing on the command lines says what is run.
fn fed_to_an_interpreter(scratch: &Scratch) -> Result<()> {
    let (aws, python) = (script(scratch)?, python()?);
    let opened = format!("it opened {}", text(&aws));
    let ran = scratch.file("it-ran");
    for code in [
        "import subprocess; subprocess.run(['PYTHON'], stdin=open('bin/aw' + 's'))",
        "exec(open('bin/aw' + 's').read())",
        "import runpy; runpy.run_path('bin/aw' + 's')",
        "import os; f = os.open('bin/aw' + 's', 0); exec(os.read(f, 9999))",
        "import mmap; f = open('bin/aw' + 's', 'rb'); \
         exec(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ).read())",
        "import os; os.symlink('bin/aw' + 's', 'x'); exec(open('x').read())",
    ] {
        let code = code.replace("PYTHON", &python);
        check(scratch, &[&python, "-c", &code], &["python3", &opened])?;
        ensure!(ran.exists(), "{code}: the script did not run");
        fs::remove_file(&ran)?;
    }
    // The same with a script of the interpreter's own.
    let loader = text(&scratch.write("loader.py", "exec(open('bin/aw' + 's').read())\n")?);
    check(scratch, &[&python, &loader], &["python3", &opened])?;
    ensure!(ran.exists(), "the script did not run");
    Ok(())
}

/// The caller opened it, before anything was traced.
fn open_when_the_command_starts(scratch: &Scratch) -> Result<()> {
    let (aws, python) = (script(scratch)?, python()?);
    let file = fs::File::open(&aws)?;
    let tracer = tracer(scratch, &[&python]).set(|command| {
        command.stdin(file);
    });
    let run = tracer.record()?;
    run.rules(Ruling::Inconclusive)?.because(&["it was started with", &text(&aws)])?;
    ensure!(scratch.file("it-ran").exists(), "the script did not run");
    Ok(())
}

fn copied_or_read(scratch: &Scratch) -> Result<()> {
    let aws = text(&script(scratch)?);
    for command in [
        &["cat", &aws][..],
        &["cp", &aws, "harmless"],
        &["sh", "-c", "cat bin/* >/dev/null"],
        &["sh", "-c", "ln bin/a* link; cat link; rm link"],
    ] {
        check(scratch, command, &["it opened", &aws, "not what was done with it"])?;
    }
    Ok(())
}

/// Processes that live for a moment are named all the same.
fn every_process_that_reads(scratch: &Scratch) -> Result<()> {
    const READERS: usize = 300;
    let aws = text(&script(scratch)?);
    let line = format!("for i in $(seq {READERS}); do cat \"$0\" & done >/dev/null; wait");
    let run = tracer(scratch, &["sh", "-c", &line, &aws]).record()?;
    let mut cats: Vec<_> = run.execs().into_iter().map(|exec| exec.process).collect();
    cats.retain(|key| run.story.opened.iter().any(|opened| opened.process == Some(*key)));
    ensure!(cats.len() == READERS, "{} of {READERS} readers were named", cats.len());
    Ok(())
}

/// A module stays one when it gets another name.
fn moved_and_linked_modules(scratch: &Scratch) -> Result<()> {
    scratch.folder("lib/awscli/__pycache__")?;
    let module = scratch.write("lib/awscli/clidriver.py", "open('it-ran', 'w').close()\n")?;
    scratch.write("lib/awscli/__pycache__/cached.pyc", "")?;
    for line in [
        "ln lib/a*/clidriver.py harmless; cat harmless; rm harmless",
        "mv lib/a*/clidriver.py harmless; cat harmless; mv harmless \"$0\"",
        "mv lib/a* lib/b; cat lib/b/clidriver.py; mv lib/b lib/aw\"\"scli",
        "cat lib/a*/__pycache__/cached.pyc",
    ] {
        let tracer = tracer(scratch, &["sh", "-c", line, &text(&module)]);
        let run = tracer.env("PYTHONPATH", scratch.file("lib")).record()?;
        run.rules(Ruling::Inconclusive)
            .and_then(|run| run.because(&["cat", "it opened", "among the modules of aws"]))
            .with_context(|| line.to_owned())?;
        ensure!(module.exists(), "{line}: the module is not back");
    }
    Ok(())
}

/// A shell reads a script without executing it.
fn sourced(scratch: &Scratch) -> Result<()> {
    scratch.folder("bin")?;
    let aws = text(&scratch.script("bin/aws", "touch it-ran\n")?);
    check(scratch, &["sh", "-c", "f=bin/aw; . ./${f}s"], &["it opened", &aws])?;
    ensure!(scratch.file("it-ran").exists(), "the script did not run");
    Ok(())
}

fn real_cli() -> Result<PathBuf> {
    let folder = fixtures().join("../../target/tools/awscli");
    match folder.canonicalize() {
        Ok(folder) if folder.join("bin/aws").is_file() => Ok(folder),
        _ => skip("the AWS CLI is not installed; `cargo xtask setup` does that"),
    }
}

/// The real one, by its modules: the command is the interpreter of the environment it is in, and
/// PATH does not lead there.
fn real_cli_imported(scratch: &Scratch) -> Result<()> {
    let python = text(&real_cli()?.join("bin/python"));
    for code in [
        "import importlib; importlib.import_module('aws' + 'cli.clidriver')",
        "import runpy; runpy.run_module('aws' + 'cli')",
        "exec('import aws' + 'cli')",
    ] {
        check(scratch, &[&python, "-c", code], &["python", "among the modules of aws"])?;
    }
    let program = scratch.write("program.py", "import awscli\n")?;
    check(scratch, &[&python, &text(&program)], &["python", "among the modules of aws"])?;
    // The same interpreter for something else.
    tracer(scratch, &[&python, "-c", "import json, botocore"]).record()?.proven()?;
    Ok(())
}

/// What the program reads of itself, when the policy allows the exec, is no reason.
fn real_cli_allowed(scratch: &Scratch) -> Result<()> {
    let folder = real_cli()?;
    let policy = scratch.write(
        "policy.toml",
        "name = 'version-only'\n[[claim]]\nkind = 'never-runs'\nprograms = ['aws']\n\
         allow = [{ argv = ['aws', '--version'] }]\n",
    )?;
    let aws = text(&folder.join("bin/aws"));
    let run = scratch.run([&aws, "--version"]).policy(&policy).record()?;
    run.proven()?;
    ensure!(!run.story.opened.is_empty(), "nothing was seen to be opened");
    // And nothing more than that.
    let path = format!("{}:/usr/bin:/bin", folder.join("bin").display());
    let line = "aws --version; cat \"$0\" >/dev/null";
    let run = scratch.run(["sh", "-c", line, &aws]).policy(&policy).env("PATH", path).record()?;
    run.rules(Ruling::Inconclusive)?.because(&["cat", "it opened", &aws])?;
    Ok(())
}

/// A project's own environment, which PATH does not lead to.
fn environment_beside_the_command(scratch: &Scratch) -> Result<()> {
    let python = python()?;
    scratch.folder("project/.venv/bin")?;
    scratch.folder("project/src")?;
    let aws = text(&scratch.script("project/.venv/bin/aws", "open('it-ran', 'w').close()\n")?);
    scratch.folder("project/.venv/lib/python3.99/site-packages/awscli")?;
    let module =
        scratch.write("project/.venv/lib/python3.99/site-packages/awscli/clidriver.py", "\n")?;
    for (file, words) in [(&aws, "which is aws"), (&text(&module), "among the modules of aws")] {
        let tracer = tracer(scratch, &[&python, "-c", &format!("open('{file}')")]);
        let run = tracer
            .set(|command| {
                command.current_dir(scratch.file("project/src"));
            })
            .record()?;
        run.rules(Ruling::Inconclusive)?.because(&["it opened", file, words])?;
    }
    Ok(())
}

/// Runs `action` again and again while `tracer` runs.
fn meanwhile(action: impl Fn() -> Result<()> + Sync, tracer: Tracer<'_>) -> Result<Run> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                action()?;
                count += 1;
                thread::sleep(Duration::from_millis(2));
            }
            Ok::<_, anyhow::Error>(count)
        });
        let run = tracer.record();
        over.store(true, Ordering::Relaxed);
        let count = other.join().map_err(|_| anyhow::anyhow!("the other thread failed"))??;
        ensure!(count > 10, "only {count} times meanwhile");
        run
    })
}

/// Processes that are not of the tree open the same files all the time.
fn opened_by_others(scratch: &Scratch) -> Result<()> {
    let aws = script(scratch)?;
    let read = || {
        fs::read(&aws)?;
        ensure!(Command::new("cat").arg(&aws).stdout(Stdio::null()).status()?.success());
        Ok(())
    };
    let run =
        meanwhile(read, tracer(scratch, &["sh", "-c", "for i in 1 2 3 4; do sleep 0.1; done"]))?;
    run.proven()?;
    let events = run.end()?.files.as_ref().context("the recording has no count of opened files")?;
    ensure!(events.read > 0, "nothing was seen: {events:?}");
    ensure!(run.story.opened.is_empty(), "{:?}", run.story.opened);
    Ok(())
}

/// A stopped tracer, until dropped.
struct Stopped(Pid);

impl Stopped {
    fn new(child: &Child) -> Result<Stopped> {
        let pid = Pid::from_raw(child.id().try_into()?).context("a pid")?;
        kill_process(pid, Signal::STOP)?;
        Ok(Stopped(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It has ended when that fails.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// While tracer does not get to read, more files are opened than the kernel keeps events of.
fn more_opens_than_the_queue_holds(scratch: &Scratch) -> Result<()> {
    const REASONABLE: usize = 100_000;
    let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events")
        .map_or(16_384, |text| text.trim().parse().unwrap_or(16_384));
    if limit > REASONABLE {
        return skip(format!("this kernel's queue holds {limit} events"));
    }
    let python = python()?;
    let folder = scratch.folder("lib/awscli")?;
    scratch.write("lib/awscli/clidriver.py", "")?;
    for number in 0..limit * 2 {
        fs::File::create(folder.join(number.to_string()))?;
    }
    let [ready, go, done] = ["ready", "go", "done"].map(|name| scratch.file(name));
    let code = format!("for n in range({}): open('lib/aw' + f'scli/{{n}}').close()", limit * 2);
    let line = "touch ready; while [ ! -e go ]; do sleep 0.01; done; \"$0\" -c \"$1\"; touch done";
    let recording = scratch.file("recording.jsonl");
    let command: Vec<OsString> =
        ["sh", "-c", line, &python, &code].into_iter().map(OsString::from).collect();
    let mut child = scratch
        .run(&command)
        .policy("no-aws-cli")
        .option("--output")
        .option(&recording)
        .env("PYTHONPATH", scratch.file("lib"))
        .spawn()?;
    let result = (|| {
        until("the command", || ready.exists())?;
        let stopped = Stopped::new(&child)?;
        fs::File::create(&go)?;
        until("the files", || done.exists())?;
        drop(stopped);
        Ok::<_, anyhow::Error>(())
    })();
    let status = wait_for(&mut child)?;
    result?;
    ensure!(status.code() == Some(11), "{status}");
    let story = tracer::session::Story::of(tracer::record::read(&recording)?);
    let events = story.end.as_ref().and_then(|end| end.files.clone());
    ensure!(events.as_ref().is_some_and(|events| events.overflows > 0), "{events:?}");
    let verdict = tracer::policy::judge(&story, &story.start.policies).context("no verdict")?;
    let reasons = &verdict.claims[0].reasons;
    ensure!(reasons.iter().any(|reason| reason.contains("queue of opened files")), "{reasons:?}");
    Ok(())
}

/// In a pid namespace of its own tracer cannot tell whose open it was.
fn own_pid_namespace(scratch: &Scratch) -> Result<()> {
    let (aws, unshare) = (text(&script(scratch)?), on_path("unshare")?);
    let inside = |command: &[&str]| {
        tracer(scratch, command)
            .by(|program| {
                let mut unshare = Command::new(&unshare);
                unshare.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]);
                unshare.arg(program);
                unshare
            })
            // Only the copy of the test: others that run meanwhile may open those of the machine.
            .env("HOME", scratch.path())
            .env("PATH", format!("{}:/usr/bin:/bin", scratch.file("bin").display()))
            .record()
    };
    inside(&["true"])?.proven()?;
    let run = inside(&["cat", &aws])?;
    run.rules(Ruling::Inconclusive)?.because(&["may be one of the tree's", &aws])?;
    Ok(())
}

/// A catalogue in which a folder of the scratch directory is a place where others pick up work.
fn queue(scratch: &Scratch) -> Result<PathBuf> {
    let text = format!(
        "[[hand-off]]\nname = 'queue'\nkind = 'directory'\npaths = ['{}', '{}', '{}']\n\
         why = 'runs what it finds there'\n",
        scratch.file("queue").display(),
        scratch.file("table").display(),
        scratch.file("later/queue").display()
    );
    scratch.write("catalogue.toml", &text)
}

fn handing_over<'a>(scratch: &'a Scratch, line: &str, policy: &Path) -> Result<Tracer<'a>> {
    let catalogue = queue(scratch)?;
    let tracer = scratch.run(["sh", "-c", line]).option("--catalogue").option(catalogue);
    Ok(tracer.policy(policy))
}

/// What is in the file stays the same: it is the whole machine's.
fn left_in(scratch: &Scratch, file: &Path) -> Result<()> {
    let line = "cat \"$0\" > kept && cat kept > \"$0\"";
    let command = ["sh".as_ref(), "-c".as_ref(), line.as_ref(), file.as_os_str()];
    let run = scratch.run(command).policy("no-aws-cli").record()?;
    if run.root()?.exit.as_ref().is_none_or(|exit| exit.code != Some(0)) {
        return skip(format!("{} cannot be written", file.display()));
    }
    // Hierarchies can have the same numbers for their files, so its folder may be that of another.
    let name = file.file_name().and_then(OsStr::to_str).context("a name of the kernel's")?;
    run.rules(Ruling::Inconclusive)?.because(&["handed work to kernel", name])?;
    Ok(())
}

fn left_for_the_kernel(scratch: &Scratch) -> Result<()> {
    if fs::read_to_string("/proc/sys/kernel/osrelease")?.starts_with("6.1.") {
        return skip("Linux 6.1 cannot watch files of /proc");
    }
    left_in(scratch, Path::new("/proc/sys/kernel/core_pattern"))
}

/// The kernel starts what it names when the last process of a group has ended.
fn left_in_a_v1_hierarchy(scratch: &Scratch) -> Result<()> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup")?;
    let mut files = hierarchies.flatten().map(|entry| entry.path().join("release_agent"));
    let Some(file) = files.find(|file| file.exists()) else {
        return skip("no v1 hierarchy is mounted, or not its root");
    };
    left_in(scratch, &file)
}

fn left_for_others(scratch: &Scratch) -> Result<()> {
    scratch.folder("queue")?;
    scratch.write("table", "old\n")?;
    let allowing = scratch.write(
        "allowing.toml",
        "name = 'allowing'\nallow-hand-offs = ['queue']\n[[claim]]\nkind = 'never-runs'\n\
         programs = ['aws']\n",
    )?;
    let mut lines = vec![
        "echo z >> table",
        "echo y > elsewhere; mv elsewhere queue/moved",
        "echo x > queue/new",
        "ln queue/new queue/linked",
        "ln -s /bin/true queue/symbolic",
        "mkdir queue/folder",
    ];
    let mut policies = vec!["no-aws-cli", "no-shell-outs"];
    // There only the kernel is another one: a file and a folder will do.
    if vm::profile().is_some() {
        lines.truncate(2);
        policies.truncate(1);
    }
    for line in lines {
        for policy in &policies {
            let run = handing_over(scratch, line, Path::new(policy))?.record()?;
            run.because(&["it may have handed work to queue", "runs what it finds there"])
                .with_context(|| line.to_owned())?;
            ensure!(run.verdict.is_some_and(|verdict| verdict.overall > Ruling::Proven), "{line}");
            if line.contains("mkdir") || line.contains("ln") {
                fs::remove_dir_all(scratch.file("queue"))?;
                scratch.folder("queue")?;
                scratch.write("queue/new", "x\n")?;
            }
        }
        let run = handing_over(scratch, line, &allowing)?.record()?;
        run.proven().with_context(|| line.to_owned())?;
        ensure!(!run.story.hand_offs.is_empty(), "{line}: it is not listed");
        run.output.says("queue")?;
    }
    // To look at it is not to leave something.
    let run = handing_over(scratch, "cat queue/* table; ls queue", Path::new("no-aws-cli"))?;
    run.record()?.proven()?;
    Ok(())
}

fn left_by_others(scratch: &Scratch) -> Result<()> {
    let folder = scratch.folder("queue")?;
    let write = || Ok(fs::write(folder.join("others"), "x")?);
    let run = meanwhile(write, handing_over(scratch, "sleep 0.4", Path::new("no-aws-cli"))?)?;
    run.proven()?;
    ensure!(run.story.hand_offs.is_empty(), "{:?}", run.story.hand_offs);
    Ok(())
}

/// Nobody could watch what was not there; that it is there now is seen.
fn place_that_comes_into_being(scratch: &Scratch) -> Result<()> {
    let line = "mkdir -p later/queue; echo x > later/queue/new";
    let run = handing_over(scratch, line, Path::new("no-aws-cli"))?.record()?;
    run.rules(Ruling::Inconclusive)?.because(&["queue", "later/queue", "came into being"])?;
    Ok(())
}

fn bad_catalogues(scratch: &Scratch) -> Result<()> {
    let ran = scratch.file("ran");
    for (text, says) in [
        ("[[program]]\nname = 'x'\npath = '/x'\n", "path"),
        ("[[program]]\nname = 'x'\nlayouts = ['x']\n", "must start with / or ~/"),
        ("[[hand-off]]\nname = 'x'\n", "missing field"),
    ] {
        let file = scratch.write("catalogue.toml", text)?;
        let output =
            scratch.run(["touch".as_ref(), ran.as_os_str()]).option("--catalogue").option(&file);
        output.output()?.exits(2)?.says("catalogue.toml")?.says(says)?;
        ensure!(!ran.exists(), "the command ran");
    }
    let output = scratch.run(["true"]).option("--catalogue").option("/no/such/file").output()?;
    output.exits(2)?.says("/no/such/file")?;
    // A policy that names a hand-off that nothing has.
    let policy = "name = 'p'\nallow-hand-offs = ['corn']\n[[claim]]\nkind = 'never-runs'\n\
                  programs = ['aws', 'zzz']\n";
    let policy = text(&scratch.write("policy.toml", policy)?);
    let check = |arguments: &[&str]| {
        scratch.tracer(&[&["policy", "check", &policy][..], arguments].concat()).output()
    };
    check(&[])?.exits(2)?.says("`corn`")?.says("cron")?;
    let text = "[[hand-off]]\nname = 'corn'\nkind = 'directory'\npaths = ['/x']\nwhy = 'grows'\n";
    let file = scratch.write("catalogue.toml", text)?;
    let good = check(&["--catalogue", &file.to_string_lossy()])?;
    good.exits(0)?.prints("valid, 1 claim")?.prints("`zzz` is not in the catalogue")?;
    // A program of the user's own, by another name and place.
    scratch.folder("tool/v1")?;
    scratch.script("tool/v1/tool-cli", "#!/bin/sh\nexit 0\n")?;
    let entry = format!(
        "[[program]]\nname = 'tool'\nfile-names = ['tool', 'tool-cli']\nlayouts = ['{}/tool/*/tool-cli']\n",
        scratch.path().display()
    );
    let catalogue = scratch.write("catalogue.toml", &entry)?;
    let policy = scratch
        .write("tool.toml", "name = 'p'\n[[claim]]\nkind = 'never-runs'\nprograms = ['tool']\n")?;
    for (line, ruling, words) in [
        ("tool/v1/tool-cli", Ruling::Violated, "runs tool"),
        ("cp tool/v1/tool-cli x; ./x", Ruling::Violated, "same content"),
        ("cat tool/v1/tool-cli", Ruling::Inconclusive, "which is tool"),
    ] {
        let tracer = scratch.run(["sh", "-c", line]).option("--catalogue").option(&catalogue);
        let run = tracer.policy(&policy).record()?;
        run.rules(ruling).and_then(|run| run.because(&[words])).with_context(|| line.to_owned())?;
        // Judged again without that file.
        fs::rename(&catalogue, scratch.file("gone"))?;
        let again = scratch.tracer(&["verify", &run.recording.to_string_lossy()]).output()?;
        fs::rename(scratch.file("gone"), &catalogue)?;
        again.exits(run.output.code())?;
    }
    Ok(())
}
