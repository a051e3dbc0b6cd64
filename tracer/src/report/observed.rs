//! What a recording has besides programs and connections: one kind after the other, in rows that
//! every format shows alike. A new kind of record needs an entry here and nowhere else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    clean::clean,
    words::{destination, duration},
};
use crate::{
    model::{FileId, ProcessKey},
    record::schema::{
        CallGap, CgroupMove, CredentialAccess, CredentialFile, Dns, DnsMessage, FirstBytes,
        ForeignSend, FoundSocket, Intrusion, IntrusionMeans, LocalSend, OddSocket, Opened,
        OpenedWhat, Opening, TlsLibrary, TlsReading,
    },
    session::Story,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ObservedKind {
    /// Work was left, or may have been, for a process outside the tree.
    HandOff,
    /// Execs that failed, without searches along `PATH` that found the program.
    Attempt,
    /// Files of programs that a policy names were opened.
    Opened,
    /// Something was sent over a unix socket to a process that is not of the tree.
    LocalSend,
    /// A process took control of another one, or of something of it.
    Intrusion,
    /// Sockets whose traffic is not followed.
    OddSocket,
    /// Sockets of the internet that were made outside, and used.
    ForeignSend,
    /// Processes that left the cgroup in which datagrams are seen.
    CgroupMove,
    /// Files of credentials that somebody opened, perhaps of the tree.
    CredentialFile,
    /// Questions for names, or beginnings of connections, that could not be read.
    UnreadName,
    /// TLS libraries that were not read, or not from the beginning.
    UnreadTls,
    /// Sockets that processes had open when they were found.
    FoundSocket,
    /// TLS sessions whose HTTP calls were not read, or not all of them.
    CallGap,
}

impl ObservedKind {
    pub(super) const ALL: [ObservedKind; 13] = [
        ObservedKind::HandOff,
        ObservedKind::Attempt,
        ObservedKind::Opened,
        ObservedKind::LocalSend,
        ObservedKind::Intrusion,
        ObservedKind::OddSocket,
        ObservedKind::ForeignSend,
        ObservedKind::CgroupMove,
        ObservedKind::CredentialFile,
        ObservedKind::UnreadName,
        ObservedKind::UnreadTls,
        ObservedKind::FoundSocket,
        ObservedKind::CallGap,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            ObservedKind::HandOff => "Hand-offs",
            ObservedKind::Attempt => "Failed execs",
            ObservedKind::Opened => "Files of the policies' programs that were opened",
            ObservedKind::LocalSend => "Unix sockets of processes outside the tree",
            ObservedKind::Intrusion => "Control over other processes",
            ObservedKind::OddSocket => "Sockets whose traffic is not covered",
            ObservedKind::ForeignSend => "Sockets made elsewhere that were used",
            ObservedKind::CgroupMove => "Processes that left the command's cgroup",
            ObservedKind::CredentialFile => "Files of credentials, opened by who cannot be told",
            ObservedKind::UnreadName => "Names that could not be read",
            ObservedKind::UnreadTls => "TLS that was not read, or not from the beginning",
            ObservedKind::FoundSocket => "Sockets that were open when their processes were found",
            ObservedKind::CallGap => "Sessions in which calls may be missing",
        }
    }
}

/// One event. The strings are fit to be shown.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) t_ns: u64,
    /// None when it is not known for certain.
    pub(super) process: Option<ProcessKey>,
    pub(super) what: String,
    pub(super) detail: String,
}

pub(super) fn observed(story: &Story, kind: ObservedKind) -> Vec<Observed> {
    match kind {
        ObservedKind::HandOff => story
            .hand_offs
            .iter()
            .map(|hand_off| Observed {
                t_ns: hand_off.t_ns,
                process: hand_off.process,
                what: clean(hand_off.name.as_bytes()),
                detail: format!("{}: {}", clean(&hand_off.via.0), clean(hand_off.how.as_bytes())),
            })
            .collect(),
        ObservedKind::Attempt => story
            .attempts
            .iter()
            .filter(|attempt| !story.found_later(attempt))
            .map(|attempt| {
                let first = attempt
                    .filenames
                    .first()
                    .map_or("unreadable name".into(), |name| clean(&name.0));
                Observed {
                    t_ns: attempt.t_ns,
                    process: Some(attempt.process),
                    what: first,
                    detail: match attempt.tries {
                        1 => clean(attempt.error.as_bytes()),
                        tries => format!("{} ({tries} tries)", clean(attempt.error.as_bytes())),
                    },
                }
            })
            .collect(),
        ObservedKind::Opened => story.opened.iter().map(opened).collect(),
        ObservedKind::LocalSend => story.local_sends.iter().map(local_send).collect(),
        ObservedKind::Intrusion => story.intrusions.iter().map(intrusion).collect(),
        ObservedKind::OddSocket => story.odd_sockets.iter().map(odd_socket).collect(),
        ObservedKind::ForeignSend => story.foreign_sends.iter().map(foreign_send).collect(),
        ObservedKind::CgroupMove => story.cgroup_moves.iter().map(cgroup_move).collect(),
        // What a process surely did is in its timeline.
        ObservedKind::CredentialFile => {
            let files = story.credential_files.iter();
            files.filter(|file| file.process.is_none()).map(credential_file).collect()
        }
        ObservedKind::UnreadName => {
            let openings = story.openings.iter().filter_map(unread_opening);
            openings.chain(story.dns.iter().filter_map(malformed)).collect()
        }
        ObservedKind::UnreadTls => tls_libraries(&story.tls_libraries),
        ObservedKind::FoundSocket => story.found_sockets.iter().map(found_socket).collect(),
        ObservedKind::CallGap => story.call_gaps.iter().map(|gap| call_gap(story, gap)).collect(),
    }
}

