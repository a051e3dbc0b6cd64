//! Each sensor, by each of its ways to attach: what this kernel must have, is attached and sees.
//!
//! In a virtual machine the kernel is known, so that what is missing has failed. On a machine of
//! which nothing is known, a kernel may refuse programs on its functions, and the test says so.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    net::{SocketAddr, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tracer::probe::{
    kernel_release,
    sensors::{Attach, FILES, Hook, MAPS, SENSORS, Sensor, Wanted},
};
use tracer_tests::vm::{self, report};

use crate::{
    Test,
    harness::{
        Ended, Network, Peer, Run, Scratch, copy_program, in_private_network, on_path, program,
        skip,
    },
};

pub(crate) const TESTS: &[Test] = &[
    ("each_sees", each_sees),
    ("each_sees_by_other_ways", each_sees_by_other_ways),
    ("each_sees_by_other_ways_to_send", each_sees_by_other_ways_to_send),
    ("instruction_budgets", instruction_budgets),
    ("documentation_has_every_way", documentation_has_every_way),
    ("refused_when_confidential", refused_when_confidential),
];

/// The ways of [`Attach::way`] that tracer is kept from.
fn each_sees(scratch: &Scratch) -> Result<()> {
    exercise(scratch, &[])
}

fn each_sees_by_other_ways(scratch: &Scratch) -> Result<()> {
    exercise(scratch, &["fexit", "uprobe-multi"])
}

fn each_sees_by_other_ways_to_send(scratch: &Scratch) -> Result<()> {
    exercise(scratch, &["local_send", "foreign_send"])
}

/// A kernel by the first two numbers of its release, or of a version in the table.
fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    let mut next = || numbers.next().flatten().unwrap_or(0);
    (next(), next())
}

/// Why a way to attach cannot be there; `None` when it must.
fn why_not(sensor: &Sensor, hook: &Hook, forbidden: &[&str]) -> Option<String> {
    let kernel = numbers(&kernel_release());
    if kernel < numbers(hook.since) {
        return Some(format!("from {} on", hook.since));
    }
    if !hook.until.is_empty() && kernel >= numbers(hook.until) {
        return Some(format!("until {}", hook.until));
    }
    let in_machine = vm::forbidden_ways();
    if hook.names().any(|name| forbidden.contains(&name) || in_machine.iter().any(|no| no == name))
    {
        return Some("forbidden".into());
    }
    (sensor.wanted == Wanted::WithCgroup && !has_v2_cgroups()).then(|| "no v2 cgroups".into())
}

fn has_v2_cgroups() -> bool {
    vm::profile().is_none_or(|profile| profile.has_v2_cgroups)
}

/// Traces one command that does something for every sensor.
fn exercise(scratch: &Scratch, forbidden: &[&str]) -> Result<()> {
    let stage = Stage::set(scratch)?;
    let run = in_private_network(|network| stage.trace(network, forbidden))?;
    let mut wrong = Vec::new();
    for sensor in SENSORS {
        if let Err(error) = check(sensor, &run, forbidden) {
            wrong.push(format!("{}: {error:#}", sensor.name));
        }
    }
    for (plain, seen) in
        [(FILES, !run.story.opened.is_empty()), (MAPS, !run.story.mapped.is_empty())]
    {
        if seen {
            report::hook(plain.name, plain.hook, "seen");
        } else {
            wrong.push(format!("{}: it saw nothing", plain.name));
        }
    }
    ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), run.output.stderr);
    Ok(())
}

fn check(sensor: &Sensor, run: &Run, forbidden: &[&str]) -> Result<()> {
    let state = run.story.start.sensors.iter().find(|state| state.sensor == sensor.name);
    let state = state.context("the recording does not name it")?;
    let mut expected = None;
    for hook in sensor.hooks {
        match why_not(sensor, hook, forbidden) {
            None => expected = expected.or(Some(hook)),
            Some(why) => report::hook(sensor.name, &hook.describe(), &why),
        }
    }
    let on_functions = |hook: &Hook| {
        hook.probes.iter().any(|probe| matches!(probe.attach, Attach::FunctionExit(_)))
    };
    // What this kernel was built or locked down to refuse; never in a virtual machine.
    let is_refused = |hook: &Hook| {
        vm::profile().is_none() && on_functions(hook) && !state.hook.starts_with("fexit")
    };
    if let Some(hook) = expected.filter(|hook| is_refused(hook)) {
        report::hook(sensor.name, &hook.describe(), "refused by the kernel");
        eprintln!("  {}: this kernel refuses programs on its functions", sensor.name);
        let usable =
            |hook: &&Hook| why_not(sensor, hook, forbidden).is_none() && !on_functions(hook);
        expected = sensor.hooks.iter().find(usable);
    }
    let Some(hook) = expected else {
        ensure!(state.hook == "none" && state.missing.is_some(), "it is attached: {state:?}");
        return Ok(());
    };
    ensure!(
        state.hook.starts_with(&hook.describe()),
        "by {}, not by {}: {:?}",
        state.hook,
        hook.describe(),
        state.missing
    );
    // Without a cgroup of the command's there are no sockets of another one.
    if sensor.name == "foreign-sends" && !has_v2_cgroups() {
        return Ok(());
    }
    ensure!(saw(sensor.name, run)?, "by {}, it saw nothing", state.hook);
    report::hook(sensor.name, &hook.describe(), "seen");
    Ok(())
}

