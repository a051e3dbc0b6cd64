//! What an HTTP call is, by its URL.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Classified, EndpointClass, Endpoints};

/// An entry of the catalogue: what calls of some methods and paths are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CallRule {
    pub name: String,
    /// Its endpoint's when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<EndpointClass>,
    /// Services of endpoints; any when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Any when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Patterns of paths: `*` stands for any text within a part, `**` at either end for any parts.
    pub paths: Vec<String>,
}

/// What the catalogue says of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallKind {
    /// For example `invoke-with-response-stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<EndpointClass>,
    /// Whom it went to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Classified>,
}

impl CallKind {
    pub fn has_class(&self, class: EndpointClass) -> bool {
        self.class == Some(class)
    }
}

impl Endpoints {
    /// What a call is, by its method and URL.
    pub fn call(&self, method: &str, url: &str) -> CallKind {
        let Some((host, port, path)) = parts(url) else { return CallKind::default() };
        let endpoint = self.of_name(host, Some(port));
        let is = |rule: &&CallRule| {
            let at = endpoint.as_ref().is_some_and(|known| rule.services.contains(&known.service));
            (rule.services.is_empty() || at)
                && (rule.methods.is_empty() || rule.methods.iter().any(|own| own == method))
                && rule.paths.iter().any(|pattern| fits(pattern, path))
        };
        let rule = self.rules().calls.iter().find(is);
        let of_endpoint = endpoint.as_ref().map(|known| known.class);
        CallKind {
            name: rule.map(|rule| rule.name.clone()),
            class: rule.and_then(|rule| rule.class).or(of_endpoint),
            endpoint,
        }
    }
}

/// # Errors
/// What is wrong with it.
pub(super) fn check(rule: &CallRule) -> Result<(), String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if rule.name.is_empty() || !rule.name.bytes().all(is_word) {
        return Err("`name` must be a word of letters, digits, `-`, `_` and `.`".into());
    }
    if rule.paths.is_empty() {
        return Err("it has no `paths`, so nothing would match it".into());
    }
    let is_method = |method: &String| {
        !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
    };
    if let Some(method) = rule.methods.iter().find(|method| !is_method(method)) {
        return Err(format!("`{method}` in `methods` must be in capital letters"));
    }
    for path in &rule.paths {
        let middle = path.strip_prefix("**").unwrap_or(path);
        let middle = middle.strip_suffix("/**").unwrap_or(middle);
        if !middle.starts_with('/') || middle.contains("**") || middle.contains(['?', '#']) {
            return Err(format!(
                "`{path}` in `paths` must begin with / or **/, and `**` stands at its ends only"
            ));
        }
    }
    Ok(())
}

/// Host, port and path of a URL as a recording has it.
fn parts(url: &str) -> Option<(&str, u16, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(end)?;
    let path = target.split('?').next().unwrap_or_default();
    let usual = if scheme == "http" { 80 } else { 443 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        Some(_) | None => (authority, usual),
    };
    Some((host, port, path))
}

fn fits(pattern: &str, path: &str) -> bool {
    let split = |text: &str| -> Vec<String> {
        let text = text.strip_suffix('/').unwrap_or(text);
        text.split('/').skip(1).map(str::to_owned).collect()
    };
    let (from_any, rest) = match pattern.strip_prefix("**") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (to_any, rest) = match rest.strip_suffix("/**") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (wanted, parts) = (split(rest), split(path));
    let Some(more) = parts.len().checked_sub(wanted.len()) else { return false };
    let (first, last) = match (from_any, to_any) {
        (false, false) if more > 0 => return false,
        (false, _) => (0, 0),
        (true, false) => (more, more),
        (true, true) => (0, more),
    };
    (first..=last)
        .any(|at| wanted.iter().zip(&parts[at..]).all(|(wanted, part)| fits_part(wanted, part)))
}

