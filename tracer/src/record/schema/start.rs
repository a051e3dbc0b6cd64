//! The first line: the machine, what is watched and what the claims are about.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    catalogue::{self, Catalogue, EndpointRules, McpServer, Program},
    model::{Bytes, FileId},
    policy::Policy,
};

use super::{Attachment, CredentialWatch};

/// First line: what was traced, on what, with which hooks, against which policies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    pub schema: u32,
    pub tracer: String,
    pub t_ns: u64,
    /// Unix time minus `CLOCK_BOOTTIME`, taken once.
    pub wall_offset_ns: i64,
    pub host: Host,
    pub command: Vec<Bytes>,
    pub cwd: Bytes,
    /// Who the command runs as.
    pub uid: u32,
    pub gid: u32,
    /// The probes fired before the first instruction of the command could run.
    pub armed_before_first_instruction: bool,
    pub sensors: Vec<SensorState>,
    pub policies: Vec<Policy>,
    /// Entries of the catalogue for the programs the policies name. Recordings that have none were
    /// made with the embedded ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<Vec<Program>>,
    /// The catalogue's endpoints. Recordings that have none are judged by the embedded ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointRules>,
    /// Inode numbers of the sockets that the command inherits from whoever called tracer and that are connected for
    /// good: not those for datagrams, which can be connected anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherited_sockets: Vec<u64>,
    /// Those that it inherits and that are not unix sockets: TCP, UDP, raw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherited_network_sockets: Vec<u64>,
    /// Forbidden programs are killed before their first instruction.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enforced: bool,
    /// Copies of the programs the policies name, as found on this machine at the start.
    pub known_programs: BTreeMap<String, Vec<KnownCopy>>,
    /// Of programs that are named by their paths: what such a path really was when tracing started,
    /// its folder with all links resolved, and then what the file itself led to as a link. Where it is
    /// absent or empty, that is not known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub known_paths: BTreeMap<String, Vec<Bytes>>,
    /// What the usual folders of programs, and those of these paths, really were then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_folders: Vec<KnownFolder>,
    /// Folders of Python modules that are one of these programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub known_packages: BTreeMap<String, Vec<Bytes>>,
    /// Interpreters, dynamic loaders and multi-call shells of this machine: a copy under another name
    /// takes the same arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interpreters: Vec<KnownInterpreter>,
    /// Absent in recordings from before there was such a watch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FileWatch>,
    /// Absent in recordings from before the command got one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<CommandCgroup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialWatch>,
    /// How servers of the Model Context Protocol are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    /// The recording goes on in further files when one is as large as that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_bytes: Option<u64>,
    /// What was joined, where nothing was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Attachment>,
}

/// The cgroup (v2) that the command got for itself, or that what was joined is in. Programs attached to it see what the sockets do
/// that are made in it or below it, and cost processes elsewhere nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CommandCgroup {
    Own {
        id: u64,
        path: Bytes,
    },
    /// It is others' too.
    Shared {
        id: u64,
        path: Bytes,
        /// Processes in it that were not joined: each of their packets and new sockets is looked at, and
        /// left alone.
        others: u64,
    },
    /// Why there is none.
    Absent(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    pub name: String,
    pub kernel: String,
    pub machine: String,
    pub boot_id: String,
    pub cpus: usize,
    /// Of its network interfaces, where tracer is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

impl Start {
    /// Those that a claim of its policies says never to run, whose files are watched.
    pub fn forbidden_programs(&self) -> BTreeSet<String> {
        let claims = self.policies.iter().flat_map(|policy| &policy.claims);
        let named = claims.flat_map(|claim| claim.programs_named());
        named.filter(|(_, forbids)| *forbids).map(|(program, _)| program.clone()).collect()
    }

    /// The catalogue's entry of a program, as this recording has it.
    pub fn program(&self, name: &str) -> Cow<'_, Program> {
        let own = self.catalogue.as_deref().and_then(|entries| catalogue::find(entries, name));
        own.map_or_else(|| Catalogue::embedded().program(name), Cow::Borrowed)
    }
}

/// A sensor and the hook it used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SensorState {
    pub sensor: String,
    pub hook: String,
    /// What this hook cannot see, in one sentence; empty when nothing is known.
    pub cannot_see: String,
    /// What it costs processes that are not traced, in one sentence; empty when it costs them nothing
    /// or next to nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tax: String,
    /// Why it is not attached, although it was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KnownCopy {
    pub path: Bytes,
    pub file: FileId,
    /// Other names lead to the same file or content (a multi-call program or a version manager's
    /// shim), so only the name it is called by tells which program it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multi_call: bool,
    /// It was found where anybody may have put it: it counts as the program where a claim forbids
    /// that, and not where one allows it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_forbids: bool,
    /// Of a script: the file that its first line led to when tracing started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<FileId>,
    /// When tracing started. Another file of another size is no copy of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

impl KnownCopy {
    /// Whether a file of this size can have its content.
    pub fn may_have_size(&self, size_bytes: u64) -> bool {
        self.size_bytes.is_none_or(|own| own == size_bytes)
    }
}

/// A folder by a name that may go through links, as it was at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KnownFolder {
    pub path: Bytes,
    /// With all links resolved.
    pub leads_to: Bytes,
}

/// An interpreter, dynamic loader or multi-call shell, as found at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KnownInterpreter {
    /// The name of its file; `ld.so` for every dynamic loader.
    pub name: String,
    pub path: Bytes,
    pub file: FileId,
    pub size_bytes: u64,
}

/// Which files were to be watched beside the probes, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileWatch {
    /// Files and folders that are watched.
    pub marks: u64,
    /// What is not, although it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<WatchGap>,
}

/// Something that should be watched and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WatchGap {
    pub of: Watched,
    pub why: String,
}

/// What a watch is for: the name of a program, or of a hand-off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Watched {
    Program(String),
    HandOff(String),
}
