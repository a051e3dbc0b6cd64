//! Containers of runc's: joined from outside, and tracer in one of its own, as `deploy` describes it.

mod image;
mod runc;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tracer::{
    model::ProcessKey,
    policy::{self, Ruling},
    record::{
        self, Integrity,
        schema::{AttachedTo, SensorState},
    },
    session::Story,
};
use tracer_tests::{debian_tool, skip};

use self::{
    image::{Deployed, Manifest},
    runc::{Container, Runc, shell_root},
};
use crate::{
    Test,
    harness::{
        Scratch,
        attached::{Attached, v2_mount},
        copy_program, in_private_network, until,
    },
    tls::Stay,
};

pub(crate) const TESTS: &[Test] = &[
    ("pod", pod),
    ("sidecar_verdicts", sidecar_verdicts),
    ("started_by_tracer", started_by_tracer),
    ("by_id", by_id),
    ("http_of_node", http_of_node),
    ("node", node),
    ("manifests_are_valid", manifests_are_valid),
];

/// A loop of the shell until the test says go.
const WAIT: &str = "while [ ! -e /work/go ]; do sleep 0.05; done";

/// Containers are joined by the beginning of their ID.
fn by_id(scratch: &Scratch) -> Result<()> {
    let runc = Runc::new(scratch, debian_tool("runc")?);
    // As docker and podman name theirs.
    let digits = format!("{:08x}", std::process::id());
    let ids = ["aa", "ab"].map(|end| format!("{}{end}{}", digits, "0".repeat(54)));
    let mut running = Vec::new();
    for id in &ids {
        let mut bundle = runc.bundle(&id[..10])?;
        shell_root(scratch, &bundle.root())?;
        bundle.arguments(&["/bin/sh", "-c", &format!("{WAIT}; uname; sleep 1; :")]);
        bundle.spec["root"]["readonly"] = json!(false);
        bundle.spec["linux"]["cgroupsPath"] = json!(format!("/docker/{id}"));
        let container = runc.run(id, bundle)?;
        container.pid()?;
        running.push(container);
    }
    let ambiguous = scratch.tracer(&["attach", "--container", &digits]).output()?;
    ambiguous.exits(125)?.says("several containers")?.says(&ids[0])?.says(&ids[1])?;
    let begins = &ids[0][..10];
    let attached = Attached::to(scratch, &["--container", begins], &[])?;
    let shell = running[0].pid()?;
    // A path of the host leads into the container.
    fs::write(format!("/proc/{shell}/root/work/go"), "")?;
    let seen = attached.end()?;
    let Some(attachment) = &seen.story.start.attached else { bail!("nothing joined") };
    let AttachedTo::Container { id, cgroups } = &attachment.to else { bail!("{attachment:?}") };
    ensure!(*id == ids[0] && !cgroups.is_empty(), "{attachment:?}");
    let root = seen.story.root().context("no root")?;
    ensure!(root.pid == shell, "{root:?} is not {shell}");
    // As the host and as the container see it.
    ensure!(seen.story.processes[&root].ns_pid == Some(1), "{:?}", seen.story.processes[&root]);
    ensure!(seen.executed("uname").len() == 1, "{:?}", seen.executed("uname"));
    is_identified(&seen.story, "uname", &running[0].bundle.root().join("usr/bin/uname"))?;
    ensure!(
        seen.story.processes.keys().all(|key| *key != ProcessKey { pid: 1, start_ns: 0 }),
        "the host was joined"
    );
    Ok(())
}

