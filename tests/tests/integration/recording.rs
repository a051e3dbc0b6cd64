//! The recording as a file: whose it is, what an edit or a cut does to it.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tracer::policy::Ruling;
use tracer_tests::cgroup;

use crate::{
    Test,
    harness::{NOBODY, Output, Scratch, fixtures, program, until, wait_for},
};

pub(crate) const TESTS: &[Test] = &[
    ("mode_and_replacement", mode_and_replacement),
    ("not_through_a_link", not_through_a_link),
    ("unwritable_folder", unwritable_folder),
    ("to_standard_output", to_standard_output),
    ("owned_by_the_caller", owned_by_the_caller),
    ("caller_gains_no_rights", caller_gains_no_rights),
    ("verify_agrees", verify_agrees),
    ("verified_with_what_was_not_watched", verified_with_what_was_not_watched),
    ("five_hundred_edits", five_hundred_edits),
    ("killed_tracer", killed_tracer),
    ("killed_at_the_end", killed_at_the_end),
    ("killed_before_the_first_line", killed_before_the_first_line),
    ("unreadable_beside", unreadable_beside),
    ("full_disk", full_disk),
    ("signed_as_written", signed_as_written),
    ("signing_fails_early", signing_fails_early),
];

fn mode_and_replacement(scratch: &Scratch) -> Result<()> {
    let file = scratch.write("r.jsonl", &"old\n".repeat(100_000))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666))?;
    let file_name = file.to_string_lossy().into_owned();
    for _ in 0..2 {
        check_refused(scratch, &file, "--force")?;
        let tracer = scratch.run(["true"]).option("--force").option("-o").option(&file_name);
        tracer.output()?.exits(0)?;
        let metadata = fs::metadata(&file)?;
        ensure!(metadata.mode() & 0o7777 == 0o600, "mode {:o}", metadata.mode());
        ensure!(!fs::read_to_string(&file)?.contains("old\n"), "the old text is still there");
        scratch
            .tracer(&["verify", &file_name])
            .output()?
            .exits(0)?
            .prints("integrity: every line")?;
    }
    Ok(())
}

/// tracer refuses to write there, says so, and the command is not started.
fn check_refused(scratch: &Scratch, output: &Path, says: &str) -> Result<()> {
    let ran = scratch.file("ran");
    let result =
        scratch.run(["touch".as_ref(), ran.as_os_str()]).option("-o").option(output).output()?;
    result.exits(125)?.says(says)?.says("nothing was started")?;
    ensure!(!ran.exists(), "the command ran");
    Ok(())
}

fn not_through_a_link(scratch: &Scratch) -> Result<()> {
    let target = scratch.write("precious", "precious\n")?;
    let link = scratch.file("link");
    symlink(&target, &link)?;
    check_refused(scratch, &link, "symbolic link")?;
    let dangling = scratch.file("dangling");
    symlink(scratch.file("not-there"), &dangling)?;
    check_refused(scratch, &dangling, "symbolic link")?;
    let hard = scratch.file("hard");
    fs::hard_link(&target, &hard)?;
    check_refused(scratch, &hard, "hard link")?;
    ensure!(fs::read_to_string(&target)? == "precious\n", "the file was changed");
    ensure!(!scratch.file("not-there").exists(), "the link was followed");
    Ok(())
}

fn unwritable_folder(scratch: &Scratch) -> Result<()> {
    check_refused(scratch, &scratch.file("no/such/folder/r.jsonl"), "No such file")?;
    check_refused(scratch, Path::new("/proc/r.jsonl"), "cannot write the recording")?;
    check_refused(scratch, scratch.path(), "directory")
}

fn to_standard_output(scratch: &Scratch) -> Result<()> {
    let output = scratch.run(["true"]).option("-o").option("-").policy("no-aws-cli").output()?;
    output.exits(0)?;
    let file = scratch.file("copy.jsonl");
    fs::write(&file, &output.stdout)?;
    scratch.tracer(&["verify", &file.to_string_lossy()]).output()?.exits(0)?.prints("proven")?;
    // A recording can come in by standard input, too.
    let input = fs::File::open(&file)?;
    let verify = scratch.tracer(&["verify", "-"]).set(|command| {
        command.stdin(Stdio::from(input));
    });
    verify.output()?.exits(0)?.prints("proven")?;
    Ok(())
}

