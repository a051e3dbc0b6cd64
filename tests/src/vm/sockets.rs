//! Sockets other than TCP's, first bytes of connections, and the command's cgroup.

use std::{
    fs, io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Result, ensure};

use super::{
    Finding,
    checks::ok,
    machine::ODD,
    outside::{NO_FEXIT, hook},
    recording::expect,
    traced::Traced,
};

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

/// By glibc, of which the virtual machine has a copy for this alone.
pub(super) fn resolver(traced: &mut Traced) -> Result<Finding> {
    const GETENT: &str = "/usr/bin/getent";
    if !Path::new(GETENT).exists() {
        return Ok(Finding::Skipped("the machine that made this one has no glibc".into()));
    }
    fs::write("/etc/hosts", "127.0.0.1 localhost\n192.0.2.7 named.example\n")?;
    let script = format!("{GETENT} ahosts named.example & {GETENT} ahosts named.example; wait");
    let recording = traced.run(&["--resolver"], 0, &["/bin/sh", "-c", &script])?;
    let calls: Vec<_> = recording.of_type("resolved").collect();
    ensure!(calls.len() == 2, "{} calls: {calls:?}", calls.len());
    for call in calls {
        expect(call, "/name", "named.example")?;
        expect(call, "/addresses", vec!["192.0.2.7"])?;
    }
    ok("two calls of getaddrinfo at once")
}

/// Over a connection that was there before tracing. Busybox copies with sendfile(2).
pub(super) fn foreign_sends(traced: &mut Traced) -> Result<Finding> {
    const DESCRIPTOR: i32 = 9;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let to = listener.local_addr()?;
    let connection = TcpStream::connect(to)?;
    // SAFETY: no memory is involved.
    let copy = unsafe { libc::dup2(connection.as_raw_fd(), DESCRIPTOR) };
    ensure!(copy == DESCRIPTOR, "dup2: {}", io::Error::last_os_error());
    // SAFETY: it was just made and has no other owner; nothing else here uses that number.
    let _inheritable = unsafe { OwnedFd::from_raw_fd(copy) };
    fs::write("/tmp/page", "what is sent")?;
    let mut hooks = Vec::new();
    for options in [&["-p", "no-aws-cli"][..], &["-p", "no-aws-cli", NO_FEXIT]] {
        let script = format!("/bin/cat /tmp/page >&{DESCRIPTOR}");
        let recording = traced.run(options, 11, &["/bin/sh", "-c", &script])?;
        let by = hook(recording, "foreign-sends")?;
        if by == "none" {
            ensure!(recording.of_type("foreign-send").count() == 0, "without a sensor");
        } else {
            let send = recording.one("foreign-send", "/destination/port", to.port())?;
            expect(send, "/protocol", libc::IPPROTO_TCP)?;
        }
        hooks.push(by);
    }
    ensure!(hooks[0].starts_with("fexit"), "{hooks:?}");
    ok(format!("by {}", hooks.join(", and by ")))
}
