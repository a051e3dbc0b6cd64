//! What is injected.

use std::time::Duration;

use anyhow::{Result, ensure};

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
    /// With everything at random but for what is tried one after the other, so that all of it is: in the
    /// `turn`-th run with this kind, of these probes.
    pub(super) fn random(
        kind: Kind,
        turn: usize,
        probes: &[&'static str],
        random: &mut Random,
    ) -> Fault {
        let rings = [4096, 8192, 16_384, 65_536, 1 << 20];
        let mut milliseconds = |first, last| Duration::from_millis(random.between(first, last));
        match kind {
            Kind::TinyRings => Fault::TinyRings { bytes: random.one_of(&rings[..4]) },
            Kind::LostRecords => {
                let ring = RINGS[turn % RINGS.len()];
                // A load fills some of them with dozens of records only.
                let last = if matches!(ring, "argv" | "names") { 12 } else { 60 };
                Fault::LostRecords { ring, every: random.between(2, last) }
            }
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
                seconds: random.between(60, 10_000_000),
                inside: random.between(0, 1) == 1,
            },
            Kind::FullMap => Fault::FullMap {
                map: MAPS[turn % MAPS.len()],
                entries: random.between(1, MOST_ENTRIES),
            },
            Kind::SilentProbe => Fault::SilentProbe { probe: probes[turn % probes.len()] },
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

    /// Which row of the table it belongs to.
    pub(super) fn row(&self) -> String {
        match self {
            Fault::LostRecords { ring, .. } => Kind::LostRecords.row_of(ring),
            Fault::FullMap { map, .. } => Kind::FullMap.row_of(map),
            Fault::TinyRings { .. }
            | Fault::StoppedReader { .. }
            | Fault::FullDisk { .. }
            | Fault::HungUp { .. }
            | Fault::Killed { .. }
            | Fault::OtherClock { .. }
            | Fault::SilentProbe { .. } => self.kind().name().to_owned(),
        }
    }

    /// Words that a reason, or what tracer says when it fails, has about it. Without any, it is no reason for
    /// anything to be missing: a cut recording says itself that it has no end, another clock changes nothing,
    /// and with a silent probe nothing is started.
    pub(super) fn named_by(&self) -> Option<&'static str> {
        match self {
            Fault::TinyRings { .. } | Fault::LostRecords { .. } | Fault::StoppedReader { .. } => {
                Some("events were lost")
            }
            Fault::FullDisk { .. } => Some("No space left on device"),
            Fault::HungUp { .. } => Some("Input/output error"),
            Fault::FullMap { map, .. } => Some(insert_fault(map)),
            Fault::Killed { .. } | Fault::OtherClock { .. } | Fault::SilentProbe { .. } => None,
        }
    }

    /// Whether tracer may refuse to start the command, and gives the fault as the reason: it says which kinds
    /// of events of its canary did not come, and those are what the fault keeps back.
    pub(super) fn explains(&self, refusal: &str) -> bool {
        const NET: &[&str] = &[
            "cgroup-move",
            "connect",
            "connect-result",
            "datagram",
            "foreign-send",
            "intrusion",
            "local-send",
            "odd-socket",
        ];
        const PROCESS: &[&str] = &["root", "fork", "exec", "exit"];
        if let Fault::FullDisk { on_error: "stop", .. } = self {
            // Before the command has said that it runs.
            return refusal.contains("No space left on device") && refusal.contains("SIGTERM");
        }
        let Some(unseen) = unseen(refusal) else { return false };
        let kept_back: &[&str] = match self {
            // Whatever has no room.
            Fault::TinyRings { .. } | Fault::StoppedReader { .. } => return true,
            Fault::LostRecords { ring: "process", .. } => PROCESS,
            Fault::LostRecords { ring: "net", .. } => NET,
            Fault::LostRecords { ring: "attempt", .. } => &["attempt"],
            Fault::LostRecords { ring: "names", .. } => &["payload"],
            Fault::FullMap { map: "TREE", .. } => &["exit"],
            Fault::FullMap { map: "SOCKETS", .. } => &["connect-result"],
            Fault::FullMap { map: "FLOWS" | "ASKED", .. } => &["datagram"],
            Fault::SilentProbe { probe } => {
                let (_, kind) = PROBES.iter().find(|(name, _)| name == probe).unwrap_or(&("", ""));
                return unseen.contains(kind);
            }
            Fault::LostRecords { .. }
            | Fault::FullMap { .. }
            | Fault::FullDisk { .. }
            | Fault::HungUp { .. }
            | Fault::Killed { .. }
            | Fault::OtherClock { .. } => return false,
        };
        // What else those kinds of events carry is not missed by itself.
        unseen.iter().all(|kind| kept_back.contains(kind))
    }
}

impl Kind {
    fn row_of(self, what: &str) -> String {
        format!("{}: {what}", self.name())
    }

    /// The rows of the table that belong to it.
    pub(super) fn rows(self) -> Vec<String> {
        match self {
            Kind::LostRecords => RINGS.iter().map(|ring| self.row_of(ring)).collect(),
            Kind::FullMap => MAPS.iter().map(|map| self.row_of(map)).collect(),
            Kind::TinyRings
            | Kind::StoppedReader
            | Kind::FullDisk
            | Kind::HungUp
            | Kind::Killed
            | Kind::OtherClock
            | Kind::SilentProbe => vec![self.name().to_owned()],
        }
    }
}

