//! Programs that a policy names by their paths.

use super::{attempts::attempt, *};
use crate::policy::file::parse;

/// `/bin` is a link to `/usr/bin`, and `/opt/vendor` an ordinary folder.
fn linked(start: &mut Start, _: &mut End) {
    for (path, place) in [("/bin/evil", "/usr/bin/evil"), ("/opt/vendor/tool", "/opt/vendor/tool")]
    {
        start.known_paths.insert(path.into(), vec![place.into()]);
        start.known_programs.insert(path.into(), Vec::new());
    }
    let folder =
        |path: &str, leads_to: &str| KnownFolder { path: path.into(), leads_to: leads_to.into() };
    start.known_folders =
        vec![folder("/bin", "/usr/bin"), folder("/usr/local/bin", "/usr/local/bin")];
}

fn judged(kind: &str, program: &str, record: Record) -> (Ruling, String) {
    let text = format!(
        "name = 'x'\n[[claim]]\nkind = '{kind}'\nprograms = ['@command', '{program}']\nattempts = true"
    );
    let text = if kind == "never-runs" { text.replace("'@command', ", "") } else { text };
    ruling_of(&parse(&text, "x.toml").unwrap(), &[record], linked)
}

fn never(program: &str, record: Record) -> (Ruling, String) {
    judged("never-runs", program, record)
}

/// The file of one path, executed by another name in a folder.
fn run(file: &str, name: &str, cwd: Option<&str>) -> Record {
    let Record::Exec(mut exec) = exec(CHILD, file, 30, &["x"]) else { unreachable!() };
    exec.filename = Some(name.into());
    exec.cwd = cwd.map(Bytes::from);
    Record::Exec(exec)
}

#[test]
fn a_file_that_came_later_is_known_by_where_its_path_really_is() {
    let evil = |record| never("/bin/evil", record);
    let violated = |record| check(evil(record), Ruling::Violated, "by its path");
    violated(run("/usr/bin/evil", "/usr/bin/evil", Some("/")));
    violated(run("/usr/bin/evil", "./evil", Some("/usr/bin")));
    violated(run("/usr/bin/evil", "/dev/fd/5", None));
    // It is a link to something else.
    violated(run("/usr/bin/true", "/bin/evil", Some("/")));
    violated(run("/usr/bin/true", "bin/evil", Some("/usr")));
    violated(run("/usr/bin/true", "/usr//bin/./evil", Some("/")));
    violated(run("/usr/bin/true", "../local/../bin/evil", Some("/usr/bin")));
    let unclear = |record| check(evil(record), Ruling::Inconclusive, "it was executed as");
    unclear(run("/usr/bin/true", "evil", None));
    unclear(run("/usr/bin/true", "other/evil", Some("/tmp")));
    unclear(run("/usr/bin/true", "/dev/fd/5/evil", Some("/")));
    unclear(run("/usr/bin/true", "/tmp/x/../evil", Some("/opt")));
    let proven = |record| check(evil(record), Ruling::Proven, "");
    proven(run("/tmp/evil", "./evil", Some("/tmp")));
    proven(run("/tmp/evil", "/tmp/evil", None));
    proven(run("/usr/bin/true", "/usr/local/bin/evil", Some("/")));
    proven(run("/usr/bin/true", "true", None));
}

#[test]
fn a_path_whose_place_is_not_known_may_be_any_of_that_name() {
    let policy = parse("name = 'x'\n[[claim]]\nkind = 'never-runs'\nprograms = ['/bin/evil']", "x");
    let unknown = |start: &mut Start, _: &mut End| {
        start.known_programs.insert("/bin/evil".into(), Vec::new());
    };
    let record = run("/usr/bin/evil", "/usr/bin/evil", Some("/"));
    let actual = ruling_of(policy.as_ref().unwrap(), &[record], unknown);
    check(actual, Ruling::Inconclusive, "is not known");
    let record = run("/usr/bin/true", "/usr/bin/true", Some("/"));
    check(ruling_of(policy.as_ref().unwrap(), &[record], unknown), Ruling::Proven, "");
}

