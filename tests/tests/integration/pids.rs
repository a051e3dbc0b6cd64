//! Process ids that come round again: only a virtual machine has few enough of them.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use tracer::policy::Ruling;

use crate::{
    Test,
    harness::{Scratch, copy_program, program},
};

pub(crate) const TESTS: &[Test] = &[("reused", reused)];

const PID_MAX: &str = "/proc/sys/kernel/pid_max";
/// The kernel reserves the first 300 once it has come round (RESERVED_PIDS, kernel/pid.c).
const FEW: u32 = 400;
const PROCESSES: usize = 250;
/// The one that is the forbidden program.
const FORBIDDEN: usize = 200;

/// Puts the kernel's own number back.
struct FewPids(String);

impl FewPids {
    fn set() -> Result<FewPids> {
        let usual = FewPids(fs::read_to_string(PID_MAX)?);
        fs::write(PID_MAX, FEW.to_string()).context(PID_MAX)?;
        Ok(usual)
    }
}

impl Drop for FewPids {
    fn drop(&mut self) {
        // A machine that keeps few pids can still run every other test.
        let _ = fs::write(PID_MAX, &self.0);
    }
}

/// Each exec belongs to the process that was forked for it, whoever had its pid before.
fn reused(scratch: &Scratch) -> Result<()> {
    let aws = scratch.folder("bin")?.join("aws");
    copy_program(program(scratch, "stand-in")?, &aws)?;
    let aws = aws.display();
    let _few = FewPids::set()?;
    let script = format!(
        "i=0; while [ $i -lt {PROCESSES} ]; do
             if [ $i = {FORBIDDEN} ]; then {aws} $i; else /bin/true $i; fi
             i=$((i+1))
         done; exit 0"
    );
    let run = scratch.run(["sh", "-c", &script]).policy("no-aws-cli").record()?;
    run.rules(Ruling::Violated)?.all_seen()?;
    let (mut processes, mut pids) = (BTreeSet::new(), BTreeSet::new());
    for number in 0..PROCESSES {
        let word = number.to_string();
        let mut execs = run.execs().into_iter().filter(|exec| {
            exec.argv.args.get(1).is_some_and(|argument| argument.0 == word.as_bytes())
        });
        let exec = execs.next().with_context(|| format!("no exec {number}"))?;
        ensure!(execs.next().is_none(), "exec {number} is there twice");
        let is_aws = exec.argv.args[0].base_name() == b"aws";
        ensure!(is_aws == (number == FORBIDDEN), "exec {number}: {:?}", exec.argv.args);
        ensure!(run.process(exec.process)?.execs.len() == 1, "{:?} has others", exec.process);
        processes.insert(exec.process);
        pids.insert(exec.process.pid);
    }
    ensure!(processes.len() == PROCESSES, "{} processes, not {PROCESSES}", processes.len());
    ensure!(pids.len() < PROCESSES / 2, "{} pids for {PROCESSES} processes", pids.len());
    Ok(())
}
