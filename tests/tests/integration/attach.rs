//! What runs already is joined.

use std::{fs, io::Read as _, net::TcpListener, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tracer::{
    model::ProcessKey,
    policy::Ruling,
    record::schema::{AttachedTo, SocketProtocol},
};

use crate::{
    Test,
    harness::{
        Scratch,
        attached::{Attached, Seen, Workload, v2_mount},
        in_private_network, program, skip, until,
    },
};

mod cgroups;

use cgroups::OwnCgroup;

pub(crate) const TESTS: &[Test] = &[
    ("storm", storm),
    ("tree", tree),
    ("found_running", found_running),
    ("own_program", own_program),
    ("leader_gone", leader_gone),
    ("resolved_names", resolved_names),
    ("sockets", sockets),
    ("connected_to_a_service", connected_to_a_service),
    ("connections_from_arming", connections_from_arming),
    ("cgroup", cgroups::cgroup),
    ("first_version_cgroup", cgroups::first_version_cgroup),
    ("first_version_container", cgroups::first_version_container),
    ("host", host),
    ("ends", ends),
    ("refused", refused),
];

fn go(scratch: &Scratch) -> Result<()> {
    scratch.write("go", "")?;
    Ok(())
}

/// A loop of the shell until the test says go.
const WAIT: &str = "while [ ! -e go ]; do sleep 0.01; done";

fn tree(scratch: &Scratch) -> Result<()> {
    let policy = scratch.write(
        "policy.toml",
        "name = 'quiet'\n[[claim]]\nkind = 'never-runs'\nprograms = ['/usr/bin/uname']\n",
    )?;
    let policy = policy.to_string_lossy();
    let script = format!("({WAIT}; uname; exit 3) & {WAIT}; wait $!; exit 4");
    let workload = Workload::shell(scratch, &script)?;
    let own_cgroup = fs::read_to_string(format!("/proc/{}/cgroup", workload.pid()))?;
    let attached = Attached::to(scratch, &["--pid", &workload.pid()], &["-p", &policy])?;
    let tracer = attached.pid();
    let cgroup_then = fs::read_to_string(format!("/proc/{}/cgroup", workload.pid()))?;
    ensure!(own_cgroup == cgroup_then, "{own_cgroup} became {cgroup_then}");
    go(scratch)?;
    let seen = attached.end()?;
    seen.rules(Ruling::Violated)?.because("before the probes were attached is unknown")?;
    let root = seen.story.root().context("no root")?;
    ensure!(root.pid == workload.id(), "{root:?}");
    let root = &seen.story.processes[&root];
    ensure!(root.exit.as_ref().is_some_and(|exit| exit.code == Some(4)), "{:?}", root.exit);
    ensure!(root.execs.first().is_some_and(|exec| exec.found), "{:?}", root.execs);
    let [uname] = seen.executed("uname")[..] else { anyhow::bail!("{:?}", seen.executed("uname")) };
    // The subshell ran already, and is the root's child all the same.
    let parent = seen.story.processes[&uname].creator.context("nobody's child")?;
    let creator = seen.story.processes[&parent].creator;
    ensure!(creator == Some(root.key), "{creator:?} and not {:?} made {parent:?}", root.key);
    ensure!(seen.story.miscounted.is_empty(), "{:?}", seen.story.miscounted);
    let Some(attachment) = &seen.story.start.attached else { anyhow::bail!("nothing joined") };
    ensure!(attachment.to == AttachedTo::Pid(root.key.pid), "{attachment:?}");
    let left = v2_mount()?.map(|v2| v2.join(format!("tracer-{tracer}-0")));
    ensure!(left.is_none_or(|left| !left.exists()), "a cgroup of tracer's is left");
    Ok(())
}

/// Lines of processes that fork and end at once while tracer is looking for them: each line's end is seen.
fn storm(scratch: &Scratch) -> Result<()> {
    const LINES: usize = 6;
    const ROUNDS: usize = 6;
    let lines = program(scratch, "lines")?;
    let mut doubtful = 0;
    for round in 0..ROUNDS {
        let mut command = Command::new(&lines);
        command.args([&LINES.to_string(), "go", "/bin/true"]);
        let workload = Workload::start(scratch, &mut command)?;
        // Each round begins at another moment of the storm.
        std::thread::sleep(Duration::from_millis(7 * round as u64));
        let attached = Attached::to(scratch, &["--pid", &workload.pid()], &[])?;
        std::thread::sleep(Duration::from_millis(50));
        go(scratch)?;
        let seen = attached.end()?;
        fs::remove_file(scratch.file("go"))?;
        let ends = seen.executed("true").len();
        ensure!(ends == LINES, "round {round}: {ends} of {LINES} lines; {:?}", seen.story.snapshot);
        // The one case that remains, see `run::attach::search`: here, or in a test beside this one.
        let doubts = seen.doubts()?;
        let is_known = |doubt: &String| doubt.contains("whose child it was is not known");
        ensure!(doubts.iter().all(is_known), "round {round}: {doubts:?}");
        doubtful += usize::from(!doubts.is_empty());
        ensure!(seen.story.processes.len() > 10 * LINES, "there was no storm");
        ensure!(seen.story.alive.is_empty(), "{:?} did not end", seen.story.alive);
    }
    ensure!(doubtful <= ROUNDS / 2, "{doubtful} of {ROUNDS} rounds ended with a doubt");
    Ok(())
}

/// What runs already when it is found counts, and what an interpreter was given cannot be told.
fn found_running(scratch: &Scratch) -> Result<()> {
    let sleeper = scratch.copy(Path::new("/bin/sleep"), "sleeper")?;
    let policy = scratch.write(
        "policy.toml",
        &format!(
            "name = 'quiet'\nsurvivors = 'allow'\n\
             [[claim]]\nkind = 'never-runs'\nprograms = ['{}']\n",
            sleeper.display()
        ),
    )?;
    let policy = policy.to_string_lossy();
    let options = ["-p", &*policy, "--from-arming", "--duration", "1s"];
    let workload = Workload::start(scratch, Command::new(&sleeper).arg("60"))?;
    let seen = Attached::to(scratch, &["--pid", &workload.pid()], &options)?.end()?;
    seen.rules(Ruling::Violated)?;
    drop(workload);
    // A copy that is there already makes it a program of several names.
    let renamed = scratch.copy(&sleeper, "other")?;
    let workload = Workload::start(scratch, Command::new(&renamed).arg("60"))?;
    let seen = Attached::to(scratch, &["--pid", &workload.pid()], &options)?.end()?;
    seen.rules(Ruling::Inconclusive)?.because("same content")?;
    drop(workload);
    let workload = Workload::shell(scratch, "sleep 60; exit")?;
    let seen = Attached::to(scratch, &["--pid", &workload.pid()], &options)?.end()?;
    seen.rules(Ruling::Inconclusive)?.because("told by its own memory only")?;
    let claim = &seen.verdict.as_ref().context("no verdict")?.claims[0].claim;
    ensure!(claim.contains("from the moment on"), "{claim}");
    Ok(())
}

/// `@command` is what the joined process runs; nobody of a cgroup is the one.
fn own_program(scratch: &Scratch) -> Result<()> {
    let cgroup = OwnCgroup::new(scratch)?;
    let path = cgroup.path();
    // Nothing else is executed.
    let script = "while [ ! -e go ]; do :; done; /bin/sh -c ': again'; kill -STOP $$";
    let judged = |target: &dyn Fn(&str) -> Vec<String>| -> Result<Seen> {
        let _ = fs::remove_file(scratch.file("go"));
        let workload = Workload::shell(scratch, script)?;
        cgroup.take(&workload.pid())?;
        let target = target(&workload.pid());
        let target: Vec<&str> = target.iter().map(String::as_str).collect();
        let attached = Attached::to(scratch, &target, &["-p", "no-shell-outs", "--from-arming"])?;
        go(scratch)?;
        until("the second shell", || attached.has("\": again\""))?;
        attached.stop()
    };
    judged(&|pid| vec!["--pid".into(), pid.into()])?.rules(Ruling::Inconclusive)?;
    judged(&|_| vec!["--cgroup".into(), path.clone()])?.rules(Ruling::Violated)?;
    Ok(())
}

/// A process goes on when its first thread has ended, of which /proc tells nothing then.
fn leader_gone(scratch: &Scratch) -> Result<()> {
    let gone = program(scratch, "leader-gone")?;
    let cgroup = OwnCgroup::new(scratch)?;
    let path = cgroup.path();
    for by_cgroup in [false, true] {
        let _ = fs::remove_file(scratch.file("go"));
        let _ = fs::remove_file(scratch.file("moved"));
        // A first thread that has ended stays in the cgroup where it was.
        let script = format!(
            "while [ ! -e moved ]; do sleep 0.01; done; exec {} go /usr/bin/uname",
            gone.display()
        );
        let workload = Workload::shell(scratch, &script)?;
        let pid = workload.pid();
        cgroup.take(&pid)?;
        scratch.write("moved", "")?;
        let is_zombie = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            status.is_ok_and(|status| status.contains("State:\tZ"))
        };
        until("the first thread's end", is_zombie)?;
        let target = if by_cgroup { ["--cgroup", &path] } else { ["--pid", &pid] };
        let attached = Attached::to(scratch, &target, &[])?;
        go(scratch)?;
        let seen = attached.end()?;
        ensure!(seen.doubts()?.is_empty(), "{:?}", seen.doubts());
        let process = seen.story.processes.values().find(|it| it.key.pid == workload.id());
        let process = process.context("it was not joined")?;
        let found = process.execs.first().context("no exec")?;
        ensure!(found.found && found.unread.is_empty(), "{found:?}");
        ensure!(found.filename.as_ref().is_some_and(|name| name.as_path() == gone), "{found:?}");
        ensure!(found.argv.args.len() == 3 && found.file.is_some(), "{found:?}");
        ensure!(process.exit.as_ref().is_some_and(|exit| exit.code == Some(6)), "{process:?}");
        let mut sockets = seen.story.found_sockets.iter();
        ensure!(
            sockets
                .any(|socket| socket.process == process.key
                    && socket.state.as_deref() == Some("listen")),
            "{:?}",
            seen.story.found_sockets
        );
        ensure!(seen.executed("uname").len() == 1, "{:?}", seen.executed("uname"));
    }
    Ok(())
}

