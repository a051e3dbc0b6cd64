//! Execs, forks and exits of every shape: nothing missed, every byte kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::PermissionsExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use tracer::{model::Bytes, policy::Ruling, record::schema::Script};

use crate::{
    Test,
    harness::{NOBODY, Run, Scratch, copy_program, program, skip},
};

pub(crate) const TESTS: &[Test] = &[
    ("argv_of_no_words", argv_of_no_words),
    ("argv_and_names_of_any_bytes", argv_and_names_of_any_bytes),
    ("argv_of_128_kib_in_one_word", argv_of_128_kib_in_one_word),
    ("argv_of_1900_kb", argv_of_1900_kb),
    ("times_and_size_of_the_file", times_and_size_of_the_file),
    ("long_path", long_path),
    ("path_of_more_parts_than_are_read", path_of_more_parts_than_are_read),
    ("script", script),
    ("script_by_descriptor", script_by_descriptor),
    ("script_of_a_script", script_of_a_script),
    ("memfd", memfd),
    ("deleted_file", deleted_file),
    ("empty_path", empty_path),
    ("from_another_thread", from_another_thread),
    ("moving_argv", moving_argv),
    ("vfork", vfork),
    ("clone_parent", clone_parent),
    ("daemon", daemon),
    ("daemon_that_stays", daemon_that_stays),
    ("setuid", setuid),
    ("ended_by_signals", ended_by_signals),
    ("crowd_of_300", crowd_of_300),
    ("storm_of_5000_forks", storm_of_5000_forks),
    ("threads_that_end_at_once", threads_that_end_at_once),
    ("threads_that_exit_at_once", threads_that_exit_at_once),
    ("leader_first_then_exit", leader_first_then_exit),
    ("leader_first_then_exec", leader_first_then_exec),
];

/// Runs a compiled program with arguments and expects a proven run and this tree.
fn check(scratch: &Scratch, name: &str, arguments: &[&str], tree: &str) -> Result<Run> {
    let command = words(&program(scratch, name)?, arguments);
    let run = scratch.run(command).policy("no-aws-cli").record()?;
    run.proven()?.tree(tree)?;
    Ok(run)
}

fn words(program: &Path, arguments: &[&str]) -> Vec<OsString> {
    [program.as_os_str().to_owned()]
        .into_iter()
        .chain(arguments.iter().map(OsString::from))
        .collect()
}

fn argv_of_no_words(scratch: &Scratch) -> Result<()> {
    // Since 5.18 the kernel puts one empty word where there is none.
    let run = check(
        scratch,
        "empty-argv",
        &["/bin/true"],
        "$DIR/programs/empty-argv /bin/true =>  : exit 0",
    )?;
    let argv = &run.execs()[1].argv;
    ensure!(argv.complete && argv.args.len() == 1 && argv.args[0].is_empty(), "{argv:?}");
    Ok(())
}

fn argv_and_names_of_any_bytes(scratch: &Scratch) -> Result<()> {
    let odd: [&[u8]; 8] = [
        b"",
        b" two words ",
        b"\xff\xfe not UTF-8",
        b"line\nfeed\r\ttab",
        b"\x1b[2J\x1b]0;title\x07",
        "\u{202e}gnp.exe\u{2066}\u{200b}\u{feff}".as_bytes(),
        b"\"quotes\" 'and' \\ {\"json\":1}",
        b"<script>alert(1)</script>",
    ];
    let folder = scratch.folder("odd")?;
    for (number, bytes) in odd.iter().enumerate() {
        // Each is a file name too, where it can be one.
        let name: Vec<u8> =
            [b"n", *bytes].concat().into_iter().filter(|byte| *byte != b'/').collect();
        let copy = folder.join(OsStr::from_bytes(&name));
        copy_program("/bin/true", &copy)?;
        let command = [copy.into_os_string(), OsString::from_vec(bytes.to_vec())];
        let run = scratch.run(&command).policy("no-aws-cli").option("--verbose").record()?;
        let context = || format!("word {number}");
        run.proven().with_context(context)?;
        let exec = run.execs()[0];
        let argv: Vec<&[u8]> = exec.argv.args.iter().map(|word| &word.0[..]).collect();
        ensure!(argv == [command[0].as_bytes(), bytes], "{:?}", exec.argv);
        ensure!(exec.argv.complete, "{:?}", exec.argv);
        let expected = Some(command[0].as_bytes());
        ensure!(exec.filename.as_ref().map(|name| &name.0[..]) == expected, "{:?}", exec.filename);
        let path = exec.file.as_ref().and_then(|file| file.path.as_ref());
        ensure!(path.map(|path| &path.0[..]) == expected, "{path:?}");
        ensure!(run.story.start.command[1].0 == *bytes, "{:?}", run.story.start.command);
        harmless(&run.output.stderr).with_context(context)?;
        for action in ["report", "verify"] {
            let recording = run.recording.to_string_lossy().into_owned();
            let shown = scratch.tracer(&[action, &recording]).output()?;
            shown.exits(0)?;
            harmless(std::str::from_utf8(&shown.stdout)?).with_context(context)?;
        }
    }
    Ok(())
}

