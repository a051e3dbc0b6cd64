//! What is measured: a program that does one thing many times and says how long that took.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};

use crate::{fixtures, on_path, scratch::Scratch};

/// The thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Spawn,
    Connect,
    NullCall,
    FailedExec,
    UdpConnect,
    Resolve,
    /// A call of `SSL_write` that fails at once.
    TlsWrite,
    /// Reads the clock and says what it showed, as the wall time.
    Clock,
}

impl Deed {
    fn word(self) -> &'static str {
        match self {
            Deed::Spawn => "spawn",
            Deed::Connect => "connect",
            Deed::NullCall => "null",
            Deed::FailedExec => "try",
            Deed::UdpConnect => "udp",
            Deed::Resolve => "resolve",
            Deed::TlsWrite => "tls",
            Deed::Clock => "clock",
        }
    }
}

/// The processor that loads run on, and the one for everything that watches them.
pub const LOAD_CPU: usize = 0;
pub const TOOL_CPU: usize = 1;

/// What a load said about itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    pub wall_ns: f64,
    /// Of its own processes.
    pub cpu_ns: f64,
}

/// The compiled load.
#[derive(Debug)]
pub struct Loads {
    program: PathBuf,
    /// The same with the machine's C library, for its resolver and for TLS.
    dynamic: PathBuf,
    /// A static program that ends at once.
    spawned: PathBuf,
}

impl Loads {
    pub fn compile(scratch: &Scratch) -> Result<Loads> {
        let compile = |source: &Path, to: &str, how: &str| {
            let to = scratch.file(to);
            let mut cc = Command::new(on_path("cc")?);
            cc.args(["-std=gnu11", "-O2", how, "-Wall", "-Wextra", "-Werror", "-o"]);
            let output = cc.arg(&to).arg(source).output().context("cannot start cc")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(to)
        };
        let nothing = scratch.write("nothing.c", "int main(void) { return 0; }\n")?;
        let load = fixtures().join("programs/bench-load.c");
        Ok(Loads {
            program: compile(&load, "bench-load", "-static")?,
            dynamic: compile(&load, "bench-load-dynamic", "-DDYNAMIC")?,
            spawned: compile(&nothing, "nothing", "-static")?,
        })
    }

    /// A static program that ends at once.
    pub(crate) fn spawned(&self) -> &Path {
        &self.spawned
    }

    /// The command line that does it this often.
    pub fn command(&self, deed: Deed, count: u64, cpu: usize) -> Vec<String> {
        let program = match deed {
            Deed::Resolve | Deed::TlsWrite => &self.dynamic,
            Deed::Spawn
            | Deed::Connect
            | Deed::NullCall
            | Deed::FailedExec
            | Deed::UdpConnect
            | Deed::Clock => &self.program,
        };
        let words = [
            program.display().to_string(),
            cpu.to_string(),
            deed.word().to_owned(),
            count.to_string(),
            self.spawned.display().to_string(),
        ];
        words.into()
    }
}

impl Loads {
    /// The same, done by Node.
    pub fn in_node(&self, deed: Deed, count: u64) -> Result<Vec<String>> {
        let words = [
            on_path("taskset")?.display().to_string(),
            "-c".to_owned(),
            LOAD_CPU.to_string(),
            on_path("node")?.display().to_string(),
            fixtures().join("node/bench.mjs").display().to_string(),
            LOAD_CPU.to_string(),
            deed.word().to_owned(),
            count.to_string(),
            self.spawned.display().to_string(),
        ];
        Ok(words.into())
    }

    /// This work, timed from its start to its end.
    pub fn whole(&self, work: &[String], cpu: usize) -> Vec<String> {
        let program = self.program.display().to_string();
        let words = [program, cpu.to_string(), "whole".to_owned(), "1".to_owned()];
        words.into_iter().chain(work.iter().cloned()).collect()
    }

    /// The load among this many processes that are alive and do nothing.
    pub fn among(&self, alive: u64, command: &[String]) -> Vec<String> {
        let crowd = "for i in $(seq $0); do sleep 600 & done; \"$@\"; code=$?; kill $(jobs -p); \
                     wait 2>/dev/null; exit $code";
        let words = ["bash", "-c", crowd, &alive.to_string()].map(str::to_owned);
        words.into_iter().chain(command.iter().cloned()).collect()
    }
}

/// What the load printed on its standard output, whoever ran it.
pub fn cost(output: &Output) -> Result<Cost> {
    let said = String::from_utf8_lossy(&output.stdout);
    let parse = || {
        let mut numbers = said.lines().last()?.split_whitespace();
        let (wall, cpu) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        Some(Cost { wall_ns: wall, cpu_ns: cpu })
    };
    ensure!(
        output.status.success(),
        "the load ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    parse().with_context(|| format!("the load printed {said:?}"))
}
