//! Comparisons of many recordings and of large ones, and the page in a browser.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tracer::record::{self, Record, Writer};
use tracer_tests::{bench::long, browser::View};

use crate::{
    Test,
    harness::{Scratch, tracer_program},
    report::{WIDTHS, browser, golden, sound},
};

pub(crate) const TESTS: &[Test] = &[
    ("thousand_recordings", thousand_recordings),
    ("memory_does_not_grow_with_connections", memory_does_not_grow_with_connections),
    ("memory_does_not_grow_with_processes", memory_does_not_grow_with_processes),
    ("page_in_a_browser", page_in_a_browser),
];

/// A recording of so many connections: a question of DNS, its answer, a connection and its
/// ClientHello each, in turn to a host of its own and to ten that all sessions have.
fn recording(file: &Path, number: usize, connections: u64) -> Result<()> {
    let base = record::read(&golden("no-policy"))?;
    let mut writer = Writer::new(Box::new(fs::File::create(file)?));
    writer.write(&Record::Start(Box::new(base.start)))?;
    let mut process = None;
    for event in base.events {
        if let Record::Root(root) = &event {
            process = Some(json!(root.process));
        }
        writer.write(&event)?;
    }
    let process = process.context("no root")?;
    let mut write = |line: Value| -> Result<()> {
        let mut line = line;
        line["process"] = process.clone();
        line["thread"] = json!(1);
        Ok(writer.write(&serde_json::from_value(line)?)?)
    };
    for round in 0..connections {
        let t_ns = 6_000_000_000_000 + round * 1_000;
        let name = match round % 11 {
            0 => format!("session-{number}.example"),
            shared => format!("shared-{shared}.example"),
        };
        let address = format!("10.0.0.{}", round % 11);
        let to = json!({ "address": address, "port": 443 });
        let question = json!({ "question": { "id": 7, "name": name, "of": "A" } });
        let records = json!([{ "name": name, "of": "A", "ttl_s": 1, "data": address }]);
        let answer = json!({ "answer": {
            "id": 7, "name": name, "of": "A", "code": "NOERROR", "records": records } });
        for message in [question, answer] {
            write(json!({ "type": "dns", "t_ns": t_ns, "cookie": round, "server": null,
                "message": message }))?;
        }
        write(json!({ "type": "connect", "t_ns": t_ns, "connection": round, "cookie": round,
            "destination": to, "net_ns_inum": 1 }))?;
        write(json!({ "type": "connect-result", "t_ns": t_ns, "connection": round,
            "outcome": "established", "connect_ns": 50_000 + number as u64, "source": null }))?;
        write(json!({ "type": "opening", "t_ns": t_ns, "cookie": round, "connection": round,
            "destination": to, "what": { "tls": { "sni": name, "client_random": "00" } } }))?;
    }
    writer.write(&Record::End(Box::new(base.end.context("no end")?)))?;
    writer.flush()?;
    Ok(())
}

/// The comparison, made with so little room for data.
fn compare(room_kib: u64, format: &str, members: &[String]) -> Result<Vec<u8>> {
    let mut shell = Command::new("sh");
    let limited = format!("ulimit -d {room_kib} && exec \"$@\"");
    shell.args(["-c", &limited, "sh"]).arg(tracer_program());
    shell.args(["compare", "--format", format]).args(members);
    let output = shell.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    Ok(output.stdout)
}

fn thousand_recordings(scratch: &Scratch) -> Result<()> {
    const GROUP: usize = 500;
    const CONNECTIONS: u64 = 22;
    const ROOM_KIB: u64 = 128 * 1024;
    let mut members = Vec::new();
    for group in ["one", "two"] {
        let folder = scratch.folder(group)?;
        for number in 0..GROUP {
            let file = folder.join(format!("{number}.jsonl"));
            recording(&file, number, CONNECTIONS)?;
        }
        members.push(format!("{group}={}/*.jsonl", folder.display()));
    }
    let began = std::time::Instant::now();
    let comparison: Value = serde_json::from_slice(&compare(ROOM_KIB, "json", &members)?)?;
    eprintln!("  compare: {} recordings in {:.2?}", 2 * GROUP, began.elapsed());
    for group in comparison["groups"].as_array().context("no groups")? {
        ensure!(group["recordings"] == GROUP, "{}", group["recordings"]);
        let endpoints = group["endpoints"].as_object().context("no endpoints")?;
        ensure!(endpoints.len() == GROUP + 10, "{} endpoints", endpoints.len());
        let shared = &endpoints["shared-1.example:443"];
        ensure!(shared["sessions"] == GROUP && shared["times"] == 2 * GROUP, "{shared}");
        let some = group["endpoints_in_some_sessions_only"].as_array().map_or(0, Vec::len);
        ensure!(some == GROUP, "{some} are in some sessions only");
    }
    Ok(())
}

/// A recording of 50 MB, in less memory than any of its events would fit in if they were kept.
fn memory_does_not_grow_with_connections(scratch: &Scratch) -> Result<()> {
    const CONNECTIONS: u64 = 66_000;
    const ROOM_KIB: u64 = 64 * 1024;
    let file = scratch.file("large.jsonl");
    recording(&file, 0, CONNECTIONS)?;
    let size = fs::metadata(&file)?.len();
    ensure!(size > 50_000_000, "it has {size} bytes only");
    let members = [format!("large={}", file.display())];
    let comparison: Value = serde_json::from_slice(&compare(ROOM_KIB, "json", &members)?)?;
    let endpoints = &comparison["groups"][0]["endpoints"];
    let own = &endpoints["session-0.example:443"]["times"];
    ensure!(*own == CONNECTIONS / 11, "{endpoints}");
    ensure!(endpoints.as_object().map(serde_json::Map::len) == Some(11), "{endpoints}");
    Ok(())
}

