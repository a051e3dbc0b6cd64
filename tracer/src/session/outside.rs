//! Which of the tree's contacts with processes outside the tree hand work over.
//!
//! What is recorded of them is what the kernel saw: a peer that was not tracked at that moment. Here
//! it is told apart who that was: a process that was just being joined to the tree, whoever called tracer,
//! a service that the catalogue knows, or one that it does not.

use std::{collections::HashMap, net::IpAddr};

use super::{ByPid, Story};
use crate::{
    catalogue::{Catalogue, DEBUGGED, HandOffKind, UNKNOWN_SERVICE},
    model::{Bytes, Endpoint, ProcessKey},
    record::{
        Record,
        schema::{
            Connect, ConnectResult, ForeignSend, FoundSocket, HandOff, Intrusion, IntrusionMeans,
            LocalSend, OddSocket, Outcome, SocketProtocol,
        },
    },
};

/// Tells hand-offs from what else is recorded, one record after the other.
#[derive(Debug)]
pub struct HandOffs {
    catalogue: Catalogue,
    /// Connections to known ports, until they have an outcome.
    to_ports: HashMap<u64, Connect>,
}

impl HandOffs {
    pub fn new(catalogue: Catalogue) -> HandOffs {
        HandOffs { catalogue, to_ports: HashMap::new() }
    }

    /// What this record shows to be handed over. The story has it and what came before.
    pub fn of(&mut self, record: &Record, story: &Story) -> Option<HandOff> {
        if let Record::LocalSend(send) = record {
            over_socket(story, &self.catalogue, send)
        } else if let Record::Intrusion(intrusion) = record {
            by_force(story, intrusion)
        } else if let Record::OddSocket(socket) = record {
            over_odd_socket(socket)
        } else if let Record::Connect(connect) = record {
            if connect.destination.is_some_and(|to| self.catalogue.port(to.port).is_some()) {
                self.to_ports.insert(connect.connection, connect.clone());
            }
            None
        } else if let Record::ConnectResult(result) = record {
            let connect = self.to_ports.remove(&result.connection)?;
            over_port(story, &self.catalogue, &connect, Some(result))
        } else if let Record::Close(close) = record {
            // What became of it was told to nobody, see "Skips" in docs/architecture.md.
            let connect = self.to_ports.remove(&close.connection)?;
            over_port(story, &self.catalogue, &connect, None)
        } else if let Record::ForeignSend(send) = record {
            over_foreign_socket(story, &self.catalogue, send)
        } else if let Record::FoundSocket(socket) = record {
            over_found_socket(story, &self.catalogue, socket)
        } else {
            None
        }
    }

    /// At the end: what may be handed over by connections of which nothing more is known.
    pub fn rest(&mut self, story: &Story) -> Vec<HandOff> {
        let mut rest: Vec<Connect> = self.to_ports.drain().map(|(_, connect)| connect).collect();
        rest.sort_unstable_by_key(|connect| (connect.t_ns, connect.connection));
        let hand_off = |connect| over_port(story, &self.catalogue, connect, None);
        rest.iter().filter_map(hand_off).collect()
    }
}

fn hand_off(t_ns: u64, process: ProcessKey, name: &str, via: Bytes, how: String) -> HandOff {
    HandOff { t_ns, process: Some(process), pid: process.pid, name: name.into(), via, how }
}

/// Over a socket that can reach anybody.
fn to_whomever(t_ns: u64, process: ProcessKey, how: &str) -> HandOff {
    hand_off(t_ns, process, UNKNOWN_SERVICE, "socket".into(), how.into())
}

/// Whether a process of the tree had this pid at that time. One that had it before says nothing: the
/// kernel gives a pid to another process once its own is reaped.
fn is_in_tree(story: &Story, pid: u32, t_ns: u64) -> bool {
    story.by_pid(pid, Some(t_ns)) != ByPid::Nobody
}

/// Whether a process that was joined, and was not there from the start, has not executed anything since.
fn is_being_set_up(story: &Story, process: ProcessKey) -> bool {
    if story.start.attached.is_none() || story.snapshot.is_none() {
        return false;
    }
    let mut at = Some(process);
    while let Some(process) = at.and_then(|at| story.processes.get(&at)) {
        if !process.execs.is_empty() {
            return false;
        }
        at = process.creator;
    }
    true
}

/// Those below are accounts of the system and its services (SYS_UID_MAX of login.defs(5)).
const FIRST_USER: u32 = 1000;

