//! What is injected.

use std::time::Duration;

use super::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    TinyRings,
    LostRecords,
    StoppedReader,
    FullDisk,
    HungUp,
    Killed,
    OtherClock,
    FullMap,
    SilentProbe,
}

impl Kind {
    pub(super) const ALL: [Kind; 9] = [
        Kind::TinyRings,
        Kind::LostRecords,
        Kind::StoppedReader,
        Kind::FullDisk,
        Kind::HungUp,
        Kind::Killed,
        Kind::OtherClock,
        Kind::FullMap,
        Kind::SilentProbe,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::TinyRings => "tiny rings",
            Kind::LostRecords => "every n-th record of a ring refused",
            Kind::StoppedReader => "reader stopped (SIGSTOP)",
            Kind::FullDisk => "disk full (ENOSPC, a small tmpfs)",
            Kind::HungUp => "output fails (EIO, a terminal that hung up)",
            Kind::Killed => "tracer killed (SIGKILL)",
            Kind::OtherClock => "another clock (time namespaces)",
            Kind::FullMap => "a map of the kernel side full",
            Kind::SilentProbe => "a probe that never fires",
        }
    }
}

/// A fault with everything that was drawn for it.
#[derive(Clone, Debug)]
pub enum Fault {
    TinyRings {
        bytes: u64,
    },
    LostRecords {
        ring: &'static str,
        every: u64,
    },
    StoppedReader {
        bytes: u64,
        after: Duration,
        stopped: Duration,
    },
    FullDisk {
        bytes: u64,
        on_error: &'static str,
    },
    /// After so many bytes have been read.
    HungUp {
        bytes: u64,
    },
    Killed {
        after: Duration,
    },
    /// The clock of the machine's uptime is another one for tracer, or for a process of the tree.
    OtherClock {
        seconds: u64,
        inside: bool,
    },
    FullMap {
        map: &'static str,
        entries: u64,
    },
    SilentProbe {
        probe: &'static str,
    },
}

impl Fault {
    pub(super) fn random(kind: Kind, random: &mut Random) -> Fault {
        let rings = [4096, 8192, 16_384, 65_536, 1 << 20];
        let mut milliseconds = |first, last| Duration::from_millis(random.between(first, last));
        match kind {
            Kind::TinyRings => Fault::TinyRings { bytes: random.one_of(&rings[..4]) },
            Kind::LostRecords => Fault::LostRecords {
                ring: random.one_of(&["process", "argv", "net"]),
                every: random.between(2, 60),
            },
            Kind::StoppedReader => {
                let (after, stopped) = (milliseconds(0, 60), milliseconds(20, 300));
                Fault::StoppedReader { bytes: random.one_of(&rings), after, stopped }
            }
            Kind::FullDisk => Fault::FullDisk {
                bytes: 4096 * random.between(2, 16),
                on_error: random.one_of(&["continue", "stop"]),
            },
            Kind::HungUp => Fault::HungUp { bytes: random.between(0, 40_000) },
            Kind::Killed => Fault::Killed { after: milliseconds(0, 200) },
            Kind::OtherClock => Fault::OtherClock {
                seconds: random.between(1, 10_000_000),
                inside: random.between(0, 1) == 1,
            },
            Kind::FullMap => Fault::FullMap {
                map: random.one_of(&["TREE", "SOCKETS", "LEDGER", "FLOWS"]),
                entries: random.between(1, 4),
            },
            Kind::SilentProbe => Fault::SilentProbe { probe: random.one_of(PROBES) },
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Fault::TinyRings { .. } => Kind::TinyRings,
            Fault::LostRecords { .. } => Kind::LostRecords,
            Fault::StoppedReader { .. } => Kind::StoppedReader,
            Fault::FullDisk { .. } => Kind::FullDisk,
            Fault::HungUp { .. } => Kind::HungUp,
            Fault::Killed { .. } => Kind::Killed,
            Fault::OtherClock { .. } => Kind::OtherClock,
            Fault::FullMap { .. } => Kind::FullMap,
            Fault::SilentProbe { .. } => Kind::SilentProbe,
        }
    }

    /// Options of `tracer run`.
    pub(super) fn options(&self) -> Vec<String> {
        match self {
            Fault::TinyRings { bytes } | Fault::StoppedReader { bytes, .. } => {
                vec![format!("--debug-ring-bytes={bytes}")]
            }
            Fault::LostRecords { ring, every } => vec![format!("--debug-lose={ring}={every}")],
            Fault::FullDisk { on_error, .. } => vec![format!("--on-error={on_error}")],
            Fault::FullMap { map, entries } => vec![format!("--debug-map={map}={entries}")],
            Fault::SilentProbe { probe } => vec![format!("--debug-silence={probe}")],
            Fault::HungUp { .. } | Fault::Killed { .. } | Fault::OtherClock { .. } => Vec::new(),
        }
    }

    /// Words that a reason, or what tracer says when it fails, has about it.
    pub(super) fn named_by(&self) -> &'static str {
        match self {
            Fault::TinyRings { .. } | Fault::LostRecords { .. } | Fault::StoppedReader { .. } => {
                "events were lost"
            }
            Fault::FullDisk { .. } => "No space left on device",
            Fault::HungUp { .. } => "Input/output error",
            Fault::FullMap { map: "TREE", .. } => "tree-insert",
            Fault::FullMap { map: "SOCKETS", .. } => "socket-insert",
            Fault::FullMap { map: "LEDGER", .. } => "ledger-insert",
            Fault::FullMap { .. } => "flow-insert",
            Fault::SilentProbe { .. } => "was not seen by the probe of",
            // A cut recording says itself that it has no end; another clock changes nothing.
            Fault::Killed { .. } | Fault::OtherClock { .. } => "",
        }
    }
}

/// Programs on whose silence a verdict would be wrong, on any kernel. Where packets come in, a silent one
/// costs names, without which nothing is proven that rests on them.
const PROBES: &[&str] = &[
    "exec",
    "fork",
    "exit",
    "connect",
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "packet_out",
    "cgroup_move",
];