/// What a joined process has its C library resolve, also one that is no file of this machine's usual ones.
fn resolved_names(scratch: &Scratch) -> Result<()> {
    let policy = scratch.write(
        "policy.toml",
        "name = 'named'\nsurvivors = 'allow'\n\
         [[claim]]\nkind = 'never-connects-to'\nendpoints = ['telemetry.example']\n",
    )?;
    let options = ["-p", &*policy.to_string_lossy(), "--from-arming"];
    let python = "import ctypes, os, socket, time\n\
                  while not os.path.exists('go'): time.sleep(0.01)\n\
                  socket.getaddrinfo('127.1.2.3', 80)";
    let own = scratch.path().join("libraries");
    fs::create_dir(&own)?;
    for has_own in [false, true] {
        let _ = fs::remove_file(scratch.file("go"));
        let mut command = Command::new("/usr/bin/python3");
        if has_own {
            let usual = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
            if !usual.exists() {
                return skip("the C library is at another place");
            }
            fs::copy(usual, own.join("libc.so.6"))?;
            command.env("LD_LIBRARY_PATH", &own);
        }
        let workload = Workload::start(scratch, command.args(["-c", python]))?;
        let maps = format!("/proc/{}/maps", workload.pid());
        let library = if has_own { "libraries/libc.so.6" } else { "libc.so.6" };
        until("its C library", || {
            fs::read_to_string(&maps).is_ok_and(|maps| maps.contains(library))
        })?;
        let attached = Attached::to(scratch, &["--pid", &workload.pid()], &options)?;
        go(scratch)?;
        let seen = attached.end()?;
        let sensor = seen.story.start.sensors.iter().find(|row| row.sensor == "resolved");
        match &sensor.context("no such sensor")?.missing {
            None => {}
            Some(why) if why.contains("no C library") || why.contains("seccomp") => {
                return skip(why);
            }
            Some(why) => anyhow::bail!("{why}"),
        }
        let calls = seen.story.resolved.iter();
        let names: Vec<&str> = calls.map(|call| &*call.name).collect();
        ensure!(names == ["127.1.2.3"], "{has_own}: {names:?}");
    }
    Ok(())
}