fn owned_by_the_caller(scratch: &Scratch) -> Result<()> {
    scratch.give_to(NOBODY)?;
    let line = "id -u; id -g; id -G; echo $HOME; echo $USER";
    let run = scratch
        .run(["sh", "-c", &format!("({line}) > seen")])
        .policy("no-aws-cli")
        .env("SUDO_UID", NOBODY.to_string())
        .env("SUDO_GID", NOBODY.to_string())
        .env("HOME", "/root")
        .record()?;
    run.proven()?;
    let metadata = fs::metadata(&run.recording)?;
    ensure!((metadata.uid(), metadata.gid()) == (NOBODY, NOBODY), "{metadata:?}");
    ensure!(metadata.mode() & 0o7777 == 0o600, "mode {:o}", metadata.mode());
    let seen = fs::read_to_string(scratch.file("seen"))?;
    let seen: Vec<&str> = seen.lines().collect();
    let passwd = fs::read_to_string("/etc/passwd")?;
    let entry = passwd.lines().find(|line| line.split(':').nth(2) == Some("65534"));
    let id = NOBODY.to_string();
    ensure!(seen[..3] == [&*id, &*id, &*id], "{seen:?}");
    if let Some(entry) = entry {
        let fields: Vec<&str> = entry.split(':').collect();
        ensure!(seen[3] == fields[5] && seen[4] == fields[0], "{seen:?}, {entry}");
    }
    ensure!(run.story.start.uid == NOBODY && run.story.start.gid == NOBODY, "the start record");
    let ids = run.execs()[0].credentials.context("no credentials")?;
    ensure!([ids.uid, ids.euid, ids.gid, ids.egid] == [NOBODY; 4], "{ids:?}");
    Ok(())
}

fn caller_gains_no_rights(scratch: &Scratch) -> Result<()> {
    // The folder is root's, so the caller could not write here.
    let output = scratch
        .run(["true"])
        .option("-o")
        .option(scratch.file("r.jsonl"))
        .env("SUDO_UID", NOBODY.to_string())
        .env("SUDO_GID", NOBODY.to_string())
        .output()?;
    output.exits(125)?.says("Permission denied")?;
    ensure!(!scratch.file("r.jsonl").exists(), "the file was made");
    // Nor read: what is no policy is shown.
    let secret = scratch.write("secret", "root:hash of a password")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let output = scratch.run(["true"]).policy(&secret).env("SUDO_UID", NOBODY.to_string());
    let output = output.env("SUDO_GID", NOBODY.to_string()).output()?;
    output.exits(2)?.says("Permission denied")?;
    ensure!(!output.stderr.contains("hash"), "the file was shown");
    Ok(())
}

fn verify(scratch: &Scratch, recording: &Path) -> Result<Output> {
    scratch.tracer(&["verify", &recording.to_string_lossy()]).output()
}

/// Files of a program that a policy only lists are not watched: by such a recording nobody can prove that it did
/// not run.
fn verified_with_what_was_not_watched(scratch: &Scratch) -> Result<()> {
    let policy = |file: &str, kind: &str, programs: &str| {
        let text = format!("name = 'p'\n[[claim]]\nkind = '{kind}'\nprograms = [{programs}]\n");
        scratch.write(file, &text)
    };
    let listed = policy("listed.toml", "runs-only", "'sleep', 'uname'")?;
    let forbidden = policy("forbidden.toml", "never-runs", "'uname'")?;
    for (recorded_with, code, says) in [(&forbidden, 0, "proven"), (&listed, 11, "uname")] {
        let run = scratch.run(["sleep", "0"]).policy(recorded_with).record()?;
        run.proven()?;
        let recording = run.recording.to_string_lossy();
        let arguments = ["verify", "-p", &forbidden.to_string_lossy(), &recording];
        let verified = scratch.tracer(&arguments).output()?;
        verified.exits(code)?.prints(says).with_context(|| format!("{recorded_with:?}"))?;
    }
    Ok(())
}

fn verify_agrees(scratch: &Scratch) -> Result<()> {
    let daemon = program(scratch, "daemon")?;
    let stay = format!("{} /bin/sleep 63", daemon.display());
    for (line, ruling) in [
        ("true", Ruling::Proven),
        ("exec -a aws true", Ruling::Violated),
        (&*stay, Ruling::Inconclusive),
    ] {
        let tracer = scratch.run(["bash", "-c", line]).policy("no-aws-cli");
        let run = tracer.option("--linger=0").record()?;
        run.rules(ruling)?;
        let verified = verify(scratch, &run.recording)?;
        verified.exits(run.output.code())?.prints(&format!("verdict: {}", ruling.name()))?;
        // Another policy than the one it was made with.
        let recording = run.recording.to_string_lossy().into_owned();
        let other = scratch.tracer(&["verify", "-p", "no-shell-outs", &recording]).output()?;
        ensure!(other.code() == 10 || line == "true", "{}", other.code());
    }
    Ok(())
}

/// Numbers without a meaning, the same at every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap_or(0)
    }
}

