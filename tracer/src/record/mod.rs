//! The recording: JSON lines, chained by SHA-256.
//!
//! `schema` is the only place of the crate, besides configuration files, where serde appears.
//! Everything downstream (verdict, report, verify) works on these records, so a verdict that was
//! computed live and one that is recomputed from a file come from the same code and the same input.

mod blocks;
mod chain;
mod output;
mod parts;
mod reader;
pub mod schema;
mod text;
mod versions;
mod writer;

pub use output::{Existing, OutputError, create_output};
pub use parts::{Parts, part};
pub use reader::{Finish, Integrity, ReadError, Reader, Recording, read};
pub use schema::Record;
pub(crate) use text::to_hex as hex;
pub use versions::{VERSIONS, Version, version};
pub use writer::Writer;
