//! Which program it is.

use super::*;
use crate::policy::file::parse;

#[test]
fn the_program_is_found_under_each_of_its_names() {
    let violated = |record: Record, words: &str| {
        check(ruling("no-aws-cli", &[record], |_, _| {}), Ruling::Violated, words);
    };
    violated(exec(CHILD, "/opt/aws", 3, &["aws", "s3"]), "by the name it was executed under");
    violated(exec(CHILD, "/tmp/x", AWS, &["x"]), "same inode");
    violated(exec(CHILD, "/tmp/x", 3, &["aws"]), "by its argv[0]");
    let interpreter = |path, argv: &[&str]| exec(CHILD, path, 4, argv);
    violated(interpreter("/usr/bin/python3.11", &["python3", "/opt/aws", "s3"]), "was given");
    violated(
        interpreter("/usr/bin/python3.11", &["python3", "-u", "-m", "awscli"]),
        "module awscli",
    );
    violated(interpreter("/usr/bin/python3.11", &["python3", "-Imawscli"]), "module awscli");
    violated(
        interpreter("/usr/bin/python3", &["python3", "-c", "import awscli.x"]),
        "code with awscli",
    );
    violated(interpreter("/lib64/ld-linux-x86-64.so.2", &["ld.so", "/opt/aws"]), "was given");
    violated(interpreter("/lib64/ld-linux-x86-64.so.2", &["ld.so", "-d/aws"]), "was given");
    violated(interpreter("/usr/bin/bash", &["bash", "-e", "/opt/aws", "s3"]), "was given");
    violated(interpreter("/usr/bin/bash", &["bash", "--", "-d/aws"]), "was given");
    violated(interpreter("/usr/bin/sh", &["sh", "-", "/opt/aws"]), "was given");
    violated(interpreter("/usr/bin/perl", &["perl", "-Mfeature=say", "/opt/aws"]), "was given");
    violated(interpreter("/usr/bin/perl", &["perl", "-I/usr/lib/e", "/opt/aws"]), "was given");
    violated(interpreter("/usr/bin/python3", &["python3", "-X", "utf8", "-m", "awscli"]), "module");
    violated(interpreter("/usr/bin/bash", &["bash", "-euo", "/opt/aws"]), "was given");
    violated(interpreter("/usr/bin/python3", &["python3", "-Wignore", "/opt/aws"]), "was given");
    violated(
        interpreter("/usr/bin/python3", &["python3", "-Xfrozen_modules=off", "/x/aws"]),
        "given",
    );
    let by_script = {
        let Record::Exec(mut exec) = exec(CHILD, "/tmp/x", 4, &["sh", "/tmp/x"]) else {
            unreachable!()
        };
        exec.script = Some(Script {
            interpreter: None,
            file: Some(ScriptFile { id: file(AWS), ..script() }),
        });
        Record::Exec(exec)
    };
    violated(by_script, "the script is");
}