fn over_socket(story: &Story, catalogue: &Catalogue, send: &LocalSend) -> Option<HandOff> {
    // Also over a socket that was inherited, or is connected within the tree.
    if send.any_peer {
        let how = "it sent a datagram over a unix socket by a call that may have given it an address of its own, and \
                   whom it reached is not known";
        return Some(to_whomever(send.t_ns, send.process, how));
    }
    let peer = send.peer_pid;
    // Of processes of the tree that have ended, the kernel side knows which listened.
    if !send.peer_reaped && peer.is_some_and(|peer| is_in_tree(story, peer, send.t_ns)) {
        return None;
    }
    // Standard output may be a socket: what the caller gave is the caller's to watch.
    let inherited = |inode| story.start.inherited_sockets.contains(&inode);
    if send.socket_inode.is_some_and(inherited) {
        return None;
    }
    let who = match peer {
        Some(pid) if send.peer_reaped => format!("pid {pid} (a process that had ended)"),
        Some(pid) => format!("pid {pid}"),
        None => "whoever has the other end (the kernel does not tell who that is)".into(),
    };
    let Some(name) = &send.peer else {
        let how = if is_being_set_up(story, send.process) {
            format!(
                "before it executed a program here it sent something to {who} over a socket that was passed to \
                 it, as a process does that a runtime makes a container of"
            )
        } else {
            format!("it sent something to {who}, over a socket that has no name there")
        };
        return Some(hand_off(send.t_ns, send.process, UNKNOWN_SERVICE, "socket".into(), how));
    };
    let known = catalogue.socket(&name.0);
    let is_harmless = known.is_some_and(|point| point.kind == HandOffKind::HarmlessSocket);
    // In a root directory of its own anybody can give such a name to a socket.
    if is_harmless && send.peer_uid.is_some_and(|uid| uid < FIRST_USER) {
        return None;
    }
    let known = known.filter(|_| !is_harmless);
    let via = match name.0.strip_prefix(&[0]) {
        Some(name) => Bytes([b"@", name].concat()),
        None => name.clone(),
    };
    Some(match known {
        Some(point) => {
            let how = format!("it sent something there to {who}, which {}", point.why);
            hand_off(send.t_ns, send.process, &point.name, via, how)
        }
        None => {
            let how = format!(
                "it sent something there to {who}, and what that does with it is not known"
            );
            hand_off(send.t_ns, send.process, UNKNOWN_SERVICE, via, how)
        }
    })
}

/// Whom it reaches is known to no hook.
fn over_odd_socket(socket: &OddSocket) -> Option<HandOff> {
    let (via, how) = if socket.is_netlink() {
        let how = "it made or used a socket of NETLINK_USERSOCK, which carries messages to other processes, and \
                   what those do with them is not known";
        ("netlink", how)
    } else if socket.reaches_services() {
        let how = "it made or used a raw, packet, XDP, TIPC or vsock socket, by which services of this machine can be \
                   reached unseen";
        ("socket", how)
    } else {
        return None;
    };
    Some(hand_off(socket.t_ns, socket.process, UNKNOWN_SERVICE, via.into(), how.into()))
}

fn by_force(story: &Story, intrusion: &Intrusion) -> Option<HandOff> {
    let Intrusion { t_ns, process, means, target } = *intrusion;
    let in_tree = is_in_tree(story, target, t_ns);
    // Whether the caller's pids are those of the initial pid namespace, which the story has.
    let initial = story.processes.get(&process).and_then(|own| own.ns_pid) == Some(process.pid);
    let how = match means {
        IntrusionMeans::DebuggerAccess if in_tree => return None,
        IntrusionMeans::Ptrace | IntrusionMeans::WriteMemory if in_tree && initial => return None,
        IntrusionMeans::DebuggerAccess => {
            "it took control of that process, which can run anything in its name"
        }
        // What the call was given is all that is seen.
        IntrusionMeans::Ptrace => {
            "it took control of that process or thread, which can run anything in its name"
        }
        IntrusionMeans::WriteMemory => "it wrote into the memory of that process",
        IntrusionMeans::TakeDescriptor => "it took a descriptor from another process",
    };
    let via = match means {
        IntrusionMeans::TakeDescriptor => "pidfd_getfd".into(),
        IntrusionMeans::DebuggerAccess | IntrusionMeans::Ptrace | IntrusionMeans::WriteMemory => {
            Bytes::from(format!("pid {target}").as_str())
        }
    };
    let has_callers_number = matches!(means, IntrusionMeans::Ptrace | IntrusionMeans::WriteMemory);
    let whose = if has_callers_number && !initial {
        " (its number is that of the caller's pid namespace)"
    } else {
        ""
    };
    Some(hand_off(t_ns, process, DEBUGGED, via, format!("{how}{whose}")))
}

