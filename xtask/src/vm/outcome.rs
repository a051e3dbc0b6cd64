//! What a virtual machine said on its console.
//!
//! `vm-init` writes one line per test and a last line with their number:
//!
//! ```text
//! vm-kernel 6.1.0-56-cloud-amd64
//! vm-check full::exec::script ok
//! vm-check full::exec::memfd FAILED the tree differs
//! vm-check full::connect::multipath skipped this kernel has no multipath
//! vm-report full<TAB>hook<TAB>fork<TAB>raw tracepoint sched_process_fork<TAB>seen
//! vm-profile full<TAB>71.3<TAB>as Debian has it
//! vm-end 3
//! ```
//!
//! Everything else is the kernel's, QEMU's or a test's. A machine that did not come to its last line,
//! or whose lines are not as many as it says, has failed once more.

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

/// A state of the machine in which tests ran.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) what: String,
    seconds: String,
}

impl Profile {
    /// `NAME<TAB>SECONDS<TAB>WHAT`
    fn of(line: &str) -> Option<Self> {
        let mut fields = line.split('\t').map(str::to_owned);
        let (name, seconds) = (fields.next()?, fields.next()?);
        Some(Self { name, what: fields.next()?, seconds })
    }
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) release: String,
    /// Of each profile, what the tests report of the kernel.
    pub(super) reports: Vec<(String, String)>,
    pub(super) profiles: Vec<Profile>,
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
            reports: Vec::new(),
            profiles: Vec::new(),
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
            } else if let Some(report) = line.strip_prefix("vm-report ") {
                outcome.reports.extend(pair(report));
            } else if let Some(profile) = line.strip_prefix("vm-profile ") {
                outcome.profiles.extend(Profile::of(profile));
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
        Tally { failures: self.failures().collect(), ..self.count("") }
    }

    fn failures(&self) -> impl Iterator<Item = String> {
        let failed = self.checks.iter().filter(|check| check.result == Result::Failed);
        let failed = failed.map(|Check { name, detail, .. }| format!("{name}: {detail}"));
        let all = failed.chain(self.incomplete.clone());
        all.map(|failure| format!("kernel {} ({}): {failure}", self.name, self.release))
    }

    /// Of the tests in a profile.
    pub(super) fn tally_of(&self, profile: &str) -> Tally {
        self.count(&format!("{}::", profile.replace(' ', "-")))
    }

    /// Of the tests whose names begin so.
    fn count(&self, begin: &str) -> Tally {
        let count = |result| {
            let checks = self.checks.iter().filter(|check| check.result == result);
            let checks = checks.filter(|check| check.name.starts_with(begin));
            u64::try_from(checks.count()).unwrap_or(u64::MAX)
        };
        Tally {
            passed: count(Result::Passed),
            failed: count(Result::Failed) + u64::from(self.incomplete.is_some()),
            skipped: count(Result::Skipped),
            failures: Vec::new(),
        }
    }
}

/// Two values with a tab between them.
fn pair(line: &str) -> Option<(String, String)> {
    line.split_once('\t').map(|(first, rest)| (first.to_owned(), rest.to_owned()))
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
        for Check { name, result, detail } in &self.checks {
            match result {
                Result::Passed => writeln!(f, "  ok      {name}")?,
                Result::Failed => writeln!(f, "  FAILED  {name}: {detail}")?,
                // At the start of its line, as every skipped test of this project is shown.
                Result::Skipped => writeln!(f, "skipped: {name} on kernel {release}: {detail}")?,
            }
        }
        if let Some(incomplete) = &self.incomplete {
            writeln!(f, "  FAILED  {incomplete}")?;
        }
        for Profile { name, seconds, .. } in &self.profiles {
            writeln!(f, "  {name}: {seconds} s")?;
        }
        writeln!(f, "kernel {name}: {} in {:.1} s", self.tally(), self.took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(console: &str, ending: Ending, expected: &str) -> String {
        let outcome = Outcome::of_console("6.1", console, ending, Duration::from_secs(7));
        let tally = outcome.tally();
        assert_eq!(tally.to_string(), expected, "{console}");
        assert_eq!(tally.failures.len() as u64, tally.failed, "{:?}", tally.failures);
        outcome.to_string()
    }

    #[test]
    fn every_line_counts() {
        let text = check(
            "\x1bc\x1b[?7l\x1b[2Jvm-kernel 6.1.0\r\n[   5.1] noise\r\nvm-check full::a ok\r\n\
             vm-check full::b FAILED no\r\nvm-check full::c skipped none here\r\n\
             vm-report full\thook\tfork\tby\tseen\r\nvm-profile full\t6.5\tas it is\r\nvm-end 3\r\n",
            Ending::PoweredOff,
            "1 passed, 1 failed, 1 skipped",
        );
        assert_eq!(
            text,
            "kernel 6.1 (6.1.0)\n  ok      full::a\n  FAILED  full::b: no\n\
             skipped: full::c on kernel 6.1.0: none here\n  full: 6.5 s\n\
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
