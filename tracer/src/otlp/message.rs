//! The messages of OTLP as JSON: protobuf's own mapping, with 64-bit integers as strings and enums as
//! numbers (opentelemetry-proto, `logs.proto` and `common.proto`; OTLP specification, "JSON Protobuf
//! Encoding").

use serde::Serialize;

/// `ExportLogsServiceRequest`, which has the same fields as `LogsData`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogsData {
    pub resource_logs: [ResourceLogs; 1],
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceLogs {
    pub resource: Resource,
    pub scope_logs: [ScopeLogs; 1],
    pub schema_url: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Resource {
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScopeLogs {
    pub scope: Scope,
    pub log_records: Vec<LogRecord>,
    pub schema_url: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scope {
    pub name: &'static str,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogRecord {
    #[serde(serialize_with = "as_text")]
    pub time_unix_nano: u64,
    #[serde(serialize_with = "as_text")]
    pub observed_time_unix_nano: u64,
    pub severity_number: Severity,
    pub severity_text: &'static str,
    pub body: AnyValue,
    pub attributes: Vec<KeyValue>,
    pub event_name: &'static str,
}

/// The first of each group of `SeverityNumber`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Info,
    Warn,
    Error,
}

impl Severity {
    pub(super) fn text(self) -> &'static str {
        match self {
            Severity::Info => "INFO",
            Severity::Warn => "WARN",
            Severity::Error => "ERROR",
        }
    }
}

impl Serialize for Severity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Severity::Info => 9,
            Severity::Warn => 13,
            Severity::Error => 17,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyValue {
    pub key: String,
    pub value: AnyValue,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum AnyValue {
    #[serde(rename = "stringValue")]
    String(String),
    #[serde(rename = "boolValue")]
    Bool(bool),
    #[serde(rename = "intValue", serialize_with = "as_text")]
    Int(i64),
    #[serde(rename = "doubleValue")]
    Double(f64),
    #[serde(rename = "arrayValue")]
    Array(ArrayValue),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArrayValue {
    pub values: Vec<AnyValue>,
}

fn as_text<S: serde::Serializer>(
    number: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}
