//! Log records, as OpenTelemetry's own protobuf classes decode them: from files, and from a real collector
//! that tracer sends to.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tracer::record::{self, Integrity};
use tracer_tests::{evasions::tools, fixtures, skip};

use crate::{
    Test,
    harness::{Scratch, child_of, until, until_some},
};

pub(crate) const TESTS: &[Test] = &[
    ("through_a_collector", through_a_collector),
    ("of_a_recording", of_a_recording),
    ("collector_is_away", collector_is_away),
    ("killed_sender", killed_sender),
    ("wrong_endpoints", wrong_endpoints),
];

fn python() -> Result<PathBuf> {
    let python = tools().join("python/bin/python3");
    let has = Command::new(&python)
        .args([
            "-c",
            "import opentelemetry.proto.collector.logs.v1.logs_service_pb2, opentelemetry.semconv",
        ])
        .stderr(Stdio::null())
        .status();
    if !has.is_ok_and(|status| status.success()) {
        return skip(
            "there is no Python with opentelemetry-proto; `cargo xtask setup` installs it",
        );
    }
    Ok(python)
}

fn decoder() -> PathBuf {
    fixtures().join("opentelemetry/decode.py")
}

/// Ended when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What decodes protobuf, and its port.
fn receiver(scratch: &Scratch, decoded: &Path) -> Result<(Server, u16)> {
    let log = fs::File::create(scratch.file("receiver.log"))?;
    let mut command = Command::new(python()?);
    command.arg(decoder()).arg("receive").arg(decoded).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn()?;
    let out = child.stdout.take().context("its output")?;
    let server = Server(child);
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    Ok((server, line.trim().parse().context("its port")?))
}

/// A port of loopback that nobody has.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A collector: takes OTLP by HTTP, and sends it on as protobuf to another port.
fn collector(scratch: &Scratch, to: u16) -> Result<(Server, u16)> {
    let mut folders = fs::read_dir(tools().join("python/lib")).into_iter().flatten().flatten();
    let agent = folders.find_map(|python| {
        let agent = python.path().join("site-packages/rotel/rotel-agent");
        agent.is_file().then_some(agent)
    });
    let Some(agent) = agent else {
        return skip("there is no collector (rotel); `cargo xtask setup` installs it");
    };
    let works = Command::new(&agent).arg("--version").output()?;
    if !works.status.success() {
        return skip(format!("rotel does not start: {}", String::from_utf8_lossy(&works.stderr)));
    }
    let (http, grpc) = (free_port()?, free_port()?);
    let log = fs::File::create(scratch.file("rotel.log"))?;
    let mut command = Command::new(agent);
    command
        .args(["start", "--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
        .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
        .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"])
        .args(["--otlp-exporter-endpoint", &format!("http://127.0.0.1:{to}")])
        .args(["--batch-timeout", "50ms"]);
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let server = Server(child);
    until_some("the collector", || TcpStream::connect(("127.0.0.1", http)).ok())?;
    Ok((server, http))
}

/// What takes everything, on loopback.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    pub(crate) endpoint: String,
    requests: Arc<AtomicUsize>,
}

impl Sink {
    pub(crate) fn start() -> Result<Sink> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let sink = Sink { endpoint, requests: Arc::default() };
        let taking = sink.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = taking.take(stream);
            }
        });
        Ok(sink)
    }

    fn take(&self, mut stream: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            let header = line.trim().to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse()?;
            }
            if header.is_empty() {
                reader.read_exact(&mut vec![0; length])?;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")?;
                self.requests.fetch_add(1, Ordering::Relaxed);
            }
            line.clear();
        }
        Ok(())
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// The process that sends what a tracer has to say.
pub(crate) fn sender_of(tracer: u32) -> Result<u32> {
    child_of(tracer, "tracer-sender").context("no process that sends")
}

fn decoded(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn with_event<'a>(logs: &'a [Value], event: &str) -> impl Iterator<Item = &'a Value> {
    logs.iter().filter(move |log| log["event"] == json!(event))
}

