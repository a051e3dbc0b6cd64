//! What one test makes and leaves, and the tracer that works there.

use anyhow::Result;
use tracer_tests::scratch;

use super::Tracer;

/// A directory and a mark, as [`scratch::Scratch`] has them.
#[derive(Debug)]
pub(crate) struct Scratch(scratch::Scratch);

impl Scratch {
    pub(crate) fn new() -> Result<Scratch> {
        Ok(Scratch(scratch::Scratch::new()?))
    }

    /// `tracer run` of a command given word by word.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        command: impl IntoIterator<Item = S>,
    ) -> Tracer<'_> {
        Tracer::run(self, command)
    }

    /// `tracer` with these arguments.
    pub(crate) fn tracer(&self, arguments: &[&str]) -> Tracer<'_> {
        Tracer::new(self, arguments)
    }
}

impl std::ops::Deref for Scratch {
    type Target = scratch::Scratch;

    fn deref(&self) -> &scratch::Scratch {
        &self.0
    }
}
