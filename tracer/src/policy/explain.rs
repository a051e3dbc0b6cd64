//! A policy in words: what its claims mean, and what they say of one endpoint.

use std::{fmt::Write as _, net::IpAddr};

use super::{Claim, ClaimKind, DnsRule, Policy, claim::ANYBODY};
use crate::{
    catalogue::{Catalogue, Classified, EndpointRule, Endpoints, Fit, HostName, Target},
    model::Endpoint,
};

/// What each claim of a policy means, claim by claim.
pub fn explain(policy: &Policy, catalogue: &Catalogue) -> String {
    let mut text = String::new();
    for claim in &policy.claims {
        let _ = writeln!(text, "\n{}", claim.words());
        for line in meaning(claim, catalogue) {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

fn meaning(claim: &Claim, catalogue: &Catalogue) -> Vec<String> {
    let mut lines: Vec<String> =
        claim.programs.iter().map(|name| program(name, claim.kind, catalogue)).collect();
    let calls = calls(claim, catalogue);
    if !calls.is_empty() {
        lines.push(format!(
            "a changed copy would have to call {}: a call by any program but {} makes it inconclusive \
             (`sdk-users`)",
            calls.join(", "),
            users(claim)
        ));
    }
    for text in &claim.endpoints {
        match Target::parse(text) {
            Ok(target) => lines.extend(endpoint_lines(&target, &catalogue.endpoints)),
            Err(why) => lines.push(why),
        }
    }
    if !claim.elsewhere.is_empty() {
        lines.push(format!(
            "none of these is at {}, so a connection there needs no name (`elsewhere`)",
            claim.elsewhere.join(", ")
        ));
    }
    match (claim.kind, claim.dns) {
        (ClaimKind::NeverRuns | ClaimKind::RunsOnly | ClaimKind::CredentialsInProcess, _) => {}
        (ClaimKind::ConnectsOnlyTo | ClaimKind::NeverConnectsTo, DnsRule::Judge) => {
            lines.push("DNS servers are endpoints like any other (`dns = \"judge\"`)".into());
        }
        (ClaimKind::ConnectsOnlyTo | ClaimKind::NeverConnectsTo, DnsRule::Allow) => {
            lines.push(
                "DNS servers may be asked for names; `dns = \"judge\"` counts them too".into(),
            );
        }
    }
    lines
}

fn program(name: &str, kind: ClaimKind, catalogue: &Catalogue) -> String {
    if name == "@command" {
        return "@command: the file of the traced command (or of the process that is joined), and its script".into();
    }
    if kind == ClaimKind::RunsOnly {
        return format!(
            "{name}: the files that are found under that name at the start, as they are then"
        );
    }
    if name.starts_with('/') {
        return format!(
            "{name}: the file of that path, and what has the inode or the content of one that is there at the start"
        );
    }
    if !catalogue.has_program(name) {
        return format!("`{name}` is not in the catalogue: it stands for files of that name");
    }
    let entry = catalogue.program(name);
    let mut text = format!("{name}: files named {}", entry.file_names.join(", "));
    if !entry.layouts.is_empty() {
        let _ = write!(text, "; files of {} layouts of installers", entry.layouts.len());
    }
    if !entry.python_modules.is_empty() {
        let _ = write!(text, "; the Python modules {}", entry.python_modules.join(", "));
    }
    text + "; and what has the inode or the content of one that is found at the start"
}

/// What the claim's programs cannot do without calling, unless anybody may call that.
fn calls(claim: &Claim, catalogue: &Catalogue) -> Vec<String> {
    let anybody = claim.sdk_users.iter().flatten().any(|user| user == ANYBODY);
    if claim.kind != ClaimKind::NeverRuns || anybody {
        return Vec::new();
    }
    let entries = claim.programs.iter().map(|name| catalogue.program(name));
    entries.flat_map(|entry| entry.calls.clone()).collect()
}

fn users(claim: &Claim) -> String {
    match claim.sdk_users.as_deref() {
        None => "@command".into(),
        Some([]) => "none".into(),
        Some(users) => users.join(", "),
    }
}

fn endpoint_lines(target: &Target, endpoints: &Endpoints) -> Vec<String> {
    let rules = || endpoints.rules().rules.iter();
    let found: Vec<&EndpointRule> = match target {
        Target::Name(pattern, _) if pattern.is_exact() => {
            let rule = endpoints.of_name(&pattern.to_string(), None).map(|found| kind(&found));
            let rule = rule.unwrap_or_else(|| "not in the catalogue".into());
            return vec![format!("{target}: that host ({rule})")];
        }
        Target::Name(..) => {
            return vec![format!(
                "{target}: every host of such a name; `*` is any part of one label, `**` one or more \
                 labels"
            )];
        }
        Target::Addresses(..) => {
            return vec![format!("{target}: by the address, whatever its name")];
        }
        Target::Service(name) => rules().filter(|rule| target.is_of(rule, name)).collect(),
        Target::Provider(name) => rules().filter(|rule| target.is_of(rule, name)).collect(),
        Target::Class(class) => rules().filter(|rule| target.is_of(rule, class.name())).collect(),
    };
    let mut lines = vec![format!("{target}:")];
    lines.extend(found.iter().map(|rule| {
        const SHOWN: usize = 3;
        let places = endpoints.rules().places(rule);
        let more = match places.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let guess = if rule.guess { "; a guess, which forbids and does not allow" } else { "" };
        format!(
            "  {} ({}, {}): {}{more}{guess}",
            rule.service,
            rule.provider,
            rule.class.name(),
            places.get(..SHOWN.min(places.len())).unwrap_or_default().join(", "),
        )
    }));
    lines
}

fn kind(found: &Classified) -> String {
    let mut text = format!(
        "service {}, provider {}, class {}",
        found.service,
        found.provider,
        found.class.name()
    );
    if let Some(region) = &found.region {
        let _ = write!(text, ", region {region}");
    }
    text
}

/// One endpoint as it is asked about: a name or an address, and a port.
#[derive(Debug)]
struct Question {
    name: Option<String>,
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl Question {
    fn parse(text: &str) -> Result<Question, String> {
        let whole = "give one name or address, with or without a port: api.example.com:443";
        match Target::parse(text)? {
            Target::Name(pattern, port) if pattern.is_exact() => {
                let name = HostName::new(&pattern.to_string());
                let name = name.map(|name| name.as_str().to_owned());
                Ok(Question { name, address: None, port })
            }
            Target::Addresses(range, port) if range.prefix_len() == range.max_prefix_len() => {
                Ok(Question { name: None, address: Some(range.addr()), port })
            }
            Target::Name(..)
            | Target::Addresses(..)
            | Target::Service(_)
            | Target::Provider(_)
            | Target::Class(_) => Err(format!("`{text}` stands for several endpoints: {whole}")),
        }
    }

    fn fit(&self, target: &Target, endpoints: &Endpoints) -> Fit {
        let by_name = self.name.as_ref().map(|name| target.fits_name(name, self.port, endpoints));
        let by_address = || {
            let port = self.port.unwrap_or(0);
            self.address.map(|address| target.fits_address(Endpoint { address, port }, endpoints))
        };
        by_name.or_else(by_address).unwrap_or(Fit::No)
    }
}

/// Which entry of the catalogue an endpoint is, and what each claim would say of a contact with it.
///
/// # Errors
/// Why the text is no endpoint.
pub fn explain_endpoint(
    text: &str,
    policies: &[Policy],
    catalogue: &Catalogue,
) -> Result<String, String> {
    let asked = Question::parse(text)?;
    let endpoints = &catalogue.endpoints;
    let endpoint = asked.address.map(|address| Endpoint { address, port: asked.port.unwrap_or(0) });
    let found = match (&asked.name, endpoint) {
        (Some(name), _) => endpoints.of_name(name, asked.port),
        (None, Some(endpoint)) => endpoints.of_address(endpoint),
        (None, None) => None,
    };
    let mut out = format!("{text}\n");
    let _ = match &found {
        Some(found) => {
            let guess =
                if found.guess { "; a guess, which forbids and does not allow" } else { "" };
            writeln!(out, "  {}\n  by the rule {}{guess}", kind(found), found.rule)
        }
        None => writeln!(out, "  no rule of the catalogue matches it"),
    };
    for claim in policies.iter().flat_map(|policy| &policy.claims) {
        if let Some(opinion) = opinion(claim, &asked, catalogue) {
            let _ = writeln!(out, "  {}: {opinion}", claim.words());
        }
    }
    Ok(out)
}

/// What a contact would mean for a claim.
fn opinion(claim: &Claim, asked: &Question, catalogue: &Catalogue) -> Option<String> {
    let endpoints = &catalogue.endpoints;
    let strongest = |texts: &[String]| {
        let fits: Vec<Fit> = texts
            .iter()
            .filter_map(|text| Target::parse(text).ok())
            .map(|target| asked.fit(&target, endpoints))
            .collect();
        let yes = fits.iter().find(|fit| matches!(fit, Fit::Yes(_)));
        yes.or_else(|| fits.iter().find(|fit| **fit != Fit::No)).cloned().unwrap_or(Fit::No)
    };
    let surely = "the process says that name (SNI, HTTP Host) and found the address under it (DNS, \
                  resolver, hosts file)";
    match claim.kind {
        ClaimKind::RunsOnly | ClaimKind::CredentialsInProcess => None,
        ClaimKind::NeverRuns => match strongest(&calls(claim, catalogue)) {
            Fit::No => None,
            Fit::Guess(_) | Fit::Yes(_) if asked.address.is_some() => None,
            Fit::Guess(_) | Fit::Yes(_) => {
                Some(format!("a contact by any program but {} makes it inconclusive", users(claim)))
            }
        },
        ClaimKind::ConnectsOnlyTo => Some(match strongest(&claim.endpoints) {
            Fit::Yes(rule) if asked.address.is_some() => format!("listed, by {rule}"),
            Fit::Yes(rule) => {
                format!("listed, by {rule}: proven where {surely}; else inconclusive")
            }
            Fit::Guess(rule) => {
                format!("violated by a contact: it is like {rule} and no more than a guess")
            }
            Fit::No => "violated by a contact: it is not listed".into(),
        }),
        ClaimKind::NeverConnectsTo => Some(match strongest(&claim.endpoints) {
            Fit::Yes(rule) | Fit::Guess(rule) => {
                format!("violated by a contact: it is forbidden, by {rule}")
            }
            Fit::No if strongest(&claim.elsewhere) != Fit::No => {
                "a contact is of no concern (`elsewhere`)".into()
            }
            Fit::No if asked.address.is_some() => "not one of its addresses".into(),
            Fit::No => format!("not one of them: a contact is of no concern where {surely}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::file::parse, *};

    const POLICY: &str = "
        name = 'x'
        [[claim]]
        kind = 'never-runs'
        programs = ['aws', 'zzz']
        [[claim]]
        kind = 'connects-only-to'
        endpoints = ['service:bedrock-runtime', '*.example.com:443', '10.0.0.0/8']
        [[claim]]
        kind = 'never-connects-to'
        endpoints = ['class:telemetry', 'evil.example.org']
        elsewhere = ['127.0.0.0/8']";

    fn policy() -> Policy {
        parse(POLICY, "x.toml").unwrap()
    }

    #[test]
    fn claims_are_told_in_words() {
        let text = explain(&policy(), Catalogue::embedded());
        for words in [
            "never runs aws, zzz\n  aws: files named aws, aws.cmd;",
            "`zzz` is not in the catalogue",
            "would have to call provider:aws: a call by any program but @command",
            "service:bedrock-runtime:\n    bedrock-runtime (aws, api): bedrock-runtime-fips.{region}.amazonaws.com, ",
            "*.example.com:443: every host of such a name",
            "10.0.0.0/8: by the address",
            "class:telemetry:\n    statsig (anthropic, telemetry): statsig.anthropic.com\n",
            "a guess, which forbids and does not allow",
            "evil.example.org: that host (not in the catalogue)",
            "none of these is at 127.0.0.0/8",
            "DNS servers may be asked",
        ] {
            assert!(text.contains(words), "`{words}` is not in:\n{text}");
        }
    }

    #[test]
    fn documented_examples_are_valid() {
        let documents =
            [include_str!("../../../README.md"), include_str!("../../../docs/policies.md")];
        let (mut claims, mut entries) = (0, 0);
        for document in documents {
            for block in document.split("```toml\n").skip(1) {
                let block = block.split("```").next().unwrap();
                if block.contains("[[claim]]") {
                    let name = if block.contains("name =") { "" } else { "name = 'x'\n" };
                    let policy = parse(&format!("{name}{block}"), "example").unwrap();
                    super::super::check_names(&policy, Catalogue::embedded()).unwrap();
                    claims += policy.claims.len();
                } else if block.contains("[[endpoint]]") {
                    let folder = tempfile::tempdir().unwrap();
                    let file = folder.path().join("catalogue.toml");
                    std::fs::write(&file, block).unwrap();
                    let rules = Catalogue::with_files(&[file]).unwrap().endpoints.rules().clone();
                    let own = Catalogue::embedded().endpoints.rules().rules.len();
                    entries += rules.rules.len() - own;
                }
            }
        }
        assert!(claims >= 5 && entries >= 4, "{claims} {entries}");
    }

    #[test]
    fn an_endpoint_is_explained() {
        let check = |text: &str, words: &[&str]| {
            let out = explain_endpoint(text, &[policy()], Catalogue::embedded()).unwrap();
            for words in words {
                assert!(out.contains(words), "`{words}` is not in:\n{out}");
            }
        };
        check(
            "bedrock-runtime.us-east-1.amazonaws.com",
            &[
                "service bedrock-runtime, provider aws, class api, region us-east-1",
                "by the rule bedrock-runtime.{region}.amazonaws.com",
                "any program but @command makes it inconclusive",
                "listed, by bedrock-runtime.{region}.amazonaws.com: proven where",
                "not one of them",
            ],
        );
        check("api.statsig.com:443", &["forbidden, by **.statsig.com", "it is not listed"]);
        check("a.example.com:80", &["no rule of the catalogue", "violated by a contact"]);
        check("a.example.com:443", &["listed, by *.example.com"]);
        check("127.0.0.1", &["(`elsewhere`)", "it is not listed"]);
        check("10.1.2.3:443", &["listed, by 10.0.0.0/8", "not one of its addresses"]);
        check("169.254.169.254", &["service aws-imds", "by the rule 169.254.169.254"]);
        for text in ["*.example.com", "10.0.0.0/8", "class:api", "https://a.b"] {
            assert!(explain_endpoint(text, &[], Catalogue::embedded()).is_err(), "{text}");
        }
    }
}