fn through_a_collector(scratch: &Scratch) -> Result<()> {
    let file = scratch.file("decoded.jsonl");
    let (_receiver, port) = receiver(scratch, &file)?;
    let (_collector, port) = collector(scratch, port)?;
    let peer = TcpListener::bind(("127.0.0.1", 0))?;
    let address = peer.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in peer.incoming().flatten() {
            let _ = stream.read(&mut [0; 64]);
        }
    });
    let script = format!(
        "/bin/uname -s; /usr/bin/python3 -c 'import socket\n\
         to = socket.create_connection((\"127.0.0.1\", {}))\n\
         to.send(b\"GET / HTTP/1.1\\r\\nHost: peer.example\\r\\n\\r\\n\"); to.recv(9)'",
        address.port()
    );
    let endpoint = format!("http://127.0.0.1:{port}");
    let run = scratch.run(["/bin/sh", "-c", &script]).policy("no-aws-cli");
    let run = run.option("--otlp-endpoint").option(&endpoint).record()?;
    run.exits(0)?.output.says("log records went to")?;
    let all = || fs::read_to_string(&file).ok().filter(|text| text.contains("\"tracer.verdict\""));
    let logs = decoded(&until_some("the verdict at the other end", all)?)?;

    let uname = with_event(&logs, "tracer.exec")
        .find(|log| log["attributes"]["process.executable.name"] == json!("uname"))
        .context("no exec of uname")?;
    let exec = run.exec("uname")?;
    let expected = json!({
        "process.pid": exec.process.pid,
        "process.vpid": exec.ns_pid,
        "process.parent_pid": run.root()?.key.pid,
        "process.executable.name": "uname",
        "process.executable.path": exec.file.as_ref().and_then(|file| file.path.as_ref()).map(|path| path.lossy()),
        "process.args_count": 2,
        "process.command_args": ["/bin/uname", "-s"],
        "process.working_directory": scratch.path().canonicalize()?,
        "process.user.id": 0,
        "process.real_user.id": 0,
    });
    ensure!(uname["attributes"] == expected, "{:#}\n{expected:#}", uname["attributes"]);
    let time = exec.t_ns.saturating_add_signed(run.story.start.wall_offset_ns);
    ensure!(uname["time"] == json!(time), "{} is not {time}", uname["time"]);
    ensure!(uname["severity"] == json!(9) && uname["scope"] == json!("tracer"), "{uname}");
    let host = &run.story.start.host;
    ensure!(uname["resource"]["service.name"] == json!("tracer"), "{uname}");
    ensure!(uname["resource"]["host.name"] == json!(host.name), "{uname}");

    let to_peer = with_event(&logs, "tracer.connection")
        .find(|log| log["attributes"]["network.peer.port"] == json!(address.port()))
        .context("no connection to the peer")?;
    for (name, value) in [
        ("server.address", json!("peer.example")),
        ("server.port", json!(address.port())),
        ("network.peer.address", json!("127.0.0.1")),
        ("network.transport", json!("tcp")),
        ("network.type", json!("ipv4")),
        ("tracer.connection.outcome", json!("established")),
    ] {
        ensure!(to_peer["attributes"][name] == value, "{name}: {to_peer:#}");
    }
    let claim = with_event(&logs, "tracer.claim").next().context("no claim")?;
    ensure!(claim["attributes"]["tracer.policy"] == json!("no-aws-cli"), "{claim}");
    let verdict = with_event(&logs, "tracer.verdict").next().context("no verdict")?;
    ensure!(verdict["attributes"]["tracer.verdict"] == json!("proven"), "{verdict}");

    // The recording gives the same ones, later.
    let again =
        scratch.tracer(&["report"]).option("--format").option("otlp").option(&run.recording);
    let again = again.output()?;
    let lines = scratch.file("again.otlp");
    fs::write(&lines, &again.exits(0)?.stdout)?;
    let mut again = decoded(&decode(&lines)?)?;
    let mut sent = logs;
    let order = |log: &Value| log.to_string();
    again.sort_by_key(order);
    sent.sort_by_key(order);
    ensure!(again == sent, "live and from the recording:\n{sent:#?}\n{again:#?}");
    Ok(())
}

