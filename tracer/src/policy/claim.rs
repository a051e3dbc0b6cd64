//! Claims as policy files have them, and what is wrong with some.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalogue::{Endpoints, Target};

/// Which keys a claim can have depends on its kind: `programs`, `attempts`, `allow` and `sdk-users`
/// belong to claims over programs, `endpoints`, `elsewhere` and `dns` to claims over connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Claim {
    pub kind: ClaimKind,
    /// Names of the catalogue or of files, absolute paths, or `@command`: the traced command's own
    /// program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<String>,
    /// Failed execs count as well.
    #[serde(default, skip_serializing_if = "is_false")]
    pub attempts: bool,
    /// Execs that do not violate the claim although they match; reports list them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<AllowedExec>,
    /// Of `never-runs`: who may call the endpoints that one of its programs would have to call
    /// (`calls` in the catalogue), spelled as in `programs`; `@any` for everybody. `@command` when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk_users: Option<Vec<String>>,
    /// Names, addresses, and what the catalogue calls them; [`Target`] has the forms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Of `never-connects-to`: addresses, ranges of them, with or without a port, at which none of
    /// the endpoints can be. A connection there needs no name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<String>,
    /// Whether DNS servers count as endpoints.
    #[serde(default, skip_serializing_if = "DnsRule::is_default")]
    pub dns: DnsRule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimKind {
    /// No process of the tree runs any of `programs`.
    NeverRuns,
    /// The tree runs nothing but `programs`.
    RunsOnly,
    /// The tree contacts nothing but `endpoints`.
    ConnectsOnlyTo,
    /// No process of the tree contacts any of `endpoints`, nor tries to.
    NeverConnectsTo,
    /// Every process that calls AWS resolved its credentials itself; `programs` handed it none.
    CredentialsInProcess,
}

/// What a claim is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Programs,
    Connections,
    /// Both: what ran, and what was called.
    Credentials,
}

impl ClaimKind {
    pub fn subject(self) -> Subject {
        match self {
            ClaimKind::NeverRuns | ClaimKind::RunsOnly => Subject::Programs,
            ClaimKind::ConnectsOnlyTo | ClaimKind::NeverConnectsTo => Subject::Connections,
            ClaimKind::CredentialsInProcess => Subject::Credentials,
        }
    }

    /// As policies spell it.
    fn name(self) -> &'static str {
        match self {
            ClaimKind::NeverRuns => "never-runs",
            ClaimKind::RunsOnly => "runs-only",
            ClaimKind::ConnectsOnlyTo => "connects-only-to",
            ClaimKind::NeverConnectsTo => "never-connects-to",
            ClaimKind::CredentialsInProcess => "credentials-in-process",
        }
    }
}

/// What is to be thought of messages that were read as DNS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DnsRule {
    /// To ask for names is no contact with an endpoint.
    #[default]
    Allow,
    /// A DNS server is an endpoint like any other.
    Judge,
}

impl DnsRule {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants this")]
    fn is_default(&self) -> bool {
        *self == DnsRule::default()
    }
}

/// An exec by its whole argv. The first word is compared by its last path component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowedExec {
    pub argv: Vec<String>,
}

/// The name of everybody in `sdk-users`.
pub(super) const ANYBODY: &str = "@any";

impl Claim {
    /// A claim of that kind that says nothing yet.
    pub fn new(kind: ClaimKind) -> Claim {
        Claim {
            kind,
            programs: Vec::new(),
            attempts: false,
            allow: Vec::new(),
            sdk_users: None,
            endpoints: Vec::new(),
            elsewhere: Vec::new(),
            dns: DnsRule::Allow,
        }
    }

    /// Names of programs in it, and whether it forbids them.
    pub fn programs_named(&self) -> impl Iterator<Item = (&String, bool)> {
        let forbids = self.kind == ClaimKind::NeverRuns;
        let users = self.sdk_users.iter().flatten();
        // Where nothing else may run, words of a caller's choice list no file.
        let allowed = self.allow.iter().filter(|_| self.kind == ClaimKind::RunsOnly);
        self.programs
            .iter()
            .map(move |program| (program, forbids))
            .chain(users.map(|user| (user, false)))
            .chain(allowed.filter_map(|allowed| Some((allowed.argv.first()?, false))))
            .filter(|(program, _)| !program.starts_with('@'))
    }

    /// Whether it is decided by what names endpoints have.
    pub(super) fn judges_names(&self) -> bool {
        let needs_name = |text: &String| Target::parse(text).is_ok_and(|to| to.needs_name());
        match self.kind.subject() {
            // A copy that calls somebody is a suspicion beside what ran, and one source of names less
            // is not worth slowing down others, and each run by the time that attaching takes.
            Subject::Programs => false,
            Subject::Connections => self.endpoints.iter().any(needs_name),
            Subject::Credentials => true,
        }
    }

