//! The one table of the capabilities that tracer needs, and what for.
//!
//! Before anything is loaded it is compared with what tracer has: what a run cannot do without is an
//! error that names the capability, and what only makes it see less is said.

use rustix::thread::{CapabilitySet, capabilities};

/// What a run does, as far as that asks for capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// `run`, `attach`, whatever the options.
    Always,
    /// A policy is judged.
    Verdict,
    /// A policy is judged, and mappings are watched: of a command, not of what runs already.
    Mappings,
    /// Names that the C library resolves are watched.
    Names,
    /// Failed execs are watched.
    Attempts,
    /// Calls by HTTP are read.
    Calls,
    /// The command runs as the user who called sudo.
    Caller,
    /// Processes of other users are traced: behind sudo, and with `attach`.
    Others,
    /// Nobody may write to the directory of the cgroup that a cgroup is made in.
    ForeignCgroup,
}

impl Feature {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Feature::Always => "always",
            Feature::Verdict => "with a policy",
            Feature::Mappings => "to run with a policy",
            Feature::Names => "with `--resolver`, or endpoints by name",
            Feature::Attempts => "with `--attempts`, or a claim over them",
            Feature::Calls => "with `--http`",
            Feature::Caller => "behind sudo",
            Feature::Others => "behind sudo, and to attach",
            Feature::ForeignCgroup => {
                "where a cgroup's directory may not be written to, as the topmost one"
            }
        }
    }
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Need {
    pub(crate) name: &'static str,
    pub(crate) capability: CapabilitySet,
    pub(crate) feature: Feature,
    /// Ends "tracer needs it ...".
    pub(crate) to: &'static str,
    /// What follows without it; nothing works then where there is no such thing.
    pub(crate) without: Option<&'static str>,
}

pub(crate) const NEEDS: &[Need] = &[
    Need {
        name: "CAP_BPF",
        capability: CapabilitySet::BPF,
        feature: Feature::Always,
        to: "to load the probes (CAP_SYS_ADMIN has it)",
        without: None,
    },
    Need {
        name: "CAP_PERFMON",
        capability: CapabilitySet::PERFMON,
        feature: Feature::Always,
        to: "for probes that read the kernel's memory (CAP_SYS_ADMIN has it)",
        without: None,
    },
    Need {
        name: "CAP_NET_ADMIN",
        capability: CapabilitySet::NET_ADMIN,
        feature: Feature::Always,
        to: "for the probes on the sockets of the command's cgroup, and for the canary's network",
        without: None,
    },
    Need {
        name: "CAP_NET_RAW",
        capability: CapabilitySet::NET_RAW,
        feature: Feature::Always,
        to: "to try the probe of raw sockets with the canary",
        without: Some("nothing is started where the sockets of a cgroup are watched"),
    },
    Need {
        name: "CAP_SYS_ADMIN",
        capability: CapabilitySet::SYS_ADMIN,
        feature: Feature::Verdict,
        to: "to watch files (fanotify), and for the kernel's own count of execs",
        without: Some("no claim over programs can be proven"),
    },
    Need {
        name: "CAP_IPC_LOCK",
        capability: CapabilitySet::IPC_LOCK,
        feature: Feature::Mappings,
        to: "to map the rings of perf events whatever others have mapped (perf_event_mlock_kb)",
        without: Some(
            "no claim over programs can be proven where others have mapped as much as is allowed",
        ),
    },
    Need {
        name: "CAP_SYS_ADMIN",
        capability: CapabilitySet::SYS_ADMIN,
        feature: Feature::Names,
        to: "for breakpoints in the C library",
        without: Some("names that processes have it resolve are not seen"),
    },
    Need {
        name: "CAP_SYS_ADMIN",
        capability: CapabilitySet::SYS_ADMIN,
        feature: Feature::Attempts,
        to: "for the tracepoints of execve where tracefs is not mounted, on kernels without fentry",
        without: Some("failed execs are not seen there"),
    },
    Need {
        name: "CAP_SYS_ADMIN",
        capability: CapabilitySet::SYS_ADMIN,
        feature: Feature::Calls,
        to: "for breakpoints in TLS libraries, on kernels before 6.6",
        without: Some("calls over TLS are not seen there"),
    },
    Need {
        name: "CAP_SETUID",
        capability: CapabilitySet::SETUID,
        feature: Feature::Caller,
        to: "to start the command as the user who called sudo",
        without: None,
    },
    Need {
        name: "CAP_SETGID",
        capability: CapabilitySet::SETGID,
        feature: Feature::Caller,
        to: "to start the command as the user who called sudo",
        without: None,
    },
    Need {
        name: "CAP_KILL",
        capability: CapabilitySet::KILL,
        feature: Feature::Caller,
        to: "to hand signals on to the command of another user",
        without: Some("signals that are sent to tracer do not reach the command"),
    },
    Need {
        name: "CAP_SYS_PTRACE",
        capability: CapabilitySet::SYS_PTRACE,
        feature: Feature::Others,
        to: "to read the executed files of other users' processes through /proc",
        without: Some(
            "files that have no name any more, or another one in the process's own view, stay unread",
        ),
    },
    Need {
        name: "CAP_DAC_READ_SEARCH",
        capability: CapabilitySet::DAC_READ_SEARCH,
        feature: Feature::Others,
        to: "to read executed files and to watch files that other users alone may read",
        without: Some("files that only other users may read stay unread and unwatched"),
    },
    Need {
        name: "CAP_DAC_OVERRIDE",
        capability: CapabilitySet::DAC_OVERRIDE,
        feature: Feature::ForeignCgroup,
        to: "to make a cgroup for the command or the canary",
        without: Some("no claim over connections can be proven"),
    },
];

