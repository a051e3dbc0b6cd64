//! Reports: fresh recordings in every format, and the page in a browser.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tracer::{
    model::{Bytes, ProcessKey},
    record::{
        self, Record, Writer,
        schema::{Exit, Fork},
    },
};
use tracer_tests::{
    bench::long,
    browser::{self, Browser, Mouse, View},
};

use crate::{
    Test,
    harness::{Scratch, skip, tracer_program},
};

pub(crate) const TESTS: &[Test] = &[
    ("bytes_survive", bytes_survive),
    ("output_file", output_file),
    ("page_at_three_widths", page_at_three_widths),
    ("page_by_keyboard", page_by_keyboard),
    ("page_by_mouse", page_by_mouse),
    ("page_printed", page_printed),
    ("page_of_ten_thousand_processes", page_of_ten_thousand_processes),
    ("page_of_an_excerpt", page_of_an_excerpt),
];

pub(crate) const WIDTHS: [u32; 3] = [360, 820, 1440];

fn report(scratch: &Scratch, recording: &Path, format: &str) -> Result<Vec<u8>> {
    let recording = recording.to_string_lossy().into_owned();
    let output = scratch.tracer(&["report", "--format", format, &recording]).output()?;
    output.exits(0)?;
    Ok(output.stdout)
}

fn json(scratch: &Scratch, recording: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&report(scratch, recording, "json")?)?)
}

/// Arguments of every byte but NUL come out of a recording and of the summary as they went in.
fn bytes_survive(scratch: &Scratch) -> Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes: Vec<u8> = (1..=255).collect();
    let odd = std::ffi::OsStr::from_bytes(&bytes);
    let run = scratch.run(["/bin/true".as_ref(), odd]).record()?;
    ensure!(run.exec("true")?.argv.args[1].0 == bytes, "{:?}", run.exec("true")?.argv);
    let summary = json(scratch, &run.recording)?;
    let argument: Bytes =
        serde_json::from_value(summary["processes"][0]["execs"][0]["argv"][1].clone())?;
    ensure!(argument.0 == bytes, "{argument:?}");
    for format in ["text", "markdown", "html", "perfetto"] {
        let report = String::from_utf8(report(scratch, &run.recording, format)?)?;
        let raw = report.chars().find(|c| c.is_control() && *c != '\n');
        ensure!(raw.is_none(), "{format} has {raw:?}");
    }
    Ok(())
}

fn output_file(scratch: &Scratch) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let run = scratch.run(["true"]).record()?;
    let recording = run.recording.to_string_lossy().into_owned();
    for format in ["text", "markdown", "html", "perfetto", "json"] {
        let to = scratch.file(format);
        let to_name = to.to_string_lossy().into_owned();
        let arguments = ["report", "-f", format, "-o", &to_name, &recording];
        let output = scratch.tracer(&arguments).output()?;
        output.exits(0)?;
        ensure!(output.stdout.is_empty(), "it printed something, too");
        ensure!(fs::read(&to)? == report(scratch, &run.recording, format)?, "{format} differs");
        let mode = fs::metadata(&to)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "mode {mode:o}");
    }
    let to = scratch.file("text");
    let to_name = to.to_string_lossy().into_owned();
    fs::write(&to, "precious")?;
    let refused = scratch.tracer(&["report", "-o", &to_name, &recording]).output()?;
    refused.exits(125)?.says("--force replaces it")?;
    ensure!(fs::read(&to)? == b"precious", "it was replaced");
    scratch.tracer(&["report", "--force", "-o", &to_name, &recording]).output()?.exits(0)?;
    ensure!(fs::read(&to)? == report(scratch, &run.recording, "text")?, "it was not replaced");
    let refused = scratch.tracer(&["report", "-o", "/proc/none", &recording]).output()?;
    refused.exits(125)?.says("cannot write the report /proc/none")?;
    Ok(())
}

pub(crate) fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer/tests/golden/reports");
    folder.join(format!("{name}.jsonl"))
}

pub(crate) fn browser(scratch: &Scratch) -> Result<Browser> {
    match browser::find() {
        Some(program) => Browser::start(&program, &scratch.folder("browser")?),
        None => skip("there is no Chromium; `cargo xtask setup` unpacks one on Debian"),
    }
}