#[test]
fn what_an_interpreter_may_run_is_inconclusive() {
    let unclear = |argv: &[&str], words: &str| {
        let path = format!("/usr/bin/{}", argv[0]);
        let actual = ruling("no-aws-cli", &[exec(CHILD, &path, 5, argv)], |_, _| {});
        check(actual, Ruling::Inconclusive, words);
    };
    unclear(&["python3", "-W", "ignore", "/opt/aws"], "may run aws");
    unclear(&["python3", "-m", "runpy", "awscli"], "may run aws");
    unclear(&["python3", "-m", "cProfile", "-m", "awscli"], "may run aws");
    unclear(&["python3", "-c", "print('awscli')"], "may run aws");
    unclear(&["python3", "-c", "print('no import awscli')"], "may run aws");
    unclear(&["bash", "-o", "posix", "/opt/aws"], "may run aws");
    unclear(&["bash", "-oO", "errexit", "extglob", "/opt/aws"], "may run aws");
    unclear(&["dash", "-ooo", "errexit", "nounset", "noglob", "/opt/aws"], "may run aws");
    unclear(&["bash", "-n", "/opt/aws"], "may run aws");
    unclear(&["bash", "--version", "aws"], "may run aws");
    unclear(&["perl", "-c", "/opt/aws"], "may run aws");
    unclear(&["node", "--check", "/opt/aws"], "may run aws");
    unclear(&["node", "--require=/opt/aws", "x.js"], "may run aws");
    unclear(&["ruby", "-r/opt/aws", "x.rb"], "may run aws");
    unclear(&["bash", "--rcfile", "f", "/opt/aws"], "may run aws");
    unclear(&["node", "-r", "fs", "/opt/aws"], "may run aws");
    unclear(&["perl", "-I", "lib", "/opt/aws"], "may run aws");
    unclear(&["ld-linux-x86-64.so.2", "--list", "/opt/aws"], "loader");
    unclear(&["ld-linux-x86-64.so.2", "/tmp/x"], "loader");
}

#[test]
fn a_listed_file_that_changes_is_inconclusive() {
    let mut later = FileVersion { id: file(1), size_bytes: 1, ctime_ns: 0 };
    later.ctime_ns = 5;
    let own = exec(CHILD, "/usr/bin/node", 1, &["node"]);
    let changed = content(later, Ok("another"));
    check(ruling("no-shell-outs", &[own, changed], |_, _| {}), Ruling::Inconclusive, "was changed");
}

#[test]
fn a_copy_is_found_by_its_content() {
    let copy = exec(CHILD, "/tmp/x", 9, &["x"]);
    let Record::Exec(executed) = &copy else { unreachable!() };
    let version = executed.file.as_ref().unwrap().version();
    let same = content(version, Ok(&AWS.to_string()));
    // Content comes after the exec, and a later line for the same version counts.
    let judged = |records: &[Record], spoil: fn(&mut Start)| {
        let policy = load("no-aws-cli").unwrap();
        let all: Vec<Record> =
            events(std::slice::from_ref(&copy)).into_iter().chain(records.to_vec()).collect();
        let mut start = start(&policy);
        spoil(&mut start);
        let mut story = Story::new(start);
        let end = good_end(&all);
        for record in all.into_iter().chain([Record::End(Box::new(end))]) {
            story.add(record);
        }
        let claim = judge(&story, &[policy]).unwrap().claims.remove(0);
        let violations = claim.violations.into_iter().map(|violation| violation.detail);
        (claim.ruling, violations.chain(claim.reasons).collect::<Vec<_>>().join("\n"))
    };
    check(judged(std::slice::from_ref(&same), |_| {}), Ruling::Violated, "same content");
    check(judged(&[], |_| {}), Ruling::Proven, "");
    let unread = content(version, Err("gone"));
    check(judged(&[unread], |_| {}), Ruling::Inconclusive, "is not known: gone");
    // Of a binary with several names it is not known what it did.
    let several = |start: &mut Start| {
        start.known_programs.get_mut("aws").unwrap()[0].multi_call = true;
    };
    let mut then = exec(CHILD, "/usr/bin/pip", 30, &["pip", "list"]);
    at(&mut then, 6);
    check(judged(&[same, then], several), Ruling::Inconclusive, "no script of a shell");
}

fn at(record: &mut Record, t_ns: u64) {
    let Record::Exec(exec) = record else { unreachable!() };
    exec.t_ns = t_ns;
}