/// Only line feeds, and characters that show as themselves.
fn harmless(text: &str) -> Result<()> {
    let bad = text.chars().find(|character| {
        let deceptive = ['\u{200b}', '\u{202e}', '\u{2066}', '\u{feff}'];
        (character.is_control() && *character != '\n') || deceptive.contains(character)
    });
    ensure!(bad.is_none(), "{bad:?} in what tracer shows:\n{}", text.escape_debug());
    Ok(())
}

/// `count` words of `bytes` bytes each arrive whole.
fn check_long_argv(scratch: &Scratch, count: usize, bytes: usize) -> Result<()> {
    let long = program(scratch, "long-argv")?;
    let command = words(&long, &[&count.to_string(), &bytes.to_string()]);
    let run = scratch.run(command).policy("no-aws-cli").record()?;
    run.proven()?;
    let argv = &run.exec("true")?.argv;
    ensure!(argv.complete, "{} bytes are not complete", argv.total_bytes);
    ensure!(
        argv.total_bytes == ("true\0".len() + count * (bytes + 1)) as u64,
        "{}",
        argv.total_bytes
    );
    ensure!(argv.args.len() == count + 1, "{} words", argv.args.len());
    for (letter, word) in (b'a'..=b'z').cycle().skip(1).zip(&argv.args[1..]) {
        ensure!(word.0.len() == bytes, "a word of {} bytes", word.0.len());
        ensure!(
            word.0.iter().all(|byte| *byte == letter),
            "a word has other bytes than `{letter}`"
        );
    }
    Ok(())
}

fn argv_of_128_kib_in_one_word(scratch: &Scratch) -> Result<()> {
    // MAX_ARG_STRLEN is 32 pages, the NUL included.
    check_long_argv(scratch, 1, 128 * 1024 - 1)
}

fn argv_of_1900_kb(scratch: &Scratch) -> Result<()> {
    check_long_argv(scratch, 15, 126_000)?;
    check_long_argv(scratch, 30_000, 40)
}

fn times_and_size_of_the_file(scratch: &Scratch) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let copy = scratch.copy(Path::new("/bin/true"), "copy")?;
    // The second time somebody has asked for the file's times, which newer kernels note in them.
    for time in ["first", "second"] {
        let run = scratch.run([&copy]).record()?;
        let file = run.execs()[0].file.clone().context("no file")?;
        let stat = fs::metadata(&copy)?;
        let nanoseconds = |seconds: i64, rest: i64| seconds * 1_000_000_000 + rest;
        let expected = (
            stat.size(),
            nanoseconds(stat.mtime(), stat.mtime_nsec()),
            nanoseconds(stat.ctime(), stat.ctime_nsec()),
            (stat.ino(), stat.mode()),
        );
        let recorded = (file.size_bytes, file.mtime_ns, file.ctime_ns, (file.inode, file.mode));
        ensure!(recorded == expected, "the {time} time: {recorded:?}, not {expected:?}");
    }
    Ok(())
}

fn long_path(scratch: &Scratch) -> Result<()> {
    // Names of 200 bytes, nearly PATH_MAX (4,096) in all.
    let parts = (4096 - scratch.path().as_os_str().len() - 60) / 201;
    let folder = scratch.folder(vec!["d".repeat(200); parts].join("/"))?;
    let copy = folder.join("runs-true");
    copy_program("/bin/true", &copy)?;
    let run = scratch
        .run([&copy])
        .policy("no-aws-cli")
        .set(|command| {
            command.current_dir(&folder);
        })
        .record()?;
    run.proven()?;
    let exec = run.execs()[0];
    let path = exec.file.as_ref().and_then(|file| file.path.as_ref()).context("no path")?;
    ensure!(path.as_path() == copy, "{} bytes of {}", path.0.len(), copy.as_os_str().len());
    ensure!(exec.cwd.as_ref().is_some_and(|cwd| cwd.as_path() == folder), "{:?}", exec.cwd);
    ensure!(exec.filename.as_ref().is_some_and(|name| name.as_path() == copy), "the file name");
    Ok(())
}

