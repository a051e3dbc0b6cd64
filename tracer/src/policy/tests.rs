//! Verdicts over made-up stories: one per way in which `proven` must not come out.

use std::collections::BTreeMap;

use super::{Policy, Ruling, judge, load};
use crate::{
    model::{Bytes, Device, FileId, FileVersion, ProcessKey},
    record::schema::*,
    session::Story,
};

pub(super) const ROOT: ProcessKey = ProcessKey { pid: 10, start_ns: 1 };
pub(super) const CHILD: ProcessKey = ProcessKey { pid: 11, start_ns: 2 };
pub(super) const AWS: u64 = 77;

pub(super) fn file(inode: u64) -> FileId {
    FileId { device: Device::new(8, 1), inode }
}

pub(super) fn exec(process: ProcessKey, path: &str, inode: u64, argv: &[&str]) -> Record {
    Record::Exec(Box::new(Exec {
        t_ns: 5,
        process,
        thread: None,
        filename: Some(path.into()),
        argv: Argv {
            args: argv.iter().map(|arg| Bytes::from(*arg)).collect(),
            total_bytes: 0,
            complete: true,
        },
        cwd: Some("/".into()),
        file: Some(ExecutedFile {
            path: Some(path.into()),
            path_cut: false,
            device: Device::new(8, 1),
            inode,
            size_bytes: 1,
            mtime_ns: 0,
            ctime_ns: 0,
            mode: 0o100_755,
        }),
        script: None,
        killed: false,
        memfd: false,
        unlinked: false,
        witness_detached: false,
        credentials: None,
        cgroup_id: 1,
        ns_pid: None,
        pid_ns_inum: None,
        unread: Vec::new(),
    }))
}

fn exit(process: ProcessKey) -> Record {
    Record::Exit(Exit {
        t_ns: 9,
        process,
        code: Some(0),
        signal: None,
        duration_ns: 8,
        execs: None,
        unread: Vec::new(),
    })
}

/// A command that starts one child, which executes what the test says.
pub(super) fn events(child: &[Record]) -> Vec<Record> {
    let mut records = vec![
        Record::Root(Root {
            t_ns: 1,
            process: ROOT,
            ns_pid: None,
            parent_pid: None,
            unread: Vec::new(),
        }),
        exec(ROOT, "/usr/bin/node", 1, &["node"]),
        Record::Fork(Fork {
            t_ns: 2,
            process: ROOT,
            child: CHILD,
            child_ns_pid: None,
            child_parent_pid: None,
            untracked: false,
            unread: Vec::new(),
        }),
    ];
    records.extend_from_slice(child);
    records.extend([exit(CHILD), exit(ROOT)]);
    count_execs(&mut records);
    // Every executed file was read; its content is as different as its inode.
    let contents: Vec<Record> = records
        .iter()
        .filter_map(|record| {
            let Record::Exec(exec) = record else { return None };
            Some(exec.file.as_ref()?.version())
        })
        .chain([script().version(), AWS_VERSION])
        .map(|version| content(version, Ok(&version.id.inode.to_string())))
        .collect();
    records.extend(contents);
    records
}

/// Has the kernel's own counts agree.
fn count_execs(records: &mut [Record]) {
    let mut counts: BTreeMap<ProcessKey, u32> = BTreeMap::new();
    for record in records {
        if let Record::Exec(exec) = record {
            *counts.entry(exec.process).or_default() += 1;
        } else if let Record::Exit(exit) = record {
            exit.execs = Some(counts.get(&exit.process).copied().unwrap_or(0));
        }
    }
}

const AWS_VERSION: FileVersion = FileVersion {
    id: FileId { device: Device(8 << 20 | 1), inode: AWS },
    size_bytes: 1,
    ctime_ns: 0,
};

fn script() -> ScriptFile {
    ScriptFile { id: file(60), size_bytes: 1, ctime_ns: 0, path: "/tmp/x".into() }
}

pub(super) fn content(version: FileVersion, result: Result<&str, &str>) -> Record {
    Record::Content(Content {
        file: version.id,
        size_bytes: version.size_bytes,
        ctime_ns: version.ctime_ns,
        sha256: result.ok().map(str::to_owned),
        unread: result.err().map(str::to_owned),
    })
}

