//! tracer as a program, on this machine's kernel.
//!
//! Each test is a function over a [`Scratch`]: a directory, the traced command, and what is left of
//! it are gone afterwards, also when the test fails. `TRACER_BIN` names another tracer than the
//! release build; `TRACER_TEST_REPEAT` another number than 1,000 for the tests that repeat,
//! and `TRACER_TEST_SEED` the seed of those that are random.

mod attach;
mod attacked;
mod attempts;
mod compare;
mod connect;
mod containers;
mod contract;
mod credentials;
mod datagrams;
mod enforce;
mod evasions;
mod exec;
mod harness;
mod hello;
mod hidden;
mod http;
mod identity;
mod long;
mod loss;
mod maps;
mod names;
mod namespaces;
mod node;
mod opentelemetry;
mod ordinary;
mod outside;
mod pids;
mod policies;
mod power;
mod readme;
mod recording;
mod report;
mod resolve;
mod screen;
mod sensors;
mod services;
mod session;
mod swarm;
mod terminal;
mod thousand;
mod tls;
mod watch;
mod wrappers;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use harness::{Scratch, Skip};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tracer_tests::vm;

/// A test: its name and what it does.
type Test = (&'static str, fn(&Scratch) -> anyhow::Result<()>);

/// Behind nohup(1), or started in the background by a script, signals are ignored, and so they are by
/// everything that the tests start and send them to.
fn heed_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the default is no function of this program, and no other thread runs yet.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn main() -> ExitCode {
    heed_signals();
    let mut arguments = Arguments::from_args();
    // The long ones come first. Tests wait for the kernel a good part of their time.
    arguments.test_threads.get_or_insert(3);
    let why_none = why_none();
    let modules: &[(&str, &[Test])] = &[
        ("thousand", thousand::TESTS),
        ("tls", tls::TESTS),
        ("http", http::TESTS),
        ("swarm", swarm::TESTS),
        ("attach", attach::TESTS),
        ("containers", containers::TESTS),
        ("attacked", attacked::TESTS),
        ("power", power::TESTS),
        ("ordinary", ordinary::TESTS),
        ("enforce", enforce::TESTS),
        ("exec", exec::TESTS),
        ("node", node::TESTS),
        ("opentelemetry", opentelemetry::TESTS),
        ("long", long::TESTS),
        ("connect", connect::TESTS),
        ("namespaces", namespaces::TESTS),
        ("datagrams", datagrams::TESTS),
        ("loss", loss::TESTS),
        ("recording", recording::TESTS),
        ("contract", contract::TESTS),
        ("terminal", terminal::TESTS),
        ("session", session::TESTS),
        ("credentials", credentials::TESTS),
        ("names", names::TESTS),
        ("identity", identity::TESTS),
        ("attempts", attempts::TESTS),
        ("outside", outside::TESTS),
        ("services", services::TESTS),
        ("pids", pids::TESTS),
        ("sensors", sensors::TESTS),
        ("policies", policies::TESTS),
        ("maps", maps::TESTS),
        ("resolve", resolve::TESTS),
        ("watch", watch::TESTS),
        ("wrappers", wrappers::TESTS),
        ("readme", readme::TESTS),
        ("report", report::TESTS),
        ("compare", compare::TESTS),
        ("screen", screen::TESTS),
        ("evasions", evasions::TESTS),
        ("hidden", hidden::TESTS),
    ];
    let trial = |name: String, test: Box<dyn FnOnce() -> anyhow::Result<()> + Send>| {
        let why_none = why_none.clone();
        Trial::ignorable_test(name.clone(), move || run(&name, test, why_none))
    };
    let trial = &trial;
    let functions = modules.iter().flat_map(|(module, tests)| {
        tests.iter().map(move |(name, test)| {
            let test = *test;
            let in_scratch = move || Scratch::new().and_then(|scratch| test(&scratch));
            trial(format!("{module}::{name}"), Box::new(in_scratch))
        })
    });
    let rows = tracer_tests::evasions::rows().map(move |row| {
        let name = row.name.replace(' ', "_");
        trial(format!("evasions::{name}"), Box::new(move || evasions::check(row)))
    });
    let hidden = tracer_tests::hidden::rows().map(move |row| {
        let name = row.name.replace(' ', "_");
        trial(format!("hidden::{name}"), Box::new(move || hidden::check(row)))
    });
    let trials = functions.chain(rows).chain(hidden);
    let trials = trials.filter(|trial| vm::is_selected(trial.name())).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What keeps this machine from running any of the tests. A tracer that is missing does not: each
/// test fails then.
fn why_none() -> Option<String> {
    let is_root = rustix::process::geteuid().is_root();
    (!is_root).then(|| "it traces with the kernel's probes, which needs root".into())
}

/// Says which tests take long, since all of them together have a limit.
fn timed(name: &str, test: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    const LONG: Duration = Duration::from_secs(10);
    let began = Instant::now();
    let result = test();
    let took = began.elapsed();
    if took >= LONG {
        eprintln!("  {name} took {} s", took.as_secs());
    }
    result
}

fn run(
    name: &str,
    test: impl FnOnce() -> anyhow::Result<()>,
    why_none: Option<String>,
) -> Result<Completion, Failed> {
    let result = match why_none {
        Some(reason) => Err(Skip(reason).into()),
        None => timed(name, test),
    };
    match result {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast::<Skip>() {
            Ok(Skip(reason)) => {
                // Indented: a line that begins with `skipped: ` stands for a test that its runner
                // counts as passed, and this one is counted as ignored. On standard error, where
                // no other test's result can stand in the same line.
                eprintln!("  skipped: {name}: {reason}");
                vm::report::skipped(name, &reason);
                Ok(Completion::ignored_with(reason))
            }
            Err(error) => {
                let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
                Err(Failed::from(causes.join("\n")))
            }
        },
    }
}
