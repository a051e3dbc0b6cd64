//! From a story and policies to a verdict.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AllowedExec, Claim, ClaimKind, Policy, Requirement, Subject, SurvivorRule, attempts, callers,
    completeness, connections,
    contacts::{Contact, contacts},
    credentials,
    identity::{Match, copies, is_copy, is_shim, runs, unidentified},
    mapped, opened, settled,
};
use crate::{
    model::{Bytes, FileId, ProcessKey},
    record::schema::{Exec, HandOff, Start},
    session::Story,
};

/// Worst last.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Ruling {
    Proven,
    Inconclusive,
    Violated,
}

impl Ruling {
    pub fn name(self) -> &'static str {
        match self {
            Ruling::Proven => "proven",
            Ruling::Inconclusive => "inconclusive",
            Ruling::Violated => "violated",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The worst ruling of any claim.
    pub overall: Ruling,
    pub claims: Vec<ClaimVerdict>,
    pub completeness: Vec<Requirement>,
}

impl Verdict {
    /// The same rulings by the same events. Words may differ, as they do between versions of tracer.
    pub fn says_the_same_as(&self, other: &Verdict) -> bool {
        let of = |verdict: &Verdict| -> Vec<_> {
            let claims = verdict.claims.iter();
            claims
                .map(|claim| {
                    let events = |of: &[Violation]| -> Vec<_> {
                        of.iter().map(|event| (event.t_ns, event.process)).collect()
                    };
                    let found = (events(&claim.violations), events(&claim.allowed));
                    (claim.policy.clone(), claim.ruling, found)
                })
                .collect()
        };
        self.overall == other.overall && of(self) == of(other)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimVerdict {
    pub policy: String,
    /// The claim in words.
    pub claim: String,
    pub ruling: Ruling,
    /// Events that violate it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// Everything that keeps it from being proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Events that match but are allowed by the policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Violation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Violation {
    pub t_ns: u64,
    pub process: ProcessKey,
    /// What was run and how that is known.
    pub detail: String,
}

/// Judges a story. `None` when there are no policies.
pub fn judge(story: &Story, policies: &[Policy]) -> Option<Verdict> {
    if policies.is_empty() {
        return None;
    }
    let asks = asks_for_contacts(&story.start, policies);
    judge_with(story, policies, &if asks { contacts(story) } else { Vec::new() })
}

/// The verdict, given whom the tree contacted.
pub(super) fn judge_with(
    story: &Story,
    policies: &[Policy],
    contacts: &[Contact],
) -> Option<Verdict> {
    let mut claims = Vec::new();
    for policy in policies {
        let statement = completeness(story, policy.survivors == SurvivorRule::Allow);
        let evidence = Evidence { story, contacts, statement: &statement };
        claims.extend(policy.claims.iter().map(|claim| judge_claim(&evidence, policy, claim)));
    }
    let survivors_allowed = policies.iter().all(|policy| policy.survivors == SurvivorRule::Allow);
    let overall = claims.iter().map(|claim| claim.ruling).max()?;
    Some(Verdict { overall, claims, completeness: completeness(story, survivors_allowed) })
}

/// Whether a verdict by these policies needs to know whom the tree contacted.
pub fn asks_for_contacts(start: &Start, policies: &[Policy]) -> bool {
    let mut claims = policies.iter().flat_map(|policy| &policy.claims);
    claims.any(|claim| claim.kind.subject() != Subject::Programs || callers::applies(start, claim))
}

/// What every claim is judged by.
struct Evidence<'a> {
    story: &'a Story,
    contacts: &'a [Contact],
    statement: &'a [Requirement],
}

fn judge_claim(evidence: &Evidence<'_>, policy: &Policy, claim: &Claim) -> ClaimVerdict {
    let Evidence { story, contacts, statement } = *evidence;
    let mut verdict = ClaimVerdict {
        policy: policy.name.clone(),
        claim: match &story.start.attached {
            Some(attached) if attached.from_arming => {
                format!(
                    "{}, from the moment on when tracer had found what ran already",
                    claim.words()
                )
            }
            Some(_) | None => claim.words(),
        },
        ruling: Ruling::Proven,
        violations: Vec::new(),
        reasons: Vec::new(),
        allowed: Vec::new(),
    };
    match claim.kind.subject() {
        Subject::Programs => judge_execs(story, claim, &mut verdict),
        Subject::Connections => connections::judge(story, claim, contacts, &mut verdict),
        Subject::Credentials => credentials::judge(story, claim, contacts, &mut verdict),
    }
    verdict.reasons.extend(hand_offs(story, policy));
    verdict.reasons.extend(opened::reasons(story, policy, claim));
    verdict.reasons.extend(mapped::reasons(story, claim));
    verdict.reasons.extend(settled::reasons(story, claim));
    let has_callers = callers::applies(&story.start, claim);
    if has_callers {
        verdict.reasons.extend(callers::reasons(story, claim, contacts));
    }
    let losses_count = has_callers && callers::others_ran(story, claim);
    if losses_count {
        verdict.reasons.extend(callers::unseen_names(story));
    }
    let carries = |line: &&Requirement| match claim.kind.subject() {
        Subject::Programs => {
            line.carries_programs() || (line.tells_lost_connections() && losses_count)
        }
        Subject::Connections => line.carries_connections(),
        Subject::Credentials => line.carries_programs() || line.carries_connections(),
    };
    verdict.reasons.extend(
        statement
            .iter()
            .filter(|line| !line.holds)
            .filter(carries)
            .map(|line| format!("{}: {}", line.name, line.detail)),
    );
    verdict.ruling = if !verdict.violations.is_empty() {
        Ruling::Violated
    } else if !verdict.reasons.is_empty() {
        Ruling::Inconclusive
    } else {
        Ruling::Proven
    };
    verdict
}

fn judge_execs(story: &Story, claim: &Claim, verdict: &mut ClaimVerdict) {
    for exec in story.execs_in_order() {
        let found = match claim.kind {
            ClaimKind::NeverRuns => forbidden(story, claim, exec),
            ClaimKind::RunsOnly => not_listed(story, claim, exec).map(Finding::Violates),
            ClaimKind::ConnectsOnlyTo
            | ClaimKind::NeverConnectsTo
            | ClaimKind::CredentialsInProcess => None,
        };
        if let Some(Finding::Violates(detail)) = found {
            let detail = if exec.killed {
                format!("{detail}; it was killed before its first instruction")
            } else {
                detail
            };
            let violation = Violation { t_ns: exec.t_ns, process: exec.process, detail };
            if is_allowed(story, claim, exec) {
                verdict.allowed.push(violation);
            } else {
                verdict.violations.push(violation);
            }
        } else if let Some(Finding::Unclear(why)) = found {
            verdict.reasons.push(format!("{}: {why}", story.label(exec.process)));
        } else if let Some(why) = unidentified(exec, claim, story) {
            verdict.reasons.push(format!("{}: {why}", story.label(exec.process)));
        }
    }
    attempts::judge(story, claim, verdict);
    ledger_violations(story, claim, verdict);
}

/// What a process outside the tree does with the work it was given is not seen.
fn hand_offs(story: &Story, policy: &Policy) -> impl Iterator<Item = String> {
    let unnamed = |hand_off: &&HandOff| !policy.allow_hand_offs.contains(&hand_off.name);
    story.hand_offs.iter().filter(unnamed).map(|hand_off| {
        let who = match hand_off.process {
            Some(process) => story.label(process),
            None => "a process that may be one of the tree's".into(),
        };
        format!(
            "{who}: it may have handed work to {} ({}): {}; what is done there is not seen, and \
             `allow-hand-offs` does not name it",
            hand_off.name,
            hand_off.via.lossy(),
            hand_off.how
        )
    })
}

/// What the kernel is told to kill: the files, and file names, of every program that must never run.
/// A file with several names (a multi-call binary, a shim) is forbidden by name only.
pub fn rules(start: &Start) -> (Vec<FileId>, Vec<String>) {
    let claims = start.policies.iter().flat_map(|policy| &policy.claims);
    let programs: BTreeSet<&String> = claims
        .filter(|claim| claim.kind == ClaimKind::NeverRuns)
        .flat_map(|claim| &claim.programs)
        .collect();
    let copies = programs.iter().filter_map(|program| start.known_programs.get(*program)).flatten();
    let files = copies.filter(|copy| !copy.multi_call).map(|copy| copy.file).collect();
    let by_name = programs.iter().filter(|program| !program.starts_with(['/', '@']));
    (files, by_name.flat_map(|name| start.program(name).into_owned().file_names).collect())
}

pub(super) enum Finding {
    Violates(String),
    Unclear(String),
}

/// Whether the exec runs one of the claim's programs.
pub(super) fn forbidden(story: &Story, claim: &Claim, exec: &Exec) -> Option<Finding> {
    let findings = claim.programs.iter().filter_map(|program| {
        if program == "@command" {
            let own = command_files(story);
            let text = "runs the traced command's own program";
            return own_program(exec, &own).then(|| Finding::Violates(text.into()));
        }
        match runs(exec, program, copies(story, program), story)? {
            Match::Runs(how) => Some(Finding::Violates(format!("runs {program}: {how}"))),
            Match::MayRun(how) => Some(Finding::Unclear(format!("it may run {program}: {how}"))),
            Match::SharesFile(_) if is_shim(exec, story) => None,
            Match::SharesFile(how) => Some(Finding::Unclear(format!(
                "it may run {program}: {how}, which goes by several names, and it is no script of a \
                 shell that did nothing but execute another program"
            ))),
        }
    });
    findings.min_by_key(|finding| match finding {
        Finding::Violates(_) => 0,
        Finding::Unclear(_) => 1,
    })
}

/// Whether the exec runs something that is not one of the claim's programs. Names count for
/// nothing here: only the file does.
fn not_listed(story: &Story, claim: &Claim, exec: &Exec) -> Option<String> {
    let script = exec.script.as_ref().map(|script| script.file.is_some());
    if !script.unwrap_or(exec.file.is_some()) {
        return None; // unidentified, which is a reason of its own
    }
    let own = command_files(story);
    let listed = claim.programs.iter().any(|program| {
        if program == "@command" {
            own_program(exec, &own)
        } else {
            is_copy(exec, copies(story, program))
        }
    });
    // A program nobody looked for when tracing started may be this one: a reason of its own.
    let known = |program: &String| {
        program.starts_with('@') || story.start.known_programs.contains_key(program)
    };
    if listed || !claim.programs.iter().all(known) {
        return None;
    }
    let script = exec.script.as_ref().and_then(|script| script.file.as_ref());
    if let (Some(script), Some(file)) = (script, &exec.file) {
        let mut copies = claim.programs.iter().flat_map(|program| copies(story, program));
        if copies.any(|copy| copy.file == script.id && copy.interpreter != Some(file.id())) {
            let by = file.path.as_ref().map_or("a file without a path".into(), |path| path.lossy());
            return Some(format!(
                "runs {} by {by}, to which its first line did not lead when tracing started",
                script.path.lossy()
            ));
        }
    }
    Some({
        let script = exec.script.as_ref().and_then(|script| Some(&script.file.as_ref()?.path));
        let path = script.or_else(|| exec.file.as_ref().and_then(|file| file.path.as_ref()));
        let name = path.map_or("a file without a path".into(), |path| path.lossy());
        format!("runs {name}, which is not listed")
    })
}

/// The file, and the script if it is one, of the command's first exec.
fn command_files(story: &Story) -> (Option<FileId>, Option<FileId>) {
    let first = story.command();
    let script = first
        .and_then(|exec| exec.script.as_ref())
        .and_then(|script| Some(script.file.as_ref()?.id));
    (first.and_then(|exec| exec.file.as_ref()).map(|file| file.id()), script)
}

fn own_program(exec: &Exec, own: &(Option<FileId>, Option<FileId>)) -> bool {
    let file = exec.file.as_ref().map(|file| file.id());
    let script = exec.script.as_ref().and_then(|script| Some(script.file.as_ref()?.id));
    file.is_some() && (file, script) == *own
}

fn is_allowed(story: &Story, claim: &Claim, exec: &Exec) -> bool {
    // A process can write its own argv, and so what a found one says of itself allows nothing.
    if !exec.argv.complete || exec.found {
        return false;
    }
    // A script's argv is INTERPRETER [ARGUMENT] SCRIPT ARGUMENTS...: compare from the script on.
    let args = &exec.argv.args;
    let from = match (&exec.script, &exec.filename) {
        (Some(_), Some(filename)) => args.iter().position(|arg| arg == filename).unwrap_or(0),
        _ => 0,
    };
    let argv = args.get(from..).unwrap_or_default();
    if claim.kind == ClaimKind::NeverRuns
        && passed_on(story, claim, exec).is_some_and(|argv| allows(claim, argv))
    {
        return true;
    }
    claim.allow.iter().filter(|allowed| allows_one(allowed, argv)).any(|allowed| match claim.kind {
        // Who calls chooses the words, and where nothing else may run the file has to be the one.
        ClaimKind::RunsOnly => {
            allowed.argv.first().is_some_and(|program| is_copy(exec, copies(story, program)))
        }
        ClaimKind::NeverRuns
        | ClaimKind::ConnectsOnlyTo
        | ClaimKind::NeverConnectsTo
        | ClaimKind::CredentialsInProcess => true,
    })
}

/// The script's argv in that of an interpreter that the script's first line led to by way of another
/// program, as `#!/usr/bin/env bash` does: the process executed that very script just before, and the
/// script is all that this exec has to do with the claim.
fn passed_on<'a>(story: &Story, claim: &Claim, exec: &'a Exec) -> Option<&'a [Bytes]> {
    let execs = &story.processes.get(&exec.process)?.execs;
    let at = execs.iter().position(|own| std::ptr::eq(own.as_ref(), exec))?;
    let before = execs.get(at.checked_sub(1)?)?;
    before.script.as_ref()?;
    let script = before.filename.as_ref()?;
    let args = &exec.argv.args;
    let from = args.iter().position(|word| word == script).filter(|from| *from > 0)?;
    let options = args.get(1..from)?;
    let is_option = |word: &Bytes| word.0.starts_with(b"-") || word.0.starts_with(b"+");
    let mut without = exec.clone();
    without.argv.args.truncate(from);
    let is_other = |program: &String| {
        program == "@command" || runs(&without, program, copies(story, program), story).is_some()
    };
    (exec.script.is_none() && options.iter().all(is_option) && !claim.programs.iter().any(is_other))
        .then(|| args.get(from..))?
}