/// Without a result it is not known what became of the connection.
fn over_port(
    story: &Story,
    catalogue: &Catalogue,
    connect: &Connect,
    result: Option<&ConnectResult>,
) -> Option<HandOff> {
    let source = result.and_then(|result| result.source).map(|source| source.address);
    let where_to = where_to(story, connect.destination?, source, result.and_then(|it| it.local))?;
    let what = match result.map(|result| &result.outcome) {
        Some(Outcome::Established) => "it connected",
        Some(Outcome::Unknown) | None => {
            "it began a connection, of which it is not known whether it came about,"
        }
        Some(Outcome::Failed { .. } | Outcome::Abandoned | Outcome::Unsent) => return None,
    };
    to_service(catalogue, connect.t_ns, connect.process, where_to, what)
}

/// By a connection that somebody else made.
fn over_foreign_socket(
    story: &Story,
    catalogue: &Catalogue,
    send: &ForeignSend,
) -> Option<HandOff> {
    if send.reaches_services() {
        let how = "over a raw socket that was made outside the command's cgroup it sent something, by which services of \
                   this machine can be reached unseen";
        return Some(to_whomever(send.t_ns, send.process, how));
    }
    let to = send.destination.filter(|_| send.is_stream() || send.is_multipath())?;
    let where_to = where_to(story, to, None, send.local)?;
    let what = "over a connection that it did not make it sent something";
    to_service(catalogue, send.t_ns, send.process, where_to, what)
}

/// By a connection of before. Not every use of it is seen, so it counts as one.
fn over_found_socket(
    story: &Story,
    catalogue: &Catalogue,
    socket: &FoundSocket,
) -> Option<HandOff> {
    let to = socket.remote.filter(|_| socket.protocol != Some(SocketProtocol::Udp))?;
    let to = Endpoint { address: to.ip(), port: to.port() };
    // By its addresses alone: where its route leads is not looked at.
    let where_to = where_to(story, to, socket.local.map(|local| local.ip()), Some(false))?;
    let what = "when it was found it had a connection";
    to_service(catalogue, socket.t_ns, socket.process, where_to, what)
}

/// An endpoint that is this machine's, or may be.
struct Here {
    to: Endpoint,
    is_certain: bool,
}

/// None if it is another machine's. A route that leads to this machine need not be to an address of it (`ip route
/// add local`), and one of its addresses may have come later.
fn where_to(
    story: &Story,
    to: Endpoint,
    source: Option<IpAddr>,
    route_is_local: Option<bool>,
) -> Option<Here> {
    let is_certain = is_loopback(to.address)
        || story.start.host.addresses.contains(&to.address.to_canonical())
        || source.is_some_and(|from| is_loopback(from) || from == to.address)
        || route_is_local == Some(true);
    (is_certain || route_is_local.is_none()).then_some(Here { to, is_certain })
}

/// If the catalogue has the port.
fn to_service(
    catalogue: &Catalogue,
    t_ns: u64,
    process: ProcessKey,
    Here { to, is_certain }: Here,
    what: &str,
) -> Option<HandOff> {
    let point = catalogue.port(to.port)?;
    let which = if is_certain {
        "a service of this machine"
    } else {
        "what may be a service of this machine"
    };
    let how = format!("{what} to {which}, which {}", point.why);
    let via = Bytes::from(to.to_string().as_str());
    Some(hand_off(t_ns, process, &point.name, via, how))
}

