//! What people see on a terminal, and what programs get instead.

use std::{
    fs::{self, File},
    io::Read as _,
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    Test,
    harness::{Scratch, on_path, tracer_program, wait_for},
    report::golden,
    terminal::terminal,
};

pub(crate) const TESTS: &[Test] = &[
    ("colours_are_for_terminals", colours_are_for_terminals),
    ("tables_fit_the_terminal", tables_fit_the_terminal),
    ("progress_is_for_terminals", progress_is_for_terminals),
    ("shells_take_the_completions", shells_take_the_completions),
    ("manual_pages_are_set_without_warnings", manual_pages_are_set_without_warnings),
];

const ESCAPE: char = '\u{1b}';

/// Which of the streams is the terminal; the other one is thrown away.
#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

/// What tracer writes to a terminal of so many columns.
fn seen(
    scratch: &Scratch,
    arguments: &[&str],
    columns: u16,
    stream: Stream,
    variable: Option<(&str, &str)>,
) -> Result<String> {
    let (mut person, program) = terminal()?;
    let size = libc::winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let set = unsafe { libc::ioctl(program.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    ensure!(set == 0, "no size: {}", std::io::Error::last_os_error());
    let set = |command: &mut Command| {
        command.env_remove("NO_COLOR").env("TERM", "xterm").envs(variable);
        match stream {
            Stream::Out => command.stdout(program).stderr(Stdio::null()),
            Stream::Err => command.stderr(program).stdout(Stdio::null()),
        };
    };
    let mut tracer = scratch.tracer(arguments).set(set).spawn_on_own_streams()?;
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        // The last program has closed it: that is an error (EIO), and the end.
        let _ = person.read_to_end(&mut text);
        text
    });
    let status = wait_for(&mut tracer)?;
    ensure!(status.success(), "tracer ended with {status}");
    let text = reader.join().map_err(|_| anyhow!("reading the terminal panicked"))?;
    Ok(String::from_utf8(text)?.replace("\r\n", "\n"))
}

fn colours_are_for_terminals(scratch: &Scratch) -> Result<()> {
    let recording = golden("proven").to_string_lossy().into_owned();
    let report = ["report", &recording];
    let see = |variable| seen(scratch, &report, 500, Stream::Out, variable);
    let coloured = see(None)?;
    ensure!(coloured.contains("\u{1b}[1;32mPROVEN"), "no colours: {coloured}");
    for refusal in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = see(Some(refusal))?;
        ensure!(plain.contains("PROVEN") && !plain.contains(ESCAPE), "{refusal:?}: {plain}");
    }
    ensure!(see(Some(("NO_COLOR", "")))? == coloured, "an empty NO_COLOR refuses nothing");
    let piped = scratch.tracer(&report).output()?;
    ensure!(!piped.stdout.contains(&0x1b), "colours in a pipe");
    Ok(())
}

fn tables_fit_the_terminal(scratch: &Scratch) -> Result<()> {
    const NARROW: u16 = 90;
    let recording = golden("made-up").to_string_lossy().into_owned();
    let group = format!("group={recording}");
    for arguments in [&["report", &recording][..], &["compare", &group]] {
        let see = |columns| seen(scratch, arguments, columns, Stream::Out, Some(("NO_COLOR", "1")));
        let (narrow, wide) = (see(NARROW)?, see(400)?);
        ensure!(narrow != wide, "{arguments:?}: the width makes no difference");
        // Columns stand two spaces apart; a row that does not fit is cut or goes on below. The tree has
        // no columns.
        let is_row = |line: &&str| line.trim().contains("  ") && !line.contains(['│', '→']);
        let rows = narrow.lines().filter(is_row);
        let mut count = 0;
        for row in rows {
            count += 1;
            let width = row.chars().count();
            ensure!(width <= usize::from(NARROW), "{arguments:?}: {width} columns: {row}");
        }
        ensure!(count > 10, "{arguments:?}: {count} rows: {narrow}");
    }
    Ok(())
}

fn progress_is_for_terminals(scratch: &Scratch) -> Result<()> {
    let groups = ["one=proven", "one=violated", "two=hostile", "two=made-up"].map(|member| {
        let (group, name) = member.split_once('=').unwrap_or_default();
        format!("{group}={}", golden(name).display())
    });
    let mut arguments = vec!["compare"];
    arguments.extend(groups.iter().map(String::as_str));
    let shown = seen(scratch, &arguments, 100, Stream::Err, None)?;
    for step in ["[--------------------] 0 of 4", "[###############-----] 3 of 4"] {
        ensure!(shown.contains(step), "no `{step}`: {shown:?}");
    }
    ensure!(shown.ends_with("\r\u{1b}[K"), "it is not taken away at the end: {shown:?}");
    let silent = scratch.tracer(&arguments).output()?;
    ensure!(silent.stderr.is_empty(), "without a terminal: {}", silent.stderr);
    Ok(())
}

/// The real shell reads the script, and then completes by it.
fn shells_take_the_completions(scratch: &Scratch) -> Result<()> {
    const ASK: &str = "source \"$1\" && COMP_WORDS=(tracer ver) COMP_CWORD=1 && \
                       _tracer tracer ver tracer && echo \"${COMPREPLY[@]}\"";
    let shell = on_path("bash")?;
    let script = scratch.file("tracer.bash");
    let made = Command::new(tracer_program())
        .args(["completions", "bash"])
        .stdout(File::create(&script)?)
        .status()?;
    ensure!(made.success(), "no script: {made}");
    let output = Command::new(shell).args(["--norc", "-c", ASK, "sh"]).arg(&script).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    let completed = String::from_utf8(output.stdout).context("not UTF-8")?;
    ensure!(completed.trim() == "verify", "`tracer ver` is completed to `{completed}`");
    Ok(())
}

fn manual_pages_are_set_without_warnings(scratch: &Scratch) -> Result<()> {
    let groff = on_path("groff")?;
    let folder = scratch.folder("man1")?;
    scratch.tracer(&["man", &folder.to_string_lossy()]).output()?.exits(0)?;
    let mut pages = 0;
    for page in fs::read_dir(&folder)? {
        let page = page?.path();
        let output = Command::new(&groff).args(["-man", "-ww", "-Tutf8"]).arg(&page).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
        ensure!(output.stdout.len() > 500, "{} is empty", page.display());
        pages += 1;
    }
    ensure!(pages > 8, "{pages} pages");
    Ok(())
}