/// Open sockets, with their owners.
fn sockets(scratch: &Scratch) -> Result<()> {
    let peer = TcpListener::bind(("127.0.0.1", 0))?;
    let address = peer.local_addr()?;
    let policy = scratch.write(
        "policy.toml",
        "name = 'local'\nsurvivors = 'allow'\n\
         [[claim]]\nkind = 'connects-only-to'\nendpoints = ['127.0.0.0/8']\n",
    )?;
    let script = format!(
        "import socket, time\n\
         client = socket.create_connection(('127.0.0.1', {}))\n\
         listener = socket.create_server(('127.0.0.1', 0))\n\
         local = socket.socket(socket.AF_UNIX); local.bind('named')\n\
         raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)\n\
         unbound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\n\
         client.send(b'!')\ntime.sleep(60)",
        address.port()
    );
    let mut python = Command::new("/usr/bin/python3");
    let workload = Workload::start(scratch, python.args(["-c", &script]))?;
    let (mut stream, client) = peer.accept()?;
    stream.read_exact(&mut [0])?;
    let options = ["-p", &*policy.to_string_lossy(), "--from-arming", "--duration", "1s"];
    let seen = Attached::to(scratch, &["--pid", &workload.pid()], &options)?.end()?;
    seen.rules(Ruling::Inconclusive)?
        .because(&format!("it had a socket open when it was found (tcp to {address})"))?
        .because("it had a socket open when it was found (raw)")?
        .because("it had a socket open when it was found (udp)")?;
    ensure!(
        seen.because("(netlink)").is_err(),
        "what goes over netlink sockets ends in the kernel"
    );
    let pid = workload.id();
    let own = |protocol| {
        let sockets = seen.story.found_sockets.iter();
        sockets.filter(move |socket| socket.protocol == Some(protocol) && socket.process.pid == pid)
    };
    let connected = own(SocketProtocol::Tcp).find(|socket| socket.remote == Some(address));
    let connected = connected.context("the connection was not found")?;
    ensure!(connected.local == Some(client), "{connected:?}");
    ensure!(connected.state.as_deref() == Some("established"), "{connected:?}");
    ensure!(own(SocketProtocol::Tcp).any(|socket| socket.state.as_deref() == Some("listen")));
    let named = |path: &[u8]| path.ends_with(b"named");
    ensure!(
        own(SocketProtocol::Unix)
            .any(|socket| socket.path.as_ref().is_some_and(|path| named(&path.0)))
    );
    Ok(())
}

