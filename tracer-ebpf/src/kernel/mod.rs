//! What every probe uses: reading kernel memory, process fields, tree membership, emitting.

pub mod emit;
pub mod field;
pub mod file;
pub mod path;
pub mod scratch;
pub mod task;
pub mod tree;
