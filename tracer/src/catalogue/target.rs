//! What the `endpoints` of a claim stand for.

use std::fmt;

use ipnet::IpNet;

use super::{
    Classified, EndpointClass, EndpointRule, Endpoints, HostName, NamePattern,
    endpoints::{looks_like_address, range_of, shown as shown_range},
};
use crate::model::Endpoint;

/// One of a claim's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `api.example.com`, `*.example.com`, `**.example.com`, `api.example.com:443`.
    Name(NamePattern, Option<u16>),
    /// `10.0.0.1`, `10.0.0.0/8`, `10.0.0.1:443`, `fd00::/8`, `[fd00::1]:443`.
    Addresses(IpNet, Option<u16>),
    /// `service:bedrock-runtime`.
    Service(String),
    /// `provider:aws`.
    Provider(String),
    /// `class:telemetry`.
    Class(EndpointClass),
}

/// Whether a name or an address is a target, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    No,
    /// By the form of its name alone: others may have such names.
    Guess(String),
    Yes(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = |port: &Option<u16>| port.map(|port| format!(":{port}")).unwrap_or_default();
        match self {
            Target::Name(pattern, at) => write!(f, "{pattern}{}", port(at)),
            Target::Addresses(range @ IpNet::V6(_), Some(port)) => {
                write!(f, "[{}]:{port}", shown_range(range))
            }
            Target::Addresses(range, at) => write!(f, "{}{}", shown_range(range), port(at)),
            Target::Service(name) => write!(f, "service:{name}"),
            Target::Provider(name) => write!(f, "provider:{name}"),
            Target::Class(class) => write!(f, "class:{}", class.name()),
        }
    }
}

impl Target {
    /// # Errors
    /// Why nothing would ever match it, as a sentence that quotes it.
    pub fn parse(text: &str) -> Result<Target, String> {
        if text.trim() != text || text.is_empty() || text.contains(char::is_control) {
            return Err(format!("{text:?} is empty or has blanks or control characters in it"));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
            return Err(format!(
                "`{text}` is a URL: what follows `{scheme}://{host}` is said inside the connection. \
                 Give `{host}`"
            ));
        }
        match text.split_once(':') {
            Some(("service", name)) => return Ok(Target::Service(name.to_owned())),
            Some(("provider", name)) => return Ok(Target::Provider(name.to_owned())),
            Some(("class", name)) => return class_named(name).map(Target::Class),
            _ => {}
        }
        if text.parse::<IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok() {
            return Ok(Target::Addresses(range_of(text)?, None));
        }
        let (host, port) = with_port(text)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_some() || host.contains(['/', ':']) || looks_like_address(host) {
            return Ok(Target::Addresses(range_of(bare.unwrap_or(host))?, port));
        }
        let pattern = NamePattern::new(host)?;
        if pattern.has_place_for_service() {
            return Err(format!("`{text}`: `{{service}}` has no meaning here; `*` has"));
        }
        Ok(Target::Name(pattern, port))
    }

    /// Whether the catalogue has what it names. What is to be allowed must be more than a guess.
    ///
    /// # Errors
    /// A sentence that says what it has instead.
    pub fn check(&self, endpoints: &Endpoints, allows: bool) -> Result<(), String> {
        let rules = &endpoints.rules().rules;
        let (name, what, known): (&str, _, Vec<&str>) = match self {
            Target::Name(pattern, _) => return check_word(&pattern.to_string(), endpoints),
            Target::Addresses(..) => return Ok(()),
            Target::Service(name) => {
                (name, "service", rules.iter().map(|rule| rule.service.as_str()).collect())
            }
            Target::Provider(name) => {
                (name, "provider", rules.iter().map(|rule| rule.provider.as_str()).collect())
            }
            Target::Class(class) => {
                (class.name(), "class", rules.iter().map(|rule| rule.class.name()).collect())
            }
        };
        let found: Vec<&EndpointRule> =
            rules.iter().filter(|rule| self.is_of(rule, name)).collect();
        if found.is_empty() {
            return Err(format!(
                "the catalogue has no endpoint of `{self}`, so nothing would ever match it; each {what} \
                 it has: {}",
                sorted(known)
            ));
        }
        if allows && found.iter().all(|rule| rule.guess) {
            return Err(format!(
                "`{self}` is no more than a guess by the form of names: it can be forbidden, and not \
                 allowed. Name the hosts, or add them to a catalogue of your own"
            ));
        }
        Ok(())
    }

    /// Whether an entry of the catalogue is a service, provider or class of that name, whichever the
    /// target is.
    pub fn is_of(&self, rule: &EndpointRule, name: &str) -> bool {
        match self {
            Target::Service(_) => is_service(&rule.service, name),
            Target::Provider(_) => rule.provider == name,
            Target::Class(_) => rule.class.name() == name,
            Target::Name(..) | Target::Addresses(..) => false,
        }
    }