/// Who has a connection to sshd can have it run anything, and need not connect again.
fn connected_to_a_service(scratch: &Scratch) -> Result<()> {
    in_private_network(|network| {
        let (listener, address) = network.listen("127.0.0.1:22")?;
        let script = format!(
            "import os, socket, time\n\
             client = socket.create_connection(('127.0.0.1', {}))\n\
             open('connected', 'w')\n\
             while not os.path.exists('go'): time.sleep(0.01)\n\
             client.send(b'!')\n",
            address.port()
        );
        let mut python = Command::new("/usr/bin/python3");
        let workload = Workload::start(scratch, python.args(["-c", &script]))?;
        until("the connection", || scratch.file("connected").exists())?;
        let options = ["-p", "no-aws-cli", "--from-arming"];
        let attached = Attached::to(scratch, &["--pid", &workload.pid()], &options)?;
        go(scratch)?;
        let seen = attached.end()?;
        drop(listener);
        seen.rules(Ruling::Inconclusive)?
            .because("handed work to ssh")?
            .because("when it was found it had a connection to a service of this machine")?;
        Ok(())
    })
}

/// A claim over connections is inconclusive, also when it is limited to the time from arming on.
fn connections_from_arming(scratch: &Scratch) -> Result<()> {
    if v2_mount()?.is_none() {
        return skip("the v2 cgroups are not mounted");
    }
    let peer = TcpListener::bind(("127.0.0.1", 0))?;
    let address = peer.local_addr()?;
    let policy = scratch.write(
        "policy.toml",
        "name = 'local'\n[[claim]]\nkind = 'connects-only-to'\nendpoints = ['127.0.0.0/8']\n",
    )?;
    let policy = policy.to_string_lossy();
    for option in [&["--from-arming"][..], &[]] {
        let _ = fs::remove_file(scratch.file("go"));
        let script = format!(
            "{WAIT}; /usr/bin/python3 -c 'import socket; \
             socket.create_connection((\"127.0.0.1\", {})).send(b\"!\")'",
            address.port()
        );
        let workload = Workload::shell(scratch, &script)?;
        let options = [&["-p", &*policy], option].concat();
        let attached = Attached::to(scratch, &["--pid", &workload.pid()], &options)?;
        go(scratch)?;
        let (mut stream, _) = peer.accept()?;
        let _ = stream.read(&mut [0; 16])?;
        drop(stream);
        let seen = attached.end()?;
        // Not even from arming on: whose a socket is that somebody of the cgroup made cannot be told.
        seen.rules(Ruling::Inconclusive)?
            .because("whose the sockets of processes are that ran already")?;
        let limited = seen.because("attached is unknown").is_err();
        ensure!(limited != option.is_empty(), "{:?}", seen.verdict);
        let contacted =
            seen.story.connections.iter().filter_map(|connection| connection.destination);
        let ports: Vec<u16> = contacted.map(|to| to.port).collect();
        ensure!(ports == [address.port()], "{ports:?}");
    }
    Ok(())
}

