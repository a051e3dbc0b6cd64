//! Calls by HTTP: what is recorded is what the lab's server logged.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tracer::{
    catalogue::EndpointClass,
    record::schema::{Call, CallOutcome, JoinedBy, TlsReading},
};
use tracer_tests::lab::{Lab, Request};

use crate::{
    Test,
    harness::{
        Run, Scratch, fixtures, in_private_network, on_path, repeats, same_lines, seed, skip,
    },
};

pub(crate) const TESTS: &[Test] = &[
    ("thousand_conversations", thousand_conversations),
    ("versions_of_node", versions_of_node),
    ("python_and_curl", python_and_curl),
    ("table_of_sessions", table_of_sessions),
    ("node_that_comes_later", node_that_comes_later),
    ("lost_pieces", lost_pieces),
    ("odd_conversations", odd_conversations),
    ("without_tls", without_tls),
    ("secrets", secrets),
    ("without_the_option", without_the_option),
];

pub(crate) const HOST: &str = "varied.example";

/// The folder of the clients, with the packages in it.
pub(crate) fn clients() -> Result<PathBuf> {
    on_path("node")?;
    let folder = fixtures().join("http");
    if !folder.join("node_modules/axios").is_dir() {
        return skip(
            "the packages of the clients are not installed; `cargo xtask setup` does that",
        );
    }
    Ok(folder)
}

/// A command that runs in the lab with its calls recorded, and the lab's log of it.
pub(crate) fn recorded(
    scratch: &Scratch,
    command: &[OsString],
    options: &[&str],
) -> Result<(Run, Vec<Request>)> {
    let lab = Lab::start()?;
    let mut tracer = scratch.run(command).option("--http").by(|tracer| lab.command(tracer));
    for option in options {
        tracer = tracer.option(option);
    }
    let run = tracer.record()?;
    run.exits(0)?;
    Ok((run, lab.requests()?))
}

/// By method and URL, each of which the clients use once.
fn by_url<T>(rows: Vec<(String, T)>) -> Result<BTreeMap<String, T>> {
    let mut found = BTreeMap::new();
    for (url, row) in rows {
        ensure!(found.insert(url.clone(), row).is_none(), "{url} is there twice");
    }
    Ok(found)
}

fn calls(run: &Run) -> Result<BTreeMap<String, &Call>> {
    let calls = run.story.calls.iter();
    by_url(calls.map(|call| (format!("{} {}", call.method, call.url), call)).collect())
}

/// The log and the recording have the same calls, and what is known of each is the same.
pub(crate) fn same_as_the_log(run: &Run, requests: &[Request]) -> Result<usize> {
    joined(run)?;
    same_calls(run, requests)
}

/// The same, whatever connections they are known to go over.
pub(crate) fn same_calls(run: &Run, requests: &[Request]) -> Result<usize> {
    let calls = calls(run)?;
    let scheme = |request: &Request| if request.connection.is_some() { "https" } else { "http" };
    let url = |request: &Request| {
        format!("{} {}://{}{}", request.method, scheme(request), request.host, request.path)
    };
    let log = by_url(requests.iter().map(|request| (url(request), request)).collect())?;
    let names = |map: BTreeSet<&String>| map.into_iter().take(5).cloned().collect::<Vec<_>>();
    let (in_log, in_calls) = (log.keys().collect(), calls.keys().collect::<BTreeSet<_>>());
    let missing = names(&in_log - &in_calls);
    ensure!(missing.is_empty(), "not recorded: {missing:#?}; gaps: {:#?}", run.story.call_gaps);
    let extra = names(&in_calls - &in_log);
    ensure!(extra.is_empty(), "recorded, and not in the log: {extra:#?}");
    for (url, request) in &log {
        let call = calls[url];
        check(call, request).with_context(|| format!("{url}\n{call:#?}\n{request:#?}"))?;
    }
    Ok(log.len())
}

