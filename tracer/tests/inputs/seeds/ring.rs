//! Records as the kernel side writes them.

use tracer_ebpf::abi::{
    AF_INET, ArgvChunk, Attempt, CgroupMove, Close, Connect, ConnectResult, Datagram, Exec, Exit,
    Flow, ForeignSend, Fork, Header, Intrusion, Kind, LocalSend, OddSocket, Payload, Resolve, Root,
    SocketAddress, TlsBegin, TlsData, TlsEnd,
};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use super::{super::made, REQUEST, RESPONSE, pieces};

fn header(kind: Kind, time_ns: u64) -> Header {
    Header { kind: kind as u32, time_ns, tgid: 7, start_ns: 1, tid: 7, ..Header::default() }
}

/// A process that executes something, connects, says its hello and a request, sends a datagram, ends.
pub(super) fn session() -> Vec<u8> {
    let flow = Flow { cookie: 5, address: [9; 16], port: 443, protocol: 6, padding: 0 };
    let address = SocketAddress { family: AF_INET, destination_port: 443, ..Default::default() };
    let payload = |at: u64, bytes: &[u8]| {
        let fixed = Payload {
            header: header(Kind::Payload, at),
            flow,
            connection: 3,
            offset_bytes: 0,
            wire_bytes: bytes.len() as u32,
            len: bytes.len() as u32,
            incoming: 0,
            padding: 0,
        };
        of(&fixed, bytes)
    };
    let tls = |received: u32, bytes: &[u8]| {
        let fixed = TlsData {
            header: header(Kind::TlsData, 20),
            stream: 1,
            offset_bytes: 0,
            began_ns: 19,
            length_bytes: bytes.len() as u64,
            len: bytes.len() as u32,
            received,
        };
        of(&fixed, bytes)
    };
    let exec = Exec {
        header: header(Kind::Exec, 3),
        argv_len: 8,
        argc: 2,
        filename_len: 6,
        path_len: 7,
        cwd_len: 2,
        argv_inline_len: 8,
        ..Exec::default()
    };
    pieces([
        of(&Root { header: header(Kind::Root, 1), ns_pid: 7, parent_tgid: 1 }, b""),
        of(&Fork { header: header(Kind::Fork, 2), child_tgid: 8, ..Fork::default() }, b""),
        of(&exec, b"bin/a\0a\0bin\0\0/\0a\0x y z\0"),
        of(&Connect { header: header(Kind::Connect, 4), id: 3, cookie: 5, address }, b""),
        of(
            &ConnectResult {
                header: header(Kind::ConnectResult, 5),
                id: 3,
                cookie: 5,
                address,
                established: 1,
                ..ConnectResult::default()
            },
            b"",
        ),
        payload(6, made::OPENSSL),
        of(&TlsBegin { header: header(Kind::TlsBegin, 18), stream: 1, ..TlsBegin::default() }, b""),
        tls(0, REQUEST),
        tls(1, RESPONSE),
        of(&TlsEnd { header: header(Kind::TlsEnd, 21), stream: 1, bytes: [200, 90] }, b""),
        of(&Close { header: header(Kind::Close, 22), id: 3, ..Close::default() }, b""),
        of(
            &Datagram {
                header: header(Kind::Datagram, 23),
                flow,
                via: 1,
                net_ns_inum: 1,
                unspecified: 0,
                padding: 0,
            },
            b"",
        ),
        of(&Exit { header: header(Kind::Exit, 24), wait_status: 0, execs: 1 }, b""),
    ])
}

/// A record of each kind, as large as its fixed part is, and most of it zeros.
pub(super) fn every_kind() -> Vec<u8> {
    fn zeros<T: FromZeros + IntoBytes + Immutable>() -> Vec<u8> {
        T::new_zeroed().as_bytes().to_vec()
    }
    pieces((0..).zip(Kind::ALL).map(|(number, kind)| {
        let mut record = match kind {
            Kind::Root => zeros::<Root>(),
            Kind::Fork => zeros::<Fork>(),
            Kind::Exec => zeros::<Exec>(),
            Kind::ArgvChunk => zeros::<ArgvChunk>(),
            Kind::Exit => zeros::<Exit>(),
            Kind::Connect => zeros::<Connect>(),
            Kind::ConnectResult => zeros::<ConnectResult>(),
            Kind::Close => zeros::<Close>(),
            Kind::Attempt => zeros::<Attempt>(),
            Kind::LocalSend => zeros::<LocalSend>(),
            Kind::Intrusion => zeros::<Intrusion>(),
            Kind::Datagram => zeros::<Datagram>(),
            Kind::OddSocket => zeros::<OddSocket>(),
            Kind::CgroupMove => zeros::<CgroupMove>(),
            Kind::Payload => zeros::<Payload>(),
            Kind::ForeignSend => zeros::<ForeignSend>(),
            Kind::Resolve => zeros::<Resolve>(),
            Kind::TlsData => zeros::<TlsData>(),
            Kind::TlsBegin => zeros::<TlsBegin>(),
            Kind::TlsEnd => zeros::<TlsEnd>(),
        };
        let header = header(*kind, number);
        record[..size_of::<Header>()].copy_from_slice(header.as_bytes());
        record
    }))
}

