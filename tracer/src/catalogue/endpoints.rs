//! What stands behind a name or an address.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CallRule, Catalogue, calls,
    names::{HostName, NamePattern, Places, ending},
};
use crate::model::Endpoint;

/// What an endpoint is there for. Policies name these.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointClass {
    /// What the program is there to use: models, storage, queues.
    Api,
    /// A Model Context Protocol server.
    Mcp,
    /// Hands out or checks credentials: STS, IAM, SSO portals, sign-in, instance metadata.
    Credentials,
    /// OAuth and OpenID discovery and tokens.
    Oauth,
    Telemetry,
    /// Registries that packages come from.
    Packages,
    /// Hosts of source code.
    Source,
    /// Answers questions for names: public resolvers, also over HTTPS.
    Dns,
    /// What customers of a provider run on its machines, under its names.
    Hosted,
    Other,
}

impl EndpointClass {
    pub const ALL: [EndpointClass; 10] = [
        EndpointClass::Api,
        EndpointClass::Mcp,
        EndpointClass::Credentials,
        EndpointClass::Oauth,
        EndpointClass::Telemetry,
        EndpointClass::Packages,
        EndpointClass::Source,
        EndpointClass::Dns,
        EndpointClass::Hosted,
        EndpointClass::Other,
    ];

    /// As catalogues and policies spell it.
    pub fn name(self) -> &'static str {
        match self {
            EndpointClass::Api => "api",
            EndpointClass::Mcp => "mcp",
            EndpointClass::Credentials => "credentials",
            EndpointClass::Oauth => "oauth",
            EndpointClass::Telemetry => "telemetry",
            EndpointClass::Packages => "packages",
            EndpointClass::Source => "source",
            EndpointClass::Dns => "dns",
            EndpointClass::Hosted => "hosted",
            EndpointClass::Other => "other",
        }
    }
}

/// An entry of the catalogue: what some names or addresses are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EndpointRule {
    /// `{service}` in it stands for what the name has in that place.
    pub service: String,
    pub provider: String,
    pub class: EndpointClass,
    /// Patterns of host names; `FORM:WORD` stands for the patterns of a form, with the word in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Addresses and ranges of them (`169.254.169.254`, `fd00:ec2::/32`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<String>,
    /// TCP and UDP ports; any when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Somebody else may have such a name too: it counts where a claim forbids an endpoint, not where
    /// one allows it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub guess: bool,
}

/// All entries, the first that matches counts, and the forms their names use. A recording carries
/// those that it was judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EndpointRules {
    /// Patterns with `{}` in the place of a word.
    #[serde(default)]
    pub forms: BTreeMap<String, Vec<String>>,
    pub rules: Vec<EndpointRule>,
    /// What calls are, the first that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallRule>,
}

impl EndpointRules {
    /// What a rule matches: its patterns of names, written out, and its ranges.
    pub fn places(&self, rule: &EndpointRule) -> Vec<String> {
        let names = rule.names.iter().filter_map(|name| expand(name, &self.forms).ok()).flatten();
        names.chain(rule.ranges.iter().cloned()).collect()
    }
}

/// The entry of the catalogue that an endpoint matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Classified {
    /// For example `bedrock-runtime` or `aws-sts`.
    pub service: String,
    /// For example `aws` or `anthropic`.
    pub provider: String,
    pub class: EndpointClass,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The pattern or range that matched.
    pub rule: String,
    /// Somebody else may have such a name too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub guess: bool,
}

/// The entries, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    rules: EndpointRules,
    /// With the index of the rule.
    names: Vec<(NamePattern, usize)>,
    /// Indexes into `names` by the last two labels; those that can have any, by none.
    by_ending: BTreeMap<Option<String>, Vec<usize>>,
    ranges: Vec<(IpNet, usize)>,
}

impl Endpoints {
    /// # Errors
    /// What is wrong with the first entry that is not valid.
    pub fn new(rules: EndpointRules) -> Result<Endpoints, String> {
        let mut endpoints = Endpoints::default();
        for (index, rule) in rules.rules.iter().enumerate() {
            endpoints
                .add(rule, index, &rules.forms)
                .map_err(|why| format!("endpoint `{}`: {why}", rule.service))?;
        }
        for rule in &rules.calls {
            calls::check(rule).map_err(|why| format!("call `{}`: {why}", rule.name))?;
        }
        endpoints.rules = rules;
        Ok(endpoints)
    }

