//! Where the credentials came from with which processes called the endpoints of a provider.
//!
//! What is seen: which environment variables an image started with, which files it opened, which
//! services it asked, which programs were started on the way. What a program then used of that is not
//! seen; it is concluded from the order in which the provider's SDKs ask their sources, which the
//! catalogue has. Programs that ask in another order, or have sources of their own, are the limit of
//! it, and the conclusion says how far it goes.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Connection, Names, Story};
use crate::{
    catalogue::{CredentialSource, EndpointClass, SourceKind},
    model::{Bytes, ProcessKey},
    record::schema::{CredentialAccess, CredentialWatch, Exec, Start},
};

/// What one process did about the credentials of one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialUse {
    pub process: ProcessKey,
    /// As the catalogue names it.
    pub provider: String,
    /// In order of time, up to the last contact; everything when there was none.
    pub steps: Vec<Step>,
    pub origin: Origin,
}

impl CredentialUse {
    /// When it called the provider's own endpoints: the first time and, if there was another, the last.
    pub fn contacts(&self) -> impl Iterator<Item = u64> {
        let contact = |step: &&Step| matches!(step.what, StepWhat::Contact { .. });
        self.steps.iter().filter(contact).map(|step| step.t_ns)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    pub t_ns: u64,
    /// It happened between this time and `t_ns`; absent where `t_ns` is exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ns: Option<u64>,
    #[serde(flatten)]
    pub what: StepWhat,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum StepWhat {
    /// The image started with these environment variables set.
    Variables {
        names: Vec<String>,
        /// False when more may have been set.
        complete: bool,
    },
    /// It opened or changed a file.
    File { source: String, access: CredentialAccess, path: Bytes },
    /// It asked a service that hands out or checks credentials.
    Service { service: String, established: bool },
    /// A program was started by it or by what it had started; or it was itself started by a helper.
    Started {
        child: ProcessKey,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        helper: Option<Helper>,
    },
    /// It called the provider's own endpoints: the first time, and the last.
    Contact { service: String },
}

/// Why a program is taken for one that hands over credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Helper {
    /// A configuration file names this very command as its `credential_process`.
    CredentialProcess,
    /// The catalogue has it, with these arguments.
    Known(String),
}

/// The conclusion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "origin", rename_all = "kebab-case")]
pub enum Origin {
    /// The process resolved them itself from `source`. Others that it could have asked, but that
    /// come later in the order or only say where to look, are in `also`.
    Resolved {
        source: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        also: Vec<String>,
    },
    /// The process resolved them itself, from one of these.
    OneOf { sources: Vec<String> },
    /// A program handed them over.
    Helper { process: ProcessKey, helper: Helper },
    /// The provider was contacted, and nothing seen says with what.
    Unknown { why: String },
    /// The provider was not contacted.
    NoContact,
}

impl Origin {
    /// In words, as the rest of a sentence that begins with a process.
    pub fn words(&self, story: &Story) -> String {
        match self {
            Origin::Resolved { source, also } if also.is_empty() => {
                format!("resolved its credentials itself, from: {source}")
            }
            Origin::Resolved { source, also } => format!(
                "resolved its credentials itself, from: {source} (it looked at {} too)",
                also.join(", ")
            ),
            Origin::OneOf { sources } => {
                format!("resolved its credentials itself, from one of: {}", sources.join(", "))
            }
            Origin::Helper { process, helper: Helper::CredentialProcess } => format!(
                "got its credentials from {}, which its configuration names as credential_process",
                story.label(*process)
            ),
            Origin::Helper { process, helper: Helper::Known(name) } => format!(
                "got its credentials from {}, which is {name} and was asked for credentials",
                story.label(*process)
            ),
            Origin::Unknown { why } => format!("where its credentials came from is unknown: {why}"),
            Origin::NoContact => "did not contact the provider".into(),
        }
    }
}

/// Every process that had to do with credentials, by process and provider.
pub fn credential_uses(story: &Story) -> Vec<CredentialUse> {
    let Some(watch) = &story.start.credentials else { return Vec::new() };
    let calls = calls(story, watch);
    let mut asked: BTreeSet<(ProcessKey, &str)> = BTreeSet::new();
    for call in &calls {
        asked.insert((call.process, call.provider.as_str()));
    }
    for file in &story.credential_files {
        let providers = watch.sources.iter().filter(|source| source.name == file.source);
        if let Some(process) = file.process {
            asked.extend(providers.map(|source| (process, source.provider.as_str())));
        }
    }
    let providers: BTreeSet<&str> =
        watch.sources.iter().map(|source| source.provider.as_str()).collect();
    asked
        .into_iter()
        .filter(|(_, provider)| providers.contains(provider))
        .map(|(process, provider)| {
            let own: Vec<&Call> = calls
                .iter()
                .filter(|call| call.process == process && call.provider == provider)
                .collect();
            Process { story, watch, process, provider, calls: own }.uses()
        })
        .collect()
}

/// A connection to an endpoint of a provider.
struct Call {
    t_ns: u64,
    process: ProcessKey,
    provider: String,
    service: String,
    /// It hands out credentials, and is not what they are for.
    for_credentials: bool,
    established: bool,
}

fn calls(story: &Story, watch: &CredentialWatch) -> Vec<Call> {
    let names = Names::of(story);
    let asked = |service: &str| {
        watch.sources.iter().any(|source| source.services.iter().any(|own| own == service))
    };
    let call = |connection: &Connection| {
        let naming = names.connection(connection);
        let name = naming.best().map(|named| named.name.as_str());
        let found = story.classify(name, connection.destination)?;
        let for_credentials = match found.class {
            EndpointClass::Credentials | EndpointClass::Oauth => true,
            EndpointClass::Api => asked(&found.service),
            EndpointClass::Mcp
            | EndpointClass::Telemetry
            | EndpointClass::Packages
            | EndpointClass::Source
            | EndpointClass::Dns
            | EndpointClass::Hosted
            | EndpointClass::Other => return None,
        };
        Some(Call {
            t_ns: connection.attempted_ns,
            process: connection.process,
            provider: found.provider,
            service: found.service,
            for_credentials,
            established: connection.is_established(),
        })
    };
    let mut calls: Vec<Call> = story.connections.iter().filter_map(call).collect();
    calls.sort_by_key(|call| call.t_ns);
    calls
}

/// Whether `process` is `ancestor` or comes from it.
fn comes_from(story: &Story, process: ProcessKey, ancestor: ProcessKey) -> bool {
    let mut at = Some(process);
    while let Some(key) = at {
        if key == ancestor {
            return true;
        }
        at = story.processes.get(&key).and_then(|process| process.creator);
    }
    false
}

/// One process and one provider.
struct Process<'a> {
    story: &'a Story,
    watch: &'a CredentialWatch,
    process: ProcessKey,
    provider: &'a str,
    calls: Vec<&'a Call>,
}

