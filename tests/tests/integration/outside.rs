//! What reaches processes outside the tree: unix sockets, and control as a debugger has it.

use std::{
    ffi::OsStr,
    fs,
    io::Read as _,
    net::UdpSocket,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use tracer::policy::Ruling;

use crate::{
    Test,
    harness::{Scratch, in_private_network, program, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("unknown_service", unknown_service),
    ("sent_by_sendfile", sent_by_sendfile),
    ("abstract_name", abstract_name),
    ("allowed_by_name", allowed_by_name),
    ("service_of_the_tree", service_of_the_tree),
    ("listener_has_ended", listener_has_ended),
    ("listener_after_another", listener_after_another),
    ("listener_of_the_tree_is_reaped", listener_of_the_tree_is_reaped),
    ("inherited_socket", inherited_socket),
    ("inherited_and_connected_anew", inherited_and_connected_anew),
    ("caller_over_another_socket", caller_over_another_socket),
    ("empty_messages", empty_messages),
    ("pair_that_is_connected_elsewhere", pair_that_is_connected_elsewhere),
    ("datagrams_with_an_address", datagrams_with_an_address),
    ("name_of_a_harmless_service", name_of_a_harmless_service),
    ("netlink", netlink),
    ("debugger", debugger),
    ("own_child", own_child),
];

/// Takes one connection and what is sent over it.
fn serve(listener: UnixListener) -> thread::JoinHandle<Result<usize>> {
    thread::spawn(move || {
        let (mut peer, _) = listener.accept()?;
        Ok(peer.read_to_end(&mut Vec::new())?)
    })
}

fn served(server: thread::JoinHandle<Result<usize>>) -> Result<()> {
    let bytes = server.join().ok().context("the server panicked")??;
    ensure!(bytes == 1, "{bytes} bytes arrived, not one");
    Ok(())
}

fn unknown_service(scratch: &Scratch) -> Result<()> {
    let socket = scratch.file("service");
    let say = program(scratch, "say")?;
    hands_over(scratch, &socket, &[say.as_os_str(), socket.as_os_str()])
}

/// The kernel moves the bytes, before 6.5 by another function than that of plain sends.
fn sent_by_sendfile(scratch: &Scratch) -> Result<()> {
    let socket = scratch.file("service");
    let said = scratch.write("said", "!")?;
    let send = program(scratch, "send-file")?;
    hands_over(scratch, &socket, &[send.as_os_str(), socket.as_os_str(), said.as_os_str()])
}

/// The command sends a byte to a service of this test.
fn hands_over(scratch: &Scratch, socket: &Path, command: &[&OsStr]) -> Result<()> {
    let server = serve(UnixListener::bind(socket)?);
    let run = scratch.run(command).policy("no-aws-cli").record()?;
    served(server)?;
    run.rules(Ruling::Inconclusive)?.because(&[
        "unknown local service",
        &socket.to_string_lossy(),
        &format!("pid {}", std::process::id()),
    ])?;
    ensure!(run.story.local_sends.len() == 1, "{:?}", run.story.local_sends);
    Ok(())
}

fn abstract_name(scratch: &Scratch) -> Result<()> {
    let name = format!("tracer-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name)?;
    let server = serve(UnixListener::bind_addr(&address)?);
    let say = program(scratch, "say")?.into_os_string();
    let run = scratch.run([say, format!("@{name}").into()]).policy("no-aws-cli").record()?;
    served(server)?;
    run.rules(Ruling::Inconclusive)?.because(&["unknown local service", &format!("@{name}")])?;
    Ok(())
}

/// A hand-off that the policy names is listed and no reason.
fn allowed_by_name(scratch: &Scratch) -> Result<()> {
    let socket = scratch.file("service");
    let server = serve(UnixListener::bind(&socket)?);
    let catalogue = scratch.write(
        "catalogue.toml",
        &format!(
            "[[hand-off]]\nname = 'build server'\nkind = 'socket'\npaths = ['{}']\n\
             why = 'compiles'\n",
            socket.display()
        ),
    )?;
    let policy = scratch.write(
        "policy.toml",
        "name = 'build'\nallow-hand-offs = ['build server']\n\
         [[claim]]\nkind = 'never-runs'\nprograms = ['aws']\n",
    )?;
    let say = program(scratch, "say")?;
    let run = scratch
        .run([say.as_os_str(), socket.as_os_str()])
        .policy(policy)
        .option("--catalogue")
        .option(catalogue)
        .record()?;
    served(server)?;
    run.proven()?;
    ensure!(run.story.hand_offs.len() == 1, "{:?}", run.story.hand_offs);
    run.output.says("build server")?;
    Ok(())
}

/// Who listens belongs to the tree, or did until it exited.
fn service_of_the_tree(scratch: &Scratch) -> Result<()> {
    let script = "
import os, socket, sys, time
parent = os.getpid()
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
if os.fork() == 0:
    # The one who listened is gone when the child speaks to itself.
    while os.getppid() == parent:
        time.sleep(0.01)
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(sys.argv[1])
    peer.send(b'!')
    listener.accept()[0].recv(1)
    left, right = socket.socketpair()
    left.send(b'!')
    os._exit(0)
os._exit(0)
";
    let socket = scratch.file("own").to_string_lossy().into_owned();
    let run =
        scratch.run(["/usr/bin/python3", "-c", script, &socket]).policy("no-aws-cli").record()?;
    run.proven()?;
    Ok(())
}

/// Starts a service outside the tree whose listening process ends; its pid, which is nobody's then.
fn leave_service(scratch: &Scratch, socket: &Path) -> Result<u32> {
    let mut listener = Command::new(program(scratch, "leave-service")?)
        .arg(socket)
        .stdin(Stdio::null())
        .spawn()?;
    let pid = listener.id();
    ensure!(listener.wait()?.success(), "the service did not start");
    Ok(pid)
}

fn listener_has_ended(scratch: &Scratch) -> Result<()> {
    for taken in ["not", "lives", "ended"] {
        let socket = scratch.file(taken);
        let listener = leave_service(scratch, &socket)?.to_string();
        let say = program(scratch, "say")?;
        let take = program(scratch, "take-pid")?;
        let mut command = vec![say.as_os_str(), socket.as_os_str()];
        if taken != "not" {
            // A process of the tree has the number after it.
            let words = [take.as_os_str(), OsStr::new(taken), OsStr::new(&listener)];
            command.splice(0..0, words);
        }
        let run = scratch.run(command).policy("no-aws-cli").record()?;
        run.rules(Ruling::Inconclusive)
            .and_then(|run| run.because(&["unknown local service", &format!("pid {listener}")]))
            .with_context(|| format!("its pid is taken: {taken}"))?;
        let [send] = run.story.local_sends.as_slice() else { bail!("{:?}", run.story.local_sends) };
        ensure!(send.peer_reaped, "{send:?}");
    }
    Ok(())
}

/// The kernel uses the memory of a `struct pid` again: that of a process of the tree that made sockets
/// becomes that of one outside.
fn listener_after_another(scratch: &Scratch) -> Result<()> {
    const MAKERS: u32 = 200;
    let script = format!(
        "
import os, socket, sys, time
for _ in range({MAKERS}):
    if os.fork() == 0:
        pair = socket.socketpair()
        os._exit(0)
    os.wait()
open('ready', 'w').close()
while not os.path.exists('go'):
    time.sleep(0.01)
os.execv(sys.argv[1], sys.argv[1:])
"
    );
    let socket = scratch.file("service");
    let say = program(scratch, "say")?;
    let leave = || -> Result<u32> {
        until("the command", || scratch.file("ready").exists())?;
        let listener = leave_service(scratch, &socket)?;
        scratch.write("go", "")?;
        Ok(listener)
    };
    let run = scratch
        .run([
            OsStr::new("/usr/bin/python3"),
            OsStr::new("-c"),
            OsStr::new(&script),
            say.as_os_str(),
            socket.as_os_str(),
        ])
        .policy("no-aws-cli");
    let (run, listener) = thread::scope(|scope| {
        let listener = scope.spawn(leave);
        (run.record(), listener.join())
    });
    let (run, listener) = (run?, listener.ok().context("the service panicked")??);
    run.rules(Ruling::Inconclusive)?
        .because(&["unknown local service", &format!("pid {listener}")])?;
    Ok(())
}

/// As an agent of the tree that became a daemon.
fn listener_of_the_tree_is_reaped(scratch: &Scratch) -> Result<()> {
    let script = r#"
"$1" "$3"   # ends as soon as it listens, and is waited for
/bin/true
exec "$2" "$3"
"#;
    let (leave, say) = (program(scratch, "leave-service")?, program(scratch, "say")?);
    let socket = scratch.file("own");
    let run = scratch
        .run([
            OsStr::new("sh"),
            OsStr::new("-c"),
            OsStr::new(script),
            OsStr::new("sh"),
            leave.as_os_str(),
            say.as_os_str(),
            socket.as_os_str(),
        ])
        .policy("no-aws-cli")
        .record()?;
    run.proven()?;
    ensure!(run.story.local_sends.is_empty(), "{:?}", run.story.local_sends);
    Ok(())
}

/// What the caller of tracer handed down is the caller's.
fn inherited_socket(scratch: &Scratch) -> Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let run = scratch
        .run(["sh", "-c", "echo said >&0"])
        .policy("no-aws-cli")
        .set(|command| {
            command.stdin(Stdio::from(OwnedFd::from(theirs)));
        })
        .record()?;
    run.proven()?;
    let mut said = [0; 5];
    ours.read_exact(&mut said)?;
    ensure!(said == *b"said\n", "{said:?}");
    ensure!(run.story.local_sends.len() == 1, "{:?}", run.story.local_sends);
    Ok(())
}

/// What the caller had not connected, the tree can connect to anybody.
fn inherited_and_connected_anew(scratch: &Scratch) -> Result<()> {
    let path = scratch.file("service");
    let service = UnixDatagram::bind(&path)?;
    let script = "
import os, socket, sys
own = socket.socket(fileno=0)
own.connect(sys.argv[1])
os.write(0, b'!')
";
    let (socket, path) = (UnixDatagram::unbound()?, path.to_string_lossy());
    let run = scratch.run(["/usr/bin/python3", "-c", script, &path]).policy("no-aws-cli");
    let run = run.set(|command| {
        command.stdin(Stdio::from(OwnedFd::from(socket)));
    });
    let run = run.record()?;
    run.rules(Ruling::Inconclusive)?.because(&["unknown local service", &path])?;
    ensure!(service.recv(&mut [0; 2])? == 1, "nothing arrived");
    Ok(())
}

/// What the caller gave is the caller's to watch. What the command finds by itself is not, whoever it is.
fn caller_over_another_socket(scratch: &Scratch) -> Result<()> {
    let socket = scratch.file("service");
    let server = serve(UnixListener::bind(&socket)?);
    let script = "
import os, socket, sys
os.write(0, b'said')
own = socket.socket(socket.AF_UNIX)
own.connect(sys.argv[1])
own.send(b'!')
";
    let (_ours, theirs) = UnixStream::pair()?;
    let command = ["/usr/bin/python3".as_ref(), "-c".as_ref(), script.as_ref(), socket.as_os_str()];
    let run = scratch.run(command).policy("no-aws-cli");
    let run = run.set(|command| {
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
    });
    let run = run.record()?;
    served(server)?;
    run.rules(Ruling::Inconclusive)?
        .because(&["unknown local service", &socket.to_string_lossy()])?;
    Ok(())
}

/// They say that there is something, and can carry descriptors.
fn empty_messages(scratch: &Scratch) -> Result<()> {
    let script = "
import os, socket
rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, b'\\1\\0\\0\\0')
mine = socket.socket(fileno=0)
mine.sendmsg([b''], [rights] if mine.family == socket.AF_UNIX else [])
";
    let sent = |stdin: OwnedFd| {
        let run = scratch.run(["/usr/bin/python3", "-c", script]).policy("no-aws-cli");
        let stdin = Stdio::from(stdin);
        let run = run.set(|command| {
            command.stdin(stdin);
        });
        let run = run.record()?;
        Ok::<_, anyhow::Error>((
            run.output.code(),
            run.story.local_sends.len(),
            run.story.foreign_sends.len(),
        ))
    };
    let (_ours, theirs) = UnixDatagram::pair()?;
    // An address of its own is what a datagram can have, and sendmsg could have given it.
    ensure!(sent(theirs.into())? == (11, 1, 0), "over a unix socket");
    in_private_network(|_| {
        let receiver = UdpSocket::bind("127.0.0.1:0")?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(receiver.local_addr()?)?;
        ensure!(sent(socket.into())? == (0, 0, 1), "over UDP");
        Ok(())
    })
}

/// A process of this test that somebody may take control of.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The socket keeps what the kernel noted when the pair was made.
fn pair_that_is_connected_elsewhere(scratch: &Scratch) -> Result<()> {
    let socket = scratch.file("service");
    let service = UnixDatagram::bind(&socket)?;
    let script = "
import socket, sys
left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
left.send(b'!')
right.recv(1)
if sys.argv[1:]:
    left.connect(sys.argv[1])
    left.send(b'!')
";
    let socket = socket.to_string_lossy();
    let traced = |more: &[&str]| {
        let command = [&["/usr/bin/python3", "-c", script], more].concat();
        scratch.run(command).policy("no-aws-cli").record()
    };
    traced(&[])?.proven()?;
    let run = traced(&[&socket])?;
    ensure!(service.recv(&mut [0; 2])? == 1, "nothing arrived");
    run.rules(Ruling::Inconclusive)?.because(&["unknown local service", &socket])?;
    Ok(())
}

/// Over a socket that is connected within the tree. What a call can give an address counts, whatever it gave.
fn datagrams_with_an_address(scratch: &Scratch) -> Result<()> {
    let socket = scratch.file("service");
    let service = UnixDatagram::bind(&socket)?;
    let script = "
import os, socket, sys
left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
how, to = sys.argv[1:]
if how == 'sendto':
    left.sendto(b'!', to)
elif how == 'sendmsg':
    left.sendmsg([b'!'], [], 0, to)
elif how == 'sendmsg to the pair':
    left.sendmsg([b'!'])
elif how == 'send':
    left.send(b'!')
elif how == 'write':
    os.write(left.fileno(), b'!')
elif how == 'writev':
    os.writev(left.fileno(), [b'!'])
";
    let traced = |how: &str| {
        let command = ["/usr/bin/python3", "-c", script, how, &socket.to_string_lossy()];
        let run = scratch.run(command).policy("no-aws-cli").record()?;
        ensure!(run.story.end.is_some(), "{how}");
        Ok(run)
    };
    for how in ["send", "write", "writev"] {
        traced(how)?.proven().context(how.to_owned())?;
    }
    for how in ["sendto", "sendmsg", "sendmsg to the pair"] {
        let run = traced(how)?;
        if how != "sendmsg to the pair" {
            ensure!(service.recv(&mut [0; 2])? == 1, "nothing arrived by {how}");
        }
        run.rules(Ruling::Inconclusive)?
            .because(&["unknown local service", "by a call that may have"])?;
    }
    Ok(())
}

/// A user who has a root directory of his own gives his socket the name of the log's.
fn name_of_a_harmless_service(scratch: &Scratch) -> Result<()> {
    let root = scratch.folder("root")?;
    fs::create_dir(root.join("dev"))?;
    let service = "
import os, socket, sys
kind = getattr(socket, sys.argv[1])
own = socket.socket(socket.AF_UNIX, kind)
os.chroot(sys.argv[2])
os.setgroups([])
os.setegid(int(sys.argv[3]))
os.chown('/dev', int(sys.argv[3]), int(sys.argv[3]))
os.seteuid(int(sys.argv[3]))
own = socket.socket(socket.AF_UNIX, kind)
own.bind('/dev/log')
if kind == socket.SOCK_STREAM:
    own.listen()
print('bound', flush=True)
sys.stdin.read()
";
    let client = "
import socket, sys
own = socket.socket(socket.AF_UNIX, getattr(socket, sys.argv[1]))
own.connect(sys.argv[2])
own.send(b'!')
";
    let named = root.join("dev/log");
    for kind in ["SOCK_DGRAM", "SOCK_STREAM"] {
        for (user, is_believed) in [("0", true), ("65534", false)] {
            let mut service = Command::new("/usr/bin/python3")
                .args(["-c", service, kind])
                .arg(&root)
                .arg(user)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut said = [0; 5];
            service.stdout.as_mut().context("it was piped")?.read_exact(&mut said)?;
            let named = named.to_string_lossy();
            let command = ["/usr/bin/python3", "-c", client, kind, &named];
            let run = scratch.run(command).policy("no-aws-cli").record();
            drop(service.stdin.take());
            ensure!(service.wait()?.success(), "the service failed");
            fs::remove_file(&*named)?;
            let run = run?;
            ensure!(run.story.local_sends.len() == 1, "{:?}", run.story.local_sends);
            let ruled = if is_believed {
                run.proven()
            } else {
                let rules = run.rules(Ruling::Inconclusive);
                rules.and_then(|run| run.because(&["unknown local service", "/dev/log"]))
            };
            ruled.with_context(|| format!("{kind} of user {user}"))?;
        }
    }
    Ok(())
}

/// The kernel and other processes are asked over sockets of one family.
fn netlink(scratch: &Scratch) -> Result<()> {
    let script = "
import os, socket, sys
own = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, int(sys.argv[1]))
own.bind((0, 0))
to = own.getsockname() if sys.argv[1] == '2' else (0, 0)
own.sendto(bytes(16), to)
";
    let traced = |protocol: &str| {
        let command = ["/usr/bin/python3", "-c", script, protocol];
        scratch.run(command).policy("no-aws-cli").record()
    };
    traced("0")?.proven()?;
    let run = traced("2")?;
    run.rules(Ruling::Inconclusive)?.because(&["unknown local service", "netlink"])?;
    Ok(())
}