    /// Those a recording was made with, or the embedded ones if it has none.
    ///
    /// # Errors
    /// What is wrong with the recording's.
    pub fn recorded(rules: Option<&EndpointRules>) -> Result<Cow<'static, Endpoints>, String> {
        let embedded = &Catalogue::embedded().endpoints;
        match rules {
            Some(rules) if *rules != embedded.rules => {
                Endpoints::new(rules.clone()).map(Cow::Owned)
            }
            Some(_) | None => Ok(Cow::Borrowed(embedded)),
        }
    }

    fn add(
        &mut self,
        rule: &EndpointRule,
        index: usize,
        forms: &BTreeMap<String, Vec<String>>,
    ) -> Result<(), String> {
        check(rule)?;
        for name in &rule.names {
            for text in expand(name, forms)? {
                let pattern = NamePattern::new(&text)?;
                if looks_like_address(&text) {
                    return Err(format!(
                        "`{text}` in `names` is an address: it belongs in `ranges`"
                    ));
                }
                if rule.service.contains(SERVICE) && !pattern.has_place_for_service() {
                    return Err(format!("`{text}` has no `{SERVICE}`, which `service` refers to"));
                }
                let ending = pattern.ending().map(str::to_owned);
                self.by_ending.entry(ending).or_default().push(self.names.len());
                self.names.push((pattern, index));
            }
        }
        for range in &rule.ranges {
            self.ranges.push((range_of(range)?, index));
        }
        Ok(())
    }

    pub fn rules(&self) -> &EndpointRules {
        &self.rules
    }

    /// The entry of the name; without one, that of the address.
    pub fn classify(&self, name: Option<&str>, endpoint: Option<Endpoint>) -> Option<Classified> {
        name.and_then(|name| self.of_name(name, endpoint.map(|endpoint| endpoint.port)))
            .or_else(|| self.of_address(endpoint?))
    }

    /// The entry of a name. An address in text counts as that address.
    pub fn of_name(&self, name: &str, port: Option<u16>) -> Option<Classified> {
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.of_ranges(address, port);
        }
        let name = HostName::new(name)?;
        let indexes = |ending: Option<&str>| {
            let indexes = self.by_ending.get(&ending.map(str::to_owned));
            indexes.map_or(&[][..], Vec::as_slice).iter().copied()
        };
        let ending = ending(name.as_str());
        let with_ending = ending.into_iter().flat_map(|ending| indexes(Some(ending)));
        let mut candidates: Vec<usize> = with_ending.chain(indexes(None)).collect();
        candidates.sort_unstable();
        candidates.into_iter().find_map(|candidate| {
            let (pattern, index) = self.names.get(candidate)?;
            let rule = self.rules.rules.get(*index).filter(|rule| has_port(rule, port))?;
            Some(classified(rule, pattern.matches(&name)?, pattern.to_string()))
        })
    }

    /// The entry of an address, whatever its name.
    pub fn of_address(&self, endpoint: Endpoint) -> Option<Classified> {
        self.of_ranges(endpoint.address, Some(endpoint.port))
    }

    fn of_ranges(&self, address: IpAddr, port: Option<u16>) -> Option<Classified> {
        let address = address.to_canonical();
        self.ranges.iter().find_map(|(range, index)| {
            let rule = self.rules.rules.get(*index).filter(|rule| has_port(rule, port))?;
            let shown = || classified(rule, Places::default(), shown(range));
            range.contains(&address).then(shown)
        })
    }
}

impl Catalogue {
    /// The entry of a name; without one, that of the address.
    pub fn classify(&self, name: Option<&str>, endpoint: Option<Endpoint>) -> Option<Classified> {
        self.endpoints.classify(name, endpoint)
    }
}

const SERVICE: &str = "{service}";

fn classified(rule: &EndpointRule, places: Places, matched: String) -> Classified {
    let service = places.service.unwrap_or_default();
    Classified {
        service: rule.service.replace(SERVICE, &service),
        provider: rule.provider.clone(),
        class: rule.class,
        region: places.region,
        rule: matched,
        guess: rule.guess,
    }
}

