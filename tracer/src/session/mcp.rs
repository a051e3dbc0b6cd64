//! Which servers of the Model Context Protocol were in use.
//!
//! One that is reached over HTTP is told by its endpoint. One that is a subprocess talks over its
//! standard input and output, so both are a pipe or socket that it got from whoever started it, and its
//! command line names a server that the catalogue knows. A server of one's own under another name is
//! not told from any other program that is talked to in this way.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Names, Story};
use crate::{
    catalogue::{EndpointClass, McpServer},
    model::{Device, ProcessKey},
    record::schema::{Descriptor, DescriptorKind, Exec},
};

/// A server, and the process that uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct McpUse {
    /// What the catalogue calls it.
    pub name: String,
    /// Who talks to it; absent when that is outside the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ProcessKey>,
    pub by: McpTransport,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "transport", rename_all = "kebab-case")]
pub enum McpTransport {
    /// Standard input and output of this process, which may have started further ones on the way to
    /// the server itself.
    Stdio { process: ProcessKey, t_ns: u64 },
    /// This endpoint, over so many connections.
    Http { host: String, connections: u64 },
}

/// Every server that was in use; subprocesses first, in the order in which they were started.
pub fn mcp_servers(story: &Story) -> Vec<McpUse> {
    let mut servers = subprocesses(story);
    servers.extend(endpoints(story));
    servers
}

/// What a pipe or socket is told by.
type Channel = (Option<Device>, Option<u64>);

/// Both standard streams, where both lead to another process.
fn channels(exec: &Exec) -> Option<(Channel, Channel)> {
    let stdio = exec.stdio.as_ref()?;
    let channel = |descriptor: &Descriptor| match descriptor.kind {
        DescriptorKind::Pipe | DescriptorKind::Socket => {
            Some((descriptor.device, descriptor.inode))
        }
        DescriptorKind::Closed
        | DescriptorKind::Terminal
        | DescriptorKind::Null
        | DescriptorKind::File
        | DescriptorKind::Device
        | DescriptorKind::Other => None,
    };
    Some((channel(&stdio.input)?, channel(&stdio.output)?))
}

/// The server that a command line stands for.
fn called(servers: &[McpServer], exec: &Exec) -> Option<String> {
    let words: Vec<_> = exec.argv.args.iter().map(|arg| arg.lossy()).collect();
    let (first, rest) = words.split_first()?;
    let own = exec.script.as_ref().and_then(|script| Some(script.file.as_ref()?.path.lossy()));
    let names = [Some(first), own.as_ref()].into_iter().flatten();
    let of = |server: &McpServer| {
        let named = names.clone().find_map(|name| server.called(name));
        let mut arguments = rest.iter().filter(|word| !word.starts_with('-'));
        named.or_else(|| {
            server.is_launcher(first).then(|| arguments.find_map(|word| server.called(word)))?
        })
    };
    servers.iter().find_map(of)
}

fn subprocesses(story: &Story) -> Vec<McpUse> {
    let mut found: Vec<McpUse> = Vec::new();
    // A launcher (npx, uvx, a shell) passes its streams on to the server.
    let mut known = std::collections::BTreeSet::new();
    for exec in story.execs_in_order() {
        let Some(own) = channels(exec) else { continue };
        // What the command itself was given leads out of the tree.
        let client = client(story, exec.process, own);
        if known.contains(&own) {
            continue;
        }
        if let Some(name) = called(&story.start.mcp_servers, exec) {
            known.insert(own);
            let by = McpTransport::Stdio { process: exec.process, t_ns: exec.t_ns };
            found.push(McpUse { name, client, by });
        }
    }
    found
}

/// The nearest process above that has other streams of its own.
fn client(story: &Story, process: ProcessKey, own: (Channel, Channel)) -> Option<ProcessKey> {
    let mut at = story.processes.get(&process)?.creator;
    while let Some(above) = at.and_then(|at| story.processes.get(&at)) {
        if above.execs.last().is_some_and(|exec| channels(exec) != Some(own)) {
            return Some(above.key);
        }
        at = above.creator;
    }
    None
}

