//! Processes and what they executed.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Builder, COMMAND_LINE_MAX};
use crate::{
    model::{Bytes, FileVersion, ProcessKey},
    record::schema::Exec,
    report::clean::{clean, command_line_of},
    session::{Process, Story},
};

/// A file that was executed: of a script, the script and not its interpreter.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProgramSummary {
    pub path: Option<Bytes>,
    /// The path, fit to be shown.
    pub shown: String,
    /// Hexadecimal.
    pub sha256: Option<String>,
    /// Why there is none.
    pub unread: Option<String>,
    pub execs: u64,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProcessSummary {
    pub pid: u32,
    /// In its own pid namespace, as its container sees it, where that is another number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_pid: Option<u32>,
    /// `CLOCK_BOOTTIME`; with the pid it names the process in the recording.
    pub start_ns: u64,
    /// Place in this list.
    pub parent: Option<usize>,
    /// How deep in the tree.
    pub depth: u32,
    pub born_at_ns: u64,
    /// None for one that was not seen to exit.
    pub exited_at_ns: Option<u64>,
    pub exit_code: Option<u8>,
    pub exit_signal: Option<u8>,
    /// Something it did violates a claim.
    pub violates: bool,
    pub execs: Vec<ExecSummary>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExecSummary {
    pub at_ns: u64,
    pub argv: Vec<Bytes>,
    pub argv_complete: bool,
    /// The argv as one would type it, fit to be shown.
    pub command_line: String,
    pub filename: Option<Bytes>,
    /// The file that was executed: the interpreter, when there is a script.
    pub path: Option<Bytes>,
    pub sha256: Option<String>,
    pub script: Option<Bytes>,
    pub script_sha256: Option<String>,
    /// Place in `programs`.
    pub program: Option<usize>,
    pub cwd: Option<Bytes>,
    pub uid: Option<u32>,
    /// An anonymous memory file.
    pub memfd: bool,
    /// The file had no name in any directory.
    pub unlinked: bool,
    pub violates: bool,
    /// Fields that the kernel could not read.
    pub unread: Vec<String>,
}

impl ExecSummary {
    /// The name it was executed under, without folders; fit to be shown.
    pub(in crate::report) fn name(&self) -> String {
        let name = self.argv.first().filter(|word| !word.is_empty()).or(self.filename.as_ref());
        name.map_or("?".into(), |name| clean(name.base_name()))
    }
}

impl ProcessSummary {
    /// What it last ran, without folders; fit to be shown.
    pub(in crate::report) fn name(&self) -> String {
        self.execs.last().map_or_else(|| "(fork)".into(), ExecSummary::name)
    }

    pub(in crate::report) fn label(&self) -> String {
        format!("{} (pid {})", self.name(), self.pid)
    }
}

impl Builder<'_> {
    pub(super) fn process(&mut self, process: &Process, depth: u32) -> ProcessSummary {
        let execs: Vec<ExecSummary> = process.execs.iter().map(|exec| self.exec(exec)).collect();
        let exit = process.exit.as_ref();
        ProcessSummary {
            pid: process.key.pid,
            namespace_pid: process.namespace_pid(),
            start_ns: process.key.start_ns,
            parent: process.creator.and_then(|key| self.places.get(&key).copied()),
            depth,
            born_at_ns: self.at(process.born_ns),
            exited_at_ns: exit.map(|exit| self.at(exit.t_ns)),
            exit_code: exit.and_then(|exit| exit.code),
            exit_signal: exit.and_then(|exit| exit.signal),
            violates: self.violating.range((process.key, 0)..=(process.key, u64::MAX)).count() > 0,
            execs,
        }
    }

    fn exec(&mut self, exec: &Exec) -> ExecSummary {
        let story = self.story;
        let sha256 = |version: Option<FileVersion>| {
            version.and_then(|version| story.content(&version).ok()).map(str::to_owned)
        };
        let file = exec.file.as_ref();
        let script = exec.script.as_ref().and_then(|script| script.file.as_ref());
        ExecSummary {
            at_ns: self.at(exec.t_ns),
            argv: exec.argv.args.clone(),
            argv_complete: exec.argv.complete,
            command_line: command_line_of(&exec.argv.args, COMMAND_LINE_MAX),
            filename: exec.filename.clone(),
            path: file.and_then(|file| file.path.clone()),
            sha256: sha256(file.map(|file| file.version())),
            script: script.map(|script| script.path.clone()),
            script_sha256: sha256(script.map(|script| script.version())),
            program: self.program(exec),
            cwd: exec.cwd.clone(),
            uid: exec.credentials.map(|credentials| credentials.uid),
            memfd: exec.memfd,
            unlinked: exec.unlinked,
            violates: self.violating.contains(&(exec.process, exec.t_ns)),
            unread: exec.unread.clone(),
        }
    }

    /// Counts an exec of its program and gives the program's place.
    fn program(&mut self, exec: &Exec) -> Option<usize> {
        let (version, path) = match &exec.script {
            Some(script) => {
                let file = script.file.as_ref()?;
                (file.version(), Some(file.path.clone()))
            }
            None => {
                let file = exec.file.as_ref()?;
                (file.version(), file.path.clone())
            }
        };
        let place = match self.program_places.get(&(version, path.clone())) {
            Some(place) => *place,
            None => {
                let content = self.story.content(&version);
                let shown = path.as_ref().map_or("(no path)".into(), |path: &Bytes| clean(&path.0));
                self.programs.push(ProgramSummary {
                    shown,
                    path: path.clone(),
                    sha256: content.ok().map(str::to_owned),
                    unread: content.err().map(|why| clean(why.as_bytes())),
                    execs: 0,
                });
                self.program_places.insert((version, path), self.programs.len() - 1);
                self.programs.len() - 1
            }
        };
        self.programs.get_mut(place)?.execs += 1;
        Some(place)
    }
}

/// Each process before its children, with a stack of its own: a chain of ten thousand forks must
/// not overflow ours.
pub(super) fn in_tree_order(story: &Story) -> Vec<(&Process, u32)> {
    let mut order = Vec::with_capacity(story.processes.len());
    let mut stack: Vec<(ProcessKey, u32)> =
        story.roots().iter().rev().map(|root| (*root, 0)).collect();
    while let Some((key, depth)) = stack.pop() {
        let Some(process) = story.processes.get(&key) else { continue };
        order.push((process, depth));
        stack.extend(process.children.iter().rev().map(|child| (*child, depth + 1)));
    }
    order
}
