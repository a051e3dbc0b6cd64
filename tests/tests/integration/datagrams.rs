//! Sockets other than TCP's, the first bytes of connections, and the command's cgroup.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use tracer::{
    policy::Ruling,
    record::schema::{CommandCgroup, DatagramVia, FirstBytes},
};

use crate::{
    Test,
    harness::{Run, Scratch, in_private_network, on_path, program, skip},
};

pub(crate) const TESTS: &[Test] = &[
    ("repeats_are_one_row", repeats_are_one_row),
    ("mapped_addresses", mapped_addresses),
    ("connected_with_control_data", connected_with_control_data),
    ("raw_sockets_once", raw_sockets_once),
    ("own_cgroup", own_cgroup),
    ("survivors_move_out", survivors_move_out),
    ("leaving_the_cgroup", leaving_the_cgroup),
    ("a_cgroup_below_is_no_other", a_cgroup_below_is_no_other),
    ("without_cgroups", without_cgroups),
    ("host_in_pieces", host_in_pieces),
    ("lost_payloads", lost_payloads),
    ("routes_of_their_own", routes_of_their_own),
    ("unspecified_addresses", unspecified_addresses),
    ("behind_another_address", behind_another_address),
    ("to_a_group_of_this_machine", to_a_group_of_this_machine),
    ("no_dns_by_its_port", no_dns_by_its_port),
    ("connected_over_ipv6", connected_over_ipv6),
];

fn datagrams(scratch: &Scratch, listen: &str, dial: &str, extra: &[&str]) -> Result<Run> {
    let fixture = program(scratch, "datagrams")?;
    in_private_network(|_| {
        let receiver = UdpSocket::bind(listen)?;
        let port = receiver.local_addr()?.port().to_string();
        let mut command = vec![fixture.clone().into_os_string(), dial.into(), port.into()];
        command.extend(extra.iter().map(Into::into));
        scratch.run(command).record()
    })
}

/// The one row, and what was counted for it.
fn one_row(run: &Run, address: &str, via: DatagramVia, sent: (u64, u64)) -> Result<()> {
    run.exits(0)?;
    let ([datagram], [exchange]) = (run.story.datagrams.as_slice(), run.story.exchanges.as_slice())
    else {
        bail!("{:?} {:?}", run.story.datagrams, run.story.exchanges)
    };
    let destination = datagram.destination.context("no destination")?;
    ensure!(destination.address.to_string() == address, "{destination}");
    ensure!(datagram.via == via && datagram.protocol == 17, "{datagram:?}");
    ensure!(
        Some(datagram.process) == run.story.root() && datagram.net_ns_inum != 0,
        "{datagram:?}"
    );
    ensure!(
        exchange.destination == destination && exchange.cookie == datagram.cookie,
        "{exchange:?}"
    );
    ensure!((exchange.sent_packets, exchange.sent_bytes) == sent, "{exchange:?}");
    Ok(())
}

fn repeats_are_one_row(scratch: &Scratch) -> Result<()> {
    let run = datagrams(scratch, "127.0.0.1:0", "127.0.0.1", &["1000", "7"])?;
    one_row(&run, "127.0.0.1", DatagramVia::Send, (1000, 7000))?;
    let run = datagrams(scratch, "[::1]:0", "::1", &["3", "7", "connect"])?;
    one_row(&run, "::1", DatagramVia::Connect, (3, 21))?;
    let run = datagrams(scratch, "127.0.0.1:0", "127.0.0.1", &["0", "0", "connect"])?;
    one_row(&run, "127.0.0.1", DatagramVia::Connect, (0, 0))
}

fn mapped_addresses(scratch: &Scratch) -> Result<()> {
    for (connect, via) in [(None, DatagramVia::Send), (Some("connect"), DatagramVia::Connect)] {
        let extra: Vec<&str> = ["2", "5"].into_iter().chain(connect).collect();
        let run = datagrams(scratch, "127.0.0.1:0", "::ffff:127.0.0.1", &extra)?;
        one_row(&run, "127.0.0.1", via, (2, 10))?;
    }
    Ok(())
}

/// As clients of HTTP/3 send: the kernel asks about each message of such a socket, and knows no port then.
fn connected_with_control_data(scratch: &Scratch) -> Result<()> {
    let python = on_path("python3")?;
    let script = "import socket, struct, sys
UDP_SEGMENT = 103
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('127.0.0.1', int(sys.argv[1])))
for _ in range(3):
    s.sendmsg([b'x' * 14], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack('H', 7))])";
    let run = in_private_network(|_| {
        let receiver = UdpSocket::bind("127.0.0.1:0")?;
        let port = receiver.local_addr()?.port().to_string();
        scratch.run([python.as_os_str(), "-c".as_ref(), script.as_ref(), port.as_ref()]).record()
    })?;
    run.exits(0)?;
    let [datagram] = run.story.datagrams.as_slice() else { bail!("{:?}", run.story.datagrams) };
    ensure!(datagram.via == DatagramVia::Connect, "{datagram:?}");
    ensure!(datagram.destination.is_some_and(|to| to.port != 0), "{datagram:?}");
    Ok(())
}