/// Whether what [`Stage::script`] does for a sensor is in the recording.
fn saw(sensor: &str, run: &Run) -> Result<bool> {
    let story = &run.story;
    let first = story.connections.first();
    Ok(match sensor {
        "fork" => story.processes.values().any(|process| !process.children.is_empty()),
        "exec" => run.exec("dial").is_ok() && run.exec("say").is_ok(),
        "exit" => run.root()?.exit.as_ref().is_some_and(|exit| exit.code == Some(0)),
        "connect" => first.is_some_and(|first| first.is_established()),
        "datagrams" => !story.datagrams.is_empty(),
        "packets" => !story.openings.is_empty() && !story.exchanges.is_empty(),
        "cgroup-moves" => !story.cgroup_moves.is_empty(),
        "odd-sockets" => story.odd_sockets.iter().any(|odd| odd.protocol == ICMP),
        "other-sockets" => story.odd_sockets.iter().any(|odd| odd.family == PACKET),
        "foreign-sends" => !story.foreign_sends.is_empty(),
        "resolved" => !story.resolved.is_empty(),
        "tls" => story.calls.iter().any(|call| call.method == "GET"),
        "attempts" => !story.attempts.is_empty(),
        "local-sends" => !story.local_sends.is_empty(),
        "intrusions" => !story.intrusions.is_empty(),
        other => anyhow::bail!("nothing is done for {other} in this test"),
    })
}

const ICMP: u16 = libc::IPPROTO_ICMP as u16;
const PACKET: u16 = libc::AF_PACKET as u16;

/// What the traced command meets.
struct Stage<'a> {
    scratch: &'a Scratch,
    victim: Ended,
    service: UnixListener,
    aws: PathBuf,
}

impl<'a> Stage<'a> {
    fn set(scratch: &'a Scratch) -> Result<Stage<'a>> {
        let aws = scratch.folder("bin")?.join("aws");
        copy_program(program(scratch, "stand-in")?, &aws)?;
        let service = UnixListener::bind(scratch.file("service"))?;
        let victim = Ended::start(Command::new("sleep").arg("600").stdin(Stdio::null()))?;
        // Younger, a mapping of it could not be told from a change.
        thread::sleep(Duration::from_millis(50));
        Ok(Stage { scratch, victim, service, aws })
    }

    fn trace(&self, network: &Network, forbidden: &[&str]) -> Result<Run> {
        let (listener, to) = network.listen("127.0.0.1:0")?;
        Peer { receives: 10, sends: 10, closes_first: false }.serve(listener, 1);
        let (accepting, other) = network.listen("127.0.0.1:0")?;
        let inherited = TcpStream::connect(other)?;
        let server = self.tls_server()?;
        let command = ["sh", "-c", &self.script(to)?];
        let mut tracer = self
            .scratch
            .run(command)
            .policy("no-aws-cli")
            .option("--exit-code=command")
            .option("--resolver")
            .option("--http")
            .env("PATH", self.path()?)
            .set(|command| {
                command.stdin(Stdio::from(OwnedFd::from(inherited)));
            });
        for way in forbidden {
            tracer = tracer.option(format!("--debug-forbid={way}"));
        }
        let run = tracer.record()?;
        drop((server, accepting));
        ensure!(self.service.local_addr().is_ok(), "the service is gone");
        run.exits(0)?;
        Ok(run)
    }

    /// With the forbidden program in it.
    fn path(&self) -> Result<std::ffi::OsString> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let own = self.scratch.file("bin");
        Ok(std::env::join_paths([own].into_iter().chain(std::env::split_paths(&folders)))?)
    }

    fn script(&self, to: SocketAddr) -> Result<String> {
        let programs: BTreeMap<&str, String> = [
            "datagrams",
            "dial",
            "grab",
            "odd-socket",
            "raw-socket",
            "resolve",
            "say",
            "use-socket",
        ]
        .into_iter()
        .map(|name| Ok((name, program(self.scratch, name)?.display().to_string())))
        .collect::<Result<_>>()?;
        let run = |name: &str| &programs[name];
        let (address, port) = (to.ip(), to.port());
        let aws = self.aws.display();
        let service = self.scratch.file("service");
        let request = r"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n";
        let lines = [
            format!("{} {address} {port} 1 10 10", run("dial")),
            format!("{} {address} {port} 3 5", run("datagrams")),
            format!("{} 1", run("raw-socket")),
            format!("{} packet send", run("odd-socket")),
            format!("{} 0", run("use-socket")),
            format!("{} localhost", run("resolve")),
            format!("{} {}", run("say"), service.display()),
            format!("{} seize {}", run("grab"), self.victim.0.id()),
            format!("/nowhere/tool a; cat {aws} > /dev/null"),
            format!("/lib64/ld-linux-x86-64.so.2 {aws}"),
            format!(
                "printf '{request}' | openssl s_client -quiet -connect 127.0.0.1:{TLS_PORT} \
                 -servername a.example"
            ),
            format!("{}; echo 0 > $here/../cgroup.procs", crate::datagrams::HERE),
            "exit 0".to_owned(),
        ];
        Ok(lines.join("\n"))
    }

