//! Verdicts over made-up stories: one per way in which `proven` must not come out.

mod attempts;
mod callers;
mod completeness;
mod connections;
mod credentials;
mod paths;
mod programs;
mod settled;

use std::collections::BTreeMap;

use super::{Policy, Ruling, judge, load};
use crate::{
    model::{Bytes, Device, FileId, FileVersion, ProcessKey},
    record::schema::*,
    session::Story,
};

pub(in crate::policy) const ROOT: ProcessKey = ProcessKey { pid: 10, start_ns: 1 };
pub(in crate::policy) const CHILD: ProcessKey = ProcessKey { pid: 11, start_ns: 2 };
pub(in crate::policy) const AWS: u64 = 77;

pub(in crate::policy) fn file(inode: u64) -> FileId {
    FileId { device: Device::new(8, 1), inode }
}

pub(crate) fn exec(process: ProcessKey, path: &str, inode: u64, argv: &[&str]) -> Record {
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
        found: false,
        killed: false,
        memfd: false,
        unlinked: false,
        witness_detached: false,
        credentials: None,
        environment: None,
        stdio: None,
        cgroup_id: 1,
        ns_pid: None,
        pid_ns_inum: None,
        unread: Vec::new(),
    }))
}

pub(crate) fn fork(t_ns: u64, process: ProcessKey, child: ProcessKey) -> Record {
    Record::Fork(Fork {
        t_ns,
        process,
        child,
        child_ns_pid: None,
        child_parent_pid: None,
        untracked: false,
        unread: Vec::new(),
    })
}

pub(in crate::policy) fn exit(process: ProcessKey) -> Record {
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
pub(in crate::policy) fn events(child: &[Record]) -> Vec<Record> {
    let mut records = vec![
        Record::Root(Root {
            t_ns: 1,
            process: ROOT,
            ns_pid: None,
            parent_pid: None,
            unread: Vec::new(),
        }),
        exec(ROOT, "/usr/bin/node", 1, &["node"]),
        fork(2, ROOT, CHILD),
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

pub(in crate::policy) fn script() -> ScriptFile {
    ScriptFile { id: file(60), size_bytes: 1, ctime_ns: 0, path: "/tmp/x".into() }
}

pub(in crate::policy) fn content(version: FileVersion, result: Result<&str, &str>) -> Record {
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
        credentials: None,
        files: None,
        hosts: Vec::new(),
        checks: Some(Checks { made: 1, failure: None }),
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

/// A program that was found at the start, a binary of one name.
fn known_copy(path: &str, file: FileId) -> KnownCopy {
    KnownCopy {
        path: path.into(),
        file,
        multi_call: false,
        only_forbids: false,
        interpreter: None,
        size_bytes: None,
    }
}

pub(crate) fn start(policy: &Policy) -> Start {
    Start {
        schema: SCHEMA,
        tracer: "test".into(),
        t_ns: 0,
        wall_offset_ns: 0,
        host: Host {
            addresses: Vec::new(),
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
        sensors: [
            "attempts",
            "local-sends",
            "intrusions",
            "datagrams",
            "cgroup-moves",
            "odd-sockets",
            "other-sockets",
            "foreign-sends",
        ]
        .map(sensor)
        .into(),
        inherited_sockets: Vec::new(),
        inherited_network_sockets: Vec::new(),
        enforced: false,
        policies: vec![policy.clone()],
        catalogue: None,
        endpoints: None,
        known_programs: BTreeMap::from([(
            "aws".to_owned(),
            vec![known_copy("/usr/bin/aws", file(AWS))],
        )]),
        known_paths: BTreeMap::new(),
        known_folders: Vec::new(),
        known_packages: BTreeMap::new(),
        interpreters: Vec::new(),
        credentials: None,
        mcp_servers: Vec::new(),
        files: None,
        part_bytes: None,
        attached: None,
        cgroup: None,
    }
}

/// Judges the events with an end that `spoil` may change, and returns the ruling and all reasons.
pub(in crate::policy) fn ruling(
    policy: &str,
    child: &[Record],
    spoil: impl FnOnce(&mut Start, &mut End),
) -> (Ruling, String) {
    ruling_of(&load(policy).unwrap(), child, spoil)
}

/// With the contacts that the records have.
pub(in crate::policy) fn ruling_of(
    policy: &Policy,
    child: &[Record],
    spoil: impl FnOnce(&mut Start, &mut End),
) -> (Ruling, String) {
    let records = events(child);
    let mut end = good_end(&records);
    let mut start = start(policy);
    spoil(&mut start, &mut end);
    let mut story = Story::new(start);
    for record in records.into_iter().chain([Record::End(Box::new(end))]) {
        story.add(record);
    }
    let verdict = judge(&story, std::slice::from_ref(policy)).unwrap();
    let claim = &verdict.claims[0];
    let mut text = claim.reasons.clone();
    text.extend(claim.violations.iter().map(|violation| violation.detail.clone()));
    (verdict.overall, text.join("\n"))
}

pub(in crate::policy) fn git() -> Record {
    exec(CHILD, "/usr/bin/git", 2, &["git", "status"])
}

#[track_caller]
pub(in crate::policy) fn check(actual: (Ruling, String), ruling: Ruling, words: &str) {
    assert_eq!(actual.0, ruling, "{}", actual.1);
    assert!(actual.1.contains(words), "`{words}` is not in:\n{}", actual.1);
}
