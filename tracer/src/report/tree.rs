//! The process tree as lines.

use std::collections::BTreeSet;

use super::{
    clean::command_line,
    paint::Paint,
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

pub(super) struct Tree<'a> {
    story: &'a Story,
    paint: Paint,
    /// Processes that violate a claim.
    marked: BTreeSet<ProcessKey>,
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
        limit: usize,
    ) -> Vec<String> {
        let mut tree = Tree { story, paint, marked, lines: Vec::new(), limit, hidden: 0 };
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
            self.line(process, &lead, count);
            let depth = depth + 1;
            let groups = self.groups(process);
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
        format!("{}  {outcome}", self.programs(process))
    }

    fn programs(&self, process: &Process) -> String {
        if process.execs.is_empty() {
            return self.paint.dim("(fork, no exec)");
        }
        let lines: Vec<String> = process.execs.iter().map(program).collect();
        lines.join(" => ")
    }

    fn line(&mut self, process: &Process, lead: &str, count: usize) {
        if self.lines.len() >= self.limit {
            self.hidden += count;
            return;
        }
        let times = if count > 1 { format!(" x{count}") } else { String::new() };
        let took = process.exit.as_ref().map(|exit| duration(exit.duration_ns)).unwrap_or_default();
        let note = match &process.exit {
            Some(exit) => format!("{} {took}", end_of(exit)),
            None => "still running".into(),
        };
        let programs = self.programs(process);
        let marked = self.marked.contains(&process.key);
        let programs = if marked { self.paint.bad(&programs) } else { programs };
        let mark = if marked { self.paint.bad(" <== violates") } else { String::new() };
        let pid = self.paint.dim(&format!("[{}]", process.key.pid));
        let note = self.paint.dim(&note);
        self.lines.push(format!("  {lead}{programs}{times} {pid} {note}{mark}"));
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
        let lines = Tree::lines(&story, Paint::OFF, BTreeSet::new(), usize::MAX);
        assert_eq!(lines.len(), LONG as usize);
        assert!(lines.iter().all(|line| line.chars().count() < 300), "{:?}", lines.last());
        assert!(lines[LONG as usize - 1].contains("(9999 deep)"), "{:?}", lines.last());
    }
}
