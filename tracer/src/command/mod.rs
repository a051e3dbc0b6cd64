//! Commands over recordings, from what was typed to an exit code.

mod attach;
mod compare;
mod export;
mod policy;
mod report;
mod sign;
mod verify;

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Context as _;

pub(crate) use attach::attach;
pub(crate) use compare::compare;
pub(crate) use export::export;
pub(crate) use policy::policies;
pub(crate) use report::report;
pub(crate) use sign::{Signing, sign};
pub(crate) use verify::verify;

/// A recording is not replaced by what is made of it, whatever --force says.
fn refuse_input<'a>(
    output: &Path,
    inputs: impl IntoIterator<Item = &'a Path>,
) -> anyhow::Result<()> {
    let id = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let Some(output_id) = id(output) else { return Ok(()) };
    let is_input = inputs.into_iter().any(|input| id(input) == Some(output_id));
    anyhow::ensure!(
        !is_input,
        "{} is a recording that is read here, and writing to it would lose it; give another file with \
         --output",
        output.display()
    );
    Ok(())
}

/// A reader of standard output that has gone away, as behind `| head`, is no failure.
pub(crate) fn unless_nobody_reads(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}
