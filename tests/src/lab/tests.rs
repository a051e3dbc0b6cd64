//! Tests of the lab itself. Those that start one need root and say so when they are skipped.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::*;

fn start() -> Option<Lab> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the lab needs root");
        return None;
    }
    Some(Lab::start().unwrap())
}

fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the bundled agent and gives what the lab was asked meanwhile, `METHOD host/path status`.
fn agent(lab: &Lab, arguments: &[&str]) -> Vec<String> {
    let script = workspace_root().unwrap().join("tests/fixtures/agent/agent.mjs");
    output(lab.command("node").arg(script).args(arguments));
    let requests = lab.requests().unwrap();
    let line = |request: &Request| {
        assert!(request.completed, "{request:?}");
        let Request { method, host, path, status, .. } = request;
        format!("{method} {host}{path} {}", status.unwrap())
    };
    requests.iter().map(line).collect()
}

#[test]
fn nsswitch_keeps_only_files_and_dns_for_hosts() {
    #[track_caller]
    fn check(machine: &str, ours: &str) {
        assert_eq!(namespaces::only_files_and_dns(machine), ours);
    }
    check("", "hosts: files dns\n");
    check("passwd: files\n hosts: files resolve\n", "passwd: files\nhosts: files dns\n");
}

#[test]
fn log_lines_become_entries() {
    let text = br#"{"kind":"tls-error","host":"a","address":"127.10.0.1","client_port":null,"error":"E","at_ns":1}
"#;
    let error = TlsError {
        host: "a".into(),
        address: "127.10.0.1".parse().unwrap(),
        client_port: None,
        error: "E".into(),
        at_ns: 1,
    };
    assert_eq!(log::parse(text).unwrap(), [Entry::TlsError(error)]);
    assert!(log::parse(b"{}\n").is_err());
}

#[test]
fn bedrock_session_calls_the_model_once() {
    let Some(lab) = start() else { return };
    let requests = agent(&lab, &["--mode", "bedrock"]);
    let model = "us.anthropic.claude-haiku-4-5-20251001-v1%3A0";
    let call = format!(
        "POST bedrock-runtime.us-east-1.amazonaws.com/model/{model}/invoke-with-response-stream 200"
    );
    assert_eq!(
        requests,
        [
            "POST mcp.context7.com/mcp 200",
            "POST mcp.context7.com/mcp 202",
            "POST mcp.context7.com/mcp 200",
            "POST mcp.context7.com/mcp 200",
            "POST api.githubcopilot.com/mcp/ 200",
            "POST api.githubcopilot.com/mcp/ 202",
            "POST api.githubcopilot.com/mcp/ 200",
            "POST api.githubcopilot.com/mcp/ 200",
            &call,
        ]
    );
    let requests = lab.requests().unwrap();
    let call = requests.last().unwrap();
    assert_eq!(call.http_version, "2.0");
    assert_eq!(call.authorization_scheme.as_deref(), Some("AWS4-HMAC-SHA256"));
    assert!(call.responded_ns.unwrap() < call.ended_ns);
    let connections = lab.entries().unwrap();
    let own =
        |entry: &Entry| matches!(entry, Entry::Connection(c) if Some(c.id) == call.connection);
    assert_eq!(connections.iter().filter(|entry| own(entry)).count(), 1);
}

#[test]
fn direct_session_makes_the_calls_around_the_model() {
    let Some(lab) = start() else { return };
    let requests = agent(&lab, &["--mode", "direct"]);
    for expected in [
        "POST api.githubcopilot.com/mcp/ 401",
        "GET api.githubcopilot.com/.well-known/oauth-protected-resource/mcp/ 200",
        "GET github.com/.well-known/oauth-authorization-server/login/oauth 200",
        "GET platform.claude.com/.well-known/oauth-authorization-server 200",
        "POST api.anthropic.com/v1/messages/count_tokens 200",
        "POST api.anthropic.com/v1/messages 200",
        "POST statsig.anthropic.com/v1/rgstr 202",
        "POST http-intake.logs.us5.datadoghq.com/api/v2/logs 202",
    ] {
        assert!(requests.iter().any(|line| line == expected), "{expected} in {requests:#?}");
    }
}

