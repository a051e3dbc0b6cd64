//! Runs the tests of a profile, and says what became of each.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    machine,
    profile::{Build, MAY_SKIP, OPTIONS, PROFILE, Profile},
    report, say,
};

/// Where xtask puts the program.
const TESTS: &str = "/tests";
const REPORT: &str = "/tmp/report";
/// Processors are two; tests wait for the kernel a good part of their time.
const THREADS: &str = "3";
/// Where a process is preempted within a probe on a function, the kernel skips that of the next one, and the
/// verdict is inconclusive: rightly, and so often that tests cannot run beside each other.
const THREADS_IN_REAL_TIME: &str = "1";

/// Of tests that try something a thousand times elsewhere.
const REPEATS: &str = "20";

pub(super) fn all_of(profile: &Profile, check: &mut impl FnMut(&str, &str)) -> Result<()> {
    let began = Instant::now();
    (profile.prepare)()?;
    if Path::new(REPORT).exists() {
        fs::remove_file(REPORT)?;
    }
    let options: Vec<String> =
        profile.forbidden.iter().map(|way| format!("--debug-forbid={way}")).collect();
    let threads = if profile.build == Build::RealTime { THREADS_IN_REAL_TIME } else { THREADS };
    let mut tests = Command::new(TESTS)
        .args(["--format", "json", "--test-threads", threads])
        .env(PROFILE, profile.name)
        .env(OPTIONS, options.join(" "))
        .env(report::FILE, REPORT)
        .env("TRACER_TEST_REPEAT", REPEATS)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context(TESTS)?;
    let mut count = 0;
    let output = tests.stdout.take().context("it was piped")?;
    for line in BufReader::new(output).lines() {
        // A test may have written to the same console.
        let Ok(event) = serde_json::from_str::<Value>(&line?) else { continue };
        let (name, how) = (event["name"].as_str(), event["event"].as_str());
        if let (Some("test"), Some(name), Some(how)) = (event["type"].as_str(), name, how)
            && let Some(line) = outcome(name, how, &event)
        {
            count += 1;
            let seconds = began.elapsed().as_secs_f64();
            check(&format!("{}::{name}", profile.name.replace(' ', "-")), &line);
            say(&format!("vm-time {name} {seconds:.1}"));
        }
    }
    tests.wait()?;
    ensure!(count > 0, "no test ran");
    let report = fs::read_to_string(REPORT).unwrap_or_default();
    for line in report.lines().filter(|line| !line.starts_with("skipped")) {
        say(&format!("vm-report {}\t{line}", profile.name));
    }
    let seconds = began.elapsed().as_secs_f64();
    say(&format!("vm-profile {}\t{seconds:.1}\t{}", profile.name, profile.what));
    Ok(())
}

/// `None` while it runs.
fn outcome(name: &str, how: &str, event: &Value) -> Option<String> {
    let detail = event["stdout"].as_str().unwrap_or_default().trim();
    Some(match how {
        "ok" => "ok".to_owned(),
        "failed" => format!("FAILED {detail}"),
        "ignored" => {
            let detail = why_skipped(name);
            let release = machine::release();
            let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
            let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            let allowed = |(test, before): &(&str, (u32, u32))| *test == name && kernel < *before;
            if MAY_SKIP.iter().any(allowed) {
                format!("skipped {detail}")
            } else {
                format!("FAILED it was skipped, which this kernel has no reason for: {detail}")
            }
        }
        _ => return None,
    })
}

/// The runner does not hand on the reason, so tests leave it with the other findings.
fn why_skipped(name: &str) -> String {
    let report = fs::read_to_string(REPORT).unwrap_or_default();
    let mut lines =
        report.lines().filter_map(|line| line.strip_prefix("skipped\t")?.split_once('\t'));
    let reason = lines.find(|(test, _)| *test == name).map(|(_, reason)| reason.to_owned());
    reason.unwrap_or_else(|| "for no reason".to_owned())
}
