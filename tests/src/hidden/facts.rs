//! What a recording says about the network, as lines in which nothing differs from run to run.
//!
//! ```text
//! TCP 127.0.0.1:443 established, by dial
//! UDP 127.0.0.1:443 by sending, by dial-udp
//! socket of family 17, type 3, protocol 0, by odd-socket
//! out of the cgroup, by dial
//! to a process outside over proxy, by hand-work
//! ```
//!
//! Who did it is told by the file it executed, or `child of` that of its parent. Lines that are the
//! same are one, which says how many.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A recording, line by line.
#[derive(Debug)]
pub(super) struct Recording(Vec<Value>);

impl Recording {
    pub(super) fn parse(text: &str) -> Result<Recording> {
        let lines = text.lines().map(|line| Ok(serde_json::from_str(line)?));
        Ok(Recording(lines.collect::<Result<_>>().context("the recording is no JSON")?))
    }

    fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |line| line["type"] == kind)
    }

    /// TCP connections that were asked for.
    pub(super) fn connects(&self) -> usize {
        self.of("connect").count()
    }

    /// Events that were produced and not read, of all kinds.
    pub(super) fn lost(&self) -> u64 {
        let counters = self.of("end").filter_map(|end| end["counters"].as_array()).flatten();
        counters.filter_map(|row| row["lost"].as_u64()).sum()
    }

    /// What a sensor in use cannot see.
    pub(super) fn cannot_see(&self, sensor: &str) -> Option<&str> {
        let sensors = self.of("start").filter_map(|start| start["sensors"].as_array()).flatten();
        sensors.filter(|row| row["sensor"] == sensor).find_map(|row| row["cannot_see"].as_str())
    }

    /// The verdict's claim of this policy.
    pub(super) fn claim(&self, policy: &str) -> Option<&Value> {
        let claims = self.of("end").filter_map(|end| end["verdict"]["claims"].as_array()).flatten();
        claims.into_iter().find(|claim| claim["policy"] == policy)
    }

    pub(super) fn facts(&self) -> Vec<String> {
        let who = self.names();
        let name = |line: &Value| {
            who.get(&line["process"].to_string()).map_or("nobody known", String::as_str)
        };
        let mut counted: BTreeMap<String, usize> = BTreeMap::new();
        for line in &self.0 {
            let Some(fact) = self.fact(line) else { continue };
            *counted.entry(format!("{fact}, by {}", name(line))).or_default() += 1;
        }
        let times = |(fact, count): (String, usize)| match count {
            1 => fact,
            more => format!("{more} x {fact}"),
        };
        counted.into_iter().map(times).collect()
    }

    fn fact(&self, line: &Value) -> Option<String> {
        Some(match line["type"].as_str()? {
            "connect" => {
                let same = |other: &&Value| other["connection"] == line["connection"];
                let outcome = self.of("connect-result").find(same).map(|result| &result["outcome"]);
                format!("TCP {} {}", endpoint(&line["destination"]), outcome_name(outcome))
            }
            "datagram" => {
                let protocol = match line["protocol"].as_u64() {
                    Some(17) => "UDP".into(),
                    other => format!("protocol {}", other.unwrap_or_default()),
                };
                let via = if line["via"] == "connect" { "connecting" } else { "sending" };
                format!("{protocol} {} by {via}", endpoint(&line["destination"]))
            }
            "odd-socket" => format!(
                "socket of family {}, type {}, protocol {}",
                line["family"], line["socket-type"], line["protocol"]
            ),
            "foreign-send" => {
                let to = &line["destination"];
                let to = if to.is_null() { "anywhere".into() } else { endpoint(to) };
                format!("protocol {} {to} over a socket made elsewhere", line["protocol"])
            }
            "cgroup-move" => "out of the cgroup".into(),
            "hand-off" => {
                let via = line["via"].as_str().unwrap_or_default();
                let file = via.rsplit('/').next().unwrap_or_default();
                format!("to a process outside over {file}")
            }
            _ => return None,
        })
    }

    /// Who each process is.
    fn names(&self) -> BTreeMap<String, String> {
        let mut names = BTreeMap::new();
        for line in &self.0 {
            if line["type"] == "fork" {
                let above = names.get(&line["process"].to_string());
                let name = above.map_or("nobody known".into(), |above| format!("child of {above}"));
                names.insert(line["child"].to_string(), name);
            } else if line["type"] == "exec" {
                let file = line["file"]["path"].as_str().or(line["filename"].as_str());
                let file = file.unwrap_or_default().rsplit('/').next().unwrap_or_default();
                names.insert(line["process"].to_string(), file.into());
            }
        }
        names
    }
}

fn endpoint(at: &Value) -> String {
    let address = at["address"].as_str().unwrap_or("unread");
    let port = at["port"].as_u64().unwrap_or_default();
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn outcome_name(outcome: Option<&Value>) -> String {
    match outcome {
        None => "without an outcome".into(),
        Some(Value::String(name)) => name.clone(),
        Some(outcome) => outcome["failed"]["name"].as_str().unwrap_or("failed").into(),
    }
}
