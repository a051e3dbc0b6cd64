//! Real Node processes and every way they have to start something.

use std::ffi::OsString;

use anyhow::{Context as _, Result, ensure};
use tracer::policy::Ruling;

use crate::{
    Test,
    harness::{Peer, Run, Scratch, Tracer, fixtures, in_private_network, on_path},
};

pub(crate) const TESTS: &[Test] = &[
    ("child_processes", child_processes),
    ("worker_threads", worker_threads),
    ("cluster", cluster),
    ("detached_child_outlives_the_parent", detached_child_outlives_the_parent),
    ("detached_child_is_waited_for", detached_child_is_waited_for),
];

/// `node SCRIPT ARGUMENTS...` of the fixtures, to be traced under no-aws-cli.
fn script<'a>(scratch: &'a Scratch, name: &str, arguments: &[&str]) -> Result<Tracer<'a>> {
    on_path("node")?;
    let script = fixtures().join("node").join(name).into_os_string();
    let command = [OsString::from("node"), script];
    let command = command.into_iter().chain(arguments.iter().map(OsString::from));
    Ok(scratch.run(command).policy("no-aws-cli"))
}

/// The tree, with `$NODE` for the fixtures' folder.
fn has_tree(run: &Run, tree: &str) -> Result<()> {
    run.tree(&tree.replace("$NODE", &fixtures().join("node").to_string_lossy()))?;
    Ok(())
}

fn child_processes(scratch: &Scratch) -> Result<()> {
    let run = script(scratch, "children.mjs", &[])?.record()?;
    run.proven()?;
    let node = on_path("node")?;
    has_tree(
        &run,
        &format!(
            "
            node $NODE/children.mjs : exit 0
              (fork) : exit 127
              /bin/sh -c true shell; exit 17 : exit 17
              /bin/sh -c true exec; exit 12 : exit 12
              {node} $NODE/forked.mjs fork : exit 14
              sh -c exit 11 spawn : exit 11
              sh -c exit 13 execFile two words  : exit 13
              sh -c exit 15 spawnSync : exit 15
              sh -c kill -9 $$ : signal 9
              true execFileSync : exit 0
            ",
            node = std::fs::canonicalize(&node).unwrap_or(node).display()
        ),
    )?;
    let execs = run.execs();
    let exec = execs.iter().find(|exec| exec.argv.args.iter().any(|word| word.0 == b"execFile"));
    let argv = &exec.context("execFile was not seen")?.argv;
    ensure!(argv.args.len() == 6 && argv.args[5].is_empty() && argv.complete, "{argv:?}");
    Ok(())
}

fn worker_threads(scratch: &Scratch) -> Result<()> {
    const WORKERS: usize = 4;
    let run = in_private_network(|network| {
        let (listener, address) = network.listen("127.0.0.1:0")?;
        Peer { receives: 5, sends: 0, closes_first: false }.serve(listener, WORKERS);
        let (port, workers) = (address.port().to_string(), WORKERS.to_string());
        let before = network.active_opens()?;
        let run = script(scratch, "workers.mjs", &[&port, &workers])?.record()?;
        let opened = network.active_opens()? - before;
        ensure!(opened == WORKERS as u64, "{opened} connections opened");
        Ok((run, port))
    });
    let (run, port) = run?;
    run.proven()?;
    has_tree(
        &run,
        &format!(
            "
            node $NODE/workers.mjs {port} {WORKERS} : exit 0
              sh -c exit 20 : exit 20
              sh -c exit 21 : exit 21
              sh -c exit 22 : exit 22
              sh -c exit 23 : exit 23
            "
        ),
    )?;
    run.connections(&"127.0.0.1 established sent 5 received 0\n".repeat(WORKERS))?;
    ensure!(
        run.story.connections.iter().all(|connection| Some(connection.process) == run.story.root()),
        "a worker's connection belongs to another process"
    );
    Ok(())
}

fn cluster(scratch: &Scratch) -> Result<()> {
    const WORKERS: usize = 3;
    let (run, opened) = in_private_network(|network| {
        let before = network.active_opens()?;
        let run = script(scratch, "cluster.mjs", &[&WORKERS.to_string()])?.record()?;
        Ok((run, network.active_opens()? - before))
    })?;
    run.proven()?;
    let node = std::fs::canonicalize(on_path("node")?)?;
    let worker = format!("  {} $NODE/cluster.mjs {WORKERS} : exit 0\n", node.display());
    let tree = format!("node $NODE/cluster.mjs {WORKERS} : exit 0\n{}", worker.repeat(WORKERS));
    has_tree(&run, &tree)?;
    ensure!(opened == 2 * WORKERS as u64, "{opened} connections opened");
    ensure!(run.story.connections.len() as u64 == opened, "{:?}", run.connection_lines());
    ensure!(
        run.story.connections.iter().all(|connection| connection.is_established()),
        "{:?}",
        run.connection_lines()
    );
    Ok(())
}

fn detached_child_outlives_the_parent(scratch: &Scratch) -> Result<()> {
    let run = script(scratch, "detached.mjs", &["62"])?.option("--linger=0").record()?;
    run.rules(Ruling::Inconclusive)?.because(&["still running", "sleep (pid "])?;
    has_tree(
        &run,
        "
        node $NODE/detached.mjs 62 : exit 0
          sleep 62 : running
        ",
    )
}

fn detached_child_is_waited_for(scratch: &Scratch) -> Result<()> {
    let run = script(scratch, "detached.mjs", &["1"])?.option("--linger=60").record()?;
    run.proven()?;
    has_tree(
        &run,
        "
        node $NODE/detached.mjs 1 : exit 0
          sleep 1 : exit 0
        ",
    )
}