#[test]
fn a_script_of_a_shell_that_executes_another_program_is_a_shim() {
    const SHELL: u64 = 40;
    let judged = |interpreter: u64, then: &[&str], between: &[Record]| {
        let mut shim = exec(CHILD, "/opt/shims/pip", interpreter, &["bash", "/opt/shims/pip"]);
        let Record::Exec(own) = &mut shim else { unreachable!() };
        let aws = ScriptFile { id: file(AWS), ..script() };
        own.script = Some(Script { interpreter: None, file: Some(aws) });
        let mut next = exec(CHILD, "/usr/lib/pip", 30, then);
        at(&mut next, 8);
        let records = [&[shim][..], between, &[next]].concat();
        ruling("no-aws-cli", &records, |start, _| {
            start.known_programs.get_mut("aws").unwrap()[0].multi_call = true;
            start.interpreters = vec![KnownInterpreter {
                name: "bash".into(),
                path: "/bin/bash".into(),
                file: file(SHELL),
                size_bytes: 1,
            }];
        })
    };
    let unclear = "no script of a shell";
    check(judged(SHELL, &["pip", "list"], &[]), Ruling::Proven, "");
    check(judged(SHELL, &["env", "/opt/shims/pip"], &[]), Ruling::Inconclusive, unclear);
    check(judged(SHELL + 1, &["pip", "list"], &[]), Ruling::Inconclusive, unclear);
    let worker = ProcessKey { pid: 99, start_ns: 99 };
    let born = fork(7, CHILD, worker);
    check(judged(SHELL, &["pip", "list"], &[born, exit(worker)]), Ruling::Inconclusive, unclear);
}

#[test]
fn ordinary_words_are_no_alarm() {
    for argv in [
        &["git", "commit", "-m", "aws"][..],
        &["grep", "-rn", "aws", "."],
        &["node", "app.js", "aws"],
        &["python3", "-m", "pytest", "aws"],
        &["sh", "-c", "echo aws"],
        &["sh", "-c", "ls bin/aws"],
        &["bash", "-ec", "cat /etc/hostname # /x/aws"],
        &["node", "-e", "require('/x/aws')"],
        &["bash", "-s", "--", "aws"],
        &["python3", "-", "aws"],
        &["perl", "-Mfeature=say", "-e", "1", "aws"],
        &["perl", "-lne", "print", "aws"],
        &["perl", "-pi.orig", "-e", "s/a/b/", "aws"],
        &["ruby", "-rjson", "-e", "1", "aws"],
    ] {
        let path = format!("/usr/bin/{}", argv[0]);
        check(ruling("no-aws-cli", &[exec(CHILD, &path, 5, argv)], |_, _| {}), Ruling::Proven, "");
    }
}

#[test]
fn what_cannot_be_identified_is_inconclusive() {
    let unknown = |change: fn(&mut Exec), words: &str| {
        let Record::Exec(mut exec) = git() else { unreachable!() };
        change(&mut exec);
        check(ruling("no-aws-cli", &[Record::Exec(exec)], |_, _| {}), Ruling::Inconclusive, words);
    };
    unknown(|exec| exec.memfd = true, "anonymous memory file");
    unknown(|exec| exec.unlinked = true, "no name left");
    unknown(|exec| exec.file = None, "could not read which file");
    unknown(|exec| exec.filename = None, "could not read the name");
    unknown(|exec| exec.argv.complete = false, "argv is not complete");
    unknown(
        |exec| exec.script = Some(Script { interpreter: None, file: None }),
        "which script was executed",
    );
}

#[test]
fn execs_the_witness_cannot_see_are_inconclusive() {
    let Record::Exec(mut exec) = git() else { unreachable!() };
    exec.witness_detached = true;
    exec.credentials = Some(Credentials { uid: 0, euid: 0, gid: 0, egid: 42 });
    let records = [Record::Exec(exec), git()];
    let blind = |_: &mut Start, end: &mut End| end.witness = Witness::Counted(1);
    let actual = ruling("no-aws-cli", &records, blind);
    check(actual.clone(), Ruling::Inconclusive, "could not see the other 2");
    check(actual, Ruling::Inconclusive, "first at git (pid 11), which is setgid");
}

