//! Versions of the schema, and how a line of any of them becomes a record.
//!
//! A new kind of line, or a field whose absence means something else than its default, makes a new
//! version. A field that older recordings lack gets a serde default; what the verdict must not demand
//! of them is a column of [`VERSIONS`]. Recordings of every version are in
//! `tests/golden/recordings`, and a test reads and judges them all.

use serde::de::DeserializeOwned;

use super::schema::{Close, Connect, ConnectResult, Exec, Exit, Fork, Record, SCHEMA};

/// What recordings of a version have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub number: u32,
    /// What it brought.
    pub brought: &'static str,
    /// Whether it can tell what the tree did to processes outside of it. A verdict over an older
    /// recording makes no statement about that.
    pub watches_outside: bool,
    /// Whether it can tell names of endpoints, datagrams and sources of credentials.
    pub tells_endpoints: bool,
}

/// Oldest first; the last one is written.
pub const VERSIONS: [Version; 4] = [
    Version {
        number: 1,
        brought: "processes, execs, contents, connections, hand-offs",
        watches_outside: false,
        tells_endpoints: false,
    },
    Version {
        number: 2,
        brought: "failed execs, sends over unix sockets, control of other processes, watched files, \
                  mappings of code, enforcement",
        watches_outside: true,
        tells_endpoints: false,
    },
    Version {
        number: 3,
        brought: "datagrams, names of endpoints, first bytes of connections, sources of credentials",
        watches_outside: true,
        tells_endpoints: true,
    },
    Version {
        number: 4,
        brought: "HTTP calls, trees that were joined, several files, checks of the probes",
        watches_outside: true,
        tells_endpoints: true,
    },
];

const _: () = assert!(VERSIONS[VERSIONS.len() - 1].number == SCHEMA, "a row for every version");

/// The version of that number. The reader refuses numbers above the newest; others that were never
/// used count as the oldest.
pub fn version(number: u32) -> Version {
    VERSIONS.into_iter().rfind(|version| version.number <= number).unwrap_or(VERSIONS[0])
}

/// The record of a line.
///
/// tracer writes `type` first. The kinds that come by the thousand are told apart by that, because
/// serde would copy a line's fields before it knows what they belong to. Everything else, and any
/// other order, is left to serde.
pub(super) fn parse(line: &[u8]) -> serde_json::Result<Record> {
    const FIRST: &[u8] = br#"{"type":""#;
    let name = line.strip_prefix(FIRST).and_then(|rest| rest.split(|byte| *byte == b'"').next());
    Ok(match name {
        Some(b"fork") => Record::Fork(fields::<Fork>(line)?),
        Some(b"exec") => Record::Exec(Box::new(fields::<Exec>(line)?)),
        Some(b"exit") => Record::Exit(fields::<Exit>(line)?),
        Some(b"connect") => Record::Connect(fields::<Connect>(line)?),
        Some(b"connect-result") => Record::ConnectResult(fields::<ConnectResult>(line)?),
        Some(b"close") => Record::Close(fields::<Close>(line)?),
        _ => fields(line)?,
    })
}

fn fields<T: DeserializeOwned>(line: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(line)
}
