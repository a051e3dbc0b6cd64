//! What runs already is joined.

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal};
use tracer::{
    model::ProcessKey,
    policy::{self, Ruling, Verdict},
    record::{
        self, Integrity,
        schema::{AttachedTo, CommandCgroup, SocketProtocol},
    },
    session::Story,
};
use tracer_tests::{debian_tool, scratch::MARK};

use crate::{
    Test,
    harness::{Scratch, program, skip, wait_for},
};

pub(crate) const TESTS: &[Test] = &[
    ("storm", storm),
    ("tree", tree),
    ("found_running", found_running),
    ("sockets", sockets),
    ("connections_from_arming", connections_from_arming),
    ("cgroup", cgroup),
    ("containers", containers),
    ("shared_pid_namespace", shared_pid_namespace),
    ("host", host),
    ("ends", ends),
    ("refused", refused),
];

/// Something that runs before tracer comes.
struct Workload(Child);

impl Workload {
    fn start(scratch: &Scratch, command: &mut Command) -> Result<Workload> {
        command.env(MARK, scratch.mark()).current_dir(scratch.path());
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Workload(child.with_context(|| format!("cannot start {command:?}"))?))
    }

    fn shell(scratch: &Scratch, script: &str) -> Result<Workload> {
        Workload::start(scratch, Command::new("/bin/sh").args(["-c", script]))
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A tracer that is attached.
struct Attached {
    tracer: Child,
    recording: PathBuf,
}

/// What it recorded.
struct Seen {
    code: i32,
    story: Story,
    verdict: Option<Verdict>,
}

const LONGEST: Duration = Duration::from_secs(60);

fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + LONGEST;
    loop {
        if let Some(value) = done() {
            return Ok(value);
        }
        ensure!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Attached {
    /// Returns when it has found everybody.
    fn to(scratch: &Scratch, target: &[&str], options: &[&str]) -> Result<Attached> {
        let number = scratch.path().read_dir()?.count();
        let recording = scratch.file(format!("attached-{number}.jsonl"));
        let mut tracer = scratch.tracer(&["attach"]).option("-q").option("-o").option(&recording);
        for option in target.iter().chain(options) {
            tracer = tracer.option(option);
        }
        let attached = Attached { tracer: tracer.spawn()?, recording };
        until("the snapshot", || attached.has("\"type\":\"snapshot\"").then_some(()))?;
        Ok(attached)
    }

    fn has(&self, text: &str) -> bool {
        fs::read_to_string(&self.recording).is_ok_and(|recording| recording.contains(text))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.tracer.id()).ok().and_then(Pid::from_raw).context("a pid")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    fn stop(self) -> Result<Seen> {
        self.signal(Signal::TERM)?;
        self.end()
    }

    /// Waits for its end.
    fn end(mut self) -> Result<Seen> {
        let code = wait_for(&mut self.tracer)?.code().context("a signal ended tracer")?;
        let story = Story::of(record::read(&self.recording)?);
        ensure!(story.integrity == Integrity::Intact, "{:?}", story.integrity);
        let verdict = policy::judge(&story, &story.start.policies);
        let end = story.end.as_ref().context("no end")?;
        ensure!(end.verdict == verdict, "{:?}\n{verdict:?}", end.verdict);
        for row in &end.counters {
            ensure!(row.produced == row.read + row.lost, "events unaccounted for: {row:?}");
        }
        ensure!(story.orphans == 0, "{} events of unknown processes", story.orphans);
        Ok(Seen { code, story, verdict })
    }
}

impl Seen {
    fn rules(&self, ruling: Ruling) -> Result<&Seen> {
        let verdict = self.verdict.as_ref().context("no verdict")?;
        ensure!(verdict.overall == ruling, "{:?}: {verdict:#?}", verdict.overall);
        let code = match ruling {
            Ruling::Proven => 0,
            Ruling::Violated => 10,
            Ruling::Inconclusive => 11,
        };
        ensure!(self.code == code, "exit code {}", self.code);
        Ok(self)
    }

    fn because(&self, part: &str) -> Result<&Seen> {
        let claims = self.verdict.iter().flat_map(|verdict| &verdict.claims);
        let reasons: Vec<&String> = claims.flat_map(|claim| &claim.reasons).collect();
        ensure!(reasons.iter().any(|reason| reason.contains(part)), "no `{part}` in {reasons:#?}");
        Ok(self)
    }

    /// Processes that executed a file of that name, not counting those that ran it when they were found.
    fn executed(&self, name: &str) -> Vec<ProcessKey> {
        let execs = self.story.execs_in_order().filter(|exec| !exec.found);
        let of = execs.filter(|exec| {
            exec.filename.as_ref().is_some_and(|file| file.base_name() == name.as_bytes())
        });
        of.map(|exec| exec.process).collect()
    }

    fn doubts(&self) -> Result<&[String]> {
        Ok(&self.story.snapshot.as_ref().context("no snapshot")?.doubts)
    }
}

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
    let tracer = attached.tracer.id();
    let cgroup_then = fs::read_to_string(format!("/proc/{}/cgroup", workload.pid()))?;
    ensure!(own_cgroup == cgroup_then, "{own_cgroup} became {cgroup_then}");
    go(scratch)?;
    let seen = attached.end()?;
    seen.rules(Ruling::Violated)?.because("before the probes were attached is unknown")?;
    let root = seen.story.root().context("no root")?;
    ensure!(root.pid == workload.0.id(), "{root:?}");
    let root = &seen.story.processes[&root];
    ensure!(root.exit.as_ref().is_some_and(|exit| exit.code == Some(4)), "{:?}", root.exit);
    ensure!(root.execs.first().is_some_and(|exec| exec.found), "{:?}", root.execs);
    let [uname] = seen.executed("uname")[..] else { anyhow::bail!("{:?}", seen.executed("uname")) };
    // The subshell ran already, and is the root's child all the same.
    let parent = seen.story.processes[&uname].creator.context("nobody's child")?;
    ensure!(seen.story.processes[&parent].creator == Some(root.key), "{parent:?}");
    ensure!(seen.story.miscounted.is_empty(), "{:?}", seen.story.miscounted);
    let Some(attachment) = &seen.story.start.attached else { anyhow::bail!("nothing joined") };
    ensure!(attachment.to == AttachedTo::Pid(root.key.pid), "{attachment:?}");
    let left = v2_mount()?.map(|v2| v2.join(format!("tracer-{tracer}-0")));
    ensure!(left.is_none_or(|left| !left.exists()), "a cgroup of tracer's is left");
    Ok(())
}

fn v2_mount() -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().map(|line| line.split(' ')).find_map(|mut fields| {
        let point = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(point))
    });
    Ok(mount)
}

