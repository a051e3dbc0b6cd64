//! Whether tracer records what really happened: real workloads, looked at by tracer, by `strace -f` and
//! by the kernel's own counters at the same time.
//!
//! What strace and tracer say is brought to the same [facts], process by process and exec by exec. A
//! difference is explained by one of the [rules], or it is an error.

mod compare;
pub mod facts;
mod recorded;
pub mod rules;
mod run;
mod script;
mod strace;
pub mod table;
mod traced;
mod workloads;

pub use self::{
    compare::{Comparison, Explained},
    run::{Counts, GroundTruth, Kernel, Outcome, Stage, run},
    workloads::{WORKLOADS, Workload},
};