/// The page of a recording, written to the scratch folder.
fn page(scratch: &Scratch, recording: &Path) -> Result<PathBuf> {
    let name = recording.file_stem().context("no name")?.to_string_lossy().into_owned();
    let html = report(scratch, recording, "html")?;
    let file = scratch.file(format!("{name}.html"));
    fs::write(&file, html)?;
    Ok(file)
}

pub(crate) fn sound(browser: &Browser) -> Result<()> {
    ensure!(browser.problems().is_empty(), "{}", browser.problems().join("\n"));
    Ok(())
}

/// What the page shows, read back from its elements.
const SHOWN: &str = "({
    title: document.title,
    ruling: document.getElementById('ruling').textContent,
    command: document.getElementById('command').textContent,
    labels: [...document.querySelectorAll('#window .row:not(.wire):not(.call) .label')].map((e) => e.textContent),
    wires: document.querySelectorAll('#window .row.wire').length,
    calls: document.querySelectorAll('#window .row.call').length,
    endpoints: document.querySelectorAll('#endpoints tbody tr').length,
    programs: [...document.querySelectorAll('#programs tbody tr td:first-child')].map((e) => e.textContent),
    requirements: document.querySelectorAll('#completeness tbody tr').length,
    others: document.querySelectorAll('#others tbody tr').length,
    claims: document.querySelectorAll('#claim-list > li').length,
    selected: document.querySelectorAll('.row[aria-selected=true]').length,
    tags: [...new Set([...document.querySelectorAll('*')].map((e) => e.localName))],
    attributes: [...new Set([...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames()))],
    wider: document.documentElement.scrollWidth - window.innerWidth,
    timeline: document.getElementById('rows').getBoundingClientRect().width,
    bars: document.querySelectorAll('#window rect:not(.grid)').length,
    background: getComputedStyle(document.body).backgroundColor,
})";

/// Elements and attributes the page is made of; markup in a name would bring others.
const TAGS: &[&str] = &[
    "html", "head", "meta", "title", "style", "body", "a", "header", "p", "h1", "h2", "h3",
    "noscript", "main", "section", "ul", "li", "span", "div", "label", "input", "button", "output",
    "i", "svg", "rect", "aside", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td",
    "script",
];
const ATTRIBUTES_NEVER: &[&str] = &["src", "srcset", "onerror", "onload", "onclick", "srcdoc"];

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The page shows what the summary says.
fn check(shown: &Value, summary: &Value) -> Result<()> {
    let ruling = summary["verdict"].as_str().unwrap_or("traced").to_uppercase();
    let command = summary["command_line"].as_str().context("no command")?;
    ensure!(shown["title"] == format!("{ruling} {command}"), "{}", shown["title"]);
    ensure!(shown["ruling"].as_str().is_some_and(|text| text.ends_with(&ruling)), "{ruling}");
    ensure!(shown["command"] == command, "{}", shown["command"]);
    let processes = summary["processes"].as_array().context("no processes")?;
    let expected: Vec<String> = processes
        .iter()
        .map(|process| {
            let last = process["execs"].as_array().and_then(|execs| execs.last());
            let line = last.and_then(|exec| exec["command_line"].as_str());
            let mark = if process["violates"] == true { "\u{2716} " } else { "" };
            format!("{mark}{}", line.unwrap_or("(fork, no exec)"))
        })
        .collect();
    ensure!(strings(&shown["labels"]) == expected, "{} is not {expected:?}", shown["labels"]);
    let count = |list: &str| summary[list].as_array().map_or(0, Vec::len) as u64;
    for (here, there) in [
        ("wires", &["connections", "datagrams"][..]),
        ("calls", &["calls"]),
        ("endpoints", &["endpoints"]),
        ("requirements", &["completeness"]),
        ("claims", &["claims"]),
        ("others", &["calls", "credentials", "mcp_servers", "dns", "observed"]),
    ] {
        let mut all: u64 = there.iter().map(|list| count(list)).sum();
        if here == "others" {
            let timelines = summary["credentials"].as_array().into_iter().flatten();
            let steps = timelines.filter_map(|one| one["steps"].as_array());
            all += steps.map(|steps| steps.len() as u64).sum::<u64>();
        }
        ensure!(shown[here].as_u64() == Some(all), "{here}: {}", shown[here]);
    }
    let files: Vec<&str> = summary["programs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|program| program["shown"].as_str())
        .collect();
    ensure!(strings(&shown["programs"]) == files, "{}", shown["programs"]);
    ensure!(shown["selected"] == 1 && shown["bars"].as_u64() >= Some(count("processes")));
    for tag in strings(&shown["tags"]) {
        ensure!(TAGS.contains(&tag), "there is an element `{tag}`");
    }
    for attribute in strings(&shown["attributes"]) {
        ensure!(!ATTRIBUTES_NEVER.contains(&attribute), "there is an attribute `{attribute}`");
    }
    ensure!(shown["wider"].as_i64() <= Some(0), "it is wider than the window: {}", shown["wider"]);
    ensure!(shown["timeline"].as_f64() >= Some(300.0), "the timeline: {}", shown["timeline"]);
    Ok(())
}

fn page_at_three_widths(scratch: &Scratch) -> Result<()> {
    let mut browser = browser(scratch)?;
    for name in
        ["proven", "violated", "inconclusive", "handed-over", "no-policy", "hostile", "made-up"]
    {
        let recording = golden(name);
        let (page, summary) = (page(scratch, &recording)?, json(scratch, &recording)?);
        let mut backgrounds = Vec::new();
        for width in WIDTHS {
            for dark in [false, true] {
                browser.open(&page, View { width, height: 900, dark })?;
                let shown = browser.evaluate(SHOWN)?;
                let which = || format!("{name}, {width} pixels wide, dark: {dark}");
                check(&shown, &summary).with_context(which)?;
                sound(&browser).with_context(which)?;
                backgrounds.push(shown["background"].clone());
            }
        }
        ensure!(backgrounds[0] != backgrounds[1], "dark is as light: {backgrounds:?}");
        let picture = browser.screenshot()?;
        ensure!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "no picture");
    }
    // The policy in the page's head is in force: what gets into the page all the same does not run.
    let refused = browser.evaluate("try { eval('1') } catch (error) { error.name }")?;
    ensure!(refused == "EvalError", "eval gave {refused}");
    let ran = browser.evaluate(
        "(() => { const script = document.createElement('script');
           script.textContent = 'window.ran = true';
           document.body.append(script);
           return window.ran === true; })()",
    )?;
    ensure!(ran == false, "another script ran");
    ensure!(!browser.problems().is_empty(), "the browser said nothing about it");
    Ok(())
}

