//! How byte strings, process keys and files are spelled in JSON.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor},
};

use crate::model::{Bytes, Device, Endpoint, FileId, ProcessKey};

/// UTF-8 becomes a string. Anything else becomes `{"lossy": "...", "hex": "..."}`, so that no byte
/// is lost and a reader still has something to look at.
#[derive(Serialize, Deserialize)]
struct RawForm {
    lossy: String,
    hex: String,
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => RawForm { lossy: self.lossy().into_owned(), hex: to_hex(&self.0) }
                .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

/// By hand, because an untagged enum copies what it reads before it looks at it, and most of a
/// recording is byte strings.
struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string, or an object with `lossy` and `hex`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
        Ok(text.into())
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Bytes, E> {
        Ok(Bytes(text.into_bytes()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Bytes, A::Error> {
        let RawForm { lossy: _, hex } =
            RawForm::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        from_hex(&hex).map(Bytes).ok_or_else(|| A::Error::custom("not hexadecimal"))
    }
}

fn hex_pair(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [byte >> 4, byte & 15].map(|nibble| DIGITS[usize::from(nibble)])
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend(hex_pair(*byte).map(char::from));
    }
    text
}

/// Whether `digits` is what [`to_hex`] writes of these bytes.
pub(super) fn is_hex_of(digits: &[u8], bytes: &[u8]) -> bool {
    let (pairs, rest) = digits.as_chunks();
    rest.is_empty()
        && pairs.len() == bytes.len()
        && pairs.iter().zip(bytes).all(|(pair, byte)| *pair == hex_pair(*byte))
}

pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()))
        .collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct ProcessForm {
    pid: u32,
    start_ns: u64,
}

impl Serialize for ProcessKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ProcessForm { pid: self.pid, start_ns: self.start_ns }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ProcessKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ProcessForm { pid, start_ns } = ProcessForm::deserialize(deserializer)?;
        Ok(ProcessKey { pid, start_ns })
    }
}

/// `"major:minor"`, as in /proc/self/mountinfo.
impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DeviceVisitor)
    }
}

/// By hand, because a string of its own for each file shows in the time that a recording takes.
struct DeviceVisitor;

impl Visitor<'_> for DeviceVisitor {
    type Value = Device;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a device as MAJOR:MINOR")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Device, E> {
        let parse = || {
            let (major, minor) = text.split_once(':')?;
            Some(Device::new(major.parse().ok()?, minor.parse().ok()?))
        };
        parse().ok_or_else(|| E::custom("a device is MAJOR:MINOR"))
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct FileForm {
    device: Device,
    inode: u64,
}

impl Serialize for FileId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FileForm { device: self.device, inode: self.inode }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FileId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let FileForm { device, inode } = FileForm::deserialize(deserializer)?;
        Ok(FileId { device, inode })
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct EndpointForm {
    address: std::net::IpAddr,
    port: u16,
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        EndpointForm { address: self.address, port: self.port }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let EndpointForm { address, port } = EndpointForm::deserialize(deserializer)?;
        Ok(Endpoint { address, port })
    }
}

/// The schema of a type that is written as another one.
macro_rules! schema_of {
    ($($public:ident as $form:ident),+) => {$(
        impl JsonSchema for $public {
            fn schema_name() -> Cow<'static, str> {
                stringify!($public).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                $form::json_schema(generator)
            }
        }
    )+};
}

schema_of!(ProcessKey as ProcessForm, FileId as FileForm, Endpoint as EndpointForm);

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Bytes as the kernel had them: a string when they are UTF-8, else all of \
                            them in hexadecimal, with a readable form beside it.",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "lossy": { "type": "string" },
                        "hex": { "type": "string", "pattern": "^([0-9a-f]{2})*$" }
                    },
                    "required": ["lossy", "hex"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

impl JsonSchema for Device {
    fn schema_name() -> Cow<'static, str> {
        "Device".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "MAJOR:MINOR, as in /proc/self/mountinfo.",
            "type": "string",
            "pattern": "^[0-9]+:[0-9]+$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_whatever_they_are() {
        for bytes in
            [&b"plain"[..], b"", b"\x1b[31m\n\"\\", "snow \u{2603}".as_bytes(), b"\xff\x00a"]
        {
            let json = serde_json::to_string(&Bytes::from(bytes)).unwrap();
            assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap().0, bytes, "{json}");
        }
        assert_eq!(
            serde_json::to_string(&Bytes::from(&b"a\xff"[..])).unwrap(),
            r#"{"lossy":"a�","hex":"61ff"}"#
        );
        assert!(serde_json::from_str::<Bytes>(r#"{"lossy":"","hex":"f"}"#).is_err());
        assert!(serde_json::from_str::<Bytes>(r#"{"lossy":"","hex":"é0"}"#).is_err());
    }

    #[test]
    fn devices_are_written_like_mountinfo() {
        let device = Device::new(259, 3);
        assert_eq!(serde_json::to_string(&device).unwrap(), r#""259:3""#);
        assert_eq!(serde_json::from_str::<Device>(r#""259:3""#).unwrap(), device);
        assert!(serde_json::from_str::<Device>(r#""259""#).is_err());
    }
}