/// `*` is any text.
fn fits_part(pattern: &str, part: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = part.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    #[test]
    fn calls_are_told_by_host_method_and_path() {
        let check = |method: &str, url: &str, expected: &str| {
            let kind = Catalogue::embedded().endpoints.call(method, url);
            let name = kind.name.as_deref().unwrap_or("-");
            let class = kind.class.map_or("-", EndpointClass::name);
            assert_eq!(format!("{name} {class}"), expected, "{method} {url}");
        };
        let bedrock = "https://bedrock-runtime.us-east-1.amazonaws.com";
        let model = format!("{bedrock}/model/us.anthropic.claude-x-v1%3A0");
        check(
            "POST",
            &format!("{model}/invoke-with-response-stream"),
            "invoke-with-response-stream api",
        );
        check("POST", &format!("{model}/invoke"), "invoke api");
        check("POST", &format!("{model}/converse"), "converse api");
        check("POST", &format!("{model}/count-tokens"), "count_tokens api");
        check("GET", &format!("{model}/invoke"), "- api");
        check("POST", "https://other.example/model/x/invoke", "- -");
        check("POST", "https://api.anthropic.com/v1/messages?beta=true", "messages api");
        check(
            "POST",
            "https://api.anthropic.com/v1/messages/count_tokens?beta=true",
            "count_tokens api",
        );
        check("POST", "https://api.anthropic.com/api/event_logging/batch", "telemetry telemetry");
        check("POST", "https://statsig.anthropic.com/v1/rgstr", "- telemetry");
        check("POST", "https://api.githubcopilot.com/mcp/readonly", "mcp mcp");
        check("POST", "https://tools.example.org:8443/x/mcp/", "mcp mcp");
        check(
            "GET",
            "https://api.githubcopilot.com/.well-known/oauth-protected-resource/mcp",
            "oauth-discovery oauth",
        );
        check(
            "GET",
            "https://mcp.example.org/.well-known/oauth-authorization-server",
            "oauth-discovery oauth",
        );
        check(
            "GET",
            "http://169.254.169.254/latest/meta-data/iam/security-credentials/role",
            "instance-credentials credentials",
        );
        check("POST", "https://sts.us-east-1.amazonaws.com/", "- credentials");
        check("POST", "https://collector.example/v1/traces", "opentelemetry telemetry");
        check("GET", "nonsense", "- -");
    }

    #[test]
    fn patterns_stand_for_parts() {
        let check = |pattern: &str, path: &str, expected| {
            assert_eq!(fits(pattern, path), expected, "{pattern} {path}");
        };
        check("/a/*/c", "/a/b/c", true);
        check("/a/*/c", "/a/b/b/c", false);
        check("/a/**", "/a", true);
        check("/a/**", "/a/b/c", true);
        check("/a/**", "/ab", false);
        check("**/mcp", "/mcp", true);
        check("**/mcp", "/x/y/mcp/", true);
        check("**/mcp", "/mcp/x", false);
        check("**/b/**", "/a/b/c", true);
        check("**/*:count*s", "/a/m:countTokens", true);
        check("**/*:count*s", "/a/m:countToken", false);
        check("/", "/", true);
        check("/", "", true);
    }

    #[test]
    fn bad_rules_say_what_is_wrong() {
        let rule = |name: &str, method: &str, path: &str| CallRule {
            name: name.into(),
            class: None,
            services: Vec::new(),
            methods: vec![method.into()],
            paths: vec![path.into()],
        };
        let check = |rule: CallRule, expected: &str| {
            let error = check(&rule).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(rule("a b", "GET", "/"), "`name`");
        check(rule("a", "get", "/"), "capital letters");
        check(rule("a", "GET", "a"), "must begin with /");
        check(rule("a", "GET", "/a/**/b"), "at its ends only");
        check(rule("a", "GET", "/a?b"), "must begin with /");
        check(CallRule { paths: Vec::new(), ..rule("a", "GET", "/") }, "no `paths`");
    }
}
