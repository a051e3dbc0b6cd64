//! The process tree as lines.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    clean::command_line,
    paint::Paint,
    summary::Summary,
    text::Detail,
    words::{duration, end_of},
};
use crate::{
    model::ProcessKey,
    policy::Verdict,
    record::schema::Exec,
    session::{Process, Story},
};

/// Processes with an exec that violates a claim.
pub(super) fn marked(verdict: Option<&Verdict>) -> BTreeSet<ProcessKey> {
    let claims = verdict.iter().flat_map(|verdict| &verdict.claims);
    claims.flat_map(|claim| &claim.violations).map(|violation| violation.process).collect()
}

/// Under each process, what it connected to: one line for each endpoint.
pub(super) fn notes(summary: &Summary, detail: Detail) -> BTreeMap<ProcessKey, Vec<String>> {
    const SUMMARY_LINES: usize = 8;
    let limit = match detail {
        Detail::Summary => SUMMARY_LINES,
        Detail::Full => usize::MAX,
    };
    // By process and endpoint: how many came to which outcome.
    let mut all: BTreeMap<usize, BTreeMap<usize, BTreeMap<&str, u64>>> = BTreeMap::new();
    let connections =
        summary.connections.iter().map(|one| (one.process, one.endpoint, &one.outcome));
    let datagrams = summary.datagrams.iter().map(|one| (one.process, one.endpoint, &one.outcome));
    for (process, endpoint, outcome) in connections.chain(datagrams) {
        let of_endpoint = all.entry(process).or_default().entry(endpoint).or_default();
        *of_endpoint.entry(outcome).or_default() += 1;
    }
    let lines = |endpoints: BTreeMap<usize, BTreeMap<&str, u64>>| {
        let hidden = endpoints.len().saturating_sub(limit);
        let shown = endpoints.into_iter().take(limit).filter_map(|(place, outcomes)| {
            Some(format!("→ {}{}", summary.endpoints.get(place)?.full_label(), times(&outcomes)))
        });
        let rest = (hidden > 0).then(|| format!("→ ... and {hidden} more"));
        shown.chain(rest).collect()
    };
    all.into_iter()
        .filter_map(|(process, endpoints)| {
            let process = summary.processes.get(process)?;
            let key = ProcessKey { pid: process.pid, start_ns: process.start_ns };
            Some((key, lines(endpoints)))
        })
        .collect()
}

/// ` 3 x, 1 x ECONNREFUSED`: what went well is not named.
fn times(outcomes: &BTreeMap<&str, u64>) -> String {
    let mut text = String::new();
    let (well, other): (Vec<_>, Vec<_>) =
        outcomes.iter().partition(|(outcome, _)| ["established", "sent"].contains(outcome));
    let well: u64 = well.into_iter().map(|(_, times)| times).sum();
    if well > 1 || (well > 0 && !other.is_empty()) {
        text = format!(" {well} x");
    }
    for (outcome, times) in other {
        let comma = if text.is_empty() { "" } else { "," };
        let times = if *times > 1 { format!("{times} x ") } else { String::new() };
        text.push_str(&format!("{comma} {times}{outcome}"));
    }
    text
}

pub(super) struct Tree<'a> {
    story: &'a Story,
    paint: Paint,
    /// Processes that violate a claim.
    marked: BTreeSet<ProcessKey>,
    /// Lines to be shown under processes.
    notes: BTreeMap<ProcessKey, Vec<String>>,
    lines: Vec<String>,
    /// Lines allowed; processes beyond it are counted.
    limit: usize,
    hidden: usize,
}

impl<'a> Tree<'a> {
    pub(super) fn lines(
        story: &'a Story,
        paint: Paint,
        marked: BTreeSet<ProcessKey>,
        notes: BTreeMap<ProcessKey, Vec<String>>,
        limit: usize,
    ) -> Vec<String> {
        let mut tree = Tree { story, paint, marked, notes, lines: Vec::new(), limit, hidden: 0 };
        for root in story.roots() {
            tree.draw(*root);
        }
        if tree.hidden > 0 {
            tree.lines.push(format!("  ... and {} more", tree.hidden));
        }
        tree.lines
    }

    /// Depth first with a stack of its own: a chain of ten thousand forks must not overflow ours,
    /// nor become lines of ten thousand branches.
    fn draw(&mut self, root: ProcessKey) {
        const DRAWN_DEEP: usize = 60;
        let mut stack = vec![(root, String::new(), String::new(), 1, 0)];
        while let Some((key, lead, below, count, depth)) = stack.pop() {
            let Some(process) = self.story.processes.get(&key) else { continue };
            let groups = self.groups(process);
            let trunk = if groups.is_empty() { "   " } else { "│  " };
            self.line(process, &lead, &format!("{below}{trunk}"), count);
            let depth = depth + 1;
            let last = groups.len().saturating_sub(1);
            for (index, (child, count)) in groups.into_iter().enumerate().rev() {
                let (branch, trunk) =
                    if index == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                let (lead, below) = if depth < DRAWN_DEEP {
                    (format!("{below}{branch}"), format!("{below}{trunk}"))
                } else {
                    (format!("{below}({depth} deep) "), below.clone())
                };
                stack.push((child, lead, below, count, depth));
            }
        }
    }