    /// OpenSSL at both ends; this one is not traced.
    fn tls_server(&self) -> Result<Ended> {
        let openssl = on_path("openssl")?;
        let key = rcgen::generate_simple_self_signed(["a.example".to_owned()])?;
        let certificate = self.scratch.write("cert.pem", &key.cert.pem())?;
        let private = self.scratch.write("key.pem", &key.signing_key.serialize_pem())?;
        let mut server = Command::new(openssl);
        server.args(["s_server", "-www", "-quiet", "-accept", &format!("127.0.0.1:{TLS_PORT}")]);
        server.arg("-cert").arg(certificate).arg("-key").arg(private);
        let quiet = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Ended::start(quiet)?;
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", TLS_PORT)).is_ok() {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!("openssl s_server does not listen");
    }
}

/// In a network namespace of the test's own.
const TLS_PORT: u16 = 4433;

/// The kernel refuses a program when its verifier has walked a million instructions
/// (BPF_COMPLEXITY_LIMIT_INSNS, include/linux/bpf.h), and how far it walks differs from kernel to
/// kernel: each program has a budget, with some room for kernels that were not tried. Those of ways that this kernel
/// has a better one for are loaded, too.
fn instruction_budgets(scratch: &Scratch) -> Result<()> {
    let better: [&[&str]; 3] = [
        &[],
        &["--debug-forbid=fexit", "--debug-forbid=uprobe-multi"],
        &["--debug-forbid=local_send", "--debug-forbid=foreign_send"],
    ];
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for forbidden in better {
        let words = [&["doctor", "--json"], forbidden].concat();
        let doctor: Value = serde_json::from_slice(&scratch.tracer(&words).output()?.stdout)?;
        let programs = doctor["verified_instructions"].as_object().context("no programs")?;
        for (name, count) in programs {
            let most = counts.entry(name.clone()).or_default();
            *most = (*most).max(count.as_u64().context("no count")?);
        }
    }
    let budgets = vm::budgets()?;
    let mut wrong = Vec::new();
    for (name, count) in &counts {
        let count = *count;
        report::instructions(name, count);
        match budgets.get(name) {
            _ if count == 0 => wrong.push(format!("{name}: the kernel counted nothing")),
            None => wrong.push(format!("{name}: {count}, and it has no budget")),
            Some(budget) if count > *budget => {
                wrong.push(format!("{name}: {count} of {budget}"));
            }
            Some(_) => {}
        }
    }
    ensure!(wrong.is_empty(), "{}\n(budgets: {})", wrong.join("\n"), vm::BUDGETS);
    Ok(())
}

/// Where the kernel lets nobody read its memory, tracer stops before the command is started, and says so.
fn refused_when_confidential(scratch: &Scratch) -> Result<()> {
    let mark = scratch.file("mark");
    let command = [OsStr::new("touch"), mark.as_os_str()];
    let output = scratch.run(command).policy("no-aws-cli").output()?;
    output.exits(125)?.says("the kernel refused the probe")?.says("tracer doctor")?;
    ensure!(!mark.exists(), "the command ran");
    let doctor = scratch.tracer(&["doctor"]).output()?;
    ensure!(doctor.code() != 0, "doctor finds nothing wrong");
    doctor.prints("lockdown               confidentiality")?;
    doctor.prints("tracer run does not work here")?;
    Ok(())
}

/// What `cargo xtask vm --write` writes: out of date in shape when a way or a profile is not there.
fn documentation_has_every_way(_: &Scratch) -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernel-support.md");
    let Ok(text) = fs::read_to_string(&file) else { return skip("there is no documentation here") };
    let ways = SENSORS
        .iter()
        .flat_map(|sensor| sensor.hooks.iter().map(|hook| (sensor.name, hook.describe())))
        .chain([FILES, MAPS].map(|plain| (plain.name, plain.hook.to_owned())));
    let rows = ways.map(|(sensor, way)| format!("| {sensor} | {way} |"));
    let profiles = vm::PROFILES.iter().map(|profile| format!("| {} |", profile.name));
    let programs =
        vm::budgets()?.into_iter().map(|(name, budget)| format!("| {name} | {budget} |"));
    let missing: Vec<String> =
        rows.chain(profiles).chain(programs).filter(|row| !text.contains(row)).collect();
    ensure!(
        missing.is_empty(),
        "docs/kernel-support.md lacks rows; `cargo xtask vm --write` makes it anew:\n{}",
        missing.join("\n")
    );
    Ok(())
}