#[test]
fn an_interpreter_and_a_loader_are_given_paths() {
    let given = |path: &str, cwd: Option<&str>, argv: &[&str]| {
        let Record::Exec(mut exec) = exec(CHILD, path, 31, argv) else { unreachable!() };
        exec.cwd = cwd.map(Bytes::from);
        never("/bin/evil", Record::Exec(exec))
    };
    let (python, loader) = ("/usr/bin/python3", "/lib64/ld-linux-x86-64.so.2");
    for (path, name) in [(python, "python3"), (loader, "ld.so")] {
        for word in ["/bin/evil", "/usr/bin/evil", "/usr/bin/./evil"] {
            check(given(path, Some("/"), &[name, word]), Ruling::Violated, "was given");
        }
        check(given(path, Some("/usr"), &[name, "bin/evil"]), Ruling::Violated, "was given");
        for (cwd, word) in [(None, "bin/evil"), (Some("/tmp"), "x/evil"), (Some("/tmp"), "evil")] {
            check(given(path, cwd, &[name, word]), Ruling::Inconclusive, "was given");
        }
    }
    check(given(python, Some("/tmp"), &["python3", "./evil"]), Ruling::Proven, "");
    check(given(python, Some("/tmp"), &["python3", "/x/y", "/bin/evil"]), Ruling::Proven, "");
    check(given("/usr/bin/grep", Some("/"), &["grep", "x", "/bin/evil"]), Ruling::Proven, "");
}

#[test]
fn the_interpreter_that_a_script_names_is_executed() {
    let Record::Exec(mut exec) = run("/usr/bin/true", "/tmp/x", Some("/")) else { unreachable!() };
    exec.script = Some(Script { interpreter: Some("/usr/bin/evil".into()), file: Some(script()) });
    check(never("/bin/evil", Record::Exec(exec)), Ruling::Violated, "by its path");
}

#[test]
fn a_failed_exec_is_told_by_what_its_name_leads_to() {
    let tool = |name: &str| never("/opt/vendor/tool", attempt(&[name], &["tool"]));
    for name in [
        "/opt/vendor/tool",
        "/opt//vendor/tool",
        "/opt/./vendor/tool",
        "/opt/vendor/../vendor/tool",
    ] {
        check(tool(name), Ruling::Violated, "tried to run /opt/vendor/tool");
    }
    for name in ["vendor/tool", "tool", "/tmp/x/../../opt/vendor/tool", "/tmp/x/tool"] {
        check(tool(name), Ruling::Inconclusive, "it may have tried to run /opt/vendor/tool");
    }
    // A search along PATH.
    check(tool("/usr/local/bin/tool"), Ruling::Proven, "");
    check(tool("/opt/vendor/other"), Ruling::Proven, "");
}

#[test]
fn a_path_that_was_tried_is_not_excused_by_what_was_found_elsewhere() {
    let policy = parse(
        "name = 'x'\n[[claim]]\nkind = 'never-runs'\nprograms = ['/opt/vendor/tool']\nattempts = true",
        "x",
    )
    .unwrap();
    let searched = |folder: &str| {
        let tried = attempt(&[&format!("{folder}/tool")], &["tool"]);
        let found = exec(CHILD, "/usr/bin/tool", 30, &["tool"]);
        ruling_of(&policy, &[tried, found], linked)
    };
    check(searched("/opt/vendor"), Ruling::Violated, "tried to run /opt/vendor/tool");
    check(searched("/usr/local/bin"), Ruling::Proven, "");
}

#[test]
fn a_failed_exec_of_what_may_be_listed_is_inconclusive() {
    let tool = |name: &str| judged("runs-only", "/opt/vendor/tool", attempt(&[name], &["tool"]));
    check(tool("/opt//vendor/tool"), Ruling::Proven, "");
    check(tool("vendor/tool"), Ruling::Inconclusive, "what may not be listed");
    check(tool("/usr/local/bin/tool"), Ruling::Violated, "not listed");
    check(tool("vendor/other"), Ruling::Violated, "not listed");
}

#[test]
fn code_that_is_mapped_from_the_path_is_a_reason() {
    let mapped = |path: &str| {
        let version = FileVersion { id: file(5), size_bytes: 2, ctime_ns: 0 };
        let files = vec![MappedFile::new(path.into(), version.id, Ok(version))];
        never("/bin/evil", Record::Mapped(Mapped { t_ns: 6, process: CHILD, files }))
    };
    check(mapped("/usr/bin/evil"), Ruling::Inconclusive, "which is /bin/evil (by its path)");
    check(mapped("/usr/lib/libc.so"), Ruling::Proven, "");
}