/// Text that depends on where the keys have led.
fn state(browser: &mut Browser) -> Result<[String; 4]> {
    let state = browser.evaluate(
        "[document.getElementById('rows').getAttribute('aria-activedescendant'),
          document.getElementById('shown').textContent,
          [...document.getElementById('ticks').children].map((e) => e.textContent + e.style.left).join(),
          document.activeElement.id]",
    )?;
    let parts: Vec<String> = strings(&state).into_iter().map(str::to_owned).collect();
    parts.try_into().map_err(|parts| anyhow::anyhow!("{parts:?}"))
}

fn page_by_keyboard(scratch: &Scratch) -> Result<()> {
    let mut browser = browser(scratch)?;
    let page = page(scratch, &golden("violated"))?;
    browser.open(&page, View { width: 1200, height: 900, dark: false })?;
    browser.evaluate("document.getElementById('rows').focus()")?;
    let [violating, all, whole, _] = state(&mut browser)?;
    ensure!(violating != "row-0", "the violation is not selected: {violating}");
    for (key, changes) in [
        ("Home", [true, false, false, false]),
        ("ArrowDown", [true, false, false, false]),
        ("ArrowUp", [true, false, false, false]),
        // Closes and opens the root.
        ("ArrowLeft", [false, true, false, false]),
        ("ArrowRight", [false, true, false, false]),
        ("+", [false, false, true, false]),
        (".", [false, false, true, false]),
        ("0", [false, false, true, false]),
        ("End", [true, false, false, false]),
        ("/", [false, false, false, true]),
        // Now in the filter.
        ("g", [false, true, false, false]),
        ("r", [true, true, false, false]),
    ] {
        let before = state(&mut browser)?;
        browser.key(key)?;
        let after = state(&mut browser)?;
        for (part, expected) in changes.iter().enumerate() {
            let changed = before[part] != after[part];
            ensure!(changed == *expected, "{key}: {} became {}", before[part], after[part]);
        }
        if key == "0" {
            ensure!(after[1] == all && after[2] == whole, "{after:?} is not {all}, {whole}");
        }
    }
    // `gr` is in grep's command line, and the root is shown above it.
    let labels = browser.evaluate(SHOWN)?["labels"].clone();
    ensure!(strings(&labels).len() == 2 && strings(&labels)[1].starts_with("grep "), "{labels}");
    let details = "document.getElementById('details').textContent";
    browser.evaluate("document.querySelector('#claim-list button').click()")?;
    let (details, state) = (browser.evaluate(details)?, state(&mut browser)?);
    ensure!(state[0] == violating && state[1] == all && state[3] == "rows", "{state:?}");
    ensure!(details.as_str().is_some_and(|text| text.contains("/opt/demo/bin/aws")), "{details}");
    sound(&browser)
}

