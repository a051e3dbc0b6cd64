//! What opens of a program's files, and gaps in watching them, mean for a claim.
//!
//! tracer sees that a file was read, not what was done with it: an interpreter may have run it, `cp`
//! may have copied it. So an open is a reason for `inconclusive`, unless an exec explains it that is
//! judged anyway.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    Claim, ClaimKind, Policy,
    identity::{Match, runs},
};
use crate::{
    model::ProcessKey,
    record::schema::{Exec, Opened, OpenedWhat, Watched},
    session::Story,
};

/// Every reason that opened files give for a claim.
pub(super) fn reasons(story: &Story, policy: &Policy, claim: &Claim) -> Vec<String> {
    let mut reasons = unknown(story, claim);
    reasons.extend(gaps(story, policy, claim));
    match claim.kind {
        ClaimKind::NeverRuns => reasons.extend(opens(story, claim)),
        ClaimKind::RunsOnly
        | ClaimKind::ConnectsOnlyTo
        | ClaimKind::NeverConnectsTo
        | ClaimKind::CredentialsInProcess => {}
    }
    reasons
}

/// Programs that were not looked for when tracing started, because another policy was in force.
fn unknown(story: &Story, claim: &Claim) -> Vec<String> {
    let programs = claim.programs.iter().filter(|program| !program.starts_with('@'));
    programs
        .filter(|program| !story.start.known_programs.contains_key(*program))
        .map(|program| {
            format!(
                "{program}: the recording was made without a claim over it, so it is not known \
                 which of the machine's files it is; trace again with this policy"
            )
        })
        .collect()
}

fn gaps(story: &Story, policy: &Policy, claim: &Claim) -> Vec<String> {
    let concerns = |of: &Watched| match (of, claim.kind) {
        (Watched::Program(name), ClaimKind::NeverRuns) => claim.programs.contains(name),
        // Opens say nothing about a claim over what is executed, or over connections.
        (
            Watched::Program(_),
            ClaimKind::RunsOnly
            | ClaimKind::ConnectsOnlyTo
            | ClaimKind::NeverConnectsTo
            | ClaimKind::CredentialsInProcess,
        ) => false,
        (Watched::HandOff(name), _) => !policy.allow_hand_offs.contains(name),
    };
    let gaps = story.start.files.iter().flat_map(|files| &files.gaps);
    gaps.filter(|gap| concerns(&gap.of)).map(|gap| format!("files: {}", gap.why)).collect()
}

/// Opens that no exec explains, one line for each process and program.
fn opens(story: &Story, claim: &Claim) -> Vec<String> {
    type Group<'a> = (Option<ProcessKey>, &'a str, bool, OpenedWhat);
    let mut groups: Vec<(Group<'_>, &Opened, usize)> = Vec::new();
    let mut index: BTreeMap<_, usize> = BTreeMap::new();
    for opened in &story.opened {
        for program in &opened.programs {
            if !claim.programs.contains(program) || explained(story, opened, program) {
                continue;
            }
            let group = (opened.process, program.as_str(), opened.to_execute, opened.what);
            match index.entry(group) {
                Entry::Occupied(at) => groups[*at.get()].2 += 1,
                Entry::Vacant(room) => {
                    room.insert(groups.len());
                    groups.push((group, opened, 1));
                }
            }
        }
    }
    groups
        .into_iter()
        .map(|((_, program, ..), first, count)| words(story, program, first, count))
        .collect()
}

fn words(story: &Story, program: &str, first: &Opened, count: usize) -> String {
    let who = match first.process {
        Some(process) => story.label(process),
        None => "a process that may be one of the tree's".into(),
    };
    let path = first.path.lossy();
    let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
    let what = match first.what {
        OpenedWhat::Copy => format!("{path}{more}, which is {program}"),
        OpenedWhat::Module => format!("{path}{more} among the modules of {program}"),
    };
    if first.inherited {
        format!("{who}: it was started with {what}, open; what it did with it is not seen")
    } else if first.to_execute && first.process.is_none() {
        // An exec that followed may well be in the recording.
        format!("{who}: it opened {what}, to execute it; which process that was is not known")
    } else if first.to_execute {
        format!("{who}: it opened {what}, to execute it, and no exec of it followed")
    } else {
        format!("{who}: it opened {what}; tracer sees that it was read, not what was done with it")
    }
}

