//! Names that programs have the C library resolve.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tracer::{
    policy::Ruling,
    record::schema::{Resolved, SensorState},
    session::{NameSource, Names},
};
use tracer_tests::lab::Lab;

use crate::{
    Test,
    harness::{Run, Scratch, fixtures, on_path, program, skip},
};

pub(crate) const TESTS: &[Test] = &[
    ("by_threads_and_children", by_threads_and_children),
    ("all_at_once", all_at_once),
    ("of_version_6", of_version_6),
    ("that_fails", that_fails),
    ("name_that_is_not_in_memory_yet", name_that_is_not_in_memory_yet),
    ("others_are_not_recorded", others_are_not_recorded),
    ("only_when_asked", only_when_asked),
    ("by_the_lab", by_the_lab),
    ("by_python", by_python),
    ("by_curl", by_curl),
    ("by_node", by_node),
    ("not_by_go", not_by_go),
    ("a_name_that_nothing_else_gives", a_name_that_nothing_else_gives),
    ("lost_and_no_name_needed", lost_and_no_name_needed),
];

const HOST: &str = "api.anthropic.com";
const ADDRESS: &str = "127.10.0.4";

fn sensor(run: &Run) -> Option<&SensorState> {
    run.story.start.sensors.iter().find(|row| row.sensor == "resolved")
}

/// Whether the machine's C library is where tracer looks for it.
fn watched(run: &Run) -> Result<()> {
    match &sensor(run).context("no such sensor")?.missing {
        None => Ok(()),
        Some(why) if why.contains("no C library") || why.contains("seccomp") => skip(why),
        Some(why) => anyhow::bail!("{why}"),
    }
}

/// The calls for a name, which were all recorded.
fn calls<'a>(run: &'a Run, name: &str) -> Result<Vec<&'a Resolved>> {
    watched(run)?;
    let counted = run.counted("resolved")?;
    ensure!(counted.lost == 0 && counted.produced == counted.read, "{counted:?}");
    Ok(run.story.resolved.iter().filter(|call| call.name == name).collect())
}

fn by_threads_and_children(scratch: &Scratch) -> Result<()> {
    let program = program(scratch, "resolve")?;
    let command = [program.as_os_str(), "localhost".as_ref()];
    let run = scratch.run(command).option("--resolver").record()?;
    let calls = calls(&run, "localhost")?;
    ensure!(calls.len() == 3 && run.story.resolved.len() == 3, "{:?}", run.story.resolved);
    for call in &calls {
        ensure!(call.error.is_none() && !call.truncated, "{call:?}");
        ensure!(call.addresses.contains(&IpAddr::from(Ipv4Addr::LOCALHOST)), "{call:?}");
        let each: BTreeSet<&IpAddr> = call.addresses.iter().collect();
        ensure!(each.len() == call.addresses.len(), "an address is there twice: {call:?}");
    }
    let threads: BTreeSet<u32> = calls.iter().map(|call| call.thread).collect();
    let processes: BTreeSet<u32> = calls.iter().map(|call| call.process.pid).collect();
    ensure!((threads.len(), processes.len()) == (3, 2), "{calls:?}");
    Ok(())
}

fn of_version_6(scratch: &Scratch) -> Result<()> {
    const ADDRESS: &str = "2001:db8::7:0:1";
    let program = program(scratch, "resolve")?;
    let command = [program.as_os_str(), ADDRESS.as_ref()];
    let run = scratch.run(command).option("--resolver").record()?;
    let calls = calls(&run, ADDRESS)?;
    let own: IpAddr = ADDRESS.parse()?;
    ensure!(calls.len() == 3, "{:?}", run.story.resolved);
    ensure!(calls.iter().all(|call| call.addresses == [own]), "{calls:?}");
    Ok(())
}