/// What is not seen where no cgroup could be made, and what may be missing for one.
pub(super) fn without_cgroup(why: &str) -> String {
    let needs = NEEDS.iter().filter(|need| need.feature == Feature::ForeignCgroup);
    let missing = needs.filter(|need| !need.is_met(held()));
    let missing: String = missing.map(|need| format!("; {} may do it", need.name)).collect();
    format!(
        "no cgroup: {why}{missing}. Sockets other than TCP's are not watched, and no claim over connections can be \
         proven"
    )
}

/// What tracer may do now.
pub(crate) fn held() -> CapabilitySet {
    let sets = capabilities(None).map(|sets| sets.effective);
    // The kernel refuses this to nobody; with no answer, nothing is known to be missing.
    sets.unwrap_or(CapabilitySet::all())
}

impl Need {
    pub(crate) fn is_met(&self, held: CapabilitySet) -> bool {
        /// What was split off from it in Linux 5.8, it still has.
        const SPLIT_OFF: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
        let has_all =
            held.contains(CapabilitySet::SYS_ADMIN) && SPLIT_OFF.contains(self.capability);
        has_all || held.contains(self.capability)
    }
}

/// Capabilities that a run cannot do without are missing.
#[derive(Debug, thiserror::Error)]
#[error(
    "missing capabilities: {}; run tracer with sudo, or give it what `tracer doctor` lists. Nothing was started",
    list(.0)
)]
pub struct Powerless(Vec<&'static Need>);

fn list(needs: &[&Need]) -> String {
    let one = |need: &&Need| format!("{} ({})", need.name, need.to);
    needs.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Compares what is needed with what is there. What is only seen less of is returned as sentences.
pub(crate) fn check(
    held: CapabilitySet,
    asked: impl Fn(Feature) -> bool,
) -> Result<Vec<String>, Powerless> {
    let missing = NEEDS.iter().filter(|need| asked(need.feature) && !need.is_met(held));
    let (optional, essential): (Vec<&Need>, Vec<&Need>) =
        missing.partition(|need| need.without.is_some());
    if !essential.is_empty() {
        return Err(Powerless(essential));
    }
    let sentence = |need: &Need| {
        let without = need.without?;
        Some(format!("without {} ({}), {without}", need.name, need.to))
    };
    Ok(optional.into_iter().filter_map(sentence).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let all = NEEDS.iter().fold(CapabilitySet::empty(), |all, need| all | need.capability);
        assert_eq!(check(all, |_| true).unwrap(), Vec::<String>::new());
        // CAP_SYS_ADMIN has what was split off from it.
        let split = CapabilitySet::BPF | CapabilitySet::PERFMON;
        assert_eq!(check(all - split, |_| true).unwrap(), Vec::<String>::new());
        for need in NEEDS {
            let left = all - need.capability - CapabilitySet::SYS_ADMIN;
            let said = match check(left, |feature| feature == need.feature) {
                Ok(sentences) => sentences.join("\n"),
                Err(error) => error.to_string(),
            };
            assert!(said.contains(need.name), "{}: {said}", need.name);
            assert!(check(CapabilitySet::empty(), |feature| feature != Feature::Always).is_err());
        }
    }

    /// docs/security.md has the same table.
    #[test]
    fn the_documented_table_is_this_one() {
        let documented = include_str!("../../../docs/security.md");
        for need in NEEDS {
            let row = format!(
                "| `{}` | {} | {} | {} |",
                need.name,
                need.feature.name(),
                need.to,
                need.without.unwrap_or("nothing is started"),
            );
            assert!(documented.contains(&row), "docs/security.md lacks:\n{row}");
        }
    }
}