fn has_port(rule: &EndpointRule, port: Option<u16>) -> bool {
    rule.ports.is_empty() || port.is_none_or(|port| rule.ports.contains(&port))
}

/// The patterns a name in an entry stands for.
fn expand(name: &str, forms: &BTreeMap<String, Vec<String>>) -> Result<Vec<String>, String> {
    let Some((form, word)) = name.split_once(':') else { return Ok(vec![name.to_owned()]) };
    let patterns = forms.get(form).ok_or_else(|| {
        let known: Vec<&str> = forms.keys().map(String::as_str).collect();
        format!(
            "`{name}` in `names`: there is no form `{form}` (there are: {}), and a name has no colon; \
             ports go into `ports`, addresses into `ranges`",
            known.join(", ")
        )
    })?;
    Ok(patterns.iter().map(|pattern| pattern.replace("{}", word)).collect())
}

fn check(rule: &EndpointRule) -> Result<(), String> {
    let is_word = |text: &str| {
        let letters = text.replace(SERVICE, "x");
        !letters.is_empty()
            && letters.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
            })
    };
    for (key, text) in [("service", &rule.service), ("provider", &rule.provider)] {
        if !is_word(text) {
            return Err(format!(
                "`{text}` in `{key}` must be a word of lower-case letters, digits, `-` and `.`"
            ));
        }
    }
    if rule.names.is_empty() && rule.ranges.is_empty() {
        return Err("it has neither `names` nor `ranges`, so nothing would match it".into());
    }
    if rule.service.contains(SERVICE) && !rule.ranges.is_empty() {
        return Err(format!("`service` refers to `{SERVICE}`, which `ranges` do not have"));
    }
    if rule.ports.contains(&0) {
        return Err("0 in `ports` is no port".into());
    }
    Ok(())
}

/// An address, or a range of them.
///
/// # Errors
/// A sentence that begins with the text.
pub(super) fn range_of(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        if address.is_unspecified() {
            return Err(format!(
                "`{text}` is no address of anybody: what connects to it reaches this machine, at 127.0.0.1 or ::1"
            ));
        }
        return Ok(IpNet::from(address));
    }
    let range: IpNet = text.parse().map_err(|_| {
        format!("`{text}` is neither an address nor a range of them (10.0.0.0/8, fd00::/8)")
    })?;
    if range.trunc() != range {
        return Err(format!("`{text}` has bits behind its prefix: it must be `{}`", range.trunc()));
    }
    Ok(of_ipv4(range).unwrap_or(range))
}

/// A range of IPv4 addresses in IPv6's form, which is what addresses of it are compared as.
fn of_ipv4(range: IpNet) -> Option<IpNet> {
    const PREFIX_BITS: u8 = 96;
    let IpNet::V6(range) = range else { return None };
    let first = range.addr().to_ipv4_mapped()?;
    let bits = range.prefix_len().checked_sub(PREFIX_BITS)?;
    Ipv4Net::new(first, bits).ok().map(IpNet::V4)
}

/// A range as it is shown: a single address without its length.
pub(super) fn shown(range: &IpNet) -> String {
    if range.prefix_len() == range.max_prefix_len() {
        range.addr().to_string()
    } else {
        range.to_string()
    }
}

