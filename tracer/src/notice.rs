//! What tracer says to who runs it, beside its results.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// A line on standard error. `eprintln!` would end tracer where nobody reads that any more.
pub fn notice(sentence: impl Display) {
    let _ = io::stderr().write_all(format!("tracer: {sentence}\n").as_bytes());
}
