//! Decodes one ring record. Total: every malformed shape is an error, none panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tracer_ebpf::abi::{
    self, AF_INET, AF_INET6, ATTEMPT_NAME_BYTES, Exec, Flow, Header, Kind, Means, SOCK_RAW,
    SocketAddress, Via, header_flag, route, unread,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::model::{
    ArgvPiece, AttemptEvent, Bytes, CgroupMoveEvent, CloseEvent, ConnectEvent, ConnectResultEvent,
    DatagramEvent, Endpoint, Event, EventHeader, ExecEvent, ExitEvent, ForeignSendEvent, ForkEvent,
    IntrusionEvent, LocalSendEvent, OddSocketEvent, PayloadEvent, ProcessKey, ResolveEvent,
    RootEvent, TlsBeginEvent, TlsDataEvent, TlsEndEvent,
};

/// Why a record could not be decoded. Any of these is a bug or an attack on the rings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("record of {0} bytes is shorter than its fixed part")]
    TooShort(usize),
    #[error("record kind {0} is unknown")]
    UnknownKind(u32),
    #[error("means {0} is unknown")]
    UnknownMeans(u32),
    #[error("way {0} to get a destination is unknown")]
    UnknownVia(u32),
    #[error("lengths inside the record add up to {claimed} bytes, but it has {present}")]
    Lengths { claimed: usize, present: usize },
}

fn fixed<T: FromBytes + KnownLayout + Immutable>(record: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    T::read_from_prefix(record).map_err(|_| DecodeError::TooShort(record.len()))
}

pub fn decode(record: &[u8]) -> Result<Event, DecodeError> {
    let (header, _) = fixed::<Header>(record)?;
    let kind = Kind::try_from(header.kind)
        .map_err(|abi::UnknownKind(kind)| DecodeError::UnknownKind(kind))?;
    Ok(match kind {
        Kind::Root => Event::Root(root(&fixed(record)?.0)),
        Kind::Fork => Event::Fork(fork(&fixed(record)?.0)),
        Kind::Exec => Event::Exec(Box::new(exec(record)?)),
        Kind::ArgvChunk => Event::ArgvPiece(argv_piece(record)?),
        Kind::Exit => {
            let (exit, _) = fixed::<abi::Exit>(record)?;
            Event::Exit(ExitEvent {
                header: event_header(&exit.header),
                wait_status: exit.wait_status,
                execs: exit.execs,
            })
        }
        Kind::Connect => Event::Connect(connect(&fixed(record)?.0)),
        Kind::ConnectResult => Event::ConnectResult(connect_result(&fixed(record)?.0)),
        Kind::Close => {
            let (close, _) = fixed::<abi::Close>(record)?;
            Event::Close(CloseEvent {
                header: event_header(&close.header),
                id: close.id,
                sent_bytes: close.sent_bytes,
                received_bytes: close.received_bytes,
            })
        }
        Kind::Attempt => Event::Attempt(Box::new(attempt(&fixed(record)?.0)?)),
        Kind::LocalSend => Event::LocalSend(local_send(&fixed(record)?.0)?),
        Kind::Intrusion => {
            let (intrusion, _) = fixed::<abi::Intrusion>(record)?;
            Event::Intrusion(IntrusionEvent {
                header: event_header(&intrusion.header),
                means: Means::try_from(intrusion.means).map_err(DecodeError::UnknownMeans)?,
                target: intrusion.target,
            })
        }
        Kind::Datagram => Event::Datagram(datagram(&fixed(record)?.0)?),
        Kind::OddSocket => {
            let (socket, _) = fixed::<abi::OddSocket>(record)?;
            Event::OddSocket(OddSocketEvent {
                header: event_header(&socket.header),
                family: socket.family,
                socket_type: socket.socket_type,
                protocol: socket.protocol,
            })
        }
        Kind::ForeignSend => Event::ForeignSend(foreign_send(&fixed(record)?.0)),
        Kind::CgroupMove => Event::CgroupMove(cgroup_move(&fixed(record)?.0)?),
        Kind::Payload => Event::Payload(Box::new(payload(record)?)),
        Kind::Resolve => Event::Resolve(resolve(&fixed(record)?.0)?),
        Kind::TlsData => Event::TlsData(Box::new(tls_data(record)?)),
        Kind::TlsBegin => Event::TlsBegin(Box::new(tls_begin(&fixed(record)?.0)?)),
        Kind::TlsEnd => {
            let (end, _) = fixed::<abi::TlsEnd>(record)?;
            let [sent_bytes, received_bytes] = end.bytes;
            Event::TlsEnd(TlsEndEvent {
                header: event_header(&end.header),
                stream: end.stream,
                sent_bytes,
                received_bytes,
            })
        }
    })
}