fn decode(lines: &Path) -> Result<String> {
    let output = Command::new(python()?).arg(decoder()).arg("lines").arg(lines).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Calls, a violated verdict, and bytes that are no text.
fn of_a_recording(scratch: &Scratch) -> Result<()> {
    let golden = |name: &str| {
        fixtures().join("../../tracer/tests/golden/reports").join(format!("{name}.jsonl"))
    };
    let export = |name: &str| -> Result<Vec<Value>> {
        let lines = scratch.file(format!("{name}.otlp"));
        let report =
            scratch.tracer(&["report", "--format", "otlp"]).option("--output").option(&lines);
        report.option(golden(name)).output()?.exits(0)?;
        decoded(&decode(&lines)?)
    };
    let logs = export("made-up")?;
    let calls: Vec<&Value> = with_event(&logs, "tracer.call").collect();
    let recorded = record::read(&golden("made-up"))?;
    let made = recorded.events.iter().filter(|event| event.name() == "call").count();
    ensure!(calls.len() == made && made > 0, "{} of {made} calls", calls.len());
    for call in calls {
        let has = |name: &str| call["attributes"].get(name).is_some();
        for name in
            ["http.request.method", "url.full", "url.scheme", "server.address", "process.pid"]
        {
            ensure!(has(name), "no {name}: {call:#}");
        }
        let no_response = call["attributes"].get("http.response.status_code").is_none();
        ensure!(
            !no_response
                || call["body"].as_str().is_some_and(|body| body.contains(": no response")),
            "{call:#}"
        );
    }
    let outcomes = with_event(&logs, "tracer.call").map(|call| {
        call["attributes"]["tracer.call.outcome"].as_str().unwrap_or("none").to_owned()
    });
    let outcomes: BTreeSet<String> = outcomes.collect();
    let all = ["aborted", "complete", "partial", "upgraded"];
    ensure!(outcomes.iter().eq(all.iter()), "{outcomes:?}");
    // Absence is said.
    let gap = with_event(&logs, "tracer.call_gap").next().context("no gap")?;
    ensure!(gap["attributes"]["tracer.call_gap.plaintext"] == json!(false), "{gap:#}");
    let libraries: Vec<&Value> = with_event(&logs, "tracer.tls_library").collect();
    let readings: Vec<&Value> = libraries
        .iter()
        .map(|library| &library["attributes"]["tracer.tls_library.reading"])
        .collect();
    ensure!(readings == ["from", "unreadable", "failed"], "{libraries:#?}");
    let violated = export("violated")?;
    let verdict = with_event(&violated, "tracer.verdict").next().context("no verdict")?;
    ensure!(verdict["severity_text"] == json!("ERROR"), "{verdict}");
    ensure!(!export("hostile")?.is_empty(), "nothing");
    Ok(())
}

/// Nothing waits for a collector that is not there, and nothing is lost but its copy.
fn collector_is_away(scratch: &Scratch) -> Result<()> {
    let began = Instant::now();
    let endpoint = format!("http://127.0.0.1:{}", free_port()?);
    let run = scratch.run(["/bin/sh", "-c", "/bin/true; exit 3"]).option("--quiet");
    let run = run.option("--otlp-endpoint").option(&endpoint).record()?;
    run.exits(3)?.output.says("log records did not get to")?.says("--otlp-endpoint URL")?;
    ensure!(
        run.story.integrity == Integrity::Intact && run.execs().len() == 2,
        "{:?}",
        run.execs()
    );
    ensure!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    let send = scratch.tracer(&["report", "--otlp-endpoint", &endpoint]).option(&run.recording);
    send.output()?.exits(125)?.says("2 of 2 log records did not get to")?;
    Ok(())
}

/// When the process that sends is gone, that is said at once, what is missing is counted, and nothing else changes.
fn killed_sender(scratch: &Scratch) -> Result<()> {
    let sink = Sink::start()?;
    let (recording, said) = (scratch.file("killed.jsonl"), scratch.file("said"));
    let script = "/bin/true; while [ ! -e go ]; do /bin/sleep 0.1; done; /bin/uname; exit 3";
    let tracer =
        scratch.run(["/bin/sh", "-c", script]).option("-q").option("-o").option(&recording);
    let tracer = tracer.option("--otlp-endpoint").option(&sink.endpoint);
    let log = fs::File::create(&said)?;
    let tracer = tracer.set(|command| {
        command.stdout(Stdio::null()).stderr(log);
    });
    let mut tracer = tracer.spawn_on_own_streams()?;
    // There is a second one when tracer knows that the first has arrived.
    until("two requests", || sink.requests() > 1)?;
    let sender = rustix::process::Pid::from_raw(i32::try_from(sender_of(tracer.id())?)?);
    rustix::process::kill_process(sender.context("a pid")?, rustix::process::Signal::KILL)?;
    let says = |what: &str| fs::read_to_string(&said).is_ok_and(|said| said.contains(what));
    until("tracer to say it", || {
        says("the process that sends them was killed by signal 9. Tracing goes on")
    })?;
    scratch.write("go", "")?;
    ensure!(crate::harness::wait_for(&mut tracer)?.code() == Some(3), "another exit code");
    let text = fs::read_to_string(&said)?;
    let counted = text.lines().find(|line| line.contains(" log records did not get to "));
    let mut words = counted.with_context(|| text.clone())?.split_whitespace().skip(1);
    let (missing, made) = (words.next(), words.nth(1));
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
    let (missing, made) = (number(missing).context("missing")?, number(made).context("made")?);
    ensure!(0 < missing && missing < made, "{missing} of {made}: {text}");
    let recorded = record::read(&recording)?;
    let execs = recorded.events.iter().filter(|event| event.name() == "exec").count() as u64;
    ensure!(recorded.integrity == Integrity::Intact, "{:?}", recorded.integrity);
    ensure!(made == execs, "{made} log records of {execs} execs");
    Ok(())
}

fn wrong_endpoints(scratch: &Scratch) -> Result<()> {
    for (endpoint, says) in [
        ("https://collector:4318", "must be reached by http"),
        ("127.0.0.1:4318", "such as http://127.0.0.1:4318"),
        ("http://", "such as http://127.0.0.1:4318"),
    ] {
        let run = scratch.run(["/bin/true"]).option("--otlp-endpoint").option(endpoint);
        run.output()?.exits(2)?.says(says)?;
    }
    Ok(())
}
