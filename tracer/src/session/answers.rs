//! Which answers to questions for names are worth keeping, when there is no end to them.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use crate::{
    model::ProcessKey,
    record::schema::{Dns, DnsMessage},
};

/// Keeps the newest messages, those of `sockets`, and of the others the first and the last answer that
/// says what it says, with its question. Answers to processes that `whose` gives nobody for are answers
/// to anybody.
pub(crate) fn telling(
    dns: &mut Vec<Dns>,
    newest: usize,
    sockets: &HashSet<u64>,
    whose: impl Fn(ProcessKey) -> Option<ProcessKey>,
) {
    let says = |dns: &'_ Dns| match &dns.message {
        DnsMessage::Answer { name, of, records, .. } => {
            let data: Vec<String> = records.iter().map(|record| record.data.clone()).collect();
            Some((whose(dns.process), name.clone(), of.clone(), data))
        }
        DnsMessage::Question { .. } | DnsMessage::Malformed { .. } => None,
    };
    let mut keep = first_and_last(dns, says);
    let newest = dns.len().saturating_sub(newest);
    let mut asked = HashSet::new();
    for (at, dns) in dns.iter().enumerate().rev() {
        let Some(keep) = keep.get_mut(at) else { continue };
        *keep |= at >= newest || sockets.contains(&dns.cookie);
        match &dns.message {
            DnsMessage::Answer { id, name, of, .. } if *keep => {
                asked.insert((dns.cookie, *id, name.clone(), of.clone()));
            }
            DnsMessage::Question { id, name, of } => {
                *keep |= asked.remove(&(dns.cookie, *id, name.clone(), of.clone()));
            }
            DnsMessage::Answer { .. } | DnsMessage::Malformed { .. } => {}
        }
    }
    retain(dns, &keep);
}

/// Which are the first and the last that say the same; none that says nothing is.
pub(crate) fn first_and_last<T, K: Eq + Hash>(
    all: &[T],
    says: impl Fn(&T) -> Option<K>,
) -> Vec<bool> {
    let mut keep = vec![false; all.len()];
    let mut last: HashMap<K, usize> = HashMap::new();
    for (at, one) in all.iter().enumerate() {
        let Some(key) = says(one) else { continue };
        if last.insert(key, at).is_none() {
            keep[at] = true;
        }
    }
    for at in last.into_values() {
        keep[at] = true;
    }
    keep
}

pub(crate) fn retain<T>(all: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    all.retain(|_| keep.next().copied().unwrap_or(true));
}
