//! Rulings, and the events they rest on.

use schemars::JsonSchema;
use serde::Serialize;

use super::Builder;
use crate::{
    policy::{ClaimVerdict, Ruling, Violation},
    report::{clean::clean, words},
};

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ClaimSummary {
    pub policy: String,
    /// The claim in words.
    pub claim: String,
    pub ruling: Ruling,
    pub violations: Vec<FindingSummary>,
    /// Everything that keeps it from being proven.
    pub reasons: Vec<String>,
    /// What matches but is allowed by the policy.
    pub allowed: Vec<FindingSummary>,
}

/// An event that matches a claim.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FindingSummary {
    pub at_ns: u64,
    /// Place in `processes`; none when the process is unknown.
    pub process: Option<usize>,
    /// What was run and how that is known.
    pub detail: String,
    /// The command line, and those of its parents.
    pub lineage: String,
}

impl Builder<'_> {
    pub(super) fn claim(&self, claim: &ClaimVerdict) -> ClaimSummary {
        let findings = |violations: &[Violation]| {
            violations.iter().map(|violation| self.finding(violation)).collect()
        };
        ClaimSummary {
            policy: clean(claim.policy.as_bytes()),
            claim: clean(claim.claim.as_bytes()),
            ruling: claim.ruling,
            violations: findings(&claim.violations),
            reasons: claim.reasons.iter().map(|reason| clean(reason.as_bytes())).collect(),
            allowed: findings(&claim.allowed),
        }
    }

    fn finding(&self, violation: &Violation) -> FindingSummary {
        FindingSummary {
            at_ns: self.at(violation.t_ns),
            process: self.places.get(&violation.process).copied(),
            detail: clean(violation.detail.as_bytes()),
            lineage: words::lineage(self.story, violation.process, violation.t_ns),
        }
    }
}
