//! A traced tree as lines of text, free of what changes from run to run.

use std::path::Path;

use tracer::{
    model::ProcessKey,
    report::clean,
    session::{Process, Story},
};

/// One line a process, children below and further in than the process that created them, in the
/// order of their text: `ARGV => ARGV ... : exit CODE`. `(fork)` is one that executed nothing.
pub(super) fn lines(story: &Story, scratch: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for root in story.roots() {
        lines.extend(subtree(story, *root, scratch));
    }
    lines
}

fn subtree(story: &Story, key: ProcessKey, scratch: &Path) -> Vec<String> {
    let Some(process) = story.processes.get(&key) else { return Vec::new() };
    let mut below: Vec<Vec<String>> =
        process.children.iter().map(|child| subtree(story, *child, scratch)).collect();
    below.sort();
    let indented = below.into_iter().flatten().map(|line| format!("  {line}"));
    [line(process, scratch)].into_iter().chain(indented).collect()
}

fn line(process: &Process, scratch: &Path) -> String {
    let execs: Vec<String> = process
        .execs
        .iter()
        .map(|exec| {
            let words: Vec<String> = exec.argv.args.iter().map(|word| clean(&word.0)).collect();
            words.join(" ")
        })
        .collect();
    let programs = if execs.is_empty() { "(fork)".into() } else { execs.join(" => ") };
    let end = match process.exit.as_ref().map(|exit| (exit.code, exit.signal)) {
        Some((Some(code), _)) => format!("exit {code}"),
        Some((None, Some(signal))) => format!("signal {signal}"),
        Some((None, None)) => "exit unread".into(),
        None => "running".into(),
    };
    format!("{programs} : {end}").replace(&*scratch.to_string_lossy(), "$DIR")
}