/// An end that agrees with the events in everything.
pub(crate) fn good_end(records: &[Record]) -> End {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ledger: BTreeMap<FileId, u64> = BTreeMap::new();
    for record in records {
        if !matches!(record, Record::Content(_)) {
            *counts.entry(record.name()).or_default() += 1;
        }
        if let Record::Exec(exec) = record
            && let Some(file) = &exec.file
        {
            *ledger.entry(file.id()).or_default() += 1;
        }
    }
    let seen = ["root", "fork", "exec", "exit", "connect", "connect-result"];
    let canary = |phase| Canary {
        phase,
        seen: seen.iter().map(|kind| ((*kind).to_owned(), true)).collect(),
        failed: None,
    };
    End {
        t_ns: 10,
        command_status: CommandStatus::Exited(0),
        interrupted: false,
        counters: counts
            .iter()
            .map(|(kind, count)| CounterRow {
                cpu: 0,
                kind: (*kind).to_owned(),
                produced: *count,
                lost: 0,
                read: *count,
            })
            .collect(),
        canary_events: BTreeMap::new(),
        faults: BTreeMap::new(),
        skipped_runs: BTreeMap::new(),
        damaged_records: 0,
        witness: Witness::Counted(counts.get("exec").copied().unwrap_or(0)),
        canaries: vec![canary(CanaryPhase::Start), canary(CanaryPhase::End)],
        ledger: ledger.into_iter().map(|(file, execs)| LedgerRow { file, execs }).collect(),
        survivors: Vec::new(),
        maps: None,
        files: None,
        hosts: Vec::new(),
        verdict: None,
    }
}

fn sensor(name: &str) -> SensorState {
    SensorState {
        sensor: name.into(),
        hook: "test".into(),
        cannot_see: String::new(),
        tax: String::new(),
        missing: None,
    }
}

pub(crate) fn start(policy: &Policy) -> Start {
    Start {
        schema: SCHEMA,
        tracer: "test".into(),
        t_ns: 0,
        wall_offset_ns: 0,
        host: Host {
            name: "h".into(),
            kernel: "k".into(),
            machine: "m".into(),
            boot_id: "b".into(),
            cpus: 1,
        },
        command: vec!["node".into()],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        armed_before_first_instruction: true,
        sensors: ["attempts", "local-sends", "intrusions"].map(sensor).into(),
        inherited_sockets: Vec::new(),
        enforced: false,
        policies: vec![policy.clone()],
        catalogue: None,
        endpoints: None,
        known_programs: BTreeMap::from([(
            "aws".to_owned(),
            vec![KnownCopy {
                path: "/usr/bin/aws".into(),
                file: file(AWS),
                multi_call: false,
                only_forbids: false,
                size_bytes: None,
            }],
        )]),
        known_packages: BTreeMap::new(),
        interpreters: Vec::new(),
        files: None,
    }
}

/// Judges the events with an end that `spoil` may change, and returns the ruling and all reasons.
pub(super) fn ruling(
    policy: &str,
    child: &[Record],
    spoil: impl FnOnce(&mut Start, &mut End),
) -> (Ruling, String) {
    let policy = load(policy).unwrap();
    let records = events(child);
    let mut end = good_end(&records);
    let mut start = start(&policy);
    spoil(&mut start, &mut end);
    let mut story = Story::new(start);
    for record in records.into_iter().chain([Record::End(Box::new(end))]) {
        story.add(record);
    }
    let verdict = judge(&story, &[policy]).unwrap();
    let claim = &verdict.claims[0];
    let mut text = claim.reasons.clone();
    text.extend(claim.violations.iter().map(|violation| violation.detail.clone()));
    (verdict.overall, text.join("\n"))
}

pub(super) fn git() -> Record {
    exec(CHILD, "/usr/bin/git", 2, &["git", "status"])
}

#[track_caller]
pub(super) fn check(actual: (Ruling, String), ruling: Ruling, words: &str) {
    assert_eq!(actual.0, ruling, "{}", actual.1);
    assert!(actual.1.contains(words), "`{words}` is not in:\n{}", actual.1);
}

#[test]
fn a_complete_recording_without_the_program_is_proven() {
    check(ruling("no-aws-cli", &[git()], |_, _| {}), Ruling::Proven, "");
}

