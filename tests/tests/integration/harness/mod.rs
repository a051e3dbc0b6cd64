//! What the tests share: a scratch directory, the tracer under test, its recordings, odd programs.

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

use std::process::{Child, Command};

use anyhow::Context as _;
pub(crate) use tracer_tests::{Skip, fixtures, on_path, program, skip};

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
