//! What the user typed. Nothing is opened here.

mod attach;
mod compare;
mod describe;
mod evidence;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{otlp::Collector, version::version};

pub use attach::{Attach, AttachTarget};
pub use compare::{Compare, CompareFormat, Member};
pub use describe::{Completions, Man, completions, man_pages};
pub use evidence::{Sign, Verify};

/// Exit codes that are tracer's own.
pub mod exit {
    pub const PROVEN: u8 = 0;
    pub const USAGE: u8 = 2;
    pub const VIOLATED: u8 = 10;
    pub const INCONCLUSIVE: u8 = 11;
    pub const TRACER_FAILED: u8 = 125;
    pub const NOT_STARTED: u8 = 126;
    pub const NOT_FOUND: u8 = 127;
}

const EXIT_CODES: &str = "\
Exit codes:
  without a policy   the command's own status; 128 + N when signal N ended it
  with a policy      0 proven, 10 violated, 11 inconclusive
  125                tracer itself failed
  126, 127           the command could not be started, was not found
  2                  wrong usage";

const EXAMPLES: &str = "\
Examples:
  sudo tracer run --policy no-aws-cli --output session.jsonl -- node agent.mjs
  tracer verify session.jsonl
  tracer report session.jsonl";

#[derive(Debug, Parser)]
#[command(
    name = "tracer",
    version = version(),
    about = "Proves which programs a process tree ran and which endpoints it called, from the kernel",
    after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"),
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a command under trace and give a verdict
    Run(Run),
    /// Trace what runs already: a process, a container, the whole machine
    Attach(Attach),
    /// Check a recording and judge it again, without kernel or root
    Verify(Verify),
    /// Sign a recording, for others to check
    Sign(Sign),
    /// Show a recording
    Report(Report),
    /// Put groups of recordings side by side
    Compare(Compare),
    /// Print the JSON Schema of recordings, summaries or diagnoses
    Schema(Schema),
    /// List, show and check policies
    #[command(subcommand)]
    Policy(Policy),
    /// Say what this kernel allows and which hook each sensor uses
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
}

#[derive(Debug, Args)]
#[command(after_help = concat!("\
Examples:
  sudo tracer run -- node agent.mjs
  sudo tracer run --policy no-aws-cli --output session.jsonl -- node agent.mjs
  sudo tracer run -p no-shell-outs -q -- ./service; echo $?

The command runs as the user who called sudo, in this directory, with its standard input and \
output. The summary goes to standard error.

Exit codes:
  without a policy   the command's own status; 128 + N when signal N ended it
  with a policy      0 proven, 10 violated, 11 inconclusive
  125                tracer itself failed
  126, 127           the command could not be started, was not found
  2                  wrong usage"))]