fn all_at_once(scratch: &Scratch) -> Result<()> {
    let program = program(scratch, "resolve")?;
    for (processes, threads, each) in [(5, 4, 10), (20, 4, 25)] {
        let words = [processes, threads, each].map(|number| OsString::from(number.to_string()));
        let command = std::iter::once(program.clone().into_os_string()).chain(words);
        let run = scratch.run(command).option("--resolver").record()?;
        run.exits(0)?;
        watched(&run)?;
        let mut expected: Vec<String> = Vec::new();
        for process in 0..processes {
            for thread in 0..threads {
                expected.extend((0..each).map(|call| format!("127.{process}.{thread}.{call}")));
            }
        }
        expected.sort();
        let mut found: Vec<String> = Vec::new();
        for call in &run.story.resolved {
            let own = call.name.parse::<IpAddr>().with_context(|| format!("{call:?}"))?;
            ensure!(call.addresses == [own] && call.error.is_none(), "{call:?}");
            found.push(call.name.clone());
        }
        found.sort();
        ensure!(found == expected, "{} calls of {}", found.len(), expected.len());
    }
    Ok(())
}

fn that_fails(scratch: &Scratch) -> Result<()> {
    let program = program(scratch, "resolve")?;
    // Longer than a name can be: the C library refuses it without asking anybody.
    let name = "a".repeat(300);
    let command = [program.as_os_str(), name.as_ref()];
    let run = scratch.run(command).option("--resolver").record()?;
    watched(&run)?;
    ensure!(run.story.resolved.len() == 3, "{:?}", run.story.resolved);
    for call in &run.story.resolved {
        ensure!(call.error.is_some() && call.addresses.is_empty(), "{call:?}");
        ensure!(call.name.len() == 255 && call.truncated, "its beginning: {call:?}");
    }
    Ok(())
}

fn name_that_is_not_in_memory_yet(scratch: &Scratch) -> Result<()> {
    let program = program(scratch, "resolve")?;
    let file = scratch.write("name", "127.0.0.99")?;
    let command = [program.as_os_str(), "--cold".as_ref(), file.as_os_str()];
    let run = scratch.run(command).option("--resolver").record()?;
    run.exits(0)?;
    ensure!(calls(&run, "127.0.0.99")?.len() == 1, "{:?}", run.story.resolved);
    Ok(())
}

fn others_are_not_recorded(scratch: &Scratch) -> Result<()> {
    let program = program(scratch, "resolve")?;
    let mut other = Command::new("sh")
        .args(["-c", "while :; do \"$0\" other.invalid-address.; \"$0\" 127.0.0.9; done"])
        .arg(&program)
        .stdin(Stdio::null())
        .spawn()?;
    let command = [program.as_os_str(), "localhost".as_ref()];
    let run = scratch.run(command).option("--resolver").record();
    other.kill()?;
    other.wait()?;
    let run = run?;
    ensure!(calls(&run, "localhost")?.len() == 3, "{:?}", run.story.resolved);
    ensure!(run.story.resolved.len() == 3, "{:?}", run.story.resolved);
    Ok(())
}

fn claim(kind: &str, endpoints: &str) -> String {
    format!("name = 'p'\n[[claim]]\nkind = '{kind}'\nendpoints = [{endpoints}]\n")
}

fn only_when_asked(scratch: &Scratch) -> Result<()> {
    for (kind, endpoints, asks) in [
        ("connects-only-to", "'api.example.com'", true),
        ("never-connects-to", "'class:telemetry'", true),
        // Whatever their names are.
        ("connects-only-to", "'10.0.0.0/8'", false),
    ] {
        let policy = scratch.write("policy.toml", &claim(kind, endpoints))?;
        let run = scratch.run(["true"]).policy(policy).record()?;
        let found = sensor(&run);
        ensure!(found.is_some() == asks, "{endpoints}: {found:?}");
        if asks {
            watched(&run)?;
            let found = found.context("it is there")?;
            ensure!(found.tax.contains("in every process"), "the tax is told: {found:?}");
            ensure!(found.hook.contains("libc"), "the file is named: {found:?}");
        }
    }
    for run in [scratch.run(["true"]), scratch.run(["true"]).policy("no-aws-cli")] {
        let run = run.record()?;
        ensure!(sensor(&run).is_none(), "nobody asked: {:?}", sensor(&run));
        ensure!(run.counted("resolved")?.produced == 0);
    }
    Ok(())
}

