//! What a virtual machine said on its console.
//!
//! `vm-init` writes one line per check and a last line with their number:
//!
//! ```text
//! vm-kernel 6.1.0-56-cloud-amd64
//! vm-instructions exec 5910
//! vm-check long-argv ok 204800 bytes
//! vm-check script FAILED the record has no interpreter
//! vm-check int80 skipped this kernel has no 32-bit system calls
//! vm-end 3
//! ```
//!
//! Everything else is the kernel's or QEMU's. A machine that did not come to its last line, or
//! whose lines are not as many as it says, has failed once more.

use std::{fmt, time::Duration};

use super::qemu::Ending;
use crate::tally::Tally;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Result {
    Passed,
    Failed,
    Skipped,
}

#[derive(Debug)]
struct Check {
    name: String,
    result: Result,
    detail: String,
}

#[derive(Debug)]
pub(super) struct Outcome {
    name: String,
    release: String,
    instructions: Vec<String>,
    checks: Vec<Check>,
    /// Why the checks are not all that there are.
    incomplete: Option<String>,
    took: Duration,
}

impl Outcome {
    pub(super) fn of_console(name: &str, console: &str, ending: Ending, took: Duration) -> Self {
        let mut outcome = Self {
            name: name.to_owned(),
            release: "unknown release".to_owned(),
            instructions: Vec::new(),
            checks: Vec::new(),
            incomplete: None,
            took,
        };
        let mut announced = None;
        for line in console.lines().map(str::trim_end) {
            // The terminal's control sequences of the firmware end without a newline.
            let Some(line) = line.find("vm-").map(|at| &line[at..]) else { continue };
            if let Some(release) = line.strip_prefix("vm-kernel ") {
                release.clone_into(&mut outcome.release);
            } else if let Some(count) = line.strip_prefix("vm-instructions ") {
                outcome.instructions.push(count.to_owned());
            } else if let Some(check) = line.strip_prefix("vm-check ").and_then(check) {
                outcome.checks.push(check);
            } else if let Some(count) = line.strip_prefix("vm-end ") {
                announced = count.parse::<usize>().ok();
            }
        }
        let problem = match (ending, announced) {
            (Ending::StoppedAfter(limit), _) => {
                Some(format!("stopped after {} s", limit.as_secs()))
            }
            (Ending::QemuFailed, _) => Some("QEMU failed".to_owned()),
            (Ending::PoweredOff, None) => Some("it ended before its last check".to_owned()),
            (Ending::PoweredOff, Some(count)) => (count != outcome.checks.len())
                .then(|| format!("{count} checks were made, {} are here", outcome.checks.len())),
        };
        outcome.incomplete =
            problem.map(|problem| format!("{problem}; its console ends:\n{}", end_of(console)));
        outcome
    }

    pub(super) fn tally(&self) -> Tally {
        let count = |result| {
            let checks = self.checks.iter().filter(|check| check.result == result);
            u64::try_from(checks.count()).unwrap_or(u64::MAX)
        };
        Tally {
            passed: count(Result::Passed),
            failed: count(Result::Failed) + u64::from(self.incomplete.is_some()),
            skipped: count(Result::Skipped),
        }
    }
}

/// `NAME ok|FAILED|skipped DETAIL`
fn check(line: &str) -> Option<Check> {
    let mut words = line.splitn(3, ' ');
    let name = words.next()?.to_owned();
    let result = match words.next()? {
        "ok" => Result::Passed,
        "FAILED" => Result::Failed,
        "skipped" => Result::Skipped,
        _ => return None,
    };
    Some(Check { name, result, detail: words.next().unwrap_or_default().to_owned() })
}

fn end_of(console: &str) -> String {
    const LINES: usize = 25;
    let lines: Vec<_> = console.lines().collect();
    lines[lines.len().saturating_sub(LINES)..]
        .iter()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
        .map(|line| format!("    {line}\n"))
        .collect()
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, release, .. } = self;
        writeln!(f, "kernel {name} ({release})")?;
        writeln!(f, "  instructions verified: {}", self.instructions.join(", "))?;
        for Check { name, result, detail } in &self.checks {
            match result {
                Result::Passed => writeln!(f, "  ok      {name}: {detail}")?,
                Result::Failed => writeln!(f, "  FAILED  {name}: {detail}")?,
                // At the start of its line, as every skipped test of this project is shown.
                Result::Skipped => writeln!(f, "skipped: {name} on kernel {release}: {detail}")?,
            }
        }
        if let Some(incomplete) = &self.incomplete {
            writeln!(f, "  FAILED  {incomplete}")?;
        }
        writeln!(f, "kernel {name}: {} in {:.1} s", self.tally(), self.took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(console: &str, ending: Ending, expected: &str) -> String {
        let outcome = Outcome::of_console("6.1", console, ending, Duration::from_secs(7));
        assert_eq!(outcome.tally().to_string(), expected, "{console}");
        outcome.to_string()
    }

    #[test]
    fn every_line_counts() {
        let text = check(
            "\x1bc\x1b[?7l\x1b[2Jvm-kernel 6.1.0\r\nvm-instructions exec 5910\r\n\
             [   5.1] noise\r\nvm-check a ok as it should\r\nvm-check b FAILED no\r\n\
             vm-check c skipped none here\r\nvm-end 3\r\n",
            Ending::PoweredOff,
            "1 passed, 1 failed, 1 skipped",
        );
        assert_eq!(
            text,
            "kernel 6.1 (6.1.0)\n  instructions verified: exec 5910\n  ok      a: as it should\n  \
             FAILED  b: no\nskipped: c on kernel 6.1.0: none here\n\
             kernel 6.1: 1 passed, 1 failed, 1 skipped in 7.0 s\n"
        );
    }

    #[test]
    fn what_is_missing_has_failed() {
        let one = "vm-check a ok\n";
        check(one, Ending::PoweredOff, "1 passed, 1 failed, 0 skipped");
        check(&format!("{one}vm-end 2\n"), Ending::PoweredOff, "1 passed, 1 failed, 0 skipped");
        check(&format!("{one}vm-end 1\n"), Ending::PoweredOff, "1 passed, 0 failed, 0 skipped");
        check(&format!("{one}vm-end 1\n"), Ending::QemuFailed, "1 passed, 1 failed, 0 skipped");
        let text = check(
            "Kernel panic\n",
            Ending::StoppedAfter(Duration::from_secs(300)),
            "0 passed, 1 failed, 0 skipped",
        );
        assert!(text.contains("stopped after 300 s"), "{text}");
        assert!(text.contains("    Kernel panic"), "{text}");
    }
}
