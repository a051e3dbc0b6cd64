//! HTTP calls of sessions that recorded them.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    group::Seen,
    session::{Latencies, empty_histogram},
    stats::{Quantiles, Spread},
};
use crate::{
    catalogue::{CallKind, EndpointClass},
    record::schema::{Call, SensorState},
    report,
};

/// Sessions that call more URLs than that have the others counted as one.
const URLS_MAX: usize = 10_000;
const OTHER_URLS: &str = "(other URLs)";
/// Of a group. A trail that is longer is in the recordings.
const REQUEST_IDS_MAX: usize = 1_000;

/// Whether calls were read at all: without that, none says nothing.
pub(super) fn were_read(sensors: &[SensorState]) -> bool {
    sensors.iter().any(|sensor| sensor.sensor == "tls" && sensor.missing.is_none())
}

/// What the calls of one session add up to.
#[derive(Debug, Default)]
pub(super) struct SessionCalls {
    all: u64,
    api: u64,
    mcp: u64,
    /// Without queries, in which there are times and ids.
    urls: BTreeMap<String, u64>,
    /// Of calls to APIs.
    total: Latencies,
    first_byte: Latencies,
    request_ids: Vec<String>,
}

impl SessionCalls {
    pub(super) fn add(&mut self, call: &Call, kind: &CallKind) {
        if call.served {
            return;
        }
        self.all += 1;
        let url = call.url.split(['?', '#']).next().unwrap_or_default();
        let url = report::clean(url.as_bytes());
        let room = self.urls.len() < URLS_MAX || self.urls.contains_key(&url);
        *self.urls.entry(if room { url } else { OTHER_URLS.to_owned() }).or_default() += 1;
        self.mcp += u64::from(kind.has_class(EndpointClass::Mcp));
        if kind.has_class(EndpointClass::Api) {
            self.api += 1;
            self.total.add(call.total_ms.map(nanoseconds));
            self.first_byte.add(call.ttfb_ms.map(nanoseconds));
            if let Some(id) = &call.request_id
                && self.request_ids.len() < REQUEST_IDS_MAX
            {
                self.request_ids.push(report::clean(id.as_bytes()));
            }
        }
    }
}

fn nanoseconds(ms: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "times are not negative; the cast saturates"
    )]
    let ns = (ms * 1e6).round() as u64;
    ns
}

/// Latencies of a group, and what they were in each session.
#[derive(Debug)]
pub(super) struct GroupLatencies {
    pub(super) histogram: Histogram<u64>,
    /// Of each session: the sum in nanoseconds, and their number.
    pub(super) sums: Vec<(u64, u64)>,
}

impl GroupLatencies {
    pub(super) fn new() -> GroupLatencies {
        GroupLatencies { histogram: empty_histogram(), sums: Vec::new() }
    }

    pub(super) fn add(&mut self, session: &Latencies) {
        #[expect(clippy::expect_used, reason = "the sum grows as far as it must")]
        self.histogram.add(&session.histogram).expect("it resizes itself");
        self.sums.push(session.sum);
    }

    pub(super) fn quantiles(&self) -> Option<Quantiles> {
        Quantiles::of(&self.histogram, &self.sums)
    }
}

/// What the calls of a group add up to.
#[derive(Debug)]
pub(super) struct GroupCalls {
    sessions: u64,
    all: Spread,
    api: Spread,
    mcp: Spread,
    pub(super) urls: BTreeMap<String, Seen>,
    pub(super) total: GroupLatencies,
    first_byte: GroupLatencies,
    request_ids: Vec<String>,
}

/// HTTP calls of the sessions that recorded them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallsSummary {
    /// How many sessions these are.
    pub sessions: u64,
    pub calls_per_session: Spread,
    pub api_calls_per_session: Spread,
    pub mcp_calls_per_session: Spread,
    /// Without their queries.
    pub urls: BTreeMap<String, Seen>,
    pub urls_in_some_sessions_only: Vec<String>,
    /// Of calls to APIs: from the first byte of the request to the last of the response, and to its
    /// first.
    pub api_total_ns: Option<Quantiles>,
    pub api_ttfb_ns: Option<Quantiles>,
    /// Of calls to APIs, the first 1,000.
    pub api_request_ids: Vec<String>,
}

impl GroupCalls {
    pub(super) fn new() -> GroupCalls {
        GroupCalls {
            sessions: 0,
            all: Spread::default(),
            api: Spread::default(),
            mcp: Spread::default(),
            urls: BTreeMap::new(),
            total: GroupLatencies::new(),
            first_byte: GroupLatencies::new(),
            request_ids: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, session: &SessionCalls) {
        self.sessions += 1;
        self.all.add(session.all);
        self.api.add(session.api);
        self.mcp.add(session.mcp);
        for (url, times) in &session.urls {
            self.urls.entry(url.clone()).or_default().add(*times);
        }
        self.total.add(&session.total);
        self.first_byte.add(&session.first_byte);
        let room = REQUEST_IDS_MAX.saturating_sub(self.request_ids.len());
        self.request_ids.extend(session.request_ids.iter().take(room).cloned());
    }

    /// Nothing where no session recorded any call.
    pub(super) fn summary(&self) -> Option<CallsSummary> {
        let in_some = self.urls.iter().filter(|(_, seen)| seen.sessions < self.sessions);
        (self.sessions > 0).then(|| CallsSummary {
            sessions: self.sessions,
            calls_per_session: self.all,
            api_calls_per_session: self.api,
            mcp_calls_per_session: self.mcp,
            urls: self.urls.clone(),
            urls_in_some_sessions_only: in_some.map(|(url, _)| url.clone()).collect(),
            api_total_ns: self.total.quantiles(),
            api_ttfb_ns: self.first_byte.quantiles(),
            api_request_ids: self.request_ids.clone(),
        })
    }
}