fn event_header(header: &Header) -> EventHeader {
    EventHeader {
        time_ns: header.time_ns,
        process: ProcessKey { pid: header.tgid, start_ns: header.start_ns },
        tid: header.tid,
        cpu: header.cpu,
        flags: header.flags,
        unread: header.unread,
    }
}

fn root(root: &abi::Root) -> RootEvent {
    RootEvent {
        header: event_header(&root.header),
        ns_pid: root.ns_pid,
        parent_pid: root.parent_tgid,
    }
}

fn fork(fork: &abi::Fork) -> ForkEvent {
    ForkEvent {
        header: event_header(&fork.header),
        child: ProcessKey { pid: fork.child_tgid, start_ns: fork.child_start_ns },
        child_ns_pid: fork.child_ns_pid,
        child_parent_pid: fork.child_parent_tgid,
        untracked: fork.header.flags & header_flag::UNTRACKED != 0,
    }
}

fn exec(record: &[u8]) -> Result<ExecEvent, DecodeError> {
    let (exec, mut rest) = fixed::<Exec>(record)?;
    let lengths = [
        exec.filename_len,
        exec.interp_len,
        exec.path_len,
        exec.cwd_len,
        exec.script_path_len,
        exec.argv_inline_len,
    ];
    // A ring record may be padded at its end, never shorter than its parts.
    let claimed = lengths.iter().fold(0usize, |sum, len| sum.saturating_add(*len as usize));
    if claimed > rest.len() {
        return Err(DecodeError::Lengths { claimed, present: rest.len() });
    }
    let mut take = |len: u32| {
        let (part, left) = rest.split_at(len as usize);
        rest = left;
        part
    };
    let [filename, interpreter, path, cwd, script_path, argv] = lengths.map(&mut take);
    Ok(ExecEvent {
        header: event_header(&exec.header),
        file: exec.file,
        flags: exec.exec_flags,
        old_tid: exec.old_tid,
        ns_pid: exec.ns_pid,
        pid_ns_inum: exec.pid_ns_inum,
        uid: exec.uid,
        euid: exec.euid,
        gid: exec.gid,
        egid: exec.egid,
        cgroup_id: exec.cgroup_id,
        argc: exec.argc,
        argv_inline: argv.to_vec(),
        argv_len: exec.argv_len,
        argv_chunks: exec.argv_chunks,
        filename: c_string(filename),
        interpreter: c_string(interpreter),
        path: leaf_first_path(path),
        cwd: leaf_first_path(cwd),
        script: exec.script,
        script_path: leaf_first_path(script_path),
        environment: exec.environment,
        stdio: exec.stdio,
    })
}

fn argv_piece(record: &[u8]) -> Result<ArgvPiece, DecodeError> {
    // Only the used part of the array is defined, so the chunk is not read as a whole.
    const BYTES_AT: usize = std::mem::offset_of!(abi::ArgvChunk, bytes);
    let (header, _) = fixed::<Header>(record)?;
    let (offset_bytes, rest) = fixed::<u64>(record.get(size_of::<Header>()..).unwrap_or_default())?;
    let (len, _) = fixed::<u32>(rest)?;
    let bytes = record.get(BYTES_AT..).unwrap_or_default();
    let bytes = bytes
        .get(..len as usize)
        .ok_or(DecodeError::Lengths { claimed: len as usize, present: bytes.len() })?;
    Ok(ArgvPiece { header: event_header(&header), offset_bytes, bytes: bytes.to_vec() })
}

fn connect(connect: &abi::Connect) -> ConnectEvent {
    ConnectEvent {
        header: event_header(&connect.header),
        id: connect.id,
        cookie: connect.cookie,
        destination: endpoints(&connect.header, &connect.address).map(|(_, to)| to),
        net_ns_inum: connect.address.net_ns_inum,
    }
}

fn connect_result(result: &abi::ConnectResult) -> ConnectResultEvent {
    ConnectResultEvent {
        header: event_header(&result.header),
        id: result.id,
        source: endpoints(&result.header, &result.address).map(|(from, _)| from),
        local: is_local(&result.address),
        established: result.established != 0,
        errno: result.error,
        unsent: result.unsent != 0,
    }
}