fn page_by_mouse(scratch: &Scratch) -> Result<()> {
    let mut browser = browser(scratch)?;
    let page = page(scratch, &golden("violated"))?;
    browser.open(&page, View { width: 1200, height: 1000, dark: false })?;
    let tip = "(() => { const tip = document.getElementById('tip');
                 return tip.hidden ? '' : tip.textContent; })()";
    ensure!(browser.evaluate(tip)? == "", "there is a tip before anything is pointed at");
    browser.mouse("#row-0 .lane", Mouse::Hovers)?;
    let said = browser.evaluate(tip)?;
    let parts = ["node tests/fixtures/agent/agent.mjs", "exit 0", " to "];
    ensure!(
        parts.iter().all(|part| said.as_str().is_some_and(|said| said.contains(part))),
        "{said}"
    );
    browser.mouse("h1", Mouse::Hovers)?;
    ensure!(browser.evaluate(tip)? == "", "the tip stays");

    browser.mouse("#row-0 .label", Mouse::Clicks)?;
    let before = state(&mut browser)?;
    ensure!(before[0] == "row-0", "{before:?}");
    browser.mouse("#row-0 .twig", Mouse::Clicks)?;
    let after = state(&mut browser)?;
    ensure!(before[1] != after[1], "it does not close: {after:?}");
    browser.mouse("#row-0 .lane", Mouse::ZoomsIn)?;
    let zoomed = state(&mut browser)?;
    ensure!(zoomed[2] != after[2], "it does not zoom: {zoomed:?}");
    browser.mouse("#row-0 .lane", Mouse::DragsLeft(60))?;
    let dragged = state(&mut browser)?;
    ensure!(dragged[2] != zoomed[2], "it is not moved: {dragged:?}");
    browser.mouse("#zoom-all", Mouse::Clicks)?;
    let whole = state(&mut browser)?;
    ensure!(whole[2] == before[2], "{whole:?} is not all of {before:?}");
    sound(&browser)
}

fn page_printed(scratch: &Scratch) -> Result<()> {
    let mut browser = browser(scratch)?;
    let recording = golden("hostile");
    let (page, summary) = (page(scratch, &recording)?, json(scratch, &recording)?);
    browser.open(&page, View { width: 900, height: 300, dark: false })?;
    // What is printed is more than what was in view.
    browser.evaluate(
        "addEventListener('beforeprint', () => setTimeout(() => {}));
         addEventListener('beforeprint', () => (window.printed = document.querySelectorAll('.row').length))",
    )?;
    let pdf = browser.pdf()?;
    ensure!(pdf.starts_with(b"%PDF-") && pdf.len() > 10_000, "{} bytes", pdf.len());
    let printed = browser.evaluate("window.printed")?;
    let processes = summary["totals"]["processes"].as_u64();
    ensure!(printed.as_u64() >= processes, "{printed} of {processes:?} rows were printed");
    sound(&browser)
}

