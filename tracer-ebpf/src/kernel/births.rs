//! Births outside the tree, noted while the processes that run already are being found.
//!
//! A process that is to be found may fork, and end, before it is. Whoever is born meanwhile is noted
//! here with its parent, so that nobody is missed whose parents are gone when /proc is read.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, HashMap},
};
use tracer_ebpf::abi::{Fault, ProcessName, Switch};

use super::{emit, task::Task};

/// Not 0 where running processes are to be found. Frozen at load: a tracer that starts its command
/// itself does not pay for it.
#[unsafe(no_mangle)]
static FINDING: Global<u32> = Global::new(0);

/// What the collector switches on and off: see [`Switch`].
#[map]
static SWITCHES: Array<u32> = Array::with_max_entries(Switch::COUNT, 0);

/// Children and their parents.
#[map]
static BIRTHS: HashMap<ProcessName, ProcessName> = HashMap::with_max_entries(1, 0);

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
    let noted = name(child).zip(name(parent));
    if noted.is_none_or(|(child, parent)| BIRTHS.insert(child, parent, 0).is_err()) {
        emit::fault(Fault::TreeInsert);
    }
}

#[inline(always)]
fn name(task: Task) -> Option<ProcessName> {
    Some(ProcessName { start_ns: task.start_ns()?, tgid: task.tgid()?, padding: 0 })
}
