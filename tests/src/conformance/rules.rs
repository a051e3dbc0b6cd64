//! Why the two may say different things, and both be right. Whatever none of these explains is an error
//! of one of them.

use std::{
    collections::HashSet,
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use super::facts::{Contact, Exec, Fact, Outcome, Protocol, Who};

/// A reason for a difference.
#[derive(Debug)]
pub struct Rule {
    pub name: &'static str,
    /// In one sentence, for the document.
    pub why: &'static str,
    pub fits: Fits,
}

/// What a rule looks at: a fact of strace's and one of tracer's that are about the same, or one that the
/// other does not have.
#[derive(Clone, Copy, Debug)]
pub enum Fits {
    Both(fn(&Fact, &Fact, &Known) -> bool),
    StraceAlone(fn(&Fact, &Known) -> bool),
    TracerAlone(fn(&Fact, &Known) -> bool),
}

/// What else is known of a run.
#[derive(Debug, Default)]
pub struct Known {
    /// Execs within which the process ended, as strace saw them asked for.
    pub unsure: Vec<Exec>,
    /// Processes that strace was not allowed to follow.
    pub untraced: HashSet<Who>,
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "the file is gone",
        why: "strace says how a file was spelled, which is followed to the file when all is over; there \
              is none any more at that name (or it begins with `/proc` or `/dev/fd`, which differs from \
              process to process), so the spelling and the arguments are compared alone, and the last \
              part of the name; in front of a script's arguments the recorded interpreter, at most one \
              word, and the script are allowed",
        fits: Fits::Both(|strace, tracer, _| {
            execs(strace, tracer).is_some_and(|(strace, tracer)| {
                let same_words = match &tracer.interpreter {
                    None => strace.argv == tracer.argv,
                    Some(by) => is_of_script(&by.name, strace, tracer),
                };
                strace.file.is_none()
                    && same_call(strace, tracer)
                    && same_words
                    && is_called_as_spelled(tracer)
            })
        }),
    },
    Rule {
        name: "no arguments at all",
        why: "the kernel gives a program that is started without any argument an empty one",
        fits: Fits::Both(|strace, tracer, _| {
            execs(strace, tracer).is_some_and(|(strace, tracer)| {
                strace.argv.is_empty()
                    && tracer.argv == [Vec::<u8>::new()]
                    && same_exec(strace, tracer)
            })
        }),
    },
    Rule {
        name: "killed within the exec",
        why: "the process was killed before the call came back, so strace cannot tell whether it had \
              succeeded; the kernel's own count of execs has it; all that was asked for is compared",
        fits: Fits::TracerAlone(
            |tracer, known| matches!(tracer, Fact::Exec(exec) if known.unsure.contains(exec)),
        ),
    },
    Rule {
        name: "not followed",
        why: "the process was made with `CLONE_UNTRACED`, so strace sees that it was made, but not how it \
              ends",
        fits: Fits::TracerAlone(
            |tracer, known| matches!(tracer, Fact::End { who, .. } if known.untraced.contains(who)),
        ),
    },
    Rule {
        name: "the program did not ask",
        why: "strace sees the outcome of a connection that is made in the background only if the program \
              asks for it (`SO_ERROR`, or `connect` again); the kernel has it in any case",
        fits: Fits::Both(|strace, tracer, _| {
            contacts(strace, tracer).is_some_and(|(strace, tracer)| {
                strace.outcome == Outcome::Unknown && same_contact(strace, tracer)
            })
        }),
    },
    Rule {
        name: "no address",
        why: "who connects to the unspecified address (`0.0.0.0`, `::`) is connected to this machine's \
              loopback address, and that is what is recorded",
        fits: Fits::Both(|strace, tracer, _| {
            contacts(strace, tracer).is_some_and(|(strace, tracer)| {
                let loopback = match strace.to.ip() {
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::from(Ipv4Addr::LOCALHOST),
                    IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::from(Ipv6Addr::LOCALHOST),
                    IpAddr::V4(_) | IpAddr::V6(_) => return false,
                };
                let to = SocketAddr::new(loopback, strace.to.port());
                let is_same =
                    strace.outcome == tracer.outcome || strace.outcome == Outcome::Unknown;
                is_same && same_contact(&Contact { to, ..strace.clone() }, tracer)
            })
        }),
    },
    Rule {
        name: "refused by the call",
        why: "the kernel refused the call before there was an attempt: no route, no free port, a socket \
              that is connected already or of another kind",
        fits: Fits::StraceAlone(|strace, _| {
            const ERRORS: [&str; 12] = [
                "EACCES",
                "EADDRNOTAVAIL",
                "EAFNOSUPPORT",
                "EAGAIN",
                "EALREADY",
                "EBADF",
                "EFAULT",
                "EHOSTUNREACH",
                "EINVAL",
                "EISCONN",
                "ENETUNREACH",
                "EPERM",
            ];
            matches!(strace, Fact::Contact(Contact {
                protocol: Protocol::Tcp,
                outcome: Outcome::Failed(error),
                ..
            }) if ERRORS.contains(&error.as_str()))
        }),
    },
];

fn execs<'a>(strace: &'a Fact, tracer: &'a Fact) -> Option<(&'a Exec, &'a Exec)> {
    match (strace, tracer) {
        (Fact::Exec(strace), Fact::Exec(tracer)) => Some((strace, tracer)),
        _ => None,
    }
}

fn contacts<'a>(strace: &'a Fact, tracer: &'a Fact) -> Option<(&'a Contact, &'a Contact)> {
    match (strace, tracer) {
        (Fact::Contact(strace), Fact::Contact(tracer)) => Some((strace, tracer)),
        _ => None,
    }
}

/// What strace is told by the call itself, without the arguments.
fn same_call(strace: &Exec, tracer: &Exec) -> bool {
    (strace.who, strace.number) == (tracer.who, tracer.number) && strace.filename == tracer.filename
}

/// But for the arguments.
fn same_exec(strace: &Exec, tracer: &Exec) -> bool {
    same_call(strace, tracer)
        && strace.file == tracer.file
        && strace.interpreter == tracer.interpreter
}

/// But for the outcome.
fn same_contact(strace: &Contact, tracer: &Contact) -> bool {
    (strace.who, strace.protocol, strace.to) == (tracer.who, tracer.protocol, tracer.to)
}

/// The recorded arguments are what the kernel makes of those that strace saw when the file is a script:
/// the interpreter, at most one argument of its own, the script, and what was asked for but its name.
fn is_of_script(interpreter: &[u8], strace: &Exec, tracer: &Exec) -> bool {
    let asked = strace.argv.get(1..).unwrap_or_default();
    let Some(start) = tracer.argv.strip_suffix(asked) else { return false };
    match start {
        [first, script] | [first, _, script] => first == interpreter && *script == tracer.filename,
        _ => false,
    }
}

/// The recorded file is called as the spelling ends, where a spelling says that.
fn is_called_as_spelled(tracer: &Exec) -> bool {
    let spelled = Path::new(OsStr::from_bytes(&tracer.filename));
    let is_number = ["/proc", "/dev/fd"].iter().any(|of| spelled.starts_with(of));
    is_number || tracer.file.as_deref().and_then(Path::file_name) == spelled.file_name()
}