fn check(call: &Call, request: &Request) -> Result<()> {
    ensure!(!call.served, "the client is the one that is traced");
    let version = if request.http_version == "2.0" { "2" } else { &request.http_version };
    ensure!(call.http_version == version, "another version");
    ensure!(call.has_authorization == request.authorization_scheme.is_some(), "authorization");
    match &call.outcome {
        CallOutcome::Complete => {
            same_answer(call, request)?;
            if request.completed {
                within(call, request)?;
            }
        }
        // What the server had begun to say when it ended may not have come.
        CallOutcome::Aborted { .. } => {
            ensure!(call.status.is_none() || call.status == request.status, "another status");
            ensure!(
                call.request_id.is_none() || call.request_id == request.request_id,
                "another request ID"
            );
        }
        CallOutcome::Partial { why } => bail!("not all of it was read: {why}"),
        CallOutcome::Upgraded { to } => bail!("it became {to}"),
    }
    Ok(())
}

/// Each call over TLS is known to have gone over a certain connection.
fn joined(run: &Run) -> Result<()> {
    for call in run.story.calls.iter().filter(|call| !call.plaintext) {
        let joined = call.connection.with_context(|| format!("it has no connection: {call:#?}"))?;
        ensure!(joined.by == JoinedBy::Exact, "its connection is a guess: {call:#?}");
    }
    Ok(())
}

fn same_answer(call: &Call, request: &Request) -> Result<()> {
    ensure!(call.status == request.status, "another status");
    ensure!(call.request_id == request.request_id, "another request ID");
    // The server may have been told that the client is gone before it had counted.
    if request.completed {
        ensure!(call.request_bytes == request.request_bytes, "another number of bytes sent");
        let received = if call.method == "HEAD" { 0 } else { request.response_bytes };
        ensure!(call.response_bytes == received, "another number of bytes received");
    }
    Ok(())
}

/// The client cannot have had the answer sooner than the server gave it: both measure durations, so no
/// two clocks are compared.
fn within(call: &Call, request: &Request) -> Result<()> {
    /// Of a clock that is read before and after what it measures.
    const SLACK_MS: f64 = 0.5;
    let ms = |ns: u64| ns as f64 / 1e6;
    let total = call.total_ms.context("no total_ms")?;
    let ttfb = call.ttfb_ms.context("no ttfb_ms")?;
    ensure!(ttfb <= total + f64::EPSILON, "the first byte came after the last");
    let responded = request.responded_ns.context("an answer that was never begun")?;
    let server_ttfb = ms(responded.saturating_sub(request.received_ns));
    ensure!(ttfb + SLACK_MS >= server_ttfb, "the server took {server_ttfb} ms to begin");
    if let Some(last) = request.last_ns.filter(|_| call.response_bytes > 0) {
        let server_total = ms(last.saturating_sub(request.received_ns));
        ensure!(total + SLACK_MS >= server_total, "the server took {server_total} ms");
    }
    Ok(())
}

/// Nor later than the client said that it had all of it. What the client says that it was answered is recorded, however
/// the call ended.
fn within_the_clients_time(run: &Run) -> Result<usize> {
    const SLACK_MS: f64 = 0.5;
    let mut client_ms = BTreeMap::new();
    let mut answers = BTreeMap::new();
    for line in String::from_utf8(run.output.stdout.clone())?.lines() {
        let told: Value = serde_json::from_str(line)?;
        let (path, ms) = (told["path"].as_str(), told["ms"].as_f64());
        // What it gave up can go on for a while.
        let ms = if told["status"].is_null() { f64::INFINITY } else { ms.context("a duration")? };
        let path = path.context("a path")?.to_owned();
        if !told["status"].is_null() {
            let request_id = told["request_id"].as_str().map(str::to_owned);
            answers.insert(path.clone(), (told["status"].as_u64(), request_id));
        }
        client_ms.insert(path, ms);
    }
    let mut compared = 0;
    for call in &run.story.calls {
        let path = call.url.splitn(4, '/').nth(3).map(|rest| format!("/{rest}"));
        let path = path.context("a path")?;
        if let Some(answer) = answers.get(&path) {
            let recorded = (call.status.map(u64::from), call.request_id.clone());
            ensure!(recorded == *answer, "the client was told {answer:?}: {call:#?}");
        }
        let client_ms = *client_ms.get(&path).with_context(|| format!("not told: {path}"))?;
        if let Some(total_ms) = call.total_ms {
            ensure!(
                total_ms <= client_ms + SLACK_MS,
                "the client had it after {client_ms} ms: {call:#?}"
            );
            compared += 1;
        }
    }
    Ok(compared)
}

