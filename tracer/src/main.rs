//! Parse, run, exit code.

mod command;

use std::{
    ffi::OsString,
    fs::{self, Metadata},
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Parser as _, error::ErrorKind};
use tracer::{
    catalogue::Catalogue,
    cli::{self, Cli, Command, ExitCodeOf, SchemaOf, exit},
    otlp::{Collector, Delivery},
    policy::{self, Ruling},
    probe,
    record::{self, Existing, Integrity, ReadError, schema::CommandStatus},
    report::{self, Detail, Paint},
    run::{self, Broker, CallingUser, Finished, SenderProcess, Settings, Task},
    version,
};

use crate::command::Signing;

/// Set by `cargo xtask`.
const COMMIT: Option<&str> = option_env!("TRACER_COMMIT");

fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| name == run::canary::NAME) {
        return run::canary::main();
    }
    version::name(COMMIT);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe behind --help is nobody's problem.
            let _ = error.print();
            let asked_for =
                matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked_for { exit::PROVEN } else { exit::USAGE });
        }
    };
    let result = match cli.command {
        Command::Run(arguments) => start(arguments),
        Command::Attach(arguments) => command::attach(arguments),
        Command::Verify(arguments) => command::verify(&arguments),
        Command::Sign(arguments) => command::sign(&arguments),
        Command::Compare(arguments) => command::compare(&arguments),
        Command::Report(arguments) => command::report(&arguments),
        Command::Schema(arguments) => schema(&arguments),
        Command::Policy(arguments) => command::policies(&arguments),
        Command::Doctor(arguments) => doctor(&arguments),
        Command::Completions(arguments) => completions(&arguments),
        Command::Man(arguments) => man(&arguments),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&with_causes(&error));
            let read = error.downcast_ref::<ReadError>();
            let is_cut_short = read.is_some_and(ReadError::is_cut_short);
            ExitCode::from(if is_cut_short { exit::INCONCLUSIVE } else { exit::TRACER_FAILED })
        }
    }
}

