//! A long session: every processor makes processes and connections all the time, and tracer must neither
//! lose an event nor need more memory the longer it lasts. The load says itself how much it did.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    bench::load::{Deed, LOAD_CPU, Loads, TOOL_CPU},
    lab,
    scratch::{MARK, Scratch},
};

const POLICY: &str =
    "name = \"never\"\n[[claim]]\nkind = \"never-runs\"\nprograms = [\"/nowhere/program\"]\n";

/// The recording goes on in a new file at this size, and those that are full are counted and removed.
const PART: &str = "16M";

/// In less time there is too little to tell a leak from the noise of an allocator.
pub const LEAST_SECONDS: u64 = 30;

/// How much more memory there may be in the last third of the time than there was when the second began, in
/// all. What tracer keeps does not grow, but allocators hand out and take back memory in pieces, and on a
/// machine that others use too the reader falls behind now and then and needs some for that.
const GROWTH_BYTES: u64 = 8_000_000;

/// What came of it.
#[derive(Debug)]
pub struct Soak {
    /// How long it was to last.
    asked: u64,
    status: ExitStatus,
    /// What the load did, by kinds of events, from what it says itself; and as many lines of these kinds.
    made: Counts,
    recorded: Counts,
    pub seconds: f64,
    pub read: u64,
    pub lost: u64,
    pub ruling: String,
    pub reasons: Vec<String>,
    /// Resident memory of tracer in bytes, one sample a second.
    pub memory: Vec<u64>,
    pub recording_bytes: u64,
}

/// Events by kind.
type Counts = BTreeMap<&'static str, u64>;

/// Kinds of events that the load makes in numbers it knows.
const KINDS: [&str; 4] = ["fork", "exec", "exit", "connect"];

/// Runs it for so long.
pub fn run(tracer: &Path, seconds: u64) -> Result<Soak> {
    ensure!(
        seconds >= LEAST_SECONDS,
        "{seconds} s are too few to see whether memory grows: it takes {LEAST_SECONDS} at least"
    );
    let scratch = Scratch::new()?;
    let loads = Loads::compile(&scratch)?;
    lab::in_private_namespaces(|| {
        watch(tracer, &scratch, &script(&scratch, &loads, seconds), seconds)
    })
}

/// Where each piece of the load says how long it took and of how much it was.
const DONE: [(Deed, usize, &str); 2] =
    [(Deed::Spawn, LOAD_CPU, "spawned"), (Deed::Connect, TOOL_CPU, "connected")];

/// Every processor makes processes or connections until the time is over. Each piece of the load that was
/// begun comes to its end, so that what it says is all there is.
fn script(scratch: &Scratch, loads: &Loads, seconds: u64) -> String {
    const PIECE: u64 = 500;
    let over = scratch.file("over");
    let forever = DONE.map(|(deed, cpu, done)| {
        let (load, done) = (loads.command(deed, PIECE, cpu).join(" "), scratch.file(done));
        format!("while [ ! -e {} ]; do {load}; done >{} & ", over.display(), done.display())
    });
    format!("{} sleep {seconds}; : >{}; wait", forever.concat(), over.display())
}

/// What the load did, by what its pieces say: one line each, the last word of which is how often.
fn made(scratch: &Scratch) -> Result<Counts> {
    let [(spawns, spawned), (connects, connected)] = DONE.map(|(_, _, done)| {
        // Nothing was started, if it is not there.
        let said = fs::read_to_string(scratch.file(done)).unwrap_or_default();
        let counts = said.lines().map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        (said.lines().count() as u64, counts.sum::<Option<u64>>())
    });
    let (spawned, connected) = (spawned.context("no number")?, connected.context("no number")?);
    let pieces = spawns + connects;
    if pieces == 0 {
        return Ok(KINDS.map(|kind| (kind, 0)).into());
    }
    // The shell, its two loops, and `sleep`.
    Ok([
        ("fork", 3 + pieces + spawned),
        ("exec", 2 + pieces + spawned),
        ("exit", 4 + pieces + spawned),
        ("connect", connected),
    ]
    .into())
}

