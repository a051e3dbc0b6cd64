//! The canary: a process of our own that does what the probes must see.
//!
//! A probe that is attached and does not fire is the classic silent failure. Before the command
//! starts and after it has ended, tracer starts itself as a canary, which does everything that a claim rests on,
//! once for each program that could be silent ([`acts`]); as many events of each kind must arrive. It has a network
//! namespace of its own where that is allowed, so it neither needs nor changes the command's network.

mod acts;

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            net::{UnixDatagram, UnixStream},
            process::CommandExt as _,
        },
    },
    process::{Child, Command, ExitStatus, Stdio},
};

use tracer_ebpf::abi::{Kind, Role};

pub use self::acts::main;
use super::{cgroup::Doors, signals::OriginalMask};
use crate::probe::Enroller;

/// argv[0] that makes this program a canary.
pub const NAME: &str = "tracer-canary";

/// What it ends with where it may not take control of another process, as is so behind some filters of system calls
/// and with some settings of Yama: where it may not, the command may not either.
const REFUSED_CONTROL: u8 = 3;

/// Whether that is all that went wrong.
pub(super) fn was_refused_control(status: &ExitStatus) -> bool {
    status.code() == Some(REFUSED_CONTROL.into())
}

/// Starts a canary. Beside it comes what it talks to: the other ends of sockets, of a process outside its tree.
pub(super) fn spawn(
    enroller: Enroller,
    doors: Option<Doors>,
    mask: OriginalMask,
) -> io::Result<(Child, [OwnedFd; 2])> {
    let (outside, inside) = UnixStream::pair()?;
    let (outside_packets, packets) = UnixDatagram::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(packets.as_raw_fd().to_string()).env_clear();
    command.stdin(Stdio::from(OwnedFd::from(inside))).stdout(Stdio::null()).stderr(Stdio::null());
    let in_child = move || {
        // SAFETY: no memory is involved. Where it is refused, the loopback of the caller must do.
        let _ = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        acts::bring_along(&packets)?;
        if let Some(doors) = &doors {
            doors.inside.enter()?;
        }
        enroller.enrol(Role::Canary)?;
        if let Some((doors, outside)) =
            doors.as_ref().and_then(|doors| Some((doors, doors.outside.as_ref()?)))
        {
            outside.enter()?;
            doors.inside.enter()?;
        }
        mask.restore()
    };
    // SAFETY: the closure makes system calls only: no allocation, no lock.
    unsafe { command.pre_exec(in_child) };
    Ok((command.spawn()?, [outside.into(), outside_packets.into()]))
}

/// Which kinds of a canary's events have come, from the counts before and now. Each kind is named as often as it has
/// to come.
pub(super) fn seen(
    kinds: &[Kind],
    before: &BTreeMap<&'static str, u64>,
    now: &BTreeMap<&'static str, u64>,
) -> BTreeMap<String, bool> {
    let count =
        |counts: &BTreeMap<_, u64>, kind: Kind| counts.get(kind.name()).copied().unwrap_or(0);
    let mut wanted: BTreeMap<&'static str, (Kind, u64)> = BTreeMap::new();
    for kind in kinds {
        wanted.entry(kind.name()).or_insert((*kind, 0)).1 += 1;
    }
    wanted
        .into_values()
        .map(|(kind, times)| {
            let times = times.saturating_sub(without_ipv6(kind));
            (kind.name().to_owned(), count(now, kind) >= count(before, kind) + times)
        })
        .collect()
}

/// How many of a kind's events take sockets of IPv6, where there are none.
fn without_ipv6(kind: Kind) -> u64 {
    if acts::has_ipv6() {
        return 0;
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "of any other kind, none")]
    match kind {
        Kind::Datagram => 2,
        Kind::ForeignSend => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_often_as_it_is_named() {
        let before = BTreeMap::from([("exit", 4)]);
        let now = |exits: u64| BTreeMap::from([("exit", exits), ("fork", 1)]);
        let kinds = [Kind::Fork, Kind::Exit, Kind::Exit, Kind::Exec];
        let seen = |exits: u64| seen(&kinds, &before, &now(exits));
        assert!(!seen(5)["exit"]);
        assert!(seen(6)["exit"]);
        assert_eq!((seen(6)["fork"], seen(6)["exec"]), (true, false));
    }
}
