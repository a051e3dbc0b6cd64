//! Comparisons of real recordings.

use std::path::{Path, PathBuf};

use super::*;
use crate::report::{self, Paint};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/reports/{name}.jsonl"))
}

fn group(name: &str, recordings: &[&str]) -> Group {
    let mut group = Group::new(name);
    for recording in recordings {
        group.add(recording, &Session::read(&golden(recording), Verdicts::Computed).unwrap());
    }
    group
}

#[test]
fn groups_are_counted_and_told_apart() {
    let sdk = group("sdk", &["proven", "proven"]);
    let cli = group("cli", &["violated", "no-policy"]);
    let comparison = Comparison::of(&[sdk, cli], Verdicts::Computed);
    let [sdk, cli] = &comparison.groups[..] else { panic!("two groups") };
    assert_eq!(sdk.recordings, 2);
    assert_eq!(sdk.verdicts, BTreeMap::from([("proven", 2)]));
    assert_eq!(cli.verdicts, BTreeMap::from([("no policy", 1), ("violated", 1)]));
    assert!(sdk.endpoints_in_some_sessions_only.is_empty(), "{sdk:?}");
    assert_eq!(cli.endpoints_in_some_sessions_only.len(), cli.endpoints.len());
    let aws = "/opt/demo/bin/aws".to_owned();
    assert!(comparison.programs_only_in["cli"].contains(&aws), "{comparison:?}");
    assert_eq!(cli.programs[&aws], Seen { sessions: 1, times: 1 });
    assert!(!comparison.programs_only_in["sdk"].contains(&aws));
    let per_session = &sdk.connections_per_session;
    assert!(per_session.min == per_session.max && per_session.mean() > 1.0, "{per_session:?}");
    let latency = sdk.connect_latency_ns.unwrap();
    assert!(latency.min <= latency.median && latency.median <= latency.p95, "{latency:?}");
    assert!(latency.p95 <= latency.max, "{latency:?}");
    // The mean is exact and the others are not, but they are of the same values.
    assert!(latency.min as f64 <= latency.mean * 1.001, "{latency:?}");
    assert!(latency.mean <= latency.max as f64 * 1.001 && latency.max > 1_000, "{latency:?}");
    // Of `cli` only one session has connections.
    let difference = comparison.latency_differences[0].difference.unwrap();
    assert_eq!(difference.interval, None);
}

#[test]
fn recorded_verdicts_are_what_would_be_computed() {
    for recording in ["proven", "violated", "no-policy", "hostile"] {
        let read = |verdicts| {
            let mut group = Group::new("one");
            group.add(recording, &Session::read(&golden(recording), verdicts).unwrap());
            group.summary()
        };
        assert_eq!(read(Verdicts::Recorded), read(Verdicts::Computed), "{recording}");
    }
}

#[test]
fn what_is_not_whole_counts_for_nothing_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.jsonl");
    let text = std::fs::read_to_string(golden("proven")).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    std::fs::write(&cut, lines[..lines.len() / 2].concat()).unwrap();
    let mut group = group("sdk", &["proven"]);
    group.add("cut.jsonl", &Session::read(&cut, Verdicts::Computed).unwrap());
    std::fs::write(&cut, text.replacen("proven", "proved", 1)).unwrap();
    group.add("edited.jsonl", &Session::read(&cut, Verdicts::Computed).unwrap());
    let comparison = Comparison::of(&[group], Verdicts::Computed);
    let sdk = &comparison.groups[0];
    assert_eq!((sdk.recordings, sdk.unused.len()), (1, 2));
    assert!(sdk.unused[0].reason.contains("no end record"), "{:?}", sdk.unused);
    assert!(sdk.unused[1].reason.contains("digest"), "{:?}", sdk.unused);
    for shown in [text_of(&comparison), markdown(&comparison), html(&comparison)] {
        assert!(shown.contains("cut.jsonl") && shown.contains("edited.jsonl"), "{shown}");
    }
}

fn text_of(comparison: &Comparison) -> String {
    text(comparison, Paint::OFF)
}