/// Everybody, for a moment.
fn host(scratch: &Scratch) -> Result<()> {
    // Others run things, too.
    std::os::unix::fs::symlink("/bin/uname", scratch.file("own-uname"))?;
    let workload = Workload::shell(scratch, &format!("{WAIT}; ./own-uname; sleep 60"))?;
    let attached = Attached::to(scratch, &["--host"], &["--duration", "20s"])?;
    go(scratch)?;
    until("uname", || attached.has("/own-uname\""))?;
    let seen = attached.stop()?;
    ensure!(seen.code == 0, "{}", seen.code);
    let found = &seen.story.processes;
    ensure!(found.keys().any(|key| key.pid == workload.id()), "the workload was not found");
    ensure!(found.keys().any(|key| key.pid == std::process::id()), "this test was not found");
    let uname = seen.executed("own-uname");
    let by_it = |key: &ProcessKey| found[key].creator.is_some_and(|key| key.pid == workload.id());
    ensure!(uname.iter().any(by_it), "{uname:?}");
    Ok(())
}

/// Signals and the clock end tracing, never what is traced.
fn ends(scratch: &Scratch) -> Result<()> {
    let workload = Workload::shell(scratch, "sleep 60; exit")?;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let attached = Attached::to(scratch, &["--pid", &workload.pid()], &[])?;
        attached.signal(signal)?;
        let seen = attached.end().with_context(|| format!("{signal:?}"))?;
        ensure!(seen.code == 0, "{signal:?}: {}", seen.code);
        let end = seen.story.end.as_ref().context("no end")?;
        ensure!(end.survivors.len() == 2, "{signal:?}: {:?}", end.survivors);
    }
    Attached::to(scratch, &["--pid", &workload.pid()], &["--duration", "1s"])?.end()?;
    ensure!(Path::new("/proc").join(workload.pid()).exists(), "the workload was ended");
    Ok(())
}

fn refused(scratch: &Scratch) -> Result<()> {
    let gone = {
        let mut child = Command::new("/bin/true").spawn()?;
        child.wait()?;
        child.id().to_string()
    };
    let check = |arguments: &[&str], says: &str, code| -> Result<()> {
        let output = scratch.tracer(&["attach"]).set(|command| {
            command.args(arguments);
        });
        output.output()?.exits(code)?.says(says)?;
        Ok(())
    };
    check(&["--pid", &gone], "there is no process", 125)?;
    // SAFETY: gettid has no precondition.
    let thread = unsafe { libc::gettid() }.to_string();
    ensure!(thread != std::process::id().to_string(), "tests run in threads");
    check(&["--pid", &thread], "is a thread of process", 125)?;
    if fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        check(&["--pid", "2"], "is a thread of the kernel", 125)?;
    }
    check(&["--cgroup", "/proc"], "is no cgroup", 125)?;
    check(&["--container", "no-such-container"], "no container's cgroup", 125)?;
    check(&["--pid", "1", "--host"], "cannot be used with", 2)?;
    check(&[], "required", 2)?;
    check(&["--pid", "1", "--from-arming"], "--policy", 2)?;
    Ok(())
}