fn debugger(scratch: &Scratch) -> Result<()> {
    let grab = program(scratch, "grab")?.into_os_string();
    // Whatever else is to be watched.
    let plain = scratch.write(
        "plain.toml",
        "name = 'plain'\n[[claim]]\nkind = 'never-runs'\nprograms = ['aws']\n",
    )?;
    let built_in = std::path::PathBuf::from("no-aws-cli");
    for (how, policy) in
        [("seize", &built_in), ("descriptor", &built_in), ("seize", &plain), ("descriptor", &plain)]
    {
        let victim = Victim(Command::new("sleep").arg("60").stdin(Stdio::null()).spawn()?);
        let pid = victim.0.id().to_string();
        let run = scratch
            .run([grab.clone(), how.into(), pid.clone().into()])
            .policy(policy)
            .option("--exit-code=command")
            .record()?;
        run.exits(0).with_context(|| how)?;
        let verdict = run.verdict.as_ref().context("no verdict")?;
        ensure!(verdict.overall == Ruling::Inconclusive, "{how}: {}", run.output.stderr);
        run.because(&["debugger"]).with_context(|| how)?;
    }
    Ok(())
}

fn own_child(scratch: &Scratch) -> Result<()> {
    let grab = program(scratch, "grab")?.into_os_string();
    let run = scratch.run([grab, "child".into()]).policy("no-aws-cli").record()?;
    run.proven()?;
    Ok(())
}
