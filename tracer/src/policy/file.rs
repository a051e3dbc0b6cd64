//! Policy files: TOML, every unknown key refused.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Claim, ClaimKind};
use crate::catalogue::{Catalogue, DEBUGGED};

/// A set of claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Policy {
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// What a process that outlives tracing means for the verdict.
    #[serde(default)]
    pub survivors: SurvivorRule,
    /// Places outside the tree that may be given work, by their names in the catalogue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_hand_offs: Vec<String>,
    #[serde(rename = "claim")]
    pub claims: Vec<Claim>,
}

/// A process that still runs when tracing ends can do anything afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SurvivorRule {
    #[default]
    Inconclusive,
    /// The claims are about the time until tracing ended.
    Allow,
}

impl Policy {
    /// Whether a claim needs failed execs to be seen.
    pub fn counts_attempts(&self) -> bool {
        self.claims.iter().any(|claim| claim.attempts)
    }

    /// Whether work may not be handed over by taking control of a process outside the tree.
    pub fn forbids_debuggers(&self) -> bool {
        !self.allow_hand_offs.iter().any(|name| name == DEBUGGED)
    }

    /// Whether a claim is decided by what names endpoints have.
    pub fn judges_names(&self) -> bool {
        self.claims.iter().any(Claim::judges_names)
    }
}

/// Whether the kernel can be told to kill what these policies forbid; if not, why.
pub fn can_enforce(policies: &[Policy]) -> Result<(), String> {
    let claims = || {
        policies.iter().flat_map(|policy| policy.claims.iter().map(move |claim| (policy, claim)))
    };
    if let Some((policy, _)) = claims().find(|(_, claim)| !claim.allow.is_empty()) {
        return Err(format!(
            "--enforce cannot be used with the policy {}: it allows some calls of a forbidden program \
             (`allow`), and the kernel decides by the program alone. Remove `allow`, or do without \
             --enforce: the verdict honours `allow`",
            policy.name
        ));
    }
    if !claims().any(|(_, claim)| claim.kind == ClaimKind::NeverRuns) {
        return Err(
            "--enforce needs a policy that forbids programs by `never-runs`; what `runs-only` does not \
             list cannot be known before it runs"
                .into(),
        );
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error(
        "there is no policy `{name}`: it is neither built in ({known}) nor a file; \
         `tracer policy list` shows the built-in ones"
    )]
    Unknown { name: String, known: String },
    #[error("cannot read the policy {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("the policy {path} is not valid: {detail}")]
    Invalid { path: String, detail: String },
    #[error(
        "the policy `{policy}` allows the hand-off `{name}`, which the catalogue does not have; \
         it has: {known}"
    )]
    UnknownHandOff { policy: String, name: String, known: String },
    #[error("the policy `{policy}`: `endpoints`: {detail}")]
    UnknownEndpoint { policy: String, detail: String },
    #[error(
        "the policy `{policy}` names the program `{program}`, which is a folder: no folder is ever \
         executed, so the claim would say nothing about the programs in it. Name each of them, or \
         allow or forbid them by their names"
    )]
    Folder { policy: String, program: String },
}

/// Whether no program that a policy names by its path is a folder on this machine.
pub fn check_folders(policy: &Policy) -> Result<(), PolicyError> {
    let mut named = policy.claims.iter().flat_map(Claim::programs_named);
    let folder = named.find(|(program, _)| program.starts_with('/') && Path::new(program).is_dir());
    match folder {
        None => Ok(()),
        Some((program, _)) => {
            Err(PolicyError::Folder { policy: policy.name.clone(), program: program.clone() })
        }
    }
}

/// Whether the catalogue has every hand-off, and every service, class and provider of endpoints that
/// a policy names.
pub fn check_names(policy: &Policy, catalogue: &Catalogue) -> Result<(), PolicyError> {
    let known = |claim: &Claim| claim.check_endpoints(&catalogue.endpoints);
    policy
        .claims
        .iter()
        .try_for_each(known)
        .map_err(|detail| PolicyError::UnknownEndpoint { policy: policy.name.clone(), detail })?;
    match policy.allow_hand_offs.iter().find(|name| !catalogue.has_hand_off(name)) {
        None => Ok(()),
        Some(name) => Err(PolicyError::UnknownHandOff {
            policy: policy.name.clone(),
            name: name.clone(),
            known: catalogue.hand_off_names().join(", "),
        }),
    }
}