/// One edit of a recording, and its name.
fn edit(numbers: &mut Numbers, text: &[u8]) -> (&'static str, Vec<u8>) {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let one = numbers.below(lines.len());
    let other = numbers.below(lines.len());
    match numbers.below(6) {
        0 => {
            let mut bytes = text.to_vec();
            let at = numbers.below(bytes.len());
            bytes[at] ^= 1 << numbers.below(8);
            ("a flipped bit", bytes)
        }
        1 => {
            lines.remove(one);
            ("a dropped line", lines.concat())
        }
        2 => {
            lines.insert(other, lines[one]);
            ("a line twice", lines.concat())
        }
        3 => {
            lines.swap(one, other);
            ("two lines swapped", lines.concat())
        }
        4 => ("a cut", text[..numbers.below(text.len())].to_vec()),
        _ => {
            let mut bytes = text.to_vec();
            let at = numbers.below(bytes.len());
            bytes.insert(at, b"0123456789abcdef"[numbers.below(16)]);
            ("an inserted byte", bytes)
        }
    }
}

fn five_hundred_edits(scratch: &Scratch) -> Result<()> {
    let line = "for i in 1 2 3 4 5 6; do /bin/true $i; done; (exit 3); sh -c 'true; exit 2'";
    let run = scratch.run(["sh", "-c", &format!("{line}; true")]).policy("no-aws-cli").record()?;
    run.proven()?;
    let text = fs::read(&run.recording)?;
    let edited_file = scratch.file("edited.jsonl");
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut edits = 0;
    while edits < 500 {
        let (what, edited) = edit(&mut numbers, &text);
        if edited == text {
            continue;
        }
        edits += 1;
        fs::write(&edited_file, &edited)?;
        let verified = verify(scratch, &edited_file)?;
        let stdout = String::from_utf8_lossy(&verified.stdout);
        // 125: not readable as a recording at all.
        let refused = [11, 125].contains(&verified.code());
        if !refused || stdout.contains("verdict: proven") {
            let kept = std::env::temp_dir().join("tracer-edited-recording.jsonl");
            fs::write(&kept, edited)?;
            bail!(
                "edit {edits} ({what}, kept in {}) gave {}:\n{stdout}",
                kept.display(),
                verified.code()
            );
        }
        ensure!(!verified.stderr.contains("panicked"), "{what}: {}", verified.stderr);
    }
    Ok(())
}

fn killed_tracer(scratch: &Scratch) -> Result<()> {
    let mut numbers = Numbers(88_172_645_463_325_252);
    for round in 0..20 {
        let recording = scratch.file(format!("killed-{round}.jsonl"));
        let mut tracer = scratch
            .run(["sh", "-c", "while true; do /bin/true; done"])
            .policy("no-aws-cli")
            .option("-o")
            .option(&recording)
            .spawn()?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while fs::metadata(&recording).map_or(0, |metadata| metadata.len()) == 0 {
            ensure!(Instant::now() < deadline, "no recording appeared");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(numbers.below(400_000) as u64));
        tracer.kill()?;
        wait_for(&mut tracer)?;
        scratch.sweep();
        cgroup::remove_of(tracer.id());
        let verified = verify(scratch, &recording)?;
        verified.exits(11)?.prints("integrity: NO")?.prints("inconclusive")?;
        let report = scratch.tracer(&["report", &recording.to_string_lossy()]).output()?;
        report.exits(11)?.prints("INCONCLUSIVE")?.prints("integrity")?.says("cut short")?;
    }
    Ok(())
}

/// Between the command's end and tracer's: what is there has its last line, or is known to be cut short.
fn killed_at_the_end(scratch: &Scratch) -> Result<()> {
    const MOMENTS: u32 = 20;
    let ended = scratch.file("ended");
    let line = format!("/bin/true; : > {}", ended.display());
    let started = |number: u32| {
        let _ = fs::remove_file(&ended);
        let recording = scratch.file(format!("at-the-end-{number}.jsonl"));
        let run = scratch.run(["sh", "-c", &line]).policy("no-aws-cli");
        let tracer = run.option("-o").option(&recording).spawn()?;
        until("the command's end", || ended.exists())?;
        anyhow::Ok((tracer, recording))
    };
    // How long it takes when nobody kills it.
    let (mut tracer, _) = started(MOMENTS)?;
    let since = Instant::now();
    ensure!(wait_for(&mut tracer)?.success(), "the run was not proven");
    let whole = since.elapsed();
    let mut cut = 0;
    for moment in 0..MOMENTS {
        let (mut tracer, recording) = started(moment)?;
        std::thread::sleep(whole * moment / MOMENTS);
        tracer.kill()?;
        let has_ended = wait_for(&mut tracer)?.success();
        scratch.sweep();
        cgroup::remove_of(tracer.id());
        let verified = verify(scratch, &recording)?;
        if verified.code() == 0 {
            verified.prints("integrity: every line")?.prints("proven")?;
        } else {
            verified.exits(11)?.prints("integrity: NO")?.prints("inconclusive")?;
            ensure!(!has_ended, "tracer ended well with a recording that is cut short");
            cut += 1;
        }
    }
    ensure!(cut > 0, "none of {MOMENTS} moments was before the last line");
    Ok(())
}

