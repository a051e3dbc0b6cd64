//! Sockets other than TCP's, first bytes of connections, and the command's cgroup.

use std::net::{TcpListener, UdpSocket};

use anyhow::{Result, ensure};

use super::{Finding, checks::ok, machine::ODD, recording::expect, traced::Traced};

pub(super) fn datagrams(traced: &mut Traced) -> Result<Finding> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    let address = receiver.local_addr()?;
    let command = [ODD, "datagrams", &address.to_string(), "20", "11"];
    let recording = traced.judged(0, &command)?;
    let datagram = recording.one("datagram", "/destination/port", address.port())?;
    expect(datagram, "/via", "send")?;
    ensure!(datagram["net_ns_inum"].as_u64().is_some_and(|inum| inum > 0), "{datagram}");
    let exchange = recording.one("exchange", "/cookie", datagram["cookie"].clone())?;
    expect(exchange, "/sent_packets", 20)?;
    expect(exchange, "/sent_bytes", 220)?;
    ok("20 packets in one row")
}

pub(super) fn leaves_cgroup(traced: &mut Traced) -> Result<Finding> {
    let command = ["/bin/sh", "-c", "echo 0 > /sys/fs/cgroup/cgroup.procs"];
    let recording = traced.judged(0, &command)?;
    let moved = recording.one("cgroup-move", "/to_path", "/")?;
    expect(moved, "/to_cgroup_id", 1)?;
    ok("a move out of the command's cgroup is recorded")
}

pub(super) fn odd_sockets(traced: &mut Traced) -> Result<Finding> {
    let recording = traced.judged(0, &[ODD, "raw-socket"])?;
    let socket = recording.one("odd-socket", "/protocol", libc::IPPROTO_ICMP)?;
    expect(socket, "/socket-type", libc::SOCK_RAW)?;
    let recording = traced.judged(0, &[ODD, "packet-socket"])?;
    recording.one("odd-socket", "/family", libc::AF_PACKET)?;
    ok("a raw and a packet socket")
}

pub(super) fn http_host(traced: &mut Traced) -> Result<Finding> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let request = "GET / HTTP/1.1\r\nHost: name.example\r\n\r\n";
    let command = [ODD, "say-over-tcp", &listener.local_addr()?.to_string(), request];
    let recording = traced.judged(0, &command)?;
    let opening = recording.one("opening", "/what/http/host", "name.example")?;
    recording.one("connect", "/cookie", opening["cookie"].clone())?;
    recording.one("connect", "/connection", opening["connection"].clone())?;
    ok("from the first bytes of a connection")
}