fn raw_sockets_once(scratch: &Scratch) -> Result<()> {
    let fixture = program(scratch, "raw-socket")?;
    let run = scratch.run([fixture.as_os_str(), "3".as_ref()]).record()?;
    run.exits(0)?;
    let [socket] = run.story.odd_sockets.as_slice() else { bail!("{:?}", run.story.odd_sockets) };
    let numbers = (i32::from(socket.family), i32::from(socket.socket_type), socket.protocol);
    ensure!(numbers == (libc::AF_INET, libc::SOCK_RAW, 1), "{socket:?}");
    Ok(())
}

/// Where the command's cgroup was, and where tracer is.
fn cgroup(run: &Run) -> Result<PathBuf> {
    match &run.story.start.cgroup {
        Some(CommandCgroup::Own { path, .. }) => Ok(path.as_path().to_owned()),
        other => bail!("it got no cgroup: {other:?}"),
    }
}

fn own_cgroup(scratch: &Scratch) -> Result<()> {
    let run = scratch.run(["cat", "/proc/self/cgroup"]).record()?;
    run.exits(0)?;
    let path = cgroup(&run)?;
    let name = path.file_name().context("it is the root")?.to_string_lossy().into_owned();
    let said = String::from_utf8_lossy(&run.output.stdout).into_owned();
    let own = said.lines().find(|line| line.starts_with("0::")).unwrap_or_default();
    ensure!(own.ends_with(&name), "{own} is not in {name}");
    ensure!(!path.exists(), "{} is still there", path.display());
    ensure!(run.story.cgroup_moves.is_empty(), "{:?}", run.story.cgroup_moves);
    Ok(())
}

fn survivors_move_out(scratch: &Scratch) -> Result<()> {
    let run = scratch.run(["sh", "-c", "sleep 60 &"]).option("--linger=0").record()?;
    run.exits(0)?;
    let path = cgroup(&run)?;
    let [survivor] = run.end()?.survivors.as_slice() else { bail!("{:?}", run.end()?.survivors) };
    let now = fs::read_to_string(format!("/proc/{}/cgroup", survivor.pid))?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let v2 = |text: &str| text.lines().find(|line| line.starts_with("0::")).map(str::to_owned);
    ensure!(v2(&now) == v2(&own), "the survivor is in {now}");
    ensure!(!path.exists(), "{} is still there", path.display());
    Ok(())
}

/// A shell's words for the folder of its own cgroup.
pub(crate) const HERE: &str = "here=$(grep ' - cgroup2 ' /proc/self/mountinfo | head -n 1 | cut -d' ' -f5)\
                    $(grep ^0:: /proc/self/cgroup | cut -d: -f3)";

fn leaving_the_cgroup(scratch: &Scratch) -> Result<()> {
    let script = format!("{HERE}; echo 0 > $here/../cgroup.procs");
    let run = scratch.run(["sh", "-c", &script]).record()?;
    run.exits(0)?;
    let [moved] = run.story.cgroup_moves.as_slice() else { bail!("{:?}", run.story.cgroup_moves) };
    ensure!(Some(moved.process) == run.story.root(), "{moved:?}");
    ensure!(moved.to_path.is_some() && moved.to_cgroup_id != 0, "{moved:?}");
    ensure!(!cgroup(&run)?.exists(), "it is still there");
    Ok(())
}

fn a_cgroup_below_is_no_other(scratch: &Scratch) -> Result<()> {
    let fixture = program(scratch, "datagrams")?;
    let script = format!(
        "{HERE}; mkdir $here/inner; echo 0 > $here/inner/cgroup.procs; \
         exec {} 127.0.0.1 9 1 3",
        fixture.display()
    );
    let run = scratch.run(["sh", "-c", &script]).record()?;
    run.exits(0)?;
    ensure!(run.story.cgroup_moves.is_empty(), "{:?}", run.story.cgroup_moves);
    one_row(&run, "127.0.0.1", DatagramVia::Send, (1, 3))?;
    ensure!(!cgroup(&run)?.exists(), "it is still there");
    Ok(())
}