/// An empty file, and the beginning of a first line.
fn killed_before_the_first_line(scratch: &Scratch) -> Result<()> {
    let run = scratch.run(["true"]).policy("no-aws-cli").record()?;
    let text = fs::read(&run.recording)?;
    for (bytes, says) in [(0, "before its first line"), (100, "within its first line")] {
        let cut = scratch.file(format!("cut-{bytes}.jsonl"));
        fs::write(&cut, &text[..bytes])?;
        let verified = verify(scratch, &cut)?;
        verified.exits(11)?.prints("integrity: NO")?.prints(says)?.prints("inconclusive")?;
        let report = scratch.tracer(&["report", &cut.to_string_lossy()]).output()?;
        report.exits(11)?.says(says)?;
    }
    Ok(())
}

/// What cannot be read beside a recording that has its end is named.
fn unreadable_beside(scratch: &Scratch) -> Result<()> {
    let run = scratch.run(["true"]).option("--rotate").option("64K").record()?;
    let beside = run.recording.with_extension("jsonl.1");
    ensure!(!beside.exists(), "this recording is too long");
    verify(scratch, &run.recording)?.exits(0)?;
    let check = || -> Result<()> {
        let verified = verify(scratch, &run.recording)?;
        verified.exits(11)?.prints(&beside.display().to_string())?.prints("cannot be read")?;
        Ok(())
    };
    symlink("/nonexistent/file", &beside)?;
    check()?;
    fs::remove_file(&beside)?;
    fs::create_dir(&beside)?;
    check()
}

fn full_disk(scratch: &Scratch) -> Result<()> {
    let ended = scratch.file("ended");
    let line = format!("for i in 1 2 3; do /bin/true; done; touch {}", ended.display());
    let output = scratch
        .run(["sh", "-c", &line])
        .policy("no-aws-cli")
        .option("-o")
        .option("/dev/full")
        .output()?;
    output.exits(125)?.says("could not be written")?.says("No space left")?;
    ensure!(ended.exists(), "the command did not run to its end");
    Ok(())
}

fn key(name: &str) -> String {
    fixtures().join("../../tracer/tests/golden/keys").join(name).display().to_string()
}

/// What is signed is what tracer wrote, also when the command has put another file in its place.
fn signed_as_written(scratch: &Scratch) -> Result<()> {
    let public = key("spki.pem");
    for (line, code, says) in [
        ("true", 0, "signature: valid"),
        ("rm r.jsonl; cp old.jsonl r.jsonl", 11, "about another file"),
    ] {
        let recording = scratch.file("r.jsonl");
        let run = || scratch.run(["sh", "-c", line]).policy("no-aws-cli").option("--force");
        let run = run().option("--sign").option(key("pkcs8.pem")).option("-o").option(&recording);
        run.output()?.exits(0)?;
        let recording = recording.display().to_string();
        let verified = scratch.tracer(&["verify", "--key", &public, &recording]).output()?;
        verified.exits(code)?.prints(says).context(line)?;
        let mode = fs::metadata(scratch.file("r.jsonl.intoto.json"))?.mode();
        ensure!(mode & 0o7777 == 0o600, "mode {mode:o}");
        if code == 0 {
            fs::copy(&recording, scratch.file("old.jsonl"))?;
        }
    }
    Ok(())
}

fn signing_fails_early(scratch: &Scratch) -> Result<()> {
    let ran = scratch.file("ran");
    let run = |key: String, output: &str| {
        let run = scratch.run(["touch".as_ref(), ran.as_os_str()]).option("--sign").option(key);
        run.option("-o").option(output).output()
    };
    run(key("spki.pem"), "r.jsonl")?.exits(125)?.says("public key")?.says("nothing was started")?;
    run(key("missing"), "r.jsonl")?.exits(125)?.says("cannot read the key")?;
    run(key("pkcs8.pem"), "-")?.exits(125)?.says("nothing was started")?;
    scratch.write("s.jsonl.intoto.json", "precious")?;
    run(key("pkcs8.pem"), "s.jsonl")?.exits(125)?.says("--force")?.says("nothing was started")?;
    ensure!(!ran.exists(), "the command ran");
    Ok(())
}