    /// The claim in words.
    pub fn words(&self) -> String {
        let (programs, endpoints) = (self.programs.join(", "), self.endpoints.join(", "));
        match (self.kind, self.attempts) {
            (ClaimKind::NeverRuns, false) => format!("never runs {programs}"),
            (ClaimKind::NeverRuns, true) => format!("never runs {programs}, nor tries to"),
            (ClaimKind::RunsOnly, false) => format!("runs only {programs}"),
            (ClaimKind::RunsOnly, true) => format!("runs only {programs}, nor tries anything else"),
            (ClaimKind::ConnectsOnlyTo, _) => format!("connects only to {endpoints}"),
            (ClaimKind::NeverConnectsTo, _) => format!("never connects to {endpoints}"),
            (ClaimKind::CredentialsInProcess, _) if programs.is_empty() => {
                "credentials for AWS are resolved in the process that uses them".into()
            }
            (ClaimKind::CredentialsInProcess, _) => format!(
                "credentials for AWS are resolved in the process that uses them; {programs} may run"
            ),
        }
    }

    /// What is wrong with it by itself.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_keys()?;
        for program in self.programs.iter().chain(self.sdk_users.iter().flatten()) {
            let anybody = program == ANYBODY && !self.programs.contains(program);
            if !anybody {
                check_program(program)?;
            }
        }
        if self.allow.iter().any(|allowed| allowed.argv.is_empty()) {
            return Err("an `allow` entry has an empty `argv`".into());
        }
        for text in &self.endpoints {
            Target::parse(text).map_err(|why| format!("`endpoints`: {why}"))?;
        }
        for text in &self.elsewhere {
            let target = Target::parse(text).map_err(|why| format!("`elsewhere`: {why}"))?;
            if target.needs_name() {
                return Err(format!(
                    "`elsewhere`: `{text}` is no address and no range of them (10.0.0.0/8, [::1]:53)"
                ));
            }
        }
        Ok(())
    }

    fn check_keys(&self) -> Result<(), String> {
        let of_programs = [
            ("programs", !self.programs.is_empty()),
            ("attempts", self.attempts),
            ("allow", !self.allow.is_empty()),
            ("sdk-users", self.sdk_users.is_some()),
        ];
        let of_connections = [
            ("endpoints", !self.endpoints.is_empty()),
            ("elsewhere", !self.elsewhere.is_empty()),
            ("dns", self.dns != DnsRule::default()),
        ];
        let of_credentials = [("programs", true)];
        let of_others = [&of_programs[1..], &of_connections].concat();
        let (wanted, own, others) = match self.kind.subject() {
            Subject::Programs => ("programs", of_programs.as_slice(), of_connections.as_slice()),
            Subject::Connections => {
                ("endpoints", of_connections.as_slice(), of_programs.as_slice())
            }
            // Nothing need be named.
            Subject::Credentials => ("programs", of_credentials.as_slice(), of_others.as_slice()),
        };
        let kind = self.kind.name();
        if let Some((key, _)) = others.iter().find(|(_, given)| *given) {
            let keys: Vec<String> = own.iter().map(|(key, _)| format!("`{key}`")).collect();
            return Err(format!("a `{kind}` claim has no `{key}`: it has {}", keys.join(", ")));
        }
        if !own.iter().any(|(key, given)| *key == wanted && *given) {
            return Err(format!("a claim's `{wanted}` is empty"));
        }
        if self.kind != ClaimKind::NeverRuns && self.sdk_users.is_some() {
            return Err(format!("a `{kind}` claim has no `sdk-users`: only `never-runs` has"));
        }
        if self.kind != ClaimKind::NeverConnectsTo && !self.elsewhere.is_empty() {
            return Err(format!(
                "a `{kind}` claim has no `elsewhere`: what may be contacted goes into `endpoints`"
            ));
        }
        Ok(())
    }

    /// What is wrong with it for want of an entry in the catalogue.
    pub(super) fn check_endpoints(&self, endpoints: &Endpoints) -> Result<(), String> {
        self.endpoints.iter().try_for_each(|text| {
            Target::parse(text)?.check(endpoints, self.kind == ClaimKind::ConnectsOnlyTo)
        })
    }
}

/// Refuses what no exec could ever match: such a claim would hold whatever happens.
fn check_program(program: &str) -> Result<(), String> {
    let named = program.strip_prefix('@');
    if program.is_empty() || named.is_some_and(|name| name != "command") {
        return Err(format!(
            "`{program}` is no program: give a name, an absolute path or `@command`"
        ));
    }
    if program.contains(['*', '?', '[']) {
        return Err(format!(
            "`{program}` looks like a pattern, and there are none here: name each program"
        ));
    }
    if program.trim() != program || program.contains(char::is_control) {
        return Err(format!(
            "{program:?} has blanks around it or control characters in it: give the plain name"
        ));
    }
    if program.contains('/') && !program.starts_with('/') {
        return Err(format!("`{program}` is a relative path: give a name or an absolute path"));
    }
    let mut components = program.split('/').skip(usize::from(program.starts_with('/')));
    if components.any(|component| matches!(component, "" | "." | "..")) {
        return Err(format!(
            "`{program}` is no path as the kernel has it, so no program would ever match it: \
             give it without `.`, `..` and empty parts"
        ));
    }
    Ok(())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants this")]
fn is_false(value: &bool) -> bool {
    !value
}