pub(crate) fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn thousand_conversations(scratch: &Scratch) -> Result<()> {
    /// One process has most of them, the others something to do at the same time.
    const PROCESSES: u64 = 4;
    let each = (repeats(1000)? / PROCESSES).max(1).to_string();
    let script = clients()?.join("clients.mjs");
    let seed = seed()?;
    let line = (0..PROCESSES).map(|number| {
        let seed = seed * PROCESSES + number;
        format!("node {} {seed} {each} & all=\"$all $!\"; ", script.display())
    });
    let wait = "for one in $all; do wait $one || exit 1; done".to_owned();
    let line: String = line.chain([wait]).collect();
    let (run, requests) = recorded(scratch, &words(&["sh", "-c", &line]), &[])?;
    let count = same_as_the_log(&run, &requests).with_context(|| format!("seed {seed}"))?;
    ensure!(count as u64 > repeats(1000)?, "only {count} requests");
    ensure!(run.story.call_gaps.is_empty(), "{:#?}", run.story.call_gaps);
    let timed = within_the_clients_time(&run).with_context(|| format!("seed {seed}"))?;
    ensure!(timed as u64 > repeats(1000)?, "only {timed} requests have a time");
    let authorized = run.story.calls.iter().filter(|call| call.has_authorization).count();
    ensure!((1..count).contains(&authorized), "{authorized} of {count} have an authorization");
    Ok(())
}

fn versions_of_node(scratch: &Scratch) -> Result<()> {
    let folder = clients()?;
    let script = folder.join("clients.mjs");
    for version in ["18", "22", "24", "26"] {
        let node = folder.join(format!("node_modules/node-{version}/bin/node"));
        if !node.is_file() {
            return skip(format!("Node {version} is not installed; `cargo xtask setup` does that"));
        }
        let command = [node.into(), script.clone().into(), version.into(), "30".into()];
        let (run, requests) = recorded(scratch, &command, &[])?;
        same_as_the_log(&run, &requests).with_context(|| format!("Node {version}"))?;
    }
    Ok(())
}

/// What a study of such sessions counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    unique_urls: usize,
    calls: usize,
    api: usize,
    mcp: usize,
}

/// How many of each mode.
const SESSIONS: usize = 3;