/// A machine whose v2 cgroups are not mounted.
fn without_cgroups(scratch: &Scratch) -> Result<()> {
    const UNMOUNT: &str = "grep ' - cgroup2 ' /proc/self/mountinfo | cut -d' ' -f5 | \
                           while read -r at; do umount \"$at\"; done; exec \"$0\" \"$@\"";
    let unshared = |tracer: &std::path::Path| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-c", UNMOUNT]).arg(tracer);
        command
    };
    let run = scratch.run(["true"]).by(unshared).record()?;
    run.exits(0)?;
    let Some(CommandCgroup::Absent(why)) = &run.story.start.cgroup else {
        bail!("{:?}", run.story.start.cgroup)
    };
    ensure!(why.contains("not mounted"), "{why}");
    for name in ["datagrams", "packets", "cgroup-moves", "odd-sockets"] {
        let sensors = &run.story.start.sensors;
        let sensor = sensors.iter().find(|sensor| sensor.sensor == name).context(name)?;
        let missing = sensor.missing.as_deref().context("it is not missing")?;
        ensure!(missing.contains(why.as_str()), "{name}: {missing}");
    }
    Ok(())
}

/// A request whose name comes in the second of two pieces.
fn host_in_pieces(scratch: &Scratch) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET / HTTP/1.1\\r\\nHo' >&3; sleep 0.1; \
         printf 'st: pieces.example\\r\\n\\r\\n' >&3"
    );
    let run = scratch.run(["bash", "-c", &script]).record()?;
    run.exits(0)?;
    let [opening] = run.story.openings.as_slice() else { bail!("{:?}", run.story.openings) };
    let FirstBytes::Http { host: Some(host), .. } = &opening.what else { bail!("{opening:?}") };
    ensure!(host == "pieces.example", "{opening:?}");
    ensure!(opening.connection == Some(run.only_connection()?.id), "{opening:?}");
    Ok(())
}

/// Every third record of the ring of names is lost, and each is counted.
fn lost_payloads(scratch: &Scratch) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let script = format!(
        "for i in $(seq 40); do exec 3<>/dev/tcp/127.0.0.1/{port}; echo $i >&3; exec 3>&-; done"
    );
    let run = scratch.run(["bash", "-c", &script]).option("--debug-lose=names=7").record()?;
    let counted = run.counted("payload")?;
    ensure!(counted.lost > 0 && counted.produced == counted.read + counted.lost, "{counted:?}");
    ensure!(counted.produced >= 40, "{counted:?}");
    Ok(())
}

/// Where packets go otherwise than their sockets say, no claim over addresses is proven.
fn routes_of_their_own(scratch: &Scratch) -> Result<()> {
    const NOT_SUPPORTED: i32 = 77;
    let policy = scratch.write(
        "elsewhere.toml",
        "name = 'elsewhere'\n[[claim]]\nkind = 'never-connects-to'\nendpoints = ['10.0.0.0/8']\n\
         [[claim]]\nkind = 'never-runs'\nprograms = ['aws']\n",
    )?;
    let dial_udp = program(scratch, "dial-udp")?;
    let straight = [dial_udp.as_os_str(), "sendto".as_ref(), "::1".as_ref(), "443".as_ref()];
    let run = in_private_network(|_| scratch.run(straight).policy(&policy).record())?;
    run.exits(0)?.proven()?;
    let dial = program(scratch, "dial-routed")?;
    for version in ["4", "6"] {
        let command = [dial.as_os_str(), version.as_ref()];
        let run = in_private_network(|_| scratch.run(command).policy(&policy).record())?;
        if run.output.code() == NOT_SUPPORTED {
            return skip(format!("this kernel has no source routes of IPv{version}"));
        }
        run.rules(Ruling::Inconclusive)?.because(&["no-routes: 1 packets left with options"])?;
        let verdict = run.verdict.as_ref().context("no verdict")?;
        let programs = verdict.claims.iter().find(|claim| claim.claim.contains("never runs"));
        let ruling = programs.context("no such claim")?.ruling;
        ensure!(ruling == Ruling::Proven, "IPv{version}: {ruling:?}");
    }
    let multipath = program(scratch, "dial")?;
    let arguments = ["127.0.0.1", "9", "1", "0", "0", "262"].map(std::ffi::OsStr::new);
    let command: Vec<_> = [multipath.as_os_str()].into_iter().chain(arguments).collect();
    let run = in_private_network(|_| scratch.run(command).policy(&policy).record())?;
    if run.output.code() == NOT_SUPPORTED {
        return skip("this kernel has no MPTCP");
    }
    run.rules(Ruling::Inconclusive)?.because(&["dial (pid", "Multipath TCP"])?;
    Ok(())
}