/// Lines of processes that fork and end at once while tracer is looking for them: each line's end is seen.
fn storm(scratch: &Scratch) -> Result<()> {
    const LINES: usize = 6;
    const ROUNDS: usize = 6;
    let lines = program(scratch, "lines")?;
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
        ensure!(seen.doubts()?.is_empty(), "round {round}: {:?}", seen.doubts());
        ensure!(seen.story.processes.len() > 10 * LINES, "there was no storm");
        ensure!(seen.story.alive.is_empty(), "{:?} did not end", seen.story.alive);
    }
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
        .because(&format!("it had a socket open when it was found (tcp to {address})"))?;
    let pid = workload.0.id();
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

/// A claim over connections is proven for the time from arming on, and not without that limit.
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
    for (option, ruling) in [(&["--from-arming"][..], Ruling::Proven), (&[], Ruling::Inconclusive)]
    {
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
        seen.rules(ruling)?;
        let contacted =
            seen.story.connections.iter().filter_map(|connection| connection.destination);
        let ports: Vec<u16> = contacted.map(|to| to.port).collect();
        ensure!(ports == [address.port()], "{ports:?}");
    }
    Ok(())
}

/// A cgroup of a test's own, gone afterwards.
struct OwnCgroup(PathBuf);

impl OwnCgroup {
    fn new() -> Result<OwnCgroup> {
        let Some(v2) = v2_mount()? else { return skip("the v2 cgroups are not mounted") };
        let path = v2.join(format!("test-attach-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(OwnCgroup(path))
    }

    fn take(&self, pid: &str) -> Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), pid)?)
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        // Who was killed a moment ago may still be in it.
        for _ in 0..500 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        eprintln!("the cgroup {} could not be removed", self.0.display());
    }
}

