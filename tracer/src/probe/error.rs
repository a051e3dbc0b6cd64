//! Why probes cannot be loaded, in words for who started tracer.

use std::io;

use tracer_ebpf::abi::TLS_FILES_MAX;

use super::btf::BtfError;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Btf(#[from] BtfError),
    #[error(
        "not permitted to load probes into the kernel: {0}. \
         tracer needs root, or the capabilities that `tracer doctor` lists; run it with sudo"
    )]
    NotPermitted(String),
    #[error(
        "the kernel refused the probe `{program}`: {detail}. \
         `tracer doctor` shows what this kernel allows; kernels from {minimum} on are supported",
        minimum = super::sensors::MINIMUM_KERNEL
    )]
    Refused { program: &'static str, detail: String },
    #[error("there is no cgroup to attach it to: {0}")]
    NoCgroup(String),
    #[error("it was not to be attached by {way}")]
    Forbidden { way: &'static str },
    #[error("it sees everything from Linux {0} on only")]
    Since(&'static str),
    #[error("this kernel has no function {function}, at whose end the probe `{program}` is to run")]
    NoFunction { program: &'static str, function: &'static str },
    #[error("this kernel refuses programs on its functions")]
    NoFunctionProbes,
    #[error("there are more than {TLS_FILES_MAX} files with a TLS library")]
    TooManyFiles,
    #[error("no C library with getaddrinfo was found where they usually are")]
    NoLibrary,
    #[error(
        "this kernel ({0}) kills processes with a seccomp filter that come back from a watched \
         function, inside the tree and outside; 6.14 and 6.12.20 do not"
    )]
    KillsAtReturn(String),
    #[error(
        "the only way this kernel has for it costs processes that are not traced ({tax}); a policy that \
         counts attempts, or --attempts, allows that"
    )]
    Taxed { tax: &'static str },
    #[error("the probes could not be loaded: {0}. `tracer doctor` shows what this kernel allows")]
    Object(String),
}

impl LoadError {
    /// What the kernel says of the next way to attach, when it has refused one: both count.
    pub(super) fn and_then(self, next: LoadError) -> LoadError {
        match (self, next) {
            (
                LoadError::Refused { program, detail },
                LoadError::Refused { program: other, detail: also },
            ) => LoadError::Refused { program, detail: format!("{detail}; and `{other}`: {also}") },
            (_, next) => next,
        }
    }
}

pub(super) fn refused(
    program: &'static str,
    error: &(dyn std::error::Error + 'static),
) -> LoadError {
    match permission(error) {
        Some(detail) => LoadError::NotPermitted(detail),
        None => LoadError::Refused { program, detail: chain(error) },
    }
}

/// Something of the object.
pub(super) fn unusable(error: impl std::error::Error + 'static) -> LoadError {
    match permission(&error) {
        Some(detail) => LoadError::NotPermitted(detail),
        None => LoadError::Object(chain(&error)),
    }
}

/// The error's own words when it is a missing privilege. EACCES is not: the verifier uses it.
fn permission(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.raw_os_error() == Some(libc::EPERM)
        {
            return Some(io.to_string());
        }
        cause = error.source();
    }
    None
}

/// An error and its causes. Of a verifier log, the end: that is where the reason stands.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let detail = error.to_string();
        if !text.contains(&detail) {
            text = format!("{text}: {detail}");
        }
        cause = error.source();
    }
    const LINES_MAX: usize = 12;
    let lines: Vec<&str> = text.lines().collect();
    match lines.len().checked_sub(LINES_MAX) {
        Some(skipped) if skipped > 1 => {
            format!("{}\n  [{} lines]\n{}", lines[0], skipped - 1, lines[skipped..].join("\n"))
        }
        _ => text,
    }
}
