//! The layout of what crosses from the kernel: also run by Miri, which sees what no test asserts.

use tracer_ebpf::abi::{
    ArgvChunk, Asked, Attempt, Birth, CgroupMove, Close, Connect, ConnectResult, Datagram, Exec,
    Exit, Fault, FileKey, Flow, FlowTotals, ForeignSend, Fork, FoundProcess, Header, Intrusion,
    KIND_COUNT, Kind, KindStats, LocalSend, Means, OddSocket, Payload, ProcessName, Resolve, Root,
    Stats, TlsBegin, TlsData, TlsEnd, TlsKey, TlsPlace, TlsSession, UnknownKind, Via,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Reads a type from bytes that are aligned in no way, and writes it back.
fn check<T: FromBytes + IntoBytes + Immutable + KnownLayout>(name: &str) {
    const SHIFTS: usize = 8;
    let size = size_of::<T>();
    assert_eq!(size % 8, 0, "a record after {name} would not be aligned");
    let bytes: Vec<u8> = (0..size + SHIFTS).map(|at| (at * 7 + 1) as u8).collect();
    for shift in 0..SHIFTS {
        let (value, rest) = T::read_from_prefix(&bytes[shift..]).expect("there are enough bytes");
        assert_eq!(value.as_bytes(), &bytes[shift..shift + size], "{name}");
        assert_eq!(rest.len(), SHIFTS - shift, "{name}");
        // In place, where the alignment allows it: what `emit` does in a ring.
        if let Ok((seen, _)) = T::ref_from_prefix(&bytes[shift..]) {
            assert_eq!(seen.as_bytes(), value.as_bytes(), "{name}");
        }
    }
    assert!(T::read_from_prefix(&bytes[..size - 1]).is_err(), "{name} of too few bytes");
}

#[test]
fn every_type_is_its_bytes() {
    macro_rules! check_all {
        ($($name:ident)*) => { $(check::<$name>(stringify!($name));)* };
    }
    check_all!(
        ArgvChunk Asked Attempt Birth CgroupMove Close Connect ConnectResult Datagram Exec Exit FileKey
        Flow FlowTotals ForeignSend Fork FoundProcess Header Intrusion KindStats LocalSend OddSocket
        Payload ProcessName Resolve Root Stats TlsBegin TlsData TlsEnd TlsKey TlsPlace TlsSession
    );
}

#[test]
fn numbers_become_kinds_by_a_check_only() {
    for (number, kind) in (0u32..).zip(Kind::ALL) {
        assert_eq!(Kind::try_from(number), Ok(*kind), "the number is the index of its counters");
    }
    let beyond = u32::try_from(KIND_COUNT).expect("a small number");
    assert_eq!(Kind::try_from(beyond), Err(UnknownKind(beyond)));
    assert_eq!(Kind::try_from(u32::MAX), Err(UnknownKind(u32::MAX)));
    for wrong in [u32::MAX, 1 << 20] {
        assert_eq!(Means::try_from(wrong), Err(wrong));
        assert_eq!(Via::try_from(wrong), Err(wrong));
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    names.extend(Fault::ALL.iter().map(|fault| fault.name()));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
