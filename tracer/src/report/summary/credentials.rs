//! Where credentials came from, and which servers of the Model Context Protocol were in use.

use schemars::JsonSchema;
use serde::Serialize;

use super::Builder;
use crate::{
    model::ProcessKey,
    record::schema::CredentialAccess,
    report::{
        clean::clean,
        words::{count, label},
    },
    session::{
        CredentialUse, Helper, McpTransport, Origin, Step, StepWhat, credential_uses, mcp_servers,
    },
};

/// What a process did about the credentials of a provider. Strings are fit to be shown.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CredentialSummary {
    /// Place in `processes`.
    pub process: usize,
    pub provider: String,
    pub origin: OriginKind,
    /// The source, where it is certain; else those it can have been. Of a helper none.
    pub sources: Vec<String>,
    /// The same in words, as the rest of a sentence that begins with the process.
    pub conclusion: String,
    /// In order of time.
    pub steps: Vec<CredentialStep>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OriginKind {
    /// The process resolved them itself, from one source.
    Resolved,
    /// The process resolved them itself, from one of several sources.
    OneOf,
    /// A program handed them over.
    Helper,
    /// The provider was contacted, and nothing seen says with what.
    Unknown,
    NoContact,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CredentialStep {
    pub at_ns: u64,
    /// It happened between this time and `at_ns`; null where `at_ns` is exact.
    pub after_ns: Option<u64>,
    pub what: String,
}

/// A server of the Model Context Protocol.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct McpSummary {
    pub name: String,
    /// Place in `processes` of who talks to it; null when that is outside the tree.
    pub client: Option<usize>,
    pub transport: McpTransportKind,
    /// Over standard streams, the place in `processes` of the server.
    pub process: Option<usize>,
    /// Over HTTP.
    pub host: Option<String>,
    pub connections: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum McpTransportKind {
    Stdio,
    Http,
}

impl Builder<'_> {
    pub(super) fn credentials(&self) -> Vec<CredentialSummary> {
        let mut uses: Vec<CredentialSummary> =
            credential_uses(self.story).iter().filter_map(|one| self.credential_use(one)).collect();
        uses.sort_by_key(|one| one.process);
        uses
    }

    fn credential_use(&self, one: &CredentialUse) -> Option<CredentialSummary> {
        let (origin, sources) = match &one.origin {
            Origin::Resolved { source, .. } => (OriginKind::Resolved, std::slice::from_ref(source)),
            Origin::OneOf { sources } => (OriginKind::OneOf, sources.as_slice()),
            Origin::Helper { .. } => (OriginKind::Helper, &[][..]),
            Origin::Unknown { .. } => (OriginKind::Unknown, &[][..]),
            Origin::NoContact => (OriginKind::NoContact, &[][..]),
        };
        Some(CredentialSummary {
            process: self.place(one.process)?,
            provider: clean(one.provider.as_bytes()),
            origin,
            sources: sources.iter().map(|source| clean(source.as_bytes())).collect(),
            conclusion: clean(one.origin.words(self.story).as_bytes()),
            steps: one.steps.iter().map(|step| self.step(step)).collect(),
        })
    }

    fn step(&self, step: &Step) -> CredentialStep {
        let what = match &step.what {
            StepWhat::Variables { names, complete } => {
                let more = if *complete { "" } else { ", and perhaps others" };
                format!("started with {} set{more}", names.join(", "))
            }
            StepWhat::File { source, access, path } => {
                let did = match access {
                    CredentialAccess::Opened => "opened",
                    CredentialAccess::Changed => "changed",
                };
                format!("{did} {} ({source})", path.lossy())
            }
            StepWhat::Service { service, established: true } => format!("asked {service}"),
            StepWhat::Service { service, established: false } => {
                format!("tried to ask {service}, in vain")
            }
            StepWhat::Started { child, helper } => {
                let is = match helper {
                    Some(Helper::CredentialProcess) => ", the credential_process".to_owned(),
                    Some(Helper::Known(name)) => format!(", which is {name}"),
                    None => String::new(),
                };
                format!("started {}{is}", label(self.story, *child))
            }
            StepWhat::Contact { service } => format!("called {service}"),
        };
        CredentialStep {
            at_ns: self.at(step.t_ns),
            after_ns: step.after_ns.map(|t_ns| self.at(t_ns)),
            what: clean(what.as_bytes()),
        }
    }

    pub(super) fn mcp_servers(&self) -> Vec<McpSummary> {
        mcp_servers(self.story)
            .into_iter()
            .map(|server| {
                let (transport, process, host, connections) = match server.by {
                    McpTransport::Stdio { process, .. } => {
                        (McpTransportKind::Stdio, self.place(process), None, None)
                    }
                    McpTransport::Http { host, connections } => {
                        let host = clean(host.as_bytes());
                        (McpTransportKind::Http, None, Some(host), Some(connections))
                    }
                };
                McpSummary {
                    name: clean(server.name.as_bytes()),
                    client: server.client.and_then(|client| self.place(client)),
                    transport,
                    process,
                    host,
                    connections,
                }
            })
            .collect()
    }

    fn place(&self, process: ProcessKey) -> Option<usize> {
        self.places.get(&process).copied()
    }
}

impl McpSummary {
    /// How it is reached, but for the process.
    pub(in crate::report) fn reached(&self) -> String {
        match (&self.host, self.connections) {
            (Some(host), Some(times)) => {
                format!("{host}, {}", count(times, "connection", "connections"))
            }
            (Some(host), None) => host.clone(),
            (None, _) => "its standard input and output".into(),
        }
    }
}
