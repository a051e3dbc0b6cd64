//! What tests find out about a kernel, for the documentation: lines of a file that `TRACER_TEST_REPORT`
//! names, and nothing where it names none.
//!
//! ```text
//! hook<TAB>SENSOR<TAB>WAY<TAB>seen, or why it cannot be there
//! instructions<TAB>PROGRAM<TAB>COUNT
//! skipped<TAB>TEST<TAB>WHY
//! ```

use std::{fs::OpenOptions, io::Write as _};

pub(super) const FILE: &str = "TRACER_TEST_REPORT";

/// Whether a sensor saw something by a way to attach, or why this kernel does not have it.
pub fn hook(sensor: &str, way: &str, finding: &str) {
    add(&format!("hook\t{sensor}\t{way}\t{finding}"));
}

/// How many instructions the verifier walked in a program.
pub fn instructions(program: &str, count: u64) {
    add(&format!("instructions\t{program}\t{count}"));
}

/// Why a test could not be made.
pub fn skipped(test: &str, why: &str) {
    add(&format!("skipped\t{test}\t{}", why.replace('\n', " ")));
}

fn add(line: &str) {
    let Some(file) = std::env::var_os(FILE) else { return };
    let written = OpenOptions::new().create(true).append(true).open(file);
    // A line that is missing shows in the documentation that is made of them.
    let _ = written.and_then(|mut file| writeln!(file, "{line}"));
}