    /// Whether it stands for names, so that a connection needs one to be told apart.
    pub fn needs_name(&self) -> bool {
        match self {
            Target::Addresses(..) => false,
            Target::Name(..) | Target::Service(_) | Target::Provider(_) | Target::Class(_) => true,
        }
    }

    /// Whether a name is one of it, at this port; an unknown port counts as any.
    pub fn fits_name(&self, name: &str, port: Option<u16>, endpoints: &Endpoints) -> Fit {
        match self {
            Target::Name(pattern, at) => {
                let fits = HostName::new(name).is_some_and(|name| pattern.matches(&name).is_some());
                if fits && has_port(*at, port) { Fit::Yes(pattern.to_string()) } else { Fit::No }
            }
            Target::Addresses(..) => Fit::No,
            Target::Service(_) | Target::Provider(_) | Target::Class(_) => {
                self.fits(endpoints.of_name(name, port))
            }
        }
    }

    /// Whether an address is one of it, whatever its name.
    pub fn fits_address(&self, endpoint: Endpoint, endpoints: &Endpoints) -> Fit {
        match self {
            Target::Name(..) => Fit::No,
            Target::Addresses(range, at) => {
                let inside = range.contains(&endpoint.address.to_canonical());
                if inside && has_port(*at, Some(endpoint.port)) {
                    Fit::Yes(shown_range(range))
                } else {
                    Fit::No
                }
            }
            Target::Service(_) | Target::Provider(_) | Target::Class(_) => {
                self.fits(endpoints.of_address(endpoint))
            }
        }
    }

    fn fits(&self, found: Option<Classified>) -> Fit {
        let Some(found) = found else { return Fit::No };
        let fits = match self {
            Target::Service(name) => found.service == *name,
            Target::Provider(name) => found.provider == *name,
            Target::Class(class) => found.class == *class,
            Target::Name(..) | Target::Addresses(..) => false,
        };
        match (fits, found.guess) {
            (false, _) => Fit::No,
            (true, true) => Fit::Guess(found.rule),
            (true, false) => Fit::Yes(found.rule),
        }
    }
}

fn has_port(wanted: Option<u16>, port: Option<u16>) -> bool {
    wanted.is_none() || port.is_none() || wanted == port
}

/// Whether a rule's service, in which `{service}` is any word, can be called that.
fn is_service(rule: &str, name: &str) -> bool {
    match rule.split_once("{service}") {
        None => rule == name,
        Some((before, after)) => {
            let rest = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            rest.is_some_and(|rest| {
                !rest.is_empty()
                    && rest.bytes().all(|byte| {
                        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
                    })
            })
        }
    }
}

fn class_named(name: &str) -> Result<EndpointClass, String> {
    EndpointClass::ALL.into_iter().find(|class| class.name() == name).ok_or_else(|| {
        let known = EndpointClass::ALL.map(EndpointClass::name).to_vec();
        format!("there is no class `{name}`; there are: {}", sorted(known))
    })
}

fn with_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let in_brackets = text.rfind(']');
    let Some((host, port)) =
        text.rsplit_once(':').filter(|(host, _)| in_brackets < Some(host.len()))
    else {
        return Ok((text, None));
    };
    // An IPv6 address without brackets has colons of its own.
    if host.contains(':') && in_brackets.is_none() {
        return Ok((text, None));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok((host, Some(port))),
        _ => Err(format!(
            "`{text}`: `{port}` is no port, and `{host}:` is none of `service:`, `class:`, `provider:`"
        )),
    }
}

/// A name of one word is legal, and it is more likely a word of the catalogue without its prefix.
fn check_word(name: &str, endpoints: &Endpoints) -> Result<(), String> {
    if name.contains(['.', '*', '{']) {
        return Ok(());
    }
    let rules = &endpoints.rules().rules;
    let found = if rules.iter().any(|rule| rule.service == name) {
        "service"
    } else if rules.iter().any(|rule| rule.provider == name) {
        "provider"
    } else if EndpointClass::ALL.iter().any(|class| class.name() == name) {
        "class"
    } else {
        return Ok(());
    };
    Err(format!("`{name}` would be a host of that name: write `{found}:{name}` for the {found}"))
}

