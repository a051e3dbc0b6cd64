//! Reports of real recordings: as they were, harmless, and readable by others.
//!
//! `TRACER_BLESS=1 cargo test -p tracer --test reports` writes the expected reports anew;
//! `tests/golden/reports/record.sh` the recordings.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test: what goes wrong here fails it, and Markdown has more events than it looks at"
)]

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use pulldown_cmark::{Event, Options, Parser, Tag};
use tracer::{
    policy::{self, Verdict},
    record,
    report::{self, Detail, Paint},
    session::{
        Story,
        excerpt::{self, Limits},
    },
};

mod made_up;

struct Golden {
    name: String,
    recording: PathBuf,
    story: Story,
    verdict: Option<Verdict>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reports")
}

fn goldens() -> Vec<Golden> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut recordings: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    recordings.sort();
    assert!(recordings.len() >= 5, "{recordings:?}");
    recordings.into_iter().map(Golden::of).collect()
}

impl Golden {
    fn of(recording: PathBuf) -> Golden {
        let story = Story::of(record::read(&recording).unwrap());
        let verdict = policy::judge(&story, &story.start.policies);
        let name = recording.file_stem().unwrap().to_string_lossy().into_owned();
        Golden { name, recording, story, verdict }
    }

    fn summary(&self) -> report::Summary {
        report::Summary::of(&self.story, self.verdict.as_ref())
    }

    fn text(&self) -> String {
        report::text(&self.story, self.verdict.as_ref(), Detail::Full, Paint::OFF)
    }

    fn markdown(&self) -> String {
        let name = format!("{}.jsonl", self.name);
        report::markdown(&self.story, self.verdict.as_ref(), Path::new(&name))
    }

    fn json(&self) -> String {
        written(|out| report::json(&self.summary(), out))
    }

    fn html(&self) -> String {
        written(|out| report::html(&self.summary(), out))
    }

    /// What the page shows. The rest of it is the same for every recording.
    fn html_data(&self) -> String {
        let page = self.html();
        let (_, rest) = page.split_once("id=\"data\">").unwrap();
        rest.split_once("</script>").unwrap().0.replace("},{", "},\n{") + "\n"
    }

