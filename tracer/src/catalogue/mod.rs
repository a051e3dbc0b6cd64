//! The catalogue: what a program's name in a policy stands for, which places outside the tree take
//! work, and what stands behind names and addresses.
//!
//! The embedded part is data (the TOML files beside this one), and files of the same form extend it.
//! Whatever a verdict needs of it is written into the recording, so that judging again does not depend
//! on the catalogue of another version.

mod calls;
mod credentials;
mod endpoints;
mod file;
mod interpreters;
mod names;
mod places;
mod search;
mod target;
mod tls;

use std::{borrow::Cow, sync::LazyLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use calls::{CallKind, CallRule};
pub use credentials::{
    CredentialHelper, CredentialSource, McpServer, SourceKind, credential_variables,
};
pub use endpoints::{Classified, EndpointClass, EndpointRule, EndpointRules, Endpoints};
pub use file::CatalogueError;
pub use interpreters::{Family, family, interpreters, is_loader, is_multi_call, is_shell};
pub use names::{HostName, NamePattern};
pub use places::places;
pub use search::{Found, Place, Search, expand};
pub use target::{Fit, Target};
pub use tls::{TlsFunctions, TlsUnreadable};

/// The name of the hand-off of a process that is controlled as by a debugger.
pub const DEBUGGED: &str = "debugger";

/// The name of a hand-off to a local service that the catalogue does not have.
pub const UNKNOWN_SERVICE: &str = "unknown local service";

/// A program that policies can name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Program {
    pub name: String,
    /// Names its files have; the name itself when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub file_names: Vec<String>,
    /// Where installers put it, beside [`Catalogue::folders`]: patterns of paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layouts: Vec<String>,
    /// Python modules that are the program: to run or import one is to run it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub python_modules: Vec<String>,
    /// Folders that hold its modules, beside those of the Python installations: patterns of paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub module_folders: Vec<String>,
    /// Files, relative to the folder that holds the modules, one of which tells the program's
    /// modules from others of the same name. When empty, the name is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marker_files: Vec<String>,
    /// What it cannot do without calling, under whatever name it runs: endpoints as claims name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
}

impl Program {
    /// The entry of a name that no catalogue has: it stands for files of that name.
    fn plain(name: &str) -> Program {
        Program { name: name.into(), file_names: vec![name.into()], ..Program::default() }
    }

    /// Whether a file's name, without its folder, is one of the program's.
    pub fn is_file_name(&self, name: &[u8]) -> bool {
        self.file_names.iter().any(|own| own.as_bytes() == name)
    }
}

/// A place where work can be left for a process outside the tree.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HandOffPoint {
    /// How policies name it.
    pub name: String,
    pub kind: HandOffKind,
    /// Patterns of paths; none for ports.
    #[serde(default)]
    pub paths: Vec<String>,
    /// TCP ports; none but for ports.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// That the kernel cannot watch it here is no reason to doubt anything.
    #[serde(default)]
    pub optional: bool,
    /// Who does what with the work: the rest of a sentence that starts with the name.
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandOffKind {
    /// Somebody acts on the files of these folders, or on these files.
    Directory,
    /// Somebody answers on these unix sockets; a leading `@` is an abstract name.
    Socket,
    /// The same, and whoever answers there runs nothing for anybody: no hand-off.
    HarmlessSocket,
    /// Somebody answers on these TCP ports of this machine.
    Port,
}

/// Programs, where work can be handed to, and endpoints.
///
/// A pattern of paths is absolute or starts with `~/`, the calling user's home; `*` stands for any
/// part of one component.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Where programs of any name are installed: patterns of paths.
    pub folders: Vec<String>,
    /// Where copies are looked for too. They count where a policy forbids a program, not where it
    /// allows one: whoever may write there could pass anything off as the program.
    pub other_folders: Vec<String>,
    programs: Vec<Program>,
    pub hand_offs: Vec<HandOffPoint>,
    pub endpoints: Endpoints,
    /// In the order in which a provider's SDKs ask them.
    pub credential_sources: Vec<CredentialSource>,
    pub credential_helpers: Vec<CredentialHelper>,
    pub mcp_servers: Vec<McpServer>,
    /// The first that fits counts.
    pub tls_unreadable: Vec<TlsUnreadable>,
    pub tls_functions: Vec<TlsFunctions>,
}