/// Calls of a Node whose file is where only its container sees it.
fn http_of_node(scratch: &Scratch) -> Result<()> {
    in_private_network(|_| {
        let stay = Stay::start(scratch)?;
        let runc = Runc::new(scratch, debian_tool("runc")?);
        let mut bundle = runc.bundle("node")?;
        let work = bundle.root().join("work");
        fs::create_dir_all(&work)?;
        let script = "cd \"$1\" && cp --parents $0 $(ldd $0 | grep -o '/[^ ]*') .";
        let mut shell = std::process::Command::new("/bin/sh");
        let made = shell.args(["-c", script]).arg(&stay.node).arg(bundle.root()).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::copy(&stay.script, work.join("stay.mjs"))?;
        fs::copy(&stay.certificate, work.join("certificate.pem"))?;
        let node = stay.node.to_string_lossy();
        bundle.arguments(&[&node, "stay.mjs", "ask", &stay.port, "certificate.pem"]);
        bundle.spec["process"]["cwd"] = json!("/work");
        bundle.spec["root"]["readonly"] = json!(false);
        bundle.namespace("network", None);
        let id = format!("{:08x}{}", std::process::id(), "0".repeat(56));
        bundle.spec["linux"]["cgroupsPath"] = json!(format!("/docker/{id}"));
        let container = runc.run(&id, bundle)?;
        container.pid()?;
        stay.joined(scratch, &["--container", &id[..12]], &work)
            .with_context(|| format!("the container said: {}", container.log()))
    })
}

/// The content of an executed file was read, although no path of tracer's own leads to it.
fn is_identified(story: &Story, name: &str, file: &Path) -> Result<()> {
    use sha2::{Digest as _, Sha256};
    let exec = story.execs_in_order().find(|exec| {
        exec.filename.as_ref().is_some_and(|file| file.base_name() == name.as_bytes())
    });
    let exec = exec.with_context(|| format!("nothing executed {name}"))?;
    let version = exec.file.as_ref().context("its file was not read")?.version();
    let content = story.content(&version).map_err(|why| anyhow::anyhow!("{why}"))?;
    let expected: String =
        Sha256::digest(fs::read(file)?).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(content == expected, "{content} is not the content of {}", file.display());
    Ok(())
}

/// A pod: its namespaces, tracer as the manifest of the sidecar says, and a container that starts later.
fn pod(scratch: &Scratch) -> Result<()> {
    let Some(v2) = v2_mount()? else { return skip("the v2 cgroups are not mounted") };
    let manifest = Manifest::read("sidecar.yaml")?;
    let [pod] = &manifest.documents[..] else { bail!("one pod") };
    ensure!(pod["spec"]["shareProcessNamespace"] == json!(true), "{pod}");
    let runc = Runc::new(scratch, debian_tool("runc")?);
    let number = std::process::id();
    let uid = format!("0f2b1c1e-9d2e-4a7c-8f52-{number:012x}");
    let slice = format!("kubepods/burstable/pod{uid}");
    let cgroups = PodCgroup::new(v2.join(&slice))?;

    // What holds the namespaces of a pod, and reaps what nobody waits for.
    let mut pause = runc.bundle("pause")?;
    shell_root(scratch, &pause.root())?;
    pause.arguments(&["/bin/sh", "-c", "while :; do sleep 1; done"]);
    let pause = cgroups.run(&runc, &format!("pause-{number}"), pause, &slice)?;
    let namespaces = pause.pid()?;

    let container = &pod["spec"]["initContainers"][0];
    let recordings = scratch.folder("recordings")?;
    let deployed = Deployed { pod: &pod["spec"], container, uid: &uid, empty: &recordings };
    let sidecar = deployed.bundle(&runc, "sidecar", Some(namespaces))?;
    let sidecar = cgroups.run(&runc, &format!("tracer-{number}"), sidecar, &slice)?;
    let recording = recordings.join("session.jsonl");
    let has = |text: &str| fs::read_to_string(&recording).is_ok_and(|lines| lines.contains(text));
    until("the sidecar's snapshot", || has("\"type\":\"snapshot\""))
        .with_context(|| format!("the sidecar said: {}", sidecar.log()))?;

    let mut agent = runc.bundle("agent")?;
    shell_root(scratch, &agent.root())?;
    agent.arguments(&["/bin/sh", "-c", "uname; while :; do sleep 1; done"]);
    agent.share(namespaces);
    let agent_root = agent.root();
    let agent = cgroups.run(&runc, &format!("agent-{number}"), agent, &slice)?;
    let shell = agent.pid()?;
    until("uname", || has("/uname\""))?;
    // As `kubectl exec` does: no child of anybody in the pod.
    runc.enter(&agent, &["/bin/true"])?;
    until("true", || has("/true\""))?;

    sidecar.signal("TERM")?;
    let code = sidecar.code()?;
    ensure!(agent.is_running() && pause.is_running(), "the pod ended with tracer");
    let story = Story::of(record::read(&recording)?);
    ensure!(story.integrity == Integrity::Intact, "{:?}", story.integrity);
    let verdict = policy::judge(&story, &story.start.policies).context("no verdict")?;
    ensure!(verdict.overall == Ruling::Inconclusive && code == 11, "{code}: {verdict:#?}");
    ensure!(!reasons(&verdict).any(|reason| reason.contains("probe")), "{verdict:#?}");
    // There is no C library in the image, and none of the agent's is looked for; and what costs every
    // process of the machine is not there without need.
    const OPTIONAL: [&str; 2] = ["resolved", "intrusions"];
    let missing =
        |sensor: &&SensorState| sensor.missing.is_some() && !OPTIONAL.contains(&&*sensor.sensor);
    let missing: Vec<_> = story.start.sensors.iter().filter(missing).collect();
    ensure!(missing.is_empty(), "{missing:?}");
    let attached = story.start.attached.as_ref().map(|attached| &attached.to);
    let Some(AttachedTo::Pod { uid: recorded, .. }) = attached else { bail!("{attached:?}") };
    ensure!(*recorded == uid, "{recorded}");

    // As the host and as the pod see them.
    let status = fs::read_to_string(format!("/proc/{shell}/status"))?;
    let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let inside = inside.and_then(|pids| pids.split_whitespace().last()).context("NSpid")?;
    let process = story.processes.values().find(|process| process.key.pid == shell);
    let process = process.context("the agent's shell is not in the recording")?;
    ensure!(process.ns_pid.map(|pid| pid.to_string()).as_deref() == Some(inside), "{process:?}");
    is_identified(&story, "uname", &agent_root.join("usr/bin/uname"))?;
    let report = scratch.tracer(&["report"]).option(&recording).output()?;
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    let both = format!("[{shell}, {inside} in its namespace]");
    ensure!(report.contains(&both), "no {both} in:\n{report}");
    Ok(())
}