fn opened(opened: &Opened) -> Observed {
    let what = match opened.what {
        OpenedWhat::Copy => "",
        OpenedWhat::Module => "a module of ",
    };
    let how = match (opened.inherited, opened.to_execute) {
        (true, _) => ", open when the command started",
        (false, true) => ", to be executed",
        (false, false) => "",
    };
    Observed {
        t_ns: opened.t_ns,
        process: opened.process,
        what: clean(&opened.path.0),
        detail: clean(format!("{what}{}{how}", opened.programs.join(", ")).as_bytes()),
    }
}

fn local_send(send: &LocalSend) -> Observed {
    let peer = send.peer.as_ref();
    Observed {
        t_ns: send.t_ns,
        process: Some(send.process),
        what: match peer.map(|peer| (peer, peer.0.strip_prefix(&[0]))) {
            Some((_, Some(name))) => format!("@{}", clean(name)),
            Some((path, None)) => clean(&path.0),
            None => "a socket without a name".into(),
        },
        detail: match send.peer_pid {
            _ if send.any_peer => "or any other, by datagrams".into(),
            Some(pid) if send.peer_reaped => format!("of pid {pid}, which had ended"),
            Some(pid) => format!("of pid {pid}"),
            None => "of an unknown process".into(),
        },
    }
}

fn intrusion(intrusion: &Intrusion) -> Observed {
    let what = match intrusion.means {
        IntrusionMeans::DebuggerAccess => "debugger access",
        IntrusionMeans::Ptrace => "ptrace",
        IntrusionMeans::WriteMemory => "process_vm_writev",
        IntrusionMeans::TakeDescriptor => "pidfd_getfd",
    };
    let target = match intrusion.means {
        IntrusionMeans::TakeDescriptor => format!("through descriptor {}", intrusion.target),
        IntrusionMeans::DebuggerAccess | IntrusionMeans::Ptrace | IntrusionMeans::WriteMemory => {
            format!("pid {}", intrusion.target)
        }
    };
    Observed {
        t_ns: intrusion.t_ns,
        process: Some(intrusion.process),
        what: what.into(),
        detail: target,
    }
}

fn odd_socket(socket: &OddSocket) -> Observed {
    let family = match i32::from(socket.family) {
        libc::AF_INET => "IPv4".into(),
        libc::AF_INET6 => "IPv6".into(),
        libc::AF_PACKET => "packet".into(),
        libc::AF_VSOCK => "vsock".into(),
        other => format!("family {other}"),
    };
    let kind = match i32::from(socket.socket_type) {
        libc::SOCK_STREAM => "stream".into(),
        libc::SOCK_DGRAM => "datagram".into(),
        libc::SOCK_RAW => "raw".into(),
        libc::SOCK_SEQPACKET => "seqpacket".into(),
        other => format!("type {other}"),
    };
    Observed {
        t_ns: socket.t_ns,
        process: Some(socket.process),
        what: format!("{family}, {kind}, protocol {}", socket.protocol),
        detail: "what it sends and receives is not seen".into(),
    }
}

fn foreign_send(send: &ForeignSend) -> Observed {
    let protocol = match i32::from(send.protocol) {
        libc::IPPROTO_TCP => "TCP".into(),
        libc::IPPROTO_UDP => "UDP".into(),
        other => format!("protocol {other}"),
    };
    let to = send
        .destination
        .map_or_else(|| "not connected, so it can send anywhere".into(), |to| format!("to {to}"));
    Observed {
        t_ns: send.t_ns,
        process: Some(send.process),
        what: format!("{protocol} {to}"),
        detail: "what it sends and receives is not seen".into(),
    }
}

fn cgroup_move(moved: &CgroupMove) -> Observed {
    let id = format!("cgroup {}", moved.to_cgroup_id);
    Observed {
        t_ns: moved.t_ns,
        process: Some(moved.process),
        what: moved.to_path.as_ref().map_or(id, |path| clean(&path.0)),
        detail: "datagrams of the sockets it makes from then on are not seen".into(),
    }
}

fn found_socket(socket: &FoundSocket) -> Observed {
    let protocol = socket.words();
    let address = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    let path = socket.path.as_ref().map(|path| clean(&path.0));
    let from = path.or_else(|| address(socket.local)).unwrap_or_else(|| "no name".into());
    let to = address(socket.remote).map_or_else(String::new, |to| format!(" to {to}"));
    Observed {
        t_ns: socket.t_ns,
        process: Some(socket.process),
        what: format!("{protocol}, {from}{to}"),
        detail: socket.state.as_deref().map_or_else(String::new, |state| clean(state.as_bytes())),
    }
}

