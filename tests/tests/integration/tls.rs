//! TLS libraries beside those of Node, curl and Python: read, or named as what cannot be read.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tracer::record::schema::{
    Call, CallOutcome, FoundSocket, SocketProtocol, TlsLibrary, TlsReading,
};
use tracer_tests::debian_tool;

use crate::{
    Test,
    harness::{
        Ended, Run, Scratch, attached::Attached, fixtures, in_private_network, on_path, same_lines,
        skip, until,
    },
    http::{HOST, clients, recorded, same_as_the_log, same_calls, words},
};

pub(crate) const TESTS: &[Test] = &[
    ("debian_python", debian_python),
    ("joined_later", joined_later),
    ("joined_later_with_its_own", joined_later_with_its_own),
    ("node_joined_later", node_joined_later),
    ("openssl_1_1", openssl_1_1),
    ("in_a_mount_namespace", in_a_mount_namespace),
    ("in_a_container", in_a_container),
    ("debian_node", debian_node),
    ("go", go),
    ("rustls", rustls),
    ("boringssl", boringssl),
    ("gnutls", gnutls),
];

fn tool(path: &str) -> Result<PathBuf> {
    let path = fixtures().join("../../target/tools").join(path);
    if !path.exists() {
        let shown = path.display();
        return skip(format!("{shown} is not there; `cargo xtask setup` installs it"));
    }
    Ok(path)
}

fn url(number: u32) -> String {
    format!("https://{HOST}/v/t-{number}?bytes={}&pieces=3", number * 30_000)
}

const PYTHON: &str = "/usr/bin/python3";

/// A server of one machine, and how it is asked. Needs neither the lab nor Node, so that it is tried on other
/// kernels, too. It has the same library as who asks and is not traced.
struct Local {
    _server: Ended,
    script: PathBuf,
    port: String,
    certificate: PathBuf,
}

/// A certificate of this machine, and its private key.
pub(crate) fn certificate(scratch: &Scratch) -> Result<[PathBuf; 2]> {
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let certificate = scratch.write("certificate.pem", &key.cert.pem())?;
    Ok([certificate, scratch.write("key.pem", &key.signing_key.serialize_pem())?])
}

impl Local {
    fn start(scratch: &Scratch) -> Result<Local> {
        if !Path::new(PYTHON).exists() {
            return skip("there is no python3 of the distribution's");
        }
        let script = scratch.write("local.py", include_str!("../../fixtures/http/local.py"))?;
        let [certificate, private] = certificate(scratch)?;
        let mut server = Command::new(PYTHON);
        server.arg(&script).arg("serve").arg(&certificate).arg(&private);
        let mut server = Ended::start(server.stdout(Stdio::piped()))?;
        let mut port = String::new();
        let said = server.0.stdout.take().context("it was piped")?;
        BufReader::new(said).read_line(&mut port)?;
        ensure!(!port.is_empty(), "the server did not start");
        Ok(Local { _server: server, script, port: port.trim().to_owned(), certificate })
    }

    fn client<'a>(&'a self, what: &'a str) -> [&'a OsStr; 5] {
        let Local { script, port, certificate, .. } = self;
        [PYTHON.as_ref(), script.as_ref(), what.as_ref(), port.as_ref(), certificate.as_ref()]
    }
}

/// One of the client's, which is complete, as its script has it.
fn line_of(call: &Call) -> Result<String> {
    let status = call.status.map_or("none".to_owned(), |status| status.to_string());
    let (sent, received) = (call.request_bytes, call.response_bytes);
    ensure!(call.outcome == CallOutcome::Complete && !call.served, "{call:#?}");
    Ok(format!("{} {} {status} {sent} {received}", call.method, call.url))
}

fn debian_python(scratch: &Scratch) -> Result<()> {
    const SESSIONS: &str = "5";
    let run = in_private_network(|_| {
        let local = Local::start(scratch)?;
        let command = local.client("ask").into_iter().chain([SESSIONS.as_ref()]);
        scratch.run(command).option("--http").record()
    })?;
    run.exits(0)?;
    let library = library_of(&run, |library| library.path.lossy().contains("libssl.so"))?;
    ensure!(library.reading == TlsReading::Complete, "{library:#?}");
    let lines = run.story.calls.iter().map(line_of).collect::<Result<Vec<String>>>()?;
    ensure!(lines.len() > 10, "{} calls; gaps: {:#?}", lines.len(), run.story.call_gaps);
    same_lines(&String::from_utf8_lossy(&run.output.stdout), &lines).context("the calls differ")
}