fn attempt(attempt: &abi::Attempt) -> Result<AttemptEvent, DecodeError> {
    let filename = prefix(&attempt.filename, attempt.filename_len)?;
    let argv = prefix(&attempt.argv, attempt.argv_len)?;
    let args = match argv.strip_suffix(&[0]) {
        Some(argv) => argv.split(|byte| *byte == 0).map(Bytes::from).collect(),
        None => Vec::new(),
    };
    Ok(AttemptEvent {
        header: event_header(&attempt.header),
        errno: attempt.errno,
        filename: c_string(filename),
        filename_cut: attempt.filename_len as usize == ATTEMPT_NAME_BYTES,
        args,
        argv_complete: attempt.argv_complete != 0,
    })
}

fn local_send(send: &abi::LocalSend) -> Result<LocalSendEvent, DecodeError> {
    let name = prefix(&send.peer_name, send.peer_name_len)?;
    // A path ends at its NUL or at its length; an abstract name, which begins with one, has all bytes.
    let end = name.iter().skip(1).position(|byte| *byte == 0).map_or(name.len(), |at| at + 1);
    let name = if name.first() == Some(&0) { name } else { &name[..end] };
    Ok(LocalSendEvent {
        header: event_header(&send.header),
        socket_inode: send.socket_inode,
        peer_pid: send.peer_tgid,
        peer_reaped: send.peer_reaped != 0,
        peer_uid: (send.peer_uid != u32::MAX).then_some(send.peer_uid),
        peer_name: Bytes::from(name),
        any_peer: send.any_peer != 0,
    })
}

fn datagram(datagram: &abi::Datagram) -> Result<DatagramEvent, DecodeError> {
    Ok(DatagramEvent {
        header: event_header(&datagram.header),
        cookie: datagram.flow.cookie,
        protocol: datagram.flow.protocol,
        destination: flow_destination(&datagram.flow),
        via: Via::try_from(datagram.via).map_err(DecodeError::UnknownVia)?,
        net_ns_inum: datagram.net_ns_inum,
        unspecified: datagram.unspecified != 0,
    })
}

fn foreign_send(send: &abi::ForeignSend) -> ForeignSendEvent {
    let ends = endpoints(&send.header, &send.address);
    ForeignSendEvent {
        header: event_header(&send.header),
        destination: ends.map(|(_, to)| to).filter(|to| to.port != 0),
        local: is_local(&send.address),
        protocol: send.protocol,
        raw: send.socket_type == SOCK_RAW,
        net_ns_inum: send.address.net_ns_inum,
    }
}

/// An IPv4 address is one, whatever family its socket has.
pub fn flow_destination(flow: &Flow) -> Endpoint {
    Endpoint { address: Ipv6Addr::from(flow.address).to_canonical(), port: flow.port }
}

fn cgroup_move(moved: &abi::CgroupMove) -> Result<CgroupMoveEvent, DecodeError> {
    Ok(CgroupMoveEvent {
        header: event_header(&moved.header),
        to_cgroup_id: moved.to_cgroup_id,
        to_path: c_string(prefix(&moved.to_path, moved.to_path_len)?),
    })
}

fn payload(record: &[u8]) -> Result<PayloadEvent, DecodeError> {
    let (payload, rest) = fixed::<abi::Payload>(record)?;
    Ok(PayloadEvent {
        header: event_header(&payload.header),
        cookie: payload.flow.cookie,
        connection: (payload.connection != 0).then_some(payload.connection),
        destination: Some(flow_destination(&payload.flow)),
        protocol: payload.flow.protocol,
        incoming: payload.incoming != 0,
        offset_bytes: payload.offset_bytes,
        wire_bytes: payload.wire_bytes,
        bytes: prefix(rest, payload.len)?.to_vec(),
    })
}

fn tls_data(record: &[u8]) -> Result<TlsDataEvent, DecodeError> {
    let (data, rest) = fixed::<abi::TlsData>(record)?;
    Ok(TlsDataEvent {
        header: event_header(&data.header),
        stream: data.stream,
        received: data.received != 0,
        began_ns: data.began_ns,
        offset_bytes: data.offset_bytes,
        length_bytes: data.length_bytes,
        bytes: prefix(rest, data.len)?.to_vec(),
    })
}