/// What a command that asks in a lab leaves: at least one call, which was told the address.
fn asks(scratch: &Scratch, command: &[OsString]) -> Result<Run> {
    let lab = Lab::start()?;
    let run =
        scratch.run(command).option("--resolver").by(|tracer| lab.command(tracer)).record()?;
    run.exits(0)?.all_seen()?;
    let address: IpAddr = ADDRESS.parse()?;
    let calls = calls(&run, HOST)?;
    ensure!(!calls.is_empty(), "no call for {HOST}: {:?}", run.story.resolved);
    for call in calls {
        ensure!(call.error.is_none() && call.addresses.contains(&address), "{call:?}");
    }
    Ok(run)
}

/// The connections to the host have the resolver's name behind that of DNS.
fn named(run: &Run) -> Result<()> {
    let names = Names::of(&run.story);
    let address: IpAddr = ADDRESS.parse()?;
    let is_it = |to: tracer::model::Endpoint| to.address == address && to.port == 443;
    let mut connections =
        run.story.connections.iter().filter(|one| one.destination.is_some_and(is_it));
    let naming = names.connection(connections.next().context("no connection")?);
    let sources: Vec<NameSource> = naming.names.iter().map(|named| named.source).collect();
    ensure!(naming.names.iter().all(|named| named.name == HOST), "{naming:?}");
    let expected = [NameSource::Sni, NameSource::OwnDns, NameSource::Resolver];
    ensure!(sources == expected && !naming.disagree, "{naming:?}");
    Ok(())
}

fn by_the_lab(scratch: &Scratch) -> Result<()> {
    let program = program(scratch, "resolve")?;
    let run = asks(scratch, &[program.into(), HOST.into()])?;
    ensure!(calls(&run, HOST)?.len() == 3, "{:?}", run.story.resolved);
    Ok(())
}

fn by_python(scratch: &Scratch) -> Result<()> {
    let python = on_path("python3")?;
    let script = format!(
        "import http.client, socket, ssl\n\
         assert socket.getaddrinfo('{HOST}', 443)\n\
         context = ssl._create_unverified_context()\n\
         call = http.client.HTTPSConnection('{HOST}', context=context)\n\
         call.request('GET', '/')\n\
         call.getresponse().read()\n"
    );
    let script = scratch.write("call.py", &script)?;
    named(&asks(scratch, &[python.into(), script.into()])?)
}

fn by_curl(scratch: &Scratch) -> Result<()> {
    let curl = on_path("curl")?;
    let url = format!("https://{HOST}/");
    let command = [curl.into(), "--silent".into(), "--insecure".into(), url.into()];
    named(&asks(scratch, &command)?)
}

/// Node asks in threads of a pool.
fn by_node(scratch: &Scratch) -> Result<()> {
    let node = on_path("node")?;
    let script = format!(
        "import {{ promises as dns }} from 'node:dns';
         const all = Array.from({{ length: 8 }}, () => dns.lookup('{HOST}', {{ all: true }}));
         await Promise.all(all);
         await (await fetch('https://{HOST}/')).text();"
    );
    let script = scratch.write("call.mjs", &script)?;
    let run = asks(scratch, &[node.into(), script.into()])?;
    let calls = calls(&run, HOST)?;
    ensure!(calls.len() == 9, "{calls:?}");
    let processes: BTreeSet<u32> = calls.iter().map(|call| call.process.pid).collect();
    ensure!(processes.len() == 1, "{processes:?}");
    ensure!(calls.iter().all(|call| call.thread != call.process.pid), "{calls:?}");
    named(&run)
}