#[test]
fn the_ledger_alone_can_violate() {
    let spoil = |_: &mut Start, end: &mut End| {
        end.ledger.push(LedgerRow { file: file(AWS), execs: 1 });
        let row = end.counters.iter_mut().find(|row| row.kind == "exec").unwrap();
        (row.produced, row.lost) = (row.produced + 1, 1);
    };
    check(
        ruling("no-aws-cli", &[git()], spoil),
        Ruling::Violated,
        "ledger counts 1 execs of /usr/bin/aws",
    );
}

#[test]
fn a_hand_off_is_a_reason_unless_it_is_allowed() {
    let hand_off = |process| {
        Record::HandOff(HandOff {
            t_ns: 6,
            process,
            pid: 11,
            name: "cron".into(),
            via: "/etc/cron.d/x".into(),
            how: "it wrote there".into(),
        })
    };
    for policy in ["no-aws-cli", "no-shell-outs"] {
        let own = exec(CHILD, "/usr/bin/node", 1, &["node"]);
        for (process, who) in [(Some(CHILD), "node (pid 11)"), (None, "may be one of the tree's")] {
            let records = [own.clone(), hand_off(process)];
            let actual = ruling(policy, &records, |_, _| {});
            check(actual.clone(), Ruling::Inconclusive, who);
            check(actual, Ruling::Inconclusive, "cron (/etc/cron.d/x)");
        }
        let mut policy = load(policy).unwrap();
        policy.allow_hand_offs = vec!["cron".into()];
        let records = events(&[own, hand_off(Some(CHILD))]);
        let end = good_end(&records);
        let mut story = Story::new(start(&policy));
        for record in records.into_iter().chain([Record::End(Box::new(end))]) {
            story.add(record);
        }
        assert_eq!(judge(&story, &[policy]).unwrap().overall, Ruling::Proven);
    }
}

#[test]
fn a_process_is_called_by_what_it_ran_when_it_was_made() {
    const LATE: ProcessKey = ProcessKey { pid: 12, start_ns: 6 };
    let born = fork(6, CHILD, LATE);
    let Record::Exec(mut sleep) = exec(CHILD, "/usr/bin/sleep", 40, &["sleep", "1"]) else {
        unreachable!()
    };
    sleep.t_ns = 7;
    let hand_off = Record::HandOff(HandOff {
        t_ns: 8,
        process: Some(LATE),
        pid: LATE.pid,
        name: "cron".into(),
        via: "/etc/cron.d/x".into(),
        how: "it wrote there".into(),
    });
    let records = [git(), born, Record::Exec(sleep), hand_off, exit(LATE)];
    check(ruling("no-aws-cli", &records, |_, _| {}), Ruling::Inconclusive, "git (pid 12): it may");
}

#[test]
fn only_listed_files_may_run() {
    check(ruling("no-shell-outs", &[git()], |_, _| {}), Ruling::Violated, "not listed");
    let again = exec(CHILD, "/usr/bin/node", 1, &["node", "worker.js"]);
    check(ruling("no-shell-outs", &[again], |_, _| {}), Ruling::Proven, "");
    let disguised = exec(CHILD, "/usr/bin/node", 9, &["node"]);
    check(ruling("no-shell-outs", &[disguised], |_, _| {}), Ruling::Violated, "not listed");
}

#[test]
fn a_listed_file_whose_content_was_not_read_is_inconclusive() {
    let own = exec(CHILD, "/usr/bin/node", 1, &["node"]);
    let later = FileVersion { id: file(1), size_bytes: 1, ctime_ns: 0 };
    let unread = content(later, Err("it was changed between its execution and its reading"));
    let policy = load("no-shell-outs").unwrap();
    let mut story = Story::new(start(&policy));
    let records = events(&[own]);
    let end = good_end(&records);
    for record in records.into_iter().chain([unread, Record::End(Box::new(end))]) {
        story.add(record);
    }
    let claim = judge(&story, &[policy]).unwrap().claims.remove(0);
    let judged = (claim.ruling, claim.reasons.join("\n"));
    check(judged, Ruling::Inconclusive, "the executed file is not known: it was changed");
}

