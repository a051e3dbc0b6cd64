//! Plain data that the kernel side keeps in maps.

use aya::Pod;
use tracer_ebpf::abi::{
    Asked, FileKey, Flow, FlowTotals, Stats, TlsKey, TlsPlaces, TlsSession, Variable,
};

/// Copies of plain data that the kernel side stores in maps.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Plain<T>(pub(super) T);

// SAFETY: both are repr(C) integers without padding (zerocopy's IntoBytes holds for them), for
// which any bytes are a value.
unsafe impl Pod for Plain<Stats> {}
// SAFETY: as above.
unsafe impl Pod for Plain<FileKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Flow> {}
// SAFETY: as above.
unsafe impl Pod for Plain<FlowTotals> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Asked> {}
// SAFETY: as above.
unsafe impl Pod for Plain<TlsKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<TlsSession> {}
// SAFETY: as above.
unsafe impl Pod for Plain<TlsPlaces> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Variable> {}
