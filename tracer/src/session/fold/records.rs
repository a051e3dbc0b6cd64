//! Records of events that need nothing but the event.

use std::net::IpAddr;

use tracer_ebpf::abi::{Means, Via, exec_flag, unread};

use crate::{
    model::{
        CgroupMoveEvent, DatagramEvent, EventHeader, ExecEvent, ExitEvent, FileVersion,
        ForeignSendEvent, ForkEvent, IntrusionEvent, LocalSendEvent, OddSocketEvent, ResolveEvent,
        nanoseconds,
    },
    protocol::host_name,
    record::schema::{
        CgroupMove, Datagram, DatagramVia, ExecutedFile, Exit, ForeignSend, Fork, Intrusion,
        IntrusionMeans, LocalSend, OddSocket, Record, Resolved, ScriptFile,
    },
};

/// The value, unless the kernel side could not read it.
pub(super) fn known<T>(header: &EventHeader, bit: u32, value: T) -> Option<T> {
    (!header.is_unread(bit)).then_some(value)
}

pub(in crate::session) fn names(header: &EventHeader) -> Vec<String> {
    unread::NAMES
        .iter()
        .filter(|(bit, _)| header.is_unread(*bit))
        .map(|(_, name)| (*name).to_owned())
        .collect()
}

pub(super) fn fork(event: &ForkEvent) -> Record {
    let header = &event.header;
    Record::Fork(Fork {
        t_ns: header.time_ns,
        process: header.process,
        child: event.child,
        child_ns_pid: known(header, unread::NS_PID, event.child_ns_pid),
        child_parent_pid: known(header, unread::PARENT, event.child_parent_pid)
            .filter(|parent| *parent != header.process.pid),
        untracked: event.untracked,
        unread: names(header),
    })
}

pub(super) fn script_file(event: &ExecEvent) -> ScriptFile {
    let version = FileVersion::from(&event.script);
    ScriptFile {
        id: version.id,
        size_bytes: version.size_bytes,
        ctime_ns: version.ctime_ns,
        path: event.script_path.clone(),
    }
}

pub(super) fn executed_file(event: &ExecEvent) -> ExecutedFile {
    let file = &event.file;
    ExecutedFile {
        path: known(&event.header, unread::PATH, event.path.clone()),
        path_cut: event.flags & exec_flag::PATH_CUT != 0,
        device: event.file_id().device,
        inode: file.key.inode,
        size_bytes: file.size_bytes,
        mtime_ns: nanoseconds(file.mtime_s, file.mtime_ns),
        ctime_ns: nanoseconds(file.ctime_s, file.ctime_ns),
        mode: file.mode,
    }
}

pub(super) fn exit(event: &ExitEvent) -> Record {
    let header = &event.header;
    let status = known(header, unread::STATUS, event.wait_status);
    // wait(2): the low seven bits are the signal, bit seven says a core was dumped.
    let signal = status.map(|status| status & 0x7f).filter(|signal| *signal != 0);
    let code = status.filter(|_| signal.is_none()).map(|status| status >> 8 & 0xff);
    let byte = |value: u32| u8::try_from(value).ok();
    Record::Exit(Exit {
        t_ns: header.time_ns,
        process: header.process,
        code: code.and_then(byte),
        signal: signal.and_then(byte),
        duration_ns: header.time_ns.saturating_sub(header.process.start_ns),
        execs: known(header, unread::EXEC_COUNT, event.execs),
        unread: names(header),
    })
}

pub(super) fn local_send(event: &LocalSendEvent) -> Record {
    Record::LocalSend(LocalSend {
        t_ns: event.header.time_ns,
        process: event.header.process,
        peer_pid: (event.peer_pid != 0).then_some(event.peer_pid),
        peer_reaped: event.peer_reaped,
        peer_uid: event.peer_uid,
        peer: (!event.peer_name.is_empty()).then(|| event.peer_name.clone()),
        socket_inode: (event.socket_inode != 0).then_some(event.socket_inode),
        any_peer: event.any_peer,
    })
}

pub(super) fn intrusion(event: &IntrusionEvent) -> Record {
    Record::Intrusion(Intrusion {
        t_ns: event.header.time_ns,
        process: event.header.process,
        means: match event.means {
            Means::DebuggerAccess => IntrusionMeans::DebuggerAccess,
            Means::Ptrace => IntrusionMeans::Ptrace,
            Means::WriteMemory => IntrusionMeans::WriteMemory,
            Means::TakeDescriptor => IntrusionMeans::TakeDescriptor,
        },
        target: event.target,
    })
}

pub(super) fn datagram(event: &DatagramEvent) -> Record {
    Record::Datagram(Datagram {
        t_ns: event.header.time_ns,
        process: event.header.process,
        thread: event.header.tid,
        cookie: event.cookie,
        protocol: event.protocol,
        destination: Some(event.destination),
        net_ns_inum: event.net_ns_inum,
        via: match event.via {
            Via::Connect => DatagramVia::Connect,
            Via::Send => DatagramVia::Send,
        },
        unspecified: event.unspecified,
        unread: names(&event.header),
    })
}

pub(super) fn odd_socket(event: &OddSocketEvent) -> Record {
    Record::OddSocket(OddSocket {
        t_ns: event.header.time_ns,
        process: event.header.process,
        thread: event.header.tid,
        family: event.family,
        socket_type: event.socket_type,
        protocol: event.protocol,
    })
}

pub(super) fn foreign_send(event: &ForeignSendEvent) -> Record {
    Record::ForeignSend(ForeignSend {
        t_ns: event.header.time_ns,
        process: event.header.process,
        thread: event.header.tid,
        protocol: event.protocol,
        raw: event.raw,
        destination: event.destination,
        local: event.local,
        net_ns_inum: event.net_ns_inum,
        unread: names(&event.header),
    })
}

pub(super) fn resolved(event: ResolveEvent) -> Record {
    let header = &event.header;
    // The beginning of a name is another name.
    let addresses = if event.name_cut { Vec::new() } else { event.addresses };
    Record::Resolved(Resolved {
        t_ns: header.time_ns,
        process: header.process,
        thread: header.tid,
        name: asked_name(&event.name.0),
        addresses,
        truncated: event.more || event.name_cut,
        error: (event.error != 0).then_some(event.error),
    })
}

/// A name, or an address in its place, without the interface that may follow it.
pub(super) fn asked_name(bytes: &[u8]) -> String {
    let address = bytes.split(|byte| *byte == b'%').next().and_then(|bytes| {
        let text = std::str::from_utf8(bytes).ok()?;
        text.parse::<IpAddr>().is_ok().then(|| text.to_owned())
    });
    address.unwrap_or_else(|| host_name(bytes))
}

pub(super) fn cgroup_move(event: CgroupMoveEvent) -> Record {
    Record::CgroupMove(CgroupMove {
        t_ns: event.header.time_ns,
        process: event.header.process,
        to_cgroup_id: event.to_cgroup_id,
        to_path: (!event.to_path.is_empty()).then_some(event.to_path),
    })
}
