//! What reaches services of this machine over the network.

use std::{
    fs,
    net::TcpListener,
    num::NonZero,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, Protocol, SocketType};
use tracer::{policy::Ruling, record::schema::Outcome};

use crate::{
    Test,
    harness::{Scratch, in_private_network, on_path, skip, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("by_a_first_packet", by_a_first_packet),
    ("by_raw_packets", by_raw_packets),
    ("by_foreign_raw_packets", by_foreign_raw_packets),
    ("by_a_route", by_a_route),
];

/// A client that takes no answer: the connection never comes about, and what its first packet brought is there.
fn by_a_first_packet(scratch: &Scratch) -> Result<()> {
    const LISTEN: &str = "
import os, socket, sys, time
def listen(port):
    listener = socket.socket()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 4)
    listener.bind(('127.0.0.1', port))
    listener.listen(4)
    return listener
";
    let serve = format!(
        "{LISTEN}
listener = listen(9229)
open('ready', 'w')
open('arrived', 'wb').write(listener.accept()[0].recv(9))
"
    );
    let send = format!(
        "{LISTEN}
def send(client, port):
    client.sendto(b'!', socket.MSG_FASTOPEN, ('127.0.0.1', port))
# Cookies are the same for all ports of an address.
own = listen(8081)
send(socket.socket(), 8081)
own.accept()
mute = socket.socket()
IP_MINTTL = 21
mute.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 255)
mute.setblocking(False)
send(mute, 9229)
while not os.path.exists('arrived'): time.sleep(0.01)
"
    );
    in_private_network(|_| {
        fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3")?;
        let mut server = Command::new("/usr/bin/python3");
        let mut server = server.args(["-c", &serve]).current_dir(scratch.path()).spawn()?;
        until("the service", || scratch.file("ready").exists())?;
        let run = scratch.run(["/usr/bin/python3", "-c", &send]).policy("no-aws-cli").record()?;
        ensure!(server.wait()?.success(), "the service failed");
        run.exits(11)?;
        ensure!(fs::read(scratch.file("arrived"))? == b"!", "nothing arrived");
        let result = run
            .story
            .connections
            .iter()
            .find(|to| to.destination.is_some_and(|to| to.port == 9229));
        let result = result.and_then(|connection| connection.result.as_ref());
        ensure!(result.is_some_and(|result| result.outcome == Outcome::Unknown), "{result:?}");
        run.rules(Ruling::Inconclusive)?
            .because(&["node-inspector", "not known whether it came about"])?;
        Ok(())
    })
}

/// Any service can be reached by whoever makes the packets.
fn by_raw_packets(scratch: &Scratch) -> Result<()> {
    let traced = |what: &str| {
        let script = format!("import socket\nsocket.socket({what})");
        let command = ["/usr/bin/python3", "-c", &script];
        scratch.run(command).policy("no-aws-cli").record()
    };
    let icmp = "socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP";
    traced(icmp)?.proven()?;
    let run = traced("socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP")?;
    run.rules(Ruling::Inconclusive)?.because(&["unknown local service", "raw"])?;
    Ok(())
}

/// An address that no interface has, and where another socket than one of that address connects from.
fn by_a_route(scratch: &Scratch) -> Result<()> {
    on_path("ip")?;
    let script = "
import socket, sys
for source, to in zip(sys.argv[1::2], sys.argv[2::2]):
    family = socket.AF_INET6 if ':' in to else socket.AF_INET
    own = socket.socket(family)
    own.bind((source, 0))
    own.setblocking(False)
    own.connect_ex((to, 22))
    own.close()
";
    in_private_network(|_| {
        let setup = "ip tuntap add dev route0 mode tap && ip addr add 10.7.0.1/24 dev route0 && \
                     ip addr add fd07::1/64 dev route0 nodad && ip link set route0 up && \
                     ip route add local 10.5.0.0/16 dev lo && ip -6 route add local fd05::/64 dev lo";
        let made = Command::new("sh").args(["-c", setup]).output()?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            return skip(format!("there are no routes of one's own: {}", said.trim()));
        }
        // Of IPv6 the kernel binds to no address that no interface has.
        let listener = TcpListener::bind("[::]:22")?;
        let traced = |source: &str, to: &str| {
            let command = ["/usr/bin/python3", "-c", script, source, to];
            scratch.run(command).policy("no-aws-cli").record()
        };
        for (source, to) in [
            ("10.7.0.1", "10.5.0.1"),
            ("::ffff:10.7.0.1", "::ffff:10.5.0.1"),
            ("fd07::1", "fd05::1"),
        ] {
            let run = traced(source, to)?;
            run.rules(Ruling::Inconclusive)?.because(&["a service of this machine"])?;
        }
        for (source, to) in [
            ("10.7.0.1", "10.7.0.2"),
            ("::ffff:10.7.0.1", "::ffff:10.7.0.2"),
            ("fd07::1", "fd07::2"),
        ] {
            let run = traced(source, to)?;
            run.proven()?;
            let result = run.only_connection()?.result.as_ref();
            ensure!(result.is_some_and(|result| result.local == Some(false)), "{to}: {result:?}");
        }
        drop(listener);
        Ok(())
    })
}

/// Also over one that another process made, or that was made when the process had left its cgroup.
fn by_foreign_raw_packets(scratch: &Scratch) -> Result<()> {
    let script = "
import socket
own = socket.socket(fileno=0)
own.sendto(bytes(8), ('127.0.0.1', 0))
";
    in_private_network(|_| {
        for (protocol, is_handed) in [(6, true), (253, true), (1, false)] {
            let (family, kind) = (AddressFamily::INET, SocketType::RAW);
            let protocol = Protocol::from_raw(NonZero::new(protocol).context("no protocol")?);
            let socket = rustix::net::socket(family, kind, Some(protocol))?;
            let run = scratch.run(["/usr/bin/python3", "-c", script]).policy("no-aws-cli");
            let run = run.set(|command| {
                command.stdin(Stdio::from(socket));
            });
            let run = run.record()?;
            ensure!(run.story.foreign_sends.len() == 1, "{:?}", run.story.foreign_sends);
            if is_handed {
                run.rules(Ruling::Inconclusive)?
                    .because(&["unknown local service", "raw socket"])?;
            } else {
                run.proven()?;
            }
        }
        Ok(())
    })
}