pub struct Run {
    /// Judge the run by a built-in policy or a policy file; repeatable
    #[arg(short, long = "policy", value_name = "NAME|FILE")]
    pub policies: Vec<String>,
    #[command(flatten)]
    pub catalogue: CatalogueFiles,
    /// Write the recording here (mode 0600); `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace what is in the output file. With --rotate, also remove the files of an earlier recording beside
    /// it: FILE.1, FILE.2 and so on
    #[arg(long, requires = "output")]
    pub force: bool,
    #[command(flatten)]
    pub writing: Writing,
    /// Sign the recording with this Ed25519 key (PKCS#8 PEM or OpenSSH), as `tracer sign` does
    #[arg(long, value_name = "KEY", requires = "output", conflicts_with = "rotate")]
    pub sign: Option<PathBuf>,
    /// What the exit code tells, when there is a policy
    #[arg(long, value_enum, default_value_t = ExitCodeOf::Verdict, value_name = "OF")]
    pub exit_code: ExitCodeOf,
    /// How long to wait for processes the command left behind, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub linger: u64,
    /// Record failed execs too, whatever that costs other processes on this kernel (`tracer doctor`
    /// says what); a policy with `attempts = true` does so by itself
    #[arg(long)]
    pub attempts: bool,
    /// Record which names programs have the C library resolve (getaddrinfo), which makes such calls
    /// slower in other processes too (`tracer doctor` says how); a policy that judges names does so
    /// by itself
    #[arg(long)]
    pub resolver: bool,
    /// Record calls by HTTP, also inside TLS (OpenSSL of Node, python, curl and others), which makes
    /// each call of SSL_read and SSL_write slower in other processes too (`tracer doctor` says how, and
    /// which calls are not seen). Of URLs and headers, what may be a secret is not recorded
    #[arg(long)]
    pub http: bool,
    /// Record the model and the version of the API that requests of AI services name, too. They stand
    /// in bodies, of which nothing else is recorded
    #[arg(long, requires = "http")]
    pub http_fields: bool,
    /// Kill a program that a policy's `never-runs` forbids before its first instruction
    #[arg(long, requires = "policies")]
    pub enforce: bool,
    /// No summary
    #[arg(short, long)]
    pub quiet: bool,
    /// The whole report instead of the summary
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
    #[command(flatten)]
    pub debug: Debug,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct CatalogueFiles {
    /// Extend the catalogue of programs, hand-offs and endpoints by a file; repeatable
    #[arg(long = "catalogue", value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// How a recording is written.
#[derive(Debug, Args)]
pub struct Writing {
    /// Go on in FILE.1, FILE.2, ... when a file has this size: a number and K, M or G; at least 64K. The
    /// digests go on across the files, and `tracer verify FILE` reads all of them
    #[arg(long, value_name = "SIZE", requires = "output", value_parser = size)]
    pub rotate: Option<u64>,
    /// What happens when the recording cannot be written any more, as on a full disk
    #[arg(long, value_enum, default_value_t = OnError::Continue, value_name = "WHAT")]
    pub on_error: OnError,
    /// Send log records of execs, connections, calls and the verdict to an OpenTelemetry collector (OTLP by
    /// HTTP, such as http://127.0.0.1:4318) while tracing runs. Nothing waits for it: the recording has what
    /// it does not take
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<Collector>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// The command runs to its end, and tracer fails then
    Continue,
    /// The command gets SIGTERM; after `attach`, tracing ends
    Stop,
}

fn size(text: &str) -> Result<u64, String> {
    const SMALLEST: u64 = 64 << 10;
    let wrong = || "it must be a number and K, M or G, and 64K at least".to_owned();
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        Some(_) | None => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes >= SMALLEST).ok_or_else(wrong)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExitCodeOf {
    /// 0 proven, 10 violated, 11 inconclusive
    Verdict,
    /// The command's own status
    Command,
}

/// Switches for tests and for seeing what a failure looks like.
#[derive(Debug, Args)]
pub struct Debug {
    /// Lose every n-th record of a ring: RING=N, with RING one of process, argv, net, attempt, names, resolver, tls
    #[arg(long = "debug-lose", value_name = "RING=N", hide = true, value_parser = lose)]
    pub lose: Vec<(Ring, u32)>,
    /// Do not attach this probe
    #[arg(long = "debug-silence", value_name = "PROBE", hide = true)]
    pub silence: Option<String>,
    /// Do not attach anything this way: fexit, tracepoint, uprobe; repeatable
    #[arg(long = "debug-forbid", value_name = "WAY", hide = true)]
    pub forbid: Vec<String>,
    /// Give a map of the kernel side so many entries: TREE, SOCKETS, FLOWS, LEDGER; repeatable
    #[arg(long = "debug-map", value_name = "MAP=ENTRIES", hide = true, value_parser = map_entries)]
    pub maps: Vec<(String, u32)>,
    /// Read the kernel's type information from here
    #[arg(long = "debug-btf", value_name = "FILE", hide = true)]
    pub btf: Option<PathBuf>,
    /// Bytes of each ring of executable mappings
    #[arg(long = "debug-maps-bytes", value_name = "BYTES", hide = true, value_parser = ring_bytes)]
    pub maps_bytes: Option<u32>,
    /// Bytes of each ring
    #[arg(long = "debug-ring-bytes", value_name = "BYTES", hide = true, value_parser = ring_bytes)]
    pub ring_bytes: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ring {
    Process,
    Argv,
    Net,
    Attempt,
    Names,
    Resolver,
    Tls,
}

fn lose(text: &str) -> Result<(Ring, u32), String> {
    let (ring, every) = text.split_once('=').ok_or("it must be RING=N")?;
    let every = every.parse::<u32>().map_err(|error| error.to_string())?;
    Ok((Ring::from_str(ring, false)?, every))
}

fn map_entries(text: &str) -> Result<(String, u32), String> {
    let (map, entries) = text.split_once('=').ok_or("it must be MAP=ENTRIES")?;
    let entries = entries.parse::<u32>().map_err(|error| error.to_string())?;
    Ok((map.to_owned(), entries))
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    const PAGE: u32 = 4096;
    let bytes = text.parse::<u32>().map_err(|error| error.to_string())?;
    if bytes.is_power_of_two() && bytes >= PAGE {
        Ok(bytes)
    } else {
        Err(format!("a ring is a power of two of at least {PAGE} bytes"))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tracer report session.jsonl
  tracer report --format html --output session.html session.jsonl
  tracer report --format perfetto -o trace.json session.jsonl   # for ui.perfetto.dev
  tracer report --format json session.jsonl | jq .totals
  tracer report --otlp-endpoint http://127.0.0.1:4318 session.jsonl

The verdict is computed from the events and counters; the one written in the recording is not used.

Exit codes: 0 shown, 11 shown as far as it goes, because the recording is damaged or has no end, \
125 not readable")]
pub struct Report {
    /// What to make of it
    #[arg(short, long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub format: Format,
    /// Write it here (mode 0600); `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace what is in the output file
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Show everything. Without it, text, markdown and html are an excerpt of a recording of more than
    /// 200,000 records, and say so
    #[arg(long)]
    pub all: bool,
    /// Send log records to an OpenTelemetry collector (OTLP by HTTP) instead of writing anything
    #[arg(long, value_name = "URL", conflicts_with_all = ["format", "output"])]
    pub otlp_endpoint: Option<Collector>,
    /// A recording; `-` is standard input
    #[arg(value_name = "RECORDING")]
    pub recording: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For the terminal
    Text,
    /// A document: finding, evidence, what follows, how to check it
    Markdown,
    /// One page with a timeline, which needs nothing else
    Html,
    /// The summary as one object; `tracer schema summary` describes it
    Json,
    /// Chrome trace events, for ui.perfetto.dev
    Perfetto,
    /// Log records as an OpenTelemetry collector writes and reads them in files (OTLP/JSON lines)
    Otlp,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tracer schema > recording.schema.json
  tracer schema summary > summary.schema.json
  tracer schema doctor > doctor.schema.json")]
pub struct Schema {
    /// Of what
    #[arg(value_enum, default_value_t = SchemaOf::Recording, value_name = "WHAT")]
    pub of: SchemaOf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// A line of a recording
    Recording,
    /// What `report --format json` prints
    Summary,
    /// What `doctor --json` prints
    Doctor,
}

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  tracer policy list
  tracer policy show no-shell-outs > mine.toml
  tracer policy check mine.toml")]
pub enum Policy {
    /// List the built-in policies
    #[command(after_help = "Examples:\n  tracer policy list")]
    List,
    /// Print a built-in policy, to start a file of your own from
    #[command(after_help = "Examples:\n  tracer policy show no-shell-outs > mine.toml")]
    Show {
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Check a policy file, and say what it means
    #[command(after_help = "\
Examples:
  tracer policy check mine.toml
  tracer policy check --catalogue programs.toml mine.toml
  tracer policy check --endpoint sts.us-east-1.amazonaws.com
  tracer policy check --endpoint api.example.com:443 --endpoint 10.0.0.1 mine.toml

Exit codes: 0 valid, 2 not valid")]
    Check {
        /// Say which rule of the catalogue this is, and what the policy would say of a contact with
        /// it; repeatable
        #[arg(long = "endpoint", value_name = "NAME[:PORT]")]
        endpoints: Vec<String>,
        #[arg(value_name = "NAME|FILE", required_unless_present = "endpoints")]
        file: Option<String>,
        #[command(flatten)]
        catalogue: CatalogueFiles,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo tracer doctor
  sudo tracer doctor --json | jq .usable

Exit codes: 0 tracer can work here, 125 it cannot")]
pub struct Doctor {
    /// As one object; `tracer schema doctor` describes it
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub debug: Debug,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn sizes_have_units() {
        let check =
            |text: &str, bytes: Option<u64>| assert_eq!(super::size(text).ok(), bytes, "{text}");
        check("64K", Some(65_536));
        check("100M", Some(104_857_600));
        check("2G", Some(2_147_483_648));
        for wrong in
            ["", "K", "63K", "1", "1T", "-1M", "99999999999999999999G", "18446744073709551615G"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_help_has_examples_that_parse() {
        let mut examples = 0;
        let mut commands = vec![super::Cli::command()];
        while let Some(mut command) = commands.pop() {
            command.build();
            let help = command.render_long_help().to_string();
            let (_, rest) = help.split_once("Examples:\n").expect(&help);
            let lines = rest.lines().take_while(|line| line.starts_with("  "));
            let lines = lines.map(|line| line.trim().trim_start_matches("sudo "));
            for line in lines.filter(|line| line.starts_with("tracer")) {
                let end = line.find([';', '|', '>', '#']).unwrap_or(line.len());
                let words = line[..end].split_whitespace().map(|word| word.trim_matches('\''));
                super::Cli::command().try_get_matches_from(words).expect(line);
                examples += 1;
            }
            commands.extend(command.get_subcommands().cloned());
        }
        assert!(examples > 15, "{examples}");
    }
}
