//! Names of destinations: what clients say, however it is cut, and what every way of looking a name up
//! leaves.

use std::{collections::BTreeSet, ffi::OsString, path::Path};

use anyhow::{Context as _, Result, ensure};
use tracer::{
    record::schema::{DatagramVia, FirstBytes, Opening},
    session::{Connection, NameSource, Names, Naming},
};
use tracer_tests::lab::{Lab, Request};

use crate::{
    Test,
    harness::{Peer, Run, Scratch, fixtures, in_private_network, on_path, program},
    hello::Hello,
};

pub(crate) const TESTS: &[Test] = &[
    ("fifty_hosts_of_one_address", fifty_hosts_of_one_address),
    ("node_by_getaddrinfo", node_by_getaddrinfo),
    ("node_by_c_ares", node_by_c_ares),
    ("python", python),
    ("curl", curl),
    ("curl_by_dns_over_tcp", curl_by_dns_over_tcp),
    ("go", go),
    ("go_by_libc", go_by_libc),
    ("file_of_hosts", file_of_hosts),
    ("hello_of_openssl", hello_of_openssl),
    ("hello_byte_by_byte", hello_byte_by_byte),
    ("post_quantum_hello_in_pieces", post_quantum_hello_in_pieces),
    ("encrypted_hello", encrypted_hello),
    ("http_host", http_host),
    ("no_protocol", no_protocol),
    ("quic", quic),
];

const HOST: &str = "api.anthropic.com";
const ADDRESS: &str = "127.10.0.4";
const FILE_HOST: &str = "only.hosts-file.example";
const FILE_ADDRESS: &str = "127.10.0.16";

/// What a name over TLS rests on whose client asked a name server by itself.
const LOOKED_UP: &[NameSource] = &[NameSource::Sni, NameSource::OwnDns];

/// Runs a command in a lab, which must call one host at one address under a name with these sources.
fn calls(
    scratch: &Scratch,
    command: &[OsString],
    environment: &[(&str, &str)],
    (host, address): (&str, &str),
    sources: &[NameSource],
) -> Result<()> {
    let lab = Lab::start()?;
    let mut tracer = scratch.run(command).by(|tracer| lab.command(tracer));
    for (name, value) in environment {
        tracer = tracer.env(name, value);
    }
    let run = tracer.record()?;
    run.exits(0)?.all_seen()?;
    let names = Names::of(&run.story);
    let to_host = |connection: &&Connection| {
        let to = connection.destination;
        to.is_some_and(|to| to.address.to_string() == address && to.port == 443)
    };
    let connections: Vec<_> = run.story.connections.iter().filter(to_host).collect();
    ensure!(!connections.is_empty(), "no connection to {address}: {:?}", run.connection_lines());
    for connection in connections {
        let naming = names.connection(connection);
        rests_on(&naming, host, sources)?;
    }
    same_as_the_log(&run, &lab.requests()?, |request| Some(request.host.clone()))
}

/// The name has all of the sources, the best of them first, and no other name is there.
fn rests_on(naming: &Naming, host: &str, sources: &[NameSource]) -> Result<()> {
    let best = naming.best().with_context(|| format!("{host} has no name"))?;
    ensure!(best.name == host && Some(&best.source) == sources.first(), "{naming:?}");
    let found: BTreeSet<NameSource> = naming.names.iter().map(|named| named.source).collect();
    ensure!(sources.iter().all(|source| found.contains(source)), "{sources:?}: {naming:?}");
    ensure!(naming.names.iter().all(|named| named.name == host), "{naming:?}");
    ensure!(!naming.disagree && !naming.encrypted_hello, "{naming:?}");
    Ok(())
}