fn hey() -> Result<PathBuf> {
    let ours = fixtures().join("../../target/tools/debian/bin/hey");
    if ours.is_file() { Ok(ours) } else { on_path("hey") }
}

/// Go's own resolver never comes near the C library.
fn not_by_go(scratch: &Scratch) -> Result<()> {
    let lab = Lab::start()?;
    let url = format!("https://{HOST}/");
    let command: [OsString; 6] =
        [hey()?.into(), "-n".into(), "1".into(), "-c".into(), "1".into(), url.into()];
    let run = scratch
        .run(command)
        .option("--resolver")
        .by(|tracer| lab.command(tracer))
        .env("GODEBUG", "netdns=go")
        .record()?;
    run.exits(0)?;
    ensure!(calls(&run, HOST)?.is_empty(), "{:?}", run.story.resolved);
    Ok(())
}

/// In a file of hosts of its own, which only the C library of the command reads.
fn a_name_that_nothing_else_gives(scratch: &Scratch) -> Result<()> {
    const PRIVATE: &str = "private.example";
    on_path("curl")?;
    let hosts = scratch.write("hosts", &format!("{ADDRESS} {PRIVATE}\n"))?;
    let policy = claim("connects-only-to", &format!("'{PRIVATE}'"));
    let policy = scratch.write("policy.toml", &policy)?;
    let script = "mount --bind \"$0\" /etc/hosts && exec curl --silent --insecure --output /dev/null \
                  https://private.example/";
    let judged = |options: &[&str]| -> Result<Run> {
        let lab = Lab::start()?;
        let command = ["unshare", "--mount", "sh", "-c", script].map(OsString::from);
        let command = command.into_iter().chain([hosts.clone().into_os_string()]);
        let mut tracer = scratch.run(command).by(|tracer| lab.command(tracer)).policy(&policy);
        for option in options {
            tracer = tracer.option(option);
        }
        tracer.record()
    };
    let run = judged(&[])?;
    watched(&run)?;
    let names = Names::of(&run.story);
    let naming = names.connection(run.only_connection()?);
    let sources: Vec<NameSource> = naming.names.iter().map(|named| named.source).collect();
    ensure!(sources == [NameSource::Sni, NameSource::Resolver], "{naming:?}");
    run.proven()?;
    // Nothing rests on a sensor that is not there, nor on one that lost something.
    let said = "no answer of DNS, the resolver or the hosts file gave it this address";
    let missing = judged(&["--debug-forbid=uprobe"])?;
    missing.rules(Ruling::Inconclusive)?.because(&[said])?;
    let lost = judged(&["--debug-lose=resolver=1"])?;
    lost.rules(Ruling::Inconclusive)?.because(&[said])?;
    let counted = lost.counted("resolved")?;
    ensure!(counted.produced > 0 && counted.lost == counted.produced, "{counted:?}");
    Ok(())
}

/// A claim that holds without any of the resolver's names holds whatever was lost of them.
fn lost_and_no_name_needed(scratch: &Scratch) -> Result<()> {
    let curl = on_path("curl")?;
    let lab = Lab::start()?;
    let policy = scratch.write("policy.toml", &claim("connects-only-to", &format!("'{HOST}'")))?;
    let url = format!("https://{HOST}/");
    let command: [OsString; 4] = [curl.into(), "--silent".into(), "--insecure".into(), url.into()];
    let run = scratch
        .run(command)
        .policy(policy)
        .option("--debug-lose=resolver=1")
        .by(|tracer| lab.command(tracer))
        .record()?;
    watched(&run)?;
    run.proven()?;
    let counted = run.counted("resolved")?;
    ensure!(counted.lost > 0 && counted.read == 0, "{counted:?}");
    Ok(())
}
