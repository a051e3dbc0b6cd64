//! What every probe uses: reading kernel memory, process fields, tree membership, emitting.

pub(crate) mod births;
pub(crate) mod cgroup;
pub(crate) mod emit;
pub(crate) mod ended;
pub(crate) mod enforce;
pub(crate) mod environment;
pub(crate) mod field;
pub(crate) mod file;
pub(crate) mod flow;
pub(crate) mod outside;
pub(crate) mod path;
pub(crate) mod regs;
pub(crate) mod scratch;
pub(crate) mod script;
pub(crate) mod task;
pub(crate) mod tree;