fn path_of_more_parts_than_are_read(scratch: &Scratch) -> Result<()> {
    let folder = scratch.folder(vec!["x"; 80].join("/"))?;
    let copy = folder.join("deep-true");
    copy_program("/bin/true", &copy)?;
    let run = scratch.run([&copy]).policy("no-aws-cli").record()?;
    run.proven()?;
    let exec = run.execs()[0];
    let file = exec.file.as_ref().context("no file")?;
    ensure!(file.path_cut, "the path is not marked as cut: {file:?}");
    let path = file.path.as_ref().context("no path")?;
    ensure!(path.base_name() == b"deep-true", "its end is missing: {path:?}");
    let whole = copy.as_os_str().as_bytes();
    ensure!(whole.ends_with(&path.0) && path.0.len() < whole.len(), "{path:?}");
    Ok(())
}

fn script(scratch: &Scratch) -> Result<()> {
    let script = scratch.script("hello.sh", "#!/bin/sh -e\nexit 3\n")?;
    let run = scratch.run(words(&script, &["word"])).record()?;
    run.exits(3)?.all_seen()?.tree("/bin/sh -e $DIR/hello.sh word : exit 3")?;
    let exec = run.execs()[0];
    let found = exec.script.as_ref().context("it is not marked as a script")?;
    ensure!(found.interpreter.as_ref().is_some_and(|name| name.0 == b"/bin/sh"), "{found:?}");
    ensure!(script_path(found)?.is_some_and(|path| path.as_path() == script), "{found:?}");
    ensure!(exec.filename.as_ref().is_some_and(|name| name.as_path() == script), "{exec:?}");
    Ok(())
}

/// Where the script's own file is, as the recording has it.
fn script_path(script: &Script) -> Result<Option<Bytes>> {
    let line = serde_json::to_value(script)?;
    let path = line.pointer("/file/path").or(line.pointer("/resolved_path"));
    Ok(path.map(|path| serde_json::from_value(path.clone())).transpose()?)
}

fn script_by_descriptor(scratch: &Scratch) -> Result<()> {
    let script = scratch.script("hello.sh", "#!/bin/sh\nexit 0\n")?;
    let by_descriptor = program(scratch, "fd-script")?;
    let run = scratch
        .run([by_descriptor.as_os_str(), script.as_os_str()])
        .policy("no-aws-cli")
        .record()?;
    run.all_seen()?.tree("$DIR/programs/fd-script $DIR/hello.sh => /bin/sh /dev/fd/3 : exit 0")?;
    let found = run.execs()[1].script.as_ref().context("it is not marked as a script")?;
    // Which file the descriptor had may be gone by the time it is looked up: then it is said.
    match script_path(found)? {
        Some(path) => ensure!(path.as_path() == script, "{path:?}"),
        None => drop(run.rules(Ruling::Inconclusive)?.because(&["script"])?),
    }
    Ok(())
}

fn script_of_a_script(scratch: &Scratch) -> Result<()> {
    let inner = scratch.script("inner", "#!/bin/sh\nexit 4\n")?;
    let outer = scratch.script("outer", &format!("#!{}\n", inner.display()))?;
    let run = scratch.run([&outer]).record()?;
    run.exits(4)?.all_seen()?.tree("/bin/sh $DIR/inner $DIR/outer : exit 4")?;
    Ok(())
}

/// A run that nothing is missing from, and that still cannot be judged.
fn check_unidentified(
    scratch: &Scratch,
    command: &[OsString],
    tree: &str,
    why: &str,
) -> Result<Run> {
    let run = scratch.run(command).policy("no-aws-cli").record()?;
    run.rules(Ruling::Inconclusive)?.all_seen()?.because(&[why])?.tree(tree)?;
    Ok(run)
}

fn memfd(scratch: &Scratch) -> Result<()> {
    let run = check_unidentified(
        scratch,
        &words(&program(scratch, "memfd")?, &["/bin/true", "x"]),
        "$DIR/programs/memfd /bin/true x => /bin/true x : exit 0",
        "memory file",
    )?;
    ensure!(run.execs()[1].memfd, "{:?}", run.execs()[1]);
    Ok(())
}