fn tls_begin(begin: &abi::TlsBegin) -> Result<TlsBeginEvent, DecodeError> {
    let (claimed, present) = (begin.count as usize, begin.randoms.len());
    let randoms = begin.randoms.get(..claimed).ok_or(DecodeError::Lengths { claimed, present })?;
    Ok(TlsBeginEvent {
        header: event_header(&begin.header),
        stream: begin.stream,
        session: begin.session,
        randoms: randoms.to_vec(),
    })
}

fn resolve(resolve: &abi::Resolve) -> Result<ResolveEvent, DecodeError> {
    let name = prefix(&resolve.name, resolve.name_len)?;
    let (claimed, present) = (resolve.count as usize, resolve.addresses.len());
    if claimed > present {
        return Err(DecodeError::Lengths { claimed, present });
    }
    let addresses = resolve.families.iter().zip(resolve.addresses).take(claimed);
    Ok(ResolveEvent {
        header: event_header(&resolve.header),
        name: c_string(name),
        name_cut: name.len() == resolve.name.len(),
        error: resolve.error,
        more: resolve.more != 0,
        addresses: addresses.filter_map(|(family, bytes)| ip(*family, bytes)).collect(),
    })
}

/// The used part of an array.
fn prefix(bytes: &[u8], len: u32) -> Result<&[u8], DecodeError> {
    bytes
        .get(..len as usize)
        .ok_or(DecodeError::Lengths { claimed: len as usize, present: bytes.len() })
}

/// Source and destination, unless the kernel side could not read them.
fn endpoints(header: &Header, address: &SocketAddress) -> Option<(Endpoint, Endpoint)> {
    if header.unread & unread::ADDRESS != 0 {
        return None;
    }
    let ip = |bytes| ip(address.family, bytes);
    Some((
        Endpoint { address: ip(address.source)?, port: address.source_port },
        Endpoint { address: ip(address.destination)?, port: address.destination_port },
    ))
}

fn is_local(address: &SocketAddress) -> Option<bool> {
    match address.route {
        route::LOCAL => Some(true),
        route::ELSEWHERE => Some(false),
        _ => None,
    }
}

fn ip(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))),
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

/// Without the NUL that ends it.
fn c_string(bytes: &[u8]) -> Bytes {
    Bytes(bytes.strip_suffix(&[0]).unwrap_or(bytes).to_vec())
}