/// The same counts at each of three runs, in each mode of the bundled session, and in the comparison of
/// them.
fn table_of_sessions(scratch: &Scratch) -> Result<()> {
    on_path("node")?;
    let agent = fixtures().join("agent");
    if !agent.join("node_modules").is_dir() {
        return skip("the agent's packages are not installed; `cargo xtask setup` does that");
    }
    let script = agent.join("agent.mjs");
    let modes = [
        // Of the ten calls of an MCP server's host, one asks where to log in.
        ("direct", Row { unique_urls: 9, calls: 16, api: 2, mcp: 9 }),
        ("bedrock", Row { unique_urls: 3, calls: 9, api: 1, mcp: 8 }),
        ("guardrail", Row { unique_urls: 3, calls: 9, api: 1, mcp: 8 }),
    ];
    let mut members = Vec::new();
    for (mode, expected) in modes {
        for _ in 0..SESSIONS {
            let command =
                [OsString::from("node"), script.clone().into(), "--mode".into(), mode.into()];
            let (run, requests) = recorded(scratch, &command, &["--http-fields"])?;
            let calls = &run.story.calls;
            let endpoints =
                run.story.endpoints().map_err(str::to_owned).map_err(anyhow::Error::msg)?;
            let class = |call: &Call| endpoints.call(&call.method, &call.url).class;
            let of = |wanted| calls.iter().filter(|call| class(call) == Some(wanted)).count();
            let urls: BTreeSet<&str> = calls.iter().map(|call| call.url.as_str()).collect();
            let row = Row {
                unique_urls: urls.len(),
                calls: calls.len(),
                api: of(EndpointClass::Api),
                mcp: of(EndpointClass::Mcp),
            };
            ensure!(row == expected, "{mode}: {row:?}, not {expected:?}");
            let asked = |call: &&Call| call.model.is_some() || call.anthropic_version.is_some();
            ensure!(calls.iter().filter(asked).count() == row.api, "{mode}: no model: {calls:#?}");
            ensure!(row.calls == requests.len(), "{mode}: the log has {}", requests.len());
            let ids = |ids: Vec<Option<String>>| ids.into_iter().flatten().collect::<BTreeSet<_>>();
            let recorded = ids(calls.iter().map(|call| call.request_id.clone()).collect());
            let logged = ids(requests.iter().map(|request| request.request_id.clone()).collect());
            ensure!(recorded == logged, "{mode}: other request IDs than the log's");
            let signed = calls.iter().filter(|call| call.has_aws_sig).count();
            ensure!(signed == usize::from(mode != "direct"), "{mode}: {signed} signed calls");
            members.push(format!("{mode}={}", run.recording.display()));
        }
    }
    let words: Vec<&str> = ["compare", "--format", "json"]
        .into_iter()
        .chain(members.iter().map(String::as_str))
        .collect();
    let output = scratch.tracer(&words).output()?;
    output.exits(0)?;
    let comparison: Value = serde_json::from_slice(&output.stdout)?;
    let groups = comparison["groups"].as_array().context("no groups")?;
    ensure!(groups.len() == modes.len(), "{} groups", groups.len());
    for (group, (mode, expected)) in groups.iter().zip(modes) {
        let calls = &group["calls"];
        ensure!(group["name"] == mode && calls["sessions"] == SESSIONS, "{mode}: {group:#}");
        let each = |counted: &str| {
            let spread = &calls[format!("{counted}_per_session")];
            let count = spread["min"].as_u64().and_then(|count| usize::try_from(count).ok());
            ensure!(spread["min"] == spread["max"], "{mode}: {spread:#}");
            count.with_context(|| format!("{mode}: no count of {counted}: {calls:#}"))
        };
        let urls = calls["urls"].as_object().context("no URLs")?;
        let row = Row {
            unique_urls: urls.len(),
            calls: each("calls")?,
            api: each("api_calls")?,
            mcp: each("mcp_calls")?,
        };
        ensure!(row == expected, "{mode}, compared: {row:?}, not {expected:?}");
    }
    Ok(())
}

fn python_and_curl(scratch: &Scratch) -> Result<()> {
    let script = clients()?.join("clients.py");
    on_path("curl")?;
    let urls = |from: u32| {
        let url = |number| format!("'https://{HOST}/v/c-{number}?bytes=70000&pieces=3'");
        (from..from + 5).map(url).collect::<Vec<_>>().join(" ")
    };
    let line = format!(
        "/usr/bin/python3 {} 7 40 && curl -sS --http2 -Z {} >/dev/null && curl -sS --http1.1 {} >/dev/null",
        script.display(),
        urls(0),
        urls(5)
    );
    let (run, requests) = recorded(scratch, &words(&["sh", "-c", &line]), &[])?;
    let count = same_as_the_log(&run, &requests)?;
    ensure!(count > 50, "only {count} requests");
    let read = |library: &&tracer::record::schema::TlsLibrary| {
        library.path.lossy().contains("libssl.so") && library.reading == TlsReading::Complete
    };
    ensure!(run.story.tls_libraries.iter().any(|library| read(&library)), "libssl is not listed");
    Ok(())
}