/// Who joins a process that has connections open reads them from the next call on that begins, and says from
/// when on the library is read. What is in the middle is a gap, and so is what may go over connections without
/// TLS that were open.
fn joined_later(scratch: &Scratch) -> Result<()> {
    join_later(scratch, None).context("the distribution's library")
}

/// The same with a library that nobody knows before.
fn joined_later_with_its_own(scratch: &Scratch) -> Result<()> {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libssl.so.3";
    if !Path::new(LIBRARY).exists() {
        return skip(format!("there is no {LIBRARY}"));
    }
    fs::create_dir(scratch.file("libraries"))?;
    fs::copy(LIBRARY, scratch.file("libraries/libssl.so.3"))?;
    join_later(scratch, Some("libraries"))
}

fn join_later(scratch: &Scratch, own: Option<&str>) -> Result<()> {
    let (seen, port) = in_private_network(|_| {
        let local = Local::start(scratch)?;
        let mut client = Command::new(PYTHON);
        client.args(&local.client("stay")[1..]).current_dir(scratch.path());
        if let Some(libraries) = own {
            client.env("LD_LIBRARY_PATH", scratch.file(libraries));
        }
        let client = Ended::start(&mut client)?;
        let ready = scratch.file("ready");
        until("the client", || ready.exists())?;
        let pid = client.0.id().to_string();
        let attached = Attached::to(scratch, &["--pid", &pid], &["--http"])?;
        until("the library", || attached.has("\"type\":\"tls-library\""))?;
        scratch.write("go", "")?;
        Ok((attached.end()?, local.port.clone()))
    })?;
    let libraries: Vec<&TlsLibrary> = seen.story.tls_libraries.iter().collect();
    let is_late = |library: &&TlsLibrary| matches!(library.reading, TlsReading::From { .. });
    let found = if own.is_some() { "/libraries/libssl.so.3" } else { "/libssl.so.3" };
    ensure!(
        libraries.iter().any(|library| library.path.lossy().ends_with(found)),
        "{libraries:#?}"
    );
    ensure!(libraries.iter().all(is_late), "{libraries:#?}");
    let mut lines =
        seen.story.calls.iter().map(line_of).collect::<Result<Vec<String>>>()?.into_iter();
    for (path, bytes) in
        [("within/1", 500), ("between/1", 500), ("between/2", 40_000), ("new/0", 500), ("new/1", 0)]
    {
        let url = format!("https://127.0.0.1:{port}/{path}?bytes={bytes}&status=200");
        let line = lines.next();
        ensure!(line == Some(format!("GET {url} 200 0 {bytes}")), "{path}: {line:?}");
    }
    ensure!(lines.next().is_none(), "more calls than were made: {:#?}", seen.story.calls);
    let joined: Vec<bool> = seen.story.calls.iter().map(|call| call.connection.is_some()).collect();
    ensure!(joined == [false, false, false, true, true], "{:#?}", seen.story.calls);
    let inferred: Vec<bool> = seen.story.calls.iter().map(|call| call.joined).collect();
    ensure!(inferred == [true, true, true, false, false], "{:#?}", seen.story.calls);
    let (open, within): (Vec<_>, Vec<_>) =
        seen.story.call_gaps.iter().partition(|gap| gap.inode.is_some());
    // One that had a call under way, and one that had none.
    ensure!(within.len() == 2 && within.iter().all(|gap| !gap.plaintext), "{within:#?}");
    let is_connection =
        |socket: &&FoundSocket| socket.protocol == Some(SocketProtocol::Tcp) && socket.leads_away();
    let sockets: Vec<&FoundSocket> =
        seen.story.found_sockets.iter().filter(is_connection).collect();
    let told = |socket: &FoundSocket| open.iter().any(|gap| gap.inode == Some(socket.inode));
    ensure!(sockets.len() == 4 && open.len() == 4, "{sockets:#?} {open:#?}");
    ensure!(sockets.iter().all(|socket| told(socket)), "{sockets:#?} {open:#?}");
    let report = scratch.tracer(&["report", &seen.recording.display().to_string()]).output()?;
    report.prints("calls over it without TLS are not read")?;
    Ok(())
}

/// A server in Node, of HTTP/1 and HTTP/2, and what asks it before and after it is joined. The server is not
/// traced.
pub(crate) struct Stay {
    _server: Ended,
    pub(crate) node: PathBuf,
    pub(crate) script: PathBuf,
    pub(crate) port: String,
    pub(crate) certificate: PathBuf,
}

