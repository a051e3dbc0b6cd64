//! TCP connections of every kind, each in a network namespace of the test's own, so that the
//! kernel's count of opened connections is the recording's exactly.

use anyhow::{Context as _, Result, ensure};

use crate::{
    Test,
    harness::{Network, Peer, Run, Scratch, in_private_network, program, skip},
};

pub(crate) const TESTS: &[Test] = &[
    ("v4", v4),
    ("v6", v6),
    ("v4_mapped", v4_mapped),
    ("refused", refused),
    ("non_blocking", non_blocking),
    ("non_blocking_refused", non_blocking_refused),
    ("abandoned", abandoned),
    ("two_thousand", two_thousand),
    ("bytes_both_ways", bytes_both_ways),
    ("bytes_when_the_peer_closes_first", bytes_when_the_peer_closes_first),
    ("by_a_thread", by_a_thread),
    ("by_a_child_that_exits_at_once", by_a_child_that_exits_at_once),
    ("multipath_counts_once", multipath_counts_once),
    ("fast_open", fast_open),
];

const QUIET: Peer = Peer { receives: 0, sends: 0, closes_first: false };

/// One fixture, its arguments after ADDRESS and PORT, and what it meets.
struct Case<'a> {
    program: &'a str,
    /// Where the peer listens.
    listen: &'a str,
    /// What the program connects to, when that is another spelling.
    dial: Option<&'a str>,
    arguments: &'a [&'a str],
    peer: Peer,
    connections: usize,
    exit: i32,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Case {
            program: "dial",
            listen: "127.0.0.1:0",
            dial: None,
            arguments: &["1", "0", "0"],
            peer: QUIET,
            connections: 1,
            exit: 0,
        }
    }
}

fn check(scratch: &Scratch, case: &Case<'_>, expected: &str) -> Result<Run> {
    let run = in_private_network(|network| {
        let (listener, address) = network.listen(case.listen)?;
        case.peer.serve(listener, case.connections);
        let host = case.dial.map_or(address.ip().to_string(), str::to_owned);
        traced(scratch, network, case, &host, address.port())
    })?;
    run.exits(case.exit)?.all_seen()?.connections(expected)?;
    for connection in &run.story.connections {
        let result = connection.result.as_ref();
        ensure!(result.is_some_and(|result| result.local == Some(true)), "{result:?}");
    }
    Ok(run)
}

/// Runs the fixture and holds the recording against the kernel's own count.
fn traced(
    scratch: &Scratch,
    network: &Network,
    case: &Case<'_>,
    host: &str,
    port: u16,
) -> Result<Run> {
    let fixture = program(scratch, case.program)?;
    let mut command = vec![fixture.into_os_string(), host.into(), port.to_string().into()];
    command.extend(case.arguments.iter().map(Into::into));
    let before = network.active_opens()?;
    let run = scratch.run(command).record()?;
    let opened = network.active_opens()? - before;
    let recorded = run.story.connections.len() as u64;
    ensure!(
        recorded == opened,
        "{recorded} connections recorded, {opened} opened according to the kernel: {:?}",
        run.connection_lines()
    );
    for kind in ["connect", "connect-result", "close"] {
        let counted = run.counted(kind)?;
        ensure!(counted.lost == 0, "{kind}: {counted:?}");
    }
    Ok(run)
}

fn v4(scratch: &Scratch) -> Result<()> {
    let run = check(scratch, &Case::default(), "127.0.0.1 established sent 0 received 0")?;
    let connection = run.only_connection()?;
    let result = connection.result.as_ref().context("no outcome")?;
    let source = result.source.context("no source")?;
    ensure!(source.address.to_string() == "127.0.0.1" && source.port != 0, "{source}");
    ensure!(result.connect_ns.is_some_and(|ns| ns > 0), "{result:?}");
    let close = connection.close.as_ref().context("no close")?;
    ensure!(close.duration_ns.is_some_and(|ns| ns > 0), "{close:?}");
    Ok(())
}

fn v6(scratch: &Scratch) -> Result<()> {
    let case = Case { listen: "[::1]:0", ..Case::default() };
    check(scratch, &case, "::1 established sent 0 received 0")?;
    Ok(())
}

fn v4_mapped(scratch: &Scratch) -> Result<()> {
    let case = Case { dial: Some("::ffff:127.0.0.1"), ..Case::default() };
    check(scratch, &case, "::ffff:127.0.0.1 established sent 0 received 0")?;
    Ok(())
}

fn closed_port(network: &Network) -> Result<u16> {
    // Bound and never listened on, so nobody else gets it as long as the namespace is ours.
    let (listener, address) = network.listen("127.0.0.1:0")?;
    drop(listener);
    Ok(address.port())
}

fn refused(scratch: &Scratch) -> Result<()> {
    let case = Case { exit: libc::ECONNREFUSED, ..Case::default() };
    let run = in_private_network(|network| {
        traced(scratch, network, &case, "127.0.0.1", closed_port(network)?)
    })?;
    run.exits(case.exit)?.all_seen()?.connections("127.0.0.1 ECONNREFUSED")?;
    Ok(())
}

fn non_blocking(scratch: &Scratch) -> Result<()> {
    let case = Case { program: "dial-nonblocking", arguments: &[], ..Case::default() };
    check(scratch, &case, "127.0.0.1 established sent 0 received 0")?;
    Ok(())
}

