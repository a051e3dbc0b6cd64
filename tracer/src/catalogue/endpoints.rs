//! What stands behind a name or an address.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Catalogue;
use crate::model::Endpoint;

/// What an endpoint is there for. Policies name these.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointClass {
    /// What the program is there to use: models, storage, queues.
    Api,
    /// A Model Context Protocol server.
    Mcp,
    /// Hands out or checks credentials: STS, IAM, SSO portals, sign-in, instance metadata.
    Credentials,
    /// OAuth and OpenID discovery and tokens.
    Oauth,
    Telemetry,
    /// Registries that packages come from.
    Packages,
    /// Hosts of source code.
    Source,
    Other,
}

/// The entry of the catalogue that an endpoint matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Classified {
    /// For example `bedrock-runtime` or `aws-sts`.
    pub service: String,
    /// For example `aws` or `anthropic`.
    pub provider: String,
    pub class: EndpointClass,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The pattern or range that matched, as the catalogue spells it.
    pub rule: String,
}

impl Catalogue {
    /// The entry of a name, or of an address without one.
    pub fn classify(&self, _name: Option<&str>, _endpoint: Option<Endpoint>) -> Option<Classified> {
        None
    }
}
