//! Which thread of a process /proc can be read through.
//!
//! The first thread of a process can end before the others. Its number is still the process's, and it waits as a
//! zombie for the last of them; what it had is unreadable then, and in /proc/PID/task is what the others have.

use std::fs;

/// The first thread, or another one where that has ended. `/proc/TID` is there for each, though it is not listed.
pub(super) fn living(pid: u32) -> Option<u32> {
    if lives(pid) {
        return Some(pid);
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let threads = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    threads.filter(|thread| *thread != pid).find(|thread| lives(*thread))
}

fn lives(thread: u32) -> bool {
    let stat = fs::read(format!("/proc/{thread}/stat")).unwrap_or_default();
    is_of_the_living(&stat)
}

/// The state stands behind the name, which can have anything in it (proc(5)).
fn is_of_the_living(stat: &[u8]) -> bool {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')');
    let state = end_of_name.and_then(|end| stat.get(end + 2));
    state.is_some_and(|state| !b"ZXx".contains(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_stand_behind_names() {
        assert!(is_of_the_living(b"12 (a) Z (b) S 1 12"));
        assert!(!is_of_the_living(b"12 (a) S (b) Z 1 12"));
        assert!(!is_of_the_living(b"12 (a) X"));
        assert!(!is_of_the_living(b""));
        assert!(!is_of_the_living(b"12 (a)"));
    }

    #[test]
    fn a_process_that_ended_has_no_living_thread() {
        let own = std::process::id();
        assert_eq!(living(own), Some(own));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = || living(child.id()).is_none();
        while !ended() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(living(child.id()), None);
    }
}