#[test]
fn every_gap_makes_it_inconclusive_and_says_so() {
    let gap = |spoil: fn(&mut Start, &mut End), words: &str| {
        check(ruling("no-aws-cli", &[git()], spoil), Ruling::Inconclusive, words);
    };
    gap(|start, _| start.armed_before_first_instruction = false, "before the probes were attached");
    gap(|_, end| end.counters[0].lost = 1, "were lost");
    gap(|_, end| end.counters[0].produced += 1, "CPU 0 produced");
    gap(|_, end| (end.counters[0].produced, end.counters[0].read) = (9, 9), "the recording has");
    gap(|_, end| end.faults.extend([("tree-insert".into(), 2)]), "could not be tracked");
    gap(|_, end| end.damaged_records = 1, "could not be decoded");
    gap(|_, end| end.skipped_runs.extend([("exec".into(), 3)]), "skipped 3 runs of the probe exec");
    gap(|_, end| end.witness = Witness::Counted(3), "counter saw 3 execs");
    gap(|_, end| end.witness = Witness::Absent("no tracefs".into()), "no tracefs");
    gap(|_, end| end.canaries.truncate(1), "no canary ran at the end");
    gap(|_, end| end.canaries[0].failed = Some("x".into()), "canary at the start failed");
    gap(|_, end| end.canaries[1].seen.extend([("exec".into(), false)]), "does not fire");
    gap(|_, end| end.ledger[0].execs += 1, "was executed 2 times and recorded 1 times");
    gap(|_, end| end.ledger.truncate(1), "ledger has 1 execs, the recording 2");
    gap(|_, end| end.interrupted = true, "interrupted");
    gap(|_, end| end.survivors.push(CHILD), "listed as still running");
    gap(
        |_, end| end.command_status = CommandStatus::NotStarted("x".into()),
        "could not be started",
    );
}

/// An exec that neither a record nor a counter of the probes has: the kernel's number of images does.
#[test]
fn an_exec_that_no_probe_saw_is_inconclusive() {
    let mut exit = exit(CHILD);
    if let Record::Exit(exit) = &mut exit {
        exit.execs = Some(2);
    }
    let mut records = events(&[git()]);
    let own = |record: &Record| matches!(record, Record::Exit(exit) if exit.process == CHILD);
    let place = records.iter().position(own).unwrap();
    records[place] = exit;
    let policy = load("no-aws-cli").unwrap();
    let mut story = Story::new(start(&policy));
    let end = good_end(&records);
    for record in records {
        story.add(record);
    }
    story.add(Record::End(Box::new(end)));
    let verdict = judge(&story, &[policy]).unwrap();
    assert_eq!(verdict.overall, Ruling::Inconclusive);
    let reasons = verdict.claims[0].reasons.join("\n");
    assert!(reasons.contains("2 execs by git (pid"), "{reasons}");
    assert!(reasons.contains("recorded 1"), "{reasons}");
}

#[test]
fn loss_of_connections_does_not_touch_claims_over_programs() {
    let spoil = |_: &mut Start, end: &mut End| {
        end.counters.push(CounterRow {
            cpu: 0,
            kind: "connect".into(),
            produced: 1,
            lost: 1,
            read: 0,
        });
        end.skipped_runs.insert("sock_state".into(), 1);
    };
    check(ruling("no-aws-cli", &[git()], spoil), Ruling::Proven, "");
}

#[test]
fn a_missing_end_is_inconclusive() {
    let policy = load("no-aws-cli").unwrap();
    let mut story = Story::new(start(&policy));
    events(&[git()]).into_iter().for_each(|record| story.add(record));
    let verdict = judge(&story, &[policy]).unwrap();
    assert_eq!(verdict.overall, Ruling::Inconclusive);
    assert!(verdict.claims[0].reasons[0].contains("no end record"));
}

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
    violated(interpreter("/usr/bin/bash", &["bash", "-e", "/opt/aws", "s3"]), "was given");
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
    unclear(&["bash", "-o", "posix", "/opt/aws"], "may run aws");
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
    // A shim shares its content with those of other programs: what it hands over to counts.
    let shim = |start: &mut Start| {
        start.known_programs.get_mut("aws").unwrap()[0].multi_call = true;
    };
    let then = |argv: &[&str]| {
        let Record::Exec(mut exec) = exec(CHILD, "/usr/bin/pip", 30, argv) else { unreachable!() };
        exec.t_ns += 1;
        let content = content(exec.file.as_ref().unwrap().version(), Ok("30"));
        [same.clone(), Record::Exec(exec), content]
    };
    let unclear = "did not hand over";
    check(judged(std::slice::from_ref(&same), shim), Ruling::Inconclusive, unclear);
    check(judged(&then(&["pip", "/tmp/x"]), shim), Ruling::Inconclusive, unclear);
    check(judged(&then(&["pip", "list"]), shim), Ruling::Proven, "");
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
    let records = [Record::Exec(exec), git()];
    let blind = |_: &mut Start, end: &mut End| end.witness = Witness::Counted(1);
    check(ruling("no-aws-cli", &records, blind), Ruling::Inconclusive, "could not see the other 2");
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
fn only_listed_files_may_run() {
    check(ruling("no-shell-outs", &[git()], |_, _| {}), Ruling::Violated, "not listed");
    let again = exec(CHILD, "/usr/bin/node", 1, &["node", "worker.js"]);
    check(ruling("no-shell-outs", &[again], |_, _| {}), Ruling::Proven, "");
    let disguised = exec(CHILD, "/usr/bin/node", 9, &["node"]);
    check(ruling("no-shell-outs", &[disguised], |_, _| {}), Ruling::Violated, "not listed");
}

