//! Processes: from the fork to the exit, and what they executed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Bytes, Device, FileId, FileVersion, ProcessKey};

use super::Stdio;

/// What a version of an executed or known file contains. Comes once per version, some time after
/// the exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Content {
    #[serde(flatten)]
    pub file: FileId,
    pub size_bytes: u64,
    pub ctime_ns: i64,
    /// Hexadecimal.
    pub sha256: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

impl Content {
    pub fn version(&self) -> FileVersion {
        FileVersion { id: self.file, size_bytes: self.size_bytes, ctime_ns: self.ctime_ns }
    }
}

/// A process at the root of the traced tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Root {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub ns_pid: Option<u32>,
    pub parent_pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// `process` created `child`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fork {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub child: ProcessKey,
    pub child_ns_pid: Option<u32>,
    /// What `getppid` gives the child, when that is not `process` (`CLONE_PARENT`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_parent_pid: Option<u32>,
    /// The kernel had no room to track the child.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untracked: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// `process` executed a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exec {
    pub t_ns: u64,
    pub process: ProcessKey,
    /// Thread that called exec, when it was not the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<u32>,
    /// As the caller spelled it.
    pub filename: Option<Bytes>,
    pub argv: Argv,
    pub cwd: Option<Bytes>,
    /// The file the kernel executed: the interpreter, when `script` is there.
    pub file: Option<ExecutedFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memfd: bool,
    /// The file had no name in any directory when it was executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlinked: bool,
    /// The kernel stops counting this process for the witness here (setuid or unreadable program).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness_detached: bool,
    /// The process ran this already when it was found. `argv` is what its memory says now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
    /// A rule forbids it: it was killed before its first instruction.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub killed: bool,
    pub credentials: Option<Credentials>,
    /// Environment variables that are set to something, of those that the first line names as
    /// sources of credentials. Their values are never read. Absent when they were not looked for;
    /// with `environment` in `unread`, more may have been set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdio: Option<Stdio>,
    pub cgroup_id: u64,
    pub ns_pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_ns_inum: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Argv {
    pub args: Vec<Bytes>,
    /// Bytes the kernel had, NULs included.
    pub total_bytes: u64,
    /// False when `args` is only the beginning.
    pub complete: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecutedFile {
    /// From the kernel's own directory entries at the moment of exec.
    pub path: Option<Bytes>,
    /// `path` lacks its beginning.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path_cut: bool,
    pub device: Device,
    pub inode: u64,
    pub size_bytes: u64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub mode: u32,
}

impl ExecutedFile {
    pub fn id(&self) -> FileId {
        FileId { device: self.device, inode: self.inode }
    }

    pub fn version(&self) -> FileVersion {
        FileVersion { id: self.id(), size_bytes: self.size_bytes, ctime_ns: self.ctime_ns }
    }
}

/// The `#!` file that was executed through an interpreter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Script {
    /// The interpreter as the script names it.
    pub interpreter: Option<Bytes>,
    /// The script's own file, from the kernel.
    pub file: Option<ScriptFile>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScriptFile {
    #[serde(flatten)]
    pub id: FileId,
    pub size_bytes: u64,
    pub ctime_ns: i64,
    pub path: Bytes,
}

impl ScriptFile {
    pub fn version(&self) -> FileVersion {
        FileVersion { id: self.id, size_bytes: self.size_bytes, ctime_ns: self.ctime_ns }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
}

/// The last thread of `process` ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    pub t_ns: u64,
    pub process: ProcessKey,
    /// Exit code, when the process ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// Signal number, when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// Since the process started.
    pub duration_ns: u64,
    /// How often it executed something, by the kernel's own count. Absent before schema 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execs: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}