fn non_blocking_refused(scratch: &Scratch) -> Result<()> {
    let case = Case {
        program: "dial-nonblocking",
        arguments: &[],
        exit: libc::ECONNREFUSED,
        ..Case::default()
    };
    let run = in_private_network(|network| {
        traced(scratch, network, &case, "127.0.0.1", closed_port(network)?)
    })?;
    run.exits(case.exit)?.all_seen()?.connections("127.0.0.1 ECONNREFUSED")?;
    Ok(())
}

fn abandoned(scratch: &Scratch) -> Result<()> {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let case = Case { program: "dial-abandon", arguments: &[], ..Case::default() };
    let run = in_private_network(|network| {
        // A listener whose queue of one is full answers no further SYN.
        let full = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&full, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0))?;
        listen(&full, 0)?;
        let full = std::net::TcpListener::from(full);
        let address = full.local_addr()?;
        let _queued = std::net::TcpStream::connect(address)?;
        traced(scratch, network, &case, "127.0.0.1", address.port())
    })?;
    run.exits(0)?.all_seen()?.connections("127.0.0.1 abandoned")?;
    Ok(())
}

fn two_thousand(scratch: &Scratch) -> Result<()> {
    let case = Case {
        arguments: &["2000", "100", "50"],
        peer: Peer { receives: 100, sends: 50, closes_first: false },
        connections: 2000,
        ..Case::default()
    };
    let expected = "127.0.0.1 established sent 100 received 50\n".repeat(2000);
    check(scratch, &case, &expected)?;
    Ok(())
}

fn bytes_both_ways(scratch: &Scratch) -> Result<()> {
    for (sends, receives) in [(0, 1), (1, 0), (1, 1), (1000, 3), (1_000_000, 3_000_000)] {
        let case = Case {
            arguments: &["1", &sends.to_string(), &receives.to_string()],
            peer: Peer { receives: sends, sends: receives, closes_first: false },
            ..Case::default()
        };
        let expected = format!("127.0.0.1 established sent {sends} received {receives}");
        check(scratch, &case, &expected)?;
    }
    Ok(())
}

fn bytes_when_the_peer_closes_first(scratch: &Scratch) -> Result<()> {
    for (sends, receives) in [(0, 0), (0, 7), (7, 0), (1000, 200_000)] {
        let case = Case {
            program: "dial-hear-out",
            arguments: &[&sends.to_string()],
            peer: Peer { receives: sends, sends: receives, closes_first: true },
            ..Case::default()
        };
        let expected = format!("127.0.0.1 established sent {sends} received {receives}");
        check(scratch, &case, &expected)?;
    }
    Ok(())
}

fn by_a_thread(scratch: &Scratch) -> Result<()> {
    let case = Case { program: "dial-thread", arguments: &[], ..Case::default() };
    let run = check(scratch, &case, "127.0.0.1 established sent 0 received 0")?;
    let connection = run.only_connection()?;
    ensure!(Some(connection.process) == run.story.root(), "{connection:?}");
    Ok(())
}

fn by_a_child_that_exits_at_once(scratch: &Scratch) -> Result<()> {
    let case = Case { program: "dial-child", arguments: &[], ..Case::default() };
    let run = check(scratch, &case, "127.0.0.1 established sent 0 received 0")?;
    let child = run.root()?.children.first().copied();
    ensure!(Some(run.only_connection()?.process) == child, "it is not the child's");
    Ok(())
}

fn multipath_counts_once(scratch: &Scratch) -> Result<()> {
    const IPPROTO_MPTCP: &str = "262";
    let case = Case { arguments: &["3", "10", "0", IPPROTO_MPTCP], ..Case::default() };
    let run = in_private_network(|network| {
        let (listener, address) = network.listen("127.0.0.1:0")?;
        Peer { receives: 10, ..QUIET }.serve(listener, 3);
        traced(scratch, network, &case, "127.0.0.1", address.port())
    })?;
    const NOT_SUPPORTED: i32 = 77;
    if run.output.code() == NOT_SUPPORTED {
        return skip("this kernel has no MPTCP");
    }
    run.exits(0)?.all_seen()?;
    ensure!(run.story.connections.len() == 3, "{:?}", run.connection_lines());
    for connection in &run.story.connections {
        let to = connection.destination.context("the address is unread")?;
        ensure!(to.address.to_string() == "127.0.0.1" && connection.is_established(), "{to}");
    }
    Ok(())
}

fn fast_open(scratch: &Scratch) -> Result<()> {
    // Bit 0 lets clients, bit 1 lets servers; the setting belongs to the namespace.
    const BOTH: &str = "3";
    let case = Case { program: "dial-fast-open", arguments: &["3", "20"], ..Case::default() };
    let run = in_private_network(|network| {
        let setting = "/proc/sys/net/ipv4/tcp_fastopen";
        if let Err(error) = std::fs::write(setting, BOTH) {
            return skip(format!("{setting} cannot be written: {error}"));
        }
        let (listener, address) = network.listen("127.0.0.1:0")?;
        let queue: libc::c_int = 16;
        use std::os::fd::AsRawFd as _;
        // SAFETY: the option's value is one int, which outlives the call.
        let set = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_FASTOPEN,
                (&raw const queue).cast(),
                size_of_val(&queue) as libc::socklen_t,
            )
        };
        if set != 0 {
            return skip("this kernel has no TCP Fast Open");
        }
        Peer { receives: 20, sends: 0, closes_first: true }.serve(listener, 3);
        traced(scratch, network, &case, "127.0.0.1", address.port())
    })?;
    let expected = "127.0.0.1 established sent 20 received 0\n".repeat(3);
    run.exits(0)?.all_seen()?.connections(&expected)?;
    Ok(())
}
