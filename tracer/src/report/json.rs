//! The summary as JSON, and the schemas of what tracer writes.

use std::io::{self, Write};

use schemars::{Schema, generate::SchemaSettings, json_schema, transform::transform_subschemas};
use serde_json::Value;

use super::{Diagnosis, Summary};
use crate::record::Record;

/// The summary object, and a line feed.
pub fn json(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, summary)?;
    out.write_all(b"\n")
}

/// JSON Schema (2020-12) of the summary.
pub fn summary_schema() -> String {
    let schema = generator().into_root_schema_for::<Summary>();
    finished(schema, "tracer summary", "What `tracer report --format json` prints.")
}

/// JSON Schema (2020-12) of a diagnosis.
pub fn diagnosis_schema() -> String {
    let schema = generator().into_root_schema_for::<Diagnosis>();
    finished(schema, "tracer diagnosis", "What `tracer doctor --json` prints.")
}

/// JSON Schema (2020-12) of one line of a recording.
pub fn recording_schema() -> String {
    let mut schema = generator().into_root_schema_for::<Record>();
    let chain = json_schema!({
        "description": "SHA-256 of the line before it and of this line up to here; see the \
                        documentation of the recording.",
        "type": "string",
        "pattern": "^[0-9a-f]{64}$"
    });
    schema.insert("properties".into(), serde_json::json!({ "chain": chain }));
    schema.insert("required".into(), serde_json::json!(["chain"]));
    finished(schema, "tracer recording", "One line of a recording, which is JSON lines.")
}

/// For what is written: a field that is always there is required.
fn generator() -> schemars::SchemaGenerator {
    SchemaSettings::draft2020_12().for_serialize().into_generator()
}

fn finished(mut schema: Schema, title: &str, description: &str) -> String {
    one_line_descriptions(&mut schema);
    schema.insert("title".into(), title.into());
    schema.insert("description".into(), description.into());
    pretty(&schema)
}

/// Doc comments are broken into lines for the source, not for the reader of a schema.
fn one_line_descriptions(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    transform_subschemas(&mut one_line_descriptions, schema);
}

#[expect(clippy::expect_used, reason = "every map of these types has strings for keys")]
pub(super) fn pretty(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("no map with other keys");
    text.push('\n');
    text
}