/// A question and its answer over UDP, over TCP in two pieces, and a first packet of QUIC.
pub(super) fn names() -> Vec<u8> {
    let question = made::question(1, "a.example", made::A);
    let address = made::record(None, made::A, &[192, 0, 2, 1]);
    let answer = made::answer(1, "a.example", made::A, &[address]);
    let framed = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
    let piece = |at: u64, to: (u16, u16, u64), offset_bytes: u64, incoming: u32, bytes: &[u8]| {
        let (port, protocol, cookie) = to;
        let fixed = Payload {
            header: header(Kind::Payload, at),
            flow: Flow { cookie, address: [9; 16], port, protocol, padding: 0 },
            connection: if protocol == 6 { cookie } else { 0 },
            offset_bytes,
            wire_bytes: bytes.len() as u32,
            len: bytes.len() as u32,
            incoming,
            padding: 0,
        };
        of(&fixed, bytes)
    };
    let (udp, tcp, quic) = ((53, 17, 1), (53, 6, 2), (443, 17, 3));
    pieces([
        of(&Root { header: header(Kind::Root, 1), ns_pid: 7, parent_tgid: 1 }, b""),
        piece(2, udp, 0, 0, &question),
        piece(3, udp, 0, 1, &answer),
        piece(4, tcp, 20, 1, &framed[20..]),
        piece(5, tcp, 0, 1, &framed[..20]),
        piece(6, quic, 0, 0, made::QUIC_V1),
    ])
}

fn fork_of(child_tgid: u32, child_start_ns: u64, at_ns: u64) -> Vec<u8> {
    let header = header(Kind::Fork, at_ns);
    of(&Fork { header, child_tgid, child_start_ns, ..Fork::default() }, b"")
}

fn exit_of(tgid: u32, start_ns: u64, at_ns: u64) -> Vec<u8> {
    let header = Header { tgid, start_ns, tid: tgid, ..header(Kind::Exit, at_ns) };
    of(&Exit { header, wait_status: 9, execs: 0 }, b"")
}

/// A number of a process that another process gets after it.
pub(super) fn a_pid_twice() -> Vec<u8> {
    pieces([
        of(&Root { header: header(Kind::Root, 1), ns_pid: 7, parent_tgid: 1 }, b""),
        fork_of(8, 2, 2),
        exit_of(8, 2, 3),
        fork_of(8, 4, 4),
        exit_of(8, 4, 5),
        exit_of(7, 1, 6),
    ])
}

/// What a process did comes before that it was forked, as it can from the rings of two processors.
pub(super) fn a_late_fork() -> Vec<u8> {
    let of_child = |kind, at| Header { tgid: 8, start_ns: 2, tid: 8, ..header(kind, at) };
    let connect = Connect {
        header: of_child(Kind::Connect, 4),
        id: 3,
        cookie: 5,
        address: SocketAddress { family: AF_INET, destination_port: 443, ..Default::default() },
    };
    let exec = Exec {
        header: of_child(Kind::Exec, 3),
        argv_len: 9_000,
        argc: 2,
        filename_len: 6,
        argv_inline_len: 8,
        argv_chunks: 1,
        ..Exec::default()
    };
    let mut chunk = ArgvChunk::new_zeroed();
    (chunk.header, chunk.offset_bytes, chunk.len) = (of_child(Kind::ArgvChunk, 3), 4_096, 100);
    pieces([
        of(&Root { header: header(Kind::Root, 1), ns_pid: 7, parent_tgid: 1 }, b""),
        of(&chunk, b""),
        of(&exec, b"bin/a\0a\0b c d\0"),
        of(&connect, b""),
        exit_of(8, 2, 5),
        fork_of(8, 2, 2),
        exit_of(7, 1, 6),
    ])
}

fn of(fixed: &(impl IntoBytes + Immutable), rest: &[u8]) -> Vec<u8> {
    [fixed.as_bytes(), rest].concat()
}