impl Stay {
    pub(crate) fn start(scratch: &Scratch) -> Result<Stay> {
        let node = fs::canonicalize(on_path("node")?)?;
        let script = fixtures().join("http/stay.mjs");
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let certificate = scratch.write("certificate.pem", &key.cert.pem())?;
        let private = scratch.write("key.pem", &key.signing_key.serialize_pem())?;
        let mut server = Command::new(&node);
        server.arg(&script).arg("serve").arg(&certificate).arg(&private);
        let mut server = Ended::start(server.stdout(Stdio::piped()))?;
        let mut port = String::new();
        let said = server.0.stdout.take().context("it was piped")?;
        BufReader::new(said).read_line(&mut port)?;
        ensure!(!port.is_empty(), "the server did not start");
        let port = port.trim().to_owned();
        Ok(Stay { _server: server, node, script, port, certificate })
    }

    /// Joins what asks, has it go on, and compares what is seen of it with what it did: HTTP/1 between two calls
    /// is read, HTTP/2 in the middle is a gap, and what is new is read.
    pub(crate) fn joined(&self, scratch: &Scratch, target: &[&str], folder: &Path) -> Result<()> {
        let ready = folder.join("ready");
        until("the client", || ready.exists())?;
        let attached = Attached::to(scratch, target, &["--http"])?;
        until("the library", || attached.has("\"type\":\"tls-library\""))?;
        fs::write(folder.join("go"), "")?;
        let seen = attached.end()?;
        let libraries = &seen.story.tls_libraries;
        ensure!(
            libraries.iter().any(|library| library.path.base_name() == b"node"),
            "{libraries:#?}"
        );
        let asked = [("between", 40_000), ("new", 500), ("new2", 500), ("last2", 40_000)];
        let expected = asked.map(|(path, bytes)| {
            format!("GET https://127.0.0.1:{}/{path}?bytes={bytes} 200 0 {bytes}\n", self.port)
        });
        let lines = seen.story.calls.iter().map(line_of).collect::<Result<Vec<String>>>()?;
        same_lines(&expected.concat(), &lines).context("the calls differ")?;
        ensure!(
            !seen.story.call_gaps.is_empty(),
            "what was in the middle is passed over in silence"
        );
        Ok(())
    }
}

/// Node has its OpenSSL in itself, and speaks HTTP/2 too.
fn node_joined_later(scratch: &Scratch) -> Result<()> {
    in_private_network(|_| {
        let stay = Stay::start(scratch)?;
        let mut client = Command::new(&stay.node);
        client.arg(&stay.script).args(["ask", &stay.port]).arg(&stay.certificate);
        let client = Ended::start(client.current_dir(scratch.path()))?;
        stay.joined(scratch, &["--pid", &client.0.id().to_string()], scratch.path())
    })
}

fn openssl_1_1(scratch: &Scratch) -> Result<()> {
    let folder = tool("openssl-1.1")?;
    let library = |begins: &str| {
        let files = fs::read_dir(&folder)?.map(|file| Ok(file?.path()));
        let files = files.collect::<Result<Vec<PathBuf>>>()?;
        let is_it = |file: &PathBuf| {
            file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begins))
        };
        files.into_iter().find(is_it).with_context(|| format!("no {begins}"))
    };
    let script = fixtures().join("http/openssl11.py");
    let mut command: Vec<OsString> = vec![
        "/usr/bin/python3".into(),
        script.into(),
        library("libssl")?.into(),
        library("libcrypto")?.into(),
    ];
    command.extend((0..8).map(|number| url(number).into()));
    let (run, requests) = recorded(scratch, &command, &[])?;
    ensure!(requests.len() == 8, "{} requests", requests.len());
    let found = library_of(&run, |library| library.path.lossy().contains("libssl-"))?;
    ensure!(matches!(found.reading, TlsReading::From { .. }), "{found:#?}");
    same_as_the_log(&run, &requests)?;
    Ok(())
}

fn library_of(run: &Run, is_it: impl Fn(&TlsLibrary) -> bool) -> Result<&TlsLibrary> {
    let libraries = &run.story.tls_libraries;
    libraries
        .iter()
        .find(|library| is_it(library))
        .with_context(|| format!("it is not listed: {libraries:#?}\n{}", run.output.stderr))
}

