//! What the tests share: a scratch directory, the tracer under test, its recordings, odd programs.

pub(crate) mod attached;
mod compare;
mod network;
mod run;
mod scratch;
mod tracer;
mod tree;

pub(crate) use compare::same_lines;
pub(crate) use network::{Network, Peer, in_private_network};
pub(crate) use run::Run;
pub(crate) use scratch::Scratch;
pub(crate) use tracer::{Output, Tracer, child_of, tracer_program, wait_for};

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tracer_tests::vm;
pub(crate) use tracer_tests::{
    Skip, copy_program, fixtures, on_path, program, skip, write_program,
};

/// Somebody who is not root, as the caller behind sudo.
pub(crate) const NOBODY: u32 = 65_534;

/// How often tests repeat what they repeat: `TRACER_TEST_REPEAT`, or else so often.
pub(crate) fn repeats(usually: u64) -> anyhow::Result<u64> {
    Ok(number("TRACER_TEST_REPEAT")?.unwrap_or(usually))
}

/// Of what is random: `TRACER_TEST_SEED`, or else another one each time. To be told when something fails.
pub(crate) fn seed() -> anyhow::Result<u64> {
    Ok(number("TRACER_TEST_SEED")?.unwrap_or(std::process::id().into()))
}

fn number(variable: &str) -> anyhow::Result<Option<u64>> {
    let text = std::env::var(variable).ok();
    let number = text.map(|text| text.parse()).transpose();
    number.with_context(|| format!("{variable} is not a number"))
}

/// Waits for what happens soon; a hang shall not hang the suite.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    until_some(what, || done().then_some(()))
}

/// As [`until`], for what has a value.
pub(crate) fn until_some<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    const LONGEST: Duration = Duration::from_secs(120);
    let deadline = Instant::now() + vm::patience(LONGEST);
    loop {
        if let Some(value) = value() {
            return Ok(value);
        }
        ensure!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process that ends with its owner.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) Child);

impl Ended {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Ended> {
        Ok(Ended(command.spawn().with_context(|| format!("cannot start {command:?}"))?))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