    /// Children, with runs of childless ones that look the same as one.
    fn groups(&self, process: &Process) -> Vec<(ProcessKey, usize)> {
        let mut groups: Vec<(ProcessKey, usize, Option<String>)> = Vec::new();
        for child in &process.children {
            let look = self.story.processes.get(child).and_then(|child| {
                let plain = child.children.is_empty() && !self.marked.contains(&child.key);
                plain.then(|| self.look(child))
            });
            match groups.last_mut() {
                Some((_, count, Some(before))) if Some(&*before) == look.as_ref() => *count += 1,
                _ => groups.push((*child, 1, look)),
            }
        }
        groups.into_iter().map(|(key, count, _)| (key, count)).collect()
    }

    /// Programs and outcome, without what differs between equal processes.
    fn look(&self, process: &Process) -> String {
        let outcome = process.exit.as_ref().map_or("running".into(), end_of);
        let notes = self.notes.get(&process.key).into_iter().flatten();
        let notes: String = notes.map(|note| format!("  {note}")).collect();
        format!("{}  {outcome}{notes}", self.programs(process))
    }

    fn programs(&self, process: &Process) -> String {
        if process.execs.is_empty() {
            return self.paint.dim("(fork, no exec)");
        }
        let lines: Vec<String> = process.execs.iter().map(|exec| program(exec)).collect();
        lines.join(" => ")
    }

    fn line(&mut self, process: &Process, lead: &str, below: &str, count: usize) {
        if self.lines.len() >= self.limit {
            self.hidden += count;
            return;
        }
        let times = if count > 1 { format!(" x{count}") } else { String::new() };
        let took = process.exit.as_ref().map(|exit| duration(exit.duration_ns)).unwrap_or_default();
        let note = match &process.exit {
            Some(exit) => format!("{} {took}", end_of(exit)),
            None if self.story.end.is_none() => "no exit is recorded".into(),
            None => "still running".into(),
        };
        let programs = self.programs(process);
        let marked = self.marked.contains(&process.key);
        let programs = if marked { self.paint.bad(&programs) } else { programs };
        let mark = if marked { self.paint.bad(" <== violates") } else { String::new() };
        let own = process.namespace_pid();
        let own = own.map(|pid| format!(", {pid} in its namespace")).unwrap_or_default();
        let pid = self.paint.dim(&format!("[{}{own}]", process.key.pid));
        let note = self.paint.dim(&note);
        self.lines.push(format!("  {lead}{programs}{times} {pid} {note}{mark}"));
        let notes = self.notes.get(&process.key).into_iter().flatten();
        self.lines.extend(notes.map(|note| format!("  {below}{note}")));
    }
}

/// What was executed, as typed; with the file when its name is another.
fn program(exec: &Exec) -> String {
    let mut line = command_line(&exec.argv.args);
    if !exec.argv.complete {
        line.push_str(" (argv incomplete)");
    }
    let file = exec.script.as_ref().map_or_else(
        || exec.file.as_ref().and_then(|file| file.path.as_ref()),
        |script| script.file.as_ref().map(|file| &file.path),
    );
    let names_it = |file: &crate::model::Bytes| {
        exec.argv.args.iter().take(3).any(|arg| arg.base_name() == file.base_name())
    };
    if exec.memfd {
        line.push_str(" (memory file)");
    } else if exec.unlinked {
        line.push_str(" (deleted file)");
    } else if let Some(file) = file.filter(|file| !names_it(file)) {
        line = format!("{line} ({})", super::clean(&file.0));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::{load, test_start},
        record::{
            Record,
            schema::{Fork, Root},
        },
    };

    #[test]
    fn a_long_chain_has_short_lines() {
        const LONG: u32 = 10_000;
        let key = |pid| ProcessKey { pid, start_ns: 1 };
        let mut story = Story::new(test_start(&load("no-aws-cli").unwrap()));
        story.add(Record::Root(Root {
            t_ns: 1,
            process: key(1),
            ns_pid: None,
            parent_pid: None,
            unread: Vec::new(),
        }));
        for pid in 1..LONG {
            story.add(Record::Fork(Fork {
                t_ns: 2,
                process: key(pid),
                child: key(pid + 1),
                child_ns_pid: None,
                child_parent_pid: None,
                untracked: false,
                unread: Vec::new(),
            }));
        }
        let lines = Tree::lines(&story, Paint::OFF, BTreeSet::new(), BTreeMap::new(), usize::MAX);
        assert_eq!(lines.len(), LONG as usize);
        assert!(lines.iter().all(|line| line.chars().count() < 300), "{:?}", lines.last());
        assert!(lines[LONG as usize - 1].contains("(9999 deep)"), "{:?}", lines.last());
    }
}
