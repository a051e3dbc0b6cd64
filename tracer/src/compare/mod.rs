//! Groups of recordings, side by side.
//!
//! ```text
//! recording ─► Session ─┐
//! recording ─► Session ─┴─► Group ─┐
//! recording ─► Session ───► Group ─┴─► Comparison ─► tables ─► text, markdown, html
//!                                                 └─► json
//! ```
//!
//! A recording is read once, event by event. Of its connections only sums, a histogram and the set
//! of endpoints are kept, which are named as they pass ([`contacts`]). What is kept for a group grows
//! with the number of recordings, endpoints and programs, not of events. What a verdict needs to be
//! computed grows with processes ([`Verdicts`]), and is dropped before the next recording is read.
//!
//! What is to be compared gets a field in [`Session`], its sum in [`Group`], and rows in `tables`.

mod calls;
mod chart;
mod contacts;
mod group;
mod html;
mod markdown;
mod session;
mod stats;
mod tables;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Serialize;

use self::calls::GroupLatencies;

pub use calls::CallsSummary;
pub use group::{EndpointSeen, Group, GroupSummary, Seen, Unused};
pub use html::html;
pub use markdown::markdown;
pub use session::Session;
pub use stats::{Difference, Quantiles, Spread};
pub use text::text;

/// Version of what [`Comparison`] is as JSON.
pub const COMPARISON: u32 = 5;

/// Where verdicts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Verdicts {
    /// From the events of each recording
    Computed,
    /// From the last line of each recording, which `tracer verify` checks
    Recorded,
}

/// What the groups have and have not in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub comparison: u32,
    pub verdicts: Verdicts,
    pub groups: Vec<GroupSummary>,
    /// Recordings of one and the same session, of each session that counts more than once.
    pub repeated: Vec<Vec<Repeated>>,
    /// Of each group's mean connect latency from that of the first group.
    pub latency_differences: Vec<LatencyDifference>,
    /// The same of the whole time of calls to APIs. Absent where a group did not record calls.
    pub call_differences: Vec<LatencyDifference>,
    /// By group: what no other group has.
    pub endpoints_only_in: BTreeMap<String, Vec<String>>,
    pub programs_only_in: BTreeMap<String, Vec<String>>,
    pub credentials_only_in: BTreeMap<String, Vec<String>>,
    pub urls_only_in: BTreeMap<String, Vec<String>>,
}

/// A recording of a session that others are of, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repeated {
    pub group: String,
    pub recording: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LatencyDifference {
    pub group: String,
    pub from: String,
    /// Absent when one of the two has no latencies.
    pub difference: Option<Difference>,
}

impl Comparison {
    pub fn of(groups: &[Group], verdicts: Verdicts) -> Comparison {
        Comparison {
            comparison: COMPARISON,
            verdicts,
            groups: groups.iter().map(Group::summary).collect(),
            repeated: repeated(groups),
            latency_differences: differences(groups, |group| Some(&group.latency)),
            call_differences: differences(groups, |group| {
                group.calls.summary().is_some().then_some(&group.calls.total)
            }),
            endpoints_only_in: only_in(groups, |group| &group.endpoints),
            programs_only_in: only_in(groups, |group| &group.programs),
            credentials_only_in: only_in(groups, |group| &group.credentials),
            urls_only_in: only_in(groups, |group| &group.calls.urls),
        }
    }

    pub fn json(&self) -> String {
        #[expect(clippy::expect_used, reason = "every map of these types has strings for keys")]
        let mut text = serde_json::to_string_pretty(self).expect("no map with other keys");
        text.push('\n');
        text
    }
}

/// Copies of a recording, under whatever names and in whatever groups.
fn repeated(groups: &[Group]) -> Vec<Vec<Repeated>> {
    let mut by_origin: BTreeMap<&(String, u64), Vec<Repeated>> = BTreeMap::new();
    for group in groups {
        for (origin, recording) in &group.origins {
            let one = Repeated { group: group.name.clone(), recording: recording.clone() };
            by_origin.entry(origin).or_default().push(one);
        }
    }
    by_origin.into_values().filter(|same| same.len() > 1).collect()
}

/// Of each group from the first, where both have such times at all.
fn differences(
    groups: &[Group],
    of: impl Fn(&Group) -> Option<&GroupLatencies>,
) -> Vec<LatencyDifference> {
    let Some((first, others)) = groups.split_first() else { return Vec::new() };
    let row = |group: &Group| {
        Some(LatencyDifference {
            group: group.name.clone(),
            from: first.name.clone(),
            difference: stats::difference(&of(group)?.sums, &of(first)?.sums),
        })
    };
    others.iter().filter_map(row).collect()
}

fn only_in<T>(
    groups: &[Group],
    of: impl Fn(&Group) -> &BTreeMap<String, T>,
) -> BTreeMap<String, Vec<String>> {
    let elsewhere = |own: &Group, name: &String| {
        groups.iter().any(|group| group.name != own.name && of(group).contains_key(name))
    };
    groups
        .iter()
        .map(|group| {
            let names = of(group).keys().filter(|name| !elsewhere(group, name));
            (group.name.clone(), names.cloned().collect())
        })
        .collect()
}