fn deleted_file(scratch: &Scratch) -> Result<()> {
    let copy = scratch.copy(Path::new("/bin/true"), "copy")?;
    let run = check_unidentified(
        scratch,
        &words(&program(scratch, "deleted")?, &[&copy.to_string_lossy()]),
        "$DIR/programs/deleted $DIR/copy => $DIR/copy : exit 0",
        "no name left",
    )?;
    ensure!(run.execs()[1].unlinked, "{:?}", run.execs()[1]);
    Ok(())
}

fn empty_path(scratch: &Scratch) -> Result<()> {
    let run = check(
        scratch,
        "empty-path",
        &["/bin/true", "x"],
        "$DIR/programs/empty-path /bin/true x => /bin/true x : exit 0",
    )?;
    let file = run.execs()[1].file.as_ref().and_then(|file| file.path.as_ref());
    let resolved = fs::canonicalize("/bin/true")?;
    ensure!(file.is_some_and(|path| path.as_path() == resolved), "{file:?}");
    Ok(())
}

fn from_another_thread(scratch: &Scratch) -> Result<()> {
    let run = check(
        scratch,
        "thread-exec",
        &["/bin/sh", "-c", "exit 0"],
        "$DIR/programs/thread-exec /bin/sh -c exit 0 => /bin/sh -c exit 0 : exit 0",
    )?;
    let [first, second] = run.execs()[..] else { anyhow::bail!("two execs") };
    ensure!(first.process == second.process && second.thread.is_some(), "{second:?}");
    Ok(())
}

/// Recorded is what the program got, whatever another thread makes of the memory it was taken from.
fn moving_argv(scratch: &Scratch) -> Result<()> {
    const COUNT: usize = 300;
    let moving = program(scratch, "moving-argv")?;
    let run = scratch.run([moving.as_os_str(), OsStr::new(&COUNT.to_string())]).record()?;
    run.exits(0)?;
    let said = String::from_utf8(run.output.stdout.clone())?;
    let got: BTreeMap<u32, &str> = said
        .lines()
        .map(|line| {
            let (pid, word) = line.split_once(' ').context("two words")?;
            Ok((pid.parse()?, word))
        })
        .collect::<Result<_>>()?;
    ensure!(got.len() == COUNT, "{} shells", got.len());
    ensure!(got.values().collect::<BTreeSet<_>>().len() > 1, "the word never changed");
    for exec in run.execs() {
        let Some(word) = got.get(&exec.process.pid) else { continue };
        let recorded = exec.argv.args.last().context("no argv")?;
        ensure!(recorded.0 == word.as_bytes(), "{word}, recorded as {recorded:?}");
    }
    Ok(())
}

fn vfork(scratch: &Scratch) -> Result<()> {
    check(
        scratch,
        "vfork-exec",
        &["/bin/true"],
        "
        $DIR/programs/vfork-exec /bin/true : exit 0
          /bin/true : exit 0
        ",
    )?;
    Ok(())
}

fn clone_parent(scratch: &Scratch) -> Result<()> {
    // A shell in between, which becomes the parent; its own `wait` takes in the stranger.
    let odd = program(scratch, "clone-parent")?;
    let line = format!("{} /bin/sh -c 'exit 6'; wait; true", odd.display());
    let run = scratch.run(["sh", "-c", &line]).policy("no-aws-cli").record()?;
    run.proven()?.tree(&format!(
        "
        sh -c {line} : exit 0
          $DIR/programs/clone-parent /bin/sh -c exit 6 : exit 0
            /bin/sh -c exit 6 : exit 6
        ",
        line = line.replace(&*scratch.path().to_string_lossy(), "$DIR")
    ))?;
    Ok(())
}

fn daemon(scratch: &Scratch) -> Result<()> {
    check(
        scratch,
        "daemon",
        &["/bin/sh", "-c", "sleep 0.3; exit 8"],
        "
        $DIR/programs/daemon /bin/sh -c sleep 0.3; exit 8 : exit 0
          (fork) : exit 0
            /bin/sh -c sleep 0.3; exit 8 : exit 8
              sleep 0.3 : exit 0
        ",
    )?;
    Ok(())
}