impl Process<'_> {
    fn uses(&self) -> CredentialUse {
        let contacts: Vec<&&Call> =
            self.calls.iter().filter(|call| !call.for_credentials).collect();
        let until_ns = contacts.last().map_or(u64::MAX, |call| call.t_ns);
        let steps = self.steps(until_ns);
        let origin = match contacts.first() {
            Some(first) => self.origin(first.t_ns, &steps),
            None => Origin::NoContact,
        };
        CredentialUse { process: self.process, provider: self.provider.into(), steps, origin }
    }

    fn sources(&self) -> impl Iterator<Item = &CredentialSource> {
        self.watch.sources.iter().filter(|source| source.provider == self.provider)
    }

    fn steps(&self, until_ns: u64) -> Vec<Step> {
        let exact = |t_ns, what| Step { t_ns, after_ns: None, what };
        let mut steps = Vec::new();
        let own = self.story.processes.get(&self.process);
        let inherited = own.and_then(|own| self.story.image(self.process, own.born_ns));
        let execs = own.map_or(&[][..], |own| &own.execs).iter();
        for exec in inherited
            .into_iter()
            .chain(execs.map(AsRef::as_ref))
            .filter(|exec| exec.t_ns <= until_ns)
        {
            if let Some(names) = self.variables(exec) {
                let complete = !exec.unread.iter().any(|unread| unread == "environment");
                if !names.is_empty() || !complete {
                    steps.push(exact(exec.t_ns, StepWhat::Variables { names, complete }));
                }
            }
        }
        for file in &self.story.credential_files {
            let concerns = self.sources().any(|source| source.name == file.source);
            if file.process == Some(self.process) && concerns && file.after_ns <= until_ns {
                let (source, path) = (file.source.clone(), file.path.clone());
                let what = StepWhat::File { source, access: file.access, path };
                steps.push(Step { t_ns: file.t_ns, after_ns: Some(file.after_ns), what });
            }
        }
        for exec in self.story.execs_in_order().filter(|exec| exec.t_ns <= until_ns) {
            let helper = helper(&self.story.start, self.watch, exec);
            let below =
                exec.process != self.process && comes_from(self.story, exec.process, self.process);
            // A helper can also start the process that is to use what it has got.
            let above = helper.is_some() && comes_from(self.story, self.process, exec.process);
            if below || above {
                let what = StepWhat::Started { child: exec.process, helper };
                steps.push(exact(exec.t_ns, what));
            }
        }
        let (first, last) = self.contact_times();
        for call in self.calls.iter().filter(|call| call.t_ns <= until_ns) {
            let service = call.service.clone();
            if call.for_credentials {
                let what = StepWhat::Service { service, established: call.established };
                steps.push(exact(call.t_ns, what));
            } else if Some(call.t_ns) == first || Some(call.t_ns) == last {
                steps.push(exact(call.t_ns, StepWhat::Contact { service }));
            }
        }
        // What happened in a span of time is put at its beginning, where it may have been.
        steps.sort_by_key(|step| step.after_ns.unwrap_or(step.t_ns));
        steps
    }

    fn contact_times(&self) -> (Option<u64>, Option<u64>) {
        let mut times = self.calls.iter().filter(|call| !call.for_credentials);
        let first = times.next().map(|call| call.t_ns);
        (first, times.next_back().map(|call| call.t_ns))
    }

    /// Those of an image that concern the provider.
    fn variables(&self, exec: &Exec) -> Option<Vec<String>> {
        let concerns = |name: &&String| {
            self.sources().any(|source| {
                source.variables.contains(name) || source.redirect.as_ref() == Some(name)
            })
        };
        Some(exec.environment.as_ref()?.iter().filter(concerns).cloned().collect())
    }

    /// What can have been used for a contact at `t_ns`.
    fn origin(&self, t_ns: u64, steps: &[Step]) -> Origin {
        let environment =
            self.story.image(self.process, t_ns).and_then(|exec| self.variables(exec));
        let is_set = |name: &String| environment.iter().flatten().any(|own| own == name);
        let overridden: BTreeSet<&String> = self
            .sources()
            .filter(|source| {
                source.kind == SourceKind::Setting && source.variables.iter().any(is_set)
            })
            .flat_map(|source| &source.overrides)
            .collect();
        // By name, in the order in which they are asked.
        let mut seen: Vec<(&str, SourceKind, bool)> = Vec::new();
        for source in self.sources() {
            let found = match source.kind {
                SourceKind::Setting => false,
                SourceKind::Environment => {
                    source.variables.iter().all(is_set) && !overridden.contains(&source.name)
                }
                SourceKind::File => opened(steps, source, t_ns),
                SourceKind::Service => asked(steps, source, t_ns),
            };
            if found && !seen.iter().any(|(name, ..)| *name == source.name) {
                seen.push((&source.name, source.kind, source.leads_on));
            }
        }
        // Variables name a service at any address, and nobody known was asked.
        let elsewhere = self.sources().find_map(|source| {
            let is_elsewhere = source.kind == SourceKind::Service && !asked(steps, source, t_ns);
            source.variables.iter().find(|name| is_elsewhere && is_set(name))
        });
        let before = |step: &&Step| step.t_ns <= t_ns;
        let helper = steps.iter().filter(before).find_map(|step| {
            let StepWhat::Started { child, helper } = &step.what else { return None };
            Some((*child, helper.as_ref()?))
        });
        let first = seen.first().filter(|(_, kind, _)| *kind == SourceKind::Environment).copied();
        // What ran below may have been asked for something else, where there are keys already.
        if let Some((process, helper)) = helper
            && (first.is_none()
                || *helper == Helper::CredentialProcess
                || comes_from(self.story, self.process, process))
        {
            return Origin::Helper { process, helper: helper.clone() };
        }
        let names = |of: &[(&str, SourceKind, bool)]| -> Vec<String> {
            of.iter().map(|(name, ..)| (*name).to_owned()).collect()
        };
        if let Some((source, ..)) = first {
            let same = |(_, kind, _): &&(&str, SourceKind, bool)| *kind == SourceKind::Environment;
            if seen.iter().filter(same).count() == 1 && helper.is_none() {
                return Origin::Resolved { source: source.into(), also: names(&seen[1..]) };
            }
            return Origin::OneOf { sources: names(&seen) };
        }
        if let Some(variable) = elsewhere {
            return Origin::Unknown {
                why: format!(
                    "{variable} names a service for credentials, and tracer does not know whether that \
                     was asked"
                ),
            };
        }
        // Some only say where to look further.
        let (leading, rest): (Vec<_>, Vec<_>) =
            seen.iter().copied().partition(|(.., leads)| *leads);
        match (&rest[..], &leading[..]) {
            ([(source, ..)], _) => {
                Origin::Resolved { source: (*source).into(), also: names(&leading) }
            }
            ([], [(source, ..), others @ ..]) => {
                Origin::Resolved { source: (*source).into(), also: names(others) }
            }
            ([], []) => Origin::Unknown { why: self.unknown(environment.is_none()) },
            (several, _) => Origin::OneOf { sources: names(several) },
        }
    }

    fn unknown(&self, environment_unread: bool) -> String {
        if environment_unread {
            return "no source of credentials was seen to be asked, and its environment was not \
                    read"
                .into();
        }
        "no source of credentials was seen to be asked before".into()
    }
}

