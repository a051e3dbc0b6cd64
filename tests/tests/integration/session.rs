//! The bundled agent session, in the lab where all it calls is answered.

use std::ffi::OsStr;

use anyhow::{Result, ensure};
use tracer::policy::Ruling;
use tracer_tests::lab::{Lab, active_opens_of};

use crate::{
    Test,
    harness::{Run, Scratch, fixtures, on_path, skip},
    names::same_as_the_log,
};

pub(crate) const TESTS: &[Test] = &[
    ("direct", |scratch| proven(scratch, "direct")),
    ("bedrock", |scratch| proven(scratch, "bedrock")),
    ("guardrail", |scratch| proven(scratch, "guardrail")),
    ("shell_out_to_the_cli", shell_out_to_the_cli),
    ("lost_records", lost_records),
];

/// Traces one session and holds its connections against the lab's own count.
pub(crate) fn session(scratch: &Scratch, arguments: &[&str], options: &[&str]) -> Result<Run> {
    on_path("node")?;
    let agent = fixtures().join("agent");
    if !agent.join("node_modules").is_dir() {
        return skip("the agent's packages are not installed; `cargo xtask setup` does that");
    }
    let lab = Lab::start()?;
    let opens = || -> Result<u64> {
        let output = lab.command("cat").arg("/proc/self/net/snmp").output()?;
        active_opens_of(std::str::from_utf8(&output.stdout)?)
    };
    let script = agent.join("agent.mjs");
    let command = [OsStr::new("node"), script.as_os_str()];
    let command = command.into_iter().chain(arguments.iter().map(OsStr::new));
    let mut tracer = scratch.run(command).policy("no-aws-cli").by(|tracer| lab.command(tracer));
    for option in options {
        tracer = tracer.option(option);
    }
    let before = opens()?;
    let run = tracer.record()?;
    // The server of the lab opens none.
    let opened = opens()? - before;
    if options.is_empty() {
        let recorded = run.story.connections.len() as u64;
        ensure!(
            recorded == opened,
            "{recorded} connections recorded, {opened} opened: {:?}",
            run.connection_lines()
        );
        same_as_the_log(&run, &lab.requests()?, |request| Some(request.host.clone()))?;
    }
    Ok(run)
}

fn proven(scratch: &Scratch, mode: &str) -> Result<()> {
    let run = session(scratch, &["--mode", mode], &[])?;
    run.proven()?;
    ensure!(run.story.execs > 3, "only {} execs", run.story.execs);
    ensure!(!run.story.connections.is_empty(), "no connection");
    Ok(())
}

fn shell_out_to_the_cli(scratch: &Scratch) -> Result<()> {
    let installed = fixtures().join("../../target/tools/awscli/bin/aws");
    if !installed.is_file() {
        return skip("the AWS CLI is not installed; `cargo xtask setup` does that");
    }
    let run = session(scratch, &["--mode", "bedrock", "--shell-out"], &[])?;
    run.rules(Ruling::Violated)?.because(&["runs aws"])?;
    // The exec is named with its command line and with everything above it, up to node.
    let said = &run.output.stderr;
    let line = said.lines().find(|line| line.contains("violated by")).unwrap_or_default();
    ensure!(line.contains("aws") && line.contains("started by"), "{said}");
    let (_, above) = line.split_once("started by").unwrap_or_default();
    ensure!(above.contains("node ") && above.contains("agent.mjs"), "{line}");
    Ok(())
}

fn lost_records(scratch: &Scratch) -> Result<()> {
    let options = ["--debug-lose=process=5", "--linger=0"];
    let run = session(scratch, &["--mode", "bedrock"], &options);
    let run = match run {
        Ok(run) => run,
        // The canary itself lost a record: then the command is not even started.
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(said.contains("nothing was started"), "{said}");
            return Ok(());
        }
    };
    run.rules(Ruling::Inconclusive)?.because(&["were lost"])?;
    Ok(())
}
