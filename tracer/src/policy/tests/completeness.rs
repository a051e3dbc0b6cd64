//! What the recording does not say.

use super::*;

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
    gap(
        |_, end| {
            end.checks = Some(Checks { made: 2, failure: Some("2 probes were detached".into()) })
        },
        "2 probes were detached",
    );
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

/// Work can be handed over by a connection to a port of this machine, and by netlink.
#[test]
fn loss_of_connections_touches_claims_over_programs() {
    let lose = |kind: &'static str| {
        move |_: &mut Start, end: &mut End| {
            let (cpu, produced, lost, read) = (0, 1, 1, 0);
            end.counters.push(CounterRow { cpu, kind: kind.into(), produced, lost, read });
        }
    };
    let own = || exec(CHILD, "/usr/bin/node", 1, &["node"]);
    for kind in ["connect", "connect-result", "odd-socket", "foreign-send"] {
        let reason = format!("{kind} events were lost");
        check(ruling("no-aws-cli", &[git()], lose(kind)), Ruling::Inconclusive, &reason);
        check(ruling("no-aws-cli", &[], lose(kind)), Ruling::Inconclusive, &reason);
        check(ruling("no-shell-outs", &[own()], lose(kind)), Ruling::Inconclusive, &reason);
    }
    check(ruling("no-aws-cli", &[], lose("close")), Ruling::Proven, "");
    let skip = |_: &mut Start, end: &mut End| {
        end.skipped_runs.insert("sock_state".into(), 1);
    };
    check(ruling("no-aws-cli", &[], skip), Ruling::Inconclusive, "skipped 1 runs");
    let skip = |_: &mut Start, end: &mut End| {
        end.skipped_runs.insert("packet_in".into(), 1);
    };
    check(ruling("no-aws-cli", &[], skip), Ruling::Proven, "");
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
