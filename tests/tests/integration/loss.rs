//! What is lost is counted exactly, and never ends as proven.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tracer::policy::Ruling;
use tracer_tests::vm;

use crate::{
    Test,
    harness::{Peer, Run, Scratch, in_private_network, program},
};

pub(crate) const TESTS: &[Test] = &[
    ("process_records", process_records),
    ("every_process_record", every_process_record),
    ("argv_records", argv_records),
    ("net_records", net_records),
    ("ring_of_one_page", ring_of_one_page),
    ("silent_probes", silent_probes),
    ("forbidden_exec_in_the_ledger_alone", forbidden_exec_in_the_ledger_alone),
];

const PROCESS_KINDS: [&str; 4] = ["root", "fork", "exec", "exit"];

/// Each kind that lost something has a reason with the counters' own numbers. Returns how many
/// records were lost in all.
fn accounted(run: &Run, kinds: &[&str]) -> Result<u64> {
    run.rules(Ruling::Inconclusive)?;
    let mut all = 0;
    for kind in kinds {
        let counted = run.counted(kind)?;
        ensure!(counted.produced == counted.read + counted.lost, "{kind}: {counted:?}");
        if counted.lost > 0 {
            let (lost, produced) = (counted.lost, counted.produced);
            run.because(&[&format!("{lost} of {produced} {kind} events were lost")])?;
        }
        all += counted.lost;
    }
    Ok(all)
}

fn process_records(scratch: &Scratch) -> Result<()> {
    for every in [2, 3, 5, 11] {
        let run = scratch
            .run([
                "sh",
                "-c",
                "for i in 1 2 3 4 5; do for j in 1 2 3 4 5 6; do /bin/true; done; done",
            ])
            .policy("no-aws-cli")
            .option(format!("--debug-lose=process={every}"))
            .option("--linger=0")
            .record()
            .with_context(|| format!("every {every}."));
        // A canary that lost a record of its own is not seen at the start, so nothing is started.
        match run {
            Ok(run) => ensure!(accounted(&run, &PROCESS_KINDS)? > 0, "nothing was lost"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains("nothing was started"), "{said}");
            }
        }
    }
    Ok(())
}

fn every_process_record(scratch: &Scratch) -> Result<()> {
    let output =
        scratch.run(["true"]).policy("no-aws-cli").option("--debug-lose=process=1").output()?;
    output.exits(125)?.says("canary")?.says("nothing was started")?;
    Ok(())
}

fn argv_records(scratch: &Scratch) -> Result<()> {
    let long = program(scratch, "long-argv")?;
    let command = [long.as_os_str(), "10".as_ref(), "10000".as_ref()];
    let run = scratch.run(command).policy("no-aws-cli").option("--debug-lose=argv=3").record()?;
    ensure!(accounted(&run, &["argv-chunk"])? > 0, "nothing was lost");
    run.because(&["its argv is not complete"])?;
    let argv = &run.exec("true")?.argv;
    let have: usize = argv.args.iter().map(|word| word.0.len() + 1).sum();
    ensure!(!argv.complete && (have as u64) < argv.total_bytes, "{} complete", argv.complete);
    // What is there is the beginning, with nothing moved to the wrong place.
    for (letter, word) in (b'a'..=b'z').cycle().skip(1).zip(&argv.args[1..]) {
        ensure!(word.0.iter().all(|byte| *byte == letter), "bytes of another word than `{letter}`");
    }
    Ok(())
}

fn net_records(scratch: &Scratch) -> Result<()> {
    let (run, opened) = in_private_network(|network| {
        let (listener, address) = network.listen("127.0.0.1:0")?;
        Peer { receives: 0, sends: 0, closes_first: false }.serve(listener, 20);
        let dial = program(scratch, "dial")?;
        let command = format!("{} 127.0.0.1 {} 20 0 0", dial.display(), address.port());
        let before = network.active_opens()?;
        let run = scratch
            .run(command.split(' '))
            .policy("no-aws-cli")
            // No canary makes so many.
            .option("--debug-lose=net=7")
            .record()?;
        Ok((run, network.active_opens()? - before))
    })?;
    // Work can be handed over by a connection, so a claim over programs rests on them, too.
    accounted(&run, &["connect", "connect-result"])?;
    let connect = run.counted("connect")?;
    let canaries = run.end()?.canary_events.get("connect").copied().unwrap_or(0);
    ensure!(connect.lost > 0 && connect.produced == connect.read + connect.lost, "{connect:?}");
    ensure!(connect.produced - opened <= 2 && canaries <= 2, "{connect:?}, {opened} opened");
    ensure!(run.story.connections.len() as u64 + canaries == connect.read, "{connect:?}");
    let verdict = run.verdict.as_ref().context("no verdict")?;
    let line = verdict.completeness.iter().find(|line| line.name == "no-loss-connect");
    let line = line.context("no line for connects")?;
    ensure!(!line.holds, "{line:?}");
    let expected = format!("{} of {} connect events were lost", connect.lost, connect.produced);
    ensure!(line.detail.contains(&expected), "{line:?}");
    Ok(())
}

