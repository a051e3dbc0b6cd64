//! Very many connections of very many processes whose ids come round again: none is recorded for a
//! process that did not make it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    net::IpAddr,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use tracer::{model::ProcessKey, session::Connection};

use crate::{
    Test,
    harness::{Network, Peer, Run, Scratch, in_private_network, program, repeats},
};

pub(crate) const TESTS: &[Test] = &[
    ("connections_of_many_processes", many_processes),
    ("interrupted_by_softirqs", interrupted_by_softirqs),
];

/// Each process connects twice.
const PROCESSES: u64 = 50_000;

/// A process, as it described itself.
#[derive(Clone, Copy, Debug)]
struct Member {
    pid: u32,
    before_ns: u64,
    after_ns: u64,
}

impl Member {
    fn is(&self, key: ProcessKey) -> bool {
        key.pid == self.pid && (self.before_ns..=self.after_ns).contains(&key.start_ns)
    }
}

fn many_processes(scratch: &Scratch) -> Result<()> {
    // `TRACER_TEST_REPEAT=1000` is the usual number.
    each_its_own(scratch, PROCESSES * repeats(1000)? / 1000 / 4 * 4)
}

/// Where the two ends of connections are on two processors, softirqs interrupt the probes of sock states many times
/// a second, and the kernel then skips those.
fn interrupted_by_softirqs(scratch: &Scratch) -> Result<()> {
    const CONNECTIONS: usize = 20_000;
    // Where a kernel has tasks that it hides, what a softirq does while one is on the processor is told to nobody,
    // see "Hidden tasks" in docs/architecture.md.
    const UNTOLD_MAX: usize = CONNECTIONS / 200;
    let policy = scratch.write(
        "local.toml",
        "name = 'local'\n[[claim]]\nkind = 'connects-only-to'\nendpoints = ['127.0.0.0/8']\n",
    )?;
    let dial = program(scratch, "dial")?;
    let run = in_private_network(|network| {
        let (listener, at) = network.listen("127.0.0.1:0")?;
        let (port, count) = (at.port().to_string(), CONNECTIONS.to_string());
        // Until the other side, on its processor, has come to the last of them. Those that have ended are gone,
        // or wait for stray packets (06).
        let patient = format!(
            "\"$@\"; for i in $(seq 300); do \
             grep -qE ' 0100007F:{:04X} (0[1-5]|0[7-9]|0B) ' /proc/net/tcp || exit 0; sleep 0.2; done",
            at.port()
        );
        let patient = ["sh".as_ref(), "-c".as_ref(), patient.as_str().as_ref(), "sh".as_ref()];
        let dials = [dial.as_os_str(), "127.0.0.1".as_ref(), port.as_ref(), count.as_ref()];
        let command = patient.into_iter().chain(dials).chain(["0".as_ref(), "0".as_ref()]);
        // Ends with the last of them.
        thread::spawn(move || {
            for accepted in listener.incoming().take(CONNECTIONS) {
                drop(accepted);
            }
        });
        scratch.run(command).policy(&policy).option("--quiet").record()
    })?;
    run.exits(0)?.proven()?;
    for kind in ["connect", "connect-result", "close"] {
        let counted = run.counted(kind)?;
        ensure!(counted.lost == 0, "{kind}: {counted:?}");
    }
    let connections = &run.story.connections;
    let failed =
        |connection: &&Connection| connection.result.is_some() && !connection.is_established();
    let others: Vec<_> = connections.iter().filter(failed).collect();
    ensure!(others.is_empty(), "not all are established: {others:?}");
    ensure!(connections.len() == CONNECTIONS, "{} of {CONNECTIONS}", connections.len());
    let untold =
        |connection: &&Connection| connection.result.is_none() || connection.close.is_none();
    let untold = connections.iter().filter(untold).count();
    ensure!(untold <= UNTOLD_MAX, "{untold} of {CONNECTIONS} have no outcome or no end");
    eprintln!("  {CONNECTIONS} connections, of all but {untold} their outcome and their end");
    Ok(())
}

