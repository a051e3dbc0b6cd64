//! Which names were asked for, of a server or of the C library.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::Builder;
use crate::{
    model::{Endpoint, ProcessKey},
    record::schema::{Dns, DnsMessage, Resolved},
    report::clean::clean,
};

/// What a name resolved to through the C library, as its type in the table.
const LIBRARY: &str = "getaddrinfo";

/// All questions for one name and type. Strings are fit to be shown.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DnsSummary {
    pub name: String,
    /// The type of the question; `getaddrinfo` for what the C library was asked for.
    #[serde(rename = "type")]
    pub of: String,
    /// Questions that were seen.
    pub asked: u64,
    /// Answers that were seen, by response code.
    pub codes: BTreeMap<String, u64>,
    /// Addresses, and names that the name stands for.
    pub answers: BTreeSet<String>,
    /// Some answers were longer than what was recorded.
    pub truncated: bool,
    pub servers: BTreeSet<Endpoint>,
    /// Places in `processes`.
    pub processes: BTreeSet<usize>,
}

impl Builder<'_> {
    /// By name, then by type.
    pub(super) fn dns(&self) -> Vec<DnsSummary> {
        let mut all = Questions { places: &self.places, rows: BTreeMap::new() };
        self.story.dns.iter().for_each(|dns| all.message(dns));
        self.story.resolved.iter().for_each(|resolved| all.resolved(resolved));
        all.rows.into_values().collect()
    }
}

struct Questions<'a> {
    places: &'a BTreeMap<ProcessKey, usize>,
    rows: BTreeMap<(String, String), DnsSummary>,
}

impl Questions<'_> {
    /// Names are the same in upper and lower case.
    fn row(&mut self, name: &str, of: &str, process: ProcessKey) -> &mut DnsSummary {
        let (name, of) = (clean(name.to_lowercase().as_bytes()), clean(of.as_bytes()));
        let row = self.rows.entry((name.clone(), of.clone())).or_insert_with(|| DnsSummary {
            name,
            of,
            asked: 0,
            codes: BTreeMap::new(),
            answers: BTreeSet::new(),
            truncated: false,
            servers: BTreeSet::new(),
            processes: BTreeSet::new(),
        });
        row.processes.extend(self.places.get(&process));
        row
    }

    fn message(&mut self, dns: &Dns) {
        match &dns.message {
            DnsMessage::Question { name, of, .. } => {
                let row = self.row(name, of, dns.process);
                row.asked += 1;
                row.servers.extend(dns.server);
            }
            DnsMessage::Answer { name, of, code, records, truncated, .. } => {
                let row = self.row(name, of, dns.process);
                *row.codes.entry(clean(code.as_bytes())).or_default() += 1;
                let data = records.iter().filter(|record| !record.data.is_empty());
                row.answers.extend(data.map(|record| clean(record.data.as_bytes())));
                row.truncated |= truncated;
                row.servers.extend(dns.server);
            }
            // Shown where it is said what could not be read.
            DnsMessage::Malformed { .. } => {}
        }
    }

    fn resolved(&mut self, resolved: &Resolved) {
        let row = self.row(&resolved.name, LIBRARY, resolved.process);
        row.asked += 1;
        let code = resolved.error.map_or("found".into(), |error| format!("error {error}"));
        *row.codes.entry(code).or_default() += 1;
        row.answers.extend(resolved.addresses.iter().map(ToString::to_string));
    }
}
