//! Process ids that come round again: only a virtual machine has few enough of them.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Finding, checks::ok, machine::AWS_BY_SYMLINK, traced::Traced};

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
        // A machine that keeps few pids can still run every other check.
        let _ = fs::write(PID_MAX, &self.0);
    }
}

/// Each exec belongs to the process that was forked for it, whoever had its pid before.
pub(super) fn reused_pids(traced: &mut Traced) -> Result<Finding> {
    let _few = FewPids::set()?;
    let script = format!(
        "i=0; while [ $i -lt {PROCESSES} ]; do
             if [ $i = {FORBIDDEN} ]; then {AWS_BY_SYMLINK} exit 0; else /bin/true $i; fi
             i=$((i+1))
         done; exit 0"
    );
    let recording = traced.judged(10, &["/bin/sh", "-c", &script])?;
    let (mut processes, mut pids) = (BTreeSet::new(), BTreeSet::new());
    let mut forbidden = Value::Null;
    for number in 0..PROCESSES {
        let exec = if number == FORBIDDEN {
            recording.exec(&[AWS_BY_SYMLINK])?
        } else {
            recording.exec(&["/bin/true", &number.to_string()])?
        };
        let process = &exec["process"];
        recording.one("fork", "/child", process.clone())?;
        recording.one("exit", "/process", process.clone())?;
        recording.one("exec", "/process", process.clone())?;
        processes.insert(process.to_string());
        pids.insert(process["pid"].as_u64().context("a process without a pid")?);
        if number == FORBIDDEN {
            forbidden = process.clone();
        }
    }
    ensure!(processes.len() == PROCESSES, "{} processes, not {PROCESSES}", processes.len());
    ensure!(pids.len() < PROCESSES / 2, "{} pids for {PROCESSES} processes", pids.len());
    let violations = recording.end()?.pointer("/verdict/claims/0/violations");
    let violations = violations.and_then(Value::as_array).context("there are no violations")?;
    let guilty: Vec<&Value> = violations.iter().map(|violation| &violation["process"]).collect();
    ensure!(json!(guilty) == json!([forbidden]), "{guilty:?}, not {forbidden}");
    ok(format!("{PROCESSES} processes with {} pids, each exec in the right one", pids.len()))
}
