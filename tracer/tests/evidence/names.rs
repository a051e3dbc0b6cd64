//! What recordings are called on the command line.

use super::*;

#[test]
fn compare_expands_names_what_it_leaves_out_and_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    fs::copy(recording("proven"), file("a1.jsonl")).unwrap();
    fs::copy(recording("proven"), file("a2.jsonl")).unwrap();
    // A name that would not match itself as a pattern.
    fs::copy(recording("violated"), file("b[1].jsonl")).unwrap();
    let (all, odd) = (format!("sdk={}", file("a*.jsonl")), format!("cli={}", file("b[1].jsonl")));
    check(&["compare", &all, &odd], 0, "only in this group");
    check(&["compare", &all, &all], 0, "2 proven");
    for format in ["text", "markdown", "html", "json"] {
        check(&["compare", "--format", format, &all, &odd], 0, "/opt/demo/bin/aws");
    }
    check(&["compare", &format!("sdk={}", file("c*.jsonl"))], 2, "no recording");
    check(&["compare", "sdk"], 2, "NAME=RECORDING");

    let page = file("page.html");
    let to_page = ["compare", "-f", "html", "-o", &page, &all];
    check(&to_page, 0, "");
    check(&to_page, 125, "--force");
    check(&[&to_page[..], &["--force"]].concat(), 0, "");

    fs::write(file("a3.jsonl"), "{}\n").unwrap();
    let text = fs::read(recording("proven")).unwrap();
    fs::write(file("a4.jsonl"), &text[..text.len() / 2]).unwrap();
    check(&["compare", &all], 11, "2 recordings were not used");
    check(&["compare", &all], 11, "a4.jsonl");
    check(&["compare", &all], 11, "not a tracer recording");
}

/// Whatever the file is called, whatever is in it, and whoever wants it to be written to.
#[test]
fn a_recording_is_named_as_it_is_and_never_replaced() {
    use std::os::unix::ffi::OsStringExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let a = file("a.jsonl");
    fs::copy(recording("proven"), &a).unwrap();
    for output in [&a, &file("./a.jsonl")] {
        check(&["report", "--force", "-o", output, &a], 125, "would lose it");
        check(&["compare", "--force", "-o", output, &format!("x={a}")], 125, "would lose it");
    }
    assert_eq!(fs::read(&a).unwrap(), fs::read(recording("proven")).unwrap());

    // The same file under another name is the same file; a copy of it is the same session.
    let link = file("link.jsonl");
    symlink(&a, &link).unwrap();
    check(&["compare", &format!("x={a}"), &format!("x={link}")], 0, "1 proven");
    let copy = file("copy.jsonl");
    fs::copy(&a, &copy).unwrap();
    let both = [format!("x={a}"), format!("y={copy}")];
    check(&["compare", &both[0], &both[1]], 0, "Sessions that count more than once");

    let odd = OsString::from_vec(b"odd\xff \x1b[31m'name.jsonl".to_vec());
    fs::copy(&a, folder.path().join(&odd)).unwrap();
    let run = |arguments: &[&OsStr]| {
        let mut tracer = Command::new(env!("CARGO_BIN_EXE_tracer"));
        tracer.args(arguments).current_dir(folder.path()).output().unwrap()
    };
    let member = [OsStr::new("x="), &odd].into_iter().collect::<OsString>();
    assert!(run(&["compare".as_ref(), &member]).status.success());
    let document = run(&["report".as_ref(), "-f".as_ref(), "markdown".as_ref(), &odd]).stdout;
    let document = String::from_utf8(document).unwrap();
    let command = document.lines().find_map(|line| line.strip_prefix("tracer verify ")).unwrap();
    let line = format!("exec {} verify {command}", env!("CARGO_BIN_EXE_tracer"));
    let mut bash = Command::new("bash");
    let output = bash.args(["-c", &line]).current_dir(folder.path()).output();
    match output {
        Ok(output) => assert!(output.status.success(), "{command}: {output:?}"),
        Err(error) => skip(&format!("bash: {error}")),
    }
    let missing = run(&["report".as_ref(), "no\x1b[31m".as_ref()]);
    assert!(!missing.stderr.contains(&b'\x1b'), "{missing:?}");

    let whole = fs::read(recording("proven")).unwrap();
    let first_line = whole.iter().position(|byte| *byte == b'\n').unwrap();
    for (bytes, says) in [
        (0, "cut short before its first line"),
        (1, "within its first line"),
        (20, "within its first line"),
        (first_line - 1, "within its first line"),
        (first_line, "cut short"),
        (first_line + 1, "cut short"),
    ] {
        fs::write(&copy, &whole[..bytes]).unwrap();
        check(&["verify", &copy], 11, says);
        check(&["verify", &copy], 11, "integrity: NO");
        check(&["report", &copy], 11, says);
    }
    for (content, says) in [
        (&b"\x1f\x8b\x08"[..], "is compressed"),
        (b"\x00\x01", "not a tracer recording"),
        (b"{\"type\":\"start\",\"schema\":0}\n", "no schema 0"),
        (b"{\"type\":\"exit\",\"schema\":4}\n", "in several files, name the first"),
    ] {
        fs::write(&copy, content).unwrap();
        check(&["verify", &copy], 125, says);
        check(&["report", &copy], 125, says);
    }
}
