//! Claims over connections, and who may call what a forbidden program would have to.

use std::{ffi::OsStr, process::Command};

use anyhow::{Context as _, Result, ensure};
use tracer::{policy::Ruling, record::schema::CommandCgroup};
use tracer_tests::lab::Lab;

use crate::{
    Test,
    harness::{Peer, Run, Scratch, fixtures, in_private_network, on_path, program, skip},
};

pub(crate) const TESTS: &[Test] = &[
    ("addresses_are_judged", addresses_are_judged),
    ("names_are_judged", names_are_judged),
    ("who_may_call_aws", who_may_call_aws),
    ("who_called_is_unknown_without_a_cgroup", who_called_is_unknown_without_a_cgroup),
    ("endpoints_are_explained", endpoints_are_explained),
];

fn claim(kind: &str, endpoints: &str) -> String {
    format!("name = 'p'\n[[claim]]\nkind = '{kind}'\nendpoints = [{endpoints}]\n")
}

/// Ended as that, and for a reason with these words if there are any.
fn ruled(run: &Run, ruling: Ruling, words: &[&str]) -> Result<()> {
    run.rules(ruling)?;
    if !words.is_empty() {
        run.because(words)?;
    }
    Ok(())
}

fn addresses_are_judged(scratch: &Scratch) -> Result<()> {
    let dial = program(scratch, "dial")?;
    let (only, never) = ("connects-only-to", "never-connects-to");
    for (kind, endpoints, ruling, words) in [
        (only, "'127.0.0.0/8'", Ruling::Proven, &[][..]),
        (only, "'10.0.0.0/8', '::1'", Ruling::Violated, &["which is not listed"]),
        (only, "'127.9.9.9:1'", Ruling::Violated, &["which is not listed"]),
        (only, "'api.example.com'", Ruling::Inconclusive, &["nothing tells its name"]),
        (never, "'10.0.0.0/8'", Ruling::Proven, &[][..]),
        (never, "'127.9.9.9'", Ruling::Violated, &["which is forbidden"]),
        (never, "'class:telemetry'", Ruling::Inconclusive, &["nothing tells its name"]),
    ] {
        let policy = scratch.write("policy.toml", &claim(kind, endpoints))?;
        let run = in_private_network(|network| {
            let (listener, address) = network.listen("127.9.9.9:0")?;
            Peer { receives: 0, sends: 0, closes_first: false }.serve(listener, 1);
            let command = format!("{} 127.9.9.9 {} 1 0 0", dial.display(), address.port());
            scratch.run(command.split(' ')).policy(&policy).record()
        })?;
        ruled(&run, ruling, words).with_context(|| format!("{kind} {endpoints}"))?;
    }
    // To try is to contact.
    let policy = scratch.write("policy.toml", &claim(never, "'127.9.9.9'"))?;
    let run = in_private_network(|_| {
        let command = format!("{} 127.9.9.9 9 1 0 0", dial.display());
        scratch.run(command.split(' ')).policy(&policy).record()
    })?;
    ruled(&run, Ruling::Violated, &["127.9.9.9:9", "which is forbidden"])
}

/// The bundled session, or a shell around it, in a lab of its own.
fn session(scratch: &Scratch, policy: &str, around: &[&str]) -> Result<Run> {
    on_path("node")?;
    let agent = fixtures().join("agent");
    if !agent.join("node_modules").is_dir() {
        return skip("the agent's packages are not installed; `cargo xtask setup` does that");
    }
    let policy = scratch.write("policy.toml", policy)?;
    let lab = Lab::start()?;
    let script = agent.join("agent.mjs");
    let own = ["node".as_ref(), script.as_os_str(), "--mode".as_ref(), "bedrock".as_ref()];
    let command = around.iter().map(OsStr::new).chain(own);
    scratch.run(command).policy(policy).by(|tracer| lab.command(tracer)).record()
}