fn opened(steps: &[Step], source: &CredentialSource, t_ns: u64) -> bool {
    steps.iter().any(|step| match &step.what {
        StepWhat::File { source: name, access: CredentialAccess::Opened, .. } => {
            *name == source.name && step.after_ns.unwrap_or(step.t_ns) <= t_ns
        }
        StepWhat::File { access: CredentialAccess::Changed, .. }
        | StepWhat::Variables { .. }
        | StepWhat::Service { .. }
        | StepWhat::Started { .. }
        | StepWhat::Contact { .. } => false,
    })
}

fn asked(steps: &[Step], source: &CredentialSource, t_ns: u64) -> bool {
    steps.iter().any(|step| match &step.what {
        StepWhat::Service { service, established: true } => {
            source.services.contains(service) && step.t_ns <= t_ns
        }
        StepWhat::Service { established: false, .. }
        | StepWhat::File { .. }
        | StepWhat::Variables { .. }
        | StepWhat::Started { .. }
        | StepWhat::Contact { .. } => false,
    })
}

/// Whether an exec is that of a program that hands over credentials.
pub fn helper(start: &Start, watch: &CredentialWatch, exec: &Exec) -> Option<Helper> {
    if !watch.processes.is_empty()
        && commands(exec).iter().any(|command| watch.processes.contains(&digest(command)))
    {
        return Some(Helper::CredentialProcess);
    }
    let script = exec.script.as_ref().and_then(|script| Some(&script.file.as_ref()?.path));
    let path = exec.file.as_ref().and_then(|file| file.path.as_ref());
    let names: Vec<&[u8]> = [exec.filename.as_ref(), path, script, exec.argv.args.first()]
        .into_iter()
        .flatten()
        .map(Bytes::base_name)
        .collect();
    let args: Vec<&[u8]> = exec.argv.args.iter().map(|arg| arg.0.as_slice()).collect();
    let found = watch.helpers.iter().find(|helper| {
        let program = start.program(&helper.name);
        names.iter().any(|name| program.is_file_name(name)) && helper.is_asked(&args)
    })?;
    Some(Helper::Known(found.name.clone()))
}