#[test]
fn a_listed_script_is_run_by_the_interpreter_of_its_first_line() {
    const INTERPRETER: u64 = 70;
    let judged = |executed: u64, known: Option<u64>| {
        let mut npm = exec(CHILD, "/usr/bin/npm", executed, &["node", "/usr/bin/npm"]);
        let Record::Exec(own) = &mut npm else { unreachable!() };
        own.script = Some(Script { interpreter: None, file: Some(script()) });
        let text = "name = 'x'\n[[claim]]\nkind = 'runs-only'\nprograms = ['@command', 'npm']";
        let policy = parse(text, "x.toml").unwrap();
        ruling_of(&policy, &[npm], |start, _| {
            let copy = known_copy("/usr/bin/npm", script().id);
            let copy = KnownCopy { interpreter: known.map(file), ..copy };
            start.known_programs.insert("npm".into(), vec![copy]);
        })
    };
    check(judged(INTERPRETER, Some(INTERPRETER)), Ruling::Proven, "");
    let other = "its first line did not lead";
    check(judged(INTERPRETER + 1, Some(INTERPRETER)), Ruling::Violated, other);
    check(judged(INTERPRETER, None), Ruling::Violated, other);
}

#[test]
fn words_alone_allow_no_other_file() {
    let text = "name = 'x'\n[[claim]]\nkind = 'runs-only'\nprograms = ['@command']\n\
                allow = [{ argv = ['git', 'status'] }]";
    let policy = parse(text, "x.toml").unwrap();
    let judged = |inode: u64| {
        let status = exec(CHILD, "/usr/bin/git", inode, &["git", "status"]);
        ruling_of(&policy, &[status], |start, _| {
            let copy = known_copy("/usr/bin/git", file(2));
            start.known_programs.insert("git".into(), vec![copy]);
        })
    };
    check(judged(2), Ruling::Proven, "");
    check(judged(3), Ruling::Violated, "not listed");
}

#[test]
fn an_allowed_argv_is_listed_and_does_not_violate() {
    let mut policy = load("no-aws-cli").unwrap();
    policy.claims[0].allow =
        vec![crate::policy::AllowedExec { argv: vec!["aws".into(), "--version".into()] }];
    let judge_argv = |argv: &[&str]| {
        let records = events(&[exec(CHILD, "/usr/bin/aws", AWS, argv)]);
        let end = good_end(&records);
        let mut story = Story::new(start(&policy));
        for record in records.into_iter().chain([Record::End(Box::new(end))]) {
            story.add(record);
        }
        judge(&story, std::slice::from_ref(&policy)).unwrap()
    };
    let verdict = judge_argv(&["/usr/bin/aws", "--version"]);
    assert_eq!(verdict.overall, Ruling::Proven);
    assert_eq!(verdict.claims[0].allowed.len(), 1);
    assert_eq!(judge_argv(&["aws", "--version", "s3"]).overall, Ruling::Violated);
}