fn daemon_that_stays(scratch: &Scratch) -> Result<()> {
    let daemon = program(scratch, "daemon")?;
    let run = scratch
        .run(words(&daemon, &["/bin/sleep", "61"]))
        .policy("no-aws-cli")
        .option("--linger=2")
        .record()?;
    run.rules(Ruling::Inconclusive)?.because(&["still running", "sleep (pid "])?;
    let end = run.end()?;
    ensure!(end.survivors.len() == 1, "{:?}", end.survivors);
    run.tree(
        "
        $DIR/programs/daemon /bin/sleep 61 : exit 0
          (fork) : exit 0
            /bin/sleep 61 : running
        ",
    )?;
    Ok(())
}

fn setuid(scratch: &Scratch) -> Result<()> {
    let copy = scratch.copy(&program(scratch, "stand-in")?, "becomes-root")?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755))?;
    if rustix::fs::statvfs(scratch.path())?.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID) {
        return skip("the folder for temporary files ignores setuid");
    }
    scratch.give_to(NOBODY)?;
    let line = format!("{0}; /bin/true; {0}", copy.display());
    let run = scratch
        .run(["/bin/sh", "-c", &line])
        .policy("no-aws-cli")
        .env("SUDO_UID", NOBODY.to_string())
        .env("SUDO_GID", NOBODY.to_string())
        .record()?;
    run.rules(Ruling::Inconclusive)?.because(&["witness", "could not see"])?;
    let detached: Vec<bool> = run.execs().iter().map(|exec| exec.witness_detached).collect();
    ensure!(detached == [false, true, false, true], "{detached:?}");
    let exec = run.exec("becomes-root")?;
    let ids = exec.credentials.context("no credentials")?;
    ensure!((ids.uid, ids.euid) == (NOBODY, 0), "{ids:?}");
    Ok(())
}

fn ended_by_signals(scratch: &Scratch) -> Result<()> {
    for signal in [1, 2, 6, 9, 11, 15] {
        let line = format!("ulimit -c 0; sh -c 'kill -{signal} $$'; kill -{signal} $$");
        let run = scratch.run(["sh", "-c", &line]).record()?;
        run.exits(128 + signal)?.all_seen()?.tree(&format!(
            "
            sh -c {line} : signal {signal}
              sh -c kill -{signal} $$ : signal {signal}
            "
        ))?;
    }
    Ok(())
}

fn crowd_of_300(scratch: &Scratch) -> Result<()> {
    let tree = format!("$DIR/programs/crowd 300 : exit 0\n{}", "  (fork) : exit 7\n".repeat(300));
    check(scratch, "crowd", &["300"], &tree)?;
    Ok(())
}

fn storm_of_5000_forks(scratch: &Scratch) -> Result<()> {
    let command = words(&program(scratch, "storm")?, &["5000"]);
    let run = scratch.run(command).policy("no-aws-cli").record()?;
    run.proven()?;
    let root = run.root()?;
    ensure!(root.children.len() == 5000, "{} children", root.children.len());
    for child in &root.children {
        let exit = run.process(*child)?.exit.as_ref();
        ensure!(exit.and_then(|exit| exit.code) == Some(0), "{child:?}: {exit:?}");
    }
    Ok(())
}

/// One exit line although several threads end at the same moment.
fn check_one_exit(scratch: &Scratch, name: &str, threads: &str, code: u8) -> Result<()> {
    for _ in 0..20 {
        let command = words(&program(scratch, name)?, &[threads]);
        let run = scratch.run(command).record()?;
        run.exits(code.into())?.all_seen()?;
        run.tree(&format!("$DIR/programs/{name} {threads} : exit {code}"))?;
        let exits = run.counted("exit")?;
        ensure!(exits.produced == 1 + run.end()?.canary_events["exit"], "{exits:?}");
    }
    Ok(())
}

fn threads_that_end_at_once(scratch: &Scratch) -> Result<()> {
    check_one_exit(scratch, "threads-end", "32", 0)
}

fn threads_that_exit_at_once(scratch: &Scratch) -> Result<()> {
    check_one_exit(scratch, "threads-exit", "32", 9)
}

fn leader_first_then_exit(scratch: &Scratch) -> Result<()> {
    check_one_exit(scratch, "leader-first", "/nonexistent", 5)?;
    let run = scratch.run([program(scratch, "leader-first")?]).record()?;
    run.exits(5)?.all_seen()?.tree("$DIR/programs/leader-first : exit 5")?;
    Ok(())
}

fn leader_first_then_exec(scratch: &Scratch) -> Result<()> {
    check(
        scratch,
        "leader-first",
        &["/bin/true", "x"],
        "$DIR/programs/leader-first /bin/true x => /bin/true x : exit 0",
    )?;
    Ok(())
}