#[test]
fn hostile_names_are_text_everywhere() {
    let name = "<img src=x>|`\u{202e}\x1b[2J";
    let comparison =
        Comparison::of(&[group(name, &["hostile"]), group("b", &["proven"])], Verdicts::Computed);
    let page = html(&comparison);
    for tag in ["<img", "<script", "javascript:alert(1)<", "<!--<", "onerror=alert(1)>"] {
        assert!(!page.contains(tag), "{tag}");
    }
    assert!(page.contains("&lt;img src=x&gt;"), "{page}");
    assert!(page.contains("script-src") || page.contains("default-src 'none'"));
    for line in text_of(&comparison).lines().chain(page.lines()) {
        assert_eq!(report::clean(line.as_bytes()), line);
    }
    // A bar in a name makes no further cell.
    let document = markdown(&comparison);
    let mut cells = 0;
    for line in document.lines() {
        let bars = line.replace("\\|", "").matches('|').count();
        if !line.starts_with('|') {
            cells = 0;
        } else if cells == 0 {
            cells = bars;
        }
        assert_eq!(bars, cells, "{line}");
    }
}

#[test]
fn the_json_says_what_the_tables_say() {
    let comparison =
        Comparison::of(&[group("a", &["proven"]), group("b", &["violated"])], Verdicts::Computed);
    let value: serde_json::Value = serde_json::from_str(&comparison.json()).unwrap();
    assert_eq!(value["comparison"], COMPARISON);
    assert_eq!(value["groups"][0]["recordings"], 1);
    assert_eq!(value["groups"][1]["verdicts"]["violated"], 1);
    assert!(value["groups"][0]["connections_per_session"]["mean"].as_f64().unwrap() > 1.0);
    let endpoints = value["groups"][0]["endpoints"].as_object().unwrap();
    let shown = text_of(&comparison);
    assert!(!endpoints.is_empty() && endpoints.keys().all(|name| shown.contains(name)), "{shown}");
}

/// The made-up session has calls, but no sensor of them: that is written in.
#[test]
fn calls_are_counted_by_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calls.jsonl");
    let made_up = crate::record::read(&golden("made-up")).unwrap();
    let mut start = made_up.start;
    let sensor = crate::record::schema::SensorState {
        sensor: "tls".into(),
        hook: "uprobe".into(),
        cannot_see: String::new(),
        tax: String::new(),
        missing: None,
    };
    start.sensors.push(sensor);
    let out = Box::new(std::fs::File::create(&file).unwrap());
    let mut writer = crate::record::Writer::new(out);
    writer.write(&crate::record::Record::Start(Box::new(start))).unwrap();
    for event in &made_up.events {
        writer.write(event).unwrap();
    }
    let end = crate::record::Record::End(Box::new(made_up.end.unwrap()));
    writer.write(&end).unwrap();
    writer.flush().unwrap();
    let mut with = Group::new("with");
    with.add("calls.jsonl", &Session::read(&file, Verdicts::Computed).unwrap());
    let comparison = Comparison::of(&[with, group("without", &["proven"])], Verdicts::Computed);
    let [with, without] = &comparison.groups[..] else { panic!("two groups") };
    assert_eq!(without.calls, None);
    let calls = with.calls.as_ref().unwrap();
    let means = [calls.calls_per_session, calls.api_calls_per_session, calls.mcp_calls_per_session];
    assert_eq!(means.map(|spread| spread.mean()), [7.0, 2.0, 1.0]);
    assert_eq!((calls.urls.len(), calls.api_request_ids.len()), (4, 2), "{calls:?}");
    let total = calls.api_total_ns.unwrap();
    assert!((total.mean - 480.25e6).abs() < 1.0 && total.count == 2, "{total:?}");
    assert!(comparison.call_differences.is_empty(), "the other group has no calls");
    let shown = text_of(&comparison);
    assert_eq!(html(&comparison).matches("<figure>").count(), 4);
    for title in ["HTTP calls per session", "Time of calls to APIs", "URLs", "Request ids"] {
        assert!(shown.contains(title), "{title}: {shown}");
    }
}

#[test]
fn copies_of_a_recording_are_named() {
    let groups = [group("a", &["proven", "violated"]), group("b", &["proven"])];
    let comparison = Comparison::of(&groups, Verdicts::Computed);
    let [same] = &comparison.repeated[..] else { panic!("{:?}", comparison.repeated) };
    let names: Vec<&str> = same.iter().map(|one| one.group.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let shown = text_of(&comparison);
    assert!(shown.contains("proven (a), proven (b)"), "{shown}");
    assert!(!text_of(&Comparison::of(&groups[..1], Verdicts::Computed)).contains("more than once"));
}

#[test]
fn nothing_at_all_has_a_comparison_too() {
    let comparison = Comparison::of(&[Group::new("empty")], Verdicts::Computed);
    assert!(text_of(&comparison).contains("no connection was attempted"));
    assert!(html(&comparison).contains("no connections"));
    assert_eq!(comparison.groups[0].connect_latency_ns, None);
}