/// As many processes and execs need less than a verdict that is computed from them would.
fn memory_does_not_grow_with_processes(scratch: &Scratch) -> Result<()> {
    const EVENTS: u64 = 200_000;
    const ROOM_KIB: u64 = 24 * 1024;
    let file = scratch.file("long.jsonl");
    long::write(&file, EVENTS)?;
    let member = format!("long={}", file.display());
    let recorded = ["--verdicts".into(), "recorded".into(), member.clone()];
    let comparison: Value = serde_json::from_slice(&compare(ROOM_KIB, "json", &recorded)?)?;
    let group = &comparison["groups"][0];
    ensure!(comparison["verdicts"] == "recorded", "{}", comparison["verdicts"]);
    ensure!(group["verdicts"] == json!({ "proven": 1 }), "{}", group["verdicts"]);
    let processes = group["processes_per_session"]["max"].as_u64().unwrap_or(0);
    ensure!(processes > EVENTS / 20, "{processes} processes");
    ensure!(
        compare(ROOM_KIB, "json", std::slice::from_ref(&member)).is_err(),
        "a computed verdict has room as well, so this limit shows nothing"
    );
    let computed: Value = serde_json::from_slice(&compare(16 * ROOM_KIB, "json", &[member])?)?;
    ensure!(computed["verdicts"] == "computed", "{}", computed["verdicts"]);
    ensure!(computed["groups"] == comparison["groups"], "{computed}");
    Ok(())
}

/// What the page shows, read back from its elements.
const SHOWN: &str = "({
    tables: [...document.querySelectorAll('section')].map((e) =>
        [e.querySelector('h2').textContent, e.querySelectorAll('tbody tr').length]),
    figures: document.querySelectorAll('figure svg[role=img]').length,
    cells: [...document.querySelectorAll('td:first-child')].map((e) => e.textContent),
    tags: [...new Set([...document.querySelectorAll('*')].map((e) => e.localName))],
    attributes: [...new Set([...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames()))],
    wider: document.documentElement.scrollWidth - window.innerWidth,
    background: getComputedStyle(document.body).backgroundColor,
})";

const TAGS: &[&str] = &[
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "main",
    "h1",
    "h2",
    "p",
    "figure",
    "figcaption",
    "svg",
    "g",
    "rect",
    "line",
    "text",
    "section",
    "div",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
];

fn page_in_a_browser(scratch: &Scratch) -> Result<()> {
    let mut browser = browser(scratch)?;
    let of = |group: &str, name: &str| format!("{group}={}", golden(name).display());
    let members: Vec<String> = [("sdk", "proven"), ("cli", "violated"), ("odd", "hostile")]
        .into_iter()
        .chain([("<b>odd</b>", "made-up")])
        .map(|(group, name)| of(group, name))
        .collect();
    let file = |end: &str| -> PathBuf { scratch.file(format!("comparison.{end}")) };
    for format in ["html", "json"] {
        let to = file(format).to_string_lossy().into_owned();
        let mut arguments = vec!["compare", "--format", format, "--output", &to];
        arguments.extend(members.iter().map(String::as_str));
        scratch.tracer(&arguments).output()?.exits(0)?;
    }
    let comparison: Value = serde_json::from_slice(&fs::read(file("json"))?)?;
    let mut endpoints = Vec::new();
    for group in comparison["groups"].as_array().context("no groups")? {
        endpoints
            .extend(group["endpoints"].as_object().into_iter().flatten().map(|(name, _)| name));
    }
    ensure!(endpoints.iter().any(|name| name.contains("<img")), "no name attacks: {endpoints:?}");
    let mut backgrounds = Vec::new();
    for width in WIDTHS {
        for dark in [false, true] {
            browser.open(&file("html"), View { width, height: 900, dark })?;
            let shown = browser.evaluate(SHOWN)?;
            let which = format!("{width} pixels wide, dark: {dark}");
            let rows = |title: &str| {
                let tables = shown["tables"].as_array().into_iter().flatten();
                tables.filter(|table| table[0] == title).find_map(|table| table[1].as_u64())
            };
            ensure!(rows("Recordings") == Some(4), "{which}: {}", shown["tables"]);
            ensure!(rows("Endpoints") == Some(endpoints.len() as u64), "{which}: {shown}");
            ensure!(rows("Classes of endpoints").is_some_and(|rows| rows >= 4), "{which}");
            ensure!(shown["figures"] == 2, "{which}: {}", shown["figures"]);
            let texts = |list: &Value| -> Vec<String> {
                let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
                texts.map(str::to_owned).collect()
            };
            let cells = texts(&shown["cells"]);
            for name in &endpoints {
                ensure!(cells.contains(name), "{which}: {name} is not shown");
            }
            for tag in texts(&shown["tags"]) {
                ensure!(TAGS.contains(&&*tag), "{which}: there is an element `{tag}`");
            }
            for attribute in texts(&shown["attributes"]) {
                let active = attribute.starts_with("on") || ["src", "href"].contains(&&*attribute);
                ensure!(!active, "{which}: there is an attribute `{attribute}`");
            }
            ensure!(shown["wider"].as_i64() <= Some(0), "{which}: {} too wide", shown["wider"]);
            sound(&browser).with_context(|| which)?;
            backgrounds.push(shown["background"].clone());
        }
    }
    ensure!(backgrounds[0] != backgrounds[1], "dark is as light: {backgrounds:?}");
    let picture = browser.screenshot()?;
    ensure!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "no picture");
    Ok(())
}