#[test]
fn name_server_answers_over_udp_and_tcp() {
    let Some(lab) = start() else { return };
    let namespaces = Arc::clone(&lab.namespaces);
    // A thread may change its network namespace alone; it ends with this test.
    let answers = thread::spawn(move || {
        use std::os::fd::AsFd as _;
        let network = namespaces.network.as_fd();
        move_into_link_name_space(network, Some(LinkNameSpaceType::Network)).unwrap();
        let server = (namespaces::NAMESERVER, 53);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        udp.send_to(&query("STS.amazonaws.com"), server).unwrap();
        let mut answer = [0; 512];
        let length = udp.recv(&mut answer).unwrap();
        let mut tcp = TcpStream::connect(server).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let question = query("www.example.org");
        tcp.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes()).unwrap();
        tcp.write_all(&question).unwrap();
        let mut size = [0; 2];
        tcp.read_exact(&mut size).unwrap();
        let mut missing = vec![0; usize::from(u16::from_be_bytes(size))];
        tcp.read_exact(&mut missing).unwrap();
        (answer[..length].to_vec(), missing)
    });
    let (found, missing) = answers.join().unwrap();
    assert_eq!((found[3] & 15, found[7]), (0, 1), "NOERROR and one answer");
    assert!(found.ends_with(&[0, 4, 127, 10, 0, 3]), "{found:?}");
    assert_eq!((missing[3] & 15, missing[7]), (3, 0), "NXDOMAIN and no answer");
    let questions = lab.dns_questions().unwrap();
    let seen: Vec<_> = questions
        .iter()
        .map(|question| (&*question.name, &*question.rcode, &*question.transport))
        .collect();
    let expected =
        [("STS.amazonaws.com", "NOERROR", "udp"), ("www.example.org", "NXDOMAIN", "tcp")];
    assert_eq!(seen, expected);
}

/// A query for the A records of `name`, RFC 1035 section 4.1.
fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

#[test]
fn labs_are_apart_and_outside_is_untouched() {
    let (Some(one), Some(two)) = (start(), start()) else { return };
    let outside = || fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = outside();
    let network =
        |lab: &Lab| output(lab.command("readlink").arg("/proc/self/ns/net")).trim_end().to_owned();
    assert_ne!(network(&one), network(&two));
    assert_ne!(Path::new(&network(&one)), before);
    assert_eq!(outside(), before);
    assert!(!one.home().exists());
    let directory = env::current_dir().unwrap();
    assert_eq!(output(&mut one.command("pwd")).trim_end(), directory.to_str().unwrap());
    assert_eq!(output(one.command("pwd").current_dir("/proc")), "/proc\n");
    output(two.command("sh").args(["-c", "test -r $HOME/.aws/credentials -a -r $AWS_CA_BUNDLE"]));
}

#[test]
fn nothing_outlives_a_dropped_lab() {
    let Some(lab) = start() else { return };
    let script = "readlink /proc/self/ns/net; setsid sleep 600 >/dev/null &";
    let network = output(lab.command("sh").args(["-c", script]));
    assert_ne!(processes_in(network.trim_end()), 0);
    drop(lab);
    assert_eq!(processes_in(network.trim_end()), 0);
}

#[test]
fn nothing_outlives_a_killed_lab() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: the lab needs root");
    }
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "lab::tests::waits_to_be_killed"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    let network = lines.find_map(|line| Some(line[line.find("net:[")?..].to_owned())).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    let limit = Instant::now() + Duration::from_secs(10);
    while processes_in(&network) > 0 && Instant::now() < limit {
        sleep(Duration::from_millis(10));
    }
    assert_eq!(processes_in(&network), 0);
}

#[test]
#[ignore = "only a part of nothing_outlives_a_killed_lab"]
fn waits_to_be_killed() {
    let lab = Lab::start().unwrap();
    let script = "setsid sleep 600 & readlink /proc/self/ns/net; sleep 600; :";
    lab.command("sh").args(["-c", script]).status().unwrap();
}

/// How many processes are in a network namespace, given as in `/proc/PID/ns/net`.
fn processes_in(network: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let link = |path: PathBuf| fs::read_link(path.join("ns/net")).unwrap_or_default();
    processes.filter(|path| link(path.clone()) == Path::new(network)).count()
}