/// Whether the process ran the program, or the very file, when it opened it: that exec is judged,
/// and what a program reads of itself says nothing more.
fn explained(story: &Story, opened: &Opened, program: &str) -> bool {
    let runs_it = |exec: &Exec| {
        let script = exec.script.as_ref().and_then(|script| Some(script.file.as_ref()?.id));
        let files = [script, exec.file.as_ref().map(|file| file.id())];
        let copies = story.start.known_programs.get(program).map_or(&[][..], Vec::as_slice);
        (opened.file.is_some() && files.contains(&opened.file))
            || matches!(runs(exec, program, copies, story), Some(Match::Runs(_)))
    };
    let (mut after_ns, mut until_ns) = (opened.after_ns, opened.t_ns);
    let mut at = opened.process;
    while let Some(process) = at.and_then(|at| story.processes.get(&at)) {
        let execs = &process.execs;
        let before = execs.iter().rev().find(|exec| exec.t_ns <= after_ns);
        let during = execs.iter().filter(|exec| exec.t_ns > after_ns && exec.t_ns <= until_ns);
        // The kernel opens the file first and reports the exec when it has come about.
        let next = execs.iter().find(|exec| exec.t_ns > until_ns).filter(|_| opened.to_execute);
        let mut candidates = before.into_iter().chain(during).chain(next).peekable();
        if candidates.peek().is_some() {
            // Who was made between the open and the exec has what was opened, and not that program.
            let passed_on = |exec: &Exec| {
                let mut children =
                    process.children.iter().filter_map(|key| story.processes.get(key));
                children.any(|child| child.born_ns > after_ns && child.born_ns <= exec.t_ns)
            };
            return candidates.any(|exec| runs_it(exec) && !passed_on(exec));
        }
        // It still ran the program of the process that made it.
        (after_ns, until_ns) = (process.born_ns, process.born_ns);
        at = process.creator;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::{Ruling, judge, load, tests::*};
    use crate::{model::ProcessKey, record::schema::*};

    fn opened(t_ns: u64, after_ns: u64) -> Opened {
        Opened {
            t_ns,
            after_ns,
            process: Some(CHILD),
            pid: CHILD.pid,
            what: OpenedWhat::Copy,
            programs: vec!["aws".into()],
            to_execute: false,
            inherited: false,
            file: Some(file(AWS)),
            path: "/usr/bin/aws".into(),
        }
    }

    fn at(record: Record, t_ns: u64) -> Record {
        let Record::Exec(mut exec) = record else { unreachable!() };
        exec.t_ns = t_ns;
        Record::Exec(exec)
    }

    fn watched(start: &mut Start, end: &mut End) {
        start.files = Some(FileWatch::default());
        end.files = Some(FileEvents::default());
    }

    fn opens(open: Opened) -> (Ruling, String) {
        ruling("no-aws-cli", &[git(), Record::Opened(open)], watched)
    }

    #[test]
    fn an_open_that_no_exec_explains_is_a_reason() {
        check(opens(opened(7, 6)), Ruling::Inconclusive, "git (pid 11): it opened /usr/bin/aws");
        check(opens(opened(7, 6)), Ruling::Inconclusive, "not what was done with it");
        let nobody = Opened { process: None, ..opened(7, 6) };
        check(opens(nobody), Ruling::Inconclusive, "may be one of the tree's");
        let executes = Opened { process: None, to_execute: true, ..opened(7, 6) };
        check(opens(executes), Ruling::Inconclusive, "which process that was is not known");
        let failed = Opened { to_execute: true, ..opened(7, 6) };
        check(opens(failed), Ruling::Inconclusive, "no exec of it followed");
        let inherited = Opened { inherited: true, ..opened(7, 6) };
        check(opens(inherited), Ruling::Inconclusive, "it was started with /usr/bin/aws");
        let other = Opened { programs: vec!["gcloud".into()], ..opened(7, 6) };
        check(opens(other), Ruling::Proven, "");
    }

    #[test]
    fn many_files_are_one_reason() {
        let module = |name: &str| {
            let path = format!("/lib/awscli/{name}").as_str().into();
            Record::Opened(Opened { what: OpenedWhat::Module, path, file: None, ..opened(7, 6) })
        };
        let records = [git(), module("a.py"), module("b.py"), module("c.py")];
        let (ruling, text) = ruling("no-aws-cli", &records, watched);
        assert_eq!((ruling, text.lines().count()), (Ruling::Inconclusive, 1), "{text}");
        assert!(text.contains("/lib/awscli/a.py and 2 more among the modules of aws"), "{text}");
    }

    /// The ruling when `aws --version` is allowed and executed at 5 ns.
    fn allowed(records: &[Record]) -> (Ruling, String) {
        let mut policy = load("no-aws-cli").unwrap();
        let argv = vec!["aws".into(), "--version".into()];
        policy.claims[0].allow = vec![super::super::AllowedExec { argv }];
        let aws = exec(CHILD, "/usr/bin/aws", AWS, &["aws", "--version"]);
        let mut all = vec![at(aws, 5)];
        all.extend_from_slice(records);
        let records = events(&all);
        let (mut start, mut end) = (start(&policy), good_end(&records));
        watched(&mut start, &mut end);
        let mut story = crate::session::Story::new(start);
        for record in records.into_iter().chain([Record::End(Box::new(end))]) {
            story.add(record);
        }
        let verdict = judge(&story, &[policy]).unwrap();
        (verdict.overall, verdict.claims[0].reasons.join("\n"))
    }

    #[test]
    fn an_allowed_exec_explains_what_it_opens_and_nothing_else() {
        let open = |t_ns, after_ns| Record::Opened(opened(t_ns, after_ns));
        check(allowed(&[open(8, 6)]), Ruling::Proven, "");
        check(allowed(&[open(8, 4)]), Ruling::Proven, "");
        check(allowed(&[open(4, 3)]), Ruling::Inconclusive, "it opened");
        let to_execute = Record::Opened(Opened { to_execute: true, ..opened(4, 3) });
        check(allowed(&[to_execute]), Ruling::Proven, "");
        let module =
            Opened { what: OpenedWhat::Module, file: None, path: "/m".into(), ..opened(8, 6) };
        check(allowed(&[Record::Opened(module)]), Ruling::Proven, "");
        // Another program in the same process reads it afterwards.
        let later = at(exec(CHILD, "/usr/bin/python3", 4, &["python3", "x.py"]), 7);
        check(allowed(&[later, open(9, 8)]), Ruling::Inconclusive, "it opened");
        // Another process does.
        let other = Opened { process: Some(ROOT), ..opened(8, 6) };
        check(allowed(&[Record::Opened(other)]), Ruling::Inconclusive, "it opened");
    }

    /// Files that are open are inherited.
    #[test]
    fn an_exec_does_not_explain_what_a_child_has_open() {
        const LATE: ProcessKey = ProcessKey { pid: 12, start_ns: 4 };
        // Read after 3 and no later than at 8; executed at 5.
        let born =
            |t_ns| allowed(&[fork(t_ns, CHILD, LATE), Record::Opened(opened(8, 3)), exit(LATE)]);
        check(born(7), Ruling::Proven, "");
        check(born(4), Ruling::Inconclusive, "it opened");
    }

    #[test]
    fn gaps_and_losses_are_reasons() {
        let gap = |of: Watched| {
            let spoil = |start: &mut Start, end: &mut End| {
                watched(start, end);
                let gaps = vec![WatchGap { of: of.clone(), why: "it was refused".into() }];
                start.files = Some(FileWatch { marks: 0, gaps });
            };
            ruling("no-aws-cli", &[git()], spoil)
        };
        check(gap(Watched::Program("aws".into())), Ruling::Inconclusive, "it was refused");
        check(gap(Watched::HandOff("cron".into())), Ruling::Inconclusive, "it was refused");
        check(gap(Watched::Program("gcloud".into())), Ruling::Proven, "");
        let events = |change: fn(&mut FileEvents), words: &str| {
            let spoil = |start: &mut Start, end: &mut End| {
                watched(start, end);
                change(end.files.as_mut().unwrap());
            };
            check(ruling("no-aws-cli", &[git()], spoil), Ruling::Inconclusive, words);
        };
        events(|events| events.overflows = 1, "queue of opened files was full");
        events(|events| events.lost = 2, "2 opened files");
        let no_counts = |start: &mut Start, end: &mut End| {
            watched(start, end);
            end.files = None;
        };
        check(ruling("no-aws-cli", &[git()], no_counts), Ruling::Inconclusive, "does not say");
    }

    #[test]
    fn a_program_that_was_not_looked_for_is_a_reason() {
        let spoil = |start: &mut Start, _: &mut End| start.known_programs.clear();
        check(
            ruling("no-aws-cli", &[git()], spoil),
            Ruling::Inconclusive,
            "without a claim over it",
        );
    }
}
