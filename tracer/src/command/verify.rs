//! `tracer verify`.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tracer::{
    cli::{self, exit},
    evidence::{self, PublicKey},
    policy::{self, Judged, Verdict},
    record::{self, Integrity, Reader},
    report,
};

pub(crate) fn verify(arguments: &cli::Verify) -> anyhow::Result<u8> {
    let signed_by = match &arguments.key {
        Some(key) => {
            let path = statement_of(&arguments.recording, arguments.attestation.as_deref())?;
            Some((PublicKey::load(key)?, path))
        }
        None => None,
    };
    let reader = match Reader::open(&arguments.recording, signed_by.is_some()) {
        Ok(reader) => reader,
        Err(error) if error.is_cut_short() => {
            let error = report::clean(error.to_string().as_bytes());
            crate::put(&format!("integrity: NO: {error}\nverdict: inconclusive\n"))?;
            return Ok(exit::INCONCLUSIVE);
        }
        Err(error) => return Err(error.into()),
    };
    let mut start = reader.start().clone();
    if !arguments.policies.is_empty() {
        let own = start.forbidden_programs();
        start.policies = crate::load_policies(&arguments.policies)?;
        // Files of programs that were only allowed then were not watched.
        let now = start.forbidden_programs();
        start.known_programs.retain(|program, _| own.contains(program) || !now.contains(program));
    }
    let judged = policy::judge_recording(&arguments.recording, reader, start, &mut |_, _| ())?;
    let as_written = judged.is_as_written();
    let Judged { story, verdict, sha256 } = judged;
    let mut out = String::new();
    writeln!(out, "integrity: {}", integrity(&story.integrity, &arguments.recording))?;
    let mut unsupported = false;
    let own_policies = arguments.policies.is_empty();
    if let Some((key, path)) = &signed_by {
        let sha256 = sha256.context("the reader made no digest")?;
        let own_verdict = verdict.as_ref().filter(|_| own_policies);
        let checked = evidence::open(path, key)
            .and_then(|statement| Ok(statement.supports(sha256, own_verdict)?));
        match checked {
            Ok(()) => writeln!(out, "signature: valid, by key {}", key.id())?,
            Err(error) => {
                unsupported = true;
                let error = report::clean(error.to_string().as_bytes());
                writeln!(out, "signature: NO: {}: {error}", path.display())?;
            }
        }
    }
    if let Some(verdict) = &verdict {
        print_verdict(&mut out, verdict)?;
    }
    let claims_otherwise = own_policies && story.integrity == Integrity::Intact && !as_written;
    if claims_otherwise {
        writeln!(
            out,
            "the recording claims another verdict than its events give: it was not written by this \
             tracer's rules"
        )?;
    }
    if unsupported {
        writeln!(
            out,
            "inconclusive: the verdict is what these events give, and the key's owner does not vouch for \
             them"
        )?;
    }
    crate::put(&out)?;
    Ok(match (&verdict, &story.integrity) {
        _ if claims_otherwise || unsupported => exit::INCONCLUSIVE,
        (Some(verdict), _) => crate::ruling_code(verdict.overall),
        (None, Integrity::Intact) => exit::PROVEN,
        (None, Integrity::CutShort | Integrity::Broken { .. }) => exit::INCONCLUSIVE,
    })
}

fn statement_of(recording: &Path, named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if named.is_none() && recording == Path::new("-") {
        anyhow::bail!(
            "the signed statement about standard input can be anywhere; name it with --attestation"
        );
    }
    Ok(named.map_or_else(|| evidence::beside(recording), Path::to_owned))
}

fn integrity(integrity: &Integrity, recording: &Path) -> String {
    match integrity {
        Integrity::Intact => "every line is present and unchanged".into(),
        Integrity::CutShort => "NO: the recording was cut short, it has no end record".into(),
        Integrity::Broken { line, reason } => {
            let next = record::part(recording, 1);
            let counted = if next.exists() { " of its files together" } else { "" };
            format!("NO: line {line}{counted}: {}", report::clean(reason.as_bytes()))
        }
    }
}

fn print_verdict(out: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let clean = |text: &str| report::clean(text.as_bytes());
    writeln!(out, "verdict: {}", verdict.overall.name())?;
    for claim in &verdict.claims {
        let (policy, words) = (clean(&claim.policy), clean(&claim.claim));
        writeln!(out, "  {} {policy}: {words}", claim.ruling.name())?;
        for violation in &claim.violations {
            let pid = violation.process.pid;
            writeln!(out, "    violated by pid {pid}: {}", clean(&violation.detail))?;
        }
        for reason in &claim.reasons {
            writeln!(out, "    because {}", clean(reason))?;
        }
    }
    Ok(())
}