/// With claims over connections, a sidecar refutes what happened after its arming, and proves nothing.
fn sidecar_verdicts(scratch: &Scratch) -> Result<()> {
    let Some(v2) = v2_mount()? else { return skip("the v2 cgroups are not mounted") };
    let manifest = Manifest::read("sidecar.yaml")?;
    let [pod] = &manifest.documents[..] else { bail!("one pod") };
    let runc = Runc::new(scratch, debian_tool("runc")?);
    let number = std::process::id();
    let uid = format!("0f2b1c1e-9d2e-4a7c-8f53-{number:012x}");
    let slice = format!("kubepods/burstable/pod{uid}");
    let cgroups = PodCgroup::new(v2.join(&slice))?;
    let mut agent = runc.bundle("agent")?;
    shell_root(scratch, &agent.root())?;
    copy_with_libraries("/bin/bash", &agent.root())?;
    agent.arguments(&["/bin/sh", "-c", "while :; do sleep 1; done"]);
    let agent = cgroups.run(&runc, &format!("agent-{number}"), agent, &slice)?;
    let namespaces = agent.pid()?;

    for (at, (kind, ruling, code)) in [
        ("connects-only-to", Ruling::Inconclusive, 11),
        ("never-connects-to", Ruling::Violated, 10),
    ]
    .into_iter()
    .enumerate()
    {
        let recordings = scratch.folder(format!("recordings-{at}"))?;
        let policy = format!(
            "name = 'local'\nsurvivors = 'allow'\n[[claim]]\nkind = '{kind}'\nendpoints = ['127.0.0.0/8']\n"
        );
        fs::write(recordings.join("policy.toml"), policy)?;
        let mut container = pod["spec"]["initContainers"][0].clone();
        for word in container["args"].as_array_mut().context("args")? {
            if *word == json!("--policy=no-telemetry") {
                *word = json!("--policy=/recordings/policy.toml");
            }
        }
        let deployed =
            Deployed { pod: &pod["spec"], container: &container, uid: &uid, empty: &recordings };
        let sidecar = deployed.bundle(&runc, &format!("sidecar-{at}"), Some(namespaces))?;
        let sidecar = cgroups.run(&runc, &format!("tracer-{number}-{at}"), sidecar, &slice)?;
        let recording = recordings.join("session.jsonl");
        let has =
            |text: &str| fs::read_to_string(&recording).is_ok_and(|lines| lines.contains(text));
        until("the sidecar's snapshot", || has("\"type\":\"snapshot\""))
            .with_context(|| format!("the sidecar said: {}", sidecar.log()))?;
        // Nobody listens there.
        runc.enter(&agent, &["/bin/bash", "-c", "(: > /dev/tcp/127.0.0.1/9) 2>/dev/null; :"])?;
        until("the connection", || has("\"type\":\"connect-result\""))?;
        sidecar.signal("TERM")?;
        let ended = sidecar.code()?;
        let story = Story::of(record::read(&recording)?);
        let verdict = policy::judge(&story, &story.start.policies).context("no verdict")?;
        ensure!(verdict.overall == ruling && ended == code, "{ended}: {verdict:#?}");
        ensure!(agent.is_running(), "the agent ended with tracer");
    }
    Ok(())
}