#[test]
fn an_allowed_argv_is_listed_and_does_not_violate() {
    let mut policy = load("no-aws-cli").unwrap();
    policy.claims[0].allow =
        vec![super::AllowedExec { argv: vec!["aws".into(), "--version".into()] }];
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

fn attempt(filenames: &[&str], argv: &[&str]) -> Record {
    Record::Attempt(Attempt {
        t_ns: 4,
        last_t_ns: 4,
        process: CHILD,
        thread: CHILD.pid,
        filenames: filenames.iter().map(|name| Bytes::from(*name)).collect(),
        filename_cut: false,
        argv: argv.iter().map(|arg| Bytes::from(*arg)).collect(),
        argv_complete: true,
        tries: 1,
        errno: 2,
        error: "ENOENT".into(),
        unread: Vec::new(),
    })
}

#[test]
fn a_failed_exec_violates_where_the_policy_says_so() {
    let tried = attempt(&["/usr/local/bin/aws", "/bin/aws"], &["aws", "s3", "ls"]);
    let words =
        "tried to run aws: /usr/local/bin/aws and 1 more names could not be executed: ENOENT";
    check(ruling("no-aws-cli", std::slice::from_ref(&tried), |_, _| {}), Ruling::Violated, words);
    let other = attempt(&["/bin/git"], &["git"]);
    check(ruling("no-aws-cli", std::slice::from_ref(&other), |_, _| {}), Ruling::Proven, "");
    let renamed = attempt(&["/bin/git"], &["aws"]);
    check(ruling("no-aws-cli", &[renamed], |_, _| {}), Ruling::Violated, "tried to run aws");
    check(ruling("no-shell-outs", &[other], |_, _| {}), Ruling::Violated, "not listed");
    let own = attempt(&["/opt/node"], &["node"]);
    check(ruling("no-shell-outs", &[own], |_, _| {}), Ruling::Proven, "");
}

#[test]
fn a_search_along_path_that_found_the_program_is_no_attempt() {
    let search = attempt(&["/usr/local/bin/git"], &["git", "status"]);
    let found = [search, git()];
    check(ruling("no-aws-cli", &found, |_, _| {}), Ruling::Proven, "");
    // What it found is judged, and what it had tried is not counted on top.
    check(ruling("no-shell-outs", &found, |_, _| {}), Ruling::Violated, "runs /usr/bin/git");
}

#[test]
fn failed_execs_that_could_not_be_watched_are_a_reason() {
    let unwatched = |start: &mut Start, _: &mut End| start.sensors.clear();
    check(ruling("no-aws-cli", &[git()], unwatched), Ruling::Inconclusive, "were not watched");
    let missing =
        |start: &mut Start, _: &mut End| start.sensors[0].missing = Some("no hook".into());
    check(ruling("no-aws-cli", &[git()], missing), Ruling::Inconclusive, "watched: no hook");
}

#[test]
fn an_allowed_attempt_is_listed_and_does_not_violate() {
    let mut policy = load("no-aws-cli").unwrap();
    policy.claims[0].allow =
        vec![super::AllowedExec { argv: vec!["aws".into(), "--version".into()] }];
    let records = events(&[attempt(&["/bin/aws"], &["aws", "--version"])]);
    let end = good_end(&records);
    let mut story = Story::new(start(&policy));
    for record in records.into_iter().chain([Record::End(Box::new(end))]) {
        story.add(record);
    }
    let verdict = judge(&story, std::slice::from_ref(&policy)).unwrap();
    assert_eq!(verdict.overall, Ruling::Proven, "{:?}", verdict.claims);
    assert_eq!(verdict.claims[0].allowed.len(), 1);
}

#[test]
fn what_the_kernel_is_told_to_kill() {
    let policy = load("no-aws-cli").unwrap();
    let mut start = start(&policy);
    let rules = super::rules;
    let (files, names) = rules(&start);
    assert_eq!(files, [file(AWS)]);
    assert!(names.contains(&"aws".to_owned()));
    // The file of a shim is that of other programs too.
    start.known_programs.get_mut("aws").unwrap()[0].multi_call = true;
    assert!(rules(&start).0.is_empty());
    assert!(super::can_enforce(&[load("no-shell-outs").unwrap()]).is_err());
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
