//! Every row of the table of hidden connections is shown as demanded, and the document says so.

use anyhow::{Context as _, Result, ensure};
use tracer_tests::hidden::{self, Row, table};

use crate::{
    Test,
    harness::{Scratch, fixtures, tracer_program},
};

pub(crate) const TESTS: &[Test] = &[("document", document)];

/// One test a row.
pub(crate) fn check(row: &Row) -> Result<()> {
    let trial = hidden::trial(&tracer_program(), row)?;
    trial.check(row).with_context(|| row.text())
}

/// The document's table is what the rows demand, each of which is a test.
fn document(_: &Scratch) -> Result<()> {
    let document = std::fs::read_to_string(fixtures().join("../../docs/hidden-connections.md"))?;
    let differences = table::differences(&document);
    ensure!(
        differences.is_empty(),
        "docs/hidden-connections.md differs from the table; `cargo xtask hidden --write` makes it \
         anew\n{}",
        differences.join("\n")
    );
    Ok(())
}