/// Whether the claim allows this argv.
pub(super) fn allows(claim: &Claim, argv: &[Bytes]) -> bool {
    claim.allow.iter().any(|allowed| allows_one(allowed, argv))
}

fn allows_one(allowed: &AllowedExec, argv: &[Bytes]) -> bool {
    let Some((first, rest)) = argv.split_first() else { return false };
    let mut words = allowed.argv.iter().map(String::as_bytes);
    words.next() == Some(first.base_name()) && words.eq(rest.iter().map(|arg| arg.0.as_slice()))
}

/// A forbidden file in the kernel's ledger is a violation even when its exec record was lost.
fn ledger_violations(story: &Story, claim: &Claim, verdict: &mut ClaimVerdict) {
    let (ClaimKind::NeverRuns, Some(end)) = (claim.kind, &story.end) else { return };
    for program in &claim.programs {
        for copy in copies(story, program) {
            let Some(row) = end.ledger.iter().find(|row| row.file == copy.file) else { continue };
            let recorded = story.execs_of(copy.file);
            if row.execs > recorded {
                verdict.violations.push(Violation {
                    t_ns: end.t_ns,
                    process: story.root().unwrap_or(ProcessKey { pid: 0, start_ns: 0 }),
                    detail: format!(
                        "runs {program}: the kernel's ledger counts {} execs of {}, of which {recorded} \
                         are recorded; the process is unknown because the records were lost",
                        row.execs,
                        copy.path.lossy()
                    ),
                });
            }
        }
    }
}