/// The commands, as words, that an exec can be taken for: its arguments, or what a shell is given.
fn commands(exec: &Exec) -> Vec<Vec<Vec<u8>>> {
    let args: Vec<Vec<u8>> = exec.argv.args.iter().map(|arg| arg.0.clone()).collect();
    let mut commands = Vec::new();
    // The kernel puts the interpreter before a script.
    if let (Some(_), Some(filename)) = (&exec.script, &exec.filename)
        && let Some(at) = args.iter().position(|arg| *arg == filename.0)
    {
        commands.push(args[at..].to_vec());
    }
    if let [_, option, command, ..] = &args[..]
        && option.starts_with(b"-")
        && option.ends_with(b"c")
        && let Some(words) = shlex::bytes::split(command)
    {
        commands.push(words);
    }
    commands.push(args);
    commands
}

fn digest(words: &[Vec<u8>]) -> String {
    let mut hasher = Sha256::new();
    for word in words {
        hasher.update(word);
        hasher.update([0]);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Digests of the commands that a configuration names as `credential_process`, of its bytes.
pub fn credential_process_digests(configuration: &[u8]) -> Vec<String> {
    let mut digests = Vec::new();
    for line in configuration.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
        let (key, value) = (line[..at].trim_ascii(), line[at + 1..].trim_ascii());
        if key == b"credential_process"
            && let Some(words) = shlex::bytes::split(value).filter(|words| !words.is_empty())
        {
            let digest = digest(&words);
            if !digests.contains(&digest) {
                digests.push(digest);
            }
        }
    }
    digests
}