/// An agent that tracer starts in the agent's own container, for a verdict that is proven.
fn started_by_tracer(scratch: &Scratch) -> Result<()> {
    const LOCAL: &str =
        "name = 'local'\n[[claim]]\nkind = 'connects-only-to'\nendpoints = ['127.0.0.0/8']\n";
    if v2_mount()?.is_none() {
        return skip("the v2 cgroups are not mounted");
    }
    let manifest = Manifest::read("started-by-tracer.yaml")?;
    let [pod] = &manifest.documents[..] else { bail!("one pod") };
    let runc = Runc::new(scratch, debian_tool("runc")?);
    for (what, ruling, code) in [("uname", Ruling::Proven, 0), ("aws", Ruling::Violated, 10)] {
        let recordings = scratch.folder(format!("recordings-{what}"))?;
        // As a kubelet makes one.
        fs::set_permissions(&recordings, fs::Permissions::from_mode(0o777))?;
        let mut container = pod["spec"]["containers"][0].clone();
        fs::write(recordings.join("local.toml"), LOCAL)?;
        let words = container["command"].as_array_mut().context("command")?;
        ensure!(words.pop() == Some(json!("--")), "{words:?}");
        words.extend([json!("--policy=/recordings/local.toml"), json!("--")]);
        let line = format!(
            "/usr/bin/{what}; id=$(/usr/bin/id); (: > /dev/tcp/127.0.0.1/9) 2>/dev/null; :"
        );
        container["args"] = json!(["/bin/bash", "-c", line]);
        let deployed =
            Deployed { pod: &pod["spec"], container: &container, uid: "", empty: &recordings };
        let mut bundle = deployed.bundle(&runc, what, None)?;
        shell_root(scratch, &bundle.root())?;
        copy_with_libraries("/bin/bash", &bundle.root())?;
        copy_with_libraries("/usr/bin/id", &bundle.root())?;
        // Not one of those that run.
        copy_program(bundle.root().join("bin/true"), bundle.root().join("usr/bin/aws"))?;
        let id = format!("started-{what}-{}", std::process::id());
        bundle.spec["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        let container = runc.run(&id, bundle)?;
        let ended = container.code()?;
        let said = container.log();
        ensure!(ended == code, "{ended}: {said}");
        let story = Story::of(record::read(&recordings.join("session.jsonl"))?);
        ensure!(story.integrity == Integrity::Intact, "{:?}", story.integrity);
        let verdict = policy::judge(&story, &story.start.policies).context("no verdict")?;
        ensure!(verdict.overall == ruling, "{verdict:#?}");
        ensure!(story.connections.len() == 1, "{:?}", story.connections);
        let shell = story.execs_in_order().next().context("no exec")?;
        let user = shell.credentials.as_ref().map(|credentials| credentials.euid);
        ensure!(user == Some(1000), "the agent ran as {user:?}");
    }
    Ok(())
}

fn copy_with_libraries(program: &str, root: &Path) -> Result<()> {
    let script = "set -e; cd \"$1\"; cp --parents $0 $(ldd $0 | grep -o '/[^ ]*') .; \
                  test -e bin/bash || cp $0 bin";
    let mut shell = std::process::Command::new("/bin/sh");
    let made = shell.args(["-c", script, program]).arg(root).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

fn reasons(verdict: &policy::Verdict) -> impl Iterator<Item = &String> {
    verdict.claims.iter().flat_map(|claim| &claim.reasons)
}

/// The v2 cgroup of a pod, which is there before its containers.
struct PodCgroup(PathBuf);

impl PodCgroup {
    fn new(path: PathBuf) -> Result<PodCgroup> {
        fs::create_dir_all(&path)?;
        Ok(PodCgroup(path))
    }

    fn run<'a>(
        &self,
        runc: &Runc<'a>,
        id: &str,
        mut bundle: runc::Bundle,
        slice: &str,
    ) -> Result<Container<'a>> {
        bundle.spec["linux"]["cgroupsPath"] = json!(format!("/{slice}/{id}"));
        runc.run(id, bundle)
    }
}