    fn perfetto(&self) -> String {
        written(|out| report::perfetto(&self.summary(), out))
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn reports_are_as_they_were() {
    let bless = std::env::var_os("TRACER_BLESS").is_some();
    if bless {
        made_up::write(&folder().join("no-policy.jsonl"), &folder().join("made-up.jsonl"));
    }
    let mut wrong = Vec::new();
    for golden in goldens() {
        let reports = [
            ("txt", golden.text()),
            ("md", golden.markdown()),
            ("json", golden.json()),
            ("html-data.json", golden.html_data()),
            ("perfetto.json", golden.perfetto().replace("},{", "},\n{")),
        ];
        for (end, report) in reports {
            let file = folder().join(format!("{}.{end}", golden.name));
            if bless {
                fs::write(&file, report).unwrap();
            } else if fs::read_to_string(&file).unwrap_or_default() != report {
                wrong.push(file.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "these reports are not as they were: {}. If that is meant, run `TRACER_BLESS=1 cargo test \
         -p tracer --test reports` and look at what `git diff` shows",
        wrong.join(", ")
    );
}

#[test]
fn nothing_deceptive_reaches_the_reader() {
    for golden in goldens() {
        for report in [golden.text(), golden.markdown(), golden.html()] {
            for line in report.lines() {
                assert_eq!(report::clean(line.as_bytes()), line, "{}", golden.name);
            }
        }
    }
}

/// What is left out of a long recording is said, and what it brings that is new is not left out.
#[test]
fn excerpts_have_what_is_new_and_say_what_they_lack() {
    const FEW: Limits = Limits { records: 10, processes: 2, others: 2, news: 1_000, findings: 3 };
    let mut parts = 0;
    for golden in goldens() {
        let (story, verdict) = excerpt::read(&golden.recording, FEW).unwrap();
        let (all, part) = (golden.summary(), report::Summary::of(&story, verdict.as_ref()));
        let name = &golden.name;
        assert_eq!(part.verdict, all.verdict, "{name}");
        assert_eq!(part.totals.processes, all.totals.processes, "{name}");
        assert_eq!(part.totals.execs, all.totals.execs, "{name}");
        assert_eq!(part.totals.connections, all.totals.connections, "{name}");
        assert_eq!(part.totals.established, all.totals.established, "{name}");
        assert_eq!(part.totals.datagrams, all.totals.datagrams, "{name}");
        assert_eq!(part.totals.calls, all.totals.calls, "{name}");
        assert_eq!(part.totals.api_calls, all.totals.api_calls, "{name}");
        assert_eq!(part.totals.mcp_calls, all.totals.mcp_calls, "{name}");
        assert_eq!(part.completeness, all.completeness, "{name}");
        assert_eq!(part.not_seen, all.not_seen, "{name}");
        let files = |summary: &report::Summary| -> BTreeSet<String> {
            summary.programs.iter().map(|program| program.shown.clone()).collect()
        };
        assert_eq!(files(&part), files(&all), "{name}");
        let addresses = |summary: &report::Summary| -> BTreeSet<_> {
            let connections = summary.connections.iter().map(|one| one.destination);
            connections.chain(summary.datagrams.iter().map(|one| one.destination)).collect()
        };
        assert_eq!(addresses(&part), addresses(&all), "{name}");
        let urls = |summary: &report::Summary| -> BTreeSet<String> {
            summary.calls.iter().map(|call| call.url.clone()).collect()
        };
        assert_eq!(urls(&part), urls(&all), "{name}");
        for (part, all) in part.claims.iter().zip(&all.claims) {
            let shown: Vec<&String> = part.violations.iter().map(|one| &one.lineage).collect();
            let first: Vec<&String> =
                all.violations.iter().take(FEW.findings).map(|one| &one.lineage).collect();
            assert_eq!((shown, part.ruling), (first, all.ruling), "{name}");
        }
        let sentence = part.left_out.clone().expect("all of them are longer");
        assert!(sentence.contains("This is an excerpt"), "{sentence}");
        parts += u64::from(part.processes.len() < all.processes.len());
        let text = report::text(&story, verdict.as_ref(), Detail::Full, Paint::OFF);
        let document = report::markdown(&story, verdict.as_ref(), &golden.recording);
        let page = written(|out| report::html(&part, out));
        for shown in [&text, &document, &page] {
            assert!(shown.contains(&sentence), "{name}: {shown}");
        }
        assert!(!document.contains(" listed here are all"), "{document}");

        let (story, verdict) = excerpt::read(&golden.recording, Limits::USUAL).unwrap();
        let whole = report::text(&story, verdict.as_ref(), Detail::Full, Paint::OFF);
        assert_eq!(whole, golden.text(), "{name}");
    }
    assert!(parts >= 3, "only {parts} excerpts leave out a process");
}

/// A recording can be made up by somebody, with any text where tracer writes its own.
#[test]
fn a_forged_recording_is_as_harmless() {
    const TEXTS: [&str; 14] = [
        "name",
        "kernel",
        "machine",
        "boot_id",
        "tracer",
        "sensor",
        "hook",
        "cannot_see",
        "unread",
        "how",
        "error",
        "detail",
        "policy",
        "claim",
    ];
    fn forge(value: &mut serde_json::Value, under: &str) {
        match value {
            serde_json::Value::String(text) if TEXTS.contains(&under) => {
                text.push_str("\u{1b}[2J\u{202e}</script><b>`|\n# PROVEN\n");
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(|one| forge(one, under)),
            serde_json::Value::Object(map) => map.iter_mut().for_each(|(key, one)| forge(one, key)),
            _ => {}
        }
    }
    let folder = tempfile::tempdir().unwrap();
    for golden in goldens() {
        let file = folder.path().join(format!("{}.jsonl", golden.name));
        let mut writer = record::Writer::new(Box::new(fs::File::create(&file).unwrap()));
        for line in fs::read_to_string(&golden.recording).unwrap().lines() {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            forge(&mut value, "");
            writer.write(&serde_json::from_value(value).unwrap()).unwrap();
        }
        writer.flush().unwrap();
        let forged = Golden::of(file);
        assert_eq!(forged.story.integrity, record::Integrity::Intact, "{}", forged.name);
        for report in [forged.text(), forged.markdown(), forged.html(), forged.perfetto()] {
            for line in report.lines() {
                assert_eq!(report::clean(line.as_bytes()), line, "{}", forged.name);
                assert!(!line.starts_with("# PROVEN") || golden.name == "proven", "{line}");
            }
        }
        assert!(forged.text().contains("\\u{1b}[2J"), "{} was not forged", forged.name);
        assert_eq!(forged.html().matches("</script>").count(), 2, "{}", forged.name);
        let document = forged.markdown();
        let html = Parser::new_ext(&document, Options::all())
            .find(|event| matches!(event, Event::Html(_) | Event::InlineHtml(_)));
        assert_eq!(html, None, "{}", forged.name);
    }
}

/// What Markdown makes of the document: every string of the traced programs is inert.
#[test]
fn hostile_names_mean_nothing_in_markdown() {
    for golden in goldens() {
        let document = golden.markdown();
        let mut headings = Vec::new();
        let mut in_heading = false;
        for event in Parser::new_ext(&document, Options::all()) {
            match event {
                Event::Html(text) | Event::InlineHtml(text) => {
                    panic!("{}: HTML: {text}", golden.name)
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    panic!("{}: a link: {dest_url}", golden.name)
                }
                Event::Start(Tag::Heading { .. }) => {
                    in_heading = true;
                    headings.push(String::new());
                }
                Event::End(pulldown_cmark::TagEnd::Heading(_)) => in_heading = false,
                Event::Text(text) if in_heading => headings.last_mut().unwrap().push_str(&text),
                _ => {}
            }
        }
        let summary = golden.summary();
        let has_ids = summary.calls.iter().any(|call| call.request_id.is_some());
        let kinds: BTreeSet<_> = summary.observed.iter().map(|event| event.kind).collect();
        let steps: usize = summary.credentials.iter().map(|one| one.steps.len()).sum();
        let others = [
            summary.calls.len(),
            summary.dns.len(),
            summary.credentials.len(),
            steps,
            summary.mcp_servers.len(),
        ];
        let lists = kinds.len() + others.into_iter().filter(|length| *length > 0).count();
        assert_eq!(
            headings.len(),
            10 + usize::from(has_ids) + lists,
            "{}: {headings:?}",
            golden.name
        );
        assert!(headings[0].ends_with(": "), "the command is code: {headings:?}");
        // No name has made another cell: the rows of a table have as many as its head.
        let mut cells = 0;
        for line in document.lines() {
            let bars = line.replace("\\|", "").matches('|').count();
            if !line.starts_with('|') {
                cells = 0;
            } else if cells == 0 {
                cells = bars;
            }
            assert_eq!(if line.starts_with('|') { bars } else { 0 }, cells, "{line}");
        }
    }
}

/// Ends a test that this machine cannot do. Past the runner's capture, where the tally looks.
fn skip(reason: &str) {
    std::io::stderr().write_all(format!("skipped: {reason}\n").as_bytes()).unwrap();
}

/// `None` when there is no such program.
fn output(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{command:?}: {error}"),
    }
}

/// The commands a document names, run as it says.
#[test]
fn the_commands_of_the_document_work() {
    if output(Command::new("jq").arg("--version")).is_none() {
        return skip("there is no jq on PATH");
    }
    let program = Path::new(env!("CARGO_BIN_EXE_tracer"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [program.parent().unwrap().to_path_buf()].into_iter();
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).unwrap();
    for golden in goldens() {
        let document = golden.markdown();
        let (_, commands) = document.rsplit_once("```sh\n").unwrap();
        let commands: Vec<&str> = commands.split("```").next().unwrap().lines().collect();
        let calls = golden.story.calls.len();
        assert_eq!(commands.len(), if calls > 0 { 5 } else { 4 }, "{commands:?}");
        let printed: Vec<String> = commands
            .into_iter()
            .map(|command| {
                let mut shell = Command::new("sh");
                shell.args(["-c", command]).current_dir(folder()).env("PATH", &path);
                let output = shell.output().unwrap();
                assert!(output.stderr.is_empty(), "{command}: {output:?}");
                String::from_utf8(output.stdout).unwrap()
            })
            .collect();
        if let Some(verdict) = &golden.verdict {
            let line = format!("verdict: {}", verdict.overall.name());
            assert!(printed[0].lines().any(|printed| printed == line), "{}", printed[0]);
        }
        assert!(printed[0].starts_with("integrity: every line"), "{}", printed[0]);
        assert_eq!(printed[1].lines().count() as u64, golden.story.execs, "{}", golden.name);
        let destinations: BTreeSet<_> =
            golden.story.connections.iter().map(|connection| connection.destination).collect();
        assert_eq!(printed[2].lines().count(), destinations.len(), "{}", printed[2]);
        assert_eq!(printed.get(4).map_or(0, |ids| ids.lines().count()), calls, "{printed:?}");
        for program in golden.summary().programs {
            let sha256 = program.sha256.expect("every file was read");
            assert!(printed[3].contains(&sha256), "{sha256} is not in {}", printed[3]);
        }
    }
}

/// Python's parser, which shares no code with serde_json, reads the same values.
#[test]
fn two_parsers_read_the_same() {
    const SCRIPT: &str = "\
import json, sys
text = open(sys.argv[1], encoding='utf-8', newline='\\n').read()
for value in text.split('\\n')[:-1] if sys.argv[1].endswith('l') else [text]:
    print(json.dumps(json.loads(value), ensure_ascii=True))
";
    for golden in goldens() {
        for end in ["jsonl", "json", "perfetto.json"] {
            let file = folder().join(format!("{}.{end}", golden.name));
            let mut python = Command::new("python3");
            let Some(output) = output(python.args(["-c", SCRIPT]).arg(&file)) else {
                return skip("there is no python3 on PATH");
            };
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = fs::read_to_string(&file).unwrap();
            let values = |text: &str| -> Vec<serde_json::Value> {
                let values = serde_json::Deserializer::from_str(text).into_iter();
                values.collect::<Result<_, _>>().unwrap()
            };
            let theirs = values(&String::from_utf8(output.stdout).unwrap());
            assert_eq!(theirs, values(&text), "{}", file.display());
            let lines = if end == "jsonl" { text.lines().count() } else { 1 };
            assert_eq!(theirs.len(), lines, "{}", file.display());
        }
    }
}

/// The published schemas against what is written, by a validator that shares no code with it.
#[test]
fn recordings_and_summaries_fit_their_schemas() {
    const SCRIPT: &str = "\
import json, sys
from jsonschema import Draft202012Validator as Validator
def check(schema, values, name):
    for number, value in enumerate(values, 1):
        for error in Validator(schema).iter_errors(value):
            sys.exit(f'{name}, value {number}, {error.json_path}: {error.message}')
folder, recordings = sys.argv[1], sys.argv[2:]
schemas = {name: json.load(open(f'{folder}/{name}.json')) for name in ('recording', 'summary')}
for schema in schemas.values():
    Validator.check_schema(schema)
for path in recordings:
    lines = [json.loads(line) for line in open(path, encoding='utf-8', newline='\\n')]
    check(schemas['recording'], lines, path)
    summary = json.load(open(path.removesuffix('l'), encoding='utf-8'))
    check(schemas['summary'], [summary], path)
    # Each of these is wrong, and must be found to be.
    for line in lines:
        if line['type'] == 'exec':
            for change in ({'t_ns': -1}, {'argv': {'args': [1]}}, {'chain': 'x'}, {'type': 'exek'}):
                if Validator(schemas['recording']).is_valid({**line, **change}):
                    sys.exit(f'{path}: {change} fits the schema')
            del line['process']
            if Validator(schemas['recording']).is_valid(line):
                sys.exit(f'{path}: an exec of no process fits the schema')
            break
";
    let Some(python) = python_with_jsonschema() else {
        return skip("there is no Python with jsonschema; `cargo xtask setup` makes one");
    };
    let schemas = tempfile::tempdir().unwrap();
    fs::write(schemas.path().join("recording.json"), report::recording_schema()).unwrap();
    fs::write(schemas.path().join("summary.json"), report::summary_schema()).unwrap();
    let mut validate = Command::new(python);
    validate.args(["-c", SCRIPT]).arg(schemas.path());
    validate.args(goldens().into_iter().map(|golden| golden.recording));
    let output = validate.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The one of the tools folder, else the machine's.
fn python_with_jsonschema() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    [tools.join("python/bin/python3"), "python3".into()].into_iter().find(|python| {
        output(Command::new(python).args(["-c", "import jsonschema"]))
            .is_some_and(|output| output.status.success())
    })
}
