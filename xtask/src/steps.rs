//! The steps of a longer task: each is timed, and one that fails does not stop the others.

use std::{process::ExitCode, time::Instant};

use anyhow::Result;

use crate::{show, tally::Tally};

/// The steps so far.
#[derive(Debug)]
pub(crate) struct Steps {
    started: Instant,
    tally: Tally,
}

impl Steps {
    pub(crate) fn begin() -> Self {
        Self { started: Instant::now(), tally: Tally::NOTHING }
    }

    /// Runs one step and prints how long it took. `None` if it failed.
    pub(crate) fn step<T>(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<(T, Tally)>,
    ) -> Option<T> {
        println!("== {name}");
        let started = Instant::now();
        let (value, mut tally) = match work() {
            Ok((value, tally)) if tally.failed == 0 => (Some(value), tally),
            Ok((_, tally)) => (None, tally),
            Err(error) => {
                show(&error);
                // Tests counted before the error are lost only together with the run's success.
                (None, Tally::one_failed(format!("{error:#}")))
            }
        };
        tally.failed = tally.failed.max(u64::from(value.is_none()));
        let outcome = if value.is_some() { "done" } else { "FAILED" };
        let counts = if tally == Tally::NOTHING { String::new() } else { format!(" ({tally})") };
        println!("== {name}: {outcome} in {:.1} s{counts}", started.elapsed().as_secs_f64());
        for failure in &mut tally.failures {
            *failure = format!("{name}: {failure}");
        }
        self.tally += tally;
        value
    }

    pub(crate) fn end(&self) -> ExitCode {
        println!("== all steps took {:.1} s", self.started.elapsed().as_secs_f64());
        if self.tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// What failed is said again before it, in short. The tally stands alone on the last line, where CI systems look for it.
    pub(crate) fn end_with_tally(&self) -> ExitCode {
        for failure in &self.tally.failures {
            println!("== FAILED {}", shortened(failure));
        }
        let status = self.end();
        println!("{}", self.tally);
        status
    }
}

/// Some lines of a text's begin and of its end, where what went wrong stands in most of them.
fn shortened(text: &str) -> String {
    const LINES: usize = 15;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    match lines.len().checked_sub(2 * LINES) {
        None | Some(0) => lines.join("\n"),
        Some(left_out) => {
            let (begin, end) = (&lines[..LINES], &lines[lines.len() - LINES..]);
            format!("{}\n[{left_out} lines]\n{}", begin.join("\n"), end.join("\n"))
        }
    }
}

/// For a step that is no test: it counts only if it fails.
pub(crate) fn counting_nothing<T>(value: T) -> Result<(T, Tally)> {
    Ok((value, Tally::NOTHING))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_failed_step_always_shows() {
        let mut steps = Steps::begin();
        assert_eq!(steps.step("good", || Ok((7, Tally { passed: 2, ..Tally::NOTHING }))), Some(7));
        assert_eq!(steps.step("bad", || Err::<((), Tally), _>(anyhow!("no"))), None);
        assert_eq!(steps.tally.to_string(), "2 passed, 1 failed, 0 skipped");
        assert_eq!(steps.tally.failures, ["bad: no"]);
    }

    #[test]
    fn a_long_text_has_its_begin_and_its_end() {
        let text = |lines: usize| (0..lines).map(|line| format!("{line}\n")).collect::<String>();
        assert_eq!(shortened(&text(30)), text(30).trim_end());
        let short = shortened(&text(40));
        assert!(short.contains("\n14\n[10 lines]\n25\n") && short.ends_with("\n39"), "{short}");
    }
}