/// The error and those of its causes that it does not quote itself.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Writes to standard output.
fn put(text: &str) -> anyhow::Result<()> {
    anyhow::ensure!(!run::stdout_was_closed(), "cannot write to standard output, which is closed");
    let mut out = io::stdout().lock();
    command::unless_nobody_reads(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// An error on standard error. It may quote what others have chosen, such as the name of a file.
fn complain(error: &str) {
    let lines: Vec<String> = error.lines().map(|line| report::clean(line.as_bytes())).collect();
    tracer::notice(lines.join("\n"));
}

fn start(arguments: cli::Run) -> anyhow::Result<u8> {
    // Everything that can be wrong with the call is found before a probe is loaded.
    let user = CallingUser::from_environment().map_err(anyhow::Error::msg)?;
    let names = load_for(user.as_ref(), &arguments.policies, &arguments.catalogue.files);
    let (policies, catalogue) = match names {
        Ok(loaded) => loaded,
        Err(error) => {
            complain(&error.to_string());
            return Ok(exit::USAGE);
        }
    };
    if arguments.enforce
        && let Err(why) = policy::can_enforce(&policies)
    {
        tracer::notice(why);
        return Ok(exit::USAGE);
    }
    let probes = probe::Options {
        attempts: arguments.attempts || policies.iter().any(policy::Policy::counts_attempts),
        resolver: arguments.resolver || policies.iter().any(policy::Policy::judges_names),
        http: arguments.http,
        hand_offs: !policies.is_empty(),
        debuggers: policies.iter().any(policy::Policy::forbids_debuggers),
        enforce: arguments.enforce,
        ..probe_options(&arguments.debug)
    };
    let existing = Existing::forced(arguments.force);
    let broker =
        start_broker(&arguments.command, user.as_ref(), arguments.output.as_deref(), existing)?;
    let sender = arguments.writing.otlp_endpoint.map(start_sender).transpose()?;
    let unused = Unused::of(arguments.output.as_deref(), user.as_ref());
    let mut output = arguments
        .output
        .as_deref()
        .map(|path| open_output(path, existing, user.as_ref(), arguments.writing.rotate, &broker))
        .transpose()?;
    let signing = match arguments.sign.as_deref().zip(arguments.output.as_deref()) {
        Some((key, recording)) => {
            let signing = Signing::prepare(key, recording, existing, user.as_ref());
            let signing = signing.inspect_err(|_| unused.remove())?;
            output = output.map(|output| signing.watch(output));
            Some(signing)
        }
        None => None,
    };
    let settings = Settings {
        broker: broker.clone(),
        command: arguments.command,
        policies,
        catalogue,
        output,
        part_bytes: arguments.writing.rotate,
        on_error: on_error(arguments.writing.on_error),
        sender,
        probes,
        http_fields: arguments.http_fields,
        linger: Duration::from_secs(arguments.linger),
        // What is signed says what the tree did.
        summary: !arguments.quiet || arguments.sign.is_some(),
        progress: !arguments.quiet && io::stderr().is_terminal(),
    };
    let finished = run::run(settings);
    broker.finish();
    let finished = finished.inspect_err(|_| unused.remove())?;
    if !arguments.quiet && finished.launch_error.is_none() {
        let detail = if arguments.verbose { Detail::Full } else { Detail::Summary };
        let paint = Paint::for_stream(&io::stderr());
        let summary = report::text(&finished.story, finished.verdict.as_ref(), detail, paint);
        // With nobody reading standard error there is nobody to tell.
        let _ = io::stderr().write_all(summary.as_bytes());
    }
    say_what_was_delivered(finished.delivery.as_ref(), arguments.quiet);
    let code = run_code(&finished, arguments.exit_code);
    if let Some(signing) = signing {
        signing.finish(&finished)?;
    }
    Ok(code)
}

/// Says what a collector did not take, whatever else is to be quiet.
fn say_what_was_delivered(delivery: Option<&Delivery>, quiet: bool) {
    let Some(delivery) = delivery else { return };
    if !delivery.is_whole() {
        tracer::notice(format_args!(
            "{delivery}. A recording (--output) has everything; \
             `tracer report --otlp-endpoint URL RECORDING` sends it again"
        ));
    } else if !quiet {
        tracer::notice(delivery);
    }
}

fn say_cut_short(error: &io::Error) {
    tracer::notice(format_args!(
        "the recording could not be written to its end: {error}. \
         What was recorded up to there can be read; `tracer report` shows it, and `tracer verify` says that \
         it was cut short (exit code 11)"
    ));
}

fn run_code(finished: &Finished, of: ExitCodeOf) -> u8 {
    use tracer::run::LaunchError;
    if let Some(error) = &finished.write_error {
        say_cut_short(error);
        return exit::TRACER_FAILED;
    }
    if let Some(error) = &finished.launch_error {
        tracer::notice(error);
        return match error {
            LaunchError::NotFound(_) => exit::NOT_FOUND,
            LaunchError::NotStarted(..) => exit::NOT_STARTED,
            LaunchError::NotEnrolled
            | LaunchError::NotTheUser
            | LaunchError::NotInCgroup
            | LaunchError::NoThread(_) => exit::TRACER_FAILED,
        };
    }
    match (&finished.verdict, of) {
        (Some(verdict), ExitCodeOf::Verdict) => ruling_code(verdict.overall),
        (Some(_) | None, _) => match finished.status {
            CommandStatus::Exited(code) => code,
            CommandStatus::Killed(signal) => 128u8.saturating_add(signal),
            CommandStatus::Running | CommandStatus::NotStarted(_) | CommandStatus::NoCommand => {
                exit::TRACER_FAILED
            }
        },
    }
}

fn ruling_code(ruling: Ruling) -> u8 {
    match ruling {
        Ruling::Proven => exit::PROVEN,
        Ruling::Violated => exit::VIOLATED,
        Ruling::Inconclusive => exit::INCONCLUSIVE,
    }
}

fn load_policies(names: &[String]) -> Result<Vec<policy::Policy>, policy::PolicyError> {
    names.iter().map(|name| policy::load(name)).collect()
}

/// Policies, and the catalogue that says what their names stand for.
fn load_names(
    policies: &[String],
    files: &[PathBuf],
) -> anyhow::Result<(Vec<policy::Policy>, Catalogue)> {
    let catalogue = Catalogue::with_files(files)?;
    let policies = load_policies(policies)?;
    policies.iter().try_for_each(|policy| {
        policy::check_names(policy, &catalogue)?;
        policy::check_folders(policy)
    })?;
    Ok((policies, catalogue))
}

/// The same, with the caller's rights: of what is no policy a line is shown.
fn load_for(
    user: Option<&CallingUser>,
    policies: &[String],
    files: &[PathBuf],
) -> anyhow::Result<(Vec<policy::Policy>, Catalogue)> {
    with_rights(user, || load_names(policies, files))
}

/// Before anything else is opened or started: it is a copy of this process.
fn start_broker(
    command: &[OsString],
    user: Option<&CallingUser>,
    output: Option<&Path>,
    existing: Existing,
) -> anyhow::Result<Broker> {
    let parts = output.map(|path| std::path::absolute(path).map(|path| (path, existing)));
    let parts = parts.transpose().context("the current directory is unknown")?;
    Broker::start(Task { command: command.to_vec(), user: user.cloned(), parts })
        .context("cannot start the process that keeps tracer's rights")
}

/// Before anything is opened that it should not have, and before there is a thread.
fn start_sender(collector: Collector) -> anyhow::Result<SenderProcess> {
    SenderProcess::start(collector).context("cannot start the process that sends log records")
}

/// With the caller's rights, so that root reads and writes nothing the caller could not.
fn with_rights<T>(user: Option<&CallingUser>, open: impl FnOnce() -> T) -> T {
    match user {
        Some(user) => user.with_file_rights(open),
        None => open(),
    }
}

/// The output file, if it was not there before: empty, it is of no use when tracer cannot start, and in the way
/// of nothing.
struct Unused<'a> {
    path: Option<&'a Path>,
    user: Option<&'a CallingUser>,
}

impl<'a> Unused<'a> {
    /// To be asked before it is opened.
    fn of(path: Option<&'a Path>, user: Option<&'a CallingUser>) -> Unused<'a> {
        let is_new = |path: &&Path| with_rights(user, || path.symlink_metadata().is_err());
        Unused { path: path.filter(is_new), user }
    }

    fn remove(&self) {
        let Some(path) = self.path else { return };
        with_rights(self.user, || {
            let empty = |file: Metadata| file.is_file() && file.len() == 0;
            if path.symlink_metadata().is_ok_and(empty) {
                // Nothing is lost by leaving it.
                let _ = fs::remove_file(path);
            }
        });
    }
}

