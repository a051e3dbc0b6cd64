//! What tracer was attached to, and what it found there.

use std::{fmt, net::SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CallGap;
use crate::model::{Bytes, ProcessKey};

/// What ran already was joined; nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    pub to: AttachedTo,
    /// The claims are about the time from the moment on when the running processes were found. What
    /// they did before is unknown either way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_arming: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AttachedTo {
    /// A process and its descendants; the id is the one in tracer's pid namespace.
    Pid(u32),
    /// Who is in a cgroup or below it, and who joins it.
    Cgroup(Bytes),
    Container {
        id: String,
        /// Its directories, one for each hierarchy it has one in.
        cgroups: Vec<Bytes>,
    },
    /// A pod of Kubernetes: who is in one of its containers, and who comes later.
    Pod {
        uid: String,
        /// Its directories, one for each hierarchy it has one in.
        cgroups: Vec<Bytes>,
    },
    /// Every process that tracer can see.
    Host,
}

impl fmt::Display for AttachedTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachedTo::Pid(pid) => write!(f, "process {pid}"),
            AttachedTo::Cgroup(path) => write!(f, "cgroup {}", path.lossy()),
            AttachedTo::Container { id, .. } => write!(f, "container {id}"),
            AttachedTo::Pod { uid, .. } => write!(f, "pod {uid}"),
            AttachedTo::Host => f.write_str("the host"),
        }
    }
}

/// The processes that ran already have been found: from here on everything of the tree is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    pub t_ns: u64,
    pub processes: u64,
    /// How often /proc was read until nobody new was found.
    pub rounds: u64,
    /// Who may be missing, and what was not read of those that were found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
}

/// A socket that a process had open when it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FoundSocket {
    pub t_ns: u64,
    pub process: ProcessKey,
    pub inode: u64,
    /// Absent for others than these, or where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<SocketProtocol>,
    /// Where `protocol` is absent: what the kernel calls it, in lower case, as `raw`, `ping`, `packet` and
    /// `netlink` (the attribute `system.sockprotoname` of a socket).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// Absent for sockets that are connected to nobody, and those of other network namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// Of a TCP socket, as the kernel calls it. Absent when the table of the process's network namespace
    /// does not have it: neither bound nor connected, or of another namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Of a unix socket that has one; an abstract name begins with `@`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Bytes>,
}

/// What goes over such a socket ends in the kernel.
const NETLINK: &str = "netlink";

impl FoundSocket {
    /// Whether what goes over it can reach another machine, or whether that cannot be told.
    pub fn leads_away(&self) -> bool {
        match self.protocol {
            Some(SocketProtocol::Unix) => false,
            Some(SocketProtocol::Tcp) => self.remote.is_some() || self.state.is_none(),
            Some(SocketProtocol::Udp) => true,
            None => self.kind.as_deref() != Some(NETLINK),
        }
    }

    /// What it is, for messages.
    pub fn words(&self) -> &str {
        match self.protocol {
            Some(protocol) => protocol.name(),
            None => self.kind.as_deref().unwrap_or("a socket of an unknown kind"),
        }
    }

    /// Where calls are read: what is not, if it is a connection, or may be one. Whether it has TLS is not
    /// known, because its first bytes were not seen.
    pub fn call_gap(&self) -> Option<CallGap> {
        const OPEN: &str = "it was open before tracer came: calls over it without TLS are not read";
        const UNKNOWN: &str = "it was open before tracer came, and what it is is not known: if it is a \
                               connection, calls over it without TLS are not read";
        let why = match self.protocol {
            Some(SocketProtocol::Tcp) if self.remote.is_some() => OPEN,
            None => UNKNOWN,
            Some(SocketProtocol::Tcp | SocketProtocol::Udp | SocketProtocol::Unix) => return None,
        };
        Some(CallGap {
            t_ns: self.t_ns,
            process: self.process,
            session: 0,
            plaintext: true,
            connection: None,
            inode: Some(self.inode),
            why: why.into(),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SocketProtocol {
    Tcp,
    Udp,
    Unix,
}

impl SocketProtocol {
    pub fn name(self) -> &'static str {
        match self {
            SocketProtocol::Tcp => "tcp",
            SocketProtocol::Udp => "udp",
            SocketProtocol::Unix => "unix",
        }
    }
}