/// Whether a name is, or resembles, an IPv4 address: no top-level domain is a number.
pub(super) fn looks_like_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants this")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<Classified> {
        Catalogue::embedded().classify(Some(name), None)
    }

    /// Service, class and region of names, one a line.
    #[track_caller]
    fn check(table: &str) {
        for line in table.trim().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, expected @ ..] = words.as_slice() else { unreachable!() };
            let found = of(name).map_or_else(
                || "-".to_owned(),
                |found| {
                    let region = found.region.unwrap_or_else(|| "-".into());
                    let guess = if found.guess { " guess" } else { "" };
                    let class = found.class.name();
                    format!("{} {} {class} {region}{guess}", found.provider, found.service)
                },
            );
            assert_eq!(found, expected.join(" "), "{name}");
        }
    }

    #[test]
    fn aws_services_are_told_apart_with_their_region() {
        check(
            "bedrock-runtime.us-east-1.amazonaws.com       aws bedrock-runtime api us-east-1
             bedrock-runtime-fips.us-gov-west-1.amazonaws.com  aws bedrock-runtime api us-gov-west-1
             bedrock-runtime.eu-central-1.api.aws          aws bedrock-runtime api eu-central-1
             Bedrock.us-west-2.AMAZONAWS.com.              aws bedrock api us-west-2
             bedrock-agent-runtime.us-west-2.amazonaws.com aws bedrock-agent-runtime api us-west-2
             bedrock-agent.us-west-2.amazonaws.com         aws bedrock-agent api us-west-2
             vpce-0a1b-xyz.bedrock-runtime.us-east-1.vpce.amazonaws.com  aws bedrock-runtime api us-east-1
             sts.amazonaws.com                             aws aws-sts credentials -
             sts.us-east-1.amazonaws.com                   aws aws-sts credentials us-east-1
             sts.cn-north-1.amazonaws.com.cn               aws aws-sts credentials cn-north-1
             iam.amazonaws.com                             aws aws-iam credentials -
             iam.us-gov.amazonaws.com                      aws aws-iam credentials -
             portal.sso.us-east-1.amazonaws.com            aws aws-sso credentials us-east-1
             oidc.us-east-1.amazonaws.com                  aws aws-sso credentials us-east-1
             d-90671f5ed9.awsapps.com                      aws aws-sso credentials -
             us-east-1.signin.aws.amazon.com               aws aws-signin credentials us-east-1
             signin.aws.amazon.com                         aws aws-signin credentials -
             s3.eu-west-1.amazonaws.com                    aws aws-s3 api eu-west-1
             s3.amazonaws.com                              aws aws-s3 api -
             my.dotted.bucket.s3.eu-west-1.amazonaws.com   aws aws-s3 api eu-west-1
             b.s3.dualstack.eu-west-1.amazonaws.com        aws aws-s3 api eu-west-1
             b.s3-us-west-2.amazonaws.com                  aws aws-s3 api us-west-2
             ap-1234.s3-accesspoint.us-east-1.amazonaws.com  aws aws-s3 api us-east-1
             b.bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com  aws aws-s3 api us-east-1
             b.s3.cn-north-1.amazonaws.com.cn              aws aws-s3 api cn-north-1
             dynamodb.us-east-1.amazonaws.com              aws aws-dynamodb api us-east-1
             kms-fips.us-east-1.amazonaws.com              aws aws-kms api us-east-1
             lambda.eu-west-1.api.aws                      aws aws-lambda api eu-west-1
             vpce-1.kms.us-east-1.vpce.amazonaws.com       aws aws-kms api us-east-1
             organizations.amazonaws.com                   aws aws-organizations api -
             api.ecr.us-east-1.amazonaws.com               aws aws-other api - guess
             something.new.aws                             aws aws-other api - guess
             ec2-1-2-3-4.compute-1.amazonaws.com           aws-customers aws-hosted hosted -
             abc.execute-api.us-east-1.amazonaws.com       aws-customers aws-hosted hosted -
             x.lambda-url.us-east-1.on.aws                 aws-customers aws-hosted hosted -
             x.us-east-1.elb.amazonaws.com                 aws-customers aws-hosted hosted -
             vpce-1.vpce-svc-2.us-east-1.vpce.amazonaws.com  aws-customers aws-hosted hosted -",
        );
    }

    #[test]
    fn other_providers_are_known() {
        check(
            "api.anthropic.com              anthropic anthropic-api api -
             statsig.anthropic.com          anthropic statsig telemetry -
             api.statsig.com                statsig statsig telemetry -
             o1.ingest.us.sentry.io         sentry sentry telemetry -
             http-intake.logs.datadoghq.eu  datadog datadog telemetry -
             api.segment.io                 segment segment telemetry -
             api.githubcopilot.com          github github-copilot mcp -
             mcp.context7.com               context7 context7 mcp -
             mcp.linear.app                 linear linear mcp -
             mcp.slack.com                  slack slack mcp -
             mcp.example.com                unknown mcp-server mcp - guess
             registry.example.com           unknown package-registry packages - guess
             us-east5-aiplatform.googleapis.com  google vertex-ai api us-east5
             eu.api.openai.com              openai openai-api api -
             github.com                     github github source -
             example.com                    -
             localhost                      -",
        );
    }

    #[test]
    fn names_that_only_look_alike_are_not_taken() {
        check(
            r"evil-amazonaws.com                                  -
              bedrock.us-east-1.amazonaws.com.evil.org            -
              bedrock-runtime.us-east-1.amazonaws.com.evil.org    -
              api.anthropic.com.evil.org                          -
              xapi.anthropic.com                                  -
              api-anthropic.com                                   -
              bedrock-runtime\.us-east-1.amazonaws.com            -
              statsig.com.evil.org                                -
              amazonaws.com                                       -
              sts.us-east-1.amazonaws.co                          -
              aws                                                 -",
        );
    }

    #[test]
    fn addresses_of_instance_metadata_are_known() {
        let catalogue = Catalogue::embedded();
        let check = |address: &str, expected: Option<&str>| {
            let endpoint = Endpoint { address: address.parse().unwrap(), port: 80 };
            let found = catalogue.classify(None, Some(endpoint)).map(|found| found.service);
            assert_eq!(found.as_deref(), expected, "{address}");
            // As the Host of a request has it.
            let found = catalogue.classify(Some(address), None).map(|found| found.service);
            assert_eq!(found.as_deref(), expected, "{address}");
        };
        check("169.254.169.254", Some("aws-imds"));
        check("::ffff:169.254.169.254", Some("aws-imds"));
        check("fd00:ec2::254", Some("aws-imds"));
        check("169.254.170.2", Some("aws-ecs-credentials"));
        check("169.254.170.23", Some("aws-eks-pod-identity"));
        check("fd00:ec2::23", Some("aws-eks-pod-identity"));
        check("8.8.8.8", Some("public-dns"));
        check("169.254.169.25", None);
        check("127.0.0.1", None);
        // A name that is not known does not hide what the address is.
        let endpoint = Endpoint { address: "169.254.169.254".parse().unwrap(), port: 80 };
        let found = catalogue.classify(Some("evil.org"), Some(endpoint)).unwrap();
        assert_eq!((found.service.as_str(), found.rule.as_str()), ("aws-imds", "169.254.169.254"));
    }

    #[test]
    fn ports_narrow_an_entry() {
        let rule = EndpointRule {
            service: "ours".into(),
            provider: "us".into(),
            class: EndpointClass::Api,
            names: vec!["a.b".into()],
            ranges: vec!["10.0.0.0/8".into()],
            ports: vec![443],
            guess: false,
        };
        let rules = EndpointRules { rules: vec![rule], ..EndpointRules::default() };
        let endpoints = Endpoints::new(rules).unwrap();
        let at = |port| Some(Endpoint { address: "10.1.1.1".parse().unwrap(), port });
        assert!(endpoints.classify(Some("a.b"), at(443)).is_some());
        assert!(endpoints.classify(Some("a.b"), at(80)).is_none());
        assert!(endpoints.classify(None, at(443)).is_some_and(|found| found.rule == "10.0.0.0/8"));
        assert!(endpoints.classify(None, at(80)).is_none());
    }

    #[test]
    fn what_a_recording_carries_is_what_it_was_judged_by() {
        let embedded = Catalogue::embedded().endpoints.rules();
        let json = serde_json::to_string(embedded).unwrap();
        assert!(json.len() < 20_000, "{} bytes in every recording", json.len());
        let back: EndpointRules = serde_json::from_str(&json).unwrap();
        assert_eq!(back, *embedded);
        assert!(matches!(Endpoints::recorded(Some(&back)), Ok(Cow::Borrowed(_))));
        let mut fewer = back;
        fewer.rules.retain(|rule| rule.provider != "anthropic");
        let own = Endpoints::recorded(Some(&fewer)).unwrap();
        assert_eq!(own.classify(Some("api.anthropic.com"), None), None);
        fewer.rules[0].names = vec!["*".into()];
        fewer.rules[0].service = "x".into();
        let error = Endpoints::recorded(Some(&fewer)).unwrap_err();
        assert!(error.contains("no fixed part"), "{error}");
    }
}