/// `#!/usr/bin/env bash`: the kernel executes env with the script, and env executes bash with it.
#[test]
fn an_allowed_script_is_allowed_to_its_interpreter_too() {
    let mut policy = load("no-aws-cli").unwrap();
    policy.claims[0].allow =
        vec![crate::policy::AllowedExec { argv: vec!["aws".into(), "--version".into()] }];
    let by_env = |name: &str, argv: &[&str]| {
        let Record::Exec(mut exec) = exec(CHILD, "/usr/bin/env", 20, argv) else { unreachable!() };
        exec.filename = Some(name.into());
        let file = Some(ScriptFile { path: name.into(), ..script() });
        exec.script = Some(Script { interpreter: Some("/usr/bin/env".into()), file });
        Record::Exec(exec)
    };
    let shim = || by_env("/x/aws", &["/usr/bin/env", "bash", "/x/aws", "--version"]);
    let bash = |argv: &[&str]| exec(CHILD, "/usr/bin/bash", 21, argv);
    let judged = |records: &[Record]| ruling_of(&policy, records, |_, _| {});
    let passed_on = bash(&["bash", "/x/aws", "--version"]);
    check(judged(&[shim(), passed_on.clone()]), Ruling::Proven, "");
    check(judged(&[shim(), bash(&["bash", "-e", "/x/aws", "--version"])]), Ruling::Proven, "");
    let violated = |records: &[Record]| check(judged(records), Ruling::Violated, "runs aws");
    violated(std::slice::from_ref(&passed_on));
    violated(&[shim(), bash(&["bash", "/x/aws", "s3"])]);
    let module = &["python3", "-mawscli", "/x/aws", "--version"];
    violated(&[shim(), exec(CHILD, "/usr/bin/python3", 21, module)]);
    violated(&[shim(), bash(&["bash", "/y/aws", "--version"])]);
    violated(&[shim(), bash(&["bash", "/y/aws", "/x/aws", "--version"])]);
    violated(&[shim(), git(), passed_on.clone()]);
    violated(&[shim(), exec(CHILD, "/usr/bin/aws", AWS, &["bash", "/x/aws", "--version"])]);
    violated(&[shim(), exec(CHILD, "/usr/bin/bash", 21, &["aws", "/x/aws", "--version"])]);
    let other = by_env("/x/other", &["/usr/bin/env", "bash", "/x/other"]);
    violated(&[other, passed_on]);
}

#[test]
fn what_the_kernel_is_told_to_kill() {
    let policy = load("no-aws-cli").unwrap();
    let mut start = start(&policy);
    let rules = crate::policy::rules;
    let (files, names) = rules(&start);
    assert_eq!(files, [file(AWS)]);
    assert!(names.contains(&"aws".to_owned()));
    // The file of a shim is that of other programs too.
    start.known_programs.get_mut("aws").unwrap()[0].multi_call = true;
    assert!(rules(&start).0.is_empty());
    assert!(crate::policy::can_enforce(&[load("no-shell-outs").unwrap()]).is_err());
}

fn mapped(found: Result<FileVersion, String>) -> Record {
    let id = found.as_ref().map_or(file(5), |version| version.id);
    Record::Mapped(Mapped {
        t_ns: 6,
        process: CHILD,
        files: vec![MappedFile::new("/tmp/x.so".into(), id, found)],
    })
}

#[test]
fn code_that_is_mapped_is_judged_by_inode_size_and_content() {
    let version = |inode, size_bytes| FileVersion { id: file(inode), size_bytes, ctime_ns: 0 };
    // No copy of another size is known, so its content does not matter.
    let sized = |start: &mut Start, _: &mut End| {
        start.known_programs.get_mut("aws").unwrap()[0].size_bytes = Some(1);
    };
    let check_mapped = |found, expected, words: &str| {
        check(ruling("no-aws-cli", &[mapped(found)], sized), expected, words);
    };
    check_mapped(Ok(version(5, 2)), Ruling::Proven, "");
    check_mapped(Ok(version(5, 1)), Ruling::Inconclusive, "whether that is aws is not known");
    check_mapped(
        Ok(version(AWS, 1)),
        Ruling::Inconclusive,
        "which is aws (/usr/bin/aws, the same file)",
    );
    check_mapped(Err("gone".into()), Ruling::Inconclusive, "not known: gone");
    let lost = |_: &mut Start, end: &mut End| end.maps = Some(MapsWatched::Lost(3));
    check(ruling("no-aws-cli", &[git()], lost), Ruling::Inconclusive, "3 records of executable");
    let absent = |_: &mut Start, end: &mut End| end.maps = Some(MapsWatched::Absent("no".into()));
    check(ruling("no-aws-cli", &[git()], absent), Ruling::Inconclusive, "as code is unknown: no");
}
