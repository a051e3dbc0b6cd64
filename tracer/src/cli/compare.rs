//! Groups of recordings, as they are named.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use clap::{
    Args, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser as _},
};

use crate::compare::Verdicts;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tracer compare direct=r1.jsonl direct=r2.jsonl bedrock='b*.jsonl'
  tracer compare --format html --output comparison.html sdk='sdk/*.jsonl' cli='cli/*.jsonl'
  tracer compare --format json sdk='sdk/*.jsonl' | jq '.groups[].verdicts'
  tracer compare --verdicts recorded week1='w1/*.jsonl' week2='w2/*.jsonl'    # hours long, each

A pattern is tracer's to expand (* ? [] **), so quote it. Repeat a name to add to its group. The first \
group is what the others' latencies are compared with.

Exit codes: 0 compared, 11 compared without the recordings that are named as not used, because they \
are damaged, have no end or cannot be read, 2 wrong usage, 125 nothing could be written")]
pub struct Compare {
    /// What to make of it
    #[arg(short, long, value_enum, default_value_t = CompareFormat::Text, value_name = "FORMAT")]
    pub format: CompareFormat,
    /// Where verdicts come from. Computing one takes memory that grows with the processes of its
    /// recording, unless all its claims are that programs never run; nothing else here grows with what
    /// a recording holds
    #[arg(long, value_enum, default_value_t = Verdicts::Computed, value_name = "HOW")]
    pub verdicts: Verdicts,
    /// Write it here (mode 0600); `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace what is in the output file
    #[arg(long, requires = "output")]
    pub force: bool,
    /// A group and a recording, or a pattern of them
    #[arg(required = true, value_name = "NAME=RECORDING", value_parser = OsStringValueParser::new().try_map(member))]
    pub members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompareFormat {
    /// For the terminal
    Text,
    /// A document of tables
    Markdown,
    /// One page with charts, readable offline
    Html,
    /// The numbers as one object
    Json,
}

/// A recording, or a pattern of them, and its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub group: String,
    pub pattern: OsString,
}

/// The name of a file can be any bytes, the group's is text.
fn member(text: OsString) -> Result<Member, &'static str> {
    let bytes = text.as_bytes();
    let parts = bytes.iter().position(|byte| *byte == b'=').map(|at| bytes.split_at(at));
    let Some((group, [_, pattern @ ..])) = parts else { return Err("it must be NAME=RECORDING") };
    let group = std::str::from_utf8(group).map_err(|_| "the name of the group is no UTF-8")?;
    if group.trim().is_empty() || pattern.is_empty() {
        return Err("it must be NAME=RECORDING");
    }
    Ok(Member { group: group.into(), pattern: OsStr::from_bytes(pattern).to_owned() })
}