fn each_its_own(scratch: &Scratch, processes: u64) -> Result<()> {
    let file = scratch.file("members");
    let run = in_private_network(|network| traced(scratch, network, &file, processes))?;
    run.exits(0)?.all_seen()?;
    for kind in ["connect", "connect-result", "close"] {
        let counted = run.counted(kind)?;
        ensure!(counted.lost == 0, "{kind}: {counted:?}");
    }
    let members = members(&file)?;
    let pids: BTreeSet<u32> = members.iter().map(|member| member.pid).collect();
    check(&run, &members)?;
    eprintln!(
        "  swarm: {} connections of {} processes with {} pids, each recorded for its own",
        run.story.connections.len(),
        members.len(),
        pids.len()
    );
    Ok(())
}

fn traced(
    scratch: &Scratch,
    network: &Network,
    file: &std::path::Path,
    processes: u64,
) -> Result<Run> {
    let (open, open_at) = network.listen("0.0.0.0:0")?;
    let (closed, closed_at) = network.listen("0.0.0.0:0")?;
    drop(closed);
    Peer { receives: 0, sends: 0, closes_first: true }.serve(open, usize::try_from(processes)?);
    let swarm = program(scratch, "dial-swarm")?;
    let numbers = [processes, open_at.port().into(), closed_at.port().into()];
    let numbers = numbers.map(|number| number.to_string());
    let mut command = vec![swarm.as_os_str(), file.as_os_str()];
    command.extend(numbers.iter().map(std::ffi::OsStr::new));
    let before = network.active_opens()?;
    let run = scratch.run(command).option("--quiet").record()?;
    let opened = network.active_opens()? - before;
    let recorded = run.story.connections.len() as u64;
    ensure!(recorded == opened, "{recorded} connections recorded, {opened} opened");
    ensure!(recorded == 2 * processes, "{recorded} connections of {processes} processes");
    Ok(run)
}

/// In the order of their numbers.
fn members(file: &std::path::Path) -> Result<Vec<Member>> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.read_to_end(&mut bytes)?;
    let (records, rest) = bytes.as_chunks::<24>();
    ensure!(rest.is_empty(), "{} bytes too many", rest.len());
    let member = |record: &[u8; 24]| {
        let (numbers, _) = record.as_chunks::<8>();
        let [pid, before_ns, after_ns] = [0, 1, 2].map(|at| u64::from_ne_bytes(numbers[at]));
        Ok(Member { pid: u32::try_from(pid)?, before_ns, after_ns })
    };
    records.iter().map(member).collect()
}

fn number_of(connection: &Connection) -> Result<usize> {
    const FIRST: u32 = 0x7f01_0000;
    let to = connection.destination.context("the address is unread")?;
    let IpAddr::V4(address) = to.address else { anyhow::bail!("{to} is not an address of ours") };
    let number = address.to_bits().checked_sub(FIRST).with_context(|| to.to_string())?;
    Ok(usize::try_from(number)?)
}

/// Each member has its two connections, and nobody else has one.
fn check(run: &Run, members: &[Member]) -> Result<()> {
    let mut found: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for connection in &run.story.connections {
        let number = number_of(connection)?;
        let member = members.get(number).with_context(|| format!("no member {number}"))?;
        ensure!(
            member.is(connection.process),
            "a connection of member {number}, {member:?}, is recorded for {:?}",
            connection.process
        );
        ensure!(
            run.story.processes.contains_key(&connection.process),
            "{:?} is no process of the tree",
            connection.process
        );
        let (established, failed) = found.entry(number).or_default();
        if connection.is_established() {
            *established += 1;
        } else {
            *failed += 1;
        }
    }
    for number in 0..members.len() {
        let outcomes = found.get(&number).copied().unwrap_or_default();
        ensure!(outcomes == (1, 1), "member {number}: {outcomes:?}, not one of each");
    }
    Ok(())
}