/// As if a process had been cloned ten thousand times: only the chain is recomputed.
fn crowd(scratch: &Scratch) -> Result<PathBuf> {
    const MORE: u32 = 10_000;
    let recording = record::read(&golden("no-policy"))?;
    let file = scratch.file("crowd.jsonl");
    let mut writer = Writer::new(Box::new(fs::File::create(&file)?));
    writer.write(&Record::Start(Box::new(recording.start)))?;
    let mut exec = None;
    for event in recording.events {
        if let Record::Exec(first) = &event {
            exec.get_or_insert_with(|| first.clone());
        }
        writer.write(&event)?;
    }
    let exec = exec.context("no exec")?;
    for number in 1..=MORE {
        let t_ns = exec.t_ns + u64::from(number) * 1_000;
        let child = ProcessKey { pid: 1_000_000 + number, start_ns: t_ns };
        let argument = Bytes::from(format!("number-{number}").as_str());
        let mut own = exec.clone();
        own.t_ns = t_ns + 100;
        own.process = child;
        own.argv.args.push(argument);
        writer.write(&Record::Fork(Fork {
            t_ns,
            process: exec.process,
            child,
            child_ns_pid: None,
            child_parent_pid: None,
            untracked: false,
            unread: Vec::new(),
        }))?;
        writer.write(&Record::Exec(own))?;
        writer.write(&Record::Exit(Exit {
            t_ns: t_ns + 900,
            process: child,
            code: Some(0),
            signal: None,
            duration_ns: 900,
            execs: Some(1),
            unread: Vec::new(),
        }))?;
    }
    let end = recording.end.context("no end")?;
    writer.write(&Record::End(Box::new(end)))?;
    writer.flush()?;
    Ok(file)
}

fn page_of_ten_thousand_processes(scratch: &Scratch) -> Result<()> {
    let mut browser = browser(scratch)?;
    let page = page(scratch, &crowd(scratch)?)?;
    browser.open(&page, View { width: 1200, height: 900, dark: false })?;
    let rows = "document.querySelectorAll('.row').length";
    let first = browser.evaluate(rows)?;
    ensure!(first.as_u64().is_some_and(|rows| (10..200).contains(&rows)), "{first} rows are made");
    browser.evaluate("document.getElementById('rows').focus()")?;
    browser.key("End")?;
    let labels = browser.evaluate(SHOWN)?["labels"].clone();
    let last = strings(&labels).last().copied().unwrap_or_default().to_owned();
    ensure!(last.ends_with("number-10000"), "the last row is {last}");
    let in_view = browser.evaluate(
        "(() => { const box = document.getElementById('rows').getBoundingClientRect();
           const row = document.querySelector('.row.chosen').getBoundingClientRect();
           return row.top >= box.top && row.bottom <= box.bottom + 1; })()",
    )?;
    ensure!(in_view == true, "the selected row is not in view");
    browser.key("/")?;
    for digit in "number-7777".chars() {
        browser.key(&digit.to_string())?;
    }
    let shown = browser.evaluate("document.getElementById('shown').textContent")?;
    ensure!(shown.as_str().is_some_and(|text| text.starts_with("2 of 10003 ")), "{shown}");
    sound(&browser)
}

/// Of a recording that nobody could read: in less memory than its events would take, and it says what it
/// leaves out.
fn page_of_an_excerpt(scratch: &Scratch) -> Result<()> {
    const EVENTS: u64 = 300_000;
    const ROOM_KIB: u64 = 112 * 1024;
    let recording = scratch.file("long.jsonl");
    long::write(&recording, EVENTS)?;
    let shown = recording.to_string_lossy().into_owned();
    let limited = |arguments: &[&str]| -> Result<std::process::Output> {
        let mut shell = std::process::Command::new("sh");
        let limit = format!("ulimit -d {ROOM_KIB} && exec \"$@\"");
        shell.args(["-c", &limit, "sh"]).arg(tracer_program()).arg("report").args(arguments);
        Ok(shell.output()?)
    };
    let output = limited(&["-f", "html", &shown])?;
    ensure!(output.status.success(), "{output:?}");
    let page = scratch.file("long.html");
    fs::write(&page, &output.stdout)?;
    ensure!(output.stdout.len() < 10_000_000, "the page has {} bytes", output.stdout.len());
    let everything = limited(&["--all", &shown])?;
    ensure!(
        !everything.status.success(),
        "there is room for everything, so this limit shows nothing"
    );
    let text = String::from_utf8(limited(&[&shown])?.stdout)?;
    ensure!(text.starts_with("PROVEN") && text.lines().count() < 30_000, "{text:.1000}");

    let mut browser = browser(scratch)?;
    browser.open(&page, View { width: 1200, height: 900, dark: false })?;
    let note = browser.evaluate("document.getElementById('left-out').textContent")?;
    let note = note.as_str().unwrap_or_default();
    ensure!(note.starts_with("This is an excerpt") && text.contains(note), "{note}");
    let rows = browser.evaluate("document.getElementById('shown').textContent")?;
    ensure!(rows.as_str().is_some_and(|rows| rows.ends_with(" rows")), "{rows}");
    sound(&browser)
}