/// Kinds of events of the canary at the start that tracer says it has not seen.
fn unseen(refusal: &str) -> Option<Vec<&str>> {
    let (_, after) =
        refusal.split_once("the canary at the start was not seen by the probe of: ")?;
    let (kinds, rest) = after.split_once('.')?;
    rest.contains("nothing was started").then(|| kinds.split(", ").collect())
}

/// Rings that the runs write to.
const RINGS: &[&str] = &["process", "argv", "net", "attempt", "names"];

/// Maps that are inserted into, where one that is full loses something.
const MAPS: &[&str] = &["TREE", "SOCKETS", "LEDGER", "FLOWS", "ASKED"];

/// Of a map that is made small: fewer than each run wants to have in it at the same time.
pub(super) const MOST_ENTRIES: u64 = 10;

/// What is counted when there is no room in the map.
pub(super) fn insert_fault(map: &str) -> &'static str {
    match map {
        "TREE" => "tree-insert",
        "SOCKETS" => "socket-insert",
        "LEDGER" => "ledger-insert",
        _ => "flow-insert",
    }
}

/// Programs of the kernel side without which a verdict could be wrong, and the kind of events of the canary
/// that shows that one is silent. Which of them a kernel has differs.
const PROBES: &[(&str, &str)] = &[
    ("exec", "exec"),
    ("fork", "fork"),
    ("exit", "exit"),
    ("connect", "connect"),
    ("connect4", "datagram"),
    ("connect6", "datagram"),
    ("sendmsg4", "datagram"),
    ("sendmsg6", "datagram"),
    ("packet_out", "payload"),
    ("cgroup_move", "cgroup-move"),
    ("inet_socket", "odd-socket"),
    ("other_socket", "odd-socket"),
    ("other_socket_send", "odd-socket"),
    ("foreign_send", "foreign-send"),
    ("foreign_send_v4", "foreign-send"),
    ("foreign_send_v6", "foreign-send"),
    ("foreign_send_page", "foreign-send"),
    ("local_send", "local-send"),
    ("local_send_stream", "local-send"),
    ("local_send_packet", "local-send"),
    ("local_send_page", "local-send"),
    ("debugger_access", "intrusion"),
    ("ptrace_exit", "intrusion"),
    ("write_memory_exit", "intrusion"),
    ("take_descriptor_exit", "intrusion"),
    ("attempt_execve", "attempt"),
    ("attempt_execve_exit", "attempt"),
    ("attempt_execveat", "attempt"),
    ("attempt_execveat_exit", "attempt"),
];

/// Programs that are not silenced, and why.
const NOT_SILENCED: &[(&str, &str)] = &[
    ("enrol", "tracer runs it itself and sees whether it does"),
    ("identify", "tracer runs it itself and sees whether it does"),
    ("find", "tracer runs it itself, and to attach only"),
    ("sock_state", "it is there for when the kernel skips `connect`"),
    ("packet_in", "names are missing without it, and nothing is proven that rests on names"),
    ("resolve_call", "only for `--resolver`"),
    ("resolve_return", "only for `--resolver`"),
    ("tls_write", "only for `--http`"),
    ("tls_write_ex", "only for `--http`"),
    ("tls_read", "only for `--http`"),
    ("tls_read_ex", "only for `--http`"),
    ("tls_return", "only for `--http`"),
    ("tls_end", "only for `--http`"),
];

/// Which of the programs that this kernel has are silenced. Fails if there is one that is in neither list.
pub(super) fn probes_among<'a>(
    programs: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<&'static str>> {
    let mut probes = Vec::new();
    for program in programs {
        let probe = PROBES.iter().find(|(name, _)| *name == program);
        ensure!(
            probe.is_some() || NOT_SILENCED.iter().any(|(name, _)| *name == program),
            "nobody has said whether `{program}` is silenced; add it to PROBES or NOT_SILENCED in {}",
            file!()
        );
        probes.extend(probe.map(|(name, _)| *name));
    }
    ensure!(
        !probes.is_empty(),
        "tracer names no program of the kernel side that could be silenced"
    );
    Ok(probes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kinds: &str) -> String {
        format!(
            "tracer: the canary at the start was not seen by the probe of: {kinds}. It is attached and does \
             not fire, or its record was lost, so nothing could be proven; nothing was started"
        )
    }

    #[test]
    fn a_refusal_is_explained_by_what_keeps_the_canary_from_being_seen() {
        let silent = |probe| Fault::SilentProbe { probe };
        assert!(silent("connect").explains(&refusal("connect, connect-result, payload")));
        assert!(!silent("connect").explains(&refusal("datagram")));
        assert!(!silent("connect").explains("tracer: nothing was started"));
        let full = |map| Fault::FullMap { map, entries: 1 };
        assert!(full("FLOWS").explains(&refusal("datagram")));
        assert!(!full("FLOWS").explains(&refusal("datagram, exec")));
        assert!(!full("LEDGER").explains(&refusal("exec")));
        assert!(Fault::TinyRings { bytes: 4096 }.explains(&refusal("exec")));
        assert!(!Fault::TinyRings { bytes: 4096 }.explains("tracer: nothing was started"));
        assert!(!Fault::Killed { after: Duration::ZERO }.explains(&refusal("exec")));
        let clock = Fault::OtherClock { seconds: 60, inside: false };
        assert!(!clock.explains(&refusal("exec")));
    }

    #[test]
    fn a_program_that_is_in_no_list_is_an_error() {
        assert_eq!(probes_among(["exec", "find", "fork"]).expect("known"), ["exec", "fork"]);
        assert!(probes_among(["exec", "unheard_of"]).is_err());
        assert!(probes_among(["find"]).is_err());
    }
}