/// `"aws\0bin\0usr\0"` is `/usr/bin/aws`; a name that starts with a slash is the root itself.
fn leaf_first_path(bytes: &[u8]) -> Bytes {
    let Some(parts) = bytes.strip_suffix(&[0]) else { return Bytes::default() };
    let mut path = Vec::with_capacity(bytes.len() + 1);
    for part in parts.split(|byte| *byte == 0).rev() {
        if part != b"/" {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    Bytes(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    fn header(kind: u32) -> Header {
        Header { kind, tgid: 7, start_ns: 9, ..Header::default() }
    }

    #[test]
    fn paths_are_turned_round() {
        let path = |bytes: &[u8]| leaf_first_path(bytes).lossy().into_owned();
        assert_eq!(path(b"aws\0bin\0usr\0"), "/usr/bin/aws");
        assert_eq!(path(b"/\0"), "/");
        assert_eq!(path(b""), "");
        assert_eq!(path(b"no end"), "");
    }

    #[test]
    fn every_malformed_shape_is_an_error() {
        let short = |len| Err(DecodeError::TooShort(len));
        assert_eq!(decode(&[]), short(0));
        assert_eq!(decode(&[0; 8]), short(8));
        assert_eq!(decode(header(99).as_bytes()), Err(DecodeError::UnknownKind(99)));
        for kind in Kind::ALL {
            let bytes = header(*kind as u32);
            assert!(decode(bytes.as_bytes()).is_err(), "{kind:?} without its payload");
        }
        let exec = Exec {
            header: header(Kind::Exec as u32),
            filename_len: u32::MAX,
            interp_len: u32::MAX,
            ..Exec::default()
        };
        assert!(matches!(decode(exec.as_bytes()), Err(DecodeError::Lengths { present: 0, .. })));
        let mut chunk = Vec::from(header(Kind::ArgvChunk as u32).as_bytes());
        chunk.extend(0u64.to_ne_bytes());
        chunk.extend(5u32.to_ne_bytes());
        chunk.extend([0; 4]);
        chunk.extend(b"abc");
        assert_eq!(decode(&chunk), Err(DecodeError::Lengths { claimed: 5, present: 3 }));
    }

    #[test]
    fn data_of_tls_with_wrong_lengths_is_malformed() {
        let data =
            abi::TlsData { header: header(Kind::TlsData as u32), len: 5, ..Default::default() };
        let mut record = Vec::from(data.as_bytes());
        record.extend(b"abc");
        let expected = Err(DecodeError::Lengths { claimed: 5, present: 3 });
        assert_eq!(decode(&record), expected);
        record.extend(b"de and what the ring had left");
        let Ok(Event::TlsData(event)) = decode(&record) else { panic!("no data") };
        assert_eq!(event.bytes, b"abcde");
        let count = abi::TLS_PLACES_MAX as u32 + 1;
        let begin =
            abi::TlsBegin { header: header(Kind::TlsBegin as u32), count, ..Default::default() };
        assert!(matches!(decode(begin.as_bytes()), Err(DecodeError::Lengths { .. })));
    }

    #[test]
    fn datagrams_to_mapped_addresses_go_to_ipv4() {
        let mut record =
            abi::Datagram { header: header(Kind::Datagram as u32), ..Default::default() };
        record.flow.address = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
        record.flow.port = 53;
        let Ok(Event::Datagram(event)) = decode(record.as_bytes()) else { panic!("no datagram") };
        assert_eq!(event.destination.to_string(), "192.0.2.1:53");
        record.via = 7;
        assert_eq!(decode(record.as_bytes()), Err(DecodeError::UnknownVia(7)));
    }

    #[test]
    fn resolver_calls_with_wrong_lengths_are_malformed() {
        let mut record = abi::Resolve::new_zeroed();
        record.header = header(Kind::Resolve as u32);
        record.name[..4].copy_from_slice(b"a.b\0");
        (record.name_len, record.count) = (4, 2);
        (record.families[0], record.addresses[0][0]) = (AF_INET, 10);
        record.families[1] = 99;
        let Ok(Event::Resolve(event)) = decode(record.as_bytes()) else { panic!("no call") };
        assert_eq!((event.name, event.name_cut), (Bytes::from("a.b"), false));
        assert_eq!(event.addresses, [IpAddr::from([10, 0, 0, 0])], "what is no address is none");
        record.count = 17;
        assert_eq!(
            decode(record.as_bytes()),
            Err(DecodeError::Lengths { claimed: 17, present: 16 })
        );
        (record.count, record.name_len) = (0, 257);
        assert!(decode(record.as_bytes()).is_err());
    }

    #[test]
    fn a_path_longer_than_its_room_is_malformed() {
        let mut record = Vec::from(header(Kind::CgroupMove as u32).as_bytes());
        record.extend(1u64.to_ne_bytes());
        record.extend(257u32.to_ne_bytes());
        record.extend([0; 4 + abi::CGROUP_PATH_BYTES]);
        assert_eq!(decode(&record), Err(DecodeError::Lengths { claimed: 257, present: 256 }));
    }

    #[test]
    fn payloads_have_as_many_bytes_as_they_say() {
        let payload =
            abi::Payload { header: header(Kind::Payload as u32), len: 3, ..Default::default() };
        let mut record = Vec::from(payload.as_bytes());
        record.extend(b"ab");
        assert_eq!(decode(&record), Err(DecodeError::Lengths { claimed: 3, present: 2 }));
        record.extend(b"c...");
        let Ok(Event::Payload(event)) = decode(&record) else { panic!("no payload") };
        assert_eq!((event.bytes.as_slice(), event.connection), (&b"abc"[..], None));
    }

    #[test]
    fn exec_strings_are_split_by_their_lengths() {
        let exec = Exec {
            header: header(Kind::Exec as u32),
            filename_len: 3,
            path_len: 8,
            argv_inline_len: 4,
            ..Exec::default()
        };
        let mut record = Vec::from(exec.as_bytes());
        record.extend(b"./a\x00");
        record.truncate(record.len() - 1);
        record.extend(b"a\0b\0c\0d\0");
        record.extend(b"x\0y\0");
        let Ok(Event::Exec(event)) = decode(&record) else { panic!("not an exec") };
        assert_eq!(event.filename, Bytes::from("./a"));
        assert_eq!(event.path, Bytes::from("/d/c/b/a"));
        assert_eq!(event.argv_inline, b"x\0y\0");
        assert!(event.cwd.is_empty());
    }
}