/// A policy of one claim that nothing is sent to these addresses.
fn never(scratch: &Scratch, addresses: &[&str]) -> Result<PathBuf> {
    let endpoints = addresses.join("', '");
    scratch.write(
        "never.toml",
        &format!(
            "name = 'never'\n[[claim]]\nkind = 'never-connects-to'\nendpoints = ['{endpoints}']\n"
        ),
    )
}

/// A policy of one claim that nothing is sent to any others.
fn only(scratch: &Scratch, address: &str) -> Result<PathBuf> {
    scratch.write(
        "only.toml",
        &format!(
            "name = 'only'\n[[claim]]\nkind = 'connects-only-to'\nendpoints = ['{address}']\n"
        ),
    )
}

/// What the kernel takes for 0.0.0.0 and :: is what was sent to.
fn unspecified_addresses(scratch: &Scratch) -> Result<()> {
    const OWN: &str = "127.0.0.2";
    let dial = program(scratch, "dial-unspecified")?;
    let run = |how: &str, source: &str, never_to: &str| -> Result<Run> {
        let policy = never(scratch, &[never_to])?;
        let command = [dial.as_os_str(), how.as_ref(), source.as_ref(), "443".as_ref()];
        in_private_network(|_| scratch.run(command).policy(&policy).record())
            .with_context(|| format!("{how} from {source}"))
    };
    let cases = [
        ("sendto", OWN, OWN),
        ("connect", OWN, OWN),
        ("message", OWN, OWN),
        ("mapped", OWN, OWN),
        ("sendto", "0.0.0.0", "127.0.0.1"),
        ("connect", "0.0.0.0", "127.0.0.1"),
        ("connect6", OWN, "127.0.0.1"),
        ("sendto6", OWN, "::1"),
    ];
    for (how, source, there) in cases {
        let run = run(how, source, there)?;
        run.rules(Ruling::Violated).with_context(|| format!("{how} from {source}"))?;
        let ([datagram], [exchange]) =
            (run.story.datagrams.as_slice(), run.story.exchanges.as_slice())
        else {
            bail!("{how}: {:?} {:?}", run.story.datagrams, run.story.exchanges)
        };
        let destination = datagram.destination.context("no destination")?;
        ensure!(destination.address.to_string() == there, "{how}: {datagram:?}");
        ensure!(datagram.unspecified, "{how}: {datagram:?}");
        ensure!(
            (exchange.sent_packets, exchange.elsewhere_packets) == (1, 0),
            "{how}: {exchange:?}"
        );
    }
    run("sendto", "0.0.0.0", OWN)?.proven()?;
    // Which address the kernel takes is known to nobody here, but that it is another one.
    for how in ["device", "connect-device"] {
        let run = run(how, "10.0.0.5", "10.0.0.5:443")?;
        run.rules(Ruling::Inconclusive)
            .with_context(|| how.to_owned())?
            .because(&["address of this machine that is not known"])?;
        let [exchange] = run.story.exchanges.as_slice() else { bail!("{:?}", run.story.exchanges) };
        ensure!(
            (exchange.sent_packets, exchange.elsewhere_packets) == (1, 1),
            "{how}: {exchange:?}"
        );
    }
    Ok(())
}

/// Where something makes another address of the one that a program asks for, the latter is judged.
fn behind_another_address(scratch: &Scratch) -> Result<()> {
    const ASKED: &str = "10.9.9.9";
    const NOT_SUPPORTED: i32 = 77;
    let dial = program(scratch, "dial-rewritten")?;
    let run = |first: &str, never_to: &str| -> Result<Run> {
        let policy = never(scratch, &[never_to])?;
        let script = format!("{HERE}; exec {} $here {ASKED} 443 127.0.0.1 {first}", dial.display());
        in_private_network(|_| scratch.run(["sh", "-c", &script]).policy(&policy).record())
    };
    let alone = run(ASKED, ASKED)?;
    if alone.output.code() == NOT_SUPPORTED {
        return skip("the command may not load programs of its own");
    }
    alone.rules(Ruling::Violated)?;
    let [exchange] = alone.story.exchanges.as_slice() else { bail!("{:?}", alone.story.exchanges) };
    ensure!(exchange.destination.address.to_string() == ASKED, "{exchange:?}");
    ensure!((exchange.sent_packets, exchange.elsewhere_packets) == (1, 1), "{exchange:?}");
    run(ASKED, "127.0.0.1")?.proven()?;

    // Of a socket with several destinations it is not known which one a packet was for.
    let several = run("127.0.0.3", ASKED)?;
    several.rules(Ruling::Violated)?;
    let exchanges = &several.story.exchanges;
    ensure!(exchanges.len() == 2, "{exchanges:?}");
    ensure!(
        exchanges.iter().all(|one| (one.sent_packets, one.elsewhere_packets) == (0, 1)),
        "{exchanges:?}"
    );
    Ok(())
}

