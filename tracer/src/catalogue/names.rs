//! Patterns of host names, compared label by label: a pattern never ends in the middle of a label,
//! so no other domain can end or begin like one that it stands for.

use std::fmt;

/// What a name fills a pattern's places with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub region: Option<String>,
    pub service: Option<String>,
}

/// Labels of letters, digits, `-` and `_`. In a label, `*` is any part that is not empty, `{region}`
/// the region of a cloud provider, `{service}` a part that names the service. `**` in front or at the
/// end is one or more labels.
#[derive(Clone, PartialEq, Eq)]
pub struct NamePattern {
    text: String,
    labels: Vec<Vec<Part>>,
    many: Many,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Many {
    No,
    InFront,
    AtTheEnd,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Any,
    Region,
    Service,
}

impl fmt::Debug for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamePattern({})", self.text)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A name as patterns see it: lower case, without the last dot. None for what is no host name; an
/// escaped byte makes a name that, too, because a dot inside a label is not the end of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

impl HostName {
    pub fn new(name: &str) -> Option<HostName> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let valid = name.len() <= NAME_MAX && name.split('.').all(is_label);
        valid.then_some(HostName(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// RFC 1035, 2.3.4.
const LABEL_MAX: usize = 63;
const NAME_MAX: usize = 253;
/// Places in one label. Each multiplies the ways to read it.
const PLACES_MAX: usize = 2;

fn is_label(label: &str) -> bool {
    (1..=LABEL_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl NamePattern {
    /// # Errors
    /// What is wrong with it, as a sentence that begins with the pattern.
    pub fn new(text: &str) -> Result<NamePattern, String> {
        let wrong = |why: &str| Err(format!("`{text}` {why}"));
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let mut words: Vec<&str> = lower.split('.').collect();
        let many = match words.as_slice() {
            ["**", ..] => Many::InFront,
            [.., "**"] => Many::AtTheEnd,
            _ => Many::No,
        };
        match many {
            Many::No => {}
            Many::InFront => drop(words.remove(0)),
            Many::AtTheEnd => drop(words.pop()),
        }
        if words.is_empty() {
            return wrong("stands for every name there is");
        }
        if words.contains(&"**") {
            return wrong("has `**` in the middle: it stands for labels in front or at the end");
        }
        if words.contains(&"") {
            return wrong("has an empty label (two dots, or a dot in front): no name is like that");
        }
        let labels = words.iter().map(|word| parts(word)).collect::<Result<Vec<_>, _>>();
        let labels = match labels {
            Ok(labels) => labels,
            Err(why) => return wrong(&why),
        };
        let has_text = |label: &Vec<Part>| label.iter().any(|part| matches!(part, Part::Text(_)));
        if !labels.iter().any(has_text) {
            return wrong("has no fixed part: it stands for almost every name there is");
        }
        if lower.len() > NAME_MAX {
            return wrong("is longer than any name can be");
        }
        Ok(NamePattern { text: lower, labels, many })
    }

    /// Whether it stands for that one name only.
    pub fn is_exact(&self) -> bool {
        self.many == Many::No
            && self.labels.iter().flatten().all(|part| matches!(part, Part::Text(_)))
    }

    pub fn has_place_for_service(&self) -> bool {
        self.labels.iter().flatten().any(|part| *part == Part::Service)
    }

    /// The last two labels of every name it stands for, where it says.
    pub(super) fn ending(&self) -> Option<&str> {
        let fixed = |label: &Vec<Part>| matches!(label.as_slice(), [Part::Text(_)]);
        let last_two = self.labels.len().checked_sub(2)?;
        let known = self.many != Many::AtTheEnd && self.labels.get(last_two..)?.iter().all(fixed);
        known.then(|| ending(&self.text)).flatten()
    }

    pub fn matches(&self, name: &HostName) -> Option<Places> {
        let labels: Vec<&str> = name.0.split('.').collect();
        let more = labels.len().checked_sub(self.labels.len())?;
        let compared = match self.many {
            Many::No if more == 0 => &labels[..],
            Many::InFront if more > 0 => &labels[more..],
            Many::AtTheEnd if more > 0 => &labels[..self.labels.len()],
            Many::No | Many::InFront | Many::AtTheEnd => return None,
        };
        let mut places = Places::default();
        let mut pairs = self.labels.iter().zip(compared);
        pairs.all(|(parts, label)| fill(parts, label, &mut places)).then_some(places)
    }
}

/// The last two labels of a name.
pub(super) fn ending(name: &str) -> Option<&str> {
    let mut dots = name.rmatch_indices('.');
    dots.next()?;
    Some(dots.next().map_or(name, |(at, _)| &name[at + 1..]))
}

fn parts(label: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = label;
    while !rest.is_empty() {
        let places = [("*", Part::Any), ("{region}", Part::Region), ("{service}", Part::Service)];
        if let Some((place, part)) = places.into_iter().find(|(place, _)| rest.starts_with(place)) {
            parts.push(part);
            rest = &rest[place.len()..];
            continue;
        }
        let (text, after) = rest.split_at(rest.find(['*', '{']).unwrap_or(rest.len()));
        if text.is_empty() {
            return Err(format!(
                "has `{rest}` in it: the only places are `*`, `{{region}}` and `{{service}}`"
            ));
        }
        if !is_label(text) {
            return Err(if text.len() > LABEL_MAX {
                format!("has a label of more than {LABEL_MAX} bytes: no name is like that")
            } else {
                format!("has {text:?} in it: a host name has letters, digits, `-`, `_` and dots")
            });
        }
        parts.push(Part::Text(text.to_owned()));
        rest = after;
    }
    let is_place = |part: &Part| !matches!(part, Part::Text(_));
    if parts.iter().filter(|part| is_place(part)).count() > PLACES_MAX
        || parts.iter().zip(parts.iter().skip(1)).any(|(a, b)| is_place(a) && is_place(b))
    {
        return Err(format!("has the label `{label}`, which can be read in too many ways"));
    }
    Ok(parts)
}

fn fill(parts: &[Part], text: &str, places: &mut Places) -> bool {
    let Some((part, rest)) = parts.split_first() else { return text.is_empty() };
    let mut lengths = 1..=text.len();
    match part {
        Part::Text(own) => {
            text.strip_prefix(own.as_str()).is_some_and(|text| fill(rest, text, places))
        }
        Part::Any => lengths.any(|length| fill(rest, &text[length..], places)),
        Part::Region => lengths.any(|length| {
            is_region(&text[..length])
                && fill(rest, &text[length..], places)
                && keep(&mut places.region, &text[..length])
        }),
        Part::Service => lengths.any(|length| {
            fill(rest, &text[length..], places) && keep(&mut places.service, &text[..length])
        }),
    }
}

fn keep(place: &mut Option<String>, text: &str) -> bool {
    *place = Some(text.to_owned());
    true
}

/// `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`; `us-east5`, `northamerica-northeast1`.
fn is_region(text: &str) -> bool {
    let words: Vec<&str> = text.split('-').collect();
    let Some((last, others)) = words.split_last() else { return false };
    let letters = last.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let all_letters = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase());
    let least = if letters.is_empty() { 2 } else { 1 };
    letters.len() < last.len()
        && all_letters(letters)
        && others.len() >= least
        && others.iter().all(|word| !word.is_empty() && all_letters(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> Option<Places> {
        NamePattern::new(pattern).unwrap().matches(&HostName::new(name)?)
    }

    #[test]
    fn labels_are_compared_whole() {
        let check = |pattern: &str, yes: &[&str], no: &[&str]| {
            for name in yes {
                assert!(matches(pattern, name).is_some(), "{pattern} {name}");
            }
            for name in no {
                assert!(matches(pattern, name).is_none(), "{pattern} {name}");
            }
        };
        check(
            "api.anthropic.com",
            &["api.anthropic.com", "API.Anthropic.COM", "api.anthropic.com."],
            &[
                "xapi.anthropic.com",
                "api.anthropic.com.evil.org",
                "anthropic.com",
                "a.api.anthropic.com",
            ],
        );
        check(
            "*.amazonaws.com",
            &["sts.amazonaws.com"],
            &["evil-amazonaws.com", "amazonaws.com", "a.b.amazonaws.com", ".amazonaws.com"],
        );
        check(
            "**.x.com",
            &["a.x.com", "a.b.x.com"],
            &["x.com", "ax.com", "a.x.com.org", "x.com.a"],
        );
        check("mcp.**", &["mcp.a", "mcp.a.b"], &["mcp", "amcp.a", "a.mcp.b"]);
        check("vpce-*.s.x.com", &["vpce-1a.s.x.com"], &["vpce-.s.x.com", "vpce-1.t.s.x.com"]);
        check("a*b.c", &["a-b-b.c"], &["ab.c", "a-b-.c"]);
    }

    #[test]
    fn what_is_no_host_name_matches_nothing() {
        let long = "a".repeat(64);
        let names = [
            "",
            ".",
            "..",
            "a..com",
            r"x\.amazonaws.com",
            r"x\046amazonaws.com",
            "a b.com",
            "é.com",
            "a/b.com",
            "a\0.com",
            &long,
            "a.com..",
        ];
        for name in names {
            assert_eq!(HostName::new(name), None, "{name}");
        }
        assert_eq!(HostName::new("_Dns.Local.").unwrap().as_str(), "_dns.local");
    }

    #[test]
    fn places_are_filled() {
        let found = matches(
            "{service}-fips.{region}.amazonaws.com",
            "kms-fips.us-gov-west-1.amazonaws.com",
        );
        let found = found.unwrap();
        assert_eq!(found.service.as_deref(), Some("kms"));
        assert_eq!(found.region.as_deref(), Some("us-gov-west-1"));
        let google = matches("{region}-aiplatform.x.com", "us-east5-aiplatform.x.com").unwrap();
        assert_eq!(google.region.as_deref(), Some("us-east5"));
        for other in ["evil", "us-east", "1", "us-east-", "-1", "us--1", "us-1", "US", "us-east-1x"]
        {
            assert_eq!(matches("{region}.x.com", &format!("{other}.x.com")), None, "{other}");
        }
    }

    #[test]
    fn bad_patterns_say_why() {
        let long = format!("{}.com", "a".repeat(64));
        let longest = format!("{}x", "a.".repeat(127));
        for (pattern, says) in [
            ("", "empty label"),
            ("a..b", "empty label"),
            (".a.b", "empty label"),
            ("**", "every name"),
            ("*", "no fixed part"),
            ("**.*", "no fixed part"),
            ("a.**.b", "in the middle"),
            ("***.a", "too many ways"),
            ("**a.b", "too many ways"),
            ("a.{zone}.b", "the only places"),
            ("https://a.b", "letters, digits"),
            ("a b.c", "letters, digits"),
            (&long, "more than 63"),
            (&longest, "longer than any"),
        ] {
            let error = NamePattern::new(pattern).unwrap_err();
            assert!(error.contains(says), "{pattern}: {error}");
        }
    }

    #[test]
    fn endings_are_the_last_two_labels() {
        let of = |pattern: &str| NamePattern::new(pattern).unwrap().ending().map(str::to_owned);
        assert_eq!(of("**.s3.{region}.amazonaws.com.cn").as_deref(), Some("com.cn"));
        assert_eq!(of("**.x.com").as_deref(), Some("x.com"));
        assert_eq!((of("**.aws"), of("mcp.**"), of("{region}.aws")), (None, None, None));
        assert_eq!(ending("a.b.c"), Some("b.c"));
        assert_eq!((ending("b.c"), ending("c")), (Some("b.c"), None));
    }
}
