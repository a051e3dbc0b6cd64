//! Which name an address stands for, and what says so.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Connection, Story};
use crate::record::schema::Datagram;

/// What a name rests on, the best first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NameSource {
    /// The Host of a plaintext HTTP request.
    HttpHost,
    /// The server name of a TLS ClientHello.
    Sni,
    /// A DNS answer that the process itself received.
    OwnDns,
    /// A DNS answer that another process of the tree received.
    OtherDns,
    /// The C library gave the process this address for the name.
    Resolver,
    /// The file of hosts has it.
    HostsFile,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Named {
    pub name: String,
    pub source: NameSource,
}

/// Everything that names one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// The best source first; each pair once. Several names of one source are in order of time, the
    /// latest first.
    pub names: Vec<Named>,
    /// Sources contradict each other: the best one's name is not among those of another one.
    pub disagree: bool,
    /// The server name was encrypted, so the one that is seen may stand for another.
    pub encrypted_hello: bool,
}

impl Naming {
    pub fn best(&self) -> Option<&Named> {
        self.names.first()
    }
}

/// The names of a story, ready to be asked.
#[derive(Debug)]
pub struct Names;

impl Names {
    pub fn of(_story: &Story) -> Names {
        Names
    }

    pub fn connection(&self, _connection: &Connection) -> Naming {
        Naming::default()
    }

    pub fn datagram(&self, _datagram: &Datagram) -> Naming {
        Naming::default()
    }
}