fn sorted(mut words: Vec<&str>) -> String {
    words.sort_unstable();
    words.dedup();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    #[test]
    fn forms_that_are_understood() {
        for (text, shown) in [
            ("api.anthropic.com", "api.anthropic.com"),
            ("API.anthropic.com.", "api.anthropic.com"),
            ("*.x.com:443", "*.x.com:443"),
            ("localhost:8080", "localhost:8080"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:443", "10.0.0.1:443"),
            ("10.0.0.0/8:443", "10.0.0.0/8:443"),
            ("::1", "::1"),
            ("fd00::/8", "fd00::/8"),
            ("[::1]", "::1"),
            ("[::1]:53", "[::1]:53"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("service:bedrock-runtime", "service:bedrock-runtime"),
            ("provider:aws", "provider:aws"),
            ("class:telemetry", "class:telemetry"),
        ] {
            assert_eq!(Target::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_could_never_match_is_refused() {
        for (text, says) in [
            ("", "empty"),
            (" a.b", "blanks"),
            ("https://a.b/c", "Give `a.b`"),
            ("a.b/c", "neither an address"),
            ("*", "no fixed part"),
            ("**", "every name"),
            ("a..b", "empty label"),
            ("a_b c.d", "letters, digits"),
            ("a.b:http", "`http` is no port"),
            ("a.b:0", "no port"),
            ("a.b:65536", "no port"),
            ("host:a.b", "none of `service:`"),
            ("10.0.0.1/8", "must be `10.0.0.0/8`"),
            ("10.0.0.256", "neither an address"),
            ("[::1", "neither"),
            ("::g", "neither an address"),
            ("class:spy", "there is no class `spy`"),
            ("{service}.x.com", "no meaning"),
        ] {
            let error = Target::parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_catalogue_must_have_it() {
        let endpoints = &Catalogue::embedded().endpoints;
        let check = |text: &str, allows| Target::parse(text).unwrap().check(endpoints, allows);
        for text in ["service:aws-dynamodb", "service:bedrock", "provider:aws", "class:mcp"] {
            check(text, true).unwrap();
        }
        for (text, says) in [
            ("service:s4", "no endpoint of `service:s4`"),
            ("provider:amazon", "aws-customers"),
            ("class:other", "no endpoint of `class:other`"),
            ("bedrock", "write `service:bedrock`"),
            ("telemetry", "write `service:telemetry`"),
            ("anthropic", "write `provider:anthropic`"),
            ("mcp", "write `class:mcp`"),
            ("service:mcp-server", "no more than a guess"),
        ] {
            let error = check(text, true).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        check("service:mcp-server", false).unwrap();
        check("localhost", true).unwrap();
    }

    #[test]
    fn names_and_addresses_fit() {
        let endpoints = &Catalogue::embedded().endpoints;
        let name = |text: &str, name: &str, port| {
            Target::parse(text).unwrap().fits_name(name, port, endpoints)
        };
        assert!(matches!(name("*.x.com:443", "a.x.com", Some(443)), Fit::Yes(_)));
        assert_eq!(name("*.x.com:443", "a.x.com", Some(80)), Fit::No);
        assert_eq!(name("*.x.com", "a.x.com.evil.org", None), Fit::No);
        assert!(matches!(name("provider:aws", "sts.amazonaws.com", None), Fit::Yes(_)));
        assert!(matches!(name("provider:aws", "a.b.amazonaws.com", None), Fit::Guess(_)));
        assert_eq!(name("provider:aws", "evil-amazonaws.com", None), Fit::No);
        let address = |text: &str, address: &str| {
            let endpoint = Endpoint { address: address.parse().unwrap(), port: 80 };
            Target::parse(text).unwrap().fits_address(endpoint, endpoints)
        };
        assert!(matches!(address("10.0.0.0/8", "::ffff:10.1.2.3"), Fit::Yes(_)));
        for mapped in ["::ffff:10.0.0.0/104", "[::ffff:10.0.0.0/104]:80", "::ffff:0:0/96"] {
            assert!(matches!(address(mapped, "10.1.2.3"), Fit::Yes(_)), "{mapped}");
            assert!(matches!(address(mapped, "::ffff:10.1.2.3"), Fit::Yes(_)), "{mapped}");
        }
        assert_eq!(address("::ffff:10.0.0.0/104", "11.1.2.3"), Fit::No);
        assert_eq!(address("::/0", "::ffff:10.1.2.3"), Fit::No);
        for nobody in ["0.0.0.0", "::", "[::]:80", "0.0.0.0:80", "::ffff:0.0.0.0"] {
            let why = Target::parse(nobody).unwrap_err();
            assert!(why.contains("reaches this machine"), "{why}");
        }
        assert_eq!(address("10.0.0.0/8:443", "10.1.2.3"), Fit::No);
        assert!(matches!(address("service:aws-imds", "169.254.169.254"), Fit::Yes(_)));
        assert_eq!(address("api.anthropic.com", "169.254.169.254"), Fit::No);
    }
}