/// A copy of Node where only the process itself sees it, as in a container.
fn in_a_mount_namespace(scratch: &Scratch) -> Result<()> {
    let script = clients()?.join("clients.mjs");
    let node = fs::canonicalize(on_path("node")?)?;
    let inside = scratch.path().join("inside");
    fs::create_dir(&inside)?;
    // What asks for it comes when it is watched: tracer has two seconds for that.
    let line = format!(
        "mount -t tmpfs none {at} && cp {node} {at}/node && {at}/node -e 0 && sleep 2 && \
         {at}/node {script} 5 20",
        at = inside.display(),
        node = node.display(),
        script = script.display()
    );
    let command = words(&["unshare", "--mount", "--propagation", "private", "sh", "-c", &line]);
    let (run, requests) = recorded(scratch, &command, &[])?;
    ensure!(!inside.join("node").exists(), "it can be seen from outside");
    let library = library_of(&run, |library| library.path.as_path() == inside.join("node"))?;
    ensure!(matches!(library.reading, TlsReading::From { .. }), "{library:#?}");
    same_as_the_log(&run, &requests)?;
    Ok(())
}

/// Node in a root of its own, by runc. Its libraries are found where only its process sees them.
fn in_a_container(scratch: &Scratch) -> Result<()> {
    /// Reads the specification of a container, and has it run the clients in the lab's network.
    const CHANGE: &str = "import json, os, sys\n\
        node, clients = sys.argv[1:]\n\
        spec = json.load(open('config.json'))\n\
        spec['root'] = {'path': 'root'}\n\
        authority = os.environ['NODE_EXTRA_CA_CERTS']\n\
        spec['mounts'] += [\n\
        {'destination': to, 'source': source, 'type': 'bind', 'options': ['rbind', 'ro']}\n\
        for to, source in [('/etc', '/etc'), ('/clients', clients), ('/authority.pem', authority)]]\n\
        own = spec['process']\n\
        own['terminal'] = False\n\
        own['env'].append('NODE_EXTRA_CA_CERTS=/authority.pem')\n\
        wait = 'data:text/javascript,await new Promise((go) => setTimeout(go, 3000))'\n\
        own['args'] = [node, '--import', wait, '/clients/clients.mjs', '5', '20']\n\
        spaces = spec['linux']['namespaces']\n\
        spec['linux']['namespaces'] = [space for space in spaces if space['type'] != 'network']\n\
        json.dump(spec, open('config.json', 'w'))";
    let folder = clients()?;
    let runc = debian_tool("runc")?;
    let node = fs::canonicalize(on_path("node")?)?;
    let change = scratch.write("change.py", CHANGE)?;
    let line = format!(
        "mkdir -p root/proc root/sys root/dev root/etc root/clients && touch root/authority.pem && \
         cp --parents {node} $(ldd {node} | grep -o '/[^ ]*') root && {runc} spec && \
         /usr/bin/python3 {change} {node} {clients} && {runc} --root state run {id}",
        node = node.display(),
        runc = runc.display(),
        change = change.display(),
        clients = folder.display(),
        id = scratch.mark(),
    );
    let (run, requests) = recorded(scratch, &words(&["sh", "-ec", &line]), &[])?;
    let is_inside = |library: &TlsLibrary| matches!(library.reading, TlsReading::From { .. });
    let library = library_of(&run, is_inside)?;
    ensure!(library.path.as_path() == node, "{library:#?}");
    // runc may have taken it out of the command's cgroup. Then nothing is seen on the wire: neither calls
    // without TLS, nor which connection a session went over.
    let mut run = run;
    run.story.calls.retain(|call| !call.plaintext);
    let (encrypted, _): (Vec<_>, Vec<_>) =
        requests.into_iter().partition(|request| request.connection.is_some());
    let count = same_calls(&run, &encrypted)?;
    ensure!(count > 20, "only {count} requests");
    Ok(())
}

/// A Node whose code and whose OpenSSL are libraries, in the place that it was built for.
fn debian_node(scratch: &Scratch) -> Result<()> {
    let unpacked = fs::canonicalize(tool("debian-node/unpacked/usr")?)?;
    let script = clients()?.join("clients.mjs");
    let line = format!(
        "mount -t overlay -o lowerdir={}:/usr none /usr && \
         /usr/bin/node -p 'process.config.variables.node_shared_openssl' >&2 && \
         /usr/bin/node {} 13 40",
        unpacked.display(),
        script.display()
    );
    let command = words(&["unshare", "--mount", "--propagation", "private", "sh", "-ec", &line]);
    let (run, requests) = recorded(scratch, &command, &[])?;
    run.output.stderr.lines().find(|line| *line == "true").context("its OpenSSL is its own")?;
    // The overlay has it under another number, so it counts as another file. It is not read twice.
    library_of(&run, |library| library.path.lossy().contains("libssl.so"))?;
    let count = same_as_the_log(&run, &requests)?;
    ensure!(count > 40, "only {count} requests");
    Ok(())
}