impl Drop for PodCgroup {
    fn drop(&mut self) {
        runc::remove_cgroups(&self.0);
    }
}

/// All processes of the machine, as JSON lines on standard output.
fn node(scratch: &Scratch) -> Result<()> {
    let manifest = Manifest::read("daemonset.yaml")?;
    let daemons = manifest.documents.iter().find(|document| document["kind"] == json!("DaemonSet"));
    let pod = &daemons.context("a DaemonSet")?["spec"]["template"]["spec"];
    ensure!(pod["hostPID"] == json!(true), "{pod}");
    let runc = Runc::new(scratch, debian_tool("runc")?);
    let empty = scratch.folder("empty")?;
    let deployed = Deployed { pod, container: &pod["containers"][0], uid: "", empty: &empty };
    let mut bundle = deployed.bundle(&runc, "daemon", None)?;
    let id = format!("daemon-{}", std::process::id());
    bundle.spec["linux"]["cgroupsPath"] = json!(format!("/{id}"));
    let daemon = runc.run(&id, bundle)?;
    until("the snapshot", || daemon.out().contains("\"type\":\"snapshot\""))
        .with_context(|| format!("it said: {}", daemon.log()))?;
    let marked = scratch.copy(Path::new("/bin/true"), "marked")?;
    std::process::Command::new(&marked).status()?;
    until("an exec", || daemon.out().contains("/marked\""))?;
    daemon.signal("TERM")?;
    ensure!(daemon.code()? == 0, "it said: {}", daemon.log());
    let lines = scratch.write("lines.jsonl", &daemon.out())?;
    let story = Story::of(record::read(&lines)?);
    ensure!(story.integrity == Integrity::Intact, "{:?}", story.integrity);
    for sensor in &story.start.sensors {
        ensure!(sensor.missing.is_none() || sensor.sensor == "files", "{sensor:?}");
    }
    is_identified(&story, "marked", &marked)?;
    ensure!(story.processes.keys().any(|key| key.pid == std::process::id()), "not the host");
    Ok(())
}

/// By the schema of Kubernetes; and a misspelled field is none.
fn manifests_are_valid(scratch: &Scratch) -> Result<()> {
    for name in ["sidecar.yaml", "daemonset.yaml", "started-by-tracer.yaml"] {
        let documents = Manifest::read(name)?.documents;
        ensure!(!documents.is_empty(), "{name} is empty");
    }
    let text = fs::read_to_string(image::deploy().join("kubernetes/sidecar.yaml"))?;
    let broken = text.replace("shareProcessNamespace", "shareProcesNamespace");
    ensure!(broken != text, "nothing to misspell");
    let broken = scratch.write("broken.yaml", &broken)?;
    ensure!(Manifest::of(&broken).is_err(), "a field that does not exist is valid");
    Ok(())
}

/// A field that must be there.
fn field<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("no {name} in {value}"))
}