fn watch(tracer: &Path, scratch: &Scratch, script: &str, seconds: u64) -> Result<Soak> {
    let policy = scratch.write("never.toml", POLICY)?;
    let recorded = KINDS.map(|kind| (kind, 0)).into();
    let mut parts = Parts { first: scratch.file("recording"), number: 0, recorded, bytes: 0 };
    let mut command = Command::new(tracer);
    command.args(["run", "--quiet", "--rotate", PART, "--policy"]).arg(policy);
    command.arg("--output").arg(&parts.first).args(["--", "bash", "-c", script]);
    command.env(MARK, scratch.mark()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let started = Instant::now();
    let mut child = command.spawn().context("cannot start tracer")?;
    let longest = Duration::from_secs(seconds + 300);
    let mut memory = Vec::new();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > longest {
            child.kill()?;
            child.wait()?;
        }
        thread::sleep(Duration::from_secs(1));
        // Not while it starts and ends.
        let is_under_load = (2..seconds).contains(&started.elapsed().as_secs());
        memory.extend(resident(&child).filter(|_| is_under_load));
        parts.remove_full()?;
    };
    let lasted = started.elapsed().as_secs_f64();
    let end = parts
        .last()
        .with_context(|| format!("there is no recording; tracer ended with {status}"))?;
    ensure!(end["type"] == "end", "the recording has no end; tracer ended with {status}");
    let counters = end["counters"].as_array().context("no counters")?;
    let sum = |field: &str| counters.iter().filter_map(|row| row[field].as_u64()).sum();
    let claims = end["verdict"]["claims"].as_array().context("no verdict")?;
    let reasons = claims.iter().filter_map(|claim| claim["reasons"].as_array()).flatten();
    Ok(Soak {
        asked: seconds,
        status,
        made: made(scratch)?,
        recorded: parts.recorded,
        seconds: lasted,
        read: sum("read"),
        lost: sum("lost"),
        ruling: end["verdict"]["overall"].as_str().context("no verdict")?.to_owned(),
        reasons: reasons.filter_map(|reason| reason.as_str().map(str::to_owned)).collect(),
        memory,
        recording_bytes: parts.bytes,
    })
}

