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
                (None, Tally::ONE_FAILED)
            }
        };
        tally.failed = tally.failed.max(u64::from(value.is_none()));
        let outcome = if value.is_some() { "done" } else { "FAILED" };
        let counts = if tally == Tally::NOTHING { String::new() } else { format!(" ({tally})") };
        println!("== {name}: {outcome} in {:.1} s{counts}", started.elapsed().as_secs_f64());
        self.tally += tally;
        value
    }

    pub(crate) fn end(&self) -> ExitCode {
        println!("== all steps took {:.1} s", self.started.elapsed().as_secs_f64());
        if self.tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// The tally stands alone on the last line, where CI systems look for it.
    pub(crate) fn end_with_tally(&self) -> ExitCode {
        let status = self.end();
        println!("{}", self.tally);
        status
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
    }
}