impl Catalogue {
    /// The catalogue that is part of tracer.
    ///
    /// # Panics
    /// If an embedded file is malformed, which a test rules out.
    #[expect(clippy::expect_used, reason = "the files are embedded and a test reads them")]
    pub fn embedded() -> &'static Catalogue {
        static EMBEDDED: LazyLock<Catalogue> = LazyLock::new(|| {
            let mut catalogue = Catalogue::default();
            for (text, name) in [
                (include_str!("programs.toml"), "programs.toml"),
                (include_str!("handoffs.toml"), "handoffs.toml"),
                (include_str!("endpoints.toml"), "endpoints.toml"),
                (include_str!("calls.toml"), "calls.toml"),
                (include_str!("credentials.toml"), "credentials.toml"),
                (include_str!("mcp.toml"), "mcp.toml"),
                (include_str!("tls.toml"), "tls.toml"),
            ] {
                catalogue.extend(file::parse(text, name).expect("embedded")).expect("embedded");
            }
            catalogue
        });
        &EMBEDDED
    }

    /// The entry of that name; a name that is not there stands for files of that name.
    pub fn program(&self, name: &str) -> Cow<'_, Program> {
        find(&self.programs, name).map_or_else(|| Cow::Owned(Program::plain(name)), Cow::Borrowed)
    }

    pub fn has_program(&self, name: &str) -> bool {
        self.programs.iter().any(|program| program.name == name)
    }

    /// Whether policies can allow a hand-off of this name.
    pub fn has_hand_off(&self, name: &str) -> bool {
        name == UNKNOWN_SERVICE
            || name == DEBUGGED
            || self.hand_offs.iter().any(|point| point.name == name)
    }

    /// The entry of a unix socket, by the name it is bound to: a path, or a NUL and an abstract name.
    pub fn socket(&self, name: &[u8]) -> Option<&HandOffPoint> {
        const OPTIONS: glob::MatchOptions = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        let (name, is_abstract) = match name.split_first() {
            Some((0, name)) => (String::from_utf8_lossy(name), true),
            _ => (String::from_utf8_lossy(name), false),
        };
        let matches = |pattern: &String| {
            let text = match (pattern.strip_prefix('@'), pattern.strip_prefix("~/")) {
                (Some(text), _) if is_abstract => text.to_owned(),
                // Whoever's home it is.
                (None, Some(text)) if !is_abstract => format!("**/{text}"),
                (None, None) if !is_abstract => pattern.clone(),
                _ => return false,
            };
            glob::Pattern::new(&text).is_ok_and(|pattern| pattern.matches_with(&name, OPTIONS))
        };
        self.hand_offs.iter().find(|point| match point.kind {
            HandOffKind::Socket | HandOffKind::HarmlessSocket => point.paths.iter().any(matches),
            HandOffKind::Directory | HandOffKind::Port => false,
        })
    }

    /// The entry of a TCP port of this machine.
    pub fn port(&self, port: u16) -> Option<&HandOffPoint> {
        self.hand_offs
            .iter()
            .find(|point| point.kind == HandOffKind::Port && point.ports.contains(&port))
    }

    /// Names of all hand-offs, each once.
    pub fn hand_off_names(&self) -> Vec<&str> {
        let points = self.hand_offs.iter();
        let mut names: Vec<&str> = points
            .filter(|point| point.kind != HandOffKind::HarmlessSocket)
            .map(|point| point.name.as_str())
            .chain([UNKNOWN_SERVICE, DEBUGGED])
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Adds the entries of a file: to the entry of the same name, where there is one. Its endpoints
    /// and calls come before those that are there.
    ///
    /// # Errors
    /// What is wrong with its endpoints or calls.
    fn extend(&mut self, file: file::File) -> Result<(), String> {
        let mut endpoints = self.endpoints.rules().clone();
        for (form, patterns) in file.endpoint_forms {
            if endpoints.forms.contains_key(&form) {
                return Err(format!("there is a form `{form}` already in `endpoint-forms`"));
            }
            endpoints.forms.insert(form, patterns);
        }
        endpoints.rules.splice(0..0, file.endpoint);
        endpoints.calls.splice(0..0, file.call);
        self.endpoints = Endpoints::new(endpoints)?;
        add(&mut self.folders, file.folders);
        add(&mut self.other_folders, file.other_folders);
        for mut program in file.program {
            match self.programs.iter_mut().find(|own| own.name == program.name) {
                Some(own) => {
                    add(&mut own.file_names, program.file_names);
                    add(&mut own.layouts, program.layouts);
                    add(&mut own.python_modules, program.python_modules);
                    add(&mut own.module_folders, program.module_folders);
                    add(&mut own.marker_files, program.marker_files);
                    add(&mut own.calls, program.calls);
                }
                None => {
                    if program.file_names.is_empty() {
                        program.file_names.push(program.name.clone());
                    }
                    self.programs.push(program);
                }
            }
        }
        // A hand-off may have several entries: folders and sockets.
        self.hand_offs.extend(file.hand_off);
        self.credential_sources.extend(file.credential_source);
        self.credential_helpers.extend(file.credential_helper);
        self.mcp_servers.extend(file.mcp_server);
        self.tls_unreadable.extend(file.tls_unreadable);
        self.tls_functions.extend(file.tls_functions);
        credentials::check_count(&self.credential_sources)
    }
}

/// The entry of that name in a list, as a recording carries one.
pub fn find<'a>(programs: &'a [Program], name: &str) -> Option<&'a Program> {
    programs.iter().find(|program| program.name == name)
}

fn add(to: &mut Vec<String>, more: Vec<String>) {
    for entry in more {
        if !to.contains(&entry) {
            to.push(entry);
        }
    }
}
