//! Births outside the tree, noted while the processes that run already are being found.
//!
//! A process that is to be found may fork, and end, before it is. Whoever is born meanwhile is noted
//! here with its parent, so that nobody is missed whose parents are gone when /proc is read. Whose
//! ancestors are of the tree already becomes a member at birth, as its parent will be.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, HashMap},
};
use tracer_ebpf::abi::{Birth, Fault, ProcessName, Switch};

use super::{emit, task::Task, tree};

/// Not 0 where running processes are to be found. Frozen at load: a tracer that starts its command
/// itself does not pay for it.
#[unsafe(no_mangle)]
static FINDING: Global<u32> = Global::new(0);

/// What the collector switches on and off: see [`Switch`].
#[map]
static SWITCHES: Array<u32> = Array::with_max_entries(Switch::COUNT, 0);

#[map]
static BIRTHS: HashMap<ProcessName, Birth> = HashMap::with_max_entries(1, 0);

#[inline(always)]
pub(crate) fn are_noted() -> bool {
    FINDING.load() != 0 && is_on(Switch::NoteBirths)
}

#[inline(always)]
pub(crate) fn is_on(switch: Switch) -> bool {
    SWITCHES.get(switch as u32).is_some_and(|on| *on != 0)
}

/// One that cannot be noted counts as one that could not be tracked.
#[inline(always)]
pub(crate) fn note(child: Task, parent: Task) {
    if !are_noted() {
        return;
    }
    let (Some(child), Some(parent)) = (name(child), name(parent)) else {
        return emit::fault(Fault::TreeInsert);
    };
    if BIRTHS.insert(child, Birth { parent, ended: 0 }, 0).is_err() {
        emit::fault(Fault::TreeInsert);
    }
}

/// The last thread of a process ends.
#[inline(always)]
pub(crate) fn note_end(task: Task) {
    let Some(leader) = task.leader() else { return };
    let Some(name) = name(leader) else { return };
    if let Some(birth) = BIRTHS.get_ptr_mut(name) {
        // SAFETY: a map value lives as long as the program runs, and only this task writes to its own.
        unsafe { (*birth).ended = 1 };
    }
}

/// Whether one of the ancestors of a process is of the tree.
#[inline(always)]
pub(crate) fn descends(process: Task) -> bool {
    // Ancestors that are ending hand their children on late, and can be many where the machine is busy.
    const GENERATIONS: u32 = 256;
    let mut at = process;
    for _ in 0..GENERATIONS {
        let Some(parent) = at.parent() else { return false };
        let Some(tgid) = parent.tgid() else { return false };
        if tree::find(tgid).is_some() {
            return true;
        }
        at = parent;
    }
    false
}

#[inline(always)]
fn name(task: Task) -> Option<ProcessName> {
    Some(ProcessName { start_ns: task.start_ns()?, tgid: task.tgid()?, padding: 0 })
}
