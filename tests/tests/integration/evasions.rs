//! Every row of the table of disguises and escapes ends as demanded, and the document says so.

use anyhow::{Result, ensure};
use tracer_tests::evasions::{self, Row, table};

use crate::{
    Test,
    harness::{Scratch, fixtures, tracer_program},
};

pub(crate) const TESTS: &[Test] = &[("document", document)];

/// One test a row, with each of its programs.
pub(crate) fn check(row: &Row) -> Result<()> {
    let mut failures = Vec::new();
    for (program, expected) in row.cases() {
        let trial = evasions::trial(&tracer_program(), row, program)?;
        if let Err(error) = trial.check(expected) {
            failures.push(format!("{program:?}: {error}"));
        }
    }
    ensure!(failures.is_empty(), "{}\n{}", row.text(), failures.join("\n"));
    Ok(())
}

/// What the document's table says about tracer is what the rows demand, each of which is a test.
fn document(_: &Scratch) -> Result<()> {
    let document = std::fs::read_to_string(fixtures().join("../../docs/evasions.md"))?;
    let differences = table::differences(&document);
    ensure!(
        differences.is_empty(),
        "docs/evasions.md differs from the table; `cargo xtask evasions --write` makes it anew\n{}",
        differences.join("\n")
    );
    Ok(())
}