/// File text of the built-in policies, by name.
pub fn built_ins() -> [(&'static str, &'static str); 3] {
    [
        ("no-aws-cli", include_str!("../../policies/no-aws-cli.toml")),
        ("no-shell-outs", include_str!("../../policies/no-shell-outs.toml")),
        ("no-telemetry", include_str!("../../policies/no-telemetry.toml")),
    ]
}

/// The text of a built-in policy.
pub fn built_in(name: &str) -> Option<&'static str> {
    built_ins().into_iter().find(|(known, _)| *known == name).map(|(_, text)| text)
}

/// A built-in policy by its name, else a file.
pub fn load(name: &str) -> Result<Policy, PolicyError> {
    if let Some(text) = built_in(name) {
        return parse(text, name);
    }
    let path = Path::new(name);
    let looks_like_a_name = !name.contains('/') && path.extension().is_none();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, name),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && looks_like_a_name => {
            Err(PolicyError::Unknown {
                name: name.into(),
                known: built_ins().map(|(name, _)| name).join(", "),
            })
        }
        Err(source) => Err(PolicyError::Io { path: name.into(), source }),
    }
}

/// The text of a policy file; `path` is what errors call it.
pub fn parse(text: &str, path: &str) -> Result<Policy, PolicyError> {
    let invalid = |detail: String| PolicyError::Invalid { path: path.into(), detail };
    let policy: Policy = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
    if policy.name.trim().is_empty() {
        return Err(invalid("`name` is empty".into()));
    }
    if policy.claims.is_empty() {
        return Err(invalid("it has no [[claim]]: a policy without claims proves nothing".into()));
    }
    policy.claims.iter().try_for_each(Claim::check).map_err(invalid)?;
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_policies_are_valid_and_carry_their_name() {
        for (name, text) in built_ins() {
            assert_eq!(parse(text, name).unwrap().name, name);
        }
    }

    #[test]
    fn bad_policies_say_what_is_wrong() {
        let check = |text: &str, expected: &str| {
            let error = parse(text, "p.toml").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let claim = "[[claim]]\nkind = \"never-runs\"\n";
        check("nmae = 'x'", "nmae");
        check("name = ''\nclaim = []", "`name` is empty");
        check("name = 'x'\nclaim = []", "no [[claim]]");
        check(&format!("name = 'x'\n{claim}programs = []"), "`programs` is empty");
        check(&format!("name = 'x'\n{claim}programs = ['@me']"), "`@me` is no program");
        for (program, says) in [
            ("a/b", "relative path"),
            ("*", "pattern"),
            ("/usr/bin/*", "pattern"),
            ("python?", "pattern"),
            ("/usr/bin/../bin/true", "without `.`, `..`"),
            ("/usr/./bin/true", "without `.`, `..`"),
            ("//bin/true", "without `.`, `..`"),
            ("/usr/bin/", "without `.`, `..`"),
            ("/", "without `.`, `..`"),
            ("..", "without `.`, `..`"),
            (" aws", "blanks"),
            ("", "no program"),
        ] {
            check(&format!("name = 'x'\n{claim}programs = ['{program}']"), says);
        }
        check(&format!("name = 'x'\n{claim}programs = [\"a\\u0000\"]"), "control characters");
        check(
            &format!("name = 'x'\n{claim}programs = ['a']\nallow = [{{argv = []}}]"),
            "empty `argv`",
        );
        check("name = 'x'\n[[claim]]\nkind = 'never'\nprograms = ['a']", "never-runs");
        let mut policy = load("no-aws-cli").unwrap();
        policy.allow_hand_offs = vec!["cron".into(), crate::catalogue::UNKNOWN_SERVICE.into()];
        check_names(&policy, Catalogue::embedded()).unwrap();
        policy.allow_hand_offs.push("corn".into());
        let error = check_names(&policy, Catalogue::embedded()).unwrap_err().to_string();
        assert!(error.contains("`corn`") && error.contains("cron"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        for path in [folder.path(), &link] {
            let text = format!("name = 'x'\n{claim}programs = ['a', '{}']", path.display());
            let error = check_folders(&parse(&text, "x").unwrap()).unwrap_err().to_string();
            assert!(error.contains("which is a folder"), "{error}");
        }
        check_folders(&load("no-aws-cli").unwrap()).unwrap();
        assert!(matches!(load("no-such"), Err(PolicyError::Unknown { .. })));
        assert!(matches!(load("./no-such"), Err(PolicyError::Io { .. })));
    }
}