/// Its calls are not recorded, and both the recording and the report say that they cannot be.
fn is_named(scratch: &Scratch, command: &[OsString], name: &str) -> Result<()> {
    is_said(scratch, command, name, "nothing is known of its calls")
}

fn is_said(scratch: &Scratch, command: &[OsString], name: &str, what: &str) -> Result<()> {
    let (run, requests) = recorded_whatever_it_says(scratch, command)?;
    ensure!(requests > 0, "it called nobody:\n{}", run.output.stderr);
    let unreadable = TlsReading::Unreadable { library: name.to_owned() };
    library_of(&run, |library| library.reading == unreadable)?;
    ensure!(run.story.calls.is_empty(), "{:#?}", run.story.calls);
    let report = scratch.tracer(&["report", &run.recording.display().to_string()]).output()?;
    report.prints(&format!("TLS not readable here ({name}): {what}"))?;
    let rows = String::from_utf8_lossy(&report.stdout)
        .lines()
        .filter(|line| line.contains("TLS not readable here"))
        .count();
    ensure!(rows == 1, "it is said {rows} times");
    Ok(())
}

/// The lab's answers are not what such programs want, so that they end with an error.
fn recorded_whatever_it_says(scratch: &Scratch, command: &[OsString]) -> Result<(Run, usize)> {
    let mut line = words(&["sh", "-c", "\"$@\"; true", "sh"]);
    line.extend_from_slice(command);
    let (run, requests) = recorded(scratch, &line, &[])?;
    let encrypted = requests.iter().filter(|request| request.connection.is_some()).count();
    Ok((run, encrypted))
}

fn go(scratch: &Scratch) -> Result<()> {
    let hey = tool("debian/bin/hey")?;
    let mut command = vec![hey.into_os_string()];
    command.extend(words(&["-n", "1", "-c", "1", &url(1)]));
    is_named(scratch, &command, "Go's crypto/tls")
}

fn rustls(scratch: &Scratch) -> Result<()> {
    let uv = tool("python/bin/uv")?;
    let mut command = vec![uv.into_os_string()];
    let index = format!("https://{HOST}/v/simple");
    command.extend(words(&[
        "pip",
        "install",
        "--dry-run",
        "--break-system-packages",
        "--no-config",
        "--no-cache",
        "--python",
        "/usr/bin/python3",
        "--allow-insecure-host",
        HOST,
        "--index-url",
        &index,
        "tracer-has-no-such-package",
    ]));
    is_named(scratch, &command, "rustls")
}

fn boringssl(scratch: &Scratch) -> Result<()> {
    let bun = clients()?.join("node_modules/bun/bin/bun");
    if !bun.is_file() {
        return skip("Bun is not installed; `cargo xtask setup` does that");
    }
    let script =
        format!("await (await fetch('{}', {{tls: {{rejectUnauthorized: false}}}})).text()", url(1));
    let mut command = vec![bun.into_os_string()];
    command.extend(words(&["-e", &script]));
    is_named(scratch, &command, "BoringSSL")
}

fn gnutls(scratch: &Scratch) -> Result<()> {
    let git = PathBuf::from("/usr/bin/git");
    let git = if git.exists() { git } else { on_path("git")? };
    let mut command = vec![git.into_os_string()];
    let repository = format!("https://{HOST}/v/repository");
    command.extend(words(&["-c", "http.sslVerify=false", "ls-remote", &repository]));
    is_said(scratch, &command, "GnuTLS", "mapped")?;
    // What links OpenSSL from elsewhere has its version in it, and is none itself.
    let openssl = PathBuf::from("/usr/bin/openssl");
    if openssl.exists() {
        let run = scratch.run([openssl.into_os_string(), "version".into()]).option("--http");
        let libraries = run.record()?.story.tls_libraries;
        let is_read =
            |library: &TlsLibrary| !matches!(library.reading, TlsReading::Unreadable { .. });
        ensure!(!libraries.is_empty() && libraries.iter().all(is_read), "{libraries:#?}");
    }
    Ok(())
}