fn resident(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// The files of the recording.
struct Parts {
    first: PathBuf,
    /// Of the oldest that is still there.
    number: u32,
    recorded: Counts,
    bytes: u64,
}

impl Parts {
    fn file(&self, number: u32) -> PathBuf {
        match number {
            0 => self.first.clone(),
            more => PathBuf::from(format!("{}.{more}", self.first.display())),
        }
    }

    /// Those that another follows are not written any more.
    fn remove_full(&mut self) -> Result<()> {
        while self.file(self.number + 1).exists() {
            let file = self.file(self.number);
            self.count(&file)?;
            fs::remove_file(file)?;
            self.number += 1;
        }
        Ok(())
    }

    fn count(&mut self, file: &Path) -> Result<String> {
        let mut last = String::new();
        for line in BufReader::new(fs::File::open(file)?).lines() {
            let line = line?;
            let kind = line.strip_prefix(r#"{"type":""#).and_then(|rest| rest.split_once('"'));
            if let Some(count) = kind.and_then(|(kind, _)| self.recorded.get_mut(kind)) {
                *count += 1;
            }
            self.bytes += line.len() as u64 + 1;
            last = line;
        }
        Ok(last)
    }

    fn last(&mut self) -> Result<Value> {
        self.remove_full()?;
        let line = self.count(&self.file(self.number))?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Soak {
    /// Samples of one third of the time.
    fn third(&self, number: usize) -> &[u64] {
        let each = self.memory.len() / 3;
        self.memory.get(number * each..(number + 1) * each).unwrap_or_default()
    }

    fn most(&self, third: usize) -> u64 {
        self.third(third).iter().copied().max().unwrap_or(0)
    }

    /// From the least of the second third, as it began, to the most of the last. Rings are memory that is
    /// touched as they go round for the first time, so the first third is not compared.
    fn growth(&self) -> u64 {
        let least = self.third(1).iter().copied().min().unwrap_or(0);
        self.most(2).saturating_sub(least)
    }

    /// What is wrong.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |holds: bool, failure: String| failures.extend((!holds).then_some(failure));
        check(self.status.success(), format!("tracer ended with {}", self.status));
        check(
            self.seconds >= self.asked as f64,
            format!("it was over after {:.1} s, which is less than {} s", self.seconds, self.asked),
        );
        check(self.made.values().all(|count| *count > 0), "the load did nothing".to_owned());
        for (kind, made) in &self.made {
            let recorded = self.recorded.get(kind).copied().unwrap_or(0);
            check(
                recorded == *made,
                format!(
                    "{kind}: by what the load says, {made} were made, and {recorded} are recorded"
                ),
            );
        }
        let sum: u64 = self.recorded.values().sum();
        check(
            self.read >= sum,
            format!("tracer says that it read {} events, and {sum} are recorded", self.read),
        );
        check(self.lost == 0, format!("{} events were lost", self.lost));
        check(self.ruling == "proven", format!("{}: {}", self.ruling, self.reasons.join("; ")));
        // One each second, and now and then a second that is a little longer.
        let least = self.asked as usize * 3 / 4;
        check(
            self.memory.len() >= least,
            format!("memory was sampled {} times only; {least} were expected", self.memory.len()),
        );
        check(
            self.growth() <= GROWTH_BYTES,
            format!(
                "memory grew by {} bytes in the last two thirds of the time, {GROWTH_BYTES} at most were \
                 expected: at most {} in the first third, {} in the second, {} in the last",
                self.growth(),
                self.most(0),
                self.most(1),
                self.most(2)
            ),
        );
        failures
    }

    /// In one sentence, for the document.
    pub fn sentence(&self) -> String {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let kinds: Vec<String> =
            self.recorded.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        // The last two thirds of the time, in hours.
        let hours = self.seconds * 2.0 / 3.0 / 3600.0;
        format!(
            "{:.0} s with every processor saturated: {} events read ({:.0} a second, as many as in one hour \
             at {:.0} a second), {} lost, verdict {}; recorded of the kinds that the load counts itself: \
             {}; resident memory at most {:.1} MB in the first third of the time, {:.1} MB in the second, \
             {:.1} MB in the last; growth from the least of the second to the most of the last {:.2} MB, \
             where {:.2} MB is the most that is allowed ({:.0} MB in an hour like this); the recording had \
             {:.0} MB.",
            self.seconds,
            self.read,
            self.read as f64 / self.seconds,
            self.read as f64 / 3600.0,
            self.lost,
            self.ruling,
            kinds.join(", "),
            megabytes(self.most(0)),
            megabytes(self.most(1)),
            megabytes(self.most(2)),
            megabytes(self.growth()),
            megabytes(GROWTH_BYTES),
            megabytes(GROWTH_BYTES) / hours,
            megabytes(self.recording_bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn soak() -> Soak {
        let counts: Counts = KINDS.map(|kind| (kind, 5)).into();
        Soak {
            asked: 60,
            status: ExitStatus::from_raw(0),
            made: counts.clone(),
            recorded: counts,
            seconds: 61.0,
            read: 30,
            lost: 0,
            ruling: "proven".into(),
            reasons: Vec::new(),
            memory: vec![200_000_000; 57],
            recording_bytes: 1,
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(soak().failures(), [""; 0]);
        let failures = |change: fn(&mut Soak)| {
            let mut soak = soak();
            change(&mut soak);
            soak.failures().len()
        };
        assert_eq!(failures(|soak| soak.status = ExitStatus::from_raw(7 << 8)), 1);
        assert_eq!(failures(|soak| soak.seconds = 1.0), 1);
        assert_eq!(failures(|soak| *soak.recorded.entry("exec").or_default() -= 1), 1);
        assert_eq!(failures(|soak| soak.made.values_mut().for_each(|count| *count = 0)), 5);
        assert_eq!(failures(|soak| soak.read = 3), 1);
        assert_eq!(failures(|soak| soak.lost = 1), 1);
        assert_eq!(failures(|soak| soak.ruling = "inconclusive".into()), 1);
        assert_eq!(failures(|soak| soak.memory.truncate(2)), 1);
    }

    #[test]
    fn memory_that_grows_is_told_whenever_it_does_after_the_first_third() {
        let with = |memory: fn(u64) -> u64| {
            let memory = (0..57).map(|second| 200_000_000 + memory(second)).collect();
            Soak { memory, ..soak() }.failures().len()
        };
        assert_eq!(with(|second| second * 240_000), 1);
        assert_eq!(with(|second| if second < 50 { 0 } else { 9_000_000 }), 1);
        assert_eq!(with(|second| if second < 15 { 0 } else { 50_000_000 }), 0);
        assert_eq!(with(|second| second % 3 * 1_000_000), 0);
    }
}