/// What goes to port 53 is no question for that: an answer that is sent, datagrams of which the first one is a
/// question, and what goes over a socket that asked another server.
fn no_dns_by_its_port(scratch: &Scratch) -> Result<()> {
    let policy = only(scratch, "127.0.0.1")?;
    let script = "
import socket, struct, sys
UDP_SEGMENT = 103
there = ('127.0.0.2', 53)
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
name = b'\\7example\\3com\\0'
message = lambda flags: struct.pack('>6H', 7, flags, 1, 0, 0, 0) + name + struct.pack('>HH', 1, 1)
question, answer = message(0x100), message(0x8180)
how = sys.argv[1]
if how == 'question':
    own.sendto(question, there)
elif how == 'answer':
    own.sendto(answer + b'anything', there)
elif how == 'stream':
    stream = socket.create_connection(there)
    stream.sendall(struct.pack('>H', len(answer)) + answer)
elif how in ('questions', 'segments'):
    own.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(question))
    own.sendto(question + (question if how == 'questions' else b'x' * len(question)), there)
elif how == 'empty':
    own.sendto(question, ('127.0.0.1', 53))
    own.sendto(b'', there)
";
    let cases = [
        ("question", Ruling::Proven),
        ("questions", Ruling::Proven),
        ("answer", Ruling::Violated),
        ("stream", Ruling::Violated),
        ("segments", Ruling::Violated),
        ("empty", Ruling::Violated),
    ];
    in_private_network(|_| {
        let _stream = TcpListener::bind("127.0.0.2:53")?;
        let receiver = UdpSocket::bind("127.0.0.2:53")?;
        let own = UdpSocket::bind("127.0.0.1:53")?;
        for (how, ruling) in cases {
            let command = ["/usr/bin/python3", "-c", script, how];
            let run = scratch.run(command).policy(&policy).record()?;
            run.rules(ruling).with_context(|| how.to_owned())?;
        }
        drop((receiver, own));
        Ok(())
    })
}

/// As with IPv4, to connect a socket sends nothing. What has further headers is sent all the same.
fn connected_over_ipv6(scratch: &Scratch) -> Result<()> {
    let policy = never(scratch, &["::1"])?;
    let script = "
import socket, sys
own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
own.connect(('::1', 443))
how = sys.argv[1]
if how == 'headers':
    own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, b'\\0\\0\\1\\4\\0\\0\\0\\0')
if how != 'connect':
    own.send(b'!')
";
    let cases =
        [("connect", Ruling::Proven), ("send", Ruling::Violated), ("headers", Ruling::Violated)];
    in_private_network(|_| {
        for (how, ruling) in cases {
            let command = ["/usr/bin/python3", "-c", script, how];
            let run = scratch.run(command).policy(&policy).record()?;
            run.rules(ruling).with_context(|| how.to_owned())?;
        }
        Ok(())
    })
}

/// Whoever joined a group on this machine gets what is sent to it, and with a lifetime of 0 no packet leaves.
fn to_a_group_of_this_machine(scratch: &Scratch) -> Result<()> {
    let policy = only(scratch, "10.99.0.0/16")?;
    let script = "
import socket
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
own.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton('10.7.0.1'))
own.connect(('239.1.1.1', 7000))
own.send(b'!')
";
    in_private_network(|_| {
        let device = "ip tuntap add dev group0 mode tap && ip addr add 10.7.0.1/24 dev group0 && \
                      ip link set group0 up multicast on";
        let made = Command::new("sh").args(["-c", device]).output()?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            return skip(format!("there is no network device of one's own: {}", said.trim()));
        }
        let receiver = UdpSocket::bind("0.0.0.0:7000")?;
        receiver.join_multicast_v4(&[239, 1, 1, 1].into(), &[10, 7, 0, 1].into())?;
        let command = ["/usr/bin/python3", "-c", script];
        let run = scratch.run(command).policy(&policy).record()?;
        run.exits(10)?;
        receiver.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
        let mut room = [0; 9];
        ensure!(receiver.recv(&mut room)? == 1, "nothing arrived");
        run.rules(Ruling::Violated)?;
        let violations = format!("{:?}", run.verdict);
        ensure!(violations.contains("239.1.1.1:7000"), "{violations}");
        Ok(())
    })
}
