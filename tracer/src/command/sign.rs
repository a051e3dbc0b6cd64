//! `tracer sign` and `tracer run --sign`.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tracer::{
    cli::{self, exit},
    evidence::{self, PrivateKey, Statement},
    policy,
    record::{self, Existing, Reader},
    run::{CallingUser, Finished},
    session::Story,
};

pub(crate) fn sign(arguments: &cli::Sign) -> anyhow::Result<u8> {
    let recording = &arguments.recording;
    anyhow::ensure!(
        recording != Path::new("-"),
        "cannot sign standard input: the statement is written beside a file; give its name"
    );
    let key = PrivateKey::load(&arguments.key)?;
    let reader = Reader::open(recording, true)?;
    let (story, sha256) = Story::new(reader.start().clone()).read(reader, &mut |_, _| ())?;
    if !crate::is_whole(&story.integrity) {
        tracer::notice(format_args!("{} was not signed", recording.display()));
        return Ok(exit::INCONCLUSIVE);
    }
    let sha256 = sha256.context("the reader made no digest")?;
    let verdict = policy::judge(&story, &story.start.policies);
    let statement = Statement::new(&name(recording), sha256, &story, verdict.as_ref());
    let path = evidence::beside(recording);
    let existing = Existing::forced(arguments.force);
    record::create_output(&path, existing)
        .and_then(|mut file| Ok(file.write_all(evidence::sign(&statement, &key).as_bytes())?))
        .with_context(|| format!("cannot write the signed statement {}", path.display()))?;
    crate::put(&format!("{}: signed by key {}\n", path.display(), key.public().id()))?;
    Ok(exit::PROVEN)
}

fn name(recording: &Path) -> String {
    recording.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A run whose recording will be signed.
///
/// The digest is that of the bytes on their way to the file. Reading the file when all is over would
/// be too late: the traced command can run as its owner.
pub(crate) struct Signing {
    key: PrivateKey,
    recording: PathBuf,
    path: PathBuf,
    file: File,
    written: Arc<Mutex<Sha256>>,
}

impl Signing {
    /// Finds out before anything runs whether signing will work. Files are opened with the caller's
    /// rights.
    pub(crate) fn prepare(
        key: &Path,
        recording: &Path,
        existing: Existing,
        user: Option<&CallingUser>,
    ) -> anyhow::Result<Signing> {
        const NOT_STARTED: &str = "nothing was started";
        anyhow::ensure!(
            recording != Path::new("-"),
            "a recording on standard output cannot be signed: the statement is written beside a \
             file; {NOT_STARTED}. Give a file with --output"
        );
        let path = evidence::beside(recording);
        let open = || {
            let key =
                PrivateKey::load(key).with_context(|| format!("cannot sign; {NOT_STARTED}"))?;
            let file = record::create_output(&path, existing).with_context(|| {
                format!("cannot write the signed statement {}; {NOT_STARTED}", path.display())
            })?;
            anyhow::Ok((key, file))
        };
        let (key, file) = match user {
            Some(user) => user.with_file_rights(open),
            None => open(),
        }?;
        let recording = recording.to_owned();
        Ok(Signing { key, recording, path, file, written: Arc::default() })
    }

    /// What is written through the result will be signed.
    pub(crate) fn watch(&self, to: Box<dyn Write + Send>) -> Box<dyn Write + Send> {
        Box::new(Watched { to, written: Arc::clone(&self.written) })
    }

    pub(crate) fn finish(mut self, finished: &Finished) -> anyhow::Result<()> {
        let path = self.path.display();
        if finished.write_error.is_some() {
            tracer::notice(format_args!(
                "the recording lacks its end and was not signed; {path} is empty"
            ));
            return Ok(());
        }
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let statement = Statement::new(
            &name(&self.recording),
            written.finalize().into(),
            &finished.story,
            finished.verdict.as_ref(),
        );
        self.file
            .write_all(evidence::sign(&statement, &self.key).as_bytes())
            .with_context(|| format!("cannot write the signed statement {path}"))
    }
}

struct Watched {
    to: Box<dyn Write + Send>,
    written: Arc<Mutex<Sha256>>,
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.written.lock().unwrap_or_else(PoisonError::into_inner).update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