/// A copy that nobody could have known before it ran.
fn node_that_comes_later(scratch: &Scratch) -> Result<()> {
    let script = clients()?.join("clients.mjs");
    let copy = scratch.path().join("another");
    let node = fs::canonicalize(on_path("node")?)?;
    let line = format!(
        "cp {} {} && {} {} 5 20",
        node.display(),
        copy.display(),
        copy.display(),
        script.display()
    );
    let (run, requests) = recorded(scratch, &words(&["sh", "-c", &line]), &[])?;
    let library = run
        .story
        .tls_libraries
        .iter()
        .find(|library| library.path.as_path() == copy)
        .with_context(|| format!("the copy is not listed: {:#?}", run.story.tls_libraries))?;
    let TlsReading::From { t_ns } = library.reading else { bail!("{library:#?}") };
    ensure!(t_ns > library.t_ns, "{library:#?}");
    let report = scratch.tracer(&["report", &run.recording.display().to_string()]).output()?;
    report.prints("calls in its first")?;
    // What was missed was missed before then.
    let missed = requests.len() - run.story.calls.len();
    eprintln!(
        "  a copy of Node is watched {} ms after it began; {missed} of {} requests were missed",
        (t_ns - library.t_ns) / 1_000_000,
        requests.len()
    );
    let calls = calls(&run)?;
    for request in requests.iter().filter(|request| request.connection.is_some()) {
        let url = format!("{} https://{HOST}{}", request.method, request.path);
        if let Some(call) = calls.get(&url) {
            check(call, request).with_context(|| url)?;
        }
    }
    Ok(())
}

/// Whatever is lost, nothing is made up: a call that is recorded as complete is right.
fn lost_pieces(scratch: &Scratch) -> Result<()> {
    let script = clients()?.join("clients.mjs");
    // Others each time: what holds for some must hold for all.
    let seed = seed()?;
    let each = 2 + seed % 11;
    let told = || format!("seed {seed}, one of {each} lost");
    let command = [OsString::from("node"), script.into(), seed.to_string().into(), "60".into()];
    let (run, requests) =
        recorded(scratch, &command, &[&format!("--debug-lose=tls={each}")]).with_context(told)?;
    ensure!(run.counted("tls-data")?.lost > 0, "nothing was lost: {}", told());
    ensure!(!run.story.call_gaps.is_empty(), "no gap is recorded: {}", told());
    let calls = calls(&run)?;
    let logged: BTreeSet<String> = requests
        .iter()
        .map(|request| format!("{} https://{HOST}{}", request.method, request.path))
        .collect();
    let is_made_up = |call: &&String| call.contains(" https://") && !logged.contains(*call);
    let made_up: Vec<&String> = calls.keys().filter(is_made_up).collect();
    ensure!(made_up.is_empty(), "recorded, and not in the log: {made_up:#?}: {}", told());
    let mut complete = 0;
    for request in requests.iter().filter(|request| request.connection.is_some()) {
        let url = format!("{} https://{HOST}{}", request.method, request.path);
        let Some(call) = calls.get(&url) else { continue };
        if call.outcome == CallOutcome::Complete {
            complete += 1;
            same_answer(call, request).with_context(|| {
                format!("{}\n{call:#?}\n{request:#?}\n{:#?}", told(), run.story.call_gaps)
            })?;
        }
    }
    ensure!(complete < requests.len(), "all of {complete} are complete: {}", told());
    Ok(())
}

/// What HTTP has beside plain requests and answers, each by a client that does it.
fn odd_conversations(scratch: &Scratch) -> Result<()> {
    let script = clients()?.join("odd.mjs");
    let (run, requests) = recorded(scratch, &[OsString::from("node"), script.into()], &[])?;
    let (odd, plain): (Vec<Request>, Vec<Request>) = requests
        .into_iter()
        .partition(|request| request.path.contains("/socket") || request.path.contains("X-Amz-"));
    let [socket, signed] = &odd[..] else { bail!("{odd:#?}") };
    let (socket, signed) =
        if socket.path.contains("/socket") { (socket, signed) } else { (signed, socket) };
    let call_of = |request: &Request| {
        let call = run.story.calls.iter().find(|call| call.request_id == request.request_id);
        call.with_context(|| format!("not recorded: {request:#?}"))
    };
    let upgraded = call_of(socket)?;
    ensure!(
        upgraded.outcome == CallOutcome::Upgraded { to: "websocket".into() }
            && upgraded.status == Some(101),
        "{upgraded:#?}"
    );
    let by_query = call_of(signed)?;
    ensure!(by_query.has_aws_sig && !by_query.has_authorization, "{by_query:#?}");
    ensure!(by_query.url.contains("X-Amz-Signature=REDACTED"), "{}", by_query.url);
    let mut rest = run;
    rest.story.calls.retain(|call| odd.iter().all(|request| request.request_id != call.request_id));
    let count = same_as_the_log(&rest, &plain)?;
    ensure!(count == 9, "{count} requests");
    ensure!(rest.story.call_gaps.is_empty(), "{:#?}", rest.story.call_gaps);
    Ok(())
}