fn credential_file(file: &CredentialFile) -> Observed {
    let did = match file.access {
        CredentialAccess::Opened => "opened",
        CredentialAccess::Changed => "changed",
    };
    Observed {
        t_ns: file.t_ns,
        process: None,
        what: clean(&file.path.0),
        detail: clean(format!("{did}, {}", file.source).as_bytes()),
    }
}

/// Libraries that are only mapped and cannot be read are told of once for each file: most programs that have
/// mapped one do not call it.
fn tls_libraries(libraries: &[TlsLibrary]) -> Vec<Observed> {
    let is_unreadable =
        |library: &TlsLibrary| matches!(library.reading, TlsReading::Unreadable { .. });
    let who = |library: &TlsLibrary| (library.file, library.process);
    let executed: BTreeSet<_> = libraries
        .iter()
        .filter(|library| library.executed && is_unreadable(library))
        .map(who)
        .collect();
    let mut mapped: BTreeMap<FileId, BTreeSet<ProcessKey>> = BTreeMap::new();
    let only_mapped = |library: &TlsLibrary| {
        is_unreadable(library) && !library.executed && !executed.contains(&who(library))
    };
    for library in libraries.iter().filter(|library| only_mapped(library)) {
        mapped.entry(library.file).or_default().insert(library.process);
    }
    let mut observed = Vec::new();
    for library in libraries {
        if !is_unreadable(library) || library.executed {
            observed.extend(tls_library(library, 0));
        } else if only_mapped(library) {
            let processes = mapped.remove(&library.file).unwrap_or_default();
            observed
                .extend(tls_library(library, processes.len()).filter(|_| !processes.is_empty()));
        }
    }
    observed
}

/// `mapped_by`: how many processes have only mapped it.
fn tls_library(library: &TlsLibrary, mapped_by: usize) -> Option<Observed> {
    let detail = match &library.reading {
        TlsReading::Complete => return None,
        // It had the library before tracer came.
        TlsReading::From { t_ns } if *t_ns <= library.t_ns => {
            "calls before it was found, and such as were under way, may be missing".to_owned()
        }
        TlsReading::From { t_ns } => format!(
            "calls in its first {} may be missing",
            duration(t_ns.saturating_sub(library.t_ns))
        ),
        TlsReading::Unreadable { library } => match mapped_by {
            0 => format!("TLS not readable here ({library}): nothing is known of its calls"),
            1 => format!(
                "TLS not readable here ({library}): mapped, calls through it would not be seen"
            ),
            many => format!(
                "TLS not readable here ({library}): mapped by {many} processes, calls through it would not be seen"
            ),
        },
        TlsReading::Failed { why } => format!("its calls are not recorded: {why}"),
    };
    Some(Observed {
        t_ns: library.t_ns,
        process: Some(library.process),
        what: clean(&library.path.0),
        detail: clean(detail.as_bytes()),
    })
}

fn unread_opening(opening: &Opening) -> Option<Observed> {
    let why = match &opening.what {
        FirstBytes::Unread { why } => why,
        FirstBytes::Tls { .. } | FirstBytes::Http { .. } | FirstBytes::Other => return None,
    };
    Some(Observed {
        t_ns: opening.t_ns,
        process: Some(opening.process),
        what: format!("the beginning of a connection to {}", destination(opening.destination)),
        detail: clean(why.as_bytes()),
    })
}

fn call_gap(story: &Story, gap: &CallGap) -> Observed {
    let of = |id: u64| story.connections.iter().find(|connection| connection.id == id);
    let to = gap.connection.and_then(|joined| of(joined.id)).and_then(|one| one.destination);
    let kind = match (gap.inode, gap.plaintext) {
        (Some(_), _) => "an open socket",
        (None, true) => "a connection without TLS",
        (None, false) => "a TLS session",
    };
    let found =
        |socket: &&FoundSocket| socket.process == gap.process && Some(socket.inode) == gap.inode;
    let remote = story.found_sockets.iter().find(found).and_then(|socket| socket.remote);
    let to = to.map(|to| to.to_string()).or_else(|| remote.map(|remote| remote.to_string()));
    Observed {
        t_ns: gap.t_ns,
        process: Some(gap.process),
        what: to.map_or_else(|| kind.into(), |to| format!("{kind} to {to}")),
        detail: clean(gap.why.as_bytes()),
    }
}

fn malformed(dns: &Dns) -> Option<Observed> {
    let why = match &dns.message {
        DnsMessage::Malformed { why } => why,
        DnsMessage::Question { .. } | DnsMessage::Answer { .. } => return None,
    };
    Some(Observed {
        t_ns: dns.t_ns,
        process: Some(dns.process),
        what: format!("a message to or from {}", destination(dns.server)),
        detail: clean(why.as_bytes()),
    })
}