/// Every request that the lab's servers saw came over a connection that is recorded with the server's
/// name, said by the client and given by a name server, or a file, to it or to another process.
pub(crate) fn same_as_the_log(
    run: &Run,
    requests: &[Request],
    host: impl Fn(&Request) -> Option<String>,
) -> Result<()> {
    let names = Names::of(&run.story);
    ensure!(!requests.is_empty(), "the lab saw no request");
    for request in requests {
        let port = request.client_port.context("a request without a port")?;
        let is_it = |connection: &&Connection| {
            let source = connection.result.as_ref().and_then(|result| result.source);
            source.is_some_and(|source| source.port == port)
                && connection.destination.is_some_and(|to| to.address == request.address)
        };
        let connection = run.story.connections.iter().find(is_it);
        let connection = connection.with_context(|| format!("not recorded: {request:?}"))?;
        let naming = names.connection(connection);
        let host = host(request).with_context(|| format!("whose is {request:?}?"))?;
        let best = naming.best().with_context(|| format!("no name for {request:?}"))?;
        ensure!(best.name == host && best.source == NameSource::Sni, "{host}: {naming:?}");
        let confirmed =
            |source| naming.names.iter().any(|named| named.name == host && named.source == source);
        let from = [NameSource::OwnDns, NameSource::OtherDns, NameSource::HostsFile];
        ensure!(from.into_iter().any(confirmed), "{host} was said and not looked up: {naming:?}");
        ensure!(!naming.disagree && !naming.encrypted_hello, "{host}: {naming:?}");
    }
    Ok(())
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn node(scratch: &Scratch, script: &str) -> Result<Vec<OsString>> {
    on_path("node")?;
    let script = scratch.write("call.mjs", script)?;
    Ok(vec!["node".into(), script.into_os_string()])
}

fn node_by_getaddrinfo(scratch: &Scratch) -> Result<()> {
    let command = node(scratch, &format!("await (await fetch('https://{HOST}/')).text();"))?;
    calls(scratch, &command, &[], (HOST, ADDRESS), LOOKED_UP)
}

fn node_by_c_ares(scratch: &Scratch) -> Result<()> {
    let script = format!(
        "import {{ promises as dns }} from 'node:dns';
         import https from 'node:https';
         const [host] = await dns.resolve4('{HOST}');
         const options = {{ host, servername: '{HOST}', headers: {{ host: '{HOST}' }} }};
         https.get(options, (answer) => answer.resume());"
    );
    calls(scratch, &node(scratch, &script)?, &[], (HOST, ADDRESS), LOOKED_UP)
}

fn python(scratch: &Scratch) -> Result<()> {
    let script = format!(
        "import http.client, ssl\n\
         context = ssl._create_unverified_context()\n\
         call = http.client.HTTPSConnection('{HOST}', context=context)\n\
         call.request('GET', '/')\n\
         call.getresponse().read()\n"
    );
    let python = on_path("python3")?;
    let script = scratch.write("call.py", &script)?;
    calls(scratch, &[python.into(), script.into()], &[], (HOST, ADDRESS), LOOKED_UP)
}

fn curl_to(host: &str) -> Result<Vec<OsString>> {
    on_path("curl")?;
    Ok(words(&["curl", "--silent", "--insecure", &format!("https://{host}/")]))
}

fn curl(scratch: &Scratch) -> Result<()> {
    calls(scratch, &curl_to(HOST)?, &[], (HOST, ADDRESS), LOOKED_UP)
}

fn curl_by_dns_over_tcp(scratch: &Scratch) -> Result<()> {
    let over_tcp = [("RES_OPTIONS", "use-vc")];
    calls(scratch, &curl_to(HOST)?, &over_tcp, (HOST, ADDRESS), LOOKED_UP)
}

fn file_of_hosts(scratch: &Scratch) -> Result<()> {
    let sources = &[NameSource::Sni, NameSource::HostsFile];
    calls(scratch, &curl_to(FILE_HOST)?, &[], (FILE_HOST, FILE_ADDRESS), sources)
}

/// `hey` calls a web server, and is written in Go. `resolver` is one of Go's.
fn go_with(scratch: &Scratch, resolver: &str) -> Result<()> {
    let ours = fixtures().join("../../target/tools/debian/bin/hey");
    let hey = if ours.is_file() { ours } else { on_path("hey")? };
    let mut command = vec![hey.into_os_string()];
    command.extend(words(&["-n", "1", "-c", "1", &format!("https://{HOST}/")]));
    let environment = [("GODEBUG", format!("netdns={resolver}"))];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    calls(scratch, &command, &environment, (HOST, ADDRESS), LOOKED_UP)
}

fn go(scratch: &Scratch) -> Result<()> {
    go_with(scratch, "go")
}

fn go_by_libc(scratch: &Scratch) -> Result<()> {
    go_with(scratch, "cgo")
}

fn fifty_hosts_of_one_address(scratch: &Scratch) -> Result<()> {
    const HOSTS: usize = 50;
    // Two at a time, so that one's answer comes between another's question and its connection.
    let script = format!(
        "import https from 'node:https';
         const call = (number) => new Promise((resolve, reject) => {{
           const name = `shard-${{String(number).padStart(2, '0')}}`;
           const url = `https://${{name}}.shared.example/${{name}}`;
           const request = https.get(url, {{ agent: false }}, (answer) => {{
             answer.resume();
             answer.on('end', resolve);
           }});
           request.on('error', reject);
         }});
         for (let number = 0; number < {HOSTS}; number += 2) {{
           await Promise.all([call(number), call(number + 1)]);
         }}"
    );
    let lab = Lab::start()?;
    let run = scratch.run(node(scratch, &script)?).by(|tracer| lab.command(tracer)).record()?;
    run.exits(0)?.all_seen()?;
    let requests = lab.requests()?;
    ensure!(requests.len() == HOSTS, "{} requests", requests.len());
    // The path is the only thing that tells the server who was meant.
    same_as_the_log(&run, &requests, |request| {
        request.path.strip_prefix('/').map(|name| format!("{name}.shared.example"))
    })
}

/// What is recorded of a program that connects somewhere and says these bytes, cut into pieces.
fn says(scratch: &Scratch, bytes: &[u8], piece: usize) -> Result<(Run, Opening, Naming)> {
    let file = scratch.file("said");
    std::fs::write(&file, bytes)?;
    let run = in_private_network(|network| {
        let (listener, address) = network.listen("127.77.0.1:0")?;
        let receives = bytes.len() as u64;
        Peer { receives, sends: 0, closes_first: true }.serve(listener, 1);
        let fixture = program(scratch, "dial-say")?;
        let command: [OsString; 5] = [
            fixture.into(),
            address.ip().to_string().into(),
            address.port().to_string().into(),
            file.clone().into(),
            piece.to_string().into(),
        ];
        scratch.run(command).record()
    })?;
    run.exits(0)?.all_seen()?;
    let naming = Names::of(&run.story).connection(run.only_connection()?);
    let [opening] = &run.story.openings[..] else {
        anyhow::bail!("{} openings, not one", run.story.openings.len());
    };
    ensure!(opening.connection == Some(run.only_connection()?.id), "{opening:?}");
    ensure!(opening.process == run.only_connection()?.process, "{opening:?}");
    let opening = opening.clone();
    Ok((run, opening, naming))
}

/// A ClientHello in such pieces is read as what it is.
fn says_hello(scratch: &Scratch, hello: &Hello<'_>, piece: usize) -> Result<Naming> {
    let (_, opening, naming) = says(scratch, &hello.bytes(), piece)?;
    let FirstBytes::Tls { sni, alpn, encrypted_hello, client_random, quic } = &opening.what else {
        anyhow::bail!("{opening:?}");
    };
    ensure!(sni.as_deref() == Some(hello.name) && !quic, "{opening:?}");
    ensure!(alpn.iter().eq(hello.alpn), "{opening:?}");
    ensure!(*client_random == hello.random_text(), "{opening:?}");
    ensure!(*encrypted_hello == hello.encrypted, "{opening:?}");
    let best = naming.best().context("no name")?;
    ensure!(best.name == hello.name && best.source == NameSource::Sni, "{naming:?}");
    Ok(naming)
}

fn corpus(name: &str) -> Result<Vec<u8>> {
    let file = fixtures().join("../../tracer/tests/corpus").join(name);
    std::fs::read(&file).with_context(|| file.display().to_string())
}

fn hello_of_openssl(scratch: &Scratch) -> Result<()> {
    let (_, opening, naming) = says(scratch, &corpus("hello-openssl.bin")?, 65_536)?;
    let best = naming.best().with_context(|| format!("no name: {opening:?}"))?;
    ensure!(best.name == "api.example.com" && best.source == NameSource::Sni, "{naming:?}");
    Ok(())
}

fn hello_byte_by_byte(scratch: &Scratch) -> Result<()> {
    says_hello(scratch, &Hello::default(), 1).map(drop)
}

fn post_quantum_hello_in_pieces(scratch: &Scratch) -> Result<()> {
    let hello = Hello { post_quantum: true, ..Hello::default() };
    ensure!(hello.bytes().len() > 1600, "it is not large");
    for piece in [65_536, 1448, 700] {
        says_hello(scratch, &hello, piece).with_context(|| format!("pieces of {piece} bytes"))?;
    }
    // In TLS records of their own, too.
    let hello = Hello { record_bytes: 300, ..hello };
    says_hello(scratch, &hello, 450).map(drop)
}

fn encrypted_hello(scratch: &Scratch) -> Result<()> {
    let hello = Hello { encrypted: true, post_quantum: true, ..Hello::default() };
    let naming = says_hello(scratch, &hello, 65_536)?;
    ensure!(naming.encrypted_hello, "{naming:?}");
    Ok(())
}

fn http_host(scratch: &Scratch) -> Result<()> {
    let request = b"GET /latest/meta-data HTTP/1.1\r\nHost: shop.example:8080\r\n\r\n";
    for piece in [65_536, 3] {
        let (_, opening, naming) = says(scratch, request, piece)?;
        let best = naming.best().with_context(|| format!("no name: {opening:?}"))?;
        ensure!(best.name == "shop.example" && best.source == NameSource::HttpHost, "{naming:?}");
    }
    Ok(())
}

fn no_protocol(scratch: &Scratch) -> Result<()> {
    let (_, opening, naming) = says(scratch, b"\x00\x01\x02 what is this?", 65_536)?;
    ensure!(opening.what == FirstBytes::Other && naming.best().is_none(), "{opening:?} {naming:?}");
    Ok(())
}

fn quic(scratch: &Scratch) -> Result<()> {
    for file in ["quic-v1.bin", "quic-v2.bin"] {
        quic_datagram(scratch, &fixtures().join("../../tracer/tests/corpus").join(file))
            .with_context(|| file.to_owned())?;
    }
    Ok(())
}

fn quic_datagram(scratch: &Scratch, file: &Path) -> Result<()> {
    let run = in_private_network(|_| {
        let peer = std::net::UdpSocket::bind("127.77.0.1:443")?;
        let fixture = program(scratch, "dial-say")?;
        let mut command = vec![fixture.into_os_string()];
        command.extend(words(&["127.77.0.1", "443"]));
        command.push(file.into());
        command.extend(words(&["65536", "udp"]));
        let run = scratch.run(command).record();
        drop(peer);
        run
    })?;
    run.exits(0)?.all_seen()?;
    let [datagram] = &run.story.datagrams[..] else {
        anyhow::bail!("{} datagram destinations, not one", run.story.datagrams.len());
    };
    ensure!(datagram.via == DatagramVia::Connect, "{datagram:?}");
    let naming = Names::of(&run.story).datagram(datagram);
    let best = naming.best().with_context(|| format!("{:?}", run.story.openings))?;
    ensure!(best.name == "quic.example" && best.source == NameSource::Sni, "{naming:?}");
    let exchanged: Vec<_> = run.story.exchanges.iter().map(|one| one.sent_bytes).collect();
    ensure!(exchanged == [1200], "{:?}", run.story.exchanges);
    Ok(())
}