/// Who is in a cgroup is joined, and who comes later.
fn cgroup(scratch: &Scratch) -> Result<()> {
    let cgroup = OwnCgroup::new()?;
    let path = cgroup.0.to_string_lossy().into_owned();
    let inside = Workload::shell(scratch, &format!("{WAIT}; uname"))?;
    let late = Workload::shell(scratch, &format!("{WAIT}; id"))?;
    let outside = Workload::shell(scratch, &format!("{WAIT}; whoami"))?;
    cgroup.take(&inside.pid())?;
    let attached = Attached::to(scratch, &["--cgroup", &path], &[])?;
    cgroup.take(&late.pid())?;
    go(scratch)?;
    let seen = attached.end()?;
    ensure!(seen.doubts()?.is_empty(), "{:?}", seen.doubts());
    let ran = |name: &str| -> Vec<u32> {
        let creators = seen.executed(name).into_iter();
        creators.filter_map(|key| seen.story.processes[&key].creator).map(|key| key.pid).collect()
    };
    ensure!(ran("uname") == [inside.0.id()], "{:?}", ran("uname"));
    ensure!(ran("id") == [late.0.id()], "{:?}", ran("id"));
    ensure!(seen.executed("whoami").is_empty(), "somebody else was joined");
    drop(outside);
    let Some(CommandCgroup::Shared { path: recorded, others: 0, .. }) = &seen.story.start.cgroup
    else {
        anyhow::bail!("{:?}", seen.story.start.cgroup)
    };
    ensure!(recorded.as_path() == cgroup.0, "{recorded:?}");
    Ok(())
}

/// A container of runc's, gone afterwards.
struct Container<'a> {
    runc: PathBuf,
    scratch: &'a Scratch,
    id: String,
    process: Child,
}

/// A bundle with a shell of its own libraries; `change` edits the specification by Python.
fn bundle(scratch: &Scratch, runc: &Path, name: &str, change: &str) -> Result<PathBuf> {
    let folder = scratch.folder(name)?;
    let script = format!(
        "set -e; mkdir -p root/bin root/usr/bin root/proc root/sys root/dev root/tmp root/work\n\
         for program in /bin/sh /bin/sleep /bin/true /usr/bin/uname {extra}; do\n\
         cp --parents $program $(ldd $program | grep -o '/[^ ]*') root; done\n\
         test -e root/bin/sh || cp /bin/sh /bin/sleep /bin/true root/bin\n\
         {runc} spec\n\
         /usr/bin/python3 -c 'import json, sys; spec = json.load(open(\"config.json\"))\n\
         own = spec[\"process\"]; own[\"terminal\"] = False; spec[\"root\"] = {{\"path\": \"root\"}}\n\
         exec(sys.argv[1])\n\
         json.dump(spec, open(\"config.json\", \"w\"))' \"$CHANGE\"",
        extra = crate::harness::tracer_program().display(),
        runc = runc.display()
    );
    let mut make = Command::new("/bin/sh");
    let made = make.args(["-c", &script]).env("CHANGE", change).current_dir(&folder).output()?;
    ensure!(made.status.success(), "no bundle: {}", String::from_utf8_lossy(&made.stderr));
    Ok(folder)
}