fn is_loopback(address: IpAddr) -> bool {
    let address = address.to_canonical();
    // The kernel takes the unspecified address for this machine too.
    address.is_loopback() || address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::{
        super::by_pid::tests::{ROOT, story},
        Connect, ConnectResult, ForeignSend, FoundSocket, HandOffs, Intrusion, IntrusionMeans,
        LocalSend, OddSocket, Outcome, Record, SocketProtocol,
    };
    use crate::{catalogue::Catalogue, model::Endpoint, record::schema::Close};

    /// Port 22 leads to whatever the machine's users may run.
    const PORT: u16 = 22;

    fn end(address: &str, port: u16) -> Option<Endpoint> {
        Some(Endpoint { address: address.parse().unwrap(), port })
    }

    fn connect(to: &str) -> Record {
        Record::Connect(Connect {
            t_ns: 5,
            process: ROOT,
            thread: 10,
            connection: 1,
            cookie: None,
            destination: end(to, PORT),
            net_ns_inum: 1,
            unread: Vec::new(),
        })
    }

    /// Of a connection whose route leads elsewhere.
    fn result(outcome: Outcome, from: Option<Endpoint>) -> Record {
        with_route(outcome, from, Some(false))
    }

    fn with_route(outcome: Outcome, from: Option<Endpoint>, local: Option<bool>) -> Record {
        Record::ConnectResult(ConnectResult {
            t_ns: 6,
            process: ROOT,
            connection: 1,
            outcome,
            connect_ns: None,
            source: from,
            local,
            unread: Vec::new(),
        })
    }

    #[test]
    fn a_service_of_this_machine_by_any_of_its_addresses() {
        let mut story = story();
        story.start.host.addresses = vec!["192.168.7.9".parse().unwrap()];
        let mut hand_offs = HandOffs::new(Catalogue::embedded().clone());
        let mut is_handed = |from: &str, to: &str| {
            assert!(hand_offs.of(&connect(to), &story).is_none());
            let result = result(Outcome::Established, end(from, 40_000));
            hand_offs.of(&result, &story).is_some()
        };
        assert!(is_handed("127.0.0.1", "127.0.0.1"));
        assert!(is_handed("192.168.7.9", "192.168.7.9"));
        assert!(is_handed("172.17.0.1", "192.168.7.9"), "from another of its addresses");
        assert!(is_handed("172.17.0.1", "::ffff:192.168.7.9"));
        assert!(is_handed("127.0.0.1", "172.17.0.1"), "over loopback nobody else is reached");
        assert!(!is_handed("192.168.7.9", "192.168.7.10"));
    }

    #[test]
    fn a_service_of_this_machine_by_a_route_that_leads_there() {
        let mut hand_offs = HandOffs::new(Catalogue::embedded().clone());
        let mut how = |local| {
            assert!(hand_offs.of(&connect("10.5.0.1"), &story()).is_none());
            let result = with_route(Outcome::Established, end("192.168.7.9", 40_000), local);
            hand_offs.of(&result, &story()).map(|hand_off| hand_off.how)
        };
        assert!(how(Some(true)).is_some_and(|how| how.contains("to a service of this machine")));
        assert!(how(None).is_some_and(|how| how.contains("what may be a service of this machine")));
        assert_eq!(how(Some(false)), None);
    }

    #[test]
    fn a_service_of_this_machine_by_a_connection_of_unknown_outcome() {
        let story = story();
        let mut hand_offs = HandOffs::new(Catalogue::embedded().clone());
        let mut of_connect = |to: &str, record: Option<Record>| {
            assert!(hand_offs.of(&connect(to), &story).is_none());
            let now = record.and_then(|record| hand_offs.of(&record, &story));
            let (now, rest) = (now.into_iter().collect::<Vec<_>>(), hand_offs.rest(&story));
            assert!(now.is_empty() || rest.is_empty(), "it is said twice: {now:?}, {rest:?}");
            now.into_iter().chain(rest).map(|hand_off| hand_off.how).collect::<Vec<_>>()
        };
        let is_unknown = |how: Vec<String>| how.len() == 1 && how[0].contains("not known whether");
        assert!(is_unknown(of_connect("192.168.7.10", None)), "nor is where its route leads");
        let mut of = |record| of_connect("127.0.0.1", record);
        assert!(is_unknown(of(None)), "it may have come about after the end");
        assert!(is_unknown(of(Some(result(Outcome::Unknown, None)))));
        assert!(is_unknown(of(Some(Record::Close(Close {
            t_ns: 7,
            process: ROOT,
            connection: 1,
            sent_bytes: None,
            received_bytes: None,
            duration_ns: None,
            unread: Vec::new(),
        })))));
        assert!(of(Some(result(Outcome::Abandoned, None))).is_empty());
        assert_eq!(of(Some(result(Outcome::Established, None))).len(), 1);
    }

    #[test]
    fn a_service_of_this_machine_by_a_connection_of_somebody_else() {
        let story = story();
        let mut hand_offs = HandOffs::new(Catalogue::embedded().clone());
        let mut is_handed_by = |protocol, to: Option<Endpoint>, local| {
            let send = Record::ForeignSend(ForeignSend {
                t_ns: 5,
                process: ROOT,
                thread: 10,
                protocol,
                raw: false,
                destination: to,
                local,
                net_ns_inum: 1,
                unread: Vec::new(),
            });
            hand_offs.of(&send, &story).is_some()
        };
        const TCP: u16 = 6;
        const UDP: u16 = 17;
        assert!(is_handed_by(TCP, end("192.168.7.10", PORT), Some(true)));
        assert!(is_handed_by(TCP, end("192.168.7.10", PORT), None), "that is not known");
        let mut is_handed = |protocol, to| is_handed_by(protocol, to, Some(false));
        assert!(is_handed(TCP, end("127.0.0.1", PORT)));
        assert!(!is_handed(TCP, end("127.0.0.1", 443)));
        assert!(!is_handed(TCP, end("192.168.7.10", PORT)));
        assert!(!is_handed(UDP, end("127.0.0.1", PORT)));
        assert!(!is_handed(TCP, None));
    }

    #[test]
    fn a_service_of_this_machine_by_a_connection_of_before() {
        let story = story();
        let mut hand_offs = HandOffs::new(Catalogue::embedded().clone());
        let mut is_handed_from = |local: &str, protocol, remote: Option<&str>| {
            let socket = Record::FoundSocket(FoundSocket {
                t_ns: 5,
                process: ROOT,
                inode: 1,
                protocol,
                kind: None,
                local: local.parse().ok(),
                remote: remote.map(|remote| remote.parse().unwrap()),
                state: None,
                path: None,
            });
            hand_offs.of(&socket, &story).is_some()
        };
        let tcp = Some(SocketProtocol::Tcp);
        assert!(is_handed_from("10.5.0.1:40000", tcp, Some("10.5.0.1:22")));
        let mut is_handed =
            |protocol, remote| is_handed_from("192.168.7.9:40000", protocol, remote);
        assert!(is_handed(tcp, Some("127.0.0.1:22")));
        assert!(is_handed(None, Some("[::1]:22")));
        assert!(!is_handed(tcp, Some("127.0.0.1:443")));
        assert!(!is_handed(tcp, Some("192.168.7.10:22")));
        assert!(!is_handed(Some(SocketProtocol::Udp), Some("127.0.0.1:22")));
        assert!(!is_handed(tcp, None));
    }

    #[test]
    fn a_service_of_this_machine_by_a_socket_that_shows_no_port() {
        const INET: u16 = 2;
        const STREAM: u16 = 1;
        const RAW: u16 = 3;
        let mut hand_offs = HandOffs::new(Catalogue::embedded().clone());
        let mut is_handed = |family, socket_type, protocol| {
            let (t_ns, process, thread) = (5, ROOT, 10);
            let socket = OddSocket { t_ns, process, thread, family, socket_type, protocol };
            hand_offs.of(&Record::OddSocket(socket), &story()).is_some()
        };
        assert!(is_handed(INET, RAW, 6), "TCP by hand");
        assert!(is_handed(INET, RAW, 255), "whole packets");
        assert!(!is_handed(INET, RAW, 1), "ping");
        assert!(!is_handed(INET, STREAM, 132), "SCTP, which is listed");
        assert!(is_handed(17, RAW, 0), "packets of a device");
        assert!(is_handed(40, STREAM, 0), "vsock");
        assert!(!is_handed(31, STREAM, 3), "Bluetooth");
    }

    /// Of the story's process 10 there was one until 10 and is another one since 20.
    #[test]
    fn a_pid_is_the_trees_while_one_of_it_has_it() {
        let story = story();
        let mut hand_offs = HandOffs::new(Catalogue::embedded().clone());
        let mut is_handed = |record| hand_offs.of(&record, &story).is_some();
        for (t_ns, is_outside) in [(7, false), (15, true), (25, false)] {
            let mut is_sent_by = |peer_reaped, any_peer| {
                is_handed(Record::LocalSend(LocalSend {
                    t_ns,
                    process: ROOT,
                    peer_pid: Some(10),
                    peer_reaped,
                    peer_uid: None,
                    peer: None,
                    socket_inode: None,
                    any_peer,
                }))
            };
            assert!(is_sent_by(false, true), "sent at {t_ns} to whomever");
            let mut is_sent = |peer_reaped| is_sent_by(peer_reaped, false);
            assert_eq!(is_sent(false), is_outside, "sent at {t_ns}");
            assert!(is_sent(true), "sent at {t_ns} to one that had ended");
            let intrusion = Intrusion {
                t_ns,
                process: ROOT,
                means: IntrusionMeans::DebuggerAccess,
                target: 10,
            };
            assert_eq!(is_handed(Record::Intrusion(intrusion)), is_outside, "debugged at {t_ns}");
        }
    }
}