fn without_tls(scratch: &Scratch) -> Result<()> {
    on_path("node")?;
    same_as_printed(scratch, "http/odd-starts.mjs", "1.1", 4)?;
    // Whoever speaks first.
    same_as_printed(scratch, "http/h2c.mjs", "2", 6)
}

/// All of it without TLS, and whole.
fn same_as_printed(scratch: &Scratch, script: &str, version: &str, count: usize) -> Result<()> {
    let script = fixtures().join(script);
    let command = [OsString::from("node"), script.into()];
    let run = in_private_network(|_| scratch.run(command).option("--http").record())?;
    run.exits(0)?;
    let line = |call: &Call| {
        ensure!(call.outcome == CallOutcome::Complete && call.http_version == version, "{call:#?}");
        ensure!(call.plaintext && call.connection.is_some(), "{call:#?}");
        let status = call.status.context("no status")?;
        Ok(format!("{} {} {status} {}", call.method, call.url, call.response_bytes))
    };
    let lines = run.story.calls.iter().map(line).collect::<Result<Vec<String>>>()?;
    let asked = String::from_utf8_lossy(&run.output.stdout);
    ensure!(lines.len() == count && run.story.call_gaps.is_empty(), "{:#?}", run.story.call_gaps);
    same_lines(&asked, &lines)
}

fn secrets(scratch: &Scratch) -> Result<()> {
    let script = clients()?.join("secrets.mjs");
    let command = [OsString::from("node"), script.into()];
    let (run, requests) = recorded(scratch, &command, &["--http-fields"])?;
    let planted = String::from_utf8(run.output.stdout.clone())?;
    let planted: Vec<&str> = planted.lines().collect();
    ensure!(planted.len() == 29, "{} secrets", planted.len());
    ensure!(requests.len() >= 8 && run.story.calls.len() == requests.len(), "{requests:#?}");
    let mut texts = vec![("the recording".to_owned(), fs::read_to_string(&run.recording)?)];
    texts.push(("what tracer said".into(), run.output.stderr.clone()));
    let recording = run.recording.to_str().context("a path that is no text")?;
    for format in ["text", "markdown", "html", "json", "perfetto", "otlp"] {
        let report = scratch.tracer(&["report", "--format", format, recording]).output()?;
        texts.push((format!("the report as {format}"), String::from_utf8(report.stdout)?));
    }
    for format in ["text", "markdown", "html", "json"] {
        let own = format!("own={recording}");
        let words = ["compare", "--format", format, &own];
        let compared = scratch.tracer(&words).output()?;
        texts.push((format!("the comparison as {format}"), String::from_utf8(compared.stdout)?));
    }
    for (whose, text) in &texts {
        ensure!(!text.is_empty(), "{whose} is empty");
        for secret in &planted {
            ensure!(!text.contains(secret), "{secret} is in {whose}");
        }
    }
    Ok(())
}

fn without_the_option(scratch: &Scratch) -> Result<()> {
    let script = clients()?.join("clients.mjs");
    let lab = Lab::start()?;
    let command = [OsString::from("node"), script.into(), "3".into(), "3".into()];
    let run = scratch.run(command).by(|tracer| lab.command(tracer)).record()?;
    ensure!(run.story.calls.is_empty() && run.story.tls_libraries.is_empty(), "calls were read");
    ensure!(!run.story.start.sensors.iter().any(|sensor| sensor.sensor == "tls"), "it is attached");
    Ok(())
}
