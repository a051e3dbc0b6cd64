//! TLS libraries beside those of Node, curl and Python: read, or named as what cannot be read.

use std::{ffi::OsString, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use tracer::record::schema::{TlsLibrary, TlsReading};
use tracer_tests::debian_tool;

use crate::{
    Test,
    harness::{Run, Scratch, fixtures, on_path, skip},
    http::{HOST, clients, recorded, same_as_the_log, same_calls, words},
};

pub(crate) const TESTS: &[Test] = &[
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
        .with_context(|| format!("it is not listed: {libraries:#?}"))
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
    let (run, requests) = recorded_whatever_it_says(scratch, command)?;
    ensure!(requests > 0, "it called nobody:\n{}", run.output.stderr);
    let unreadable = TlsReading::Unreadable { library: name.to_owned() };
    library_of(&run, |library| library.reading == unreadable)?;
    ensure!(run.story.calls.is_empty(), "{:#?}", run.story.calls);
    let report = scratch.tracer(&["report", &run.recording.display().to_string()]).output()?;
    report.prints(&format!("TLS not readable here ({name}): nothing is known of its calls"))?;
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
    is_named(scratch, &command, "GnuTLS")
}
