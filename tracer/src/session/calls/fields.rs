//! A few values of a JSON object, read as it passes: nothing of it is kept but these.

use super::redact;

/// A longer value is none of those that are wanted.
const VALUE_MAX_BYTES: usize = 1024;
/// A model's name, for example; Bedrock's longest are ARNs.
const TEXT_MAX_BYTES: usize = 256;
/// Entries of a list.
const LIST_MAX: usize = 32;

/// What is wanted of a request's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) anthropic_version: Option<String>,
    pub(super) anthropic_beta: Vec<String>,
    pub(super) model: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    AnthropicVersion,
    AnthropicBeta,
    Model,
}

const WANTED: [(&[u8], Field); 3] = [
    (b"anthropic_version", Field::AnthropicVersion),
    (b"anthropic_beta", Field::AnthropicBeta),
    (b"model", Field::Model),
];
/// Of the wanted ones.
const NAME_MAX_BYTES: usize = 17;

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Before the object.
    Before,
    /// Between a value and the next name.
    Between,
    /// In a name of the object; it is too long or has escapes when there is none.
    Name(Option<Vec<u8>>),
    /// Behind a name, with the value as far as it is wanted.
    Value(Option<(Field, Vec<u8>)>),
    /// Behind the object, or it is none.
    Over,
}

/// Reads the members of a JSON object that are wanted, in one pass and with little memory.
#[derive(Debug)]
pub(super) struct Scanner {
    place: Place,
    /// Of brackets within the value.
    depth: u64,
    in_string: bool,
    escaped: bool,
    found: Fields,
}

impl Scanner {
    pub(super) fn new() -> Scanner {
        Scanner {
            place: Place::Before,
            depth: 0,
            in_string: false,
            escaped: false,
            found: Fields::default(),
        }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.place == Place::Over {
                return;
            }
            self.byte(*byte);
        }
    }

    /// Bytes are missing: nothing behind them counts.
    pub(super) fn stop(&mut self) {
        self.place = Place::Over;
    }

    pub(super) fn found(self) -> Fields {
        self.found
    }

    fn byte(&mut self, byte: u8) {
        match &mut self.place {
            Place::Over => {}
            Place::Before => match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'{' => self.place = Place::Between,
                _ => self.place = Place::Over,
            },
            Place::Between => match byte {
                b'"' => self.place = Place::Name(Some(Vec::new())),
                b' ' | b'\t' | b'\r' | b'\n' | b',' => {}
                _ => self.place = Place::Over,
            },
            Place::Name(name) => match byte {
                _ if self.escaped => self.escaped = false,
                b'"' => {
                    let known = WANTED.iter().find(|(wanted, _)| name.as_deref() == Some(*wanted));
                    self.place = Place::Value(known.map(|(_, field)| (*field, Vec::new())));
                    self.depth = 0;
                }
                b'\\' => (self.escaped, *name) = (true, None),
                _ => {
                    if let Some(text) = name {
                        text.push(byte);
                        if text.len() > NAME_MAX_BYTES {
                            *name = None;
                        }
                    }
                }
            },
            Place::Value(_) => self.value(byte),
        }
    }

    fn value(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b',' | b'}' if self.depth == 0 => {
                    let over = byte == b'}';
                    let next = if over { Place::Over } else { Place::Between };
                    if let Place::Value(Some((field, value))) =
                        std::mem::replace(&mut self.place, next)
                    {
                        self.take(field, &value);
                    }
                    return;
                }
                b'}' | b']' => match self.depth.checked_sub(1) {
                    Some(depth) => self.depth = depth,
                    None => self.place = Place::Over,
                },
                _ => {}
            }
        }
        if let Place::Value(kept @ Some(_)) = &mut self.place {
            if let Some((_, value)) = kept {
                value.push(byte);
            }
            if kept.as_ref().is_some_and(|(_, value)| value.len() > VALUE_MAX_BYTES) {
                *kept = None;
            }
        }
    }

    fn take(&mut self, field: Field, value: &[u8]) {
        // A name has a colon behind it.
        let Some(value) = value.trim_ascii_start().strip_prefix(b":") else {
            return self.stop();
        };
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(value) else {
            return self.stop();
        };
        let text = |value: &serde_json::Value| value.as_str().and_then(harmless);
        match field {
            Field::AnthropicVersion => self.found.anthropic_version = text(&value),
            Field::Model => self.found.model = text(&value),
            Field::AnthropicBeta => {
                let list = value.as_array().into_iter().flatten();
                self.found.anthropic_beta = list.filter_map(text).take(LIST_MAX).collect();
            }
        }
    }
}

/// A name or a version; other texts are not wanted.
fn harmless(text: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/@+".contains(&byte);
    let plain = !text.is_empty() && text.len() <= TEXT_MAX_BYTES && text.bytes().all(is_plain);
    plain.then(|| redact::name(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: (Option<&str>, &[&str], Option<&str>)) {
        for each in [1, 3, json.len().max(1)] {
            let mut scanner = Scanner::new();
            json.as_bytes().chunks(each).for_each(|bytes| scanner.add(bytes));
            let found = scanner.found();
            let beta: Vec<&str> = found.anthropic_beta.iter().map(String::as_str).collect();
            let got = (found.anthropic_version.as_deref(), &beta[..], found.model.as_deref());
            assert_eq!(got, expected, "{json} in pieces of {each}");
        }
    }

    #[test]
    fn members_of_the_object_itself_count() {
        check(
            r#" {"a":[{"model":"no"},"}"],"model" : "claude-x","anthropic_version":"bedrock-2023-05-31"}"#,
            (Some("bedrock-2023-05-31"), &[], Some("claude-x")),
        );
        check(
            r#"{"anthropic_beta":["a-1","b-2",3,"no no"],"x":"\"model\":\"no\"","model":"m\u0031"}"#,
            (None, &["a-1", "b-2"], Some("m1")),
        );
        check(r#"[{"model":"no"}]"#, (None, &[], None));
        check(r#"{"model":5,"mod\u0065l":"no"}"#, (None, &[], None));
        check(r#"{"model" "x"}"#, (None, &[], None));
        check(r#"{"model":"sk-ant-api03-0123456789"}"#, (None, &[], Some("REDACTED")));
        check(
            &format!(r#"{{"model":"{}","anthropic_version":"1"}}"#, "x".repeat(5000)),
            (Some("1"), &[], None),
        );
        check("", (None, &[], None));
    }

    #[test]
    fn what_follows_a_gap_does_not_count() {
        let mut scanner = Scanner::new();
        scanner.add(br#"{"anthropic_version":"1","x":"#);
        scanner.stop();
        scanner.add(br#","model":"no"}"#);
        let found = scanner.found();
        assert_eq!((found.anthropic_version.as_deref(), found.model), (Some("1"), None));
    }
}