fn ring_of_one_page(scratch: &Scratch) -> Result<()> {
    let burst = program(scratch, "burst")?;
    let command = [burst.as_os_str(), "2000".as_ref(), "/bin/true".as_ref()];
    let run = scratch
        .run(command)
        .policy("no-aws-cli")
        .option("--debug-map=PROCESS_RING=4096")
        .option("--linger=0")
        .record()?;
    let lost = accounted(&run, &PROCESS_KINDS)?;
    ensure!(lost > 0, "a ring of one page held {} execs", run.story.execs);
    // The ledger needs no ring: it has every exec.
    let end = run.end()?;
    let ledger: u64 = end.ledger.iter().map(|row| row.execs).sum();
    let witness = &end.witness;
    ensure!(ledger == 2001, "the ledger has {ledger} execs");
    ensure!(*witness == tracer::record::schema::Witness::Counted(2001), "{witness:?}");
    eprintln!(
        "  ring of one page: {lost} process records of 2,000 starts lost, each accounted for"
    );
    Ok(())
}

/// Of each program that a policy has attached here: nothing is started when it is silent.
fn silent_probes(scratch: &Scratch) -> Result<()> {
    // Of these nothing rests on one alone: `connect` tells what `sock_state` does, and without answers of DNS names
    // are missing, which never makes a claim hold.
    const TOLD_BY_OTHERS: [&str; 2] = ["sock_state", "packet_in"];
    // Those of the resolver and of TLS are not for this policy; the others run when tracer asks.
    let is_meant = |program: &str| {
        !program.starts_with("resolve_")
            && !program.starts_with("tls_")
            && !["enrol", "identify", "find"].contains(&program)
            && !TOLD_BY_OTHERS.contains(&program)
    };
    let mut doctor = vec!["doctor".to_owned(), "--json".into()];
    doctor.extend(vm::tracer_options());
    let doctor: Vec<&str> = doctor.iter().map(String::as_str).collect();
    let doctor: Value = serde_json::from_slice(&scratch.tracer(&doctor).output()?.stdout)?;
    let programs = doctor["verified_instructions"].as_object().context("no programs")?;
    let mut tried = 0;
    for program in programs.keys().filter(|program| is_meant(program)) {
        let witness = scratch.file(format!("{program}-ran"));
        let output = scratch
            .run(["touch".as_ref(), witness.as_os_str()])
            .policy("no-aws-cli")
            .option(format!("--debug-silence={program}"))
            .output()?;
        output
            .exits(125)
            .and_then(|output| {
                output.says("was not seen by the probe of")?.says("nothing was started")
            })
            .with_context(|| format!("`{program}` was silent"))?;
        ensure!(!witness.exists(), "the command ran although `{program}` was silent");
        tried += 1;
    }
    ensure!(tried >= 16, "{tried} programs of {programs:?}");
    eprintln!("  each of {tried} programs was missed when it was silent");
    Ok(())
}

fn forbidden_exec_in_the_ledger_alone(scratch: &Scratch) -> Result<()> {
    let forbidden = scratch.copy(&program(scratch, "stand-in")?, "aws")?;
    let policy = scratch.write(
        "policy.toml",
        &format!(
            "name = 'no-{0}'\n[[claim]]\nkind = 'never-runs'\nprograms = ['{0}']\n",
            forbidden.display()
        ),
    )?;
    // On one CPU the fifth exec is lost: after the canary, the shell and twice `true`.
    let line = format!("/bin/true; /bin/true; {}; :", forbidden.display());
    let run = scratch
        .run(["sh", "-c", &line])
        .policy(&policy)
        .option("--debug-lose=process=5")
        .option("--linger=0")
        .set(on_one_cpu)
        .record()?;
    ensure!(run.exec("aws").is_err(), "the exec was recorded: {:?}", run.counted("exec")?);
    run.rules(Ruling::Violated)?.because(&["ledger counts 1 execs", "0 are recorded"])?;
    Ok(())
}

/// Lets the command and what it starts run on the first CPU only, so that its events come in the
/// order in which they are counted.
fn on_one_cpu(command: &mut Command) {
    let pin = || {
        // SAFETY: all zeroes is an empty set of CPUs.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the first CPU is within any set.
        unsafe { libc::CPU_SET(0, &mut set) };
        // SAFETY: the set and its size are those of one live value.
        match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(pin) };
}
