//! Counting tests by what their programs print.

use std::{fmt, ops::AddAssign};

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// What was said of those that failed, as far as it is known: it is printed again at the end of a
    /// run, which is too long to look through.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    pub(crate) const NOTHING: Self =
        Self { passed: 0, failed: 0, skipped: 0, failures: Vec::new() };
    pub(crate) const ONE_SKIPPED: Self =
        Self { passed: 0, failed: 0, skipped: 1, failures: Vec::new() };

    pub(crate) fn one_failed(what: String) -> Self {
        Self { failed: 1, failures: vec![what], ..Self::NOTHING }
    }

    /// What test programs said, in any order of their lines.
    ///
    /// A test that finds out while running that this machine cannot do it writes the line
    /// `skipped: REASON` past the runner's capture and returns. To its runner it has passed, so it
    /// is moved from there to the skipped ones.
    pub(crate) fn of_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut tally = Self::NOTHING;
        let mut returned_early = 0;
        // Within a program's list of failures, which its names end: `failures:` comes twice.
        let mut in_failures = false;
        for line in lines {
            if line.starts_with("skipped: ") {
                returned_early += 1;
            } else if let Some(result) = test_result(line) {
                in_failures = false;
                tally += result;
            } else if line == "failures:" {
                in_failures = !in_failures;
            } else if in_failures && line.starts_with("---- ") {
                tally.failures.push(line.trim_matches(['-', ' ']).to_owned());
            } else if let Some(last) = tally.failures.last_mut().filter(|_| in_failures) {
                last.push('\n');
                last.push_str(line);
            }
        }
        tally.passed = tally.passed.saturating_sub(returned_early);
        tally.skipped += returned_early;
        tally
    }
}

/// The closing line of one test program, as libtest words it:
/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn test_result(line: &str) -> Option<Tally> {
    let (_ok_or_failed, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::NOTHING;
    for count in counts.split("; ") {
        let Some((number, what)) = count.split_once(' ') else { continue };
        let Ok(number) = number.parse() else { continue };
        match what {
            "passed" => tally.passed = number,
            "failed" => tally.failed = number,
            "ignored" => tally.skipped = number,
            _ => {}
        }
    }
    Some(tally)
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped, failures: _ } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(Tally::of_lines(text.lines()).to_string(), expected, "{text}");
    }

    #[test]
    fn sums_over_programs() {
        check(
            "running 4 tests\n\
             test a ... ok\n\
             test b ... ignored, needs a camera\n\
             test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             \n\
             test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.20s\n",
            "4 passed, 2 failed, 1 skipped",
        );
    }

    #[test]
    fn a_test_that_returned_early_has_not_passed() {
        check(
            "skipped: this kernel has no kprobes\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
            "1 passed, 0 failed, 1 skipped",
        );
    }

    /// As libtest and libtest-mimic print it.
    #[test]
    fn what_failed_is_kept() {
        let tally = Tally::of_lines(
            "test a ... FAILED\n\
             failures:\n\
             \n\
             ---- a stdout ----\n\
             it is 3\n\
             \n\
             \n\
             failures:\n    a\n\
             \n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s\n\
             failures:\n\
             ---- b ----\n\
             it is 4\n\
             test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s\n"
                .lines(),
        );
        assert_eq!(tally.failures, ["a stdout\nit is 3\n\n", "b\nit is 4"]);
        assert_eq!(tally.failed, 2);
    }

    #[test]
    fn other_lines_count_nothing() {
        check("test result", "0 passed, 0 failed, 0 skipped");
        check("test result: ok", "0 passed, 0 failed, 0 skipped");
        check("a test result: ok. 3 passed; 0 failed", "0 passed, 0 failed, 0 skipped");
        check("it skipped: nothing", "0 passed, 0 failed, 0 skipped");
    }
}