fn endpoints(story: &Story) -> Vec<McpUse> {
    let names = Names::of(story);
    let mut counts: BTreeMap<(String, ProcessKey, String), u64> = BTreeMap::new();
    for connection in &story.connections {
        let naming = names.connection(connection);
        let name = naming.best().map(|named| named.name.as_str());
        let Some(found) = story.classify(name, connection.destination) else { continue };
        if found.class == EndpointClass::Mcp {
            let host = name.map_or_else(
                || connection.destination.map(|to| to.address.to_string()).unwrap_or_default(),
                str::to_owned,
            );
            *counts.entry((found.service, connection.process, host)).or_default() += 1;
        }
    }
    counts
        .into_iter()
        .map(|((name, client, host), connections)| McpUse {
            name,
            client: Some(client),
            by: McpTransport::Http { host, connections },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy,
        record::schema::{Record, Root, Stdio},
    };

    const AGENT: ProcessKey = ProcessKey { pid: 10, start_ns: 1 };
    const LAUNCHER: ProcessKey = ProcessKey { pid: 11, start_ns: 2 };
    const SERVER: ProcessKey = ProcessKey { pid: 12, start_ns: 3 };
    const TOOL: ProcessKey = ProcessKey { pid: 13, start_ns: 4 };

    fn exec(process: ProcessKey, argv: &[&str], streams: (DescriptorKind, u64, u64)) -> Record {
        let (kind, input, output) = streams;
        let descriptor = |inode| Descriptor { kind, inode: Some(inode), device: Some(Device(15)) };
        let Record::Exec(mut exec) = policy::test_exec(process, "/usr/bin/node", 1, argv) else {
            unreachable!()
        };
        exec.stdio = Some(Stdio { input: descriptor(input), output: descriptor(output) });
        Record::Exec(exec)
    }

    fn fork(process: ProcessKey, child: ProcessKey) -> Record {
        policy::test_fork(child.start_ns, process, child)
    }

    fn servers(records: Vec<Record>) -> Vec<(String, Option<ProcessKey>, ProcessKey)> {
        let mut start = policy::test_start(&policy::load("no-aws-cli").unwrap());
        start.mcp_servers = crate::catalogue::Catalogue::embedded().mcp_servers.clone();
        let mut story = Story::new(start);
        story.add(Record::Root(Root {
            t_ns: 1,
            process: AGENT,
            ns_pid: None,
            parent_pid: None,
            unread: Vec::new(),
        }));
        for record in records {
            story.add(record);
        }
        let found = mcp_servers(&story).into_iter().map(|one| match one.by {
            McpTransport::Stdio { process, .. } => (one.name, one.client, process),
            McpTransport::Http { .. } => panic!("no connections"),
        });
        found.collect()
    }

    #[test]
    fn a_launcher_and_its_server_are_one() {
        use DescriptorKind::{Pipe, Socket, Terminal};
        let line = ["npx", "-y", "@modelcontextprotocol/server-filesystem@1.0", "/tmp"];
        let found = servers(vec![
            exec(AGENT, &["node", "agent.mjs"], (Terminal, 1, 1)),
            fork(AGENT, LAUNCHER),
            exec(LAUNCHER, &line, (Pipe, 7, 8)),
            fork(LAUNCHER, SERVER),
            exec(SERVER, &["node", "/x/bin/mcp-server-filesystem", "/tmp"], (Pipe, 7, 8)),
            fork(AGENT, TOOL),
            exec(TOOL, &["grep", "mcp", "src"], (Terminal, 1, 9)),
        ]);
        assert_eq!(found, [("filesystem".to_owned(), Some(AGENT), LAUNCHER)]);
        // Node gives its children sockets; a server may be a script of the launcher's.
        let found = servers(vec![
            exec(AGENT, &["node", "agent.mjs"], (Terminal, 1, 1)),
            fork(AGENT, LAUNCHER),
            exec(LAUNCHER, &["sh", "-c", "exec node weather-mcp.mjs"], (Socket, 7, 8)),
            fork(LAUNCHER, SERVER),
            exec(SERVER, &["node", "weather-mcp.mjs"], (Socket, 7, 8)),
        ]);
        assert_eq!(found, [("weather".to_owned(), Some(AGENT), SERVER)]);
    }

    #[test]
    fn without_both_streams_it_is_no_server() {
        use DescriptorKind::{Null, Pipe, Terminal};
        for kind in [Null, Terminal] {
            let found = servers(vec![
                exec(AGENT, &["node", "agent.mjs"], (Terminal, 1, 1)),
                fork(AGENT, SERVER),
                exec(SERVER, &["node", "weather-mcp.mjs"], (kind, 7, 8)),
            ]);
            assert!(found.is_empty(), "{found:?}");
        }
        let found = servers(vec![
            exec(AGENT, &["node", "agent.mjs"], (Terminal, 1, 1)),
            fork(AGENT, SERVER),
            exec(SERVER, &["node", "--mcp-config=mcp", "x.mjs"], (Pipe, 7, 8)),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