fn names_are_judged(scratch: &Scratch) -> Result<()> {
    let all = "'service:bedrock-runtime', 'class:mcp'";
    let run = session(scratch, &claim("connects-only-to", all), &[])?;
    run.proven()?;
    let run = session(scratch, &claim("connects-only-to", "'service:bedrock-runtime'"), &[])?;
    ruled(&run, Ruling::Violated, &["api.githubcopilot.com", "which is not listed"])?;
    let run = session(scratch, &claim("never-connects-to", "'provider:anthropic'"), &[])?;
    run.proven()?;
    let run = session(scratch, &claim("never-connects-to", "'**.amazonaws.com'"), &[])?;
    ruled(&run, Ruling::Violated, &["bedrock-runtime.us-east-1.amazonaws.com", "forbidden"])
}

fn who_may_call_aws(scratch: &Scratch) -> Result<()> {
    let policy = |users: &str| {
        format!("name = 'p'\n[[claim]]\nkind = 'never-runs'\nprograms = ['aws']\n{users}\n")
    };
    let around = ["sh", "-c", "\"$@\"; :", "sh"];
    let run = session(scratch, &policy(""), &around)?;
    ruled(&run, Ruling::Inconclusive, &["called bedrock-runtime.us-east-1.amazonaws.com"])?;
    session(scratch, &policy("sdk-users = ['node']"), &around)?.proven()?;
    session(scratch, &policy(""), &[])?.proven()?;
    Ok(())
}

/// Whether another program than the command's own called AWS is known by names only, and those by packets.
fn who_called_is_unknown_without_a_cgroup(scratch: &Scratch) -> Result<()> {
    const WITHOUT: &str = "umount --recursive /sys/fs/cgroup && exec \"$@\"";
    let run = |command: &[&str]| {
        let tracer = scratch.run(command).policy("no-aws-cli").by(|tracer| {
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "sh", "-c", WITHOUT, "sh"]).arg(tracer);
            unshare
        });
        tracer.record()
    };
    let alone = run(&["true"])?;
    ensure!(
        matches!(alone.story.start.cgroup, Some(CommandCgroup::Absent(_))),
        "{:?}",
        alone.story.start.cgroup
    );
    alone.proven()?;
    // An exec of the first process is the command's own program; a child is another one.
    let with_a_child = run(&["sh", "-c", "env true; true"])?;
    ruled(
        &with_a_child,
        Ruling::Inconclusive,
        &["what other programs called is not known by name", "cgroup"],
    )
}

fn endpoints_are_explained(scratch: &Scratch) -> Result<()> {
    let check = |arguments: &[&str]| {
        scratch.tracer(&[&["policy", "check"][..], arguments].concat()).output()
    };
    check(&["--endpoint", "sts.eu-west-1.amazonaws.com", "no-aws-cli"])?
        .exits(0)?
        .prints("service aws-sts, provider aws, class credentials, region eu-west-1")?
        .prints("by the rule sts.{region}.amazonaws.com")?
        .prints("any program but @command")?;
    check(&["--endpoint", "evil-amazonaws.com"])?.exits(0)?.prints("no rule of the catalogue")?;
    check(&["--endpoint", "https://a.b/c"])?.exits(2)?.says("is a URL")?;
    check(&[])?.exits(2)?;
    let text = "[[endpoint]]\nservice = 'gateway'\nprovider = 'us'\nclass = 'api'\n\
                names = ['gw.example.com']\n";
    let catalogue = scratch.write("catalogue.toml", text)?;
    let catalogue = catalogue.to_string_lossy();
    let policy = scratch.write("policy.toml", &claim("connects-only-to", "'service:gateway'"))?;
    let policy = policy.to_string_lossy();
    check(&[&policy])?.exits(2)?.says("no endpoint of `service:gateway`")?;
    check(&["--catalogue", &catalogue, &policy])?.exits(0)?.prints("gw.example.com")?;
    let wrong = scratch.write("wrong.toml", &text.replace("gw.", "gw..")).context("wrong.toml")?;
    check(&["--catalogue", &wrong.to_string_lossy(), &policy])?.exits(2)?.says("empty label")?;
    Ok(())
}
