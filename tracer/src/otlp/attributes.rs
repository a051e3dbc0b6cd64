//! Attributes by the names of OpenTelemetry's semantic conventions; what those have no name for begins with
//! `tracer.`.

use super::message::{AnyValue, ArrayValue, KeyValue};
use crate::{
    model::{Bytes, Endpoint},
    record::schema::Exec,
};

/// The version of the semantic conventions that the names are of.
pub(super) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, key: &str, value: AnyValue) -> &mut Attributes {
        self.0.push(KeyValue { key: key.to_owned(), value });
        self
    }

    pub(super) fn text(&mut self, key: &str, text: impl Into<String>) -> &mut Attributes {
        self.put(key, AnyValue::String(text.into()))
    }

    pub(super) fn flag(&mut self, key: &str, flag: bool) -> &mut Attributes {
        self.put(key, AnyValue::Bool(flag))
    }

    /// A number that no int64 has becomes the largest one.
    pub(super) fn number(&mut self, key: &str, number: impl TryInto<i64>) -> &mut Attributes {
        self.put(key, AnyValue::Int(number.try_into().unwrap_or(i64::MAX)))
    }

    pub(super) fn double(&mut self, key: &str, number: f64) -> &mut Attributes {
        self.put(key, AnyValue::Double(number))
    }

    pub(super) fn texts(&mut self, key: &str, texts: &[String]) -> &mut Attributes {
        let values = texts.iter().cloned().map(AnyValue::String).collect();
        self.put(key, AnyValue::Array(ArrayValue { values }))
    }

    pub(super) fn peer(&mut self, to: Endpoint) -> &mut Attributes {
        let address = to.address.to_canonical();
        self.text("network.type", if address.is_ipv4() { "ipv4" } else { "ipv6" })
            .text("network.peer.address", address.to_string())
            .number("network.peer.port", to.port)
    }

    /// The name that the process said to the other end; without one, the address.
    pub(super) fn server(&mut self, name: Option<&str>, to: Option<Endpoint>) -> &mut Attributes {
        let address = to.map(|to| to.address.to_canonical().to_string());
        if let Some(name) = name.map(str::to_owned).or(address) {
            self.text("server.address", name);
        }
        if let Some(to) = to {
            self.number("server.port", to.port);
        }
        self
    }

    pub(super) fn executable(&mut self, path: &Bytes) -> &mut Attributes {
        self.text("process.executable.path", path.lossy())
            .text("process.executable.name", String::from_utf8_lossy(path.base_name()))
    }

    pub(super) fn command(&mut self, exec: &Exec) -> &mut Attributes {
        let args: Vec<String> = exec.argv.args.iter().map(|arg| arg.lossy().into_owned()).collect();
        self.number("process.args_count", args.len() as u64);
        if !exec.argv.complete {
            self.flag("tracer.argv.cut", true);
        }
        self.texts("process.command_args", &args);
        if let Some(cwd) = &exec.cwd {
            self.text("process.working_directory", cwd.lossy());
        }
        if let Some(credentials) = exec.credentials {
            self.number("process.user.id", credentials.euid)
                .number("process.real_user.id", credentials.uid);
        }
        self
    }
}