fn open_output(
    path: &Path,
    existing: Existing,
    user: Option<&CallingUser>,
    part_bytes: Option<u64>,
    broker: &Broker,
) -> anyhow::Result<Box<dyn io::Write + Send>> {
    if path == Path::new("-") {
        anyhow::ensure!(
            part_bytes.is_none(),
            "standard output has no next file; give a file with --output"
        );
        anyhow::ensure!(
            !run::stdout_was_closed(),
            "cannot write the recording to standard output, which is closed; the command was not \
             started. Give a file with --output"
        );
        return Ok(Box::new(io::stdout()));
    }
    let opened = || -> Result<Box<dyn io::Write + Send>, record::OutputError> {
        let Some(part_bytes) = part_bytes else {
            return Ok(Box::new(record::create_output(path, existing)?));
        };
        let broker = broker.clone();
        let next = Box::new(move |number| broker.part(number));
        let first = || record::create_output(path, existing);
        Ok(Box::new(record::Parts::new(path, part_bytes, existing, first, next)?))
    };
    with_rights(user, opened).with_context(|| {
        // Root is used to writing everywhere.
        let whom = user.map_or(String::new(), |user| {
            format!(" as user {}, who called tracer and whom it will belong to (SUDO_UID)", user.uid)
        });
        format!(
            "cannot write the recording {}{whom}; nothing was started. Give another file with --output",
            path.display()
        )
    })
}

fn on_error(asked: cli::OnError) -> run::OnError {
    match asked {
        cli::OnError::Continue => run::OnError::Continue,
        cli::OnError::Stop => run::OnError::Stop,
    }
}

fn probe_options(debug: &cli::Debug) -> probe::Options {
    let mut options = probe::Options::default();
    if let Some(btf) = &debug.btf {
        options.btf.clone_from(btf);
    }
    options.ring_bytes = debug.ring_bytes;
    options.debug.silence.clone_from(&debug.silence);
    options.debug.maps_bytes = debug.maps_bytes;
    options.debug.forbid.clone_from(&debug.forbid);
    options.debug.map_entries.clone_from(&debug.maps);
    for (ring, every) in &debug.lose {
        match ring {
            cli::Ring::Process => options.debug.lose_process_every = *every,
            cli::Ring::Argv => options.debug.lose_argv_every = *every,
            cli::Ring::Net => options.debug.lose_net_every = *every,
            cli::Ring::Attempt => options.debug.lose_attempt_every = *every,
            cli::Ring::Names => options.debug.lose_names_every = *every,
            cli::Ring::Resolver => options.debug.lose_resolver_every = *every,
            cli::Ring::Tls => options.debug.lose_tls_every = *every,
        }
    }
    options
}

/// Whether a recording is as it was written; says on standard error what is wrong with one that is not.
fn is_whole(integrity: &Integrity) -> bool {
    match integrity {
        Integrity::Intact => return true,
        Integrity::CutShort => tracer::notice(format_args!(
            "the recording was cut short: it has no end record, and what happened after its \
             last line is unknown"
        )),
        Integrity::Broken { line, reason } => tracer::notice(format_args!(
            "the recording is damaged at line {line}: {reason}; nothing from there on was used"
        )),
    }
    false
}

fn schema(arguments: &cli::Schema) -> anyhow::Result<u8> {
    put(&match arguments.of {
        SchemaOf::Recording => report::recording_schema(),
        SchemaOf::Summary => report::summary_schema(),
        SchemaOf::Doctor => report::diagnosis_schema(),
    })?;
    Ok(exit::PROVEN)
}

fn completions(arguments: &cli::Completions) -> anyhow::Result<u8> {
    put(&String::from_utf8_lossy(&cli::completions(arguments.shell)))?;
    Ok(exit::PROVEN)
}

fn man(arguments: &cli::Man) -> anyhow::Result<u8> {
    let folder = &arguments.folder;
    let pages = cli::man_pages(folder).with_context(|| {
        format!("cannot write the manual pages to {}; name another folder", folder.display())
    })?;
    for page in pages {
        put(&format!("{}\n", page.display()))?;
    }
    Ok(exit::PROVEN)
}

fn doctor(arguments: &cli::Doctor) -> anyhow::Result<u8> {
    let diagnosis = run::diagnose(&probe_options(&arguments.debug));
    put(&if arguments.json { diagnosis.json() } else { diagnosis.text() })?;
    Ok(if diagnosis.usable { exit::PROVEN } else { exit::TRACER_FAILED })
}