impl Container<'_> {
    fn run<'a>(
        scratch: &'a Scratch,
        runc: &Path,
        id: &str,
        bundle: &Path,
    ) -> Result<Container<'a>> {
        let mut command = Command::new(runc);
        command.arg("--root").arg(scratch.file("state")).args(["run", id]).current_dir(bundle);
        command.env(MARK, scratch.mark()).stdin(Stdio::null());
        let log = fs::File::create(scratch.file(format!("{id}.log")))?;
        let process = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Container { runc: runc.into(), scratch, id: id.into(), process })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.scratch.file(format!("{}.log", self.id))).unwrap_or_default()
    }

    /// The host's number of its first process.
    fn pid(&self) -> Result<u32> {
        let state = self.scratch.file("state").join(&self.id).join("state.json");
        until(&format!("the container {}: {}", self.id, self.log()), || {
            let state: serde_json::Value =
                serde_json::from_str(&fs::read_to_string(&state).ok()?).ok()?;
            u32::try_from(state["init_process_pid"].as_u64()?).ok().filter(|pid| *pid > 0)
        })
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let root = self.scratch.file("state");
        let mut delete = Command::new(&self.runc);
        let _ = delete.arg("--root").arg(root).args(["delete", "--force", &self.id]).output();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Containers of runc's are joined by the beginning of their ID.
fn containers(scratch: &Scratch) -> Result<()> {
    let runc = debian_tool("runc")?;
    // As docker and podman name theirs.
    let digits = format!("{:08x}", std::process::id());
    let ids = ["aa", "ab"].map(|end| format!("{}{end}{}", digits, "0".repeat(54)));
    let mut running = Vec::new();
    for id in &ids {
        let change = format!(
            "own[\"args\"] = [\"/bin/sh\", \"-c\", \"while [ ! -e /work/go ]; do sleep 0.05; done; uname\"]; \
             own[\"env\"].append(\"{MARK}={}\"); spec[\"root\"][\"readonly\"] = False; \
             spec[\"linux\"][\"cgroupsPath\"] = \"/docker/{id}\"",
            scratch.mark()
        );
        let folder = bundle(scratch, &runc, &format!("bundle-{}", &id[..10]), &change)?;
        let container = Container::run(scratch, &runc, id, &folder)?;
        container.pid()?;
        running.push((container, folder));
    }
    let ambiguous = scratch.tracer(&["attach", "--container", &digits]).output()?;
    ambiguous.exits(125)?.says("several containers")?.says(&ids[0])?.says(&ids[1])?;
    let begins = &ids[0][..10];
    let attached = Attached::to(scratch, &["--container", begins], &[])?;
    let shell = running[0].0.pid()?;
    // A path of the host leads into the container.
    fs::write(format!("/proc/{shell}/root/work/go"), "")?;
    let seen = attached.end()?;
    let Some(attachment) = &seen.story.start.attached else { anyhow::bail!("nothing joined") };
    let AttachedTo::Container { id, cgroups } = &attachment.to else {
        anyhow::bail!("{attachment:?}")
    };
    ensure!(*id == ids[0] && !cgroups.is_empty(), "{attachment:?}");
    let root = seen.story.root().context("no root")?;
    ensure!(root.pid == shell, "{root:?} is not {shell}");
    // As the host and as the container see it.
    ensure!(seen.story.processes[&root].ns_pid == Some(1), "{:?}", seen.story.processes[&root]);
    ensure!(seen.executed("uname").len() == 1, "{:?}", seen.executed("uname"));
    ensure!(
        seen.story.processes.keys().all(|key| *key != ProcessKey { pid: 1, start_ns: 0 }),
        "the host was joined"
    );
    drop(running);
    // runc removes the cgroups of containers and leaves the one above.
    for mount in fs::read_to_string("/proc/self/mounts")?.lines() {
        let mut fields = mount.split(' ').skip(1);
        if let (Some(point), Some("cgroup" | "cgroup2")) = (fields.next(), fields.next()) {
            let _ = fs::remove_dir(Path::new(point).join("docker"));
        }
    }
    Ok(())
}

/// Two containers that share a pid namespace, as in a pod: the workload, and tracer beside it.
fn shared_pid_namespace(scratch: &Scratch) -> Result<()> {
    let runc = debian_tool("runc")?;
    let number = std::process::id();
    let workload = format!("workload-{number}");
    let change = format!(
        "own[\"args\"] = [\"/bin/sh\", \"-c\", \"while [ ! -e /work/go ]; do sleep 0.05; done; uname; sleep 0.2\"]; \
         spec[\"root\"][\"readonly\"] = False; spec[\"linux\"][\"cgroupsPath\"] = \"/{workload}\""
    );
    let folder = bundle(scratch, &runc, "workload", &change)?;
    let first = Container::run(scratch, &runc, &workload, &folder)?;
    let shell = first.pid()?;
    let sidecar = format!("sidecar-{number}");
    let tracer = crate::harness::tracer_program();
    let change = format!(
        "own[\"args\"] = [\"{}\", \"attach\", \"--pid\", \"1\", \"-q\", \"-o\", \"/work/session.jsonl\"]\n\
         spec[\"root\"][\"readonly\"] = False; spec[\"linux\"][\"cgroupsPath\"] = \"/{sidecar}\"\n\
         kept = [one for one in spec[\"linux\"][\"namespaces\"] if one[\"type\"] not in (\"pid\", \"cgroup\")]\n\
         spec[\"linux\"][\"namespaces\"] = kept + [{{\"type\": \"pid\", \"path\": \"/proc/{shell}/ns/pid\"}}]\n\
         needed = [\"CAP_BPF\", \"CAP_PERFMON\", \"CAP_SYS_PTRACE\", \"CAP_SYS_ADMIN\", \"CAP_NET_ADMIN\", \"CAP_DAC_READ_SEARCH\"]\n\
         own[\"capabilities\"] = {{one: needed for one in (\"bounding\", \"effective\", \"permitted\")}}\n\
         own[\"user\"] = {{\"uid\": 0, \"gid\": 0}}\n\
         spec[\"linux\"].pop(\"seccomp\", None); spec[\"linux\"][\"maskedPaths\"] = []; spec[\"linux\"][\"readonlyPaths\"] = []",
        tracer.display()
    );
    let folder = bundle(scratch, &runc, "sidecar", &change)?;
    let second = Container::run(scratch, &runc, &sidecar, &folder)?;
    let recording = folder.join("root/work/session.jsonl");
    let read = || fs::read_to_string(&recording).unwrap_or_default();
    until(&format!("the sidecar: {}", second.log()), || {
        read().contains("\"type\":\"snapshot\"").then_some(())
    })
    .with_context(|| format!("the sidecar said: {}", second.log()))?;
    fs::write(format!("/proc/{shell}/root/work/go"), "")?;
    // The namespace ends with the workload, and with it the sidecar: no last line.
    until("uname", || {
        read()
            .contains("\"filename\":\"/bin/uname\"")
            .then_some(())
            .or_else(|| read().contains("uname\"").then_some(()))
    })?;
    let recorded = record::read(&recording)?;
    let story = Story::of(recorded);
    let root = story.root().context("no root")?;
    ensure!(root.pid == shell && story.processes[&root].ns_pid == Some(1), "{root:?}, not {shell}");
    Ok(())
}

/// Everybody, for a moment.
fn host(scratch: &Scratch) -> Result<()> {
    let workload = Workload::shell(scratch, &format!("{WAIT}; uname; sleep 60"))?;
    let attached = Attached::to(scratch, &["--host"], &["--duration", "20s"])?;
    go(scratch)?;
    until("uname", || attached.has("/uname\"").then_some(()))?;
    let seen = attached.stop()?;
    ensure!(seen.code == 0, "{}", seen.code);
    let found = &seen.story.processes;
    ensure!(found.keys().any(|key| key.pid == workload.0.id()), "the workload was not found");
    ensure!(found.keys().any(|key| key.pid == std::process::id()), "this test was not found");
    let uname = seen.executed("uname");
    let by_it = |key: &ProcessKey| found[key].creator.is_some_and(|key| key.pid == workload.0.id());
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
    check(&["--cgroup", "/proc"], "is no cgroup", 125)?;
    check(&["--container", "no-such-container"], "no container's cgroup", 125)?;
    check(&["--pid", "1", "--host"], "cannot be used with", 2)?;
    check(&[], "required", 2)?;
    check(&["--pid", "1", "--from-arming"], "--policy", 2)?;
    Ok(())
}
