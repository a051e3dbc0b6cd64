//! Policies, and the three-valued verdict over them.
//!
//! [`judge`] is a pure function of a [`Story`](crate::session::Story): live and offline verdicts are
//! the same computation.

mod attempts;
mod callers;
mod claim;
mod completeness;
mod connections;
mod contacts;
mod credentials;
mod explain;
mod file;
mod identity;
mod layers;
mod mapped;
mod opened;
mod paths;
mod recording;
pub(crate) mod settled;
#[cfg(test)]
mod tests;
mod verdict;

pub use claim::{AllowedExec, Claim, ClaimKind, DnsRule, Subject};
pub use completeness::{Concern, Requirement, completeness};
pub(crate) use contacts::Contact;
pub use explain::{explain, explain_endpoint};
pub use file::{
    Policy, PolicyError, SurvivorRule, built_in, built_ins, can_enforce, check_folders,
    check_names, load, parse,
};
pub use recording::{Judged, judge_recording};
#[cfg(test)]
pub(crate) use tests::{
    exec as test_exec, fork as test_fork, good_end as test_end, start as test_start,
};
pub use verdict::{ClaimVerdict, Ruling, Verdict, Violation, asks_for_contacts, judge, rules};
